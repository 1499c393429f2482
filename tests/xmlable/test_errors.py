from __future__ import annotations

import pickle

import pytest

from third_party.xmlable import DecodeError, EncodeError, XError
from third_party.xmlable.errors import did_you_mean, mismatch, show


def test_tree() -> None:
    assert issubclass(XError, ValueError)
    assert issubclass(EncodeError, XError)
    assert issubclass(DecodeError, XError)


def test_text_is_path_and_reason() -> None:
    error = DecodeError("found 'x', expected a number").at("[3]").at(".lines").at("Order")
    assert str(error) == "Order.lines[3]: found 'x', expected a number"
    assert (error.path, error.reason) == ("Order.lines[3]", "found 'x', expected a number")


def test_text_without_path_is_the_reason() -> None:
    assert str(XError("no")) == "no"


def test_a_path_that_has_no_class_yet_begins_with_the_field() -> None:
    assert str(XError("no").at(".text")) == "text: no"


def test_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(EncodeError("no").at("Order.text")))
    assert type(error) is EncodeError
    assert str(error) == "Order.text: no"


def test_show_says_the_type_and_cuts() -> None:
    assert show(1) == "1 (int)"
    assert show("x" * 1000) == "'" + "x" * 59 + "... (str)"


def test_mismatch_names_no_type_for_text_that_was_read() -> None:
    assert str(mismatch(DecodeError, "x", "a number")) == "found 'x', expected a number"
    assert str(mismatch(EncodeError, "x", "a number")) == "found 'x' (str), expected a number"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Txet", "; did you mean 'Text'?"),
        ("TEXT", "; did you mean 'Text'?"),
        ("Quite", "; known are 'Text', 'Number'"),
    ],
)
def test_did_you_mean(name: str, hint: str) -> None:
    assert did_you_mean(name, ["Text", "Number"]) == hint


def test_did_you_mean_knows_nothing() -> None:
    assert did_you_mean("x", []) == "; none is known here"
