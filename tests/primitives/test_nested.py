"""Sequences and buffers inside of one another, many at once, between listeners whose names have dots and commas."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.message_bus.helpers import Gate, reached
from tests.message_bus.orchestration_kit import (
    Number,
    Sum,
    Told,
    Word,
    double,
    increment,
    items_of,
    left,
    read,
    tidy,
    tidy_in_numbers,
    xml_of,
)
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import ConversationCancelled
from xml_pipeline.primitives.buffer import BufferComplete, BufferStart
from xml_pipeline.primitives.sequence import SequenceComplete, SequenceStart
from xml_pipeline.primitives.step_names import join_names

INC, DOUBLE, TOTAL, PICKY = "math.add.one", "math.double, twice", "math.add", "math\\picky"


async def total(payload: BufferComplete, metadata: HandlerMetadata) -> HandlerResponse:
    """The sum of a buffer's answers."""
    numbers = [content for success, content in items_of(payload.results) if success]
    return HandlerResponse.respond(Sum(sum(int(n.findtext("N") or "") for n in numbers if not isinstance(n, str))))


async def picky(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
    """Doubles, but fails at every fifth number."""
    if payload.n % 5 == 0:
        raise ValueError("on purpose")
    return await double(payload, metadata)


def a_pump() -> StreamPump:
    pump = StreamPump(max_threads=10_000)
    pump.register(INC, increment, Number)
    pump.register(DOUBLE, double, Number)
    pump.register(PICKY, picky, Number)
    pump.register(TOTAL, total, BufferComplete)
    return pump


def inner_buffer(first: int, target: str) -> BufferStart:
    """Three numbers from ``first``."""
    return BufferStart(target, xml_of(*(Number(first + more) for more in range(3))), max_parallel=2)


def sequence(first: int, target: str) -> SequenceStart:
    """A buffer, and the sum of its answers."""
    return SequenceStart(join_names(["system.buffer", TOTAL]), xml_of(inner_buffer(first, target)))


def outer_buffer(first: int, target: str) -> BufferStart:
    """Two sequences: a buffer inside of a sequence inside of a buffer."""
    return BufferStart("system.sequence", xml_of(sequence(first, target), sequence(first + 100, target)))


def sums_of(complete: Any) -> list[int]:
    assert isinstance(complete, BufferComplete), complete
    found = []
    for success, content in items_of(complete.results):
        assert success
        assert not isinstance(content, str)
        done = SequenceComplete("", content.findtext("FinalResult") or "", 0)
        found.append(read(Sum, done.final_result).n)
    return found


def expected_of(first: int, target: str) -> list[int]:
    def one(number: int) -> int:
        if target == INC:
            return number + 1
        return 2 * number if target == DOUBLE or number % 5 else 0

    return [sum(one(begin + more) for more in range(3)) for begin in (first, first + 100)]


async def test_a_buffer_in_a_sequence_in_a_buffer() -> None:
    pump = a_pump()
    async with tidy(pump):
        for target in (INC, DOUBLE, PICKY):
            assert sums_of(await pump.request("system.buffer", outer_buffer(3, target))) == expected_of(3, target)


async def test_a_sequence_in_a_buffer_in_a_sequence() -> None:
    pump = a_pump()

    async def count(payload: BufferComplete, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Number(payload.successful))

    pump.register("count", count, BufferComplete)
    starts = [SequenceStart(join_names([INC, DOUBLE]), xml_of(Number(n))) for n in range(4)]
    bad = SequenceStart(join_names([INC, "missing"]), xml_of(Number(1)))
    async with tidy(pump):
        buffer = BufferStart("system.sequence", xml_of(*starts, bad))
        assert await pump.sequence(["system.buffer", "count", INC], buffer) == Number(5)


async def test_two_hundred_of_them_interleaved() -> None:
    """Right results in the right order for everybody, and at the end everything is as it was before."""
    pump = a_pump()
    targets = random.Random(1).choices([INC, DOUBLE, PICKY], k=200)
    async with tidy_in_numbers(pump):
        asked = [pump.request("system.buffer", outer_buffer(7 * n, target)) for n, target in enumerate(targets)]
        answers = await asyncio.gather(*asked)
    for n, (target, answer) in enumerate(zip(targets, answers, strict=True)):
        assert sums_of(answer) == expected_of(7 * n, target)
    outcomes = pump.statistics().outcomes
    assert outcomes["dead-lettered"] == outcomes["expired"] == 0


async def test_agents_that_ask_for_them_at_once() -> None:
    """Each with an agent of its own in between, whose peers are what binds it."""
    pump = a_pump()

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(payload, Number):
            return HandlerResponse(outer_buffer(payload.n, INC), "system.buffer")
        return HandlerResponse.respond(Told(" ".join(map(str, sums_of(payload)))))

    peers = ["system.buffer", "system.sequence", INC, TOTAL]
    for number in range(10):
        pump.register(f"agent.{number}", agent, Number, agent=True, peers=peers)
    async with tidy(pump):
        answers = await asyncio.gather(*(pump.request(f"agent.{n % 10}", Number(n)) for n in range(60)))
    assert answers == [Told(" ".join(map(str, expected_of(n, INC)))) for n in range(60)]


@pytest.mark.parametrize("missing", ["system.sequence", INC, TOTAL])
async def test_an_agent_is_bound_on_every_level(missing: str) -> None:
    """Whatever of it is not among its own peers, it does not reach, however deep; and it learns of the refusal."""
    pump = a_pump()
    reached_inc = []

    async def watched(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        reached_inc.append(payload.n)
        return await increment(payload, metadata)

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(payload, Word):
            return HandlerResponse(outer_buffer(1, INC), "system.buffer")
        return HandlerResponse.respond(Told(repr(payload)))

    pump.unregister_listener(INC)
    pump.register(INC, watched, Number)
    peers = ["system.buffer", *({"system.sequence", INC, TOTAL} - {missing})]
    pump.register("agent", agent, Word, agent=True, peers=peers)
    async with tidy(pump):
        answer = await pump.request("agent", Word())
    assert "routing" in answer.text
    assert "successful=2" not in answer.text
    if missing != TOTAL:
        assert reached_inc == []


async def test_cancelling_the_outermost_cancels_all_below() -> None:
    gate = Gate()
    pump = a_pump()
    pump.register("gate", gate, Number)
    async with tidy(pump):
        thread = await pump.inject("system.buffer", outer_buffer(1, "gate"))
        await reached(gate.entered)
        now = left(pump)
        assert (now.sequences, now.buffers, now.joins) == (2, 3, 5)
        assert pump.cancel(thread)
        await reached(gate.cancelled)
        with pytest.raises(ConversationCancelled):
            await pump.wait(thread)


async def test_the_outer_deadline_ends_all_below() -> None:
    gate = Gate()
    pump = a_pump()
    pump.register("gate", gate, Number)
    start = BufferStart("system.sequence", xml_of(sequence(1, "gate"), sequence(2, INC)), timeout=0.5)
    async with tidy(pump):
        complete = await pump.request("system.buffer", start)
        await reached(gate.cancelled)
    (slow, _), (quick, _) = items_of(complete.results)
    assert (slow, quick, complete.successful) == (False, True, 1)


async def test_several_pumps_do_not_share_anything() -> None:
    one, two = a_pump(), a_pump()
    async with tidy(one), tidy(two):
        first, second = await asyncio.gather(
            one.request("system.buffer", outer_buffer(1, INC)), two.request("system.buffer", outer_buffer(1, DOUBLE))
        )
    assert (sums_of(first), sums_of(second)) == (expected_of(1, INC), expected_of(1, DOUBLE))
