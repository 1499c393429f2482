from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, Optional, Union

import pytest

from third_party.xmlable import DecodeError, EncodeError, XError, codec_of, xmlify

from .helpers import accepts, survives


@dataclass
class Cat:
    lives: int


@dataclass
class Dog:
    name: str


@dataclass
class Kitten(Cat):
    pass


@dataclass
class Mixed:
    either: int | str
    optional: str | None = None
    required: int | None = 0
    typing_form: Union[Cat, Dog, None] = None  # noqa: UP007 - the old form is tested
    typing_optional: Optional[list[int]] = None  # noqa: UP045 - the old form is tested
    numbers: float | int | bool = 0
    choice: Literal["a", None] = None
    items: list[int | None] | None = None


def test_a_child_says_which_alternative() -> None:
    assert codec_of(Mixed).encode(Mixed("x", "y", None, Cat(9))) == (
        "<Mixed><Either><Str>x</Str></Either><Optional>y</Optional>"
        "<Required><NoneType></NoneType></Required><TypingForm><Cat><Lives>9</Lives></Cat></TypingForm>"
        "<Numbers><Int>0</Int></Numbers></Mixed>"
    )


def test_a_required_optional_is_written_out() -> None:
    @dataclass
    class Must:
        value: str | None

    assert codec_of(Must).encode(Must(None)) == "<Must><Value><NoneType></NoneType></Value></Must>"
    assert codec_of(Must).encode(Must("x")) == "<Must><Value><Str>x</Str></Value></Must>"
    survives(Must(None))
    survives(Must(""))
    assert not accepts(codec_of(Must), "<Must></Must>")
    with pytest.raises(DecodeError, match=r"Must.value: the element <Value> is missing"):
        codec_of(Must).decode_text("<Must></Must>")


MIXED = [
    Mixed(1),
    Mixed(""),
    Mixed("x", ""),
    Mixed("x", "y", None),
    Mixed("x", required=5),
    Mixed("x", typing_form=Dog("Rex")),
    Mixed("x", typing_form=Cat(9), typing_optional=[]),
    Mixed("x", numbers=True),
    Mixed("x", choice="a", items=[None, 1]),
]


@pytest.mark.parametrize("mixed", MIXED)
def test_unions_survive(mixed: Mixed) -> None:
    survives(mixed)


@pytest.mark.parametrize("number", [1, 1.0, True, 0, 0.0, False])
def test_the_exact_type_wins(number: Any) -> None:
    mixed = Mixed("x", numbers=number)
    codec = codec_of(Mixed)
    assert type(codec.decode_text(codec.encode(mixed)).numbers) is type(number)
    assert type(codec.from_json(codec.to_json(mixed)).numbers) is type(number)


def test_a_float_alternative_takes_whole_numbers_when_no_other_does() -> None:
    @dataclass
    class Loose:
        value: float | str

    assert codec_of(Loose).encode(Loose(3)) == "<Loose><Value><Float>3.0</Float></Value></Loose>"


@pytest.mark.parametrize("value", ["NaN", "INF", float("inf"), 1.5])
def test_a_text_is_not_taken_for_the_number_that_json_lacks(value: float | str) -> None:
    @dataclass
    class Either:
        value: float | str

    survives(Either(value))


@pytest.mark.parametrize("value", [None, 1.5, b"x", Cat(9)])
def test_a_value_of_no_alternative_is_refused(value: Any) -> None:
    for write in (codec_of(Mixed).encode, codec_of(Mixed).to_json):
        with pytest.raises(EncodeError, match=r"Mixed.either: found .*, expected a whole number or text"):
            write(Mixed(value))


def test_a_subclass_is_no_alternative() -> None:
    with pytest.raises(EncodeError, match=r"Mixed.typing_form: found Kitten.*, expected Cat or Dog"):
        codec_of(Mixed).encode(Mixed(1, typing_form=Kitten(9)))


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("1", "Mixed.either: found 0 elements, expected exactly one of <Int>, <Str>"),
        ("<Int>1</Int><Str>1</Str>", "Mixed.either: found 2 elements, expected exactly one of <Int>, <Str>"),
        ("<Integer>1</Integer>", "Mixed.either: found <Integer>; did you mean 'Int'?"),
        ("<Int>x</Int>", "Mixed.either: found 'x', expected a whole number"),
    ],
)
def test_wrong_elements_are_refused(xml: str, message: str) -> None:
    xml = f"<Mixed><Either>{xml}</Either></Mixed>"
    assert not accepts(codec_of(Mixed), xml)
    with pytest.raises(DecodeError, match=re.escape(message)):
        codec_of(Mixed).decode_text(xml)


def test_none_is_empty() -> None:
    xml = "<Mixed><Either><Int>1</Int></Either><Required><NoneType>{}</NoneType></Required></Mixed>"
    assert codec_of(Mixed).decode_text(xml.format("")).required is None
    assert not accepts(codec_of(Mixed), xml.format("x"))
    with pytest.raises(DecodeError, match=r"Mixed.required: found text, expected an empty element for None"):
        codec_of(Mixed).decode_text(xml.format("x"))


def test_json_needs_a_tag_only_where_types_overlap() -> None:
    form = codec_of(Mixed).to_json(Mixed(1, typing_form=Cat(9), numbers=True, items=[None]))
    assert form["either"] == 1
    assert form["typing_form"] == {"Cat": {"lives": 9}}
    assert form["numbers"] == {"Bool": True}
    assert form["items"] == [None]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"either": None}, "Mixed.either: found None (NoneType), expected a whole number or text"),
        ({"either": 1.5}, "Mixed.either: found 1.5 (float), expected a whole number"),
        (
            {"either": 1, "typing_form": {"lives": 9}},
            "Mixed.typing_form: found the key 'lives'; known are 'Cat', 'Dog'",
        ),
        (
            {"either": 1, "typing_form": 1},
            "Mixed.typing_form: found 1 (int), expected an object with one key of Cat, Dog",
        ),
        ({"either": 1, "required": ()}, "Mixed.required: found () (tuple), expected"),
    ],
)
def test_wrong_json_is_refused(data: Any, message: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(message)):
        codec_of(Mixed).from_json(data)


def test_alternatives_with_one_name_are_refused() -> None:
    @dataclass
    class Bad:
        value: list[int] | list[str]

    with pytest.raises(XError, match=r"Bad.value: two alternatives of the union are called <List>"):
        xmlify(Bad)


def test_json_schema() -> None:
    properties = codec_of(Mixed).json_schema()["properties"]
    assert properties["either"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert properties["optional"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    tagged = properties["typing_form"]["anyOf"][0]["anyOf"]
    assert [alternative["required"] for alternative in tagged] == [["Cat"], ["Dog"]]
