"""How large a message may be.

Size is checked before parsing. Shape is checked on the tree, before canonicalisation, whose cost is more than linear in
attributes and namespaces (tens of thousands of attributes on one element of 400 kB take seconds). Counting two bytes
first spares almost every message the look at the tree.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lxml import etree

from xml_pipeline.errors import ValidationError

if TYPE_CHECKING:
    from lxml.etree import XPath, _Element

__all__ = ["Bounds", "check_shape", "check_size"]

# libxml2 itself refuses a document nested deeper than this, unless told otherwise (it never is).
_PARSER_DEPTH: Final = 255


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one message.

    Args:
        max_message_bytes: length of the raw bytes.
        max_element_depth: nesting; the root is at depth 1. The parser's own bound is 255.
        max_elements: elements in all.
        max_attributes: attributes on one element, and namespace prefixes in scope at one element.
    """

    max_message_bytes: int = 1_048_576
    max_element_depth: int = 100
    max_elements: int = 50_000
    max_attributes: int = 256

    @property
    def harmless_length(self) -> int:
        """Fewer bytes than this cannot exceed any bound of shape, so nothing needs to be counted."""
        # One level is <a></a>, one element <a/>, one attribute (names differ) a="" with a space before it.
        return min(7 * self.max_element_depth, 4 * self.max_elements, 5 * self.max_attributes)


def check_size(raw: bytes, bounds: Bounds) -> None:
    """Refuse bytes that are too many to parse.

    Raises:
        ValidationError: there are more than ``max_message_bytes``.
    """
    if len(raw) > bounds.max_message_bytes:
        raise ValidationError(f"{len(raw)} bytes; at most {bounds.max_message_bytes} are allowed (max_message_bytes)")


def check_shape(raw: bytes, root: _Element, bounds: Bounds) -> None:
    """Refuse a tree that is too deep, or has too many elements, attributes or namespace prefixes.

    Args:
        raw: the bytes that ``root`` was parsed from.
        root: the tree's root element.
        bounds: what is allowed.

    Raises:
        ValidationError: with the name of the bound that is exceeded.
    """
    # Elements nested d deep need 2d - 1 tags: all but the innermost have an end tag.
    tags = raw.count(b"<")
    if tags > 2 * bounds.max_element_depth and bounds.max_element_depth < _PARSER_DEPTH:
        _refuse_if(_deeper_than(bounds.max_element_depth)(root), "max_element_depth", bounds.max_element_depth)
    if tags > bounds.max_elements:
        _refuse_if(_more_elements_than(bounds.max_elements)(root), "max_elements", bounds.max_elements)
    if raw.count(b"=") > bounds.max_attributes:
        _refuse_if(_more_attributes_than(bounds.max_attributes)(root), "max_attributes", bounds.max_attributes)
        if raw.count(b"xmlns:") > bounds.max_attributes:
            _refuse_if(_more_prefixes_than(bounds.max_attributes, root), "max_attributes", bounds.max_attributes)


def _refuse_if(exceeded: object, name: str, limit: int) -> None:
    if exceeded:
        raise ValidationError(f"the message exceeds {name}, {limit}")


# XPath looks at the tree in C, without making a Python object of every element: 50,000 elements in about a millisecond.


@functools.cache
def _deeper_than(limit: int) -> XPath:
    return etree.XPath("boolean(" + "/*" * (limit + 1) + ")")


@functools.cache
def _more_elements_than(limit: int) -> XPath:
    return etree.XPath(f"count(//*) > {limit}")


@functools.cache
def _more_attributes_than(limit: int) -> XPath:
    return etree.XPath(f"boolean(//@*[{limit + 1}])")


def _more_prefixes_than(limit: int, root: _Element) -> bool:
    # Exclusive canonicalisation searches the prefixes in scope for each one used: quadratic along a path.
    in_scope = 0
    for event, _ in etree.iterwalk(root, events=("start-ns", "end-ns")):
        in_scope += 1 if event == "start-ns" else -1
        if in_scope > limit:
            return True
    return False
