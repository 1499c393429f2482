"""What a handler returned, turned into messages. Decides, without awaiting anything.

==========================================  ====================================================================
a handler returns                           and this is sent
==========================================  ====================================================================
``HandlerResponse(payload, to=own name)``   the next turn on the same frame
``HandlerResponse(payload, to=caller)``     an answer
``HandlerResponse(payload, to=other)``      a call: a new frame below this one, for each member of a group
``HandlerResponse.call(payload, to)``       a call, whoever ``to`` is
``HandlerResponse.respond(payload)``        an answer; the frame closes at the end of the turn
``HandlerResponse.delegate(payload, to)``   a call in this frame's place; this frame closes
``bytes``                                   model output: each root an answer, or a ``<message>`` naming a target
a list                                      each of its items, in order
``None``                                    nothing
==========================================  ====================================================================

An answer goes to the nearest calling frame whose listener takes it; tools in between that do not are passed by.

A request that is addressed to one of the pump's own listeners is a call of it in any case: an agent that runs as a step
of a sequence, and so has ``system.sequence`` for its caller, may ask for another one as it would anywhere else.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from third_party.xmlable import Codec
from xml_pipeline import envelope
from xml_pipeline.errors import (
    HandlerError,
    HopLimitError,
    PipelineError,
    RoutingError,
    ValidationError,
)
from xml_pipeline.message_bus.expiries import Expiries
from xml_pipeline.message_bus.message_state import HandlerResponse, MessageState, SystemError
from xml_pipeline.message_bus.payloads import PayloadWriter, Written, from_root
from xml_pipeline.message_bus.permissions import Permissions
from xml_pipeline.message_bus.routing import CurrentTable
from xml_pipeline.message_bus.steps.model_output import recover_roots
from xml_pipeline.message_bus.thread_registry import Frame, FrameState, ThreadRegistry
from xml_pipeline.strict_xml import parse_strict

if TYPE_CHECKING:
    from xml_pipeline.message_bus.ledger import Ledger
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.mint import Mint
    from xml_pipeline.message_bus.steps.repair import Bounds

__all__ = ["Replies", "Turn"]


_OPEN = FrameState.OPEN  # a look-up in the enum costs more than the comparison
_SEND = HandlerResponse(None, None).kind


@dataclass(slots=True, eq=False)
class Turn:
    """One call of a handler: the message it got, and what it has sent so far."""

    state: MessageState
    frame: Frame
    listener: Listener
    worker: Any = None
    """What runs it."""
    answered: bool = False
    forwarded: bool = False
    delegated: bool = False


class Replies:
    """Makes the messages of a turn.

    Args:
        current: has the routing table in force.
        permissions: says who may call whom.
        registry: opens frames.
        mint: makes messages.
        ledger: records refusals and reports them.
        writer: writes payloads.
        expiries: end calls that take too long.
        emit: takes each message made.
        max_hops: how deep frames may be nested.
        max_fan_out: how many messages one return value may send.
        bounds: limits for model output.
    """

    def __init__(
        self,
        current: CurrentTable,
        permissions: Permissions,
        registry: ThreadRegistry,
        mint: Mint,
        ledger: Ledger,
        writer: PayloadWriter,
        expiries: Expiries,
        emit: Callable[[MessageState], None],
        *,
        max_hops: int,
        max_fan_out: int,
        bounds: Bounds,
    ) -> None:
        self._current = current
        self._permissions = permissions
        self._registry = registry
        self._mint = mint
        self._ledger = ledger
        self._expiries = expiries
        self._emit = emit
        self.max_hops = max_hops
        self.max_fan_out = max_fan_out
        self.bounds = bounds
        self._writer = writer

    def send(self, turn: Turn, result: object) -> None:
        """Send what a handler returned.

        Raises:
            HandlerError: it is nothing that a handler may return.
            ValidationError: model output without a usable root, or too many messages at once.
        """
        if result is None:
            return
        if type(result) is HandlerResponse:
            self._send_one(turn, result)
        elif isinstance(result, list | tuple):
            self._send_all(turn, result)
        elif isinstance(result, bytes | bytearray):
            self._send_model_output(turn, bytes(result))
        elif isinstance(result, HandlerResponse):
            self._send_one(turn, result)
        else:
            raise HandlerError(
                f"handler of {turn.listener.name!r} returned {type(result).__name__}; "
                "return a HandlerResponse, a list of them, bytes or None",
                step="reply",
                target=turn.listener.name,
            )

    def _send_all(self, turn: Turn, items: list[object] | tuple[object, ...]) -> None:
        if len(items) > self.max_fan_out and not turn.listener.is_system:
            raise ValidationError(
                f"handler of {turn.listener.name!r} returned {len(items)} messages (max_fan_out={self.max_fan_out})",
                step="reply",
            )
        for item in items:
            if not isinstance(item, HandlerResponse):
                raise HandlerError(
                    f"handler of {turn.listener.name!r} returned a list with a {type(item).__name__} in it; "
                    "every item must be a HandlerResponse",
                    step="reply",
                    target=turn.listener.name,
                )
        for item in items:
            if turn.frame.state is FrameState.CANCELLED:
                return  # an earlier item was refused, and closed this tool's frame
            self._send_one(turn, item)  # type: ignore[arg-type]

    def _send_one(self, turn: Turn, response: HandlerResponse) -> None:
        try:
            self._route(turn, response, self._written(turn, response.payload))
        except PipelineError as failure:
            self._ledger.refuse(turn.frame, str(response.to), response.tag, failure)

    def _written(self, turn: Turn, value: object) -> Written:
        try:
            return self._writer.write(value)
        except TypeError as exc:
            what = type(value).__name__
            raise HandlerError(f"{turn.listener.name!r} wants to send a {what}: {exc}", step="encode") from exc

    def _route(self, turn: Turn, response: HandlerResponse, payload: Written) -> None:
        to = response.to if response.to is not None else self._current.table.group_for(payload.name)
        if not isinstance(to, str):
            raise RoutingError(f"a target must be a name, not {type(to).__name__}", step="reply")
        frame = turn.frame
        listener = turn.listener
        if type(to) is not str and response.is_response:
            self._answer(turn, payload, response.payload)
        elif response.kind is not _SEND and response.is_delegation:
            self._delegate(turn, payload, to)
        elif response.kind is not _SEND and response.is_fresh_call:
            self._call(turn, response, payload, to)
        elif to == listener.name:
            self._next_turn(turn, payload)
        elif to == frame.caller and not _is_request(frame, payload.name):
            self._answer(turn, payload, response.payload)
        else:
            self._call(turn, response, payload, to)

    # -- answers ------------------------------------------------------------------------------------------------

    def _answer(self, turn: Turn, payload: Written, value: object = None) -> None:
        frame = turn.frame
        if isinstance(value, SystemError):
            turn.answered = frame.answered = True
            failure = value.to_error(f"{turn.listener.name!r} answered with an error")
            self._ledger.report(failure, frame.parent, frame.tag, frame)
            return
        codec = self._answer_codec(turn.listener, payload)
        turn.answered = frame.answered = True
        below, above = frame, frame.parent
        while above is not None and above.state is _OPEN:
            listener = above.listener
            if listener is not None and listener.accepts(payload.name):
                state = self._mint.to_frame(
                    payload.text, codec, above, listener, frame, envelope.escape_text(below.alias)
                )
                state.from_id = below.alias
                state.tag = below.tag
                state.group_size = below.group_size
                state.is_answer = True
                self._emit(state)
                return
            above.answered = True
            below, above = above, above.parent
        if above is None:
            self._emit(self._mint.to_outside(payload.text, codec, below, below.alias))
        else:
            self._ledger.expire(self._mint.stillborn(frame.conversation, frame, above.callee))

    def _answer_codec(self, listener: Listener, payload: Written) -> Codec[Any]:
        declared = listener.output_codec
        if declared is not None:
            if payload.name != declared.name:
                raise ValidationError(
                    f"listener {listener.name!r} declares output_class {declared.name!r} and answered <{payload.name}>",
                    step="reply",
                )
            return declared
        if payload.codec is None:
            raise ValidationError(
                f"the answer <{payload.name}> of {listener.name!r} was made by to_xml() and has no schema; "
                "declare output_class",
                step="reply",
            )
        return payload.codec

    # -- calls --------------------------------------------------------------------------------------------------

    def _next_turn(self, turn: Turn, payload: Written) -> None:
        frame, listener = turn.frame, turn.listener
        codec = listener.codecs.get(payload.name)
        if codec is None and not listener.is_generic:
            raise RoutingError(f"{listener.name!r} does not accept its own <{payload.name}>", step="reply")
        state = self._mint.to_frame(payload.text, codec, frame, listener, frame, listener.xml_name)
        state.from_id = listener.name
        turn.forwarded = True
        self._emit(state)

    def _call(self, turn: Turn, response: HandlerResponse, payload: Written, to: str) -> None:
        frame, caller = turn.frame, turn.listener
        if response.timeout:
            _check_timeout(caller.name, response.timeout)
        self._permissions.check(frame, to, as_caller=response.as_caller)
        targets = self._current.table.resolve(to, payload.name)
        if frame.depth >= self.max_hops:
            raise HopLimitError(f"{caller.name!r} is {frame.depth} calls deep (max_hops={self.max_hops})", step="reply")
        group_size = len(targets) if to != targets[0].name else 0
        for target in targets:
            child = self._registry.open_child(frame, target, caller.name, response.tag, response.expect_answer)
            child.as_caller = response.as_caller
            if response.timeout:
                self._expiries.limit(child, asyncio.get_running_loop().time() + response.timeout)
            if group_size:
                child.group_size = group_size
                child.alias = to
            self._emit_call(child, target, payload, frame, caller.xml_name)
        turn.forwarded = True

    def _delegate(self, turn: Turn, payload: Written, to: str) -> None:
        frame, caller = turn.frame, turn.listener
        if turn.delegated:
            raise HandlerError(f"{caller.name!r} delegated its frame twice in one turn", step="reply")
        self._permissions.check(frame, to)
        targets = self._current.table.resolve(to, payload.name)
        if len(targets) > 1 or to != targets[0].name:
            raise RoutingError(
                f"a frame is handed over to one listener, and {to!r} is a group", step="reply", target=to
            )
        if frame.depth >= self.max_hops:
            raise HopLimitError(f"{caller.name!r} is {frame.depth} calls deep (max_hops={self.max_hops})", step="reply")
        successor = self._registry.hand_over(frame, targets[0])
        successor.group_size = frame.group_size
        if frame.expiry is not None:
            self._expiries.limit(successor, frame.expiry.when)
        turn.forwarded = turn.delegated = True
        frame.answered = True  # its successor answers for it
        self._emit_call(successor, targets[0], payload, frame, envelope.escape_text(frame.caller))

    def _emit_call(self, frame: Frame, target: Listener, payload: Written, sender: Frame, from_xml: str) -> None:
        state = self._mint.to_frame(payload.text, target.codecs.get(payload.name), frame, target, sender, from_xml)
        state.from_id = frame.caller
        if frame.group_size:
            state.group_size = frame.group_size
        self._emit(state)

    # -- model output -------------------------------------------------------------------------------------------

    def _send_model_output(self, turn: Turn, raw: bytes) -> None:
        output = recover_roots(raw, self.bounds)
        repairs = list(output.repairs)
        parts: list[tuple[str | None, Written]] = []
        for root in output.roots:
            try:
                parts += self._parts(turn, root, repairs)
            except PipelineError as failure:
                repairs.append(f"a root was dropped: {failure.detail}")
        turn.state.repairs = (*turn.state.repairs, *repairs)
        if not parts:
            raise ValidationError(f"the bytes that {turn.listener.name!r} returned hold nothing usable", step="reply")
        if len(parts) > self.max_fan_out:
            raise ValidationError(
                f"model output of {turn.listener.name!r} with {len(parts)} payloads (max_fan_out={self.max_fan_out})",
                step="reply",
            )
        for to, payload in parts:
            if turn.frame.state is FrameState.CANCELLED:
                return
            self._send_part(turn, to, payload)

    def _parts(self, turn: Turn, root: bytes, repairs: list[str]) -> list[tuple[str | None, Written]]:
        """What one root of model output asks for: targets and payloads; an answer has the target ``None``."""
        if root.startswith(b"<message"):
            tree = parse_strict(root)
            if tree.tag in ("message", f"{{{envelope.ENVELOPE_NAMESPACE}}}message"):
                to, elements = envelope.read_request(tree)
                if not elements:
                    repairs.append("a <message> was dropped: it has no payload")
                return [(to or "", from_root(element)) for element in elements]
        payload = from_root(root)
        payload.codec = self._expected_answer(turn, payload.name)
        if payload.codec is None:
            repairs.append(f"<{payload.name}> was dropped: it is no answer that was asked for, and names no target")
            return []
        return [(None, payload)]

    def _send_part(self, turn: Turn, to: str | None, payload: Written) -> None:
        try:
            if to is None:
                self._answer(turn, payload)
                return
            if not to:
                raise RoutingError("a <message> in model output must name its target in <to>", step="reply")
            if to == turn.frame.caller:
                payload.codec = self._expected_answer(turn, payload.name)
            self._route(turn, HandlerResponse(None, to), payload)
        except PipelineError as failure:
            self._ledger.refuse(turn.frame, to or turn.frame.caller, "", failure)

    def _expected_answer(self, turn: Turn, name: str) -> Codec[Any] | None:
        """The codec of a root that is an answer: the listener's output class, or a class its caller accepts."""
        declared = turn.listener.output_codec
        if declared is not None and declared.name == name:
            return declared
        parent = turn.frame.parent
        if parent is not None and parent.listener is not None:
            return parent.listener.codecs.get(name)
        return None


def _is_request(frame: Frame, element: str) -> bool:
    """Whether it is what one asks the frame's caller for, which is one of the pump's own."""
    caller = frame.parent.listener if frame.parent is not None else None
    return caller is not None and caller.is_system and element in caller.codecs


def _check_timeout(caller: str, seconds: object) -> None:
    if type(seconds) is float and 0 < seconds <= sys.float_info.max:
        return
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= sys.float_info.max:  # type: ignore[operator]  # it is a number
        raise HandlerError(
            f"{caller!r}: the timeout of a call must be a number of seconds above 0, not {seconds!r:.40}", step="reply"
        )
