from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xml_pipeline.config.interpolation import Interpolated, interpolate, reread

ENVIRONMENT = {"NAME": "Ada", "EMPTY": "", "TRICK": "${NAME}", "YAML": "x\nkey: value"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${NAME}", "Ada"),
        ("Hello ${NAME}!", "Hello Ada!"),
        ("${NAME}${NAME}", "AdaAda"),
        ("${NAME:-Bob}", "Ada"),
        ("${UNSET:-Bob}", "Bob"),
        ("${EMPTY:-Bob}", "Bob"),
        ("${UNSET:-}", ""),
        ("${UNSET:-a:-b}", "a:-b"),
        ("${EMPTY}", ""),
        ("${NAME:?needed}", "Ada"),
        ("$${NAME}", "${NAME}"),
        ("$$$$", "$$"),
        ("costs $5", "costs $5"),
        ("$NAME", "$NAME"),
        ("$", "$"),
        ("${TRICK}", "${NAME}"),
        ("${YAML}", "x\nkey: value"),
    ],
)
def test_variables_are_put_in(text: str, result: str) -> None:
    assert interpolate(text, ENVIRONMENT) == (result, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${UNSET}", "the environment variable UNSET is not set"),
        ("${UNSET:?set it to the key}", "the environment variable UNSET is needed: set it to the key"),
        ("${EMPTY:?}", "the environment variable EMPTY is needed: not set"),
        ("${", "'${' without '}'; write '$$' for a dollar sign"),
        ("a ${NAME", "'${' without '}'; write '$$' for a dollar sign"),
        ("${}", "'${}' does not name a variable; write '$$' for a dollar sign"),
        ("${1A}", "'${1A}' does not name a variable; write '$$' for a dollar sign"),
        ("${A-b}", "'${A-b}' does not name a variable; write '$$' for a dollar sign"),
        ("${É}", "'${É}' does not name a variable; write '$$' for a dollar sign"),
    ],
)
def test_what_cannot_be_put_in_is_a_problem_and_stays(text: str, problem: str) -> None:
    data, problems = interpolate({"a": [text]}, ENVIRONMENT)
    assert data == {"a": [text]}
    assert [str(one) for one in problems] == [f"a[0]: {problem}"]


def test_only_values_are_looked_at_and_the_data_is_copied() -> None:
    data = {"${NAME}": ["${NAME}", 1, None, True, 2.5], "b": {"c": "${NAME}"}}
    result, problems = interpolate(data, ENVIRONMENT)
    assert problems == []
    assert result == {"${NAME}": ["Ada", 1, None, True, 2.5], "b": {"c": "Ada"}}
    assert data["b"] == {"c": "${NAME}"}


def test_what_came_from_the_environment_is_marked() -> None:
    (whole, part, none), _ = interpolate(["${NAME}", "x${NAME}", "$$"], ENVIRONMENT)
    assert isinstance(whole, Interpolated)
    assert whole.whole
    assert isinstance(part, Interpolated)
    assert not part.whole
    assert type(none) is str


def test_a_whole_variable_can_stand_for_a_number_or_a_boolean() -> None:
    values, _ = interpolate(["${A}", "${B}", "${C}", "1${A}", "5"], {"A": "8080", "B": "true", "C": " 2.5 "})
    assert [reread(value) for value in values] == [8080, True, 2.5, "18080", "5"]


def test_data_within_itself_is_refused() -> None:
    data: list[object] = []
    data.append(data)
    _, problems = interpolate(data, {})
    assert "nested deeper" in problems[0].text


@given(st.text("${}:-?$AB ", max_size=30))
@settings(deadline=None)  # a busy machine is not a failure
def test_no_text_makes_it_raise(text: str) -> None:
    result, problems = interpolate(text, {"A": "1"})
    assert isinstance(result, str)
    assert len(problems) <= 1
