"""Who sends what to whom: the envelope's word against the pump's.

A state that came through the pump already says who its sender is and on which thread it travels; those are facts, and
the envelope is a claim. A claim that differs is refused, never corrected, and never believed. Only a state that no pump
has seen (`Origin.DETACHED`) takes its sender, receiver and thread from the envelope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xml_pipeline.envelope import extract_payload as first_payload
from xml_pipeline.envelope import read_meta
from xml_pipeline.errors import ForgedMessage, ValidationError
from xml_pipeline.message_bus.message_state import Origin
from xml_pipeline.message_bus.steps.step import step

if TYPE_CHECKING:
    from xml_pipeline.message_bus.message_state import MessageState

__all__ = ["extract_payload", "payload_extraction_step"]

_DETACHED = Origin.DETACHED
_EXTERNAL = Origin.EXTERNAL


def extract_payload(state: MessageState) -> MessageState:
    """Read sender, receiver and thread, and find the first payload; `fan_out` finds the others.

    Names are compared exactly; nothing is trimmed and case is kept.

    Raises:
        ForgedMessage: the envelope claims another sender, receiver or thread than the state it travels in.
        ValidationError: there is no tree, its root is not ``message``, or ``meta``, ``from``, ``thread`` or a payload
            is missing.
    """
    tree = state.envelope_tree
    if tree is None:
        raise ValidationError("no envelope_tree")
    sender, to, thread = read_meta(tree, state.wire or b"")
    origin = state.origin
    if origin is _DETACHED:
        state.from_id, state.to_id, state.thread_id = sender, to, thread
    else:
        if sender != state.from_id:
            raise ForgedMessage(f"the envelope claims to be from {sender!r}; its sender is {state.from_id!r}")
        if thread != state.thread_id:
            raise ForgedMessage(f"the envelope claims thread {thread!r}; it travels on {state.thread_id!r}")
        if origin is _EXTERNAL and state.to_id is None:
            state.to_id = to
        elif to != state.to_id:
            raise ForgedMessage(f"the envelope is addressed to {to!r}; it was admitted for {state.to_id!r}")
    state.payload_tree = payload = first_payload(tree)
    if payload is None:
        raise ValidationError("no payload")
    return state


payload_extraction_step = step(extract_payload, "payload_extraction_step")
