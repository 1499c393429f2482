from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.llm.retry_after import retry_after

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("86400000", 86_400_000.0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0),
        ("Sunday, 01-Mar-26 12:01:30 GMT", 90.0),
        ("Sun Mar  1 12:01:30 2026", 90.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("7 seconds", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("٧", None),
        ("9" * 400, None),
        ("Sun, 99 Mar 2026 12:01:30 GMT", None),
        ("Sun, 01 Mar 99999 12:01:30 GMT", None),
    ],
)
def test_what_was_said(said, seconds):
    assert retry_after({"retry-after": said}, NOW) == seconds


def test_nothing_was_said():
    assert retry_after({}, NOW) is None


def test_a_date_is_compared_with_the_servers_own_clock():
    later = {"retry-after": "Sun, 01 Mar 2026 12:01:30 GMT", "date": "Sun, 01 Mar 2026 12:01:20 GMT"}
    assert retry_after(later, NOW) == 10.0
    assert retry_after({**later, "date": "today"}, NOW) == 90.0


def test_a_date_is_compared_with_now():
    when = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    seconds = retry_after({"retry-after": when})
    assert seconds is not None and 3000 < seconds <= 3600


def test_milliseconds_are_more_exact():
    assert retry_after({"retry-after-ms": "250", "retry-after": "1"}, NOW) == 0.25
    assert retry_after({"retry-after-ms": "soon", "retry-after": "1"}, NOW) == 1.0


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_a_server_says(said, date):
    seconds = retry_after({"retry-after": said, "date": date}, NOW)
    assert seconds is None or 0 <= seconds < float("inf")
