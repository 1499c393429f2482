from __future__ import annotations

import math

import pytest

from xml_pipeline.config.scalars import Scalar, read_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("true", True),
        ("TRUE", True),
        ("false", False),
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("012", 12),
        ("0o14", 12),
        ("0x1F", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        (".inf", math.inf),
        ("-.INF", -math.inf),
    ],
)
def test_the_core_schema_of_yaml_1_2_is_read(text: str, value: Scalar) -> None:
    found = read_scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "no", "on", "off", "y", "n", "Yes", "tRue", "NuLL", "nil", "none"),
        *("12:30:45", "1_000", "0b1", "0o8", "0x", "1e", "--1", "1.2.3", ".", "-", "+", "2001-01-01", "=", "<<"),
        *("١٢", "½", "9" * 101),
    ],
)
def test_everything_else_is_text(text: str) -> None:
    assert read_scalar(text) == text


def test_not_a_number() -> None:
    found = read_scalar(".nan")
    assert isinstance(found, float)
    assert math.isnan(found)
