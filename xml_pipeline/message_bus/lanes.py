"""Whose handler runs next: messages wait in one lane per listener, and lanes take turns.

A lane that has both a message and a free slot stands in a ring, and workers take from it in turn. So a message gets a
worker only when its handler can run, and a slow listener delays nobody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from xml_pipeline.message_bus.lane import Lane, limit_of
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.thread_registry import Conversation

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["Lanes"]


class Lanes:
    """The lanes of one pump, and the slots they share.

    Args:
        limit: handlers running at once, in all.
        max_concurrent_per_agent: handlers of one agent running at once.
        depth_first: see `FairQueue`.
        wake: called when a message can run and a worker may be asleep.
    """

    def __init__(self, limit: int, max_concurrent_per_agent: int, depth_first: bool, wake: Callable[[], None]) -> None:
        self.by_key: dict[str, Lane] = {}
        self._max_concurrent_per_agent = max_concurrent_per_agent
        self._depth_first = depth_first
        self._wake = wake
        self._ring: deque[Lane] = deque()
        self._ready: deque[MessageState] = deque()
        """Messages that have their slots already, at most as many as there are free workers."""
        self._free = limit
        """Slots that neither a running handler nor a message in ``_ready`` has. Below zero while handlers that had
        lent theirs run on."""

    @property
    def has_work(self) -> bool:
        """Whether a worker would find a message."""
        return bool(self._ready or self._ring)

    @property
    def waiting(self) -> int:
        """Messages that wait for a handler."""
        return len(self._ready) + sum(lane.waiting.size for lane in self.by_key.values())

    def of(self, listener: Listener) -> Lane:
        """The lane of a listener, by name."""
        lane = self.by_key.get(listener.key)
        if lane is None:
            limit = limit_of(listener, self._max_concurrent_per_agent)
            lane = self.by_key[listener.key] = Lane(limit, listener.rate, self._depth_first)
        return lane

    # -- messages -----------------------------------------------------------------------------------------------

    def put(self, state: MessageState) -> None:
        """Put a message in line for its listener."""
        listener, conversation = state.listener, state.conversation
        if listener is None or conversation is None:
            raise RuntimeError(f"message {state.message_id} reached dispatch without a listener")
        lane = self.by_key.get(listener.key) or self.of(listener)
        if (
            self._free > 0
            and not self._ring
            and lane.active < lane.limit
            and not lane.waiting.size
            and lane.bucket is None
        ):
            # Nobody waits for anything: no need to queue.
            self._free -= 1
            lane.active += 1
            self._ready.append(state)
            return
        lane.waiting.push(conversation.id, state, state.sender is not None)
        if not lane.in_ring and lane.active < lane.limit:
            lane.in_ring = True
            self._ring.append(lane)

    def take(self) -> MessageState | None:
        """The next message whose handler may run, with its slots; ``None`` if there is none. See `give_back`."""
        if self._ready:
            return self._ready.popleft()
        ring = self._ring
        while ring and self._free > 0:
            lane = ring.popleft()
            lane.in_ring = False
            if not lane.waiting.size or lane.active >= lane.limit:
                continue
            if lane.bucket is not None and not lane.bucket.take():
                self._retry_in(lane, lane.bucket.wait_time())
                continue
            state = lane.waiting.pop()
            self._free -= 1
            lane.active += 1
            if lane.waiting.size and lane.active < lane.limit:
                lane.in_ring = True
                ring.append(lane)
            return state
        return None

    def give_back(self, listener: Listener) -> None:
        """A handler has ended, or lends its slots out while it waits."""
        self._free += 1
        lane = self.by_key.get(listener.key)
        if lane is not None:
            lane.active -= 1
            if lane.waiting.size:
                self._refresh(lane)
            elif lane.is_removed and not lane.active:
                del self.by_key[listener.key]

    def take_again(self, listener: Listener) -> None:
        """A handler that had lent its slots runs on, at once; nobody new starts until all are within their limits."""
        self._free -= 1
        self.of(listener).active += 1

    def discard(self, conversation: Conversation, wanted: Callable[[MessageState], bool]) -> list[MessageState]:
        """Remove a conversation's waiting messages that ``wanted`` picks."""
        removed = [state for state in self._ready if state.conversation is conversation and wanted(state)]
        for state in removed:
            self._ready.remove(state)
            if state.listener is not None:
                self.give_back(state.listener)
        for lane in self.by_key.values():
            if lane.waiting.size:
                removed += lane.waiting.discard(conversation.id, wanted)
        return removed

    def drain(self) -> list[MessageState]:
        """Take everything that waits."""
        states = [*self._ready, *(state for lane in self.by_key.values() for state in lane.waiting.drain())]
        self._ready.clear()
        return states

    # -- limits -------------------------------------------------------------------------------------------------

    def configure(self, listener: Listener) -> None:
        """Apply a changed listener's limits."""
        lane = self.of(listener)
        lane.is_removed = False
        lane.configure(limit_of(listener, self._max_concurrent_per_agent), listener.rate)
        if lane.timer is not None:
            lane.timer.cancel()  # it waited for a permission under the old rate
            self._retry(lane)
        elif lane.waiting:
            self._refresh(lane)
            self._wake()

    def resize(self, more: int, max_concurrent_per_agent: int) -> None:
        """Apply other common limits; `configure` each listener afterwards.

        Args:
            more: slots more in all than there were; negative for fewer.
            max_concurrent_per_agent: handlers of one agent running at once.
        """
        self._free += more
        self._max_concurrent_per_agent = max_concurrent_per_agent
        if self.has_work:
            self._wake()

    def forget(self, listener: Listener) -> None:
        """Drop the lane of a removed listener, unless something still runs or waits there."""
        lane = self.by_key.get(listener.key)
        if lane is not None:
            lane.is_removed = True
            if not lane.active and not lane.waiting.size:
                del self.by_key[listener.key]

    def _refresh(self, lane: Lane) -> None:
        if not lane.in_ring and lane.waiting.size and lane.active < lane.limit:
            lane.in_ring = True
            self._ring.append(lane)

    def _retry_in(self, lane: Lane, seconds: float) -> None:
        lane.in_ring = True  # so that nobody else puts it there before its time
        lane.timer = asyncio.get_running_loop().call_later(seconds, self._retry, lane)

    def _retry(self, lane: Lane) -> None:
        lane.timer = None
        lane.in_ring = False
        self._refresh(lane)
        self._wake()
