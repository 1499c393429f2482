"""Sequences and buffers of every shape at once, with listeners that do everything wrong, cancelled at random.

Whatever happens, every message has one outcome, everybody who asked is told, and nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest

from tests.message_bus.orchestration_kit import Number, tidy, xml_of
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import DeadlineExceeded, PipelineError
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.primitives.buffer import BufferStart
from xml_pipeline.primitives.sequence import SequenceStart
from xml_pipeline.primitives.step_names import join_names

PATIENCE = 20.0
"""Seconds that no request may take: all handlers have less than a tenth of a second."""


class Storm:
    """An organism, and requests to it, made of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.frames: list[str] = []
        choose = self.random.choice
        self.pump = StreamPump(
            max_concurrent_handlers=choose([1, 5, 20, 100]),
            timeout=0.05,
            max_hops=20,
            thread_scheduling=choose(["breadth-first", "depth-first"]),
        )
        self.pump.register("tool", self.tool, Number)
        self.pump.register("stream", self.stream, Number)
        for number in range(3):
            self.pump.register(f"pool.{number}", self.tool, Number, broadcast=True, ordered=choose([True, False]))
        peers = ["tool", "stream", "pool", "agent", "system.sequence", "system.buffer"]
        self.pump.register("agent", self.agent, Number, agent=True, peers=peers)

    # -- listeners

    async def tool(self, payload: Number, metadata: HandlerMetadata) -> Any:
        self.frames.append(metadata.thread_id)
        n = payload.n
        match n % 9:
            case 1:
                await asyncio.sleep(self.random.random() * 0.003)
            case 2:
                raise ValueError("on purpose")
            case 3:
                return None
            case 4:
                await asyncio.Event().wait()
            case 5:
                return HandlerResponse.delegate(Number(n + 3), "tool")
            case 6:
                return [HandlerResponse.respond(Number(n + 1)), HandlerResponse.respond(Number(n + 2))]
            case 7:
                return HandlerResponse(Number(n + 1), "tool")
            case 8:
                return HandlerResponse.respond(SystemError("budget", "x", False))
        return HandlerResponse.respond(Number(n + 1))

    async def stream(self, payload: Number, metadata: HandlerMetadata) -> Any:
        for more in range(payload.n % 4):
            yield HandlerResponse.respond(Number(payload.n + more))
            await asyncio.sleep(self.random.random() * 0.002)

    async def agent(self, payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        if not isinstance(payload, Number):
            return HandlerResponse.respond(Number(self.random.randrange(100)))
        if self.random.random() < 0.5:
            return HandlerResponse(self.a_sequence(1), "system.sequence")
        return HandlerResponse(self.a_buffer(1), "system.buffer")

    # -- requests

    def a_name(self) -> str:
        return self.random.choice(["tool", "tool", "stream", "pool", "agent", "missing"])

    def numbers(self, most: int) -> list[Number]:
        return [Number(self.random.randrange(100)) for _ in range(self.random.randrange(1, most))]

    def a_sequence(self, depth: int) -> SequenceStart:
        if depth and self.random.random() < 0.4:
            return SequenceStart("system.buffer", xml_of(self.a_buffer(depth - 1)))
        steps = join_names(self.a_name() for _ in range(self.random.randrange(1, 5)))
        return SequenceStart(steps, xml_of(*self.numbers(2)), timeout=self.random.choice([0.0, 0.0, 0.02, 1e-9]))

    def a_buffer(self, depth: int) -> BufferStart:
        collect = self.random.random() < 0.8
        if depth and self.random.random() < 0.4:
            starts = [self.a_sequence(depth - 1) for _ in range(self.random.randrange(1, 4))]
            return BufferStart("system.sequence", xml_of(*starts), collect)
        return BufferStart(
            self.a_name(),
            xml_of(*self.numbers(8)),
            collect,
            max_parallel=self.random.randrange(1, 5),
            timeout=self.random.choice([0.0, 0.0, 0.03]),
            item_timeout=self.random.choice([30.0, 0.01, 1e-9]),
        )

    async def ask(self) -> Any:
        match self.random.randrange(5):
            case 0:
                return await self.pump.request("system.sequence", self.a_sequence(2), timeout=PATIENCE)
            case 1:
                return await self.pump.request("system.buffer", self.a_buffer(2), timeout=PATIENCE)
            case 2:
                names = [self.a_name() for _ in range(self.random.randrange(1, 4))]
                return await self.pump.sequence(names, Number(self.random.randrange(100)), timeout=PATIENCE)
            case 3:
                return await self.pump.map(self.a_name(), self.numbers(10), return_exceptions=True)
            case _:
                return await self.pump.request("agent", Number(1), timeout=self.random.choice([PATIENCE, 0.01]))

    async def disturb(self, asking: list[asyncio.Task[Any]]) -> None:
        for _ in range(self.random.randrange(10)):
            await asyncio.sleep(self.random.random() * 0.01)
            if self.frames and self.random.random() < 0.7:
                self.pump.cancel(self.random.choice(self.frames))
            else:
                self.random.choice(asking).cancel()


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_everybody_is_told_and_nothing_is_left(seed: int) -> None:
    storm = Storm(seed)
    async with tidy(storm.pump):
        asking = [asyncio.create_task(storm.ask()) for _ in range(25)]
        await storm.disturb(asking)
        for each in asking:
            with contextlib.suppress(asyncio.CancelledError):
                error = await _error_of(each)
                lost = isinstance(error, DeadlineExceeded) and f"in {PATIENCE} s" in error.detail
                assert not lost, error.detail


async def _error_of(asking: asyncio.Task[Any]) -> PipelineError | None:
    try:
        await asking
    except PipelineError as error:
        return error
    return None
