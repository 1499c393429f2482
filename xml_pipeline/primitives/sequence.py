"""One listener after another: each step's answer is what the next one is given.

A `SequenceStart` to ``system.sequence`` opens a frame, and each step is a call below it, made on behalf of the
requester: steps run under the requester's peers. The last answer comes back to the requester as `SequenceComplete`. A
step that is refused, fails, is cancelled, runs out of time or ends without an answer ends the sequence with a
`SequenceError` that names it. One request may have up to ``max_fan_out`` steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from third_party.xmlable import xmlify
from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.directory import get_directory
from xml_pipeline.message_bus.join import Join, JoinResult, get_joins
from xml_pipeline.message_bus.message_state import ROUTING_ERROR, HandlerMetadata, HandlerResponse, SystemError
from xml_pipeline.message_bus.thread_registry import get_registry
from xml_pipeline.primitives.failures import BufferError, SequenceError, failure_in
from xml_pipeline.primitives.fragments import check_size, parse_payloads, payload_text
from xml_pipeline.primitives.handover import get_handovers
from xml_pipeline.primitives.sequence_registry import (
    SequenceRegistry,
    SequenceState,
    get_sequence_registry,
    reset_sequence_registry,
)
from xml_pipeline.primitives.step_names import read_steps

__all__ = [
    "SequenceComplete",
    "SequenceError",
    "SequenceRegistry",
    "SequenceStart",
    "SequenceState",
    "get_sequence_registry",
    "handle_sequence_start",
    "reset_sequence_registry",
]

_JOIN: Final = "sequence"
_INVALID: Final = ValidationError.code
_SHOWN: Final = 200
"""Characters of a name that is not registered, in an error."""


@xmlify
@dataclass(frozen=True, slots=True)
class SequenceStart:
    """Run listeners one after another.

    Args:
        steps: their names, separated by commas; a comma inside a name follows a backslash.
        payload: XML text, one element: what the first step is given.
        return_to: empty, or the requester's own name: the answer goes to whoever asked.
        sequence_id: comes back in the answer; made up when empty.
        timeout: seconds for all steps together; 0 for no limit but the listeners' own.
    """

    steps: str = ""
    payload: str = ""
    return_to: str = ""
    sequence_id: str = ""
    timeout: float = 0.0


@xmlify
@dataclass(frozen=True, slots=True)
class SequenceComplete:
    """All steps have ended well.

    Args:
        sequence_id: as it was asked for.
        final_result: the last step's answer, as XML text.
        step_count: how many steps there were.
    """

    sequence_id: str = ""
    final_result: str = ""
    step_count: int = 0


async def handle_sequence_start(payload: Any, metadata: HandlerMetadata) -> HandlerResponse | None:
    """Begin a sequence with a `SequenceStart`; every later turn of the frame brings a step's answer or error."""
    registry = get_sequence_registry()
    state = registry.get(metadata.thread_id)
    if state is not None:
        return _go_on(registry, state, payload, metadata)
    if not isinstance(payload, SequenceStart):
        return None
    try:
        return _begin(registry, payload, metadata)
    except _Refused as refusal:
        return HandlerResponse.respond(refusal.answer)


class _Refused(Exception):
    def __init__(self, answer: SequenceError) -> None:
        super().__init__(answer.error)
        self.answer = answer


def _begin(registry: SequenceRegistry, start: SequenceStart, metadata: HandlerMetadata) -> HandlerResponse:
    sequence_id = start.sequence_id or metadata.thread_id[:8]
    handover = get_handovers().claim(start.sequence_id) if start.sequence_id else None
    try:
        steps = read_steps(start.steps)
    except ValidationError as error:
        raise _Refused(SequenceError(sequence_id, "", 0, error.detail, _INVALID)) from None
    _check(start, steps, sequence_id, metadata)
    first = handover.payloads[0] if handover is not None else _first_payload(start, steps[0], sequence_id)
    try:
        join = get_joins().open(metadata, name=_JOIN, max_parallel=1, timeout=start.timeout)
    except ValueError as error:
        raise _Refused(SequenceError(sequence_id, steps[0], 0, str(error), _INVALID)) from None
    key = metadata.thread_id
    state = registry.create(sequence_id, steps, metadata.from_id, key, metadata.from_id, first, key=key)
    state.handover, state.join = handover, join
    if handover is not None:
        join.causes = handover.causes
    get_registry().on_close(key, lambda: registry.remove(key))
    return _call(join, first, steps[0])


def _check(start: SequenceStart, steps: list[str], sequence_id: str, metadata: HandlerMetadata) -> None:
    if not steps:
        raise _Refused(SequenceError(sequence_id, "", 0, "No steps: name at least one listener", _INVALID))
    if start.return_to not in ("", metadata.from_id):
        error = "return_to must be empty or your own name: the answer goes to whoever asked"
        raise _Refused(SequenceError(sequence_id, steps[0], 0, error, _INVALID))
    unknown = get_directory().unknown(steps)
    if unknown:
        name = unknown[0][:_SHOWN]
        error = f"Unknown listener {name!r}: it is not registered, or not among your peers"
        raise _Refused(SequenceError(sequence_id, name, steps.index(unknown[0]), error, ROUTING_ERROR.code))


def _first_payload(start: SequenceStart, step: str, sequence_id: str) -> Any:
    try:
        payloads = parse_payloads(start.payload)
    except ValidationError as error:
        raise _Refused(SequenceError(sequence_id, step, 0, f"the payload: {error.detail}", _INVALID)) from None
    if len(payloads) != 1:
        count = f"the payload must be one element, not {len(payloads)}"
        raise _Refused(SequenceError(sequence_id, step, 0, count, _INVALID))
    return payloads[0]


def _call(join: Join, payload: Any, step: str) -> HandlerResponse:
    join.add(HandlerResponse(payload, step, as_caller=True))
    (call,) = join.due()  # no other is open
    return call


def _go_on(
    registry: SequenceRegistry, state: SequenceState, payload: Any, metadata: HandlerMetadata
) -> HandlerResponse | None:
    join = state.join
    result = None if join is None else join.take(payload, metadata)
    if join is None or result is None:
        return None  # a further answer of a step that has answered
    failure = result.error or failure_in(result.payload)
    if failure is not None:
        return _failed(registry, state, failure)
    registry.advance(state.thread_id, result.payload)
    if state.is_complete:
        return HandlerResponse.respond(_complete(state, result))
    return _call(join, result.payload, state.steps[state.current_index])


def _complete(state: SequenceState, result: JoinResult) -> SequenceComplete | SequenceError:
    steps = state.steps
    if state.handover is not None:
        state.handover.results = (result,)
        return SequenceComplete(state.sequence_id, "", len(steps))
    try:
        answer = SequenceComplete(state.sequence_id, payload_text(result.payload), len(steps))
        check_size(answer, state.return_to, answer.sequence_id, answer.final_result)
    except ValidationError as error:
        text = f"what {steps[-1]!r} answered cannot be passed on: {error.detail}"
        return SequenceError(state.sequence_id, steps[-1], len(steps) - 1, text, _INVALID)
    return answer


def _failed(
    registry: SequenceRegistry, state: SequenceState, failure: SystemError | SequenceError | BufferError
) -> HandlerResponse:
    index = state.current_index
    text = failure.message if isinstance(failure, SystemError) else failure.error
    registry.mark_failed(state.thread_id, state.steps[index], text)
    return HandlerResponse.respond(SequenceError(state.sequence_id, state.steps[index], index, text, failure.code))
