"""Workers take turns at the pipeline: nothing waits for a handler that waits, and nothing is lost when it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass

import pytest

from tests.message_bus.helpers import PATIENCE, Ask, Note, Reply
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import HandlerError, RoutingError
from xml_pipeline.message_bus.intake import Intake
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.operators import pipe

Batch = list[MessageState]

LAST_READ: ContextVar[str] = ContextVar("last_read", default="")
"""Set by what runs while messages are read."""


@dataclass
class Telling:
    text: str = ""

    def __post_init__(self) -> None:
        LAST_READ.set(self.text)


async def echo(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(Reply(ask.text))


class Source:
    """Batches that the test gives; `None` ends them, an exception breaks them."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[Batch | Exception | None] = asyncio.Queue()
        self.taken: list[Batch] = []

    async def batches(self) -> AsyncIterator[Batch]:
        while True:
            batch = await self.given.get()
            if batch is None:
                return
            if isinstance(batch, Exception):
                raise batch
            yield batch


async def read(intake: Intake) -> None:
    task = asyncio.current_task()
    assert task is not None
    await intake.read(task)


async def test_whoever_reads_takes_and_then_somebody_else_may():
    source = Source()
    intake = Intake(source.batches(), source.taken.append)
    for _ in range(3):
        assert intake.is_free
        reader = asyncio.create_task(read(intake))
        await asyncio.sleep(0)
        assert not intake.is_free
        source.given.put_nowait([])
        await reader
    assert source.taken == [[], [], []]


async def test_the_end_of_the_source_is_the_end():
    source = Source()
    intake = Intake(source.batches(), source.taken.append)
    source.given.put_nowait(None)
    await read(intake)
    assert not intake.is_free
    await asyncio.wait_for(intake.wait(), PATIENCE)


@pytest.mark.parametrize("in_stage", [True, False])
async def test_a_failure_ends_it_and_is_told(in_stage: bool):
    source = Source()

    def take(batch: Batch) -> None:
        raise LookupError("taking")

    intake = Intake(source.batches(), take)
    source.given.put_nowait(LookupError("in a stage") if in_stage else [])
    await read(intake)
    assert not intake.is_free
    with pytest.raises(LookupError, match="in a stage" if in_stage else "taking"):
        await asyncio.wait_for(intake.wait(), PATIENCE)


async def test_when_whoever_waits_is_cancelled_nobody_reads_any_more_and_the_reader_lives_on():
    source = Source()
    intake = Intake(source.batches(), source.taken.append)
    lived_on = asyncio.Event()

    async def work() -> None:
        await read(intake)
        await asyncio.sleep(0)
        lived_on.set()

    reader, waiter = asyncio.create_task(work()), asyncio.create_task(intake.wait())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not intake.is_free and not source.taken
    await reader
    assert lived_on.is_set() and not reader.cancelling()


async def test_a_reader_that_is_cancelled_ends_it():
    source = Source()
    intake = Intake(source.batches(), source.taken.append)
    reader = asyncio.create_task(read(intake))
    await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await asyncio.wait_for(intake.wait(), PATIENCE)


async def test_whoever_waits_may_be_cancelled_again_while_the_reader_ends():
    source = Source()
    intake = Intake(source.batches(), source.taken.append)
    reader, waiter = asyncio.create_task(read(intake)), asyncio.create_task(intake.wait())
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.sleep(0)
    assert reader.cancelling() and not reader.done()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await reader


async def test_a_reader_that_is_cancelled_for_something_else_breaks_it_off_and_a_stage_that_says_so_breaks_it():
    async def raising() -> AsyncIterator[Batch]:
        raise asyncio.CancelledError
        yield []

    source = Source()
    for intake, is_cancelled in ((Intake(source.batches(), list), True), (Intake(raising(), list), False)):
        reader = asyncio.create_task(read(intake))
        await asyncio.sleep(0)
        if is_cancelled:
            reader.cancel()
        await asyncio.wait((reader,))
        assert intake.is_broken_off == reader.cancelled() == is_cancelled
        [failure] = await asyncio.gather(intake.wait(), return_exceptions=True)
        assert failure is None if is_cancelled else "CancelledError" in str(failure)


class WithStage(StreamPump):
    """A pipeline of one's own, which a task of its own reads."""

    def build_pipeline(self, source):
        return super().build_pipeline(source | pipe.action(lambda state: None))


@pytest.mark.parametrize("cls", [StreamPump, WithStage])
async def test_the_only_slot_is_taken_and_answers_still_leave(cls: type[StreamPump]):
    go = asyncio.Event()

    async def slow(ask: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        yield HandlerResponse.respond(Reply("first"))
        await go.wait()
        yield HandlerResponse.respond(Reply("second"))

    pump = cls(max_concurrent_handlers=1)
    pump.register("slow", slow, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        answers = pump.stream("slow", Ask())
        assert await anext(answers) == Reply("first")
        go.set()
        assert [answer async for answer in answers] == [Reply("second")]


@pytest.mark.parametrize("cls", [StreamPump, WithStage])
async def test_the_only_slot_is_taken_and_a_deadline_is_still_told(cls: type[StreamPump]):
    told, ended = asyncio.Event(), asyncio.Event()

    async def asker(message: Ask | object, metadata: HandlerMetadata) -> HandlerResponse | None:
        if isinstance(message, Ask):
            return HandlerResponse.call(Note(), "hangs", timeout=0.01)
        told.set()
        return HandlerResponse.respond(Reply("gave up"))

    async def hangs(note: Note, metadata: HandlerMetadata) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    pump = cls(max_concurrent_handlers=1)
    pump.register("asker", asker, Ask, agent=True, peers=["hangs"])
    pump.register("hangs", hangs, Note)
    async with pump, asyncio.timeout(PATIENCE):
        assert await pump.request("asker", Ask()) == Reply("gave up")
        assert told.is_set() and ended.is_set()


async def test_handlers_that_never_wait_let_the_loop_go_on():
    turns = 0

    async def restless(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        nonlocal turns
        turns += 1
        begun.set()
        return HandlerResponse(ask, to="restless") if not stop.is_set() else HandlerResponse.respond(Reply("done"))

    begun, stop = asyncio.Event(), asyncio.Event()
    pump = StreamPump(max_turns=1_000_000)
    pump.register("restless", restless, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        asked = asyncio.create_task(pump.request("restless", Ask()))
        await begun.wait()
        for _ in range(100):
            before = turns
            await asyncio.sleep(0)  # comes back only if the loop is let go
            assert turns - before < 1_000
        stop.set()
        assert await asked == Reply("done")


@pytest.mark.parametrize("where", ["on_intent", "on_acknowledged", "on_failed"])
async def test_a_hook_that_waits_keeps_nobody_waiting(where: str):
    go = asyncio.Event()

    class Slow:
        async def on_intent(self, thread_id, from_id, to_id, payload_type, payload_bytes):
            if to_id == "held" and where == "on_intent":
                await go.wait()
            return to_id

        async def on_acknowledged(self, entry):
            if entry == "held" and where == "on_acknowledged":
                await go.wait()

        async def on_failed(self, entry, error):
            if where == "on_failed":
                await go.wait()

    async def answer(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Reply(ask.text))

    async def fail(ask: Ask, metadata: HandlerMetadata) -> None:
        raise ValueError("no")

    pump = StreamPump()
    pump.register("held", fail if where == "on_failed" else answer, Ask)
    pump.register("free", answer, Ask)
    pump.register_dispatch_hook(Slow())
    async with pump, asyncio.timeout(PATIENCE):
        held = asyncio.create_task(pump.request("held", Ask("held")))
        free = [asyncio.create_task(pump.request("free", Ask(str(number)))) for number in range(3)]
        assert [await each for each in free] == [Reply("0"), Reply("1"), Reply("2")]
        go.set()
        [told] = await asyncio.gather(held, return_exceptions=True)
        assert told == Reply("held") or where == "on_failed"


@pytest.mark.parametrize("cls", [StreamPump, WithStage])
async def test_nothing_is_kept_of_the_last_batch(cls: type[StreamPump]):
    """An idle pump remembers as many conversations as it should, and not those of the last batch besides."""

    async def answer(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Reply(ask.text))

    pump = cls(max_threads=1)
    pump.register("tool", answer, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        await asyncio.gather(*(pump.request("tool", Ask(str(number))) for number in range(50)))
        await pump.wait_idle()
        gc.collect()
        states = [each for each in gc.get_objects() if type(each) is MessageState and each.conversation is not None]
        assert len([each for each in states if each.conversation.owner != "system"]) <= 2


async def test_whoever_is_busy_lets_the_loop_go_on_and_has_nobody_take_as_long_again():
    async def answer(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Reply(ask.text))

    pump = StreamPump()
    pump.register("echo", answer, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        for number in range(500):
            await pump.inject("echo", Ask(str(number)))
        await pump.wait_idle()
        assert len(pump.engine.dispatcher.pool.workers) <= 2


async def test_nothing_is_kept_of_handlers_that_waited():
    """Neither by the workers that were begun while they waited, nor by the timer of their deadlines."""

    async def slow(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        await asyncio.sleep(0)
        return HandlerResponse.respond(Reply(ask.text))

    pump = StreamPump(max_threads=1)
    pump.register("slow", slow, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        await asyncio.gather(*(pump.request("slow", Ask(str(number))) for number in range(50)))
        await pump.wait_idle()
        await asyncio.sleep(0)
        gc.collect()
        states = [each for each in gc.get_objects() if type(each) is MessageState and each.conversation is not None]
        assert not [each for each in states if each.conversation.owner != "system"]


async def test_a_cancellation_left_behind_in_a_workers_task_stops_nobody():
    tasks: list[asyncio.Task[None]] = []

    async def careless(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        return HandlerResponse.respond(Reply(ask.text))

    pump = StreamPump()
    pump.register("careless", careless, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        for number in range(10):  # more often than a broken pipeline is begun again
            assert await pump.request("careless", Ask(str(number))) == Reply(str(number))
            for _ in range(number % 3):
                await asyncio.sleep(0)
            tasks[-1].cancel()
        assert len(set(tasks)) > 6


async def test_a_worker_that_is_cancelled_while_much_waits_is_followed_by_another():
    done = 0

    async def careless(ask: Ask, metadata: HandlerMetadata) -> None:
        nonlocal done
        done += 1
        task = asyncio.current_task()
        assert task is not None
        if done < 100:
            asyncio.get_running_loop().call_soon(task.cancel)  # when the worker lets the loop go on

    pump = StreamPump()
    pump.register("careless", careless, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        for _ in range(500):
            await pump.inject("careless", Ask())
        await pump.wait_idle()
        assert done == 500


class Later(StreamPump):
    """Messages reach their handlers in another turn of the event loop."""

    def _dispatch_to_handlers(self, batch):
        asyncio.get_running_loop().call_soon(super()._dispatch_to_handlers, batch)


class Waiting(StreamPump):
    """A step that waits."""

    async def _thread_assignment_step(self, state):
        await asyncio.sleep(0)
        return StreamPump._thread_assignment_step(state)


class Setting(StreamPump):
    """A step that sets a context variable."""

    def _repair_step(self, state):
        LAST_READ.set("by a step")
        return super()._repair_step(state)


@pytest.mark.parametrize("cls", [StreamPump, Later, Waiting, Setting])
async def test_steps_of_ones_own_may_dispatch_later_or_wait_and_handlers_do_not_see_what_they_set(cls):
    seen: list[str] = []

    async def look(telling: Telling, metadata: HandlerMetadata) -> HandlerResponse:
        seen.append(LAST_READ.get())
        return HandlerResponse.respond(Reply(telling.text))

    pump = cls()
    pump.register("look", look, Telling)
    texts = [str(number) for number in range(5)]
    async with pump, asyncio.timeout(PATIENCE):
        for text in texts:
            assert await pump.request("look", Telling(text)) == Reply(text)
        many = await asyncio.gather(*(pump.request("look", Telling(text)) for text in texts))
        assert many == [Reply(text) for text in texts]
    assert seen == [""] * 10


async def test_somebody_reads_while_much_waits_for_handlers_that_never_wait():
    done = 0
    go = asyncio.Event()

    async def many(ask: Ask, metadata: HandlerMetadata) -> list[HandlerResponse]:
        return [HandlerResponse(Note(), to="held"), *(HandlerResponse(Note(), to="quick") for _ in range(900))]

    async def held(note: Note, metadata: HandlerMetadata) -> None:
        await go.wait()

    async def quick(note: Note, metadata: HandlerMetadata) -> None:
        nonlocal done
        done += 1

    pump = StreamPump(max_concurrent_handlers=1)
    for name, handler, payload in (("many", many, Ask), ("held", held, Note), ("quick", quick, Note)):
        pump.register(name, handler, payload)
    pump.register("echo", echo, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        await pump.inject("many", Ask())
        for _ in range(100):
            await asyncio.sleep(0)
        assert pump.engine.dispatcher.lanes.waiting == 900
        go.set()
        assert await pump.request("echo", Ask("x")) == Reply("x")
        assert done < 600
        await pump.wait_idle()
        assert done == 900


async def test_somebody_reads_when_more_handlers_run_than_may():
    """Here since the limit is lowered; the same can be when slots that were lent are taken again."""
    go, all_run = asyncio.Event(), asyncio.Event()
    texts, begun = ["first", "last", "ready", "ready too"], list[str]()

    async def slow(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        begun.append(ask.text)
        if ask.text == "last":
            pump.engine.dispatcher.resize(1, 1)
        if len(begun) == len(texts):
            all_run.set()
        await go.wait()
        return HandlerResponse.respond(Reply(ask.text))

    pump = StreamPump(max_concurrent_handlers=10)
    pump.register("slow", slow, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        asked = [asyncio.create_task(pump.request("slow", Ask(text))) for text in texts]
        await all_run.wait()
        with pytest.raises(RoutingError):  # which needs no handler, but somebody who reads
            await pump.request("nobody", Ask())
        go.set()
        assert await asyncio.gather(*asked) == [Reply(text) for text in texts]
        await pump.wait_idle()
        assert len(pump.engine.dispatcher.pool.workers) <= 2


async def test_everybody_who_asks_in_one_conversation_gets_his_own_answer_and_the_last_is_remembered():
    go = asyncio.Event()

    async def held(note: Note, metadata: HandlerMetadata) -> None:
        await go.wait()

    async def failing(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        if ask.text == "2":
            raise ValueError("no")
        return HandlerResponse.respond(Reply(ask.text))

    pump = StreamPump()
    pump.register("held", held, Note)
    pump.register("failing", failing, Ask)
    async with pump, asyncio.timeout(PATIENCE):
        thread = await pump.inject("held", Note())
        asked = [pump.request("failing", Ask(str(number)), thread_id=thread) for number in range(5)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(answer) for answer in answers[:2] + answers[3:]] == [str(Reply(text)) for text in "0134"]
        assert isinstance(answers[2], HandlerError)
        unread = await pump.inject("failing", Ask("last"), thread_id=thread)
        go.set()
        await pump.wait_idle()
        assert unread == thread and await pump.wait(thread) == Reply("last")
