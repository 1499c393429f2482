"""How one event subscriber is served: a bounded queue, and a reader who must not slow the emitter down.

`events` says what subscribers may rely on; this module is how it is done. Nothing here depends on what an event is,
except that it has a ``seq``.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
from collections import deque
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["MAX_PENDING", "CallbackReader", "Numbered", "Reader", "StreamReader", "SubscriberStatistics"]

logger = logging.getLogger(__name__)

SLICE_SECONDS: Final = 0.002
"""How long callbacks run before the others on the loop have their turn."""
QUICK_SECONDS: Final = 0.00002
"""A callback that takes no longer than this on average has a slice in every turn of the loop: a full slice then means
that very much happens, which is no reason to lose events."""
BLOCKED_SECONDS: Final = 0.005
"""A slice longer than this means that a callback blocks."""
SHARE: Final = 9
"""After a slice of a callback that is not quick, the others have the loop for this many times as long."""
IDLE_SECONDS: Final = 0.000015
"""A turn of the loop shorter than this means that nobody else had anything to do. An empty turn takes 2 to 5 us."""
LOG_SECONDS: Final = 10.0
"""At most one traceback per subscriber in this time; the others are only counted."""
MAX_PENDING: Final = 10_000
"""Default bound of a subscriber's queue, in events."""


class Numbered(Protocol):
    """What is delivered."""

    seq: int


class SubscriberStatistics(NamedTuple):
    """Counts of one subscriber."""

    name: str
    pending: int
    """Events in its queue."""
    delivered: int
    """Events it has got."""
    dropped: int
    """Events that fell out of its full queue."""
    errors: int
    """Exceptions its callback raised."""


class Reader:
    """A bounded queue and its one reader, who sleeps while it is empty."""

    __slots__ = ("asleep", "delivered", "dropped", "ended", "errors", "maxsize", "pending", "waiter")

    def __init__(self, maxsize: int) -> None:
        if maxsize < 1:
            raise ValueError(f"maxsize must be at least 1, not {maxsize}")
        self.maxsize = maxsize
        self.pending: deque[Numbered] = deque(maxlen=maxsize)
        self.dropped = 0
        self.delivered = 0
        self.errors = 0
        self.ended = False
        self.asleep = False
        """To be woken by the next event."""
        self.waiter: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        return "events()"

    def wake(self) -> None:
        """There is something to read, or the end."""
        self.asleep = False
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def rest(self, seconds: float | None = None) -> None:
        """Wait until woken by an event; with ``seconds``, only for that long, and not woken by events."""
        loop = asyncio.get_running_loop()
        self.waiter = waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self.wake)
        self.asleep = seconds is None
        try:
            await waiter
        finally:
            self.waiter = None
            self.asleep = False
            if timer is not None:
                timer.cancel()

    def end(self) -> None:
        """Nothing will be added any more."""
        self.ended = True
        self.wake()

    def statistics(self) -> SubscriberStatistics:
        return SubscriberStatistics(self.name, len(self.pending), self.delivered, self.dropped, self.errors)


class StreamReader(Reader):
    """Behind an `EventStream`: somebody else's task reads."""

    __slots__ = ()

    async def take(self) -> Numbered:
        while not self.pending:
            if self.ended:
                raise StopAsyncIteration
            if self.waiter is not None:
                raise RuntimeError("events() is being read by another task; call events() once per task")
            await self.rest()
        self.delivered += 1
        return self.pending.popleft()


class CallbackReader(Reader):
    """Reads in a task of its own, which lives from the first event to the end of the subscription or the loop."""

    __slots__ = (
        "_blocked",
        "_context",
        "_flushers",
        "_log_again",
        "_running",
        "_since",
        "_tasks",
        "_unlogged",
        "callback",
        "task",
    )

    def __init__(self, callback: Callable[[Any], Any], maxsize: int, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__(maxsize)
        self.callback = callback
        self.task: asyncio.Task[None] | None = None
        self.asleep = True
        self._tasks = tasks
        # Not the context of whoever happens to emit first, which is some handler's.
        self._context = contextvars.copy_context()
        self._running = 0
        """``seq`` of the event being delivered; 0 for none."""
        self._since = 0.0
        """When the loop last had its turn."""
        self._blocked = 0.0
        """For how many seconds the loop was blocked during this slice."""
        self._flushers: list[tuple[int, asyncio.Future[None]]] = []
        self._log_again = 0.0
        self._unlogged = 0

    @property
    def name(self) -> str:
        return getattr(self.callback, "__qualname__", None) or type(self.callback).__qualname__

    def wake(self) -> None:
        """See the task to its work, starting it where there is none (any more) in this loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        task = self.task
        if task is not None and not task.done() and task.get_loop() is loop:
            super().wake()
        elif not self.ended:
            self.asleep = False
            self.task = loop.create_task(self._deliver(), name=f"events to {self.name}", context=self._context)
            self._tasks.add(self.task)
            self.task.add_done_callback(self._finished)

    def end(self) -> None:
        self.pending.clear()
        super().end()
        self._release(None)

    def pending_until(self, seq: int) -> int:
        """How many events up to ``seq`` are not delivered yet, counting one in the callback's hands."""
        return sum(event.seq <= seq for event in self.pending) + (0 < self._running <= seq)

    def hurry(self, seq: int) -> asyncio.Future[None]:
        """Deliver without pauses until the event ``seq`` is done; the future tells when. Cancel it to stop hurrying."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushers.append((seq, done))
        self.wake()
        return done

    def _release(self, reached: int | None) -> None:
        """Tell those flushers that wait for no more than ``reached``, or all of them."""
        kept = []
        for seq, done in self._flushers:
            if reached is None or seq <= reached:
                if not done.done():
                    done.set_result(None)
            elif not done.done():
                kept.append((seq, done))
        self._flushers = kept

    async def _deliver(self) -> None:
        try:
            # An eager task factory runs this far inside `EventHub.emit`, which must not wait for a callback.
            await asyncio.sleep(0)
            while not self.ended:
                if not self.pending:
                    self._release(None)
                    await self.rest()
                    continue
                owed = await self._slice()
                if self._blocked and not self._flushers:
                    await self.rest(SHARE * self._blocked)
                elif self.pending:
                    await self._give_way(owed)
        finally:
            self._reset()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task is self.task:
            self._reset()  # a task cancelled before its first step never came to do so itself

    def _reset(self) -> None:
        """No task is at work: the next event starts one."""
        self._running = 0
        self.asleep = True
        self._release(None)

    async def _slice(self) -> float:
        """Deliver for about `SLICE_SECONDS`; returns for how long the others should have the loop now."""
        pending = self.pending
        delivered = self.delivered
        spent = self._blocked = 0.0
        self._since = time.perf_counter()
        while pending and spent <= SLICE_SECONDS:
            event = pending.popleft()
            self._running = event.seq
            await self._call(event)
            self._running = 0
            self.delivered += 1
            if self._flushers:
                self._release(event.seq)
            spent = time.perf_counter() - self._since
        if spent > BLOCKED_SECONDS:
            self._blocked += spent
        return SHARE * spent if spent > QUICK_SECONDS * (self.delivered - delivered) else 0.0

    async def _give_way(self, owed: float) -> None:
        """Let the others have the loop for ``owed`` seconds, or until they have nothing to do; at least for one turn.

        Unlike a pause of fixed length this wastes nothing: on an idle loop delivery goes on at once. Nor does it keep
        an idle loop awake, since the first idle turn ends it.
        """
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            turn = time.perf_counter() - began
            owed -= turn
            if owed <= 0 or turn < IDLE_SECONDS or self._flushers or self.ended:
                return

    async def _call(self, event: Numbered) -> None:
        try:
            result = self.callback(event)
            if result is not None and inspect.isawaitable(result):
                await self._metered(result)
        except asyncio.CancelledError:
            task = self.task
            if task is None or task.cancelling():
                raise
            self._count_error()  # the callback's own affair: something it awaited was cancelled
        except (Exception, SystemExit):
            self._count_error()

    @coroutine
    def _metered(self, awaitable: Awaitable[Any]) -> Generator[Any, Any, None]:
        """Await ``awaitable``, noting each stretch in which it kept the loop from running for too long."""
        steps = _as_coroutine(awaitable)
        step: Callable[[Any], Any] = steps.send
        value: Any = None
        while True:
            try:
                wish = step(value)
            except StopIteration:
                return
            spent = time.perf_counter() - self._since
            if spent > BLOCKED_SECONDS:
                self._blocked += spent
            try:
                value = yield wish
                step = steps.send
            except BaseException as exc:  # thrown in from outside, above all cancellation: it belongs inside
                value = exc
                step = steps.throw
            self._since = time.perf_counter()

    def _count_error(self) -> None:
        self.errors += 1
        now = time.monotonic()
        if now < self._log_again:
            self._unlogged += 1
            return
        logger.exception("event callback %s failed (%d earlier failures were not logged)", self.name, self._unlogged)
        self._log_again = now + LOG_SECONDS
        self._unlogged = 0


async def _as_coroutine(awaitable: Awaitable[Any]) -> None:
    await awaitable
