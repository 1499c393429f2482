"""Time limits as they are given by users."""

from __future__ import annotations

import math

__all__ = ["check_seconds"]


def check_seconds(value: object, what: str = "timeout") -> float:
    """The time limit; one that has passed already counts as none left.

    Args:
        value: what was given.
        what: its name, for the error.

    Raises:
        TypeError: it is no number.
        ValueError: it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is a number of seconds, not {value!r:.60}")
    if not math.isfinite(value):
        raise ValueError(f"{what} is a finite number of seconds, not {value}")
    return max(0.0, value)
