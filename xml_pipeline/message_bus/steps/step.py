"""How a step runs: the one place where an exception becomes a message's outcome.

A *step* is a plain function that takes a `MessageState`, changes it and returns it, or raises. It decides without
awaiting. Three adapters call it, with the same meaning:

* `run_step` on one state,
* `lift` on a batch, which is what the pipeline streams,
* `step`, as the coroutine function that users' own pipelines await (``state = await repair_step(state)``).

A state that has failed is passed by: the first failure is the cause, whatever a later step would say is a consequence.
No exception leaves an adapter, since one exception would end the stream for every message in it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import logging
from typing import TYPE_CHECKING, cast

from xml_pipeline.errors import HandlerError, PipelineError, ValidationError
from xml_pipeline.message_bus.message_state import MessageState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    Step: TypeAlias = Callable[[MessageState], MessageState]
    AsyncStep: TypeAlias = Callable[[MessageState], Awaitable[MessageState]]
    BatchStep: TypeAlias = Callable[[list[MessageState]], list[MessageState]]

__all__ = ["checked", "lift", "over_batch", "record_failure", "run_step", "step", "wrap_step"]

_log = logging.getLogger(__name__)

_THEIRS = (Exception, asyncio.CancelledError, GeneratorExit, SystemExit)
"""What a function of users may raise. Nothing is awaited in a step, so none of it can be meant for the pump."""


def run_step(function: Step, state: MessageState) -> MessageState:
    """Run a step on one state. Never raises.

    Args:
        function: the step.
        state: a failed one is returned as it is.

    Returns:
        What the step returned; if it raised, ``state`` with the failure recorded.
    """
    if state.error is not None:
        return state
    try:
        return checked(function(state), state, function)
    except _THEIRS as error:
        return record_failure(state, error, _name(function))


def lift(function: Step) -> BatchStep:
    """Make a step work on a batch, each message for itself: `run_step`, as a tight loop.

    Args:
        function: the step.

    Returns:
        A function that runs the step on every state of a list, in place, and returns the list.
    """
    name = _name(function)

    def run_batch(batch: list[MessageState]) -> list[MessageState]:
        for state in batch:
            if state.error is None:
                try:
                    result = function(state)
                    if result is not state:
                        _replace(batch, state, checked(result, state, function))
                except _THEIRS as error:
                    record_failure(state, error, name)
        return batch

    run_batch.__name__ = run_batch.__qualname__ = f"{name}_batch"
    return run_batch


over_batch = lift


def _replace(batch: list[MessageState], state: MessageState, other: MessageState) -> None:
    # By identity, and not by counting along, which every message would pay for.
    batch[next(index for index, each in enumerate(batch) if each is state)] = other


def step(function: Step, name: str = "") -> AsyncStep:
    """The coroutine twin of a step: ``repair_step = step(repair)``.

    Args:
        function: the step.
        name: what the twin is called; by default the step's name and ``_step``.
    """

    async def twin(state: MessageState) -> MessageState:
        return run_step(function, state)

    twin.__name__ = twin.__qualname__ = name or f"{_name(function)}_step"
    twin.__module__ = getattr(function, "__module__", __name__)
    twin.plain = function  # type: ignore[attr-defined]  # for pipelines, which need not await what never waits
    twin.__doc__ = f"``{_name(function)}`` as a coroutine function. Never raises: a failure is in the state it returns."
    return twin


def wrap_step(function: Step | AsyncStep) -> AsyncStep:
    """Take any step, plain or coroutine function, and return a coroutine function.

    Args:
        function: a coroutine function is returned as it is, anything else as its `step` twin.
    """
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return cast("AsyncStep", function)
    return step(cast("Step", function))


def checked(result: object, state: MessageState, function: Callable[..., object]) -> MessageState:
    """What a step returned, if it is a message. A copy, e.g. by ``dataclasses.replace``, stays the same message: it
    gets all that the pump keeps about it."""
    if isinstance(result, type(state)):
        if result is not state:
            for name in _carried():
                setattr(result, name, getattr(state, name))
        return result
    raise HandlerError(f"step {_name(function)!r} returned {type(result).__name__} instead of the message")


@functools.cache
def _carried() -> tuple[str, ...]:
    """The fields that a copy made by ``dataclasses.replace`` has lost."""
    return tuple(field.name for field in dataclasses.fields(MessageState) if not field.init)


def _name(function: Callable[..., object]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def record_failure(state: MessageState, error: BaseException, name: str) -> MessageState:
    """Turn an exception into a message's outcome; the first one of a message wins.

    Args:
        state: the message.
        error: a `PipelineError` is kept, with ``step`` filled in; any other becomes a `ValidationError` and is logged.
            It loses its tracebacks.
        name: the step that raised it.

    Returns:
        ``state``.
    """
    if isinstance(error, PipelineError):
        failure = error
        failure.step = failure.step or name.removeprefix("_").removesuffix("_step")
    else:
        # Not one of ours: a defect in a step, or in what a user plugged in. The message is told, the operator too.
        _log.error("step %s raised %s", name, type(error).__name__, exc_info=error)
        name = name.removeprefix("_").removesuffix("_step")
        failure = ValidationError(f"{name}: {type(error).__name__}: {error}", step=name)
    _drop_frames(error)
    state.fail(failure)
    return state


def _drop_frames(error: BaseException | None) -> None:
    # The state keeps its failure, and a traceback's frames keep the state: a cycle for the collector, per bad message.
    seen: set[int] = set()  # a chain of exceptions may be a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
