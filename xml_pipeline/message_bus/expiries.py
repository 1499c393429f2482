"""Calls with a time limit of their own, and the one timer that ends those that take longer."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from xml_pipeline.errors import DeadlineExceeded, PipelineError

if TYPE_CHECKING:
    from xml_pipeline.message_bus.conversation import Frame

__all__ = ["Expiries", "Expiry"]

logger = logging.getLogger(__name__)

_NEVER = float("inf")
_FEW = 64
"""Entries that are not worth tidying up."""


class Expiry:
    """When a call is cancelled. Its frame keeps it, and cancels it on closing.

    Args:
        frame: of the call; ``None`` once it is closed.
        when: loop time.
    """

    __slots__ = ("frame", "when")

    def __init__(self, frame: Frame, when: float) -> None:
        self.frame: Frame | None = frame
        self.when = when

    def cancel(self) -> None:
        """The call has ended. Nothing of it is kept."""
        self.frame = None


class Expiries:
    """The time limits of one pump's calls.

    There is one timer, set to the earliest limit. Calls usually end long before theirs, so it fires rarely, and finds
    the next one then: far cheaper than a timer per call.

    Args:
        expire: called with the frame of a call whose time is over, and with the error that says so.
    """

    def __init__(self, expire: Callable[[Frame, PipelineError], None]) -> None:
        self._expire = expire
        self._heap: list[tuple[float, int, Expiry]] = []
        self._number = 0
        self._tidy_at = _FEW
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    def limit(self, frame: Frame, when: float) -> None:
        """Cancel a call at ``when`` (loop time), unless it has ended by then."""
        frame.expiry = expiry = Expiry(frame, when)
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, expiry))
        if when < self._timer_at:
            self._set_timer(when)
        if len(self._heap) > self._tidy_at:
            self._tidy()

    def __len__(self) -> int:
        """Entries: calls with a time limit that have not ended, at most as many that have, and a few."""
        return len(self._heap)

    @property
    def open_calls(self) -> int:
        """Calls with a time limit that have not ended."""
        return sum(expiry.frame is not None for _, _, expiry in self._heap)

    def close(self) -> None:
        """Forget all."""
        self._heap.clear()
        self._set_timer(_NEVER)

    def _tidy(self) -> None:
        """Drop what has ended; as often as it takes to keep the heap at twice of what has not."""
        self._heap = [entry for entry in self._heap if entry[2].frame is not None]
        heapq.heapify(self._heap)
        self._tidy_at = 2 * len(self._heap) + _FEW

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_at(when, self._sweep) if when < _NEVER else None

    def _sweep(self) -> None:
        # The loop may call a timer up to its clock's resolution early.
        now = max(asyncio.get_running_loop().time(), self._timer_at)
        self._timer, self._timer_at = None, _NEVER
        heap = self._heap
        while heap and (heap[0][2].frame is None or heap[0][0] <= now):
            frame = heapq.heappop(heap)[2].frame
            if frame is not None:
                self._end(frame)
        if heap:
            self._set_timer(min(heap[0][0], self._timer_at))

    def _end(self, frame: Frame) -> None:
        late = DeadlineExceeded(f"the call of {frame.callee!r} took too long", step="call", target=frame.callee)
        try:
            self._expire(frame, late)
        except Exception:
            logger.exception("cancelling the call of %r failed", frame.callee)
