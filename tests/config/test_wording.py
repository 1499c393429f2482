from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from xml_pipeline.config.interpolation import interpolate
from xml_pipeline.config.problems import Hints, InvalidConfiguration, Problem
from xml_pipeline.config.wording import describe, kind_of


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    size: int = Field(default=1, lt=10)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(default="x", min_length=1, max_length=3)
    inner: Inner = Inner()
    items: list[int] = []
    inners: list[Inner] = []
    kind: Literal["red", "green"] = "red"

    @model_validator(mode="after")
    def _no_cats(self) -> Outer:
        if self.name == "cat":
            raise InvalidConfiguration([Problem("no cats", ("name",)), Problem("at all")])
        return self


def said(raw: Any, prefix: tuple[str | int, ...] = ()) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(raw)
    return [str(problem) for problem in describe(caught.value, Outer, raw, Hints(), prefix)]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"nmae": 1}, "nmae: unknown key, did you mean 'name'?"),
        ({"inner": {"sise": 1}}, "inner.sise: unknown key, did you mean 'size'?"),
        ({"inners": [{}, {"sise": 1}]}, "inners[1].sise: unknown key, did you mean 'size'?"),
        ({"inner": {"size": "1"}}, "inner.size: must be a whole number, not the text '1'"),
        ({"inner": {"size": 10}}, "inner.size: must be less than 10, not 10"),
        ({"inner": 5}, "inner: must be a mapping of keys to values, not 5"),
        ({"items": [1, "x"]}, "items[1]: must be a whole number, not the text 'x'"),
        ({"items": {}}, "items: must be a list, not a mapping"),
        ({"name": ""}, "name: must not be empty"),
        ({"name": "long"}, "name: String should have at most 3 characters"),
        ({"kind": "gren"}, "kind: must be 'red' or 'green', not the text 'gren', did you mean 'green'?"),
        ({"kind": None}, "kind: must be 'red' or 'green', not blank"),
    ],
)
def test_errors_are_put_in_our_words(raw: Any, problem: str) -> None:
    assert said(raw) == [problem]


def test_problems_may_stand_under_a_prefix() -> None:
    assert said({"name": 1}, ("listeners", 2)) == ["listeners[2].name: must be text, not 1"]


def test_problems_of_a_validator_are_kept_apart() -> None:
    assert said({"name": "cat"}, ("a",)) == ["a.name: no cats", "a: at all"]


def test_secrets_are_not_shown() -> None:
    raw, _ = interpolate({"kind": "${A}", "items": ["${A}"]}, {"A": "secret"})
    assert "secret" not in "".join(said(raw))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "blank"),
        (True, "true"),
        (5, "5"),
        (-0.5, "-0.5"),
        pytest.param(10**5000, "a number", id="huge"),
        ("x", "the text 'x'"),
        ([], "a list"),
        ((), "a list"),
        ({}, "a mapping"),
        (object(), "a object"),
    ],
)
def test_kinds_of_values_have_names(value: Any, words: str) -> None:
    assert kind_of(value) == words
