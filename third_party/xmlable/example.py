"""Examples and templates, made from the same kinds as the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lxml import etree
from lxml.etree import _Element, _ElementTree

from .errors import XError
from .kind import Endless

if TYPE_CHECKING:
    from .record import Record

__all__ = ["example_of", "template_of"]

_XSI = "http://www.w3.org/2001/XMLSchema-instance"


def example_of(record: Record) -> str:
    """Return an example element as indented text.

    Raises:
        XError: the class contains itself without a way out, so that it has no finite value.
    """
    root = _filled(record, etree.Element(record.root))
    return etree.tostring(root, encoding="unicode")


def template_of(record: Record, schema_name: str) -> _ElementTree:
    """Return the example with each text replaced by a comment that says what belongs there.

    Args:
        record: the class.
        schema_name: the name of the schema document, without ``.xsd``, that the template refers to.
    """
    root = etree.Element(record.root, nsmap={"xsi": _XSI})
    root.set(f"{{{_XSI}}}noNamespaceSchemaLocation", f"{schema_name}.xsd")
    _filled(record, root)
    for leaf in list(root.iter("*")):
        if not len(leaf) and leaf is not root:
            text, leaf.text = leaf.text or "", None
            leaf.append(etree.Comment(f" such as {text.replace('-', ' ')} " if text else " may stay empty "))
    return etree.ElementTree(root)


def _filled(record: Record, root: _Element) -> _Element:
    try:
        record.fill(root, ())
    except Endless:
        raise XError(f"{record.cls.__name__} contains itself without a way out: no value of it is finite") from None
    etree.indent(root)
    return root
