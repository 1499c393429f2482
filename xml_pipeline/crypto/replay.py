"""What came in already, so that it does not come in again.

A `ReplayWindow` decides by three facts of a message whose signature is good: the key, the id and the time of signing.
It asks nobody for the time but the clock it was given, and waits for nothing.

A message is fresh from ``tolerance`` before its time of signing, because clocks differ, until ``max_age`` plus
``tolerance`` after it. As long as it is fresh its id is remembered, for each key apart: nobody can use up the ids, or
the room, of another key. An id that is remembered is refused whatever time stands beside it.

Whatever is forgotten must not come in again, although a clock may be set back and a process may be killed. So for each
key there is a *floor*: nothing that was signed at it or before it is let in, and it rises to the time of signing of
whatever is forgotten. In a new window it stands at the latest time of signing that an earlier process can have let in:
``tolerance`` after now. A process that starts anew therefore refuses, with ``not-remembered``, what is signed in its
first ``tolerance`` seconds or was before, unless it is told what its predecessor remembered
(`xml_pipeline.crypto.replay_file`), or that there was none (``floor=-math.inf``).

Memory is bounded by ``capacity`` ids for each key. When that many are fresh at a time, further ones are refused:
forgetting the oldest instead would let them in again. The bound is on what one key signs in ``max_age`` plus twice
``tolerance``; the default is 1,000 messages a second, and takes about 25 MB when it is full.

One window knows what came in through it. Two processes that verify for the same destination need one store for both.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from xml_pipeline.crypto.refusals import Reason

__all__ = ["CAPACITY", "MAX_AGE", "TOLERANCE", "ReplayGuard", "ReplayWindow", "Seen"]

MAX_AGE: Final = 60.0
TOLERANCE: Final = 30.0
CAPACITY: Final = 120_000


class Seen(NamedTuple):
    """A message that came in.

    Args:
        key_id: the key that signed it.
        message_id: its id.
        created: when it was signed, in seconds since 1970.
    """

    key_id: str
    message_id: str
    created: float


class ReplayGuard(Protocol):
    """Lets each message in once."""

    def admit(self, seen: Seen) -> Reason | None:
        """Remember a message whose signature is good, and let it in.

        Returns:
            ``None`` if it may come in; else why not, and nothing is remembered.
        """


class _Memory:
    """The ids of one key."""

    __slots__ = ("created", "floor", "order")

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self.created: dict[str, float] = {}
        self.order: list[tuple[float, str]] = []
        """The same, the first to be forgotten first."""

    def add(self, message_id: str, created: float) -> None:
        self.created[message_id] = created
        heapq.heappush(self.order, (created, message_id))

    def forget(self, until: float) -> None:
        """Forget what was signed before ``until``."""
        while self.order and self.order[0][0] < until:
            created, message_id = heapq.heappop(self.order)
            del self.created[message_id]
            self.floor = max(self.floor, created)


class ReplayWindow:
    """Remembers in memory. May be used from several threads.

    Args:
        max_age: how long a message may be on its way, in seconds.
        tolerance: how far the sender's clock and this one may be apart, in seconds, in either direction.
        capacity: how many ids are remembered for each key.
        clock: seconds since 1970.
        floor: nothing that was signed at this time or before is let in, in seconds since 1970; default: ``tolerance``
            after now. ``-math.inf`` says that nothing came in before, or that all that is fresh is in ``seen``.
        seen: what came in already, for a window that continues another one.

    Raises:
        ValueError: a bound is not positive, or not finite.
    """

    def __init__(
        self,
        *,
        max_age: float = MAX_AGE,
        tolerance: float = TOLERANCE,
        capacity: int = CAPACITY,
        clock: Callable[[], float] = time.time,
        floor: float | None = None,
        seen: Iterable[Seen] = (),
    ) -> None:
        if not (0 < max_age < math.inf and 0 <= tolerance < math.inf):
            raise ValueError(f"max_age must be positive, and tolerance not negative: {max_age}, {tolerance}")
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._lifetime = max_age + tolerance
        self._tolerance = tolerance
        self._capacity = capacity
        self._clock = clock
        self._floor = clock() + tolerance if floor is None else floor
        self._memories: dict[str, _Memory] = {}
        self._lock = threading.Lock()
        for one in seen:
            memory = self._memory_of(one.key_id)
            if one.message_id not in memory.created:
                memory.add(one.message_id, one.created)

    def admit(self, seen: Seen) -> Reason | None:
        """See `ReplayGuard.admit`. The reason is ``expired``, ``from-the-future``, ``not-remembered``, ``replayed`` or
        ``replay-window-full``."""
        now = self._clock()
        if not now - seen.created <= self._lifetime:  # also for a time that is not a number
            return Reason.EXPIRED
        if seen.created - now > self._tolerance:
            return Reason.FROM_THE_FUTURE
        with self._lock:
            memory = self._memory_of(seen.key_id)
            memory.forget(now - self._lifetime)
            if seen.message_id in memory.created:
                return Reason.REPLAYED
            if seen.created <= memory.floor:
                return Reason.NOT_REMEMBERED
            if len(memory.created) >= self._capacity:
                return Reason.WINDOW_FULL
            memory.add(seen.message_id, seen.created)
        return None

    def snapshot(self) -> tuple[float, list[Seen]]:
        """``floor`` and ``seen`` for a window that continues this one."""
        with self._lock:
            self._forget()
            floor = max((memory.floor for memory in self._memories.values()), default=self._floor)
            return floor, [
                Seen(key_id, message_id, created)
                for key_id, memory in self._memories.items()
                for message_id, created in memory.created.items()
            ]

    def __len__(self) -> int:
        """How many ids are remembered, of all keys."""
        with self._lock:
            return sum(len(memory.created) for memory in self._memories.values())

    def _memory_of(self, key_id: str) -> _Memory:
        memory = self._memories.get(key_id)
        if memory is None:
            # A key that is not trusted any more has nobody else who would clear up behind it.
            self._forget()
            memory = self._memories[key_id] = _Memory(self._floor)
        return memory

    def _forget(self) -> None:
        until = self._clock() - self._lifetime
        for memory in self._memories.values():
            memory.forget(until)
