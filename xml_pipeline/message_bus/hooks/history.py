"""Writes every message that reaches a handler into the conversation's history, once."""

from __future__ import annotations

from time import time

from xml_pipeline.envelope import payload_bytes
from xml_pipeline.memory.context_buffer import ContextBuffer
from xml_pipeline.message_bus.dispatch_hook import TurnHook
from xml_pipeline.message_bus.message_state import HandlerMetadata, MessageState
from xml_pipeline.strict_xml import canonical_bytes

__all__ = ["History", "canonical_payload"]


class History(TurnHook):
    """Records payloads in their canonical form, so that nothing a handler does can change what was said.

    A conversation's history goes when the registry forgets the conversation.

    Args:
        buffer: where they are kept.
    """

    def __init__(self, buffer: ContextBuffer) -> None:
        self._buffer = buffer

    def before(self, state: MessageState, metadata: HandlerMetadata) -> None:
        listener, payload = state.listener, state.payload_tree
        if listener is None or payload is None:
            return
        codec = state.codec
        record = (
            metadata.thread_id,
            metadata.from_id,
            listener.name,
            codec.name if codec is not None else str(payload.tag),
            state.text or canonical_payload(state),
            codec,
            metadata.own_name,
            metadata.is_self_call,
            metadata.usage_instructions,
            metadata.todo_nudge,
            time(),
        )
        self._buffer.add(metadata.conversation_id, record)


def canonical_payload(state: MessageState) -> bytes:
    """The canonical bytes of a message's payload."""
    if state.text:
        # The first one is the root's own, and only the envelope around it made it necessary.
        return state.text.replace(' xmlns=""', "", 1).encode()
    wire, root, payload = state.wire, state.envelope_tree, state.payload_tree
    if wire is not None and root is not None and len(root) == 2:
        return payload_bytes(wire, root)
    return b"" if payload is None else canonical_bytes(payload)
