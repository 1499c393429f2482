"""The shape of the earlier pumps: every step an asynchronous stage of its own, and a queue that is polled.

The steps are the documented coroutine forms of the very functions that the pump uses, so that the difference is one of
shape alone: each step is an ``aiostream.pipe.map`` over single messages with the library's defaults, fan-out and
dispatch are ``pipe.flatmap`` (dispatch with ``task_limit``), each handler runs under `asyncio.wait_for`, answers get a
new ``uuid4`` and go back through an `asyncio.Queue` that the source polls with a timeout of half a second. The
handlers, the conversation and the messages are those of the ``pump`` benchmark.

What it leaves out is in its favour: no registry of threads, no history, no events, no limits per listener, no fairness,
no cancellation, and none of the parsing twice that the earlier pumps did.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiostream

from benchmarks.drive import Tally, per_message, run_async, through
from benchmarks.measure import Case, Sample, Target
from benchmarks.messages import SMALL, Ping, envelope_of, text_for
from benchmarks.organisms import PAIR, Handler
from benchmarks.size import Size
from third_party.xmlable import Codec, codec_of
from xml_pipeline import HandlerMetadata
from xml_pipeline.envelope import message_text
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.steps.c14n import c14n_step
from xml_pipeline.message_bus.steps.deserialization import deserialize
from xml_pipeline.message_bus.steps.envelope_validation import envelope_validation_step
from xml_pipeline.message_bus.steps.payload_extraction import payload_extraction_step
from xml_pipeline.message_bus.steps.payload_validation import validate_payload
from xml_pipeline.message_bus.steps.repair import repair_step
from xml_pipeline.message_bus.steps.thread_assignment import thread_assignment_step

__all__ = ["NaivePump", "cases"]

_POLL_SECONDS = 0.5
_HANDLER_SECONDS = 30.0
_TASK_LIMIT = 20


class NaivePump:
    """A pump of asynchronous stages; see the module."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[MessageState] = asyncio.Queue()
        self._listeners: dict[str, tuple[Handler, Codec[Any]]] = {}
        self._idle = asyncio.Event()
        self._in_flight = 0
        self._running = True
        self.handled = 0

    def register(self, name: str, handler: Handler, payload_class: type) -> None:
        """Register a listener."""
        self._listeners[name] = handler, codec_of(payload_class)

    async def inject(self, raw: bytes) -> None:
        """Queue an envelope."""
        self._in_flight += 1
        self._idle.clear()
        await self._queue.put(MessageState(raw))

    async def wait_idle(self) -> None:
        """Wait until nothing is queued or running."""
        await self._idle.wait()

    async def run(self) -> None:
        """Handle messages until cancelled."""
        pipe: Any = aiostream.pipe
        pipeline = (
            aiostream.stream.iterate(self._source())
            | pipe.map(repair_step)
            | pipe.map(c14n_step)
            | pipe.map(envelope_validation_step)
            | pipe.map(payload_extraction_step)
            | pipe.map(thread_assignment_step)
            | pipe.flatmap(self._fan_out)
            | pipe.map(self._validate_and_deserialize)
            | pipe.map(self._route)
            | pipe.map(self._handle_errors)
            | pipe.filter(lambda state: state.error is None)
            | pipe.flatmap(self._dispatch, task_limit=_TASK_LIMIT)
            | pipe.action(self._reinject)
        )
        async with pipeline.stream() as streamer:
            async for _ in streamer:
                pass

    async def _source(self) -> AsyncIterator[MessageState]:
        while self._running:
            with contextlib.suppress(TimeoutError):
                yield await asyncio.wait_for(self._queue.get(), _POLL_SECONDS)

    async def _fan_out(self, state: MessageState) -> AsyncIterator[MessageState]:
        yield state

    async def _validate_and_deserialize(self, state: MessageState) -> MessageState:
        if state.error is not None:
            return state
        codec = self._listeners[state.to_id or ""][1]
        return deserialize(validate_payload(state, codec), codec)

    async def _route(self, state: MessageState) -> MessageState:
        return state

    async def _handle_errors(self, state: MessageState) -> MessageState:
        if state.error is not None:
            raise AssertionError(state.error)  # nothing here may fail
        return state

    async def _dispatch(self, state: MessageState) -> AsyncIterator[MessageState]:
        handler = self._listeners[state.to_id or ""][0]
        metadata = HandlerMetadata(state.thread_id or "", state.from_id or "")
        response = await asyncio.wait_for(handler(state.payload, metadata), _HANDLER_SECONDS)
        self.handled += 1
        if response is None:
            self._leave()
            return
        text = codec_of(type(response.payload)).encode_payload(response.payload)
        yield MessageState(message_text(text, state.to_id or "", response.to, str(uuid.uuid4())))

    async def _reinject(self, state: MessageState) -> None:
        await self._queue.put(state)

    def _leave(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()


async def _run(size: Size, in_flight: int) -> Sample:
    pump, tally, text = NaivePump(), Tally(), text_for(SMALL)
    PAIR.populate(pump, tally)
    running = asyncio.create_task(pump.run())

    async def send(number: int) -> None:
        await pump.inject(envelope_of(Ping(text, number), PAIR.entry)[0])

    try:
        await through(send, tally, pump.wait_idle, min(size.warm_up, size.naive_conversations) // 5 or 1, in_flight)
        pump.handled = 0
        sample = await through(send, tally, pump.wait_idle, size.naive_conversations, in_flight)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    messages = PAIR.messages * size.naive_conversations
    if pump.handled != messages:
        raise AssertionError(f"{pump.handled} messages were handled, not {messages}")
    return per_message(sample, PAIR.messages)


def cases(size: Size) -> list[Case]:
    """The pair of listeners, 20 conversations in flight, and one."""
    against = {"floor": "plain", "tuned": "tuned"}
    return [
        Case("naive", "pair, 1 in flight", lambda: run_async(lambda: _run(size, 1)), against),
        Case(
            "naive",
            "pair, 20 in flight",
            lambda: run_async(lambda: _run(size, 20)),
            {**against, "ours": "pump"},
            Target(20.0, "ours", at_least=True),
        ),
    ]
