"""Writes every message that reaches a handler into the conversation's history, once."""

from __future__ import annotations

from xml_pipeline.envelope import payload_bytes
from xml_pipeline.memory.context_buffer import ContextBuffer
from xml_pipeline.message_bus.dispatch_hook import TurnHook
from xml_pipeline.message_bus.message_state import HandlerMetadata, MessageState
from xml_pipeline.message_bus.thread_registry import Conversation
from xml_pipeline.strict_xml import canonical_bytes

__all__ = ["History", "canonical_payload"]


class History(TurnHook):
    """Records payloads in their canonical form, so that nothing a handler does can change what was said.

    Args:
        buffer: where they are kept.
    """

    def __init__(self, buffer: ContextBuffer) -> None:
        self._buffer = buffer

    def before(self, state: MessageState, metadata: HandlerMetadata) -> None:
        listener, payload = state.listener, state.payload_tree
        if listener is None or payload is None:
            return
        self._buffer.record(
            metadata.conversation_id,
            metadata.thread_id,
            state.text.encode() if state.text else canonical_payload(state),
            state.codec,
            metadata.from_id,
            listener.name,
            state.codec.name if state.codec is not None else str(payload.tag),
            metadata.own_name,
            metadata.is_self_call,
            metadata.usage_instructions,
            metadata.todo_nudge,
        )

    def complete(self, conversation: Conversation) -> None:
        self._buffer.close_conversation(conversation.id)


def canonical_payload(state: MessageState) -> bytes:
    """The canonical bytes of a message's payload."""
    if state.text:
        # The first one is the root's own, and only the envelope around it made it necessary.
        return state.text.replace(' xmlns=""', "", 1).encode()
    wire, root, payload = state.wire, state.envelope_tree, state.payload_tree
    if wire is not None and root is not None and len(root) == 2:
        return payload_bytes(wire, root)
    return b"" if payload is None else canonical_bytes(payload)
