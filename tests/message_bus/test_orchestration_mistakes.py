"""Mistakes of whoever uses `StreamPump.map`, `StreamPump.sequence` and `ThreadRegistry.on_close`."""

from __future__ import annotations

import asyncio

import pytest

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.message_bus.thread_registry import get_registry

from .helpers import Ask, audited


async def echo(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(payload)


@pytest.mark.parametrize("wrong", ["text", None, 5, Ask])
async def test_what_is_no_payload_is_the_callers_mistake(wrong: object) -> None:
    pump = StreamPump()
    pump.register("echo", echo, Ask)
    async with audited(pump):
        with pytest.raises(TypeError, match=r"number 1"):
            await pump.map("echo", [Ask("fine"), wrong])
        with pytest.raises(TypeError, match=r"the payload must be"):
            await pump.sequence(["echo"], wrong)
        assert await pump.map("echo", [Ask("fine")]) == [Ask("fine")]


async def test_what_is_done_when_a_frame_closes_may_raise_a_cancellation() -> None:
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    called: list[str] = []

    async def tool(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        get_registry().on_close(metadata.thread_id, cancelled.result)
        get_registry().on_close(metadata.thread_id, lambda: called.append(payload.text))
        return HandlerResponse.respond(payload)

    pump = StreamPump()
    pump.register("tool", tool, Ask)
    async with audited(pump):
        assert await pump.map("tool", [Ask("a"), Ask("b")]) == [Ask("a"), Ask("b")]
    assert called == ["a", "b"]
