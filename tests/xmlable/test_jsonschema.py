from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

import pytest

from third_party.xmlable import DecodeError, codec_of


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


@dataclass
class Texts:
    amount: Decimal
    data: bytes
    day: date
    span: timedelta


RIGHT = {"amount": "1.50", "data": "YQ==", "day": "2024-02-29", "span": "P1DT2H"}


def test_values_that_are_texts_have_a_pattern() -> None:
    properties = codec_of(Texts).json_schema()["properties"]
    for name, text in RIGHT.items():
        assert re.fullmatch(properties[name]["pattern"], text)
        assert not re.fullmatch(properties[name]["pattern"], f" {text}")
    assert properties["day"]["format"] == "date"
    assert not re.fullmatch(properties["day"]["pattern"], "2023-02-29")


@pytest.mark.parametrize("name", RIGHT)
def test_in_json_there_is_no_white_space_around_them(name: str) -> None:
    codec_of(Texts).from_json(RIGHT)
    with pytest.raises(DecodeError, match=rf"Texts\.{name}: found .*, without white space around it"):
        codec_of(Texts).from_json({**RIGHT, name: f"{RIGHT[name]} "})
