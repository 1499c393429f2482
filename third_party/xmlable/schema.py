"""XSD: the schema that accepts what the encoder writes, and what field defaults allow to be left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lxml import etree
from lxml.etree import _Element, _ElementTree

from .scalar import XS

if TYPE_CHECKING:
    from .record import Record

__all__ = ["SchemaBuilder", "schema_of"]

_NAMESPACE = "http://www.w3.org/2001/XMLSchema"


class SchemaBuilder:
    """Writes one named complex type per class, each after those it uses, as far as recursion allows."""

    def __init__(self, root: _Element) -> None:
        self.root = root
        self._names: dict[type, str] = {}

    def type_of(self, record: Record) -> str:
        """Return the name of the class's complex type; write the type on first sight."""
        if record.cls in self._names:
            return self._names[record.cls]
        name = self._names[record.cls] = self._free(record.root)
        complex_type = etree.Element(f"{XS}complexType", name=name)
        record.declare_fields(etree.SubElement(complex_type, f"{XS}sequence"), self)
        self.root.append(complex_type)
        return name

    def _free(self, name: str) -> str:
        # Type names are never on the wire, so two classes of one name may well stand in one schema.
        taken = set(self._names.values())
        number = 1
        free = name
        while free in taken:
            number += 1
            free = f"{name}.{number}"
        return free

    def sequence(self, element: _Element) -> _Element:
        """Give ``element`` an anonymous type that is a sequence, and return the sequence."""
        return etree.SubElement(etree.SubElement(element, f"{XS}complexType"), f"{XS}sequence")

    def choice(self, element: _Element) -> _Element:
        """Give ``element`` an anonymous type that is a choice, and return the choice."""
        return etree.SubElement(etree.SubElement(element, f"{XS}complexType"), f"{XS}choice")


def schema_of(
    record: Record,
    name: str,
    namespaces: Mapping[str, str] | None = None,
    imports: Mapping[str, str] | None = None,
) -> _ElementTree:
    """Return the complete schema of a class.

    Args:
        record: the class.
        name: the name of the global element, and the schema's id.
        namespaces: prefixes to declare on ``xs:schema``.
        imports: namespaces to import, with their schema locations.
    """
    # blockDefault: without it xsi:type could smuggle a derived type past the declared one (XSD 1.0 part 1, 3.3.1).
    root = etree.Element(
        f"{XS}schema",
        {"id": name, "elementFormDefault": "qualified", "blockDefault": "#all"},
        nsmap={**(namespaces or {}), "xs": _NAMESPACE},
    )
    for namespace, location in (imports or {}).items():
        etree.SubElement(root, f"{XS}import", namespace=namespace, schemaLocation=location)
    builder = SchemaBuilder(root)
    etree.SubElement(root, f"{XS}element", name=name, type=builder.type_of(record))
    etree.indent(root)
    return etree.ElementTree(root)
