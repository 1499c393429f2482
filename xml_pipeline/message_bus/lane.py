"""What one listener is doing: how many of its handlers run, and which messages wait for it."""

from __future__ import annotations

from asyncio import TimerHandle
from typing import TYPE_CHECKING

from xml_pipeline.message_bus.fair_queue import FairQueue
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.token_bucket import TokenBucket

if TYPE_CHECKING:
    from xml_pipeline.config import Rate
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["Lane", "SlotGauge", "limit_of"]

UNLIMITED = 1 << 30


class Lane:
    """The dispatcher's record of one listener name. It outlives reloads: only its limits change.

    Args:
        limit: handlers that may run at once.
        rate: how often a handler may be called, or ``None``.
        depth_first: see `FairQueue`.
    """

    __slots__ = ("abandoned", "active", "bucket", "in_ring", "is_removed", "limit", "rate", "timer", "waiting")

    def __init__(self, limit: int, rate: Rate | None, depth_first: bool) -> None:
        self.limit = limit
        self.rate = rate
        self.bucket = None if rate is None else TokenBucket(rate)
        self.active = 0
        self.abandoned = 0
        """Handlers that ignored their cancellation and were given up, over the listener's life."""
        self.in_ring = False
        self.is_removed = False
        """Its listener is no longer registered: it goes when its last handler has ended."""
        self.timer: TimerHandle | None = None
        """Set while it waits for its rate's next permission."""
        self.waiting: FairQueue[MessageState] = FairQueue(depth_first)

    def configure(self, limit: int, rate: Rate | None) -> None:
        """Apply the limits of a changed listener; what runs or waits is not touched."""
        self.limit = limit
        if rate != self.rate:
            self.rate = rate
            self.bucket = None if rate is None else TokenBucket(rate)


class SlotGauge:
    """Read-only view of an agent's slots, with the members of a semaphore that tests and dashboards look at."""

    __slots__ = ("_lane",)

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    @property
    def limit(self) -> int:
        """How many handlers may run at once."""
        return self._lane.limit

    @property
    def active(self) -> int:
        """How many run now."""
        return self._lane.active

    @property
    def _value(self) -> int:
        """Free slots, under the name that `asyncio.Semaphore` uses."""
        return max(0, self._lane.limit - self._lane.active)

    @property
    def available(self) -> int:
        """Free slots."""
        return self._value

    def locked(self) -> bool:
        """Whether no slot is free."""
        return self._value == 0

    def __repr__(self) -> str:
        return f"<SlotGauge {self.active}/{self.limit}>"


def limit_of(listener: Listener, max_concurrent_per_agent: int) -> int:
    """How many handlers of a listener may run at once: its own limit, else the agents' common one, else any number."""
    if listener.concurrency is not None:
        return listener.concurrency
    return max_concurrent_per_agent if listener.is_agent else UNLIMITED
