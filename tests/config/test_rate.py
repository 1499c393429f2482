from __future__ import annotations

from typing import Any

import pytest

from xml_pipeline.config import Rate


@pytest.mark.parametrize(
    ("value", "per_second", "burst"),
    [
        ("10/s", 10.0, 10),
        ("10/sec", 10.0, 10),
        ("10 / second", 10.0, 10),
        ("120/min", 2.0, 2),
        ("100/min", 100 / 60, 2),
        ("1/minute", 1 / 60, 1),
        ("5/h", 5 / 3600, 1),
        ("3600/hour", 1.0, 1),
        ("2.5/s", 2.5, 3),
        (2.5, 2.5, 3),
        (10, 10.0, 10),
        (0.5, 0.5, 1),
    ],
)
def test_a_rate_is_parsed(value: Any, per_second: float, burst: int) -> None:
    rate = Rate.parse(value)
    assert rate.per_second == pytest.approx(per_second)
    assert rate.burst == burst


def test_a_rate_is_its_own_parse() -> None:
    rate = Rate(5.0, 50)
    assert Rate.parse(rate) is rate
    assert rate.burst == 50


@pytest.mark.parametrize(
    "value",
    [
        "",
        "10",
        "10/x",
        "10/ms",
        "/s",
        "ten/s",
        "-1/s",
        "1e3/s",
        "10//s",
        "10/S",
        "١٠/s",
        None,
        True,
        [],
        {},
        "10/s\x00",
    ],
)
def test_what_is_no_rate_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="must be a number per second"):
        Rate.parse(value)


@pytest.mark.parametrize("value", [0, 0.0, -1, 1e9, float("nan"), float("inf"), "0/s", 10**400, "99999999999/s", 1e-9])
def test_a_rate_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="between 1e-06 and 1e\\+06"):
        Rate.parse(value)


def test_a_burst_is_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        Rate(1.0, -1)
