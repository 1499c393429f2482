"""Handlers that wait for their own pump lend their slots out meanwhile.

Otherwise handlers that wait could hold all the slots which what they wait for needs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.replies import Turn

__all__ = ["Lending", "current_turn"]

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
