"""The flow of a message, as one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from aiostream import pipable_operator, streamcontext
from aiostream.core import Stream

from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.operators import expansion, map_batches, pipe, stream

if TYPE_CHECKING:
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["build_pipeline", "dispatch", "drive", "handle_errors", "queue_source", "reinject", "route"]


def build_pipeline(pump: StreamPump, source: AsyncIterable[list[MessageState]]) -> Any:
    """From batches of messages to what their handlers sent, re-injected.

    Every stage before dispatch is a plain function of one message, lifted over the batch; a message that failed passes
    by the others and has its outcome in the errors stage. Dispatch is the one stage that waits.
    """
    return (
        stream.map(source, _own(pump, "_repair_step"))
        | pipe.map(pump._c14n_step)
        | pipe.map(pump._envelope_validation_step)
        | pipe.map(_own(pump, "_payload_extraction_step"))
        | pipe.map(pump._thread_assignment_step)
        | pipe.flatmap(_own(pump, "_fan_out_step"))
        | pipe.map(_own(pump, "_validate_and_deserialize"))
        | route(pump)
        | handle_errors(pump)
        | dispatch(pump)
        | reinject(pump)
    )


def _own(pump: StreamPump, name: str) -> Callable[[MessageState], Any]:
    """A step of the pump: the method, or what stands behind it if nobody overrode it, which saves a call a message."""
    method: Callable[[MessageState], Any] = getattr(pump, name)
    direct = pump.direct_steps.get(getattr(method, "__func__", None))
    return method if direct is None else getattr(pump.engine.reception, direct)


def queue_source(pump: StreamPump) -> Any:
    """The stream of batches that the scheduler gives."""
    return Stream(pump.engine.scheduler.batches)


async def drive(pump: StreamPump) -> None:
    """Run the pump's pipeline until its source ends.

    Where re-injection directly follows dispatch and ends the pipeline, as it does unless somebody added a stage there,
    messages need not travel through the stream to get from the one to the other: that would take another turn of the
    event loop.
    """
    stages = pump.build_pipeline(pump._queue_source())
    is_direct = getattr(stages, "reinjects_directly", False)
    pump.engine.outlet.sink = _door(pump) if is_direct else None
    async with streamcontext(stages) as streamer:
        async for _ in streamer:
            pass


def _door(pump: StreamPump) -> Callable[[MessageState], object]:
    """Where one message is re-injected."""
    push = pump._reinject_responses
    if getattr(push, "__func__", None) in pump.direct_steps:
        return pump.engine.scheduler.put  # nobody overrode it
    return lambda state: push([state])


def route(pump: StreamPump) -> Callable[[Any], Any]:
    """Decide who gets each message; one for a group becomes several."""
    return lambda source: map_batches(source, expansion(_own(pump, "_route_step")))


def handle_errors(pump: StreamPump) -> Callable[[Any], Any]:
    """Give failed messages their outcome; pass the others on."""

    def sort_out(batch: list[MessageState]) -> list[MessageState]:
        for state in batch:
            if state.error is not None:
                break
        else:
            return batch
        for state in batch:
            if state.error is not None:
                pump._handle_errors(state)
        return [state for state in batch if state.error is None]

    return lambda source: map_batches(source, sort_out)


def dispatch(pump: StreamPump) -> Callable[[Any], Any]:
    """The one stage that waits."""

    def stage(source: Any) -> Any:
        stages = _dispatched(source, pump)
        stages.is_dispatch = True  # type: ignore[attr-defined]
        return stages

    return stage


@pipable_operator
async def _dispatched(source: AsyncIterable[list[MessageState]], pump: StreamPump) -> AsyncIterator[list[MessageState]]:
    """Hand messages to the dispatcher as they come; yield what their handlers send as it comes."""
    dispatcher, outlet = pump.engine.dispatcher, pump.engine.outlet
    # A pipeline of somebody's own may suspend anywhere, and set what is meant for one task.
    is_plain = pump.has_plain_pipeline

    async def feed() -> None:
        try:
            while is_plain:
                async with streamcontext(source) as streamer:
                    if await dispatcher.lead(streamer, pump._dispatch_to_handlers):
                        return
            async with streamcontext(source) as streamer:
                async for batch in streamer:
                    pump._dispatch_to_handlers(batch)
                    del batch  # or what was in it would be kept until the next one comes
        finally:
            outlet.finish()

    outlet.open()
    dispatcher.open()
    feeder = asyncio.create_task(feed())
    try:
        while (batch := await outlet.batch()) is not None:
            yield batch
        await feeder
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


def reinject(pump: StreamPump) -> Callable[[Any], Any]:
    """Put what handlers sent through the same door again."""

    def push(batch: list[MessageState]) -> list[MessageState]:
        pump._reinject_responses(batch)
        return batch

    def stage(source: Any) -> Any:
        stages = map_batches(source, push)
        stages.reinjects_directly = getattr(source, "is_dispatch", False)
        return stages

    return stage
