"""Streams of messages from elsewhere: admitted like everything from outside, and none of them stops another."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from xml_pipeline.envelope import message_text
from xml_pipeline.errors import PumpStopped
from xml_pipeline.message_bus.events import SourceEvent
from xml_pipeline.message_bus.stream_pump import StreamPump

from .pump_kit import Ask, Gate, guard, quiesce, running, silent, until


def make(**limits):
    got = []

    async def note(payload, metadata):
        got.append((metadata.from_id, payload.text))

    pump = StreamPump(**limits)
    pump.register("tool", note, Ask)
    events = []
    pump.subscribe_events(lambda event: events.append(event) if isinstance(event, SourceEvent) else None)
    return pump, got, events


async def items(*texts):
    for text in texts:
        yield ("tool", Ask(text))


async def test_a_source_given_before_the_pump_runs():
    pump, got, events = make()
    name = pump.add_source(items("a", "b"), from_id="feed")
    async with running(pump):
        await until(lambda: events)
        await pump.wait_idle()
    assert got == [("feed", "a"), ("feed", "b")]
    assert [(event.name, event.status) for event in events] == [(name, "ended")]


async def test_a_source_given_while_it_runs():
    pump, got, events = make()
    async with running(pump):
        pump.add_source(items("a"), name="mine")
        await until(lambda: events)
        await pump.wait_idle()
    assert got == [("external", "a")]
    assert events[0].name == "mine"


async def test_a_source_of_finished_envelopes():
    async def envelopes():
        for text in "ab":
            thread = str(uuid.uuid4())
            yield message_text(f'<Ask xmlns=""><Text>{text}</Text></Ask>', "feed", "tool", thread)

    pump, got, events = make()
    pump.add_source(envelopes(), from_id="feed")
    async with running(pump):
        await until(lambda: events)
        await pump.wait_idle()
    assert got == [("feed", "a"), ("feed", "b")]


async def test_a_source_that_fails_is_reported_and_the_others_go_on():
    gate = asyncio.Event()

    async def failing():
        yield ("tool", Ask("before"))
        raise ConnectionError("lost")

    async def patient():
        await gate.wait()
        yield ("tool", Ask("after"))

    pump, got, events = make()
    async with running(pump):
        pump.add_source(failing(), name="failing")
        pump.add_source(patient(), name="patient")
        await until(lambda: events)
        assert (events[0].name, events[0].status, events[0].error) == ("failing", "failed", "ConnectionError: lost")
        gate.set()
        await until(lambda: len(events) == 2)
        await pump.wait_idle()
    assert got == [("external", "before"), ("external", "after")]


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(42, id="number"),
        pytest.param(None, id="none"),
        pytest.param("text", id="text"),
        pytest.param(("tool",), id="short"),
        pytest.param(("tool", Ask(), "more"), id="long"),
        pytest.param(("tool", 42), id="no payload"),
        pytest.param((None, None), id="nothing"),
        pytest.param(("tool", Ask("\x00")), id="no XML"),
        pytest.param(b"x" * 2_000_000, id="oversize"),
    ],
)
async def test_an_item_that_cannot_be_admitted_is_a_dead_letter_and_the_next_is_taken(item):
    async def mixed():
        yield item
        yield ("tool", Ask("good"))

    pump, got, events = make()
    async with running(pump):
        pump.add_source(mixed(), name="mixed")
        await until(lambda: [event for event in events if event.status == "ended"])
        await pump.wait_idle()
        assert len(pump.dead_letters) == 1
    assert got == [("external", "good")]
    assert [event.status for event in events] == ["refused", "ended"]


@pytest.mark.parametrize("sender", ["system", "system.boot", "tool", "TOOL"])
async def test_a_source_cannot_speak_for_somebody_of_the_pump(sender):
    pump, got, events = make()
    async with running(pump):
        pump.add_source(items("a"), from_id=sender)
        await until(lambda: len(events) == 2)
    assert got == []
    assert len(pump.dead_letters) == 1


async def test_an_envelope_that_claims_another_sender_is_refused():
    async def forged():
        yield message_text('<Ask xmlns=""/>', "somebody else", "tool", "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11")

    pump, got, events = make()
    async with running(pump):
        pump.add_source(forged(), from_id="feed")
        await until(lambda: events)
        await pump.wait_idle()
    assert got == []
    (letter,) = pump.dead_letters.list()
    assert (letter.code, letter.from_id) == ("validation", "feed")


@pytest.mark.parametrize("source", [[], iter([]), 42, None])
def test_what_is_no_source_is_a_type_error(source):
    with pytest.raises(TypeError, match="async iterable"):
        StreamPump().add_source(source)


async def test_a_source_waits_for_room():
    """It is read no faster than its messages are handled: nothing piles up."""
    read = []
    gate = Gate(answer=False)

    async def endless():
        while True:
            read.append(None)
            yield ("slow", Ask(str(len(read))))

    pump = StreamPump(max_queue_per_listener=3)
    pump.register("slow", gate, Ask, concurrency=1)
    async with running(pump, shutdown=0.01):
        pump.add_source(endless())
        await gate.until_begun(1)
        await quiesce(500)
        count = len(read)
        assert count < 200
        await quiesce(200)
        assert len(read) == count


async def test_stopping_closes_sources_and_finishes_what_they_brought():
    closed = []
    gate = Gate(answer=False)

    async def endless():
        try:
            yield ("slow", Ask("one"))
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    pump = StreamPump()
    pump.register("slow", gate, Ask)
    async with running(pump):
        pump.add_source(endless())
        await gate.until_begun(1)
        stopping = asyncio.create_task(pump.shutdown())
        await quiesce()
        assert closed == [True]
        gate.open()
        assert (await stopping).drained
    assert gate.ended == ["one"]


async def test_a_source_of_a_pump_that_never_ran():
    pump = StreamPump()
    pump.register("tool", silent, Ask)
    pump.add_source(items("a"))
    async with guard():
        report = await pump.shutdown()
    assert report.drained


@pytest.mark.parametrize("error", [asyncio.CancelledError, TimeoutError, GeneratorExit])
async def test_whatever_a_source_raises_is_reported(error):
    async def failing():
        yield ("tool", Ask("before"))
        raise error

    pump, got, events = make()
    async with running(pump):
        pump.add_source(failing(), name="failing")
        await until(lambda: events)
        await pump.wait_idle()
        pump.add_source(items("after"), name="after")
        await until(lambda: len(events) == 2)
        await pump.wait_idle()
    assert [(event.name, event.status) for event in events] == [("failing", "failed"), ("after", "ended")]
    assert error.__name__ in events[0].error
    assert got == [("external", "before"), ("external", "after")]


async def test_a_stopped_pump_takes_no_source():
    read = []

    async def source():
        read.append(True)
        yield ("tool", Ask())

    pump, got, _ = make()
    async with running(pump):
        pass
    with pytest.raises(PumpStopped):
        pump.add_source(source())
    await quiesce()
    assert not read
    assert not got


async def test_a_source_that_is_stopped_has_not_failed():
    async def patient():
        await asyncio.Event().wait()
        yield

    pump, _, events = make()
    async with running(pump):
        pump.add_source(patient(), name="patient")
        await quiesce()
    await pump.engine.events.flush()
    assert [event.status for event in events if event.status == "failed"] == []
