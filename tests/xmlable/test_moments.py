from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from third_party.xmlable import DecodeError, EncodeError, codec_of

from .helpers import accepts, survives


@dataclass
class At:
    value: datetime


@dataclass
class On:
    value: date


@dataclass
class Clock:
    value: time


@dataclass
class Span:
    value: timedelta


HALF_PAST_FIVE_EAST = timezone(timedelta(hours=5, minutes=30))


def xml(cls: type, text: str) -> str:
    return f"<{cls.__name__}><Value>{text}</Value></{cls.__name__}>"


def read(cls: type, text: str) -> Any:
    assert accepts(codec_of(cls), xml(cls, text))
    value: Any = codec_of(cls).decode_text(xml(cls, text))
    return value.value


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime.min, "0001-01-01T00:00:00"),
        (datetime.max, "9999-12-31T23:59:59.999999"),
        (datetime(2025, 1, 31, 12, tzinfo=UTC), "2025-01-31T12:00:00Z"),
        (datetime(2025, 1, 31, 12, 0, 0, 1, HALF_PAST_FIVE_EAST), "2025-01-31T12:00:00.000001+05:30"),
        (datetime(2025, 7, 1, tzinfo=ZoneInfo("UTC")), "2025-07-01T00:00:00Z"),
        (datetime(2025, 1, 31, tzinfo=timezone(timedelta(hours=-14))), "2025-01-31T00:00:00-14:00"),
    ],
)
def test_moments_aware_and_naive(moment: datetime, text: str) -> None:
    assert codec_of(At).encode(At(moment)) == xml(At, text)
    survives(At(moment))
    assert (codec_of(At).decode_text(xml(At, text)).value.tzinfo is None) == (moment.tzinfo is None)


@pytest.mark.parametrize(
    "offset", [timedelta(hours=14, minutes=1), timedelta(minutes=53, seconds=28), timedelta(seconds=1)]
)
def test_offsets_that_xsd_does_not_know_are_refused(offset: timedelta) -> None:
    with pytest.raises(EncodeError, match=r"At.value: the UTC offset .* has no XSD form.*convert to UTC"):
        codec_of(At).encode(At(datetime(2025, 1, 1, tzinfo=timezone(offset))))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-02-29T24:00:00", datetime(2024, 3, 1)),
        ("2024-01-01T00:00:00.1234567899", datetime(2024, 1, 1, 0, 0, 0, 123456)),
        ("2024-01-01T00:00:00.1", datetime(2024, 1, 1, 0, 0, 0, 100000)),
        ("2024-01-01T00:00:00-00:00", datetime(2024, 1, 1, tzinfo=UTC)),
    ],
)
def test_moments_of_every_form(text: str, moment: datetime) -> None:
    assert read(At, text) == moment


NOT_MOMENTS = ["", "2024-01-01", "2024-01-01 00:00:00", "2024-01-01T00:00", "2024-13-01T00:00:00", "20240101T000000"]
NOT_MOMENTS += ["2024-02-30T00:00:00", "2024-01-01T24:00:01", "2024-01-01T00:00:60", "2024-01-01T00:00:00."]
NOT_MOMENTS += ["2024-01-01T00:00:00+14:01", "2024-01-01T00:00:00+1:00", "2024-01-01t00:00:00z", "0000-01-01T00:00:00"]


@pytest.mark.parametrize("text", NOT_MOMENTS)
def test_other_texts_are_no_moments(text: str) -> None:
    assert not accepts(codec_of(At), xml(At, text))
    with pytest.raises(DecodeError, match=re.escape(f"At.value: found {text!r}, expected a date and time")):
        codec_of(At).decode_text(xml(At, text))


@pytest.mark.parametrize("text", ["12024-01-01T00:00:00", "-0001-01-01T00:00:00", "9999-12-31T24:00:00"])
def test_years_that_python_does_not_have_are_refused(text: str) -> None:
    assert accepts(codec_of(At), xml(At, text)) == text.endswith("24:00:00")  # for which there is no pattern
    with pytest.raises(DecodeError, match="of the years 1-9999"):
        codec_of(At).decode_text(xml(At, text))


def test_a_moment_may_have_white_space_around_it() -> None:
    assert codec_of(At).decode_text(xml(At, "\n 2024-01-01T00:00:00 ")).value == datetime(2024, 1, 1)


@pytest.mark.parametrize("day", [date.min, date.max, date(2024, 2, 29)])
def test_dates(day: date) -> None:
    survives(On(day))


def test_a_moment_is_not_taken_for_a_date() -> None:
    with pytest.raises(EncodeError, match=r"On.value: found .*datetime\), expected a date$"):
        codec_of(On).encode(On(datetime(2025, 1, 1, 12)))


@pytest.mark.parametrize("text", ["2024-01-01Z", "2024-01-01+02:00", "99999-01-01", "-2024-01-01"])
def test_dates_with_a_zone_or_a_far_year_are_refused(text: str) -> None:
    assert not accepts(codec_of(On), xml(On, text))
    with pytest.raises(DecodeError, match="expected a date without a zone, of the years 1-9999"):
        codec_of(On).decode_text(xml(On, text))


@pytest.mark.parametrize("text", ["", "2023-02-29", "20240101", "2024-W01-1", "2024-1-1", "x"])
def test_other_texts_are_no_dates(text: str) -> None:
    assert not accepts(codec_of(On), xml(On, text))
    with pytest.raises(DecodeError, match=r"On\.value: found"):
        codec_of(On).decode_text(xml(On, text))


@pytest.mark.parametrize("clock", [time.min, time.max, time(12, tzinfo=UTC), time(1, 2, 3, 4, HALF_PAST_FIVE_EAST)])
def test_times(clock: time) -> None:
    survives(Clock(clock))


def test_times_of_every_form() -> None:
    assert read(Clock, "24:00:00") == time(0)
    assert read(Clock, "10:00:00.1234567890Z") == time(10, 0, 0, 123456, UTC)


@pytest.mark.parametrize("text", ["", "10:00", "24:00:01", "10:00:60", "T10:00:00", "100000", "1:00:00"])
def test_other_texts_are_no_times(text: str) -> None:
    assert not accepts(codec_of(Clock), xml(Clock, text))
    with pytest.raises(DecodeError, match=r"Clock\.value: found"):
        codec_of(Clock).decode_text(xml(Clock, text))


def test_a_time_whose_zone_needs_a_date_is_refused() -> None:
    with pytest.raises(EncodeError, match="the time zone gives no offset for a time without a date"):
        codec_of(Clock).encode(Clock(time(12, tzinfo=ZoneInfo("Europe/Berlin"))))


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(), "PT0S"),
        (timedelta(days=1), "P1D"),
        (timedelta(hours=36), "P1DT12H"),
        (timedelta(seconds=90), "PT1M30S"),
        (timedelta(microseconds=1), "PT0.000001S"),
        (timedelta(microseconds=-1), "-PT0.000001S"),
        (timedelta(days=-1, hours=-1, milliseconds=-100), "-P1DT1H0.1S"),
        (timedelta.max, "P999999999DT23H59M59.999999S"),
        (timedelta.min, "-P999999999D"),
    ],
)
def test_durations_are_exact(span: timedelta, text: str) -> None:
    assert codec_of(Span).encode(Span(span)) == xml(Span, text)
    survives(Span(span))


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (" PT36H ", timedelta(hours=36)),
        ("PT90M", timedelta(minutes=90)),
        ("P0DT5M", timedelta(minutes=5)),
        ("PT.5S", timedelta(milliseconds=500)),
        ("PT1.S", timedelta(seconds=1)),
        ("PT1.1234567S", timedelta(seconds=1, microseconds=123456)),
        ("-P1DT1H", -timedelta(days=1, hours=1)),
    ],
)
def test_durations_of_every_form(text: str, span: timedelta) -> None:
    assert read(Span, text) == span


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "P1DT", "P1Y", "P1M", "P1Y1D", "P1W", "PT1,5S", "+P1D", "P1.5D", "1D", "PTS"]
)
def test_other_texts_are_no_durations(text: str) -> None:
    assert not accepts(codec_of(Span), xml(Span, text))
    with pytest.raises(DecodeError, match=re.escape(f"Span.value: found {text!r}, expected a duration of days")):
        codec_of(Span).decode_text(xml(Span, text))


def test_durations_that_python_does_not_have_are_valid_and_refused() -> None:
    assert accepts(codec_of(Span), xml(Span, "P1000000000D"))
    with pytest.raises(DecodeError, match="less than a thousand million days"):
        codec_of(Span).decode_text(xml(Span, "P1000000000D"))


@pytest.mark.parametrize(("cls", "value"), [(At, date(2025, 1, 1)), (At, "2025"), (Clock, 12), (Span, 30), (On, None)])
def test_values_of_other_types_are_refused(cls: Any, value: Any) -> None:
    for write in (codec_of(cls).encode, codec_of(cls).to_json):
        with pytest.raises(EncodeError, match=rf"^{cls.__name__}.value: found .*, expected a "):
            write(cls(value))
