"""One envelope, one to many messages: each payload goes its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xml_pipeline.envelope import payload_elements
from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.steps.bounds import Bounds
from xml_pipeline.message_bus.steps.model_output import recover_roots
from xml_pipeline.message_bus.steps.step import run_step
from xml_pipeline.strict_xml import parse_strict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lxml.etree import _Element

__all__ = ["MAX_FAN_OUT", "extract_payloads", "payloads_of"]

MAX_FAN_OUT: Final = 1_000


def payloads_of(state: MessageState, max_fan_out: int = MAX_FAN_OUT) -> list[MessageState]:
    """One state per payload of the envelope, in document order.

    Args:
        state: a state that went through payload extraction.
        max_fan_out: how many payloads one envelope may carry.

    Returns:
        ``state`` itself for the first payload; for every other one a new state with the same sender, receiver, thread
        and envelope, and a copy of the metadata. What a pump keeps about the first message is not copied.

    Raises:
        ValidationError: there are more payloads than ``max_fan_out``.
    """
    tree = state.envelope_tree
    if tree is None or len(tree) <= 2:
        return [state]
    payloads = payload_elements(tree)
    _require_at_most(max_fan_out, len(payloads))
    return [state, *(_sibling(state, payload) for payload in payloads[1:])]


async def extract_payloads(state: MessageState) -> AsyncIterator[MessageState]:
    """One state per payload, for pipelines of one's own.

    A state with ``raw_bytes`` carries bare payloads side by side, as a model writes them; they are read as
    `recover_roots` does. Any other state is an envelope: see `payloads_of`.

    Args:
        state: a failed one is yielded as it is.

    Yields:
        At least one state. Never raises: what cannot be read is a failure of ``state``.
    """
    states: list[MessageState] = []

    def collect(state: MessageState) -> MessageState:
        states.extend(payloads_of(state) if state.raw_bytes is None else _roots_of(state, state.raw_bytes))
        return state

    run_step(collect, state)
    for each in states or [state]:
        yield each


def _roots_of(state: MessageState, raw: bytes) -> list[MessageState]:
    output = recover_roots(raw, Bounds())
    _require_at_most(MAX_FAN_OUT, len(output.roots))
    siblings = [_sibling(state, parse_strict(root)) for root in output.roots]
    for sibling in siblings:
        sibling.repairs += output.repairs
    return siblings


def _require_at_most(limit: int, payloads: int) -> None:
    if payloads > limit:
        raise ValidationError(f"{payloads} payloads; at most {limit} are allowed (max_fan_out)")


def _sibling(state: MessageState, payload: _Element) -> MessageState:
    sibling = MessageState(
        envelope_tree=state.envelope_tree,
        payload_tree=payload,
        thread_id=state.thread_id,
        from_id=state.from_id,
        to_id=state.to_id,
        metadata=dict(state.metadata),
    )
    sibling.wire = state.wire
    sibling.origin = state.origin
    sibling.repairs = state.repairs
    return sibling
