"""Dates, times and durations.

Forms are those of W3C XML Schema Part 2: ``xs:dateTime``, ``xs:date``, ``xs:time``, and ``xs:duration`` restricted to
days and smaller, as XSD 1.1 defines ``xs:dayTimeDuration``; they are ISO 8601 forms too, so JSON uses the same texts.
Instants of UTC are written with ``Z``. A fraction finer than a microsecond is cut, as `datetime.fromisoformat` does.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import Final

from .errors import DecodeError, EncodeError, mismatch
from .scalar import Scalar
from .text import WHITE

__all__ = ["MOMENTS"]

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?(Z|[+-][0-9]{2}:[0-9]{2})?")
_DURATION = re.compile(
    r"(-)?P(?:([0-9]+)D)?(?:T(?=[0-9.])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:(?=[0-9]|\.[0-9])([0-9]*)(?:\.([0-9]*))?S)?)?"
)
# What JSON Schema is told. The formats of these names are notes there, and those of RFC 3339 need a zone.
_YEAR: Final = r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP_YEAR: Final = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_JSON_DATE: Final = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_JSON_TIME: Final = (
    r"(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?|24:00:00(?:\.0+)?)"
    r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))?"
)
_SECONDS: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)S"
_CLOCK: Final = rf"T(?:[0-9]+H(?:[0-9]+M)?(?:{_SECONDS})?|[0-9]+M(?:{_SECONDS})?|{_SECONDS})"
_DAYTIME: Final = rf"-?P(?:[0-9]+D(?:{_CLOCK})?|{_CLOCK})"
_DAY: Final = timedelta(days=1)
_MAX_OFFSET: Final = timedelta(hours=14)  # XSD 1.0 part 2, 3.2.7.3


def _zoned(value: datetime | time) -> str:
    offset = value.utcoffset()
    text = value.isoformat()
    if offset is None:
        if value.tzinfo is not None:
            raise EncodeError("the time zone gives no offset for a time without a date; use a fixed offset or none")
        return text
    if abs(offset) > _MAX_OFFSET or offset % timedelta(minutes=1):
        raise EncodeError(f"the UTC offset {offset} has no XSD form: whole minutes, at most 14 hours; convert to UTC")
    return text if offset else text[: -len("+00:00")] + "Z"


def _clock(text: str) -> tuple[time, bool]:
    """Read ``hh:mm:ss.ffffff`` with an optional zone; whether it was 24:00:00, the midnight that ends a day."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError
    clock, fraction, zone = match.groups("")
    is_end = clock == "24:00:00" and not fraction.strip("0")
    if is_end:
        clock = "00:00:00"
    value = time.fromisoformat(f"{clock}.{fraction[:6]:0<6}{zone}")
    if zone and abs(value.utcoffset() or timedelta()) > _MAX_OFFSET:
        raise ValueError
    return value, is_end


def _datetime_of(text: str) -> datetime:
    day, _, clock = text.strip(WHITE).partition("T")
    try:
        if not _DATE.fullmatch(day):
            raise ValueError
        at, is_end = _clock(clock)
        moment = datetime.combine(date.fromisoformat(day), at)
        return moment + _DAY if is_end else moment
    except (ValueError, OverflowError):
        raise mismatch(DecodeError, text, "a date and time of the years 1-9999 as in 2025-01-31T12:00:00Z") from None


def _date_of(text: str) -> date:
    day = text.strip(WHITE)
    try:
        if _DATE.fullmatch(day):
            return date.fromisoformat(day)
    except ValueError:
        pass
    raise mismatch(DecodeError, text, "a date without a zone, of the years 1-9999, as in 2025-01-31")


def _time_of(text: str) -> time:
    try:
        return _clock(text.strip(WHITE))[0]
    except ValueError:
        raise mismatch(DecodeError, text, "a time of day as in 12:00:00") from None


def _duration_text(value: timedelta) -> str:
    length = abs(value)
    hours, rest = divmod(length.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    text = f"{hours}H" if hours else ""
    if minutes:
        text += f"{minutes}M"
    if length.microseconds:
        text += f"{seconds}.{length.microseconds:06}".rstrip("0") + "S"
    elif seconds or not (text or length.days):
        text += f"{seconds}S"
    days = f"{length.days}D" if length.days else ""
    return f"{'-' if value < timedelta() else ''}P{days}{'T' if text else ''}{text}"


def _duration_of(text: str) -> timedelta:
    match = _DURATION.fullmatch(text.strip(WHITE))
    if match is None or not any(match.groups()[1:]):
        raise mismatch(DecodeError, text, "a duration of days and smaller as in P1DT2H30M")
    sign, days, hours, minutes, seconds, fraction = match.groups("")
    try:
        length = timedelta(
            days=int(days or 0),
            hours=int(hours or 0),
            minutes=int(minutes or 0),
            seconds=int(seconds or 0),
            microseconds=int(f"{fraction[:6]:0<6}"),
        )
    except (OverflowError, ValueError):
        raise mismatch(DecodeError, text, "a duration of less than a thousand million days") from None
    return -length if sign else length


DATETIME: Final = Scalar(
    "Datetime",
    datetime,
    expected="a date and time",
    xsd="xs:dateTime",
    text=_zoned,
    value=_datetime_of,
    pattern="[0-9]{4}-.*",
    json_schema={"format": "date-time"},
    json_pattern=f"{_JSON_DATE}T{_JSON_TIME}",
    example="2025-01-31T12:00:00Z",
)
DATE: Final = Scalar(
    "Date",
    date,
    expected="a date",
    xsd="xs:date",
    text=date.isoformat,
    value=_date_of,
    unless=(datetime,),
    pattern="[0-9]{4}-[0-9]{2}-[0-9]{2}",
    json_schema={"format": "date"},
    json_pattern=_JSON_DATE,
    example="2025-01-31",
)
TIME: Final = Scalar(
    "Time",
    time,
    expected="a time of day",
    xsd="xs:time",
    pattern="[0-9].*",  # libxml2 takes white space off only where there is a pattern
    text=_zoned,
    value=_time_of,
    json_schema={"format": "time"},
    json_pattern=_JSON_TIME,
    example="12:00:00",
)
DURATION: Final = Scalar(
    "Timedelta",
    timedelta,
    expected="a duration",
    xsd="xs:duration",
    pattern="[^YM]*[DT].*",  # XSD 1.1 part 2, 3.4.27: this makes an xs:duration an xs:dayTimeDuration
    text=_duration_text,
    value=_duration_of,
    json_schema={"format": "duration"},
    json_pattern=_DAYTIME,
    example="PT30M",
)

MOMENTS: Final[dict[type, Scalar]] = {scalar.python: scalar for scalar in (DATETIME, DATE, TIME, DURATION)}
"""The scalar of each Python type."""
