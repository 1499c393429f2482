"""Handlers that wait for their own pump lend their slots out meanwhile.

Otherwise handlers that wait could hold all the slots which what they wait for needs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.worker_pool import Worker

__all__ = ["Lending", "current_worker"]

current_worker: ContextVar[Worker | None] = ContextVar("xml_pipeline_worker", default=None)
"""The worker whose handler runs here, also in tasks that the handler started."""


class Lending:
    """A context in which the running handler's slots are lent out; without one, it does nothing.

    A handler may wait for several answers at once: its slots are lent when the first wait begins, and taken again when
    the last one ends.

    Args:
        worker: of this pump, or ``None``.
        lend, take_again: called with the handler's listener.
    """

    __slots__ = ("_lend", "_take_again", "_turn", "_worker")

    def __init__(
        self, worker: Worker | None, lend: Callable[[Listener], None], take_again: Callable[[Listener], None]
    ) -> None:
        self._worker = worker
        self._turn = None if worker is None else worker.turn
        self._lend = lend
        self._take_again = take_again

    def __enter__(self) -> None:
        worker, turn = self._worker, self._turn
        if worker is not None and turn is not None:
            worker.waits += 1
            if worker.waits == 1:
                self._lend(turn.listener)

    def __exit__(self, *exc: object) -> None:
        worker, turn = self._worker, self._turn
        # The handler may have been ended while a task that it had started still waited.
        if worker is not None and turn is not None and worker.turn is turn and worker.waits:
            worker.waits -= 1
            if not worker.waits:
                self._take_again(turn.listener)
