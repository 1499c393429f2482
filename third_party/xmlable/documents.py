"""Reading documents: `parse_element`, `parse_bytes`, `parse_string`."""

from __future__ import annotations

from typing import TypeVar

from lxml.etree import _Element

from .decorator import codec_of
from .parsing import plain

__all__ = ["parse_bytes", "parse_element", "parse_string"]

T = TypeVar("T")


def parse_element(cls: type[T], element: _Element) -> T:
    """Return the instance of ``cls`` that an lxml or objectify element named after the class describes.

    Raises:
        DecodeError: it describes none; see `Codec.decode`.
        XError: ``cls`` cannot be mapped.
    """
    return codec_of(cls).decode(plain(element))


def parse_bytes(cls: type[T], data: bytes) -> T:
    """Return the instance of ``cls`` that a UTF-8 document describes.

    Raises:
        DecodeError: it describes none, or is refused by the parser; see `Codec.decode_text`.
        XError: ``cls`` cannot be mapped.
    """
    return codec_of(cls).decode_text(data)


def parse_string(cls: type[T], text: str) -> T:
    """Return the instance of ``cls`` that a document describes; see `parse_bytes`."""
    return codec_of(cls).decode_text(text)
