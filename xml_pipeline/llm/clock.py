"""Time, as the router sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "Timer"]


class Timer(Protocol):
    """What can be called off."""

    def cancel(self) -> None:
        """Do not call."""
        ...


class Clock:
    """The time of the running event loop. Tests give the router another one, which they turn themselves."""

    def time(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` after ``delay`` seconds.

        Args:
            delay: seconds.
            callback: takes nothing and does not wait.
        """
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        """Come back after ``delay`` seconds."""
        await asyncio.sleep(delay)
