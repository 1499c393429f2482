"""How much one backend may be asked for: tokens per minute, requests per minute, calls at a time.

A call takes what it is thought to use from two buckets that fill again with time, and a place among the calls that
run. Afterwards it is settled: what it did not use is given back, what it used beyond is owed, and a call that failed
used nothing. Calls that must wait are served in the order in which they came.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Final

from xml_pipeline.llm.clock import Clock, Timer

__all__ = ["Bucket", "Limiter", "Permit"]

# Sums of floating-point numbers are off by less than this, and no limit is about a millionth of a token.
_TOLERANCE: Final = 1e-6


class Bucket:
    """Fills by ``per_minute`` in a minute, and holds no more than that.

    Args:
        per_minute: at least 1.
        clock: monotonic seconds.
    """

    __slots__ = ("_clock", "_level", "_updated", "burst")

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.burst = float(per_minute)
        self._clock = clock
        self._level = self.burst
        self._updated = clock()

    @property
    def level(self) -> float:
        """What can be taken now; below zero while more is owed than there is."""
        now = self._clock()
        self._level = min(self.burst, self._level + (now - self._updated) * self.burst / 60)
        self._updated = now
        return self._level

    def wait_time(self, amount: float) -> float:
        """Seconds until ``amount`` can be taken; 0 if it can be taken now."""
        missing = min(amount, self.burst) - self.level
        return 0.0 if missing <= _TOLERANCE else missing * 60 / self.burst

    def take(self, amount: float) -> float:
        """Take ``amount``; the caller has looked at `wait_time`.

        Returns:
            What was taken. A full bucket is enough for any call: one that needs more would else wait for ever, and the
            rest is owed once it is known.
        """
        taken = min(amount, self.burst)
        self._level = self.level - taken
        return taken

    def settle(self, taken: float, used: float) -> None:
        """Give back what was taken and not used, or owe what was used beyond.

        At most one full bucket is owed. The provider counts by the minute, too, and has forgotten older calls.

        Args:
            taken: what `take` returned.
            used: what it came to.
        """
        self._level = max(-self.burst, self.level + taken - used)

    def resize(self, per_minute: int) -> None:
        """Fill by, and hold, another number from now on. What was taken stays taken."""
        burst = float(per_minute)
        self._level = max(-burst, self.level + burst - self.burst)
        self.burst = burst


class Permit:
    """The right to make one call. In a ``with`` block, what is not settled at its end is refunded.

    What comes first counts, of `settle`, `refund` and `undo`; the others then do nothing.
    """

    __slots__ = ("_limiter", "taken")

    def __init__(self, limiter: Limiter, taken: float) -> None:
        self._limiter: Limiter | None = limiter
        self.taken = taken
        """Tokens."""

    def settle(self, used: int) -> None:
        """The call is over, and used so many tokens."""
        self._close(used, is_request_made=True)

    def refund(self) -> None:
        """The call failed, and used no tokens; that it was made counts all the same."""
        self._close(0, is_request_made=True)

    def undo(self) -> None:
        """The call was not made at all."""
        self._close(0, is_request_made=False)

    def _close(self, used: int, *, is_request_made: bool) -> None:
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter._closed(self.taken, used, is_request_made)

    def __enter__(self) -> Permit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refund()


class Limiter:
    """Lets calls begin, first come, first served.

    Args:
        tokens_per_minute: at least 1. As many may be used at once after a pause.
        requests_per_minute: likewise; ``None`` for any number.
        max_concurrent: calls at a time.
        clock: the time.
    """

    def __init__(
        self, tokens_per_minute: int, requests_per_minute: int | None, max_concurrent: int, clock: Clock
    ) -> None:
        self.tokens = Bucket(tokens_per_minute, clock.time)
        self.requests = None if requests_per_minute is None else Bucket(requests_per_minute, clock.time)
        self.max_concurrent = max_concurrent
        self.active = 0
        """Calls that run."""
        self.rests_until = -math.inf
        """When calls may begin again, after the backend has asked to be left alone; in seconds of ``clock``."""
        self._clock = clock
        self._queue: OrderedDict[asyncio.Future[Permit], int] = OrderedDict()
        self._timer: Timer | None = None

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return len(self._queue)

    def resize(self, tokens_per_minute: int, requests_per_minute: int | None, max_concurrent: int) -> None:
        """Hold to other limits from now on. Calls that run or wait count for them, and so does what was used.

        A limit of requests where there was none begins with a full minute's worth: nobody has counted before.

        Args:
            tokens_per_minute: as for a new one, as are the others.
        """
        self.tokens.resize(tokens_per_minute)
        if requests_per_minute is None:
            self.requests = None
        elif self.requests is None:
            self.requests = Bucket(requests_per_minute, self._clock.time)
        else:
            self.requests.resize(requests_per_minute)
        self.max_concurrent = max_concurrent
        if self._queue:
            self._serve()

    async def acquire(self, tokens: int) -> Permit:
        """Wait until a call may begin.

        Args:
            tokens: what it is thought to use.

        Returns:
            What has to be settled, refunded or undone. A caller that is cancelled leaves nothing behind.
        """
        if not self._queue and self._wait_time(tokens) == 0:
            return self._grant(tokens)
        place: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._queue[place] = tokens
        self._serve()
        try:
            return await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._queue.pop(place, None)
                self._serve()  # it may have been the first, and the next one may need less
            else:
                place.result().undo()  # granted in the same moment
            raise

    def _serve(self) -> None:
        """Let begin whoever can, and come back when the first of those that cannot will be able to."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue:
            place, tokens = next(iter(self._queue.items()))
            if not place.done():
                wait = self._wait_time(tokens)
                if wait is None:
                    return
                if wait > 0:
                    self._timer = self._clock.call_later(wait, self._serve)
                    return
                place.set_result(self._grant(tokens))
            del self._queue[place]

    def _wait_time(self, tokens: int) -> float | None:
        """Seconds until a call may begin; ``None`` when that depends on one that runs."""
        if self.active >= self.max_concurrent:
            return None
        wait = self.tokens.wait_time(tokens)
        return wait if self.requests is None else max(wait, self.requests.wait_time(1))

    def _grant(self, tokens: int) -> Permit:
        self.active += 1
        if self.requests is not None:
            self.requests.take(1)
        return Permit(self, self.tokens.take(tokens))

    def _closed(self, taken: float, used: int, is_request_made: bool) -> None:
        self.active -= 1
        self.tokens.settle(taken, used)
        if self.requests is not None and not is_request_made:
            self.requests.settle(1, 0)
        self._serve()
