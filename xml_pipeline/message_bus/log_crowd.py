"""`LogCrowd`: log lines that may come by the thousand at once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from typing import Final

__all__ = ["LogCrowd"]

_MOST: Final = 10
_PERIOD: Final = 5.0


class LogCrowd:
    """Writes the first lines of a kind as they are, and of those that follow soon after only how many there were.

    All of them are written where the logger shows the level ``debug``. What they tell of is recorded elsewhere: this is
    only about lines.

    Args:
        logger: that writes them.
        level: theirs.
        rest: the line for those that were counted, with ``%d`` for how many.
        most: lines written as they are in one period.
        period: seconds from the first line to when the next ones are written as they are again.
    """

    def __init__(
        self, logger: logging.Logger, level: int, rest: str, *, most: int = _MOST, period: float = _PERIOD
    ) -> None:
        self._logger = logger
        self._level = level
        self._rest = rest
        self._most = most
        self._period = period
        self._ends = 0.0
        self._written = 0
        self._counted = 0
        self._timer: asyncio.TimerHandle | None = None

    def log(self, message: str, *args: object) -> None:
        """Write a line, or count it."""
        now = time.monotonic()
        if now >= self._ends:
            self.flush()
            self._ends, self._written = now + self._period, 0
        if self._written < self._most:
            self._written += 1
            self._logger.log(self._level, message, *args, stacklevel=2)
            return
        self._counted += 1
        self._logger.debug(message, *args, stacklevel=2)
        if self._timer is None:
            with contextlib.suppress(RuntimeError):  # no loop runs here: `flush`, or the next line, tells of it
                loop = asyncio.get_running_loop()
                # In a context of its own, for the timer would keep what the caller's refers to.
                self._timer = loop.call_later(self._ends - now, self.flush, context=contextvars.Context())

    def flush(self) -> None:
        """Write how many were counted, if any, now. To be called at the end of whatever it belongs to."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counted, self._counted = self._counted, 0
        if counted:
            self._logger.log(self._level, self._rest, counted)
