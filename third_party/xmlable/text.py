"""Character data: writing it in canonical form, and reading it whole.

Writing follows Canonical XML (the text-node rules that Exclusive C14N shares): ``&``, ``<``, ``>`` and the carriage
return are escaped, tab and newline stand as they are. Reading joins what comments, processing instructions and CDATA
sections have split.
"""

from __future__ import annotations

from typing import Final

from lxml import etree
from lxml.etree import _Element

from .errors import DecodeError, EncodeError

__all__ = ["WHITE", "children", "collapse", "escape", "text_of"]

WHITE: Final = " \t\r\n"
"""What XML calls white space; Python's `str.strip` takes more."""

_FORBIDDEN: Final = bytes(code for code in range(0x20) if code not in b"\t\n\r")
_FFFE: Final = b"\xef\xbf\xbe"
_FFFF: Final = b"\xef\xbf\xbf"


def escape(text: str) -> str:
    """Return ``text`` as canonical character data.

    Raises:
        EncodeError: for a character outside production 2 (Char) of XML 1.0: C0 controls other than tab, newline and
            carriage return, lone surrogates, U+FFFE and U+FFFF.
    """
    # Deleting bytes runs at memory speed; a regular expression over the characters takes six times as long.
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise _refused(text, error.start) from None
    if len(raw.translate(None, _FORBIDDEN)) != len(raw) or (len(raw) != len(text) and (_FFFE in raw or _FFFF in raw)):
        raise _refused(text, next(index for index, character in enumerate(text) if not _carried(character)))
    if "&" in text:
        text = text.replace("&", "&amp;")
    if "<" in text:
        text = text.replace("<", "&lt;")
    if ">" in text:
        text = text.replace(">", "&gt;")
    if "\r" in text:
        text = text.replace("\r", "&#xD;")
    return text


def _carried(character: str) -> bool:
    return character in "\t\n\r" or (character >= "\x20" and character not in "\ufffe\uffff")


def _refused(text: str, index: int) -> EncodeError:
    code = ord(text[index])
    return EncodeError(
        f"character U+{code:04X} at index {index} cannot be carried by XML 1.0; "
        "remove or replace it, or declare the field as bytes"
    )


def text_of(element: _Element) -> str:
    """Return the whole text of an element that holds nothing but text.

    Raises:
        DecodeError: the element has child elements, or an entity reference the parser did not resolve.
    """
    text = element.text or ""
    if not len(element):
        return text
    parts = [text]
    for node in _nodes(element):
        _refuse_entity(node)
        if isinstance(node.tag, str):
            raise DecodeError(f"found an element <{node.tag}> inside, expected text only")
        parts.append(node.tail or "")
    return "".join(parts)


def children(element: _Element) -> list[_Element]:
    """Return the child elements, without comments and processing instructions."""
    nodes = _nodes(element)
    for node in nodes:
        if not isinstance(node.tag, str):
            break
    else:
        return nodes
    for node in nodes:
        _refuse_entity(node)
    return [node for node in nodes if isinstance(node.tag, str)]


def _nodes(element: _Element) -> list[_Element]:
    # A slice is one call; iterating costs a call for each child. The type stubs know no slices.
    return element[:]  # type: ignore[index, return-value]


def _refuse_entity(node: _Element) -> None:
    if node.tag is etree.Entity:
        raise DecodeError(f"found the entity reference {node.text}, which is never resolved; write the text itself")


def collapse(text: str) -> str:
    """Normalise white space as the XSD facet ``whiteSpace="collapse"`` does for all types but strings."""
    text = text.strip(WHITE)
    if " " in text or "\n" in text or "\t" in text or "\r" in text:
        return " ".join(part for part in text.translate(_AS_SPACE).split(" ") if part)
    return text


_AS_SPACE: Final = str.maketrans("\t\n\r", "   ")
