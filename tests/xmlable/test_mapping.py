from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

import pytest

from third_party.xmlable import DecodeError, EncodeError, XError, codec_of, xmlify

from .helpers import accepts, survives


@dataclass
class Table:
    by_name: dict[str, int] = field(default_factory=dict)
    by_number: dict[int, list[str]] = field(default_factory=dict)
    by_day: dict[date, dict[str, bool]] = field(default_factory=dict)
    by_id: dict[UUID, str] = field(default_factory=dict)
    by_place: dict[tuple[int, int], str] = field(default_factory=dict)


FULL = Table(
    {"b": 1, "a": 2, "": 3},
    {7: ["x"], -1: []},
    {date(2025, 1, 31): {"ok": True}},
    {UUID(int=1): "one"},
    {(0, 1): "here"},
)


@pytest.mark.parametrize("table", [FULL, Table()], ids=["full", "empty"])
def test_dictionaries_survive(table: Table) -> None:
    survives(table)


def test_entries_stand_in_their_own_order() -> None:
    assert (
        codec_of(Table)
        .encode(Table({"b": 1, "a": 2}))
        .startswith(
            "<Table><ByName><Item><Key>b</Key><Val>1</Val></Item><Item><Key>a</Key><Val>2</Val></Item></ByName>"
        )
    )
    assert list(codec_of(Table).decode_text(codec_of(Table).encode(FULL)).by_name) == ["b", "a", ""]


def test_json_is_an_object_where_keys_are_strings() -> None:
    form = codec_of(Table).to_json(FULL)
    assert form["by_name"] == {"b": 1, "a": 2, "": 3}
    assert form["by_id"] == {"00000000-0000-0000-0000-000000000001": "one"}
    assert form["by_number"] == [{"key": 7, "value": ["x"]}, {"key": -1, "value": []}]


def test_a_subclass_is_written_as_a_dict() -> None:
    counts: dict[str, int] = defaultdict(int, a=1)
    assert codec_of(Table).decode_text(codec_of(Table).encode(Table(counts))) == Table({"a": 1})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Table([("a", 1)]), "Table.by_name: found [('a', 1)] (list), expected a dict"),  # type: ignore[arg-type]
        (Table({1: 1}), "Table.by_name[1]: found 1 (int), expected text"),  # type: ignore[dict-item]
        (Table({"a": "x"}), "Table.by_name['a']: found 'x' (str), expected a whole number"),  # type: ignore[dict-item]
        (Table({"a" * 90: 1.5}), f"Table.by_name['{'a' * 39}...]: found 1.5"),  # type: ignore[dict-item]
    ],
)
def test_wrong_values_are_refused_with_their_key(table: Table, message: str) -> None:
    for write in (codec_of(Table).encode, codec_of(Table).to_json):
        with pytest.raises(EncodeError, match=re.escape(message)):
            write(table)


ITEM = "<Item><Key>{}</Key><Val>{}</Val></Item>"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<Item><Key>a</Key></Item>", "Table.by_name[0]: found <Item><Key>, expected <Item><Key>...</Key><Val>"),
        ("<Entry><Key>a</Key><Val>1</Val></Entry>", "Table.by_name[0]: found <Entry><Key><Val>, expected <Item>"),
        ("<Item><Val>1</Val><Key>a</Key></Item>", "Table.by_name[0]: found <Item><Val><Key>, expected <Item>"),
        (ITEM.format("a", "x"), "Table.by_name['a']: found 'x', expected a whole number"),
    ],
)
def test_wrong_elements_are_refused(xml: str, message: str) -> None:
    xml = f"<Table><ByName>{xml}</ByName></Table>"
    assert not accepts(codec_of(Table), xml)
    with pytest.raises(DecodeError, match=re.escape(message)):
        codec_of(Table).decode_text(xml)


def test_a_wrong_key_is_refused_with_its_index() -> None:
    with pytest.raises(DecodeError, match=re.escape("Table.by_number[0]: found 'x', expected a whole number")):
        codec_of(Table).decode_text(f"<Table><ByNumber>{ITEM.format('x', '')}</ByNumber></Table>")


@pytest.mark.parametrize(("tag", "first", "second"), [("ByName", "a", "a"), ("ByNumber", "1", "01")])
def test_a_key_that_comes_twice_is_refused_though_the_schema_cannot_say_so(tag: str, first: str, second: str) -> None:
    value = "1" if tag == "ByName" else ""
    xml = f"<Table><{tag}>{ITEM.format(first, value)}{ITEM.format(second, value)}</{tag}></Table>"
    assert accepts(codec_of(Table), xml)
    with pytest.raises(DecodeError, match=r"found the key .* twice"):
        codec_of(Table).decode_text(xml)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"by_name": []}, "Table.by_name: found [] (list), expected an object"),
        ({"by_name": {"a": "1"}}, "Table.by_name['a']: found '1', expected a whole number"),
        ({"by_number": {"1": []}}, "Table.by_number: found {'1': []} (dict), expected an array of"),
        ({"by_number": [{"key": 1}]}, "Table.by_number[0]: found {'key': 1} (dict), expected an object with"),
        ({"by_number": [{"key": "1", "value": []}]}, "Table.by_number['1']: found '1', expected a whole number"),
        ({"by_number": [{"key": 1, "value": []}] * 2}, "Table.by_number: found the key 1 (int) twice"),
        ({"by_day": {"x": {}}}, "Table.by_day['x']: found 'x', expected a date"),
    ],
)
def test_wrong_json_is_refused(data: Any, message: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(message)):
        codec_of(Table).from_json(data)


def test_keys_are_hashable() -> None:
    @dataclass
    class Bad:
        values: dict[list[int], str]  # type: ignore[type-var]

    with pytest.raises(XError, match=r"Bad.values: a list cannot be the key of a dict: it is not hashable"):
        xmlify(Bad)


def test_json_schema() -> None:
    properties = codec_of(Table).json_schema()["properties"]
    assert properties["by_name"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    names = properties["by_id"]["propertyNames"]
    assert (names["type"], names["format"], names["pattern"][:18]) == ("string", "uuid", "^(?:[0-9a-fA-F]{8}")
    assert properties["by_number"]["items"]["required"] == ["key", "value"]
