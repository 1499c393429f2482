"""Several names in one text: any names come back as they went in."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xml_pipeline import StreamPump
from xml_pipeline.config.names import name_fault
from xml_pipeline.errors import ValidationError
from xml_pipeline.primitives.step_names import join_names, read_steps, split_names
from xml_pipeline.runtime import use_runtime

NAMES = st.text(min_size=1).filter(lambda name: name == name.strip())
TRICKY = st.text(alphabet="a,\\ .\n", min_size=1).filter(lambda name: name == name.strip())


@given(st.lists(NAMES | TRICKY))
@example(["\\", ",", "\\,", ",\\", "a\\", "\\\\", "a, b", "a\\, b"])
def test_names_come_back_as_they_went_in(names: list[str]) -> None:
    assert split_names(join_names(names)) == names


@given(st.lists(NAMES.filter(lambda name: name_fault(name) is None and not {",", "\\"} & {*name})))
def test_ordinary_names_are_written_as_they_are(names: list[str]) -> None:
    assert join_names(names) == ", ".join(names)


@given(st.text() | st.text(alphabet="a,\\ \t\n"))
def test_any_text_is_some_names(text: str) -> None:
    names = split_names(text)
    assert all((name and name == name.strip()) or "\\" in text for name in names)
    assert split_names(join_names(names)) == [name.strip() for name in names if name.strip()]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        (" , ,\n,", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("  a ,\n b.c , d e  ,", ["a", "b.c", "d e"]),
        (r"a\, b, c", ["a, b", "c"]),
        (r"a\\, b", ["a\\", "b"]),
        (r"a\\\, b", ["a\\, b"]),
        (r"\a\.b", ["a.b"]),
        ("a\\", ["a"]),
        ("a,\\", ["a"]),
        ("\\", []),
    ],
)
def test_what_a_text_means(text: str, names: list[str]) -> None:
    assert split_names(text) == names


@given(st.lists(NAMES), st.integers(0, 5))
def test_no_more_names_are_read_than_asked_for(names: list[str], most: int) -> None:
    assert split_names(join_names(names), most) == names[:most]


def test_a_sequence_has_as_many_steps_as_the_pump_allows() -> None:
    with use_runtime(StreamPump(max_fan_out=3).runtime):
        assert read_steps("a,b,c") == ["a", "b", "c"]
        with pytest.raises(ValidationError, match="more than 3 steps") as caught:
            read_steps("a,b,c,d")
        assert caught.value.detail == "more than 3 steps (max_fan_out)"
