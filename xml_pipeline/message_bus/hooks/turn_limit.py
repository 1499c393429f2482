"""How many turns one frame may take."""

from __future__ import annotations

from xml_pipeline.errors import HopLimitError
from xml_pipeline.message_bus.dispatch_hook import TurnHook
from xml_pipeline.message_bus.message_state import HandlerMetadata, MessageState

__all__ = ["TurnLimit"]


class TurnLimit(TurnHook):
    """Refuses the turn that is one too many.

    Args:
        max_turns: handler calls on one frame. Only the answers that a generic listener joins do not count: an agent
            whose calls overlap can loop as well as one that makes them one by one.
    """

    def __init__(self, max_turns: int) -> None:
        self.max_turns = max_turns

    def before(self, state: MessageState, metadata: HandlerMetadata) -> None:
        frame, listener = state.frame, state.listener
        if frame is None or listener is None:
            return
        if listener.is_generic and state.is_answer and state.from_id != "system":
            return
        frame.turns += 1
        if frame.turns > self.max_turns:
            raise HopLimitError(
                f"{listener.name!r} took {self.max_turns} turns on one frame (max_turns)", target=listener.name
            )
