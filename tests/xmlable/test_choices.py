from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from third_party.xmlable import DecodeError, EncodeError, XError, codec_of, xmlify
from third_party.xmlable.choices import of_enum, of_literal

from .helpers import accepts, survives


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"
    CRIMSON = "red"  # noqa: PIE796 - an alias


class Mood(enum.StrEnum):
    GOOD = enum.auto()


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 20


class Shape(enum.Enum):
    SQUARE = (1,)
    ROUND = None


class Spaced(enum.Enum):
    WIDE = " a  b "
    RETURN = "\r\n"


@dataclass
class Choices:
    color: Color
    mood: Mood
    level: Level
    shape: Shape
    spaced: Spaced
    literal: Literal["a", 1, True]


CHOICES = Choices(Color.RED, Mood.GOOD, Level.HIGH, Shape.SQUARE, Spaced.RETURN, 1)


def test_by_value_where_values_are_text_or_numbers_else_by_name() -> None:
    assert codec_of(Choices).encode(CHOICES) == (
        "<Choices><Color>red</Color><Mood>good</Mood><Level>20</Level><Shape>SQUARE</Shape>"
        "<Spaced>&#xD;\n</Spaced><Literal>1</Literal></Choices>"
    )
    assert codec_of(Choices).to_json(CHOICES) == {
        "color": "red",
        "mood": "good",
        "level": 20,
        "shape": "SQUARE",
        "spaced": "\r\n",
        "literal": 1,
    }


@pytest.mark.parametrize("literal", ["a", 1, True])
@pytest.mark.parametrize("spaced", Spaced)
def test_choices_survive(spaced: Spaced, literal: Any) -> None:
    survives(Choices(Color.GREEN, Mood.GOOD, Level.LOW, Shape.ROUND, spaced, literal))


def test_a_literal_keeps_one_and_true_apart() -> None:
    for literal in (1, True):
        written = codec_of(Choices).encode(Choices(Color.RED, Mood.GOOD, Level.LOW, Shape.ROUND, Spaced.WIDE, literal))
        assert type(codec_of(Choices).decode_text(written).literal) is type(literal)


@dataclass
class Paint:
    color: Color
    level: Level = Level.LOW


@pytest.mark.parametrize("value", ["red", "RED", None, Mood.GOOD, []])
def test_a_value_that_is_no_member_is_refused(value: Any) -> None:
    for write in (codec_of(Paint).encode, codec_of(Paint).to_json):
        with pytest.raises(EncodeError, match=r"Paint.color: found .*, expected one of 'red', 'green'"):
            write(Paint(value))


@pytest.mark.parametrize("text", ["", "blue", "RED", "Red"])
def test_other_texts_are_refused(text: str) -> None:
    xml = f"<Paint><Color>{text}</Color></Paint>"
    assert not accepts(codec_of(Paint), xml)
    with pytest.raises(DecodeError, match=f"Paint.color: found '{text}', expected one of 'red', 'green'"):
        codec_of(Paint).decode_text(xml)


def test_white_space_around_a_choice_does_no_harm() -> None:
    xml = "<Paint><Color>\n red </Color><Level> +01 </Level></Paint>"
    assert accepts(codec_of(Paint), xml)
    assert codec_of(Paint).decode_text(xml) == Paint(Color.RED, Level.LOW)


@pytest.mark.parametrize("data", ["blue", 1, None, ["red"]])
def test_other_json_is_refused(data: Any) -> None:
    with pytest.raises(DecodeError, match=r"Paint.color: found .*, expected one of 'red', 'green'"):
        codec_of(Paint).from_json({"color": data})


def test_the_schema_lists_the_texts() -> None:
    schema = codec_of(Paint).json_schema()
    assert schema["properties"]["color"] == {"enum": ["red", "green"]}
    assert schema["properties"]["level"] == {"enum": [1, 20], "default": 1}


def test_flags_are_refused() -> None:
    with pytest.raises(XError, match="Access is a Flag, whose values combine"):
        of_enum(enum.Flag("Access", ["READ", "WRITE"]))


def test_an_enumeration_without_members_is_refused() -> None:
    with pytest.raises(XError, match="the enumeration Empty has no members"):
        of_enum(enum.Enum("Empty", []))


def test_values_with_one_text_are_refused() -> None:
    with pytest.raises(XError, match="two values of Literal have the same text: 1, '1'"):
        of_literal((1, "1"))


def test_texts_that_xml_cannot_carry_are_refused() -> None:
    with pytest.raises(XError, match=r"a value of Bad cannot be written: character U\+0000"):
        of_enum(enum.Enum("Bad", {"NUL": "\0"}))


def test_bytes_in_a_literal_are_refused() -> None:
    with pytest.raises(XError, match=r"b'x'.* is not supported"):
        of_literal((b"x",))


def test_a_literal_may_hold_members_of_an_enumeration() -> None:
    @xmlify
    @dataclass
    class Signal:
        color: Literal[Color.RED, Color.GREEN]

    survives(Signal(Color.GREEN))
