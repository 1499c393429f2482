"""Makes the pump's own messages: from a payload and a frame to an envelope on its way.

Sender, target and thread are taken from frames and listeners, never from what a handler returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from third_party.xmlable import Codec, codec_of
from xml_pipeline.envelope import escape_text, message_text
from xml_pipeline.errors import PipelineError
from xml_pipeline.message_bus.message_state import MessageState, Origin, SystemError

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.thread_registry import Conversation, Frame

__all__ = ["Mint"]

_EXTERNAL = Origin.EXTERNAL
_INTERNAL = Origin.INTERNAL


class Mint:
    """Numbers messages and counts them in.

    Args:
        run_id: unique to this pump; message ids are ``<run_id>-<number>``.
    """

    def __init__(self, run_id: str) -> None:
        self._prefix = run_id + "-"
        self.accepted = 0
        """Messages made so far, external ones included."""
        self.in_flight = 0
        """Messages that have no outcome yet."""
        self.on_error: Callable[[Frame, str, PipelineError], object] = _nothing
        """Called with the frame, the call's tag and the failure that an `error` is made of."""

    def external(
        self, conversation: Conversation, frame: Frame, from_id: str, to: str | None, raw: bytes, text: str = ""
    ) -> MessageState:
        """A message from outside; the ingress decided its sender, and gives ``text`` if it wrote the envelope."""
        state = MessageState(raw)
        if text:
            state.text = text
            state.own = raw
        state.thread_id = frame.id
        state.from_id = from_id
        state.to_id = to
        state.origin = _EXTERNAL
        self._count_in(state, conversation, frame)
        return state

    def sibling(self, state: MessageState, frame: Frame) -> MessageState:
        """Another payload, or another group member's copy, of an external message, on a frame of its own."""
        twin = MessageState()
        twin.envelope_tree = state.envelope_tree
        twin.payload_tree = state.payload_tree
        twin.thread_id = frame.id
        twin.from_id = state.from_id
        twin.to_id = state.to_id
        twin.metadata = dict(state.metadata)
        twin.wire = state.wire
        twin.origin = state.origin
        twin.repairs = state.repairs
        twin.deadline = state.deadline
        twin.envelope_is_valid = state.envelope_is_valid
        twin.payload_is_valid = state.payload_is_valid
        self._count_in(twin, frame.conversation, frame)
        return twin

    def to_frame(
        self, text: str, codec: Codec[Any] | None, frame: Frame, listener: Listener, sender: Frame | None, from_xml: str
    ) -> MessageState:
        """A message on a frame: a call, the next turn, or an answer. ``text`` is the payload's canonical text."""
        state = MessageState(message_text(text, from_xml, listener.xml_name, frame.id))
        state.own = state.raw_bytes
        state.text = text
        state.thread_id = frame.id
        state.to_id = listener.name
        state.origin = _INTERNAL
        state.codec = codec
        state.listener = listener
        state.sender = sender
        self._count_in(state, frame.conversation, frame)
        return state

    def to_outside(self, text: str, codec: Codec[Any], frame: Frame, from_id: str) -> MessageState:
        """An answer of a root frame, on its way to whoever asked."""
        conversation = frame.conversation
        state = MessageState(message_text(text, escape_text(from_id), escape_text(conversation.owner), conversation.id))
        state.own = state.raw_bytes
        state.text = text
        state.thread_id = conversation.id
        state.from_id = from_id
        state.to_id = conversation.owner
        state.origin = _INTERNAL
        state.codec = codec
        state.sender = frame
        state.is_answer = True
        if frame.exchange is not None:
            frame.exchange.sent()
        self._count_in(state, conversation, None)
        return state

    def error(self, failure: PipelineError, frame: Frame, listener: Listener, tag: str) -> MessageState:
        """The `SystemError` that tells a frame of a failure."""
        codec = codec_of(SystemError)
        text = codec.encode_payload(SystemError.of(failure))
        state = self.to_frame(text, codec, frame, listener, None, "system")
        state.from_id = "system"
        state.tag = tag
        state.is_answer = True
        self.on_error(frame, tag, failure)
        return state

    def stillborn(self, conversation: Conversation, frame: Frame | None, to: str) -> MessageState:
        """A message that was refused before it had an envelope, so that it, too, is counted and has an outcome."""
        state = MessageState()
        state.thread_id = frame.id if frame else conversation.id
        state.from_id = frame.callee if frame else ""
        state.to_id = to
        state.origin = _INTERNAL
        self._count_in(state, conversation, None)
        return state

    def _count_in(self, state: MessageState, conversation: Conversation, frame: Frame | None) -> None:
        self.accepted += 1
        self.in_flight += 1
        state.number = self.accepted
        state.message_id = f"{self._prefix}{self.accepted}"
        state.conversation = conversation
        state.frame = frame
        conversation.pending += 1
        if frame is not None:
            frame.pending += 1


def _nothing(frame: Frame, tag: str, failure: PipelineError) -> None:
    """The default of `Mint.on_error`."""
