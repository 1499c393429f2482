"""Sequences and buffers for programs: typed objects in, typed objects or exceptions out.

Both send one request to ``system.sequence`` or ``system.buffer``, which do what they do for anybody. Only the payload
objects go past the message, and what errors came of, which messages do not tell: see `Handovers`.
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
from xml_pipeline.primitives.handover import Handover, Handovers
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
_NOT_SENT: Final = "it was not sent before the time for all was over"


async def run_sequence(pump: StreamPump, steps: Iterable[str], payload: Any, timeout: float, **sender: Any) -> Any:
    """See `StreamPump.sequence`."""
    names = _names(steps)
    _check_payloads((payload,), "the payload")
    with pump.runtime.get(Handovers).offer((payload,)) as handover:
        start = SequenceStart(join_names(names), sequence_id=handover.key, timeout=timeout)
        answer = await pump.request("system.sequence", start, timeout=_patience(timeout), **sender)
    if isinstance(answer, SequenceError):
        index, step = answer.step_index, answer.failed_step
        cause = handover.causes.get(index) or _told(answer.code, answer.error, step, "sequence")
        raise _located(cause, f"step {index}, {step!r}", step)
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
        raise _told(answer.code, answer.error, target, "map")
    outcomes = [_outcome(result, target, len(items), handover) for result in handover.results]
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


def _outcome(result: JoinResult | None, target: str, total: int, handover: Handover) -> Any:
    assert result is not None  # the buffer is complete
    failure = failure_in(result.payload)
    if result.error is not None:
        # What has no cause was never sent: see `Join.take`.
        cause = handover.causes.get(result.index) or _told(result.error.code, _NOT_SENT, target, "map")
    elif failure is not None:
        cause = _told(failure.code, failure.error, target, "map")
    else:
        return result.payload
    return _located(cause, f"item {result.index} of {total} for {target!r}", target)


def _told(code: str, text: str, target: str, step: str) -> PipelineError:
    """The error of what `system.sequence` or `system.buffer` say, where no message of the pump's failed."""
    error = from_code(code, text)
    error.target, error.step = target, step
    return error


def _located(cause: PipelineError, where: str, target: str) -> PipelineError:
    """The same error, saying which of the calls has failed; ``__cause__`` is the one that `request` would raise.

    Args:
        cause: what happened to the call.
        where: which call it is.
        target: whom the call was to. What failed may have been called by that in turn: the cause names it.
    """
    error = cause.bare()
    text = cause.detail or str(cause)
    error.detail, error.target = f"{where}: {text}", target
    error.__notes__ = [error.detail]
    error.__cause__ = cause
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
