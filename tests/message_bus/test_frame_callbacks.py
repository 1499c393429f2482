"""`ThreadRegistry.on_close`: the place to free what a handler keeps for its frame."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import pytest

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.message_bus.conversation import FrameState
from xml_pipeline.message_bus.thread_registry import Frame, ThreadRegistry, get_registry

from .helpers import Gate, reached
from .orchestration_kit import Number, Told, Word, fail, tidy


@pytest.fixture
def registry() -> ThreadRegistry:
    return ThreadRegistry()


def a_frame(registry: ThreadRegistry) -> Frame:
    return registry.open_root(registry.begin("external"), "tool")


@pytest.mark.parametrize("state", [FrameState.ENDED, FrameState.CANCELLED])
def test_they_are_called_once_in_order_when_the_frame_closes(registry: ThreadRegistry, state: FrameState) -> None:
    frame, other, called = a_frame(registry), a_frame(registry), []

    def note(number: int) -> None:
        called.append((number, frame.state, registry.frame(frame.id)))

    for number in range(3):
        registry.on_close(frame.id, partial(note, number))
    registry.close(other, state)
    assert called == []
    registry.close(frame, state)
    registry.close(frame, state)
    assert called == [(number, state, None) for number in range(3)]


@pytest.mark.parametrize("thread_id", ["", "x"])
def test_an_unknown_frame_is_refused(registry: ThreadRegistry, thread_id: str) -> None:
    with pytest.raises(KeyError, match="is not open"):
        registry.on_close(thread_id, lambda: None)


def test_a_closed_frame_is_refused(registry: ThreadRegistry) -> None:
    frame = a_frame(registry)
    registry.close(frame, FrameState.ENDED)
    with pytest.raises(KeyError, match="is not open"):
        registry.on_close(frame.id, lambda: None)


def test_one_that_raises_does_not_keep_the_others(registry: ThreadRegistry, caplog: pytest.LogCaptureFixture) -> None:
    frame, called = a_frame(registry), []

    def broken() -> None:
        raise RuntimeError("on purpose")

    registry.on_close(frame.id, broken)
    registry.on_close(frame.id, lambda: called.append(1))
    with caplog.at_level(logging.ERROR):
        registry.close(frame, FrameState.ENDED)
    assert called == [1]
    assert "failed" in caplog.text
    assert registry.open_frames == 0


async def test_however_a_frame_ends() -> None:
    """Answered, delegated, failed, silent, cancelled, refused: each time once."""
    closed: list[str] = []
    gate = Gate()
    pump = StreamPump()

    def watching(name: str, result: Any) -> Any:
        async def handle(payload: Number, metadata: HandlerMetadata) -> Any:
            get_registry().on_close(metadata.thread_id, lambda: closed.append(name))
            return await result(payload, metadata)

        return handle

    async def answer(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(payload)

    async def delegate(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.delegate(payload, "answer")

    async def silent(payload: Number, metadata: HandlerMetadata) -> None:
        return None

    async def refused(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(payload, "nowhere")

    handlers = {
        "answer": answer,
        "delegate": delegate,
        "fail": fail,
        "silent": silent,
        "refused": refused,
        "gate": gate,
    }
    for name, handler in handlers.items():
        pump.register(name, watching(name, handler), Number)
    async with tidy(pump) as audit:
        for name in ("answer", "delegate", "fail", "silent", "refused"):
            await pump.inject(name, Number(1))
            await audit.idle()
        thread = await pump.inject("gate", Number(1))
        await reached(gate.entered)
        pump.cancel(thread)
        await audit.idle()
    assert closed == ["answer", "delegate", "answer", "fail", "silent", "refused", "gate"]


async def test_what_is_kept_for_a_frame_is_kept_over_its_turns() -> None:
    kept: dict[str, int] = {}
    pump = StreamPump()

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        thread = metadata.thread_id
        if isinstance(payload, Word):
            kept[thread] = 0
            get_registry().on_close(thread, lambda: kept.pop(thread))
        kept[thread] += 1
        if kept[thread] == 5:
            return HandlerResponse.respond(Told(str(kept[thread])))
        return HandlerResponse(Number(1), "echo")

    async def echo(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(payload)

    pump.register("agent", agent, Word, agent=True, peers=["echo"])
    pump.register("echo", echo, Number)
    async with tidy(pump):
        assert await pump.request("agent", Word()) == Told("5")
    assert kept == {}
