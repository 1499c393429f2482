"""Drives conversations through something, so many in flight, and makes sure that nothing was left out.

What a message costs is the time of the whole run, over the number of messages handled in it: injection, the wait for
room among those in flight, all steps, dispatch, handler, answer, and the end of the conversation. A conversation counts
as in flight from its injection until its last handler has been called as often as it should.

Each run is checked afterwards: by the handlers' own marks, every message of every conversation was handled once, and by
the pump's books every one of them has the outcome it should have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from benchmarks.measure import Sample, Stopwatch
from benchmarks.messages import FIRST

__all__ = ["LoopFactory", "Send", "Tally", "per_message", "run_async", "through", "uvloop_factory"]

Send = Callable[[int], Awaitable[object]]
"""Begins the conversation with this number, the first being `FIRST`."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Tally:
    """Counts the marks of every conversation.

    Args:
        each: how many marks a conversation makes.
    """

    def __init__(self, each: int = 1) -> None:
        self._each = each
        self._left: list[int] = []
        self._finished: Callable[[], None] = _nothing

    def mark(self, number: int) -> None:
        """A handler at the end of its conversation has been called."""
        left = self._left
        left[number - FIRST] -= 1
        if not left[number - FIRST]:
            self._finished()

    def begin(self, conversations: int, finished: Callable[[], None]) -> None:
        """Expect so many conversations; ``finished`` is called at the end of each."""
        self._left = [self._each] * conversations
        self._finished = finished

    def check(self) -> None:
        """Raise `AssertionError` unless every conversation has made all of its marks, and no more."""
        wrong = [number for number, left in enumerate(self._left) if left]
        if wrong:
            raise AssertionError(f"{len(wrong)} conversations were not handled exactly once, e.g. number {wrong[0]}")


def _nothing() -> None:
    pass


async def through(
    send: Send, tally: Tally, wait_idle: Callable[[], Awaitable[object]], conversations: int, in_flight: int
) -> Sample:
    """Run conversations, and return microseconds per conversation.

    Args:
        send: begins one.
        tally: is marked at the end of each, and checked.
        wait_idle: returns when nothing is left to do; part of the time.
        conversations: how many.
        in_flight: at most so many at a time.
    """
    window = asyncio.Semaphore(in_flight)
    tally.begin(conversations, window.release)
    watch = Stopwatch()
    for number in range(FIRST, FIRST + conversations):
        await window.acquire()
        await send(number)
    await wait_idle()
    sample = watch.sample(conversations)
    tally.check()
    return sample


def per_message(sample: Sample, messages: int, **details: float) -> Sample:
    """What `through` returned, for conversations of so many messages each."""
    return Sample(sample.value / messages, sample.wall / messages, details)


def run_async(main: Callable[[], Any], loop_factory: LoopFactory | None = None) -> Sample:
    """Run one measurement in an event loop of its own."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        sample: Sample = runner.run(main())
    return sample


def uvloop_factory() -> LoopFactory | None:
    """uvloop's, if it is installed."""
    with suppress(ImportError):
        import uvloop

        factory: LoopFactory = uvloop.new_event_loop
        return factory
    return None
