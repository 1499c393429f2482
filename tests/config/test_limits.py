from __future__ import annotations

from typing import Any

import pytest

from xml_pipeline.config import InvalidConfiguration, Limits, Rate
from xml_pipeline.config.interpolation import interpolate
from xml_pipeline.config.limits import LimitFields

DEFAULTS = {
    "thread_scheduling": "breadth-first",
    "max_concurrent_pipelines": 50,
    "max_concurrent_handlers": 20,
    "max_concurrent_per_agent": 5,
    "max_queue": 10_000,
    "max_queue_per_listener": 1_000,
    "max_hops": 64,
    "max_turns": 1_000,
    "max_fan_out": 1_000,
    "max_message_bytes": 1_048_576,
    "max_element_depth": 100,
    "max_elements": 50_000,
    "max_attributes": 256,
    "max_history_bytes": 1_048_576,
    "max_conversation_seconds": None,
    "timeout": 30.0,
    "rate": None,
    "thread_idle_ttl": 600.0,
    "max_threads": 1_000,
    "max_dead_letters": 1_000,
    "max_tokens_per_thread": 100_000,
}
COUNTS = [name for name, value in DEFAULTS.items() if isinstance(value, int)]


def test_the_defaults_are_the_documented_ones() -> None:
    assert Limits().model_dump() == DEFAULTS
    assert Limits.of() == Limits()


def test_limits_are_given_by_keyword() -> None:
    limits = Limits.of(max_hops=3, rate="10/s", timeout=5, max_conversation_seconds=60, thread_idle_ttl=0)
    assert (limits.max_hops, limits.rate, limits.timeout) == (3, Rate(10.0), 5.0)
    assert (limits.max_conversation_seconds, limits.thread_idle_ttl) == (60.0, 0.0)
    assert limits.max_turns == 1_000


def test_an_unknown_name_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        Limits.of(max_quee=3, max_hops=0)
    assert str(caught.value).splitlines() == [
        "max_hops: must be at least 1, not 0",
        "max_quee: unknown key, did you mean 'max_queue'?",
    ]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "must be at least 1, not 0"),
        (-1, "must be at least 1, not -1"),
        (10**10, "must be at most 1,000,000,000, not 10000000000"),
        (10**30, "must be at most 1,000,000,000, not a number"),
        (True, "must be a whole number, not true"),
        (1.5, "must be a whole number, not 1.5"),
        (5.0, "must be a whole number, not 5"),
        ("5", "must be a whole number, not the text '5'"),
        (None, "is blank, must be a whole number"),
        ([], "must be a whole number, not a list"),
    ],
)
def test_counts_are_positive_whole_numbers(name: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        Limits.of(**{name: value})
    assert str(caught.value) == f"{name}: {words}"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("timeout", 0, "must be greater than 0, not 0"),
        ("timeout", -0.5, "must be greater than 0, not -0.5"),
        ("timeout", True, "must be a number, not true"),
        ("timeout", None, "is blank, must be a number"),
        ("timeout", "30", "must be a number, not the text '30'"),
        ("timeout", float("nan"), "must be a finite number"),
        ("timeout", float("inf"), "must be a finite number"),
        ("max_conversation_seconds", 0, "must be greater than 0, not 0"),
        ("thread_idle_ttl", -1, "must be at least 0, not -1"),
        ("rate", "fast", "must be a number per second, or like '10/s', '100/min', '5/h', not 'fast'"),
        ("rate", 0, "a rate must be between 1e-06 and 1e+06 per second"),
        (
            "thread_scheduling",
            "breadth",
            "must be 'breadth-first' or 'depth-first', not the text 'breadth', did you mean 'breadth-first'?",
        ),
    ],
)
def test_other_limits_are_checked_too(name: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        Limits.of(**{name: value})
    assert str(caught.value) == f"{name}: {words}"


def test_limits_do_not_change() -> None:
    limits = Limits()
    with pytest.raises(InvalidConfiguration, match="max_hops: cannot be changed"):
        limits.max_hops = 5


def test_numbers_may_be_whole_variables() -> None:
    values, _ = interpolate(
        {"max_hops": "${A}", "timeout": "${B}", "max_conversation_seconds": "${C}", "rate": "${D}"},
        {"A": "7", "B": "2.5", "C": "null", "D": "4"},
    )
    limits = Limits.of(**values)
    assert (limits.max_hops, limits.timeout, limits.max_conversation_seconds) == (7, 2.5, None)
    assert limits.rate == Rate(4.0)


def test_a_wrong_variable_is_not_quoted() -> None:
    values, _ = interpolate({"max_hops": "${A}", "rate": "${A}"}, {"A": "secret"})
    with pytest.raises(InvalidConfiguration) as caught:
        Limits.of(**values)
    assert "secret" not in str(caught.value)
    assert "max_hops: must be a whole number, not the value of an environment variable" in str(caught.value)


def test_every_limit_is_described() -> None:
    assert all(field.description for field in LimitFields.model_fields.values())
    assert Limits.__doc__ is not None
    assert all(f"{name}:" in Limits.__doc__ for name in LimitFields.model_fields)
