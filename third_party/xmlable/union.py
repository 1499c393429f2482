"""`Union`: one of several types; and `Nothing`, the type of ``None``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from lxml import etree
from lxml.etree import _Element

from .errors import DecodeError, EncodeError, XError, did_you_mean, mismatch
from .kind import Endless, Kind
from .scalar import XS
from .text import WHITE, children, text_of

if TYPE_CHECKING:
    from .jsonschema import Definitions
    from .schema import SchemaBuilder

__all__ = ["NOTHING", "Nothing", "Union"]


class Nothing(Kind):
    """``None``: an empty element."""

    name = "NoneType"
    expected = "None"
    json_types = frozenset({"null"})

    def accepts(self, value: Any) -> bool:
        return value is None

    def write(self, value: Any) -> str:
        if value is not None:
            raise mismatch(EncodeError, value, self.expected)
        return ""

    def read(self, element: _Element) -> None:
        if text_of(element).strip(WHITE):
            raise DecodeError("found text, expected an empty element for None")

    def to_json(self, value: Any) -> None:
        self.write(value)

    def from_json(self, data: Any) -> None:
        if data is not None:
            raise mismatch(DecodeError, data, "null")

    def declare(self, element: _Element, schema: SchemaBuilder) -> None:
        schema.sequence(element)

    def json_schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"type": "null"}

    def fill(self, element: _Element, inside: tuple[type, ...]) -> None:
        """Leave it empty."""


NOTHING: Final = Nothing()


class Union(Kind):
    """One of several kinds: a container with one child that is named after the type.

    The alternative whose type is exactly the value's is taken, else the first that accepts the value. In JSON the
    value stands alone where the alternatives' JSON types tell them apart, else in an object with the alternative's
    name as its only key.

    Raises:
        XError: two alternatives have the same element name.
    """

    name = "Union"

    def __init__(self, alternatives: tuple[Kind, ...]) -> None:
        self.alternatives = alternatives
        self.by_name = {kind.name: kind for kind in alternatives}
        self.hashable = all(kind.hashable for kind in alternatives)
        self.expected = " or ".join(kind.expected for kind in alternatives)
        twice = [name for name, count in Counter(kind.name for kind in alternatives).items() if count > 1]
        if twice:
            raise XError(f"two alternatives of the union are called <{twice[0]}>; wrap one of them in a class")
        types = Counter(json_type for kind in alternatives for json_type in _told_apart(kind))
        self.is_tagged = any(count > 1 for count in types.values())
        self.json_types = frozenset({"object"} if self.is_tagged else types)

    def parts(self) -> Iterable[Kind]:
        return self.alternatives

    def accepts(self, value: Any) -> bool:
        return any(kind.accepts(value) for kind in self.alternatives)

    def is_exactly(self, value: Any) -> bool:
        return any(kind.is_exactly(value) for kind in self.alternatives)

    def _kind_of(self, value: Any) -> Kind:
        for kind in self.alternatives:
            if kind.is_exactly(value):
                return kind
        for kind in self.alternatives:
            if kind.accepts(value):
                return kind
        raise mismatch(EncodeError, value, self.expected)

    def write(self, value: Any) -> str:
        kind = self._kind_of(value)
        return f"<{kind.name}>{kind.write(value)}</{kind.name}>"

    def read(self, element: _Element) -> Any:
        nodes = children(element)
        if len(nodes) != 1:
            expected = ", ".join(f"<{name}>" for name in self.by_name)
            raise DecodeError(f"found {len(nodes)} elements, expected exactly one of {expected}")
        kind = self.by_name.get(str(nodes[0].tag))
        if kind is None:
            raise DecodeError(f"found <{nodes[0].tag}>{did_you_mean(str(nodes[0].tag), self.by_name)}")
        return kind.read(nodes[0])

    def to_json(self, value: Any) -> Any:
        kind = self._kind_of(value)
        return {kind.name: kind.to_json(value)} if self.is_tagged else kind.to_json(value)

    def from_json(self, data: Any) -> Any:
        if self.is_tagged:
            if type(data) is not dict or len(data) != 1:
                raise mismatch(DecodeError, data, f"an object with one key of {', '.join(self.by_name)}")
            [(name, content)] = data.items()
            if name not in self.by_name:
                raise DecodeError(f"found the key {name!r}{did_you_mean(str(name), self.by_name)}")
            return self.by_name[name].from_json(content)
        for kind in self.alternatives:
            if _json_type(data) in _told_apart(kind):
                return kind.from_json(data)
        raise mismatch(DecodeError, data, self.expected)

    def declare(self, element: _Element, schema: SchemaBuilder) -> None:
        choice = schema.choice(element)
        for kind in self.alternatives:
            kind.declare(etree.SubElement(choice, f"{XS}element", name=kind.name), schema)

    def json_schema(self, definitions: Definitions) -> dict[str, Any]:
        schemas = [kind.json_schema(definitions) for kind in self.alternatives]
        if not self.is_tagged:
            return {"anyOf": schemas}
        return {
            "anyOf": [
                {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}
                for name, schema in zip(self.by_name, schemas, strict=True)
            ]
        }

    def fill(self, element: _Element, inside: tuple[type, ...]) -> None:
        for kind in self.alternatives:
            child = etree.SubElement(element, kind.name)
            try:
                kind.fill(child, inside)
            except Endless:
                element.remove(child)
            else:
                return
        raise Endless


def _told_apart(kind: Kind) -> frozenset[str]:
    """The JSON types of ``kind`` in a union: an integer is a number to most peers, and INF and NaN are strings."""
    types = kind.json_types
    if "number" in types:
        types |= {"string"}
    return types - {"integer"} | {"number"} if "integer" in types else types


def _json_type(data: Any) -> str:
    if data is None:
        return "null"
    names = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
    return names.get(type(data), "nothing JSON knows")
