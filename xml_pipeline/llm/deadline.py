"""`Deadline`: until when a call may take, whatever it is doing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from xml_pipeline.llm.clock import Clock

__all__ = ["Deadline", "TimeIsUp"]


class TimeIsUp(Exception):
    """The deadline has passed, or the call was ended."""


class Deadline:
    """Bounds the steps of one call by one moment. Between steps, a stream's consumer may take its time unharmed.

    Args:
        seconds: from now.
        clock: the time.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.seconds = seconds
        self.is_over = False
        """Whether the time was up, or the call was ended."""
        self._clock = clock
        self._ends = clock.time() + seconds
        self._step: asyncio.Timeout | None = None
        self._at_rest = asyncio.Event()
        self._at_rest.set()

    def left(self) -> float:
        """Seconds."""
        return self._ends - self._clock.time()

    def end(self) -> None:
        """Let the time be up now: the step that runs is cancelled, and there is no further one."""
        self.is_over = True
        step, self._step = self._step, None
        if step is not None:
            step.reschedule(asyncio.get_running_loop().time())

    async def at_rest(self) -> None:
        """Wait until no step runs."""
        await self._at_rest.wait()

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Bounds the block; one at a time.

        Raises:
            TimeIsUp: the time was up first; the block was cancelled.
        """
        left = self.left()
        if self.is_over or left <= 0:
            self.is_over = True
            raise TimeIsUp
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._step = scope
                self._at_rest.clear()
                # A timer of our clock, and not the loop's, tells the scope when: so that tests need not wait.
                timer = self._clock.call_later(left, self.end)
                try:
                    yield
                finally:
                    timer.cancel()
                    self._step = None
                    self._at_rest.set()
        except TimeoutError:
            if scope.expired():
                raise TimeIsUp from None
            raise
