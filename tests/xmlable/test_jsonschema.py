from __future__ import annotations

from dataclasses import dataclass, field

from third_party.xmlable import codec_of


@dataclass
class Line:
    """One line of an order."""

    product: str
    price: float = 1.5


@dataclass
class Order:
    number: int
    lines: list[Line]
    previous: Order | None = None
    limit: int = field(default="none", metadata={"description": "At most."})  # type: ignore[assignment]


def test_the_whole_schema() -> None:
    line = {
        "title": "Line",
        "type": "object",
        "description": "One line of an order.",
        "properties": {"product": {"type": "string"}, "price": {"type": "number", "default": 1.5}},
        "required": ["product"],
        "additionalProperties": False,
    }
    order = {
        "title": "Order",
        "type": "object",
        "properties": {
            "number": {"type": "integer"},
            "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
            "previous": {"anyOf": [{"$ref": "#/$defs/Order"}, {"type": "null"}], "default": None},
            "limit": {"type": "integer", "description": "At most."},
        },
        "required": ["number", "lines"],
        "additionalProperties": False,
    }
    assert codec_of(Order).json_schema() == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **order,
        "$defs": {"Line": line, "Order": order},
    }


def test_a_flat_class_has_no_definitions() -> None:
    assert "$defs" not in codec_of(Line).json_schema()
