"""The signature of an envelope: what is signed, and where it stands.

::

    <message xmlns="https://xml-pipeline.org/ns/envelope/v1">
      <meta>
        <from>shop.clerk</from>
        <thread>...</thread>
        <sig xmlns="https://xml-pipeline.org/ns/sig/v1"
             created="2026-01-31T12:00:00.000Z" id="..." key="..." to="billing">BASE64</sig>
      </meta>
      ...
    </message>

What is signed are bytes, not a tree::

    "xml-pipeline envelope signature v1" NUL
    key, created, id, to              each after its length in 4 bytes, in UTF-8
    the envelope without ``sig``      after its length in 8 bytes: its exclusive canonical form

So a signature is good for one key, one time, one id, one destination and one envelope; none of these can be changed, or
exchanged for another message's. Because every part stands behind its length, no two different messages are signed as
the same bytes; because of the first line, nothing else that the key ever signs is mistaken for an envelope.

Why each rule is as it is:

=====================================  =================================================================================
the whole envelope is signed, and      wrapping attacks let a verifier check one part, found by its id, and the
there are no references or ids         application read another (McIntosh and Austel, "XML Signature Element Wrapping
                                       Attacks and Countermeasures", 2005; XML Signature Best Practices, section 2.1.2)
there is exactly one ``sig``, the last the same: what is not looked for cannot be moved. No other element may be in
child of ``meta``                      this namespace, in no extension and no payload
what is received is refused unless it  the signature is then one over the received bytes. Comments, other spellings of
is its own canonical form              namespaces, character references, white space in tags: nothing is left over that
                                       could differ between what was signed and what is read (Exclusive XML
                                       Canonicalization 1.0, section 2; Canonical XML 1.0, section 4)
the key is part of what is signed      a signature can be made to fit a second key otherwise ("Seems legit", Jackson,
                                       Cremers, Cohn-Gordon and Sasse, 2019)
``S`` below the order of the curve,    RFC 8032, section 5.1.7, and 8.4 on malleability: of one signature nobody makes a
one spelling of base64 and of the time second that is good too
=====================================  =================================================================================

Namespace and the name ``sig`` are those of older versions, whose signature was over the canonical envelope alone; it is
not accepted, because it could be replayed and re-addressed.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from lxml import etree

from xml_pipeline.crypto.refusals import Reason, SignatureRefused
from xml_pipeline.envelope import ENVELOPE_NAMESPACE

if TYPE_CHECKING:
    from lxml.etree import _Element

__all__ = [
    "SIGNATURE_NAMESPACE",
    "Signature",
    "encode_value",
    "find_signature",
    "format_time",
    "is_message_id",
    "meta_of",
]

SIGNATURE_NAMESPACE: Final = "https://xml-pipeline.org/ns/sig/v1"

_SIG: Final = f"{{{SIGNATURE_NAMESPACE}}}sig"
_ANY: Final = f"{{{SIGNATURE_NAMESPACE}}}*"
_MESSAGE: Final = f"{{{ENVELOPE_NAMESPACE}}}message"
_META: Final = f"{{{ENVELOPE_NAMESPACE}}}meta"

_NSMAP: Final[Any] = {None: SIGNATURE_NAMESPACE}  # the stubs know of no default namespace

_CONTEXT: Final = b"xml-pipeline envelope signature v1\0"
_ATTRIBUTES: Final = {"created", "id", "key", "to"}
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_\-]{43}")
# One spelling of each moment: hour 24 would be another one of the next day's hour 0.
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_VALUE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Signature:
    """What a ``sig`` element says.

    Args:
        key_id: the key that signed.
        created: when, as `format_time` writes it.
        message_id: unique among what the key signs.
        destination: whom it is for.
        value: the Ed25519 signature, 64 bytes.
    """

    key_id: str
    created: str
    message_id: str
    destination: str
    value: bytes = b""

    @property
    def time(self) -> float:
        """When it was signed, in seconds since 1970."""
        return _parse_time(self.created)

    def signed_bytes(self, envelope: bytes) -> bytes:
        """What is signed; see the top of this module.

        Args:
            envelope: the canonical bytes of the envelope without its signature.
        """
        parts = [_CONTEXT]
        for text in (self.key_id, self.created, self.message_id, self.destination):
            encoded = text.encode()
            parts += (len(encoded).to_bytes(4, "big"), encoded)
        parts += (len(envelope).to_bytes(8, "big"), envelope)
        return b"".join(parts)

    def element(self) -> _Element:
        """The ``sig`` element.

        Raises:
            ValueError: the destination has a character that XML cannot carry.
        """
        attributes = {
            "created": self.created,
            "id": self.message_id,
            "key": self.key_id,
            "to": self.destination,
        }
        element = etree.Element(_SIG, attributes, nsmap=_NSMAP)
        element.text = encode_value(self.value)
        return element

    @classmethod
    def read(cls, element: _Element) -> Signature:
        """What a ``sig`` element says, if it has exactly the one form that `element` gives it.

        Raises:
            ValueError: it has not.
        """
        # dict() of few; an element with very many attributes is not turned into one.
        if len(element) or len(element.attrib) != len(_ATTRIBUTES) or set(element.attrib) != _ATTRIBUTES:
            raise ValueError("sig has other attributes than created, id, key and to, or holds elements")
        if element.prefix is not None:
            raise ValueError("sig is written with a prefix")
        get = element.attrib.__getitem__
        signature = cls(get("key"), get("created"), get("id"), get("to"), _decoded(element.text or ""))
        if not (_KEY_ID.fullmatch(signature.key_id) and is_message_id(signature.message_id)):
            raise ValueError("sig has a key or an id that is none")
        _parse_time(signature.created)
        return signature


def find_signature(root: _Element) -> _Element | None:
    """The only ``sig`` of an envelope, at its only place.

    Args:
        root: the root of any tree.

    Returns:
        The element; ``None`` if nothing in the tree is in the namespace of signatures.

    Raises:
        SignatureRefused: ``wrapped``: there are several, or it stands somewhere else.
    """
    found = list(islice(root.iter(_ANY), 2))
    if not found:
        return None
    if len(found) > 1:
        raise SignatureRefused(Reason.WRAPPED, "more than one element is in the namespace of signatures")
    (element,) = found
    meta = meta_of(root)
    if element.tag != _SIG or meta is None or element.getparent() is not meta or meta[-1] is not element:
        raise SignatureRefused(Reason.WRAPPED, "the signature is not the last element in the first meta")
    if element.tail:
        raise SignatureRefused(Reason.WRAPPED, "there is text behind the signature")
    return element


def meta_of(root: _Element) -> _Element | None:
    """The ``meta`` of an envelope, in which the signature stands; ``None`` if the root is no envelope's."""
    if root.tag != _MESSAGE or not len(root) or root[0].tag != _META:
        return None
    return root[0]


def encode_value(value: bytes) -> str:
    """The text of a ``sig`` element."""
    return base64.b64encode(value).decode("ascii")


def is_message_id(text: str) -> bool:
    """Whether a text can be a message id: up to 128 letters, digits and ``._:-``."""
    return _MESSAGE_ID.fullmatch(text) is not None


def format_time(seconds: float) -> str:
    """A time as it is signed: RFC 3339 in UTC, with exactly three decimals and ``Z``.

    Args:
        seconds: since 1970, between the years 1 and 9999. What is less than a millisecond is cut off.

    Raises:
        ValueError: it is not.
    """
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{seconds} seconds since 1970 is no time between the years 1 and 9999") from error
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _parse_time(text: str) -> float:
    if not _TIME.fullmatch(text):
        raise ValueError("sig has a time that is none")
    return datetime.fromisoformat(text).timestamp()


def _decoded(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("sig is not base64") from None
    # Comparing back leaves one spelling: of the last character before the padding, four bits mean nothing.
    if len(value) != _VALUE_BYTES or encode_value(value) != text:
        raise ValueError("sig is not the base64 of 64 bytes")
    return value
