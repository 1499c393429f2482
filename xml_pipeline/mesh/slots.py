"""How many requests an agent handles at the same time, and in which order the others come.

A request that comes when all slots are taken waits; when there are too many of those, it is refused. A slot that
becomes free goes to a handler that had lent its own (`job.Lending`), else to the request that has waited longest.
Nothing here waits or runs anything: whoever asks is told what to do.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Admission", "Slots"]

T = TypeVar("T")


class Admission(Enum):
    """What becomes of a request."""

    RUN = "run"
    WAIT = "wait"
    REFUSE = "refuse"


class Slots(Generic[T]):
    """The slots of one agent.

    Args:
        limit: how many there are, at least one.
        queue: how many requests may wait.
        run: called with a request that has waited and has a slot now.
    """

    def __init__(self, limit: int, queue: int, run: Callable[[T], None]) -> None:
        self.limit = limit
        self.queue = queue
        self.taken = 0
        self._run = run
        self._waiting: deque[T] = deque()
        self._returning: deque[Callable[[], None]] = deque()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def admit(self, item: T) -> Admission:
        """A request came; if it is to run, it has a slot now."""
        if self.taken < self.limit:
            self.taken += 1
            return Admission.RUN
        if len(self._waiting) >= self.queue:
            return Admission.REFUSE
        self._waiting.append(item)
        return Admission.WAIT

    def release(self) -> None:
        """A slot is free: its handler is done, or lends it."""
        self.taken -= 1
        while self.taken < self.limit and (self._returning or self._waiting):
            self.taken += 1
            if self._returning:
                self._returning.popleft()()
            else:
                self._run(self._waiting.popleft())

    def come_back(self, resume: Callable[[], None]) -> None:
        """A handler that lent its slot needs one again; ``resume`` is called when it has it, maybe at once."""
        if self.taken < self.limit:
            self.taken += 1
            resume()
        else:
            self._returning.append(resume)

    def give_up(self, resume: Callable[[], None]) -> bool:
        """It does not need one any more; ``False`` if it has got it already."""
        try:
            self._returning.remove(resume)
        except ValueError:
            return False
        return True

    def withdraw(self, item: T) -> bool:
        """A request that waits is to be forgotten; ``False`` if it does not wait."""
        try:
            self._waiting.remove(item)
        except ValueError:
            return False
        return True

    def __iter__(self) -> Iterator[T]:
        """Those that wait."""
        return iter(tuple(self._waiting))
