"""`Deadlines`: one timer for many deadlines, nearly all of which never come.

A timer of its own for everything that waits costs more than most of what is waited for. Here nothing is done when
something ends in time; when the one timer fires, it looks at what is still there.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Deadlines", "Timed"]

_PAUSE = 0.005  # seconds between two looks, so that very many deadlines cost little


class Timed(Protocol):
    """Something that waits.

    Attributes:
        deadline: in the loop's time, when it has waited long enough; ``None`` for never.
    """

    deadline: float | None


T = TypeVar("T", bound=Timed)


class Deadlines(Generic[T]):
    """The deadlines of everything in a collection.

    Args:
        waiting: what is in the collection at the moment.
        expire: called with each whose deadline has come, never before it and milliseconds after it; also more than
            once, for as long as it is in the collection. It must not raise.
    """

    def __init__(self, waiting: Callable[[], Iterable[T]], expire: Callable[[T], None]) -> None:
        self._waiting = waiting
        self._expire = expire
        self._next = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, deadline: float | None) -> None:
        """Something with this deadline is, or will at once be, in the collection."""
        if deadline is not None and deadline < self._next:
            self._look_at(deadline)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._next = None, math.inf

    def _look_at(self, time: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = time
        self._timer = asyncio.get_running_loop().call_at(time, self._look)

    def _look(self) -> None:
        self.close()
        now = asyncio.get_running_loop().time()
        due, soonest = [], math.inf
        for one in self._waiting():
            if one.deadline is None:
                continue
            if one.deadline <= now:
                due.append(one)
            elif one.deadline < soonest:
                soonest = one.deadline
        if soonest < math.inf:
            self._look_at(max(soonest, now + _PAUSE))
        for one in due:
            self._expire(one)
