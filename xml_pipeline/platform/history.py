"""What an agent said and heard in a conversation, as messages for a model.

An entry is the sender's name in a ``<from>`` element, a line break, and the payload's canonical XML, in which ``<`` is
always escaped. Hence no text in a payload, whoever wrote it, can pass for the beginning of another message.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final
from xml.sax.saxutils import escape

from third_party.xmlable import codec_of
from xml_pipeline.errors import ValidationError
from xml_pipeline.memory.context_buffer import get_context_buffer
from xml_pipeline.message_bus.conversation import Frame, FrameState
from xml_pipeline.message_bus.thread_registry import get_registry
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

__all__ = ["MAX_HISTORY_CHARS", "history_messages", "keep_answer", "xml_text"]

MAX_HISTORY_CHARS: Final = 100_000
"""Characters of history in one model call; some 25,000 tokens."""


def history_messages(
    conversation_id: str, agent_name: str, max_chars: int = MAX_HISTORY_CHARS, *, without_thread: str = ""
) -> list[dict[str, str]]:
    """An agent's history: what it sent as ``assistant``, what it got as ``user``, oldest first.

    Args:
        conversation_id: whose history; all frames of the agent in it count.
        agent_name: the agent's registered name.
        max_chars: of all entries together; the oldest that do not fit are left out.
        without_thread: a frame whose messages are left out; default: none.
    """
    entries = []
    left = max_chars
    for slot in reversed(get_context_buffer().by_agent(conversation_id, agent_name)):
        if slot.thread_id == without_thread:
            continue
        content = f"<from>{escape(slot.from_id)}</from>\n{xml_text(slot.payload)}"
        left -= len(content)
        if left < 0:
            break
        entries.append({"role": "assistant" if slot.from_id == agent_name else "user", "content": content})
    return entries[::-1]


def xml_text(payload: Any) -> str:
    """A payload as canonical XML; what has no XML form as escaped text."""
    if isinstance(payload, bytes):
        try:
            return canonical_bytes(parse_strict(payload)).decode()
        except ValidationError:
            return escape(payload.decode(errors="replace"))
    if dataclasses.is_dataclass(payload) or hasattr(type(payload), "model_fields"):
        try:
            return codec_of(type(payload)).encode(payload)
        except (TypeError, ValueError):
            pass  # as `seal` found when it was kept: it has no XML form
    return escape(str(payload))


def keep_answer(agent_name: str, thread_id: str, payload: Any) -> None:
    """Put an answer into the history that the pump does not keep as this agent's, so that the agent knows what it said
    in the conversation's next turn.

    The pump keeps what it delivers to a listener, as from whom that listener had called. So an answer is not kept that
    leaves the organism, and is kept as somebody else's that passes through a tool, or was asked for under a group's
    name.

    Args:
        agent_name: who answers.
        thread_id: on which open frame.
        payload: an instance of a payload class.
    """
    frame = get_registry().frame(thread_id)
    codec = codec_of(type(payload))
    if frame is None or _is_kept(frame, codec.name):
        return
    get_context_buffer().record(
        frame.conversation.id,
        thread_id,
        codec.encode(payload),
        codec,
        agent_name,
        frame.caller,
        codec.name,
        agent_name,
    )


def _is_kept(frame: Frame, element: str) -> bool:
    """Whether the caller is given the answer, under the name of who answers; see `Replies`."""
    above = frame.parent
    if above is None or above.state is not FrameState.OPEN or above.listener is None:
        return False
    return frame.alias == frame.callee and above.listener.accepts(element)
