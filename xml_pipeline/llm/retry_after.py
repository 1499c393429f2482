"""When a provider says it will take more: RFC 9110, section 10.2.3."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["retry_after"]

_SECONDS: Final = re.compile(r"\d+(\.\d+)?", re.ASCII)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds until the provider says that it may be asked again.

    Args:
        headers: of its answer, found without regard to case: ``retry-after-ms``, as OpenAI sends it, else
            ``retry-after``, in seconds or as a date. A date is compared with the answer's own ``date``, so that clocks
            that differ do not matter.
        now: what a date is compared with when the answer has none; default: the time.

    Returns:
        Never less than 0, and as much as was said: the caller knows what is too much. ``None`` when nothing was said,
        or nothing that can be understood.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    seconds = _number(said)
    if seconds is not None:
        return seconds
    until = _date(said)
    if until is None:
        return None
    since = _date(headers.get("date")) or now or datetime.now(UTC)
    return max(0.0, (until - since).total_seconds())


def _number(text: str | None) -> float | None:
    text = (text or "").strip()
    if text.startswith("-") and _SECONDS.fullmatch(text[1:]):
        return 0.0
    value = float(text) if _SECONDS.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
