"""What it means when a server does not take us, or not what we do: the errors, and words that say what to do."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import ConnectionDenied, ConnectionFailed, MeshError
from xml_pipeline.mesh.url import is_loopback

if TYPE_CHECKING:
    from xml_pipeline.mesh.options import ConnectionOptions

__all__ = ["PUBLISH", "SUBSCRIBE", "Refusal", "is_about", "refusal_in", "why_not"]

PUBLISH = "publish"
SUBSCRIBE = "subscription"

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)
_WHO = re.compile(r"authorization violation|authentication (expired|revoked|timeout)|account|user .*expired", re.I)


class Refusal(Enum):
    """Why a connection was not made, as far as the kind of the error says it."""

    CREDENTIALS = "the server does not take them"
    NO_KEYS = "a package for keys is missing"
    NOT_ENCRYPTED = "TLS was asked for, and the server does without"
    CERTIFICATE = "the server's certificate is not trusted"
    OUR_CERTIFICATE = "the server wants one that it trusts"
    TLS = "TLS failed in another way"
    UNKNOWN = "look at what it says"


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


def why_not(kind: Refusal, error: Exception, options: ConnectionOptions) -> MeshError:
    """The error of a connection that was not made.

    Args:
        kind: what is known of it.
        error: what there was.
        options: how it was to be made.
    """
    where, text = options.place, str(error) or type(error).__name__
    if kind is Refusal.NO_KEYS:
        return ConnectionFailed(f"Credentials files need the package nkeys: pip install 'nats-py[nkeys]' ({error})")
    if kind is Refusal.CREDENTIALS or (kind is Refusal.UNKNOWN and _WHO.search(text)):
        return ConnectionDenied(f"The server at {where} {_who(options)}: {text}")
    if kind is Refusal.NOT_ENCRYPTED:
        return ConnectionFailed(
            f"The server at {where} does not insist on TLS, which was asked for; nothing was sent to it. "
            "Configure it with a certificate, or connect without tls:// and tls_... if that is what you want."
        )
    if kind is Refusal.CERTIFICATE:
        return ConnectionFailed(
            f"The server at {where} has a certificate that is not trusted: {text}. "
            "Name the file of the authority that signed it: AgentMesh(..., tls_ca=...)."
        )
    if kind is Refusal.OUR_CERTIFICATE:
        return ConnectionDenied(
            f"The server at {where} asks for a client certificate that it trusts: {text}. "
            "Name its files: AgentMesh(..., tls_cert=..., tls_key=...)."
        )
    if kind is Refusal.TLS:
        return ConnectionFailed(f"There is no encrypted connection to the mesh at {where}: {text}.")
    return ConnectionFailed(f"There is no connection to the mesh at {where}: {_plain(error)}. {_what_to_do(options)}")


def _plain(error: Exception) -> str:
    """What happened, without what only a programmer of clients understands."""
    if isinstance(error, TimeoutError):
        return "nothing there answers as a nats-server does"
    text = str(error) or type(error).__name__
    if "INFO" in text or "empty response" in text:
        return "what answers there is no nats-server"
    return text.rstrip(".")


def _who(options: ConnectionOptions) -> str:
    if options.is_open:
        return "wants to know who you are (creds=..., or user:password@ in the URL)"
    return "refused the credentials"


def _what_to_do(options: ConnectionOptions) -> str:
    if is_loopback(options.url):
        return "Is a server running? AgentMesh.local() and `xml-pipeline mesh up` start one."
    return "Is it running, and can it be reached from here?"
