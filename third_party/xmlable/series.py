"""`Series` and `Row`: lists, sets and tuples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from lxml import etree
from lxml.etree import _Element

from .errors import DecodeError, EncodeError, XError, mismatch, show
from .kind import Endless, Kind
from .scalar import XS
from .text import children

if TYPE_CHECKING:
    from .jsonschema import Definitions
    from .schema import SchemaBuilder

__all__ = ["Row", "Series"]


class Series(Kind):
    """Any number of values of one kind, in a container; each is named after its type.

    A set is written in the order of its members' texts, so that equal sets have equal bytes.

    Args:
        python: `list`, `set`, `frozenset` or `tuple`.
        item: the kind of the members.
    """

    json_types = frozenset({"array"})

    def __init__(self, python: type[Collection[Any]], item: Kind) -> None:
        self.python = python
        self.name = python.__name__.capitalize()
        self.item = item
        self.is_set = issubclass(python, (set, frozenset))
        self.hashable = python is frozenset or (python is tuple and item.hashable)
        self.expected = f"a {python.__name__}"
        if self.is_set and not item.hashable:
            raise XError(f"{item.expected} cannot be the member of a {python.__name__}: it is not hashable")

    def parts(self) -> Iterable[Kind]:
        return (self.item,)

    def accepts(self, value: Any) -> bool:
        return isinstance(value, self.python)

    def is_exactly(self, value: Any) -> bool:
        return type(value) is self.python

    def write(self, value: Any) -> str:
        if not isinstance(value, self.python):
            raise mismatch(EncodeError, value, self.expected)
        write, name, written = self.item.write, self.item.name, []
        for index, member in enumerate(value):
            try:
                written.append(f"<{name}>{write(member)}</{name}>")
            except XError as error:
                error.at(f"[{index}]")
                raise
        if self.is_set:
            written.sort()
        return "".join(written)

    def read(self, element: _Element) -> Any:
        read, name, found = self.item.read, self.item.name, []
        for index, child in enumerate(children(element)):
            if child.tag != name:
                raise DecodeError(f"found <{child.tag}>, expected <{name}>").at(f"[{index}]")
            try:
                found.append(read(child))
            except XError as error:
                error.at(f"[{index}]")
                raise
        return self._collect(found)

    def to_json(self, value: Any) -> Any:
        if not isinstance(value, self.python):
            raise mismatch(EncodeError, value, self.expected)
        members = _each(self.item.to_json, value)
        if self.is_set:
            members.sort(key=repr)
        return members

    def from_json(self, data: Any) -> Any:
        if type(data) is not list:
            raise mismatch(DecodeError, data, "an array")
        return self._collect(_each(self.item.from_json, data))

    def _collect(self, members: list[Any]) -> Any:
        if self.python is list:
            return members
        collected = self.python(members)  # type: ignore[call-arg]
        if len(collected) != len(members):
            seen: set[Any] = set()
            for index, member in enumerate(members):
                if member in seen:
                    raise DecodeError(f"found {show(member)} twice in a {self.python.__name__}").at(f"[{index}]")
                seen.add(member)
        return collected

    def declare(self, element: _Element, schema: SchemaBuilder) -> None:
        sequence = schema.sequence(element)
        member = etree.SubElement(sequence, f"{XS}element", name=self.item.name, minOccurs="0", maxOccurs="unbounded")
        self.item.declare(member, schema)

    def json_schema(self, definitions: Definitions) -> dict[str, Any]:
        unique = {"uniqueItems": True} if self.is_set else {}
        return {"type": "array", "items": self.item.json_schema(definitions), **unique}

    def fill(self, element: _Element, inside: tuple[type, ...]) -> None:
        member = etree.SubElement(element, self.item.name)
        try:
            self.item.fill(member, inside)
        except Endless:
            element.remove(member)


class Row(Kind):
    """A tuple of fixed length: ``Item-1``, ``Item-2``, ... each of its own kind."""

    name = "Tuple"
    json_types = frozenset({"array"})

    def __init__(self, items: tuple[Kind, ...]) -> None:
        self.items = items
        self.names = tuple(f"Item-{number}" for number in range(1, len(items) + 1))
        self.hashable = all(item.hashable for item in items)
        self.expected = f"a tuple of {len(items)}"

    def parts(self) -> Iterable[Kind]:
        return self.items

    def accepts(self, value: Any) -> bool:
        return isinstance(value, tuple) and len(value) == len(self.items)

    def is_exactly(self, value: Any) -> bool:
        return type(value) is tuple and len(value) == len(self.items)

    def write(self, value: Any) -> str:
        if not self.accepts(value):
            raise mismatch(EncodeError, value, self.expected)
        written = []
        for index, (name, item) in enumerate(zip(self.names, self.items, strict=True)):
            try:
                written.append(f"<{name}>{item.write(value[index])}</{name}>")
            except XError as error:
                error.at(f"[{index}]")
                raise
        return "".join(written)

    def read(self, element: _Element) -> Any:
        nodes = children(element)
        names = tuple(node.tag for node in nodes)
        if names != self.names:
            raise DecodeError(f"found {_listed(names)}, expected {_listed(self.names)}")
        return tuple(_each(lambda pair: pair[0].read(pair[1]), list(zip(self.items, nodes, strict=True))))

    def to_json(self, value: Any) -> Any:
        if not self.accepts(value):
            raise mismatch(EncodeError, value, self.expected)
        return _each(lambda pair: pair[0].to_json(pair[1]), list(zip(self.items, value, strict=True)))

    def from_json(self, data: Any) -> Any:
        if type(data) is not list or len(data) != len(self.items):
            raise mismatch(DecodeError, data, f"an array of {len(self.items)}")
        return tuple(_each(lambda pair: pair[0].from_json(pair[1]), list(zip(self.items, data, strict=True))))

    def declare(self, element: _Element, schema: SchemaBuilder) -> None:
        sequence = schema.sequence(element)
        for name, item in zip(self.names, self.items, strict=True):
            item.declare(etree.SubElement(sequence, f"{XS}element", name=name), schema)

    def json_schema(self, definitions: Definitions) -> dict[str, Any]:
        size = len(self.items)
        schema: dict[str, Any] = {"type": "array", "minItems": size, "maxItems": size}
        if self.items:
            schema["prefixItems"] = [item.json_schema(definitions) for item in self.items]
        return schema

    def fill(self, element: _Element, inside: tuple[type, ...]) -> None:
        for name, item in zip(self.names, self.items, strict=True):
            item.fill(etree.SubElement(element, name), inside)


def _each(convert: Callable[[Any], Any], members: Iterable[Any]) -> list[Any]:
    """Convert all members; an error says at which index."""
    converted = []
    for index, member in enumerate(members):
        try:
            converted.append(convert(member))
        except XError as error:
            error.at(f"[{index}]")
            raise
    return converted


def _listed(names: Iterable[object]) -> str:
    return ", ".join(f"<{name}>" for name in names) or "no element"
