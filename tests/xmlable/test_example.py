from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal
from uuid import UUID

import pytest
from lxml import etree

from third_party.xmlable import XError, codec_of

from .helpers import assert_valid


class Color(enum.Enum):
    RED = "red"


@dataclass
class Part:
    name: str


@dataclass
class Everything:
    a: str
    b: int
    c: float
    d: bool
    e: Decimal
    f: bytes
    g: datetime
    h: date
    i: time
    j: timedelta
    k: UUID
    l: Path  # noqa: E741 - the example's name
    m: Color
    n: Literal["x", "y"]
    o: list[Part]
    p: dict[str, int]
    q: tuple[int, str]
    r: int | str
    s: set[int]
    t: Part
    u: str | None = None
    v: int = 7
    w: list[str] = field(default_factory=list)
    x: Part | None = None
    y: str = "a & b"
    z: None = None


def test_an_example_has_everything_is_valid_and_can_be_read() -> None:
    codec = codec_of(Everything)
    assert_valid(codec, codec.example())
    everything = codec.decode_text(codec.example())
    assert (everything.a, everything.b, everything.d) == ("text", 1, True)
    assert (everything.v, everything.y) == (7, "a & b")
    assert (everything.u, everything.w, everything.x) == ("text", ["text"], Part("text"))
    assert (everything.m, everything.n) == (Color.RED, "x")


def test_an_example_uses_element_names_and_indents() -> None:
    assert codec_of(Part).example() == "<Part>\n  <Name>text</Name>\n</Part>"


@dataclass
class Tree:
    name: str
    trees: list[Tree]
    best: Tree | None = None
    by_name: dict[str, Tree] = field(default_factory=dict)
    other: int | Tree = 0
    last: Tree | str = "x"


def test_an_example_of_a_recursive_class_ends() -> None:
    codec = codec_of(Tree)
    assert_valid(codec, codec.example())
    assert codec.decode_text(codec.example()) == Tree("text", [], None, {}, 0, "x")


@dataclass
class Left:
    right: Right


@dataclass
class Right:
    left: Left


def test_a_class_without_a_finite_value_has_no_example() -> None:
    with pytest.raises(XError, match="Left contains itself without a way out: no value of it is finite"):
        codec_of(Left).example()


def test_a_template_says_what_belongs_where() -> None:
    template = etree.tostring(codec_of(Part).template("parts")).decode()
    assert template == (
        '<Part xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="parts.xsd">\n'
        "  <Name><!-- such as text --></Name>\n</Part>"
    )
    assert (
        "<T>\n    <Name><!-- such as text --></Name>\n  </T>"
        in etree.tostring(codec_of(Everything).template()).decode()
    )
    assert "<Z><!-- may stay empty --></Z>" in etree.tostring(codec_of(Everything).template()).decode()
