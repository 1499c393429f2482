"""Parts of keys and subjects as fields of payloads."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from third_party.xmlable import codec_of
from xml_pipeline.bridge.forms import JsonForm
from xml_pipeline.errors import ValidationError


class Floor(enum.Enum):
    FIRST = 1


class Room(enum.Enum):
    ATTIC = "attic"
    FIVE = "5"


@dataclass
class Fields:
    whole: int = 0
    maybe: int | None = None
    number: float = 0.0
    text: str = ""
    either: int | str = ""
    floor: Floor = Floor.FIRST
    room: Room | None = None
    one_of: Literal[1, 2] = 1
    exact: Decimal = Decimal(0)
    yes: bool = False


FORM = JsonForm([codec_of(Fields)])


@pytest.mark.parametrize(
    ("field", "part", "value"),
    [
        ("whole", "5", 5),
        ("whole", "-5", -5),
        ("whole", "007", 7),
        ("maybe", "5", 5),
        ("number", "5", 5.0),
        ("text", "5", "5"),
        ("either", "5", "5"),
        ("floor", "1", Floor.FIRST),
        ("room", "attic", Room.ATTIC),
        ("room", "5", Room.FIVE),
        ("one_of", "2", 2),
        ("exact", "5", Decimal(5)),
    ],
)
def test_a_part_of_a_key_is_what_its_field_is(field: str, part: str, value: Any) -> None:
    assert FORM.read(b"{}", {field: part}) == Fields(**{field: value})


@pytest.mark.parametrize("part", ["--5", "-", "5-", "", "x", "1e3", "²", "٣", "9" * 5000, "-" + "9" * 4301])
@pytest.mark.parametrize("field", ["whole", "maybe", "floor", "one_of"])
def test_a_part_that_is_no_number_is_refused_where_one_is_needed(field: str, part: str) -> None:
    with pytest.raises(ValidationError):
        FORM.read(b"{}", {field: part})


@given(st.sampled_from([*Fields.__dataclass_fields__]), st.text(st.characters(codec="utf-8", exclude_characters=".")))
def test_any_part_is_taken_or_refused(field: str, part: str) -> None:
    try:
        FORM.read(b"{}", {field: part})
    except ValidationError as error:
        assert field in error.detail
