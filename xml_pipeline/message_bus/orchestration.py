"""Sequences and buffers for programs: typed objects in, typed objects or exceptions out.

Both send one request to ``system.sequence`` or ``system.buffer``, which do what they do for anybody. Only the payload
objects go past the message, see `Handovers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from lxml import etree

from third_party.xmlable import XError, codec_of
from xml_pipeline.errors import PipelineError, ValidationError, from_code
from xml_pipeline.message_bus.join import JoinResult
from xml_pipeline.primitives.buffer import BufferComplete, BufferStart
from xml_pipeline.primitives.failures import failure_in
from xml_pipeline.primitives.handover import Handovers
from xml_pipeline.primitives.sequence import SequenceError, SequenceStart
from xml_pipeline.primitives.step_names import join_names

if TYPE_CHECKING:
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["map_payloads", "run_sequence"]

_GRACE: Final = 5.0
"""Seconds that the request waits longer than what it asks for takes at most, so that cause and results come from there,
also while the machine is busy."""
_FOREVER: Final = 1e9
"""Seconds that nobody waits for."""


async def run_sequence(pump: StreamPump, steps: Iterable[str], payload: Any, timeout: float, **sender: Any) -> Any:
    """See `StreamPump.sequence`."""
    names = _names(steps)
    _check_payloads((payload,), "the payload")
    with pump.runtime.get(Handovers).offer((payload,)) as handover:
        start = SequenceStart(join_names(names), sequence_id=handover.key, timeout=timeout)
        answer = await pump.request("system.sequence", start, timeout=_patience(timeout), **sender)
    if isinstance(answer, SequenceError):
        failed = f"step {answer.step_index}, {answer.failed_step!r}: {answer.error}"
        error = from_code(answer.code, failed)
        error.target, error.step = answer.failed_step, "sequence"
        raise error
    (result,) = handover.results
    assert result is not None  # the sequence is complete
    return result.payload


async def map_payloads(
    pump: StreamPump,
    target: str,
    payloads: Iterable[Any],
    *,
    max_parallel: int,
    timeout: float,
    item_timeout: float,
    return_exceptions: bool,
    **sender: Any,
) -> list[Any]:
    """See `StreamPump.map`."""
    items = list(payloads)
    _check_payloads(items, "a payload")
    if not items:
        return []
    with pump.runtime.get(Handovers).offer(items) as handover:
        start = BufferStart(
            target,
            buffer_id=handover.key,
            max_parallel=max_parallel,
            timeout=timeout,
            item_timeout=item_timeout,
        )
        answer = await pump.request("system.buffer", start, timeout=_patience(timeout), **sender)
    if not isinstance(answer, BufferComplete):
        raise from_code(answer.code, answer.error)
    outcomes = [_outcome(result, target, len(items)) for result in handover.results]
    if not return_exceptions:
        for outcome in outcomes:
            if isinstance(outcome, PipelineError):
                raise outcome
    return outcomes


def _names(steps: Iterable[str]) -> Sequence[str]:
    if isinstance(steps, str):
        raise TypeError(f"steps must be a list of names, not the string {steps!r}")
    names = list(steps)
    wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
    if wrong:
        raise TypeError(f"steps must be names of listeners, not {wrong[0]!r}")
    if not names:
        raise ValidationError("a sequence needs at least one step", step="sequence")
    return names


def _patience(timeout: object) -> float | None:
    """How long to wait for the answer. What is no number of seconds is refused by whoever is asked."""
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    return timeout + _GRACE if is_number and 0 < timeout < _FOREVER else None  # type: ignore[operator]


def _outcome(result: JoinResult | None, target: str, total: int) -> Any:
    assert result is not None  # the buffer is complete
    failure = failure_in(result.payload)
    if result.error is not None:
        code, text = result.error.code, result.error.message
    elif failure is not None:
        code, text = failure.code, failure.error
    else:
        return result.payload
    error = from_code(code, f"item {result.index} of {total} for {target!r}: {text}")
    error.target, error.step = target, "map"
    return error


def _check_payloads(values: Sequence[Any], what: str) -> None:
    """Refuse what is no payload here, where it is the caller's mistake, and not an item's failure."""
    for cls in {type(value) for value in values}:
        if callable(getattr(cls, "to_xml", None)) or issubclass(cls, etree._Element):
            continue
        try:
            codec_of(cls)
        except XError as error:
            where = next(index for index, value in enumerate(values) if type(value) is cls)
            raise TypeError(
                f"{what} must be an instance of a dataclass or a pydantic model, or have to_xml(), "
                f"not {cls.__name__} (number {where}): {error}"
            ) from error
