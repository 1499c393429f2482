"""Checks a sequence before anything of it runs, and hands it over to ``system.sequence``."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from xml_pipeline.errors import PipelineError, RoutingError, ValidationError
from xml_pipeline.message_bus.directory import ListenerInfo, get_directory
from xml_pipeline.message_bus.message_state import ROUTING_ERROR, HandlerMetadata, HandlerResponse
from xml_pipeline.primitives.fragments import parse_payloads
from xml_pipeline.primitives.sequence import SequenceError, SequenceStart
from xml_pipeline.primitives.step_names import read_steps
from xml_pipeline.sequence.primitives import SequenceRequest

__all__ = ["handle_sequence_request"]

_INVALID: Final = ValidationError.code
_SHOWN: Final = 200
"""Characters of a name that is not registered, in an error."""


async def handle_sequence_request(payload: SequenceRequest, metadata: HandlerMetadata) -> HandlerResponse:
    """Hand a sequence over to ``system.sequence`` if it can work, else answer the first `SequenceError` found.

    It can work when there is a step; every step is registered, and the requester may call it; the first step accepts
    the payload; and every step declares an ``output_class``, which the next one accepts.
    """
    try:
        _check(payload, metadata)
    except _Misfit as misfit:
        sequence_id = payload.sequence_id or metadata.thread_id[:8]
        answer = SequenceError(sequence_id, misfit.step, misfit.index, str(misfit), misfit.code)
        return HandlerResponse.respond(answer)
    start = SequenceStart(payload.steps, payload.payload, payload.return_to, payload.sequence_id, payload.timeout)
    return HandlerResponse.delegate(start, "system.sequence")


class _Misfit(Exception):
    def __init__(self, step: str, index: int, error: str, code: str = _INVALID) -> None:
        super().__init__(error)
        self.step, self.index, self.code = step, index, code


def _check(request: SequenceRequest, metadata: HandlerMetadata) -> None:
    try:
        names = read_steps(request.steps)
    except ValidationError as error:
        raise _Misfit("", 0, error.detail) from None
    if not names:
        raise _Misfit("", 0, "No steps: name at least one listener")
    if request.return_to not in ("", metadata.from_id):
        raise _Misfit(names[0], 0, "return_to must be empty or your own name: the answer goes to whoever asked")
    steps = [_known(name, index) for index, name in enumerate(names)]
    _check_first(request, names[0])
    for index, (step, following) in enumerate(pairwise(steps)):
        _check_pair(step, following, index)


def _known(name: str, index: int) -> ListenerInfo:
    info = get_directory().listener(name)
    if info is None:
        shown = name[:_SHOWN]
        error = f"Unknown listener {shown!r}: it is not registered, or not among your peers"
        raise _Misfit(shown, index, error, ROUTING_ERROR.code)
    return info


def _check_first(request: SequenceRequest, step: str) -> None:
    try:
        payloads = parse_payloads(request.payload)
        if len(payloads) != 1:
            raise _Misfit(step, 0, f"the payload must be one element, not {len(payloads)}")
        get_directory().check_payload(step, payloads[0])
    except RoutingError as error:
        raise _Misfit(step, 0, f"{step!r} does not accept <{payloads[0].tag}>", error.code) from None
    except ValidationError as error:
        raise _Misfit(step, 0, f"the payload is not valid: {error.detail}", error.code) from None
    except PipelineError as error:
        raise _Misfit(step, 0, str(error), error.code) from None


def _check_pair(step: ListenerInfo, following: ListenerInfo, index: int) -> None:
    if following.is_generic:
        return
    if step.output is None:
        raise _Misfit(step.name, index, f"{step.name!r} declares no output_class, so what it answers is not known")
    if step.output not in following.elements:
        accepted = ", ".join(f"<{element}>" for element in following.elements)
        raise _Misfit(
            following.name,
            index + 1,
            f"{following.name!r} accepts {accepted}, and {step.name!r} answers <{step.output}>",
        )
