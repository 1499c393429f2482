"""The events of one handler call; nothing is built while nobody listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xml_pipeline.envelope import element_name, sent_payload
from xml_pipeline.message_bus.events import (
    AgentStateEvent,
    EventHub,
    MessageReceivedEvent,
    MessageSentEvent,
    SealedPayload,
)
from xml_pipeline.message_bus.hooks.history import canonical_payload

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.message_state import MessageState
    from xml_pipeline.message_bus.replies import Turn
    from xml_pipeline.message_bus.thread_registry import Frame

__all__ = ["TurnEvents"]


class TurnEvents:
    """Emits what happens in a turn. Callers test ``hub.active`` first.

    Args:
        hub: where to.
    """

    def __init__(self, hub: EventHub) -> None:
        self.hub = hub

    def received(self, state: MessageState, frame: Frame, listener: Listener) -> None:
        """A handler is about to be called."""
        name = "" if state.payload_tree is None else str(state.payload_tree.tag)
        parent, conversation_id = state.message_id, frame.conversation.id
        self.hub.emit(
            AgentStateEvent(listener.name, "processing", frame.id, parent=parent, conversation_id=conversation_id)
        )
        self.hub.emit(
            MessageReceivedEvent(
                frame.id,
                state.from_id or "",
                listener.name,
                name,
                SealedPayload(canonical_payload(state), state.codec),
                parent=parent,
                conversation_id=conversation_id,
            )
        )

    def sent(self, state: MessageState) -> None:
        """A handler's message was accepted."""
        conversation = state.conversation
        data = sent_payload(state.raw_bytes or b"")
        self.hub.emit(
            MessageSentEvent(
                state.thread_id or "",
                state.from_id or "",
                state.to_id or "",
                element_name(data),
                SealedPayload(data, state.codec),
                parent=state.message_id,
                conversation_id="" if conversation is None else conversation.id,
            )
        )

    def agent_state(self, turn: Turn, status: str) -> None:
        """The listener's state changed."""
        self.hub.emit(
            AgentStateEvent(
                turn.listener.name,
                status,
                turn.frame.id,
                parent=turn.state.message_id,
                conversation_id=turn.frame.conversation.id,
            )
        )
