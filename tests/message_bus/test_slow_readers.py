"""Whoever reads a stream may be slower than its handler: the handler waits, and nothing piles up."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import AsyncIterator

import pytest

from tests.message_bus.helpers import PATIENCE, Ask, Count, Reply
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import PipelineError
from xml_pipeline.message_bus.exchange import MOST_AHEAD
from xml_pipeline.message_bus.gateway import Arrival

MANY = 3 * MOST_AHEAD


class Counter:
    """Yields as many answers as it is asked for."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = asyncio.Event()

    async def __call__(self, count: Count, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        try:
            await asyncio.sleep(0)  # so that its time runs
            for number in range(count.number):
                self.made += 1
                yield HandlerResponse.respond(Count(number))
        finally:
            self.closed.set()


async def echo(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(Reply(ask.text))


@pytest.fixture
async def counter():
    return Counter()


@pytest.fixture
async def pump(counter):
    pump = StreamPump(max_concurrent_handlers=1, timeout=0.05)
    pump.register("counter", counter, Count)
    pump.register("echo", echo, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        yield pump


async def until_it_waits(pump: StreamPump, counter: Counter) -> None:
    """The only slot is free again when the handler waits: another one is served."""
    while counter.made < MOST_AHEAD:
        assert await pump.request("echo", Ask("x"), timeout=PATIENCE) == Reply("x")
    for _ in range(3):
        assert await pump.request("echo", Ask("x"), timeout=PATIENCE) == Reply("x")


async def test_the_handler_waits_and_lends_its_slot_and_nothing_is_lost(pump, counter):
    answers = pump.stream("counter", Count(MANY), timeout=PATIENCE)
    seen = [await anext(answers)]
    await until_it_waits(pump, counter)
    assert counter.made <= MOST_AHEAD + 2
    seen += [answer async for answer in answers]
    assert seen == [Count(number) for number in range(MANY)]
    await pump.wait_idle()
    assert pump.dead_letters.list() == []


async def test_its_time_does_not_run_while_it_waits(pump, counter):
    answers = pump.stream("counter", Count(MANY), timeout=PATIENCE)
    await anext(answers)
    await until_it_waits(pump, counter)
    over = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.2, over.set_result, None)  # four times its timeout
    await over
    assert [answer async for answer in answers][-1] == Count(MANY - 1)


async def test_the_time_of_an_item_ends_with_it():
    """An item that had to be waited for does not limit the time of those that come after it."""

    async def steady(count: Count, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        await asyncio.sleep(0)  # so that its time runs
        for number in range(count.number):
            until = time.perf_counter() + 0.006
            while time.perf_counter() < until:
                pass
            yield HandlerResponse.respond(Count(number))

    pump = StreamPump()
    pump.register("steady", steady, Count, timeout=0.3)
    async with pump, asyncio.timeout(PATIENCE):
        assert len([answer async for answer in pump.stream("steady", Count(70))]) == 70


async def test_a_reader_that_leaves_ends_the_handler_that_waits(pump, counter):
    answers = pump.stream("counter", Count(MANY), timeout=PATIENCE)
    await anext(answers)
    await until_it_waits(pump, counter)
    await answers.aclose()
    await counter.closed.wait()
    await pump.wait_idle()
    assert counter.made <= MOST_AHEAD + 2
    assert await pump.request("echo", Ask("y")) == Reply("y")


async def test_what_waits_is_cancelled_with_its_conversation(pump, counter):
    answers = pump.stream("counter", Count(MANY), timeout=PATIENCE)
    await anext(answers)
    await until_it_waits(pump, counter)
    [conversation] = [each for each in pump.engine.registry.conversations() if each.owner != "system"]
    assert pump.cancel(conversation.id)
    await counter.closed.wait()
    with pytest.raises(PipelineError):
        [answer async for answer in answers]
    await pump.wait_idle()


async def test_whoever_asks_for_one_answer_stops_nobody(pump, counter):
    assert await pump.request("counter", Count(MANY)) == Count(0)
    await pump.wait_idle()
    assert counter.made == MANY


@pytest.mark.parametrize("target", ["fails", "hangs"])
async def test_what_was_there_when_it_failed_is_not_kept(target, caplog):
    """A failed conversation is remembered for a while; the frames its error went through are not."""
    caplog.set_level(logging.CRITICAL, "xml_pipeline")  # what is logged keeps its exception, in tests

    class Large(bytearray):
        pass

    kept: list[weakref.ref[Large]] = []

    async def fails(ask: Ask, metadata: HandlerMetadata) -> None:
        raise ValueError("no")

    async def hangs(ask: Ask, metadata: HandlerMetadata) -> None:
        await asyncio.Event().wait()

    async def ask(pump: StreamPump) -> None:
        large = Large(1)
        kept.append(weakref.ref(large))
        with pytest.raises(PipelineError):
            await pump.request(target, Ask(), timeout=0.01 if target == "hangs" else PATIENCE)

    async def wait(pump: StreamPump, thread: str) -> None:
        large = Large(1)
        kept.append(weakref.ref(large))
        with pytest.raises(PipelineError):
            await pump.wait(thread)

    async def deliver(pump: StreamPump) -> None:
        large = Large(1)
        kept.append(weakref.ref(large))
        with pytest.raises(PipelineError):
            await pump.engine.gateway.deliver(Arrival("fails", Ask(), "mesh:somebody"))

    pump = StreamPump()
    pump.register("fails", fails, Ask)
    pump.register("hangs", hangs, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        for _ in range(3):
            await ask(pump)
        thread = await pump.inject("fails", Ask())
        await pump.wait_idle()
        for _ in range(3):
            await wait(pump, thread)
            await deliver(pump)
        gc.collect()
        assert [each() for each in kept] == [None] * 9
        with pytest.raises(PipelineError) as caught:
            await pump.wait(thread)
        assert "ValueError: no" in caught.value.detail
