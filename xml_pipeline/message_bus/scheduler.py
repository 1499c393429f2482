"""Which messages enter the XML stages next.

Two lanes. The *internal* lane holds what handlers of open conversations sent; it is never blocked, for a bounded queue
inside a loop can deadlock it, and it is bounded by what was admitted. The *admission* lane holds external messages,
bounded per target and in all; putting one there waits or is refused.

External messages are taken round-robin over targets, and within a target by conversation. Of one target no more are
taken than its listener can soon handle (its *window*), so that a saturated listener fills its own queue and nobody
else's. What is taken is a batch: whatever is there, at most the limit, never waiting for more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable

from xml_pipeline.errors import Overloaded, PumpStopped
from xml_pipeline.message_bus.fair_queue import FairQueue
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.token_bucket import TokenBucket

__all__ = ["MAX_BATCH", "Scheduler", "Window"]

MAX_BATCH = 64
"""Messages taken at once: enough to amortise a pass through the pipeline (measured: 16 gives 90 % of it), few enough to
hold the event loop for at most about a millisecond."""


class Window:
    """The admission queue of one target, and how many of its messages are on their way to the listener."""

    __slots__ = ("in_ring", "queue", "released", "size", "target", "waiters")

    def __init__(self, target: str, size: int, depth_first: bool) -> None:
        self.target = target
        self.size = size
        self.queue: FairQueue[MessageState] = FairQueue(depth_first)
        self.released = 0
        self.in_ring = False
        self.waiters: deque[asyncio.Future[None]] = deque()


class Scheduler:
    """Both lanes, and the source of batches for the pipeline.

    Args:
        max_queue: external messages waiting, in all.
        max_queue_per_listener: external messages waiting for one target.
        max_inside: messages inside the XML stages at once.
        depth_first: see `FairQueue`.
        window_of: how many messages of a target may be between here and its handler.
        rate: bounds how many external messages are taken per second, or ``None``.
    """

    def __init__(
        self,
        *,
        max_queue: int,
        max_queue_per_listener: int,
        max_inside: int,
        depth_first: bool,
        window_of: Callable[[str], int],
        rate: TokenBucket | None = None,
    ) -> None:
        self.max_queue = max_queue
        self.max_queue_per_listener = max_queue_per_listener
        self.max_inside = max_inside
        self.rate = rate
        self.queued = 0
        """External messages waiting."""
        self._inside: dict[int, MessageState] = {}
        """By number, since a stage may go on with a copy of a message."""
        self._aside: dict[int, MessageState] = {}
        self._depth_first = depth_first
        self._window_of = window_of
        self._internal: deque[MessageState] = deque()
        self._windows: dict[str, Window] = {}
        self._ring: deque[Window] = deque()
        self._room: deque[asyncio.Future[None]] = deque()
        self._wakeup: asyncio.Future[None] | None = None
        self.waits = 0
        """How often there was nothing to take."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._refusing = False

    # -- putting in ---------------------------------------------------------------------------------------------

    def push(self, states: Iterable[MessageState]) -> None:
        """Put messages into the internal lane. Never waits, never refuses."""
        self._internal.extend(states)
        if self._wakeup is not None:
            self._wake()

    def put(self, state: MessageState) -> None:
        """`push`, for one message."""
        self._internal.append(state)
        if self._wakeup is not None:
            self._wake()

    def check_room(self, target: str) -> None:
        """Refuse at once what would have to wait.

        Raises:
            Overloaded: the target's queue, or the whole admission lane, is full.
            PumpStopped: the pump is stopping.
        """
        if self._refusing:
            raise PumpStopped("the pump is stopping and accepts no new messages", step="admission", target=target)
        if self.queued >= self.max_queue:
            raise Overloaded(f"{self.queued} messages are waiting (max_queue={self.max_queue})", step="admission")
        window = self._windows.get(target)
        if window is not None and window.queue.size >= self.max_queue_per_listener:
            raise Overloaded(
                f"{window.queue.size} messages are waiting for {target!r} "
                f"(max_queue_per_listener={self.max_queue_per_listener})",
                step="admission",
                target=target,
            )

    def is_full(self, target: str) -> bool:
        """Whether a message for ``target`` has to wait.

        Raises:
            PumpStopped: the pump is stopping.
        """
        return self._full(target) is not None

    async def wait_for_room(self, target: str) -> None:
        """Wait until `check_room` passes.

        Raises:
            PumpStopped: the pump is stopping.
        """
        woken_at: deque[asyncio.Future[None]] | None = None
        while (waiters := self._full(target)) is not None:
            if woken_at is not None and woken_at is not waiters:
                _wake_one(woken_at)  # there is room, but not for this one: the next may have it
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    _wake_one(waiters)
                raise
            woken_at = waiters

    def _full(self, target: str) -> deque[asyncio.Future[None]] | None:
        """Where to wait for room; ``None`` if there is room."""
        if self._refusing:
            raise PumpStopped("the pump is stopping and accepts no new messages", step="admission", target=target)
        window = self._windows.get(target)
        if window is not None and window.queue.size >= self.max_queue_per_listener:
            return window.waiters
        return self._room if self.queued >= self.max_queue else None

    def pass_on(self, target: str) -> None:
        """Somebody who had room was refused for another reason: the next one may have it."""
        window = self._windows.get(target)
        if window is not None:
            _wake_one(window.waiters)
        _wake_one(self._room)

    def admit(self, state: MessageState, target: str) -> None:
        """Put an external message into its target's queue; the caller made sure that there is room."""
        window = self._windows.get(target)
        if window is None:
            window = self._windows[target] = Window(target, self._window_of(target), self._depth_first)
        state.window = window
        conversation = state.conversation
        started = conversation is not None and bool(conversation.participants)
        window.queue.push(state.thread_id if conversation is None else conversation.id, state, started)
        self.queued += 1
        if not window.in_ring and window.released < window.size:
            window.in_ring = True
            self._ring.append(window)
        if self._wakeup is not None:
            self._wake()

    # -- taking out ---------------------------------------------------------------------------------------------

    async def batches(self) -> AsyncIterator[list[MessageState]]:
        """What to process next, until `close`. Waits for an event, never polls."""
        while True:
            batch = self.take()
            if batch:
                yield batch
            elif self._closed:
                return
            else:
                self.waits += 1
                self._wakeup = asyncio.get_running_loop().create_future()
                try:
                    await self._wakeup
                finally:
                    self._wakeup = None

    def take(self) -> list[MessageState]:
        """A batch of what is there; empty if nothing is, or nothing may be taken now."""
        limit = min(MAX_BATCH, self.max_inside - len(self._inside))
        if limit <= 0:
            return []
        internal = self._internal
        # A quarter of a batch is kept for new work, so that a conversation that breeds messages starves nobody.
        share = limit - limit // 4 if self._ring else limit
        if len(internal) <= share:
            batch = list(internal)
            internal.clear()
        else:
            batch = [internal.popleft() for _ in range(share)]
        if self._ring:
            self._take_external(batch, limit)
        while internal and len(batch) < limit:
            batch.append(internal.popleft())
        inside = self._inside
        for state in batch:
            state.in_pipe = True
            inside[state.number or id(state)] = state
        return batch

    def _take_external(self, batch: list[MessageState], limit: int) -> None:
        ring = self._ring
        rate = self.rate
        while ring and len(batch) < limit:
            if rate is not None and not rate.take():
                self._retry_in(rate.wait_time())
                return
            window = ring[0]
            batch.append(window.queue.pop())
            self.queued -= 1
            window.released += 1
            if window.waiters:
                _wake_one(window.waiters)
            if self._room:
                _wake_one(self._room)
            if window.queue.size and window.released < window.size:
                ring.rotate(-1)
            else:
                window.in_ring = False
                ring.popleft()

    def leave(self, state: MessageState) -> None:
        """A message left the XML stages: it was dispatched, or it ended."""
        state.in_pipe = False
        key = state.number or id(state)
        if self._inside.pop(key, None) is None:
            self._aside.pop(key, None)
        if self._wakeup is not None:
            self._wake()

    def leave_all(self, states: Iterable[MessageState]) -> None:
        """`leave`, for a batch; those that have left are passed over."""
        inside = self._inside
        for state in states:
            if state.in_pipe:
                state.in_pipe = False
                key = state.number or id(state)
                if inside.pop(key, None) is None:
                    self._aside.pop(key, None)
        if self._wakeup is not None:
            self._wake()

    def set_aside(self, state: MessageState) -> None:
        """A stage holds a message back for long: it must not keep others out of the XML stages meanwhile."""
        key = state.number or id(state)
        if self._inside.pop(key, None) is not None:
            self._aside[key] = state
        if self._wakeup is not None:
            self._wake()

    def started(self, state: MessageState) -> None:
        """An external message reached its handler, or ended: its target's window has room for another."""
        window: Window = state.window
        state.window = None
        window.released -= 1
        if window.queue.size:
            if not window.in_ring and window.released < window.size:
                window.in_ring = True
                self._ring.append(window)
                if self._wakeup is not None:
                    self._wake()
        else:
            self._forget_if_empty(window)

    def recharge(self, state: MessageState, target: str) -> None:
        """The message turns out to be for another target than it was admitted for: that one's window counts it.

        Raises:
            Overloaded: more of such messages are on their way to that target than may wait for it.
        """
        claimed: Window = state.window
        real = self._windows.get(target)
        if real is None:
            real = self._windows[target] = Window(target, self._window_of(target), self._depth_first)
        real.released += 1
        self.started(state)
        state.window = real
        if real.released > real.size + self.max_queue_per_listener:
            raise Overloaded(
                f"{real.released} messages are on their way to {target!r}, admitted as for {claimed.target!r}",
                step="route",
                target=target,
            )

    def _forget_if_empty(self, window: Window) -> None:
        """Targets' names in hostile envelopes must not pile up."""
        if not window.released and not window.queue.size and not window.waiters:
            self._windows.pop(window.target, None)

    def discard(self, key: str, wanted: Callable[[MessageState], bool]) -> list[MessageState]:
        """Remove a conversation's waiting external messages."""
        removed: list[MessageState] = []
        for window in list(self._windows.values()):
            found = window.queue.discard(key, wanted)
            if not found:
                continue
            self.queued -= len(found)
            for state in found:
                state.window = None
                self.pass_on(window.target)
            if not window.queue.size and window.in_ring:
                window.in_ring = False
                self._ring.remove(window)
            self._forget_if_empty(window)
            removed += found
        return removed

    # -- stopping -----------------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """Accept no new external messages; whoever waits for room is refused."""
        self._refusing = True
        for window in self._windows.values():
            _wake_all(window.waiters)
        _wake_all(self._room)

    def close(self) -> None:
        """End `batches` once everything is taken."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._wakeup is not None:
            self._wake()

    def drain(self) -> list[MessageState]:
        """Take everything that is still waiting, in both lanes."""
        states = list(self._internal)
        self._internal.clear()
        for window in self._windows.values():
            states += window.queue.drain()
            window.in_ring = False
        self._ring.clear()
        self.queued = 0
        return states

    @property
    def inside(self) -> int:
        """Messages inside the XML stages."""
        return len(self._inside)

    def take_inside(self) -> list[MessageState]:
        """The messages that were inside a pipeline that has broken, or was ended."""
        states = [*self._inside.values(), *self._aside.values()]
        for state in states:
            self.leave(state)
        return states

    def internal_numbers(self) -> set[int]:
        """Numbers of the messages in the internal lane."""
        return {state.number for state in self._internal}

    def apply(self, max_queue: int, max_queue_per_listener: int, max_inside: int, rate: TokenBucket | None) -> None:
        """Apply other limits; see the class. Whoever waits for room that there is now is woken."""
        self.rate = rate
        self.max_queue = max_queue
        self.max_queue_per_listener = max_queue_per_listener
        self.max_inside = max_inside
        for window in self._windows.values():
            _wake_all(window.waiters)
        _wake_all(self._room)
        self._wake()

    def resize(self) -> None:
        """Apply changed listeners: ask again how wide each window may be."""
        for window in self._windows.values():
            window.size = self._window_of(window.target)
            if window.queue.size and not window.in_ring and window.released < window.size:
                window.in_ring = True
                self._ring.append(window)
        self._wake()

    @property
    def waiting(self) -> int:
        """Messages in both lanes."""
        return len(self._internal) + self.queued

    def waiting_for(self, target: str) -> int:
        """External messages waiting for one target."""
        window = self._windows.get(target)
        return 0 if window is None else window.queue.size

    def _retry_in(self, seconds: float) -> None:
        if self._timer is None or self._timer.when() <= asyncio.get_running_loop().time():
            self._timer = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        wakeup, self._wakeup = self._wakeup, None  # once: what comes before it is awake need not call again
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)


def _wake_one(waiters: deque[asyncio.Future[None]]) -> None:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            return


def _wake_all(waiters: deque[asyncio.Future[None]]) -> None:
    while waiters:
        _wake_one(waiters)
