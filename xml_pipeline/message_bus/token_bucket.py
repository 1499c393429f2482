"""A token bucket: how often something may happen."""

from __future__ import annotations

import time
from collections.abc import Callable

from xml_pipeline.config import Rate

__all__ = ["TokenBucket"]


class TokenBucket:
    """Gives at most ``rate.per_second`` permissions a second, and at most ``rate.burst`` at once.

    Args:
        rate: how often.
        clock: monotonic seconds.
    """

    __slots__ = ("_clock", "_rate", "_tokens", "_updated")

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = float(rate.burst)
        self._updated = clock()

    def take(self) -> bool:
        """Take one permission, if there is one."""
        self._refill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def wait_time(self) -> float:
        """Seconds until there is a permission."""
        self._refill()
        return max(0.0, (1.0 - self._tokens) / self._rate.per_second)

    def _refill(self) -> None:
        now = self._clock()
        earned = (now - self._updated) * self._rate.per_second
        self._tokens = min(float(self._rate.burst), self._tokens + earned)
        self._updated = now
