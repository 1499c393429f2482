"""Keys and subjects with holes, filled from payloads and read back."""

from __future__ import annotations

import enum
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.bridge.templates import Template
from xml_pipeline.config.mesh import agent_name_fault, pattern_matches
from xml_pipeline.errors import ValidationError

VALUES = st.from_regex(r"[a-zA-Z0-9_=-]{1,8}", fullmatch=True)
FIXED = st.from_regex(r"[a-zA-Z0-9_-]{1,5}", fullmatch=True)


@st.composite
def templates(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """A template with one hole in a segment at most, and values for its fields."""
    values, segments = {}, []
    for number in range(draw(st.integers(1, 4))):
        before, after = draw(st.just("") | FIXED), draw(st.just("") | FIXED)
        if draw(st.booleans()):
            values[f"f{number}"] = draw(VALUES)
            segments.append(f"{before}{{f{number}}}{after}")
        else:
            segments.append(before or "x")
    return ".".join(segments), values


@given(templates())
def test_what_was_filled_in_is_read_back(drawn: tuple[str, dict[str, str]]) -> None:
    text, values = drawn
    assert agent_name_fault(text, fields=True) is None
    template = Template(text)
    key = template.fill(SimpleNamespace(**values))
    assert template.values(key) == values
    assert template.fields == list(values)
    assert pattern_matches(template.pattern, key)
    assert key.count(".") == text.count(".")


@given(templates(), st.text(st.sampled_from("ab.*>{}=_- /é"), max_size=10))
def test_any_value_stays_in_its_segment_or_is_refused(drawn: tuple[str, dict[str, str]], value: str) -> None:
    text, values = drawn
    if not values:
        return
    template = Template(text)
    payload = SimpleNamespace(**{**values, next(iter(values)): value})
    if re.fullmatch(r"[a-zA-Z0-9_=-]+", value):
        assert pattern_matches(template.pattern, template.fill(payload))
    else:
        with pytest.raises(ValidationError):
            template.fill(payload)


@given(templates(), st.lists(st.sampled_from(["a", "x", "b-1"]), min_size=1, max_size=5).map(".".join))
def test_what_is_read_is_what_would_have_been_filled_in(drawn: tuple[str, dict[str, str]], key: str) -> None:
    template = Template(drawn[0])
    values = template.values(key)
    if values is not None:
        assert template.fill(SimpleNamespace(**values)) == key


class Kind(enum.Enum):
    HIGH = "high"
    ODD = "a.b"


@pytest.mark.parametrize(("value", "written"), [("a", "a"), (5, "5"), (-1, "-1"), (Kind.HIGH, "high")])
def test_values_that_are_one_segment(value: Any, written: str) -> None:
    assert Template("a.{x}").fill(SimpleNamespace(x=value)) == f"a.{written}"


@pytest.mark.parametrize("value", [None, True, 1.5, b"a", "", "a.b", Kind.ODD, [1], "a\n", "é", "\u0661"])
def test_values_that_are_not(value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Template("a.{x}").fill(SimpleNamespace(x=value))
    assert "'x'" in caught.value.detail
    with pytest.raises(ValidationError):
        Template("a.{y}").fill(SimpleNamespace(x="a"))


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("a.{x}.>", "a.b.c.d", {"x": "b"}),
        ("a.{x}.>", "a.b", None),
        ("*.{x}", "anything.b", {"x": "b"}),
        ("*.{x}", "any.thing.b", None),
        ("a.p-{x}", "a.p-1", {"x": "1"}),
        ("a.p-{x}", "a.q-1", None),
        ("a+b.{x}", "aab.1", None),
        ("a", "a", {}),
        (">", "a.b.c", {}),
    ],
)
def test_wildcards_are_for_what_is_not_wanted(text: str, key: str, values: dict[str, str] | None) -> None:
    assert Template(text).values(key) == values
