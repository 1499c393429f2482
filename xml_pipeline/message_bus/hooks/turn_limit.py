"""How many turns one frame may take."""

from __future__ import annotations

from xml_pipeline.errors import HopLimitError
from xml_pipeline.message_bus.dispatch_hook import TurnHook
from xml_pipeline.message_bus.join import Joins
from xml_pipeline.message_bus.message_state import HandlerMetadata, MessageState

__all__ = ["TurnLimit"]


class TurnLimit(TurnHook):
    """Refuses the turn that is one too many.

    Args:
        max_turns: handler calls on one frame. Only what a generic listener, or one that joins, gets for its calls does
            not count: answers, and errors that end a call of a `Join`. Other errors count: whoever answers a refusal
            with another call would do so for ever. An agent's turns all count: one whose calls overlap can loop as well
            as one that makes them one by one. The pump's own listeners join a bounded number of calls, and do not count
            at all.
        joins: those of the same pump.
    """

    def __init__(self, max_turns: int, joins: Joins) -> None:
        self.max_turns = max_turns
        self._joins = joins

    def before(self, state: MessageState, metadata: HandlerMetadata) -> None:
        frame, listener = state.frame, state.listener
        if frame is None or listener is None:
            return
        if state.is_answer and (listener.is_system or (listener.joins and self._is_joined(state, frame.id))):
            return
        frame.turns += 1
        if frame.turns > self.max_turns:
            raise HopLimitError(
                f"{listener.name!r} took {self.max_turns} turns on one frame (max_turns)", target=listener.name
            )

    def _is_joined(self, state: MessageState, frame_id: str) -> bool:
        return state.from_id != "system" or self._joins.expects(frame_id, state.tag)
