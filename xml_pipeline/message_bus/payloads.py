"""Payloads on their way out: any object that somebody wants to send, as canonical text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lxml import etree

from third_party.xmlable import Codec, EncodeError, XError, codec_of
from xml_pipeline.errors import ValidationError
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

__all__ = ["PayloadWriter", "Written", "from_root"]


@dataclass(slots=True)
class Written:
    """A payload: its element name, its canonical text, and the codec it was made with, if any."""

    name: str
    text: str
    codec: Codec[Any] | None


class PayloadWriter:
    """Writes payloads; remembers how, by class."""

    def __init__(self) -> None:
        self._codecs: dict[type, Codec[Any] | None] = {}

    def forget(self) -> None:
        """Classes may have gone with their listeners; those that have not are learnt again."""
        self._codecs.clear()

    def write(self, value: object) -> Written:
        """A dataclass or pydantic model by its codec, an object with ``to_xml()`` by that, an lxml element as it is.

        What is not written by a codec is parsed strictly; its schema is the receiver's.

        Raises:
            TypeError: it is none of these.
            ValidationError: it cannot be written in XML, or ``to_xml()`` gave something that is no payload.
        """
        cls = type(value)
        try:
            codec = self._codecs[cls]
        except KeyError:
            codec = self._codecs[cls] = _codec_or_none(cls)
        if codec is None:
            return _foreign(value)
        try:
            return Written(codec.name, codec.encode_payload(value), codec)
        except EncodeError as exc:
            raise ValidationError(str(exc), step="encode") from exc


def from_root(root: bytes) -> Written:
    """A payload from the canonical bytes of a lone element; inside an envelope it must undeclare the namespace.

    Raises:
        ValidationError: the element is in a namespace.
    """
    text = root.decode()
    end = min(position for position in (text.find(char, 1) for char in " />") if position > 0)
    name = text[1:end]
    # In canonical form namespace declarations come first, before all attributes.
    if ":" in name or text.startswith((" xmlns=", " xmlns:"), end):
        raise ValidationError(f"payload <{name}> must be in no namespace", step="encode")
    return Written(name, f'<{name} xmlns=""{text[end:]}', None)


def _codec_or_none(cls: type) -> Codec[Any] | None:
    if callable(getattr(cls, "to_xml", None)) and not hasattr(cls, "xml_value"):
        return None  # it writes itself; a class decorated with @xmlify is written by its codec
    try:
        return codec_of(cls)
    except XError:
        return None


def _foreign(value: object) -> Written:
    if isinstance(value, etree._Element):
        return from_root(canonical_bytes(value))
    to_xml = getattr(value, "to_xml", None)
    if not callable(to_xml) or isinstance(value, type):
        raise TypeError(
            f"a payload must be an instance of a dataclass or a pydantic model, or have to_xml(), "
            f"not {type(value).__name__}"
        )
    text = to_xml()
    return from_root(canonical_bytes(parse_strict(text.encode() if isinstance(text, str) else text)))
