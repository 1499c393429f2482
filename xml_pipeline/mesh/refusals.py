"""What it means when a server does not take us, or not what we do: the errors, and words that say what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import ConnectionDenied, ConnectionFailed, MeshError
from xml_pipeline.mesh.url import is_loopback, without_password

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xml_pipeline.mesh.options import ConnectionOptions

__all__ = ["PUBLISH", "SUBSCRIBE", "Failure", "Refusal", "complaint_in", "is_about", "refusal_in", "why_not"]

PUBLISH = "publish"
SUBSCRIBE = "subscription"

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)
_WHO = re.compile(r"authorization violation|authentication (expired|revoked|timeout)|account|user .*expired", re.I)
_LONGEST = 200


class Refusal(Enum):
    """Why a connection was not made, as far as the kind of the error says it: what helps most comes first."""

    NO_KEYS = "a package for keys is missing"
    CREDENTIALS = "the server does not take them"
    OUR_CERTIFICATE = "the server wants one that it trusts"
    COMPLAINT = "the server said something else against it"
    CERTIFICATE = "the server's certificate is not trusted"
    NOT_ENCRYPTED = "TLS was asked for, and the server does without"
    TLS = "TLS failed in another way"
    STRANGER = "what answers is no nats-server"
    UNKNOWN = "look at what it says"


_ORDER = list(Refusal)
_DENIALS = (Refusal.CREDENTIALS, Refusal.OUR_CERTIFICATE, Refusal.COMPLAINT)


@dataclass(frozen=True, slots=True)
class Failure:
    """One server to which no connection was made.

    Args:
        url: of the server.
        kind: what is known of it.
        error: what there was.
    """

    url: str = field(repr=False)  # it may have a password in it
    kind: Refusal
    error: Exception

    @property
    def place(self) -> str:
        """The URL as it may be shown."""
        return without_password(self.url)

    @property
    def text(self) -> str:
        """What the error says."""
        return (str(self.error) or type(self.error).__name__).rstrip(".")


def complaint_in(said: str) -> str:
    """A server's complaint as it may be shown: without its quotes, on one line, and not too long."""
    words = "".join(char if char.isprintable() else "?" for char in said.strip().strip("'"))
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."


def refusal_in(said: str) -> ConnectionDenied | None:
    """The error of a subject that the server does not permit; ``None`` where it said something else.

    Args:
        said: the server's complaint, in its own words.
    """
    found = _DENIED.search(said)
    if found is None:
        return None
    operation, subject = found[1].lower(), found[2]
    verb = "publish to" if operation == PUBLISH else "subscribe to"
    return ConnectionDenied(
        f"The server does not permit to {verb} {subject}.", details={"operation": operation, "subject": subject}
    )


def is_about(error: ConnectionDenied, operation: str) -> bool:
    """Whether it was this operation that was not permitted: `PUBLISH` or `SUBSCRIBE`."""
    return error.details.get("operation") == operation


def why_not(failures: Sequence[Failure], options: ConnectionOptions) -> MeshError:
    """The error of a connection that was not made to any server: of the kind that helps most, and with all reasons.

    Args:
        failures: at least one.
        options: how it was to be made.
    """
    first, *others = sorted(map(_about_us, failures), key=lambda failure: (_ORDER.index(failure.kind), failure.place))
    kind = ConnectionDenied if first.kind in _DENIALS else ConnectionFailed
    text = _sentence(first, options)
    if others:
        reasons = "; ".join(f"{failure.place}: {_reason(failure)}" for failure in others)
        text = f"{text.rstrip('.')}. No other server helps: {reasons}."
    return kind(text)


def _about_us(failure: Failure) -> Failure:
    """The same; where the server complains about who we are, of that kind."""
    if failure.kind is Refusal.COMPLAINT and _WHO.search(failure.text):
        return Failure(failure.url, Refusal.CREDENTIALS, failure.error)
    return failure


def _sentence(failure: Failure, options: ConnectionOptions) -> str:
    where, text = failure.place, failure.text
    if failure.kind is Refusal.NO_KEYS:
        return f"Credentials files need the package nkeys: pip install 'nats-py[nkeys]' ({text})"
    if failure.kind is Refusal.CREDENTIALS:
        return f"The server at {where} {_who(failure, options)}: {text}."
    if failure.kind is Refusal.COMPLAINT:
        return f"The server at {where} does not let us in: {text}."
    if failure.kind is Refusal.NOT_ENCRYPTED:
        return (
            f"The server at {where} does not insist on TLS, which was asked for; nothing was sent to it. "
            "Configure it with a certificate, or connect without tls:// and tls_... if that is what you want."
        )
    if failure.kind is Refusal.CERTIFICATE:
        return (
            f"The server at {where} has a certificate that is not trusted: {text}. "
            "Name the file of the authority that signed it: AgentMesh(..., tls_ca=...)."
        )
    if failure.kind is Refusal.OUR_CERTIFICATE:
        return (
            f"The server at {where} asks for a client certificate that it trusts: {text}. "
            "Name its files: AgentMesh(..., tls_cert=..., tls_key=...)."
        )
    if failure.kind is Refusal.TLS:
        return f"There is no encrypted connection to the mesh at {where}: {text}."
    return f"There is no connection to the mesh at {where}: {_reason(failure)}. {_what_to_do(failure)}"


_REASONS = {
    Refusal.CREDENTIALS: "it does not take who we are: {}",
    Refusal.COMPLAINT: "it does not let us in: {}",
    Refusal.NOT_ENCRYPTED: "it does not insist on TLS",
    Refusal.CERTIFICATE: "its certificate is not trusted: {}",
    Refusal.OUR_CERTIFICATE: "it asks for a client certificate that it trusts: {}",
    Refusal.TLS: "no encrypted connection: {}",
    Refusal.STRANGER: "what answers there is no nats-server",
}


def _reason(failure: Failure) -> str:
    """What happened, in few words, and without what only a programmer of clients understands."""
    if failure.kind is Refusal.UNKNOWN and isinstance(failure.error, TimeoutError):
        return "nothing there answers as a nats-server does"
    return _REASONS.get(failure.kind, "{}").format(failure.text)


def _who(failure: Failure, options: ConnectionOptions) -> str:
    if replace(options, url=failure.url).is_open:  # another of the URLs may have a user in it
        return "wants to know who you are (creds=..., or user:password@ in the URL)"
    return "refused the credentials"


def _what_to_do(failure: Failure) -> str:
    if is_loopback(failure.url):
        return "Is a server running? AgentMesh.local() and `xml-pipeline mesh up` start one."
    return "Is it running, and can it be reached from here?"
