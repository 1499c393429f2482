from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pydantic
import pytest
from lxml import etree

from third_party.xmlable import EncodeError, codec_of
from third_party.xmlable.build import record_of
from third_party.xmlable.source import read_lines, return_line, write_lines

from .helpers import canonical, survives


@dataclass
class Hot:
    text: str
    count: int
    good: bool
    share: float
    note: str | None = None


def through_envelope(value: Any) -> Any:
    """Encode as a payload, put it into an envelope, compare with libxml2's canonical form, decode."""
    codec = codec_of(type(value))
    envelope = f'<message xmlns="urn:envelope"><meta></meta>{codec.encode_payload(value)}</message>'
    assert canonical(envelope) == envelope
    return codec.decode(etree.fromstring(envelope.encode())[1])


TEXTS = [
    "",
    "x",
    "ü",
    "a&b",
    "<",
    ">",
    "]]>",
    "\r",
    "\t\n",
    " ",
    "x" * 199,
    "x" * 200,
    "x" * 201,
    "é\n" * 200,
    "&" * 300,
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("note", [None, "", "<&>"])
def test_the_fast_path_is_canonical_for_all_texts(text: str, note: str | None) -> None:
    hot = Hot(text, 1, True, 1.5, note)
    assert through_envelope(hot) == hot
    survives(hot)


@pytest.mark.parametrize("count", [0, -1, 10**18 - 1, 10**18, -(10**18) + 1, -(10**18), 10**19])
@pytest.mark.parametrize("good", [True, False])
def test_the_fast_path_is_right_at_its_borders(count: int, good: bool) -> None:
    hot = Hot("x", count, good, 0.1)
    assert through_envelope(hot) == hot


@pytest.mark.parametrize("code", [0, 0x1F, 0xD800, 0xFFFE, 0xFFFF])
@pytest.mark.parametrize("size", [0, 50, 10_000])
def test_the_fast_path_lets_no_forbidden_character_pass(code: int, size: int) -> None:
    for field_name in ("text", "note"):
        hot = Hot("x", 1, True, 1.0)
        setattr(hot, field_name, "x" * size + chr(code))
        with pytest.raises(EncodeError, match=rf"^Hot.{field_name}: character U\+{code:04X} at index {size} "):
            codec_of(Hot).encode_payload(hot)


@pytest.mark.parametrize(("name", "value"), [("text", 1), ("count", True), ("good", 1), ("share", "x"), ("note", b"")])
def test_each_field_is_named_in_its_error(name: str, value: Any) -> None:
    hot = Hot("x", 1, True, 1.0)
    setattr(hot, name, value)
    for encode in (codec_of(Hot).encode, codec_of(Hot).encode_payload):
        with pytest.raises(EncodeError, match=rf"^Hot.{name}: found"):
            encode(hot)


def test_nothing_foreign_becomes_code() -> None:
    evil = "'); raise SystemExit  #"

    @dataclass
    class Careful:
        text: str = evil
        other: str = field(default="{text}", metadata={"description": evil})

    class Model(pydantic.BaseModel):
        text: str = pydantic.Field(alias=evil)

    for cls in (Careful, Model):
        record = record_of(cls)
        source = "\n".join([*write_lines(record), return_line(record, "", ""), *read_lines(record)])
        assert "SystemExit" not in source
    survives(Careful())
    survives(Model(**{evil: evil}))


def test_a_class_whose_name_is_code_gets_no_codec() -> None:
    cls = dataclass(type("A'; evil()", (), {"__annotations__": {"text": str}}))

    @dataclass
    class Outer:
        inner: cls  # type: ignore[valid-type]

    for name in (cls, dataclass(type("1a", (), {"__annotations__": {}})), dataclass(type("''", (), {}))):
        with pytest.raises(ValueError, match="which is no XML name"):
            codec_of(name)

    @dataclass
    class Listed:
        inner: list[dataclass(type("1a", (), {}))]  # type: ignore[valid-type]

    with pytest.raises(ValueError, match="1a as an item would be called '1a', which is no XML name"):
        codec_of(Listed)
    survives(Outer(cls("x")))  # type: ignore[call-arg]
