from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.mesh.kit import Ask
from xml_pipeline.mesh.payload import decode, encode, json_safe

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


def test_nothing_is_no_bytes_and_bytes_are_themselves():
    assert encode(None) == b""
    assert encode(b"{not json") == b"{not json"
    assert decode(b"") == {}


def test_models_and_other_values():
    assert json.loads(encode(Ask(message="hi"))) == {"message": "hi", "n": 1}
    assert encode("hi") == b'"hi"'
    assert json.loads(encode({"when": date(2026, 1, 2), "much": Decimal("1.5"), "them": [Ask(message="a")]})) == {
        "when": "2026-01-02",
        "much": "1.5",
        "them": [{"message": "a", "n": 1}],
    }


@given(JSON.filter(lambda value: value is not None))
def test_json_survives(value):
    assert decode(encode(value)) == value


@pytest.mark.parametrize("value", [object(), {"a": object()}, lambda: 1, "\ud800"])
def test_what_is_no_json_is_refused_here(value):
    with pytest.raises(TypeError, match="cannot be put into JSON"):
        encode(value)


def test_a_value_within_itself_is_refused():
    value: list[object] = []
    value.append(value)
    with pytest.raises(TypeError):
        encode(value)


@pytest.mark.parametrize("body", [b"{nope", b"\xff", b"[" * 100_000])
def test_what_cannot_be_read_is_a_value_error(body):
    with pytest.raises(ValueError):
        decode(body)


@given(st.text() | st.binary() | st.floats() | JSON)
def test_anything_can_be_made_safe(value):
    json.dumps(json_safe(value)).encode()


def test_safe_values_are_not_changed():
    assert json_safe({"a": [1, 2.5, None, True, "x"]}) == {"a": [1, 2.5, None, True, "x"]}


def test_long_text_is_cut():
    assert len(json_safe("x" * 100_000)) < 5000
    assert len(json_safe(list(range(10_000)))) == 1000
