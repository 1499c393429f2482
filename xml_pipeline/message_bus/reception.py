"""The steps that need to know the pump: which repair, which frames, which listeners."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

from xml_pipeline.envelope import payload_elements, peek
from xml_pipeline.errors import RoutingError, ValidationError
from xml_pipeline.message_bus.listener import Listener
from xml_pipeline.message_bus.message_state import HandlerMetadata, MessageState, Origin
from xml_pipeline.message_bus.part import Part
from xml_pipeline.message_bus.routing import CurrentTable
from xml_pipeline.message_bus.steps.bounds import Bounds
from xml_pipeline.message_bus.steps.deserialization import deserialize
from xml_pipeline.message_bus.steps.payload_extraction import extract_payload
from xml_pipeline.message_bus.steps.payload_validation import validate_payload
from xml_pipeline.message_bus.steps.repair import make_repair
from xml_pipeline.message_bus.steps.step import run_step
from xml_pipeline.strict_xml import parse_own

if TYPE_CHECKING:
    from xml_pipeline.config import Limits
    from xml_pipeline.message_bus.mint import Mint
    from xml_pipeline.message_bus.scheduler import Scheduler
    from xml_pipeline.message_bus.thread_registry import Frame, ThreadRegistry

__all__ = ["Reception", "bounds_of"]

_EXTERNAL = Origin.EXTERNAL
_INTERNAL = Origin.INTERNAL


def bounds_of(limits: Limits) -> Bounds:
    """The bounds of one message, out of all limits."""
    return Bounds(
        max_message_bytes=limits.max_message_bytes,
        max_element_depth=limits.max_element_depth,
        max_elements=limits.max_elements,
        max_attributes=limits.max_attributes,
    )


class Reception:
    """Steps bound to one pump. Each takes a message and returns it, or several, or raises.

    Args:
        current: has the routing table in force.
        registry: opens root frames.
        mint: counts messages that an envelope fans out to.
        scheduler: is told of an envelope's real target.
        limits: sizes.
    """

    def __init__(
        self,
        current: CurrentTable,
        registry: ThreadRegistry,
        mint: Mint,
        scheduler: Scheduler,
        limits: Limits,
    ) -> None:
        self._current = current
        self._registry = registry
        self._mint = mint
        self._scheduler = scheduler
        self._outside = Listener("external", object, _nobody)
        """Stands for whoever asked, as the target of an answer on its way out."""
        self.apply(limits)

    def apply(self, limits: Limits) -> None:
        """Take the sizes from ``limits`` from now on."""
        bounds = bounds_of(limits)
        self._max_fan_out = limits.max_fan_out
        self._harmless = min(bounds.harmless_length, bounds.max_message_bytes)
        self._strict = make_repair(bounds)
        self._lenient = make_repair(bounds, lenient=True)

    def repair(self, state: MessageState) -> MessageState:
        """Parse strictly; mend only an external envelope for a listener that is configured ``repair: lenient``."""
        raw = state.raw_bytes
        if raw is not None and raw is state.own and len(raw) < self._harmless:
            # Written by ourselves a moment ago: parsed strictly like any other, but there is nothing to guard against.
            state.envelope_tree = parse_own(raw)
            state.wire = raw
            state.raw_bytes = None
            return state
        try:
            return self._strict(state)
        except ValidationError:
            if raw is None or state.origin is not _EXTERNAL or not self._is_lenient(state.to_id or peek(raw)[0]):
                raise
        return self._lenient(state)

    def _is_lenient(self, to: str | None) -> bool:
        listener = self._current.table.listeners.get(to or "")
        return listener is not None and listener.repair == "lenient"

    def payload_extraction(self, state: MessageState) -> MessageState:
        """Find the payload, and compare the envelope's sender, receiver and thread with the facts in the state."""
        tree = state.envelope_tree
        if tree is not None and state.wire is state.own and state.own is not None:
            state.payload_tree = tree[1]  # written by ourselves from these facts, and unchanged since
            return state
        return extract_payload(state)

    def fan_out(self, state: MessageState) -> MessageState | list[MessageState]:
        """One message per payload. Each payload beyond the first opens a root frame of its own."""
        frame, tree = state.frame, state.envelope_tree
        if frame is not None and state.origin is _EXTERNAL:
            state.thread_id = frame.id
        if tree is None or len(tree) == 2 or frame is None:
            return state
        payloads = payload_elements(tree)
        if len(payloads) > self._max_fan_out:
            raise ValidationError(f"{len(payloads)} payloads in one message (max_fan_out={self._max_fan_out})")
        if state.origin is not _EXTERNAL:
            raise ValidationError("a message of the pump itself has one payload")
        states = [state]
        for payload in payloads[1:]:
            sibling = self._sibling(state, frame)
            sibling.payload_tree = payload
            states.append(sibling)
        for each in states:
            self._mark_part(each)
        return states

    def _mark_part(self, state: MessageState) -> None:
        if state.frame is not None and state.payload_tree is not None and state.envelope_tree is not None:
            state.frame.part = Part(state.envelope_tree, state.payload_tree, state.from_id or "", state.to_id)

    def validate_and_deserialize(self, state: MessageState) -> MessageState:
        """Decide who gets it, validate the payload against that class's schema, and decode it."""
        payload = state.payload_tree
        if payload is None:
            raise ValidationError("no payload")
        listener = state.listener
        codec = state.codec
        if listener is None and not state.is_answer:
            targets = self._current.table.resolve(state.to_id, str(payload.tag))
            state.target_listeners = list(targets)
            listener = targets[0]
            codec = listener.codecs.get(str(payload.tag))
            self._take(state, listener)
            self._charge(state, state.to_id or listener.group)
        if codec is not None:
            if codec is not state.valid_under and not codec.schema.validate(payload):
                return validate_payload(state, codec)  # which says what is wrong
            state.payload_is_valid = True
            if listener is None or not listener.is_generic:
                return deserialize(state, codec)
        elif listener is None or not listener.is_generic:
            raise RoutingError(f"nobody takes <{payload.tag}>", step="route")
        state.payload_is_valid = True
        # A copy: what a handler does to it must not reach the history, or a second receiver.
        state.payload = copy.deepcopy(payload)
        return state

    def route(self, state: MessageState) -> MessageState | list[MessageState]:
        """One message per listener that gets it; each member of a group gets a copy and a root frame of its own."""
        targets = state.target_listeners
        if targets is None:
            state.target_listeners = [state.listener or self._outside]
            return state
        if len(targets) == 1:
            return state
        states = [state]
        frame = state.frame
        if frame is None:
            raise RoutingError("a group can only be addressed on a frame", step="route")
        for listener in targets[1:]:
            twin = self._sibling(state, frame)
            self._take(twin, listener)
            twin.target_listeners = [listener]
            if twin.codec is not None:
                run_step(partial(deserialize, codec=twin.codec), twin)  # it is counted: its failure is its own
            states.append(twin)
        for member in states:
            self._mark_part(member)
            member.group_size = len(targets)
            if member.frame is not None:
                member.frame.group_size = len(targets)
                member.frame.alias = state.to_id or targets[0].group
        state.target_listeners = [targets[0]]
        return states

    def split(self, state: MessageState) -> MessageState:
        """A further message with the same content, on a root frame of its own, for users' flatmap stages."""
        if state.frame is None:
            raise ValueError("only a message that is delivered on a frame can be split")
        return self._sibling(state, state.frame)

    def _sibling(self, state: MessageState, frame: Frame) -> MessageState:
        root = self._registry.open_root(frame.conversation, frame.callee, frame.exchange)
        return self._mint.sibling(state, root)

    def _charge(self, state: MessageState, target: str) -> None:
        """What the ingress guessed the target to be does not count any more."""
        if state.window is not None and state.window.target != target:
            self._scheduler.recharge(state, target)

    def _take(self, state: MessageState, listener: Listener) -> None:
        state.listener = listener
        state.codec = listener.codecs.get(str(state.payload_tree.tag)) if state.payload_tree is not None else None
        frame = state.frame
        if frame is not None:
            frame.listener = listener
            frame.callee = frame.alias = listener.name


async def _nobody(payload: object, metadata: HandlerMetadata) -> None:
    """Answers to the outside are handed over, not handled."""
