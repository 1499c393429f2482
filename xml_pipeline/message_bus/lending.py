"""Handlers that wait for their own pump lend their slots out meanwhile.

Otherwise handlers that wait could hold all the slots which what they wait for needs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml_pipeline.message_bus.lanes import Lanes
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.replies import Turn
    from xml_pipeline.message_bus.worker_pool import Worker, WorkerPool

__all__ = ["Lender", "Lending", "current_turn"]

current_turn: ContextVar[Turn | None] = ContextVar("xml_pipeline_turn", default=None)
"""The turn whose handler runs here, also in tasks that the handler started."""


class Lending:
    """A context in which the running handler's slots are lent out; without one, it does nothing.

    A handler may wait for several answers at once: its slots are lent when the first wait begins, and taken again when
    the last one ends.

    Args:
        turn: of this pump and not ended, or ``None``.
        lend, take_again: called with the handler's listener.
    """

    __slots__ = ("_lend", "_take_again", "_turn")

    def __init__(
        self, turn: Turn | None, lend: Callable[[Listener], None], take_again: Callable[[Listener], None]
    ) -> None:
        self._turn = turn
        self._lend = lend
        self._take_again = take_again

    def __enter__(self) -> None:
        turn = self._turn
        if turn is not None:
            turn.worker.waits += 1
            if turn.worker.waits == 1:
                self._lend(turn.listener)

    def __exit__(self, *exc: object) -> None:
        turn = self._turn
        # The handler may have been ended while a task that it had started still waited.
        if turn is not None and turn.worker.turn is turn and turn.worker.waits:
            turn.worker.waits -= 1
            if not turn.worker.waits:
                self._take_again(turn.listener)


class Lender:
    """Has the slots that are lent out.

    Args:
        pool: has the slots of all handlers.
        lanes: have those of each listener.
        wake: called when there are slots for others.
    """

    def __init__(self, pool: WorkerPool, lanes: Lanes, wake: Callable[[], object]) -> None:
        self._pool = pool
        self._lanes = lanes
        self._wake = wake

    def lending(self) -> Lending:
        """A context for waiting for the pump itself: a handler of ours lends its slots out in it."""
        turn = current_turn.get()
        if turn is not None and not (turn.worker in self._pool.workers and turn.worker.turn is turn):
            turn = None  # another pump's, or ended: what asks is a task that it left behind
        return Lending(turn, self._lend, self._take_again)

    def settle(self, worker: Worker, listener: Listener) -> None:
        """A handler has ended, or is given up, maybe while its slots were lent: they are its own again."""
        if worker.waits:
            worker.waits = 0
            self._take_again(listener)

    def _lend(self, listener: Listener) -> None:
        self._pool.limit += 1
        self._lanes.give_back(listener)
        self._wake()

    def _take_again(self, listener: Listener) -> None:
        self._pool.limit -= 1
        self._lanes.take_again(listener)
