"""The door for envelopes from other organisms: verifies first, and lets nobody look at what was not verified.

What `Verifier.verify` does, in this order; the first thing that is wrong refuses the envelope, with its `Reason`:

1.  The size, before anything is read.
2.  One parse, by the one strict parser (`xml_pipeline.strict_xml`), and the shape of the tree, because the cost of a
    canonical form grows faster than the number of attributes.
3.  Nothing is in the namespace of signatures, or one ``sig`` at its place (`xml_pipeline.crypto.signature`).
4.  The bytes are their own canonical form. From here on the tree is only another view of these bytes.
5.  The key is one that is trusted; its policy, or that for everybody else, says how to go on (`trust`).
6.  The signature, over the bytes without ``sig``.
7.  The name in ``from`` is one that the key speaks for.
8.  The destination is whom the caller says it is for.
9.  The time, and that it was not here before (`replay`). This comes last, so that nothing but a message that is good
    in every other respect uses up room, and an id.

What it returns are the bytes that were signed, cut out of those that came in; whatever reads them later reads what was
verified, and never sees the signature.

The reasons from 7 on are facts about whoever holds the key, or about somebody who recorded his messages: their
signature was good. Those before could be anybody's doing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lxml import etree

from xml_pipeline.crypto.identity import verify_with_public_key
from xml_pipeline.crypto.refusals import Reason, SignatureRefused
from xml_pipeline.crypto.replay import Seen
from xml_pipeline.crypto.signature import SIGNATURE_NAMESPACE, Signature, find_signature
from xml_pipeline.crypto.trust import Policy
from xml_pipeline.envelope import read_meta
from xml_pipeline.errors import ValidationError
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

if TYPE_CHECKING:
    from lxml.etree import XPath, _Element

    from xml_pipeline.crypto.replay import ReplayGuard
    from xml_pipeline.crypto.trust import TrustedKey, TrustStore

__all__ = ["Verified", "Verifier", "may_be_signed"]

_NAMESPACE: Final = SIGNATURE_NAMESPACE.encode()
_MAX_BYTES: Final = 1_048_576
_MAX_ATTRIBUTES: Final = 256
"""On one element; and so many namespace prefixes may be in scope."""


@dataclass(frozen=True, slots=True)
class Verified:
    """An envelope that was let in.

    Args:
        envelope: without its signature. Of a signed one, the exact bytes that were signed, which are canonical; an
            unsigned one is as it came.
        sender: the name in ``from``. What it is worth, `key_id` says.
        key_id: the key that signed it, and may speak for `sender`; ``None`` if the sender is not proven.
        message_id: the id that was signed; empty if the sender is not proven.
        created: when it was signed, in seconds since 1970; 0 if the sender is not proven.
        root: the tree of `envelope`, if it came without a signature: it need not be parsed again; else ``None``.
    """

    envelope: bytes
    sender: str
    key_id: str | None = None
    message_id: str = ""
    created: float = 0.0
    root: _Element | None = field(default=None, compare=False, repr=False)

    @property
    def is_proven(self) -> bool:
        """Whether the sender is who the envelope says."""
        return self.key_id is not None


def may_be_signed(raw: bytes) -> bool:
    """Whether `Verifier.verify` may find out who sent an envelope. Where this is false, it never does: what is signed
    is canonical, and in canonical form the name of a namespace stands as it is (Canonical XML 1.0, section 2.3).

    Args:
        raw: what was received.
    """
    return _NAMESPACE in raw


class Verifier:
    """Verifies what comes in. May be used from several threads.

    Args:
        trust: whose signatures count. To change it, put another store in its place.
        window: what came in already.
        max_bytes: how large an envelope may be, with its signature.
    """

    def __init__(self, trust: TrustStore, window: ReplayGuard, *, max_bytes: int = _MAX_BYTES) -> None:
        self.trust = trust
        self.window = window
        self.max_bytes = max_bytes

    def verify(self, raw: bytes, destination: str) -> Verified:
        """Let an envelope in, or refuse it.

        Args:
            raw: what was received.
            destination: whom a message must be signed for to be let in: the name of whoever receives it here.

        Raises:
            SignatureRefused: with the reason.
        """
        trust = self.trust  # one store for the whole message, whatever is put in its place meanwhile
        root = self._parse(raw)
        element = find_signature(root)
        if element is None:
            return _unproven(raw, root, trust, root)
        signature = _read(element)
        envelope = _cut(raw, root, element)
        key = trust.find(signature.key_id)
        if (key.policy if key else trust.default) is Policy.IGNORE:
            return _unproven(envelope, root, trust)
        if key is None:
            raise SignatureRefused(Reason.UNTRUSTED_KEY, "the key it names is not trusted")
        if not verify_with_public_key(key.public_key, signature.value, signature.signed_bytes(envelope)):
            raise SignatureRefused(
                Reason.BAD_SIGNATURE, f"it is not signed by the key {key.key_id} that it names", key_id=key.key_id
            )
        return self._admit(envelope, _sender(root, envelope), signature, key, destination)

    def _parse(self, raw: bytes) -> _Element:
        if not isinstance(raw, bytes):
            raise TypeError(f"an envelope is verified as bytes, not {type(raw).__name__}")
        if len(raw) > self.max_bytes:
            raise SignatureRefused(Reason.TOO_LARGE, f"{len(raw)} bytes; at most {self.max_bytes} are allowed")
        try:
            root = parse_strict(raw)
        except ValidationError:  # its text quotes the message
            raise SignatureRefused(Reason.MALFORMED, "it is not well-formed, or uses what is not allowed") from None
        _check_shape(raw, root)
        return root

    def _admit(self, envelope: bytes, sender: str, signature: Signature, key: TrustedKey, destination: str) -> Verified:
        def refused(reason: Reason, detail: str) -> SignatureRefused:
            told = f"{detail}; signed by the key {key.key_id}, message {signature.message_id}"
            return SignatureRefused(reason, told, key_id=key.key_id, message_id=signature.message_id)

        if not key.speaks_for(sender):
            raise refused(Reason.NAME_NOT_ALLOWED, "the key may not speak for its sender")
        if signature.destination != destination or not destination:
            raise refused(Reason.WRONG_DESTINATION, "it was signed for somebody else")
        created = signature.time
        reason = self.window.admit(Seen(key.key_id, signature.message_id, created))
        if reason is not None:
            raise refused(reason, f"it was signed at {signature.created}")
        return Verified(envelope, sender, key.key_id, signature.message_id, created)


def _read(element: _Element) -> Signature:
    try:
        return Signature.read(element)
    except ValueError as error:
        raise SignatureRefused(Reason.MALFORMED, str(error)) from None


def _cut(raw: bytes, root: _Element, element: _Element) -> bytes:
    """The envelope without its signature, which is a piece of the text as long as the text is canonical."""
    try:
        is_canonical = canonical_bytes(root) == raw
        head, found, tail = raw.partition(canonical_bytes(element))
    except ValidationError:
        is_canonical = False
    if not is_canonical or not found:
        raise SignatureRefused(Reason.NOT_CANONICAL, "it is not its own exclusive canonical form")
    return head + tail


def _unproven(envelope: bytes, root: _Element, trust: TrustStore, tree: _Element | None = None) -> Verified:
    sender = _sender(root)
    if trust.asked_of(sender) is Policy.REQUIRE:
        raise SignatureRefused(Reason.UNSIGNED, "messages from its sender must be signed")
    return Verified(envelope, sender, root=tree)


def _sender(root: _Element, canonical: bytes = b"") -> str:
    try:
        return read_meta(root, canonical)[0]
    except ValidationError:
        raise SignatureRefused(Reason.MALFORMED, "it is no envelope, or its meta is not complete") from None


def _check_shape(raw: bytes, root: _Element) -> None:
    # Counting one byte first spares almost every message the look at the tree.
    if raw.count(b"=") <= _MAX_ATTRIBUTES:
        return
    in_scope = 0
    for event, _ in etree.iterwalk(root, events=("start-ns", "end-ns")):
        in_scope += 1 if event == "start-ns" else -1
        if in_scope > _MAX_ATTRIBUTES:
            raise SignatureRefused(Reason.TOO_LARGE, f"more than {_MAX_ATTRIBUTES} namespace prefixes are in scope")
    if _many_attributes()(root):
        raise SignatureRefused(Reason.TOO_LARGE, f"an element has more than {_MAX_ATTRIBUTES} attributes")


@functools.cache
def _many_attributes() -> XPath:
    return etree.XPath(f"boolean(//@*[{_MAX_ATTRIBUTES + 1}])")
