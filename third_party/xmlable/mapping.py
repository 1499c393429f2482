"""`Mapping`: dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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

__all__ = ["Mapping"]


class Mapping(Kind):
    """A dictionary: an ``Item`` with ``Key`` and ``Val`` for each entry, in the dictionary's own order.

    In JSON it is an object where all keys are strings there, else an array of ``{"key": ..., "value": ...}``.
    """

    name = "Dict"
    expected = "a dict"
    hashable = False

    def __init__(self, key: Kind, value: Kind) -> None:
        if not key.hashable:
            raise XError(f"{key.expected} cannot be the key of a dict: it is not hashable")
        self.key = key
        self.value = value
        self.is_object = key.json_types == {"string"}
        self.json_types = frozenset({"object" if self.is_object else "array"})

    def parts(self) -> Iterable[Kind]:
        return (self.key, self.value)

    def accepts(self, value: Any) -> bool:
        return isinstance(value, dict)

    def is_exactly(self, value: Any) -> bool:
        return type(value) is dict

    def write(self, value: Any) -> str:
        if not isinstance(value, dict):
            raise mismatch(EncodeError, value, self.expected)
        written = []
        for key, val in value.items():
            try:
                written.append(f"<Item><Key>{self.key.write(key)}</Key><Val>{self.value.write(val)}</Val></Item>")
            except XError as error:
                error.at(_step(key))
                raise
        return "".join(written)

    def read(self, element: _Element) -> Any:
        found: dict[Any, Any] = {}
        for index, item in enumerate(children(element)):
            try:
                key_node, value_node = _pair(item)
                key = self.key.read(key_node)
            except XError as error:
                error.at(f"[{index}]")
                raise
            self._add(found, key, self.value.read, value_node)
        return found

    def to_json(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise mismatch(EncodeError, value, self.expected)
        pairs = []
        for key, val in value.items():
            try:
                pairs.append((self.key.to_json(key), self.value.to_json(val)))
            except XError as error:
                error.at(_step(key))
                raise
        return dict(pairs) if self.is_object else [{"key": key, "value": val} for key, val in pairs]

    def from_json(self, data: Any) -> Any:
        if type(data) is not (dict if self.is_object else list):
            raise mismatch(DecodeError, data, "an object" if self.is_object else 'an array of {"key", "value"}')
        found: dict[Any, Any] = {}
        for raw_key, raw_value in data.items() if isinstance(data, dict) else _json_pairs(data):
            try:
                key = self.key.from_json(raw_key)
            except XError as error:
                error.at(_step(raw_key))
                raise
            self._add(found, key, self.value.from_json, raw_value)
        return found

    def _add(self, found: dict[Any, Any], key: Any, convert: Callable[[Any], Any], raw_value: Any) -> None:
        if key in found:
            raise DecodeError(f"found the key {show(key)} twice")
        try:
            found[key] = convert(raw_value)
        except XError as error:
            error.at(_step(key))
            raise

    def declare(self, element: _Element, schema: SchemaBuilder) -> None:
        sequence = schema.sequence(element)
        item = etree.SubElement(sequence, f"{XS}element", name="Item", minOccurs="0", maxOccurs="unbounded")
        pair = schema.sequence(item)
        self.key.declare(etree.SubElement(pair, f"{XS}element", name="Key"), schema)
        self.value.declare(etree.SubElement(pair, f"{XS}element", name="Val"), schema)

    def json_schema(self, definitions: Definitions) -> dict[str, Any]:
        key, value = self.key.json_schema(definitions), self.value.json_schema(definitions)
        if self.is_object:
            names = {} if key == {"type": "string"} else {"propertyNames": key}
            return {"type": "object", **names, "additionalProperties": value}
        pair = {
            "type": "object",
            "properties": {"key": key, "value": value},
            "required": ["key", "value"],
            "additionalProperties": False,
        }
        return {"type": "array", "items": pair}

    def fill(self, element: _Element, inside: tuple[type, ...]) -> None:
        item = etree.SubElement(element, "Item")
        try:
            self.key.fill(etree.SubElement(item, "Key"), inside)
            self.value.fill(etree.SubElement(item, "Val"), inside)
        except Endless:
            element.remove(item)


def _json_pairs(data: list[Any]) -> Iterator[tuple[Any, Any]]:
    for index, item in enumerate(data):
        if type(item) is not dict or item.keys() != {"key", "value"}:
            raise mismatch(DecodeError, item, 'an object with "key" and "value"').at(f"[{index}]")
        yield item["key"], item["value"]


def _pair(item: _Element) -> tuple[_Element, _Element]:
    nodes = children(item)
    if item.tag != "Item" or [node.tag for node in nodes] != ["Key", "Val"]:
        found = "".join(f"<{node.tag}>" for node in nodes)
        raise DecodeError(f"found <{item.tag}>{found}, expected <Item><Key>...</Key><Val>...</Val></Item>")
    return nodes[0], nodes[1]


def _step(key: Any) -> str:
    text = repr(key)
    return f"[{text if len(text) <= 40 else text[:40] + '...'}]"
