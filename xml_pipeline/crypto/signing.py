"""Signing envelopes that leave the organism. What is signed, and why so, is told in `xml_pipeline.crypto.signature`.

`sign` is for what goes over a wire: bytes to bytes. The functions on trees have the names of older versions; what they
write is the same. `verify_envelope` answers one question only, whether the key signed this tree: a door that lets
messages in asks more (`xml_pipeline.crypto.verification`).
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Final

from lxml import etree

from xml_pipeline.crypto.identity import verify_with_public_key
from xml_pipeline.crypto.refusals import SignatureError, SignatureRefused
from xml_pipeline.crypto.signature import (
    SIGNATURE_NAMESPACE,
    Signature,
    encode_value,
    find_signature,
    format_time,
    is_message_id,
    meta_of,
)
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

if TYPE_CHECKING:
    from lxml.etree import _Element

    from xml_pipeline.crypto.identity import Ed25519PublicKey, Identity

__all__ = [
    "SIGNATURE_NAMESPACE",
    "SignatureError",
    "extract_signature",
    "is_signed",
    "sign",
    "sign_envelope",
    "strip_signature",
    "verify_envelope",
    "verify_envelope_with_identity",
]

_NAMESPACE: Final = SIGNATURE_NAMESPACE.encode()


def sign(
    envelope: bytes,
    identity: Identity,
    *,
    destination: str,
    message_id: str | None = None,
    created: float | None = None,
) -> bytes:
    """Sign an envelope.

    Args:
        envelope: the envelope in UTF-8. What is signed, and returned, is its exclusive canonical form; a signature that
            is in it already is replaced.
        identity: who signs.
        destination: whom it is for, by the name that the receiver will verify it with.
        message_id: names this sending of it, once; up to 128 letters, digits and ``._:-``. To send the same again is
            another sending, or it would be refused as a replay. Default: a new UUID.
        created: when it is signed, in seconds since 1970; default: now.

    Returns:
        The canonical bytes of the signed envelope.

    Raises:
        SignatureError: it is no envelope, has signatures where none belong, or the id, the time or the destination
            cannot be written.
        ValidationError: the bytes are not well-formed, or use what `strict_xml` refuses.
    """
    root = parse_strict(envelope)
    if _NAMESPACE in envelope:  # perhaps declared where nothing uses it; the canonical form has no such declarations
        root = parse_strict(canonical_bytes(root))
    _sign(root, identity, destination, message_id, created)
    return canonical_bytes(root)


def sign_envelope(
    envelope: _Element,
    identity: Identity,
    *,
    in_place: bool = False,
    destination: str = "",
    message_id: str | None = None,
    created: float | None = None,
) -> _Element:
    """`sign` for a tree.

    Args:
        envelope: the root element.
        identity: who signs.
        in_place: whether ``envelope`` itself is signed, instead of a copy without comments and processing instructions.
        destination: see `sign`. Nobody has the empty name, so no door accepts an envelope without a destination.
        message_id: see `sign`.
        created: see `sign`.

    Returns:
        The signed envelope.

    Raises:
        SignatureError: see `sign`; or there are comments or processing instructions in what is to be signed in place.
    """
    if in_place:
        if _has_more_than_elements(envelope):
            raise SignatureError("an envelope with comments or processing instructions is not signed in place")
        root = envelope
    else:
        root = parse_strict(canonical_bytes(envelope))
    _sign(root, identity, destination, message_id, created)
    return root


def _sign(root: _Element, identity: Identity, destination: str, message_id: str | None, created: float | None) -> None:
    meta = meta_of(root)
    if meta is None:
        raise SignatureError("it cannot be signed: missing <meta>")
    signature = _to_be_signed(identity, destination, message_id, created)
    try:
        element = signature.element()
    except ValueError as error:
        raise SignatureError(f"the destination cannot be written: {error}") from None
    _remove(_found(root))
    element.text = encode_value(identity.sign(signature.signed_bytes(canonical_bytes(root))))
    meta.append(element)
    if element.prefix is not None:  # lxml took a declaration from above it
        meta.remove(element)
        raise SignatureError("it cannot be signed: it declares a prefix for the namespace of signatures")


def _to_be_signed(identity: Identity, destination: str, message_id: str | None, created: float | None) -> Signature:
    message_id = str(uuid.uuid4()) if message_id is None else message_id
    if not is_message_id(message_id):
        raise SignatureError("a message id is up to 128 letters, digits and ._:- beginning with a letter or digit")
    try:
        when = format_time(time.time() if created is None else created)
    except ValueError as error:
        raise SignatureError(f"the time cannot be written: {error}") from None
    return Signature(identity.key_id, when, message_id, destination)


def _found(root: _Element) -> _Element | None:
    try:
        return find_signature(root)
    except SignatureRefused as refused:
        raise SignatureError(refused.detail) from None


def _remove(element: _Element | None) -> None:
    parent = None if element is None else element.getparent()
    if element is not None and parent is not None:
        parent.remove(element)  # there is no text behind it that would go too


def _has_more_than_elements(root: _Element) -> bool:
    """Whether there are nodes that the canonical form leaves out, and that split the text around them."""
    return next(root.iter(etree.Comment, etree.PI, etree.Entity), None) is not None


def verify_envelope(envelope: _Element, public_key: Ed25519PublicKey) -> bool:
    """Whether the envelope has a signature of this key over all of it, with the time, id and destination in it.

    Whether it is fresh, meant for the reader and here for the first time is not asked.

    Returns:
        ``False`` also if it is unsigned, signed in another place or twice, or has comments or processing instructions.
    """
    if _has_more_than_elements(envelope):
        return False
    root = parse_strict(canonical_bytes(envelope))
    try:
        found = find_signature(root)
        if found is None:
            return False
        signature = Signature.read(found)
    except (SignatureRefused, ValueError):
        return False
    _remove(found)
    return verify_with_public_key(public_key, signature.value, signature.signed_bytes(canonical_bytes(root)))


def verify_envelope_with_identity(envelope: _Element, identity: Identity) -> bool:
    """`verify_envelope` with an identity's public key."""
    return verify_envelope(envelope, identity.public_key)


def extract_signature(envelope: _Element) -> str | None:
    """The base64 of the signature in an envelope, unverified; ``None`` if it has none, or none that can be read."""
    try:
        found = find_signature(envelope)
        return None if found is None else encode_value(Signature.read(found).value)
    except (SignatureRefused, ValueError):
        return None


def is_signed(envelope: _Element) -> bool:
    """Whether there is a signature in the envelope that can be read; not whether it is good."""
    return extract_signature(envelope) is not None


def strip_signature(envelope: _Element, *, in_place: bool = False) -> _Element:
    """The envelope without its signature.

    Args:
        envelope: the root element.
        in_place: whether it is taken out of ``envelope`` itself, instead of a copy without comments and processing
            instructions.

    Raises:
        SignatureError: there are signatures where none belong.
    """
    root = envelope if in_place else parse_strict(canonical_bytes(envelope))
    _remove(_found(root))
    return root
