from __future__ import annotations

from typing import Any

import pytest
import yaml

from xml_pipeline.config.yaml_builder import MAX_DEPTH, MAX_VALUES, Builder, Unreadable


def built(text: str) -> Builder:
    builder = Builder()
    event: Any
    for event in yaml.parse(text):
        builder.take(event)
    return builder


def test_events_become_data_and_places() -> None:
    builder = built("a:\n- b: 1\n  c:\n")
    assert builder.data == {"a": [{"b": 1, "c": None}]}
    assert builder.problems == []
    root = builder.root
    assert root is not None
    assert root.children is not None
    items = root.children["a"].children
    assert items is not None
    entry = items[0].children
    assert entry is not None
    assert (entry["b"].line, entry["b"].column, entry["b"].key_line, entry["b"].key_column) == (2, 6, 2, 3)
    assert (entry["c"].line, entry["c"].column) == (3, 3)


def test_nothing_is_built_of_nothing() -> None:
    builder = built("")
    assert builder.root is None
    assert builder.data is None


def test_problems_are_collected_and_reading_goes_on() -> None:
    builder = built("a: &x 1\na: *x\n<<: {}\nb: [!!str 2, 3]\n")
    assert builder.data == {"a": 1, "b": [2, 3]}
    assert [(problem.path, problem.line) for problem in builder.problems] == [
        (("a",), 1),
        (("a",), 2),
        (("a",), 2),
        (("<<",), 3),
        (("b", 0), 4),
    ]


def test_what_stands_in_a_complex_key_is_left_out() -> None:
    builder = built("? [a, {b: c}]\n: {d: e}\nf: g\n")
    assert builder.data == {"f": "g"}
    assert [problem.text for problem in builder.problems] == ["a key must be plain text"]


def test_depth_and_number_are_bounded() -> None:
    with pytest.raises(Unreadable) as deep:
        built("[" * (MAX_DEPTH + 1))
    assert str(deep.value.problem) == f"1:{MAX_DEPTH + 1}: nested deeper than {MAX_DEPTH} levels"
    event = yaml.ScalarEvent(None, None, (True, False), "x", yaml.Mark("", 0, 4, 6, None, 0))
    builder = Builder()
    for _ in range(MAX_VALUES):
        builder.take(event)
    with pytest.raises(Unreadable) as long:
        builder.take(event)
    assert str(long.value.problem) == "5:7: more than 200,000 keys and values"


def test_a_second_document_ends_the_reading() -> None:
    with pytest.raises(Unreadable) as caught:
        built("a\n---\nb\n")
    assert str(caught.value.problem) == "2:1: a second document begins here; a file holds one"
