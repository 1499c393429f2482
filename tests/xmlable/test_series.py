from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from third_party.xmlable import DecodeError, EncodeError, XError, codec_of, xmlify

from .helpers import accepts, survives


@dataclass(frozen=True)
class Point:
    x: int


@dataclass
class Bag:
    numbers: list[int] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    points: frozenset[Point] = frozenset()
    path: tuple[Point, ...] = ()
    pair: tuple[str, int] = ("", 0)
    grid: list[list[float]] = field(default_factory=list)
    nothing: tuple[()] = ()


FULL = Bag([1, 2, 2], {"b", "a"}, frozenset({Point(1)}), (Point(2), Point(2)), ("x", 1), [[], [1.0, 2.5]], ())


def test_items_are_named_after_their_type() -> None:
    assert codec_of(Bag).encode(FULL) == (
        "<Bag><Numbers><Int>1</Int><Int>2</Int><Int>2</Int></Numbers>"
        "<Words><Str>a</Str><Str>b</Str></Words>"
        "<Points><Point><X>1</X></Point></Points>"
        "<Path><Point><X>2</X></Point><Point><X>2</X></Point></Path>"
        "<Pair><Item-1>x</Item-1><Item-2>1</Item-2></Pair>"
        "<Grid><List></List><List><Float>1.0</Float><Float>2.5</Float></List></Grid>"
        "<Nothing></Nothing></Bag>"
    )


@pytest.mark.parametrize("bag", [FULL, Bag()], ids=["full", "empty"])
def test_series_survive(bag: Bag) -> None:
    survives(bag)


def test_equal_sets_are_written_alike() -> None:
    words = [str(number) for number in range(100)]
    texts = {codec_of(Bag).encode(Bag(words=set(order))) for order in (words, words[::-1])}
    forms = {str(codec_of(Bag).to_json(Bag(words=set(order)))) for order in (words, words[::-1])}
    assert len(texts) == len(forms) == 1


def test_a_subclass_is_written_as_its_base() -> None:
    class Numbers(list[int]):
        pass

    bag = codec_of(Bag).decode_text(codec_of(Bag).encode(Bag(Numbers([1]))))
    assert type(bag.numbers) is list


@pytest.mark.parametrize(
    ("bag", "message"),
    [
        (Bag(numbers=(1,)), "Bag.numbers: found (1,) (tuple), expected a list"),  # type: ignore[arg-type]
        (Bag(numbers="12"), "Bag.numbers: found '12' (str), expected a list"),  # type: ignore[arg-type]
        (Bag(numbers=[1, True]), "Bag.numbers[1]: found True (bool), expected a whole number"),
        (Bag(grid=[[], [1.0, None]]), "Bag.grid[1][1]: found None (NoneType), expected a number"),  # type: ignore[list-item]
        (Bag(path=(Point(1), Point("x"))), "Bag.path[1].x: found 'x' (str), expected a whole"),  # type: ignore[arg-type]
        (Bag(pair=("x", "y")), "Bag.pair[1]: found 'y' (str), expected a whole number"),  # type: ignore[arg-type]
        (Bag(pair=("x",)), "Bag.pair: found ('x',) (tuple), expected a tuple of 2"),  # type: ignore[arg-type]
        (Bag(words=["x"]), "Bag.words: found ['x'] (list), expected a set"),  # type: ignore[arg-type]
    ],
)
def test_wrong_values_are_refused_with_their_path(bag: Bag, message: str) -> None:
    for write in (codec_of(Bag).encode, codec_of(Bag).to_json):
        with pytest.raises(EncodeError, match=re.escape(message)):
            write(bag)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<Numbers><Int>1</Int><Str>2</Str></Numbers>", "Bag.numbers[1]: found <Str>, expected <Int>"),
        ("<Numbers><Int>1</Int><Int>x</Int></Numbers>", "Bag.numbers[1]: found 'x', expected a whole number"),
        ("<Grid><List><Float>x</Float></List></Grid>", "Bag.grid[0][0]: found 'x', expected a number"),
        ("<Pair><Item-2>1</Item-2></Pair>", "Bag.pair: found <Item-2>, expected <Item-1>, <Item-2>"),
        ("<Pair><Item-1>a</Item-1><Item-2>b</Item-2></Pair>", "Bag.pair[1]: found 'b', expected a whole number"),
        ("<Nothing><Int>1</Int></Nothing>", "Bag.nothing: found <Int>, expected no element"),
        ("<Path><Point><Y>1</Y></Point></Path>", "Bag.path[0]: the element <Y> is unknown"),
    ],
)
def test_wrong_elements_are_refused_with_their_path(xml: str, message: str) -> None:
    xml = f"<Bag>{xml}</Bag>"
    assert not accepts(codec_of(Bag), xml)
    with pytest.raises(DecodeError, match=re.escape(message)):
        codec_of(Bag).decode_text(xml)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"numbers": {}}, "Bag.numbers: found {} (dict), expected an array"),
        ({"numbers": [1, "2"]}, "Bag.numbers[1]: found '2', expected a whole number"),
        ({"pair": ["x"]}, "Bag.pair: found ['x'] (list), expected an array of 2"),
        ({"pair": ["x", "y"]}, "Bag.pair[1]: found 'y', expected a whole number"),
        ({"words": ["x", "y", "x"]}, "Bag.words[2]: found 'x' (str) twice in a set"),
    ],
)
def test_wrong_json_is_refused_with_its_path(data: Any, message: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(message)):
        codec_of(Bag).from_json(data)


def test_members_of_a_set_that_come_twice_are_refused_though_the_schema_cannot_say_so() -> None:
    xml = "<Bag><Words><Str>x</Str><Str>y</Str><Str>x</Str></Words></Bag>"
    assert accepts(codec_of(Bag), xml)
    with pytest.raises(DecodeError, match=re.escape("Bag.words[2]: found 'x' (str) twice in a set")):
        codec_of(Bag).decode_text(xml)


def test_comments_and_white_space_between_items_do_no_harm() -> None:
    xml = "<Bag><Numbers>\n <!-- a --><Int>1<!-- b -->2</Int>\n</Numbers></Bag>"
    assert codec_of(Bag).decode_text(xml) == Bag([12])


def test_a_set_has_hashable_members() -> None:
    @dataclass
    class Mutable:
        x: int

    for annotation in ("set[Mutable]", "frozenset[list[int]]", "set[dict[str, int]]", "set[tuple[list[int], int]]"):

        @dataclass
        class Bad:
            values: Any

        Bad.__annotations__["values"] = annotation
        with pytest.raises(XError, match=r"Bad.values: .* cannot be the member of a (frozen)?set: it is not hashable"):
            xmlify(Bad)


def test_schema_and_json_schema() -> None:
    properties = codec_of(Bag).json_schema()["properties"]
    assert properties["numbers"] == {"type": "array", "items": {"type": "integer"}}
    assert properties["words"] == {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    assert properties["pair"] == {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "prefixItems": [{"type": "string"}, {"type": "integer"}],
        "default": ["", 0],
    }
