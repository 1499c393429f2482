"""What the earlier library got wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from lxml import etree

from third_party.xmlable import DecodeError, XError, codec_of, xmlify

from .helpers import accepts, survives


@dataclass
class Text:
    value: str


def test_a_class_that_is_no_dataclass_is_refused_not_given_a_broken_schema() -> None:
    class Loose:
        value: str

    with pytest.raises(XError, match="Loose is neither a dataclass nor a pydantic model"):
        codec_of(Loose)


@pytest.mark.parametrize("text", ["007", "true", "1.50", "NaN", "-0", "1e5", "0x10", " 7 ", "None", ""])
def test_strings_are_not_guessed_at(text: str) -> None:
    survives(Text(text))


@dataclass
class Real:
    value: float


@pytest.mark.parametrize(
    ("number", "text"), [(1e-7, "1e-07"), (1e22, "1e+22"), (float("inf"), "INF"), (float("-inf"), "-INF"), (3, "3.0")]
)
def test_floats_have_a_form_that_the_schema_accepts(number: float, text: str) -> None:
    written = codec_of(Real).encode(Real(number))
    assert written == f"<Real><Value>{text}</Value></Real>"
    assert accepts(codec_of(Real), written)
    survives(Real(number))


def test_not_a_number() -> None:
    written = codec_of(Real).encode(Real(float("nan")))
    assert written == "<Real><Value>NaN</Value></Real>"
    assert accepts(codec_of(Real), written)
    assert str(codec_of(Real).decode_text(written).value) == "nan"


@dataclass
class Search:
    query: str
    limit: int = 10
    tags: list[str] = field(default_factory=list)
    note: str | None = None


def test_defaults_are_honoured() -> None:
    xml = "<Search><Query>x</Query></Search>"
    assert accepts(codec_of(Search), xml)
    assert codec_of(Search).decode_text(xml) == Search("x")


def test_a_missing_element_is_our_own_error() -> None:
    with pytest.raises(DecodeError, match=r"Search.query: the element <Query> is missing"):
        codec_of(Search).decode_text("<Search/>")


def test_collisions_are_found_at_decoration() -> None:
    @dataclass
    class Collision:
        user_id: int
        userId: int  # noqa: N815 - an XML name

    with pytest.raises(XError, match="the fields 'user_id' and 'userId'"):
        xmlify(Collision)


def test_what_is_empty_is_empty() -> None:
    @dataclass
    class Void:
        items: list[str]
        nothing: str | None

    written = codec_of(Void).encode(Void([], None))
    assert written == "<Void><Items></Items><Nothing><NoneType></NoneType></Nothing></Void>"
    survives(Void([], None))


def test_the_example_is_valid() -> None:
    codec = codec_of(Search)
    assert codec.schema.validate(etree.fromstring(codec.example())), codec.schema.error_log
    assert "<Query>text</Query>" in codec.example()
