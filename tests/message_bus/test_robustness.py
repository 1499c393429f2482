"""Whatever a handler does fails its own message only: afterwards the pump serves a hundred more."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys

import pytest

from xml_pipeline.errors import ConversationCancelled, DeadlineExceeded, HandlerError, PipelineError
from xml_pipeline.message_bus.events import AgentStateEvent
from xml_pipeline.message_bus.message_state import HandlerResponse, SystemError
from xml_pipeline.message_bus.stream_pump import StreamPump

from .helpers import read_all
from .pump_kit import Ask, Other, Reply, echo, guard, quiesce, running, until


class OwnBaseException(BaseException):
    pass


def make(handler, *, workers=2, **options):
    """A pump with few workers, so that one that is lost is missed."""
    pump = StreamPump(max_concurrent_handlers=workers)
    pump.register("bad", handler, (Ask, Other), **options)
    pump.register("good", echo, Ask)
    return pump


async def still_serves(pump, *, same=None):
    """A hundred further messages, also to the same listener."""
    answers = await asyncio.gather(*(pump.request("good", Ask(str(number)), timeout=10) for number in range(100)))
    assert answers == [Reply(str(number)) for number in range(100)]
    if same is not None:
        for _number in range(10):
            assert await pump.request("bad", Ask(same), timeout=10) == Reply(same)
    await pump.wait_idle()
    statistics = pump.statistics()
    assert (statistics.running, statistics.waiting, statistics.in_flight) == (0, 0, 0)
    assert sum(statistics.outcomes.values()) == statistics.accepted


async def raises_once(error_factory, *, suspended, workers=2):
    async def bad(payload, metadata):
        if payload.text == "fine":
            return HandlerResponse.respond(Reply("fine"))
        if suspended:
            await asyncio.sleep(0)
        raise error_factory()

    pump = make(bad, workers=workers)
    async with running(pump):
        for _ in range(5):  # more often than there are workers
            with pytest.raises(HandlerError) as caught:
                await pump.request("bad", Ask("bad"), timeout=5)
        await still_serves(pump, same="fine")
    return caught.value


# -- exceptions


@pytest.mark.parametrize("suspended", [False, True], ids=["at once", "after it waited"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError,
        OwnBaseException,
        SystemExit,
        asyncio.CancelledError,
        asyncio.TimeoutError,
        asyncio.InvalidStateError,
        StopIteration,
        StopAsyncIteration,
        GeneratorExit,
        RecursionError,
        MemoryError,
        ConversationCancelled,
        DeadlineExceeded,
        lambda: ExceptionGroup("several", [ValueError(), KeyError()]),
        lambda: BaseExceptionGroup("several", [OwnBaseException()]),
    ],
    ids=lambda error: getattr(error, "__name__", "group"),
)
async def test_whatever_it_raises_is_a_handler_error(error, suspended):
    caught = await raises_once(error, suspended=suspended)
    assert caught.code == "handler"
    assert str(caught) == HandlerError.public_message


async def test_sys_exit():
    async def bad(payload, metadata):
        sys.exit(3)

    pump = make(bad)
    async with running(pump):
        with pytest.raises(HandlerError, match="processed"):
            await pump.request("bad", Ask())
        await still_serves(pump)


async def test_endless_recursion():
    def deeper(number):
        return deeper(number + 1)

    async def bad(payload, metadata):
        deeper(0)

    pump = make(bad)
    async with running(pump):
        with pytest.raises(HandlerError) as caught:
            await pump.request("bad", Ask())
        assert "RecursionError" in caught.value.detail
        await still_serves(pump)


async def test_an_exception_whose_text_cannot_be_made():
    class Unspeakable(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    async def bad(payload, metadata):
        raise Unspeakable

    pump = make(bad)
    async with running(pump):
        with pytest.raises(PipelineError):
            await pump.request("bad", Ask(), timeout=5)
        await still_serves(pump)


class Wordless(Exception):
    """Its text cannot be made."""

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("kind", ["coroutine", "generator"])
async def test_an_exception_without_words_is_told_like_any_other(kind):
    async def coroutine(payload, metadata):
        raise Wordless

    async def generator(payload, metadata):
        yield HandlerResponse.respond(Reply("first"))
        raise Wordless

    events = []
    pump = make(coroutine if kind == "coroutine" else generator)
    pump.subscribe_events(lambda event: events.append(event) if isinstance(event, AgentStateEvent) else None)

    async def agent(payload, metadata):
        if isinstance(payload, SystemError):
            return HandlerResponse.respond(Reply(payload.code))
        return HandlerResponse(Ask(), "bad") if isinstance(payload, Ask) else None

    pump.register("agent", agent, Ask, agent=True, peers=["bad"])
    async with running(pump):
        got = []
        with pytest.raises(HandlerError) as caught:
            await read_all(pump.stream("bad", Ask(), timeout=5), got)
        assert "Wordless" in caught.value.detail
        assert got == ([] if kind == "coroutine" else [Reply("first")])
        assert await pump.request("agent", Ask(), timeout=5) == Reply("handler")
        await pump.inject("bad", Ask())
        await pump.wait_idle()
        assert len(pump.dead_letters) == 1
        await pump.engine.events.flush()
        assert [event.state for event in events if event.agent_name == "bad"][-1] == "error"
        await still_serves(pump)


@pytest.mark.parametrize("kind", ["coroutine", "generator"])
async def test_a_result_that_comes_after_the_time_because_the_loop_was_blocked(kind, monkeypatch):
    """The timer that would have ended the handler could not fire."""
    loop = asyncio.get_running_loop()
    clock, late = loop.time, 0.0

    async def coroutine(payload, metadata):
        nonlocal late
        await asyncio.sleep(0)
        if payload.text == "blocks":
            late += 2  # as ``time.sleep`` would do, without the waiting
        return HandlerResponse.respond(Reply(payload.text))

    async def generator(payload, metadata):
        yield await coroutine(payload, metadata)

    pump = make(coroutine if kind == "coroutine" else generator, timeout=1)
    monkeypatch.setattr(loop, "time", lambda: clock() + late)
    async with running(pump):
        with pytest.raises(DeadlineExceeded):
            await pump.request("bad", Ask("blocks"))
        assert await pump.request("bad", Ask("fine")) == Reply("fine")
        await pump.wait_idle()


async def test_an_exception_in_a_generator_after_some_items():
    async def bad(payload, metadata):
        yield HandlerResponse.respond(Reply("one"))
        yield HandlerResponse.respond(Reply("two"))
        raise ValueError("then it broke")

    pump = make(bad)
    answers = []
    async with running(pump):
        with pytest.raises(HandlerError):
            async for answer in pump.stream("bad", Ask()):
                answers.append(answer.text)  # noqa: PERF401, what came before the error is what counts
        await still_serves(pump)
    assert answers == ["one", "two"]


@pytest.mark.parametrize("error", [ValueError, SystemExit, asyncio.CancelledError, OwnBaseException])
async def test_a_generator_that_raises_when_it_is_closed(error):
    async def bad(payload, metadata):
        try:
            yield HandlerResponse.respond(Reply("one"))
            await asyncio.Event().wait()
        finally:
            raise error

    pump = make(bad, timeout=0.02)
    async with running(pump):
        async with guard(10):
            assert await pump.request("bad", Ask()) == Reply("one")
        await pump.wait_idle()
        await still_serves(pump)


MANY = 20_000
"""Items after which an endless generator ends after all, so that a pump which it stalls does not hang the tests."""


@pytest.mark.parametrize(
    "item",
    [HandlerResponse(Ask("x"), "good"), HandlerResponse.respond(Reply("x")), None],
    ids=["calls", "answers", "nothing"],
)
async def test_a_generator_that_never_waits_and_never_ends(item):
    """The others have their turns, and it can be cancelled."""
    made = 0

    async def bad(payload, metadata):
        nonlocal made
        while made < MANY:
            made += 1
            yield item

    pump = make(bad)
    async with running(pump):
        thread = await pump.inject("bad", Ask())
        await until(lambda: made)
        assert await pump.request("good", Ask("in between")) == Reply("in between")
        assert made < MANY
        assert pump.cancel(thread)
        await pump.wait_idle()
        assert made < MANY
        await still_serves(pump)


async def test_whoever_asks_a_generator_that_never_waits_gives_up_in_time():
    made = 0

    async def bad(payload, metadata):
        nonlocal made
        while made < MANY:
            made += 1
            yield None

    pump = make(bad)
    async with running(pump):
        with pytest.raises(DeadlineExceeded):
            await pump.request("bad", Ask(), timeout=0.001)
        assert made < MANY
        await still_serves(pump)


async def test_a_generator_that_will_not_be_closed():
    async def bad(payload, metadata):
        while True:
            try:
                yield HandlerResponse(Ask(), "nobody")
            except GeneratorExit:
                yield None

    pump = make(bad)
    async with running(pump):
        with pytest.raises(PipelineError):
            await pump.request("bad", Ask(), timeout=5)
        await pump.wait_idle()
        await still_serves(pump)


# -- wrong types


@pytest.mark.parametrize(
    "returned",
    [
        42,
        "text",
        {"a": 1},
        [1, 2],
        [HandlerResponse.respond(Reply()), None],
        Exception("an exception as a value"),
        asyncio.CancelledError(),
        HandlerResponse,
        HandlerResponse(None, "good"),
        HandlerResponse(42, "good"),
        HandlerResponse(Ask, "good"),
        HandlerResponse(Ask(), None),
        HandlerResponse(Ask(), 42),
        HandlerResponse(Ask(), ""),
        HandlerResponse(Ask(), ["good"]),
        HandlerResponse(Ask(text=42), "good"),
        HandlerResponse(Ask("\x00"), "good"),
        HandlerResponse(Ask("\ud800"), "good"),
        HandlerResponse.respond(None),
        HandlerResponse.respond(Reply("\x00")),
        b"",
        b"\xff\xfe",
        b"<unclosed>",
        bytearray(b"no mark-up"),
        memoryview(b"<Reply/>"),
    ],
    ids=lambda value: "memoryview" if isinstance(value, memoryview) else repr(value),
)
async def test_whatever_it_returns(returned):
    async def bad(payload, metadata):
        return returned

    pump = make(bad)
    async with running(pump):
        with pytest.raises(PipelineError):
            await pump.request("bad", Ask(), timeout=5)
        await still_serves(pump)


async def test_a_payload_that_breaks_when_it_writes_itself():
    class Broken:
        def to_xml(self):
            raise OwnBaseException

    async def bad(payload, metadata):
        return HandlerResponse.respond(Broken())

    pump = make(bad)
    async with running(pump):
        with pytest.raises(PipelineError):
            await pump.request("bad", Ask(), timeout=5)
        await still_serves(pump)


async def test_an_awaitable_that_is_no_coroutine():
    class Odd:
        async def __call__(self, payload, metadata):
            return await asyncio.gather(asyncio.sleep(0, HandlerResponse.respond(Reply("x"))))

    pump = make(Odd())
    async with running(pump):
        with_list = await pump.request("bad", Ask())
        assert with_list == Reply("x")
        await still_serves(pump)


# -- its own task


async def test_a_handler_that_cancels_its_own_task_and_waits():
    async def bad(payload, metadata):
        if payload.text == "fine":
            await asyncio.sleep(0)
            return HandlerResponse.respond(Reply("fine"))
        asyncio.current_task().cancel()
        await asyncio.sleep(0)
        return None

    pump = make(bad)
    async with running(pump):
        for _ in range(5):
            with pytest.raises(HandlerError):
                await pump.request("bad", Ask(), timeout=5)
        await still_serves(pump, same="fine")


async def test_a_handler_that_cancels_its_own_task_and_returns():
    """The cancellation, not yet delivered, must not hit the next one."""

    async def bad(payload, metadata):
        if payload.text == "bad":
            asyncio.current_task().cancel()
        else:
            await asyncio.sleep(0)
        return HandlerResponse.respond(Reply(payload.text))

    pump = make(bad, workers=1)
    async with running(pump):
        for _ in range(5):
            await asyncio.gather(pump.request("bad", Ask("bad"), timeout=5), return_exceptions=True)
            assert await pump.request("bad", Ask("fine"), timeout=5) == Reply("fine")
        await still_serves(pump, same="fine")


async def test_a_handler_that_cancels_every_task_it_finds():
    """As careless clean-up code does; the pump, its callers and the loop's other tasks are spared where they can be."""

    async def bad(payload, metadata):
        mine = asyncio.current_task()
        for task in asyncio.all_tasks():
            name = getattr(task.get_coro(), "__qualname__", "")
            if task is not mine and name.endswith("_work"):
                task.cancel()
        return HandlerResponse.respond(Reply("done"))

    pump = make(bad, workers=4)
    async with running(pump):
        await asyncio.gather(*(pump.request("good", Ask()) for _ in range(8)))
        assert await pump.request("bad", Ask()) == Reply("done")
        await quiesce()
        await still_serves(pump)


# -- cancellation and time


async def test_one_that_swallows_its_cancellation_once_and_ends():
    async def bad(payload, metadata):
        if payload.text == "fine":
            return HandlerResponse.respond(Reply("fine"))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return None

    pump = make(bad, timeout=0.02)
    async with running(pump):
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                await pump.request("bad", Ask(), timeout=5)
        await still_serves(pump, same="fine")
        statistics = pump.statistics()
    assert (statistics.late_results, statistics.abandoned_handlers) == (3, 0)


async def test_one_that_swallows_every_cancellation_is_abandoned_counted_and_replaced(monkeypatch):
    monkeypatch.setattr("xml_pipeline.message_bus.worker_pool.GRACE", 0.02)
    release = asyncio.Event()

    async def bad(payload, metadata):
        if payload.text == "fine":
            return HandlerResponse.respond(Reply("fine"))
        for _ in range(2):  # the third one ends it, so that a test that fails does not hang
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
                break
        else:
            await release.wait()
        return HandlerResponse.respond(Reply("far too late"))

    pump = make(bad, timeout=0.02, concurrency=2)
    async with running(pump):
        for _ in range(4):  # twice as many as there are workers
            with pytest.raises(DeadlineExceeded):
                await pump.request("bad", Ask(), timeout=5)
        await until(lambda: pump.statistics().abandoned_handlers >= 4)
        await still_serves(pump, same="fine")
        (mine,) = [each for each in pump.statistics().listeners if each.name == "bad"]
        assert (mine.abandoned, mine.running) == (4, 0)
        release.set()  # they end at last; what they answer is dropped
        await until(lambda: pump.statistics().late_results >= 4)
        await still_serves(pump, same="fine")
        assert len(pump.engine.dispatcher.pool.workers) <= 2


async def test_one_that_is_abandoned_while_its_slots_are_lent_leaves_no_slot_too_many(monkeypatch):
    monkeypatch.setattr("xml_pipeline.message_bus.worker_pool.GRACE", 0.02)
    pump = StreamPump(max_concurrent_handlers=1)
    asked, begun = [], asyncio.Queue()
    release, go = asyncio.Event(), asyncio.Semaphore(0)

    async def bad(payload, metadata):
        asked.append(asyncio.create_task(pump.request("slow", payload, timeout=30)))
        for _ in range(2):  # the third one ends it, so that a test that fails does not hang
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
                break
        else:
            await release.wait()

    async def slow(payload, metadata):
        begun.put_nowait(payload.text)
        await go.acquire()
        return HandlerResponse.respond(Reply(payload.text))

    pump.register("bad", bad, Ask, timeout=0.02)
    pump.register("slow", slow, Ask)
    async with running(pump):
        with pytest.raises(DeadlineExceeded):
            await pump.request("bad", Ask("lent"), timeout=30)
        await until(lambda: pump.statistics().abandoned_handlers)
        asked += [asyncio.create_task(pump.request("slow", Ask(text), timeout=30)) for text in ("1", "2", "3")]
        assert await begun.get() == "lent"
        for text in ("1", "2", "3"):
            if text == "2":
                release.set()  # it ends at last
                await until(lambda: pump.statistics().late_results)
            await quiesce()
            assert begun.empty()  # one runs, and there is one slot
            go.release()
            assert await begun.get() == text
        go.release()
        assert await asyncio.gather(*asked) == [Reply(text) for text in ("lent", "1", "2", "3")]


async def test_a_handler_may_use_timeouts_and_task_groups_of_its_own():
    async def bad(payload, metadata):
        if payload.text == "inner timeout":
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            except TimeoutError:
                return HandlerResponse.respond(Reply("timed out inside"))
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(asyncio.sleep(0, number)) for number in range(3)]
        return HandlerResponse.respond(Reply(str(sum(part.result() for part in parts))))

    pump = make(bad)
    async with running(pump):
        for _ in range(3):
            assert await pump.request("bad", Ask("inner timeout")) == Reply("timed out inside")
            assert await pump.request("bad", Ask("group")) == Reply("3")
        await still_serves(pump)


async def test_a_task_group_that_fails_inside():
    async def boom():
        raise ValueError("in a child")

    async def bad(payload, metadata):
        async with asyncio.TaskGroup() as group:
            group.create_task(boom())
            group.create_task(asyncio.Event().wait())

    pump = make(bad)
    async with running(pump):
        for _ in range(3):
            with pytest.raises(HandlerError):
                await pump.request("bad", Ask(), timeout=5)
        await still_serves(pump)


async def test_the_pumps_deadline_inside_a_task_group_and_a_timeout():
    stopped = []

    async def child():
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(True)

    async def bad(payload, metadata):
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(child())

    pump = make(bad, timeout=0.02)
    async with running(pump):
        with pytest.raises(DeadlineExceeded):
            await pump.request("bad", Ask(), timeout=5)
        await quiesce()
        await still_serves(pump)
    assert stopped == [True]


async def test_wait_for_inside_a_handler_that_is_cancelled_from_outside():
    entered = asyncio.Event()

    async def bad(payload, metadata):
        entered.set()
        await asyncio.wait_for(asyncio.shield(asyncio.get_running_loop().create_future()), 60)

    pump = make(bad)
    async with running(pump):
        thread = await pump.inject("bad", Ask())
        await entered.wait()
        pump.cancel(thread)
        with pytest.raises(ConversationCancelled):
            await pump.wait(thread)
        await still_serves(pump)


async def test_one_cancelled_between_two_awaits_of_a_generator():
    entered = asyncio.Event()
    closed = []

    async def bad(payload, metadata):
        try:
            yield HandlerResponse.respond(Reply("one"))
            entered.set()
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    pump = make(bad)
    async with running(pump):
        thread = await pump.inject("bad", Ask())
        await entered.wait()
        assert pump.cancel(thread)
        await pump.wait_idle()
        await quiesce()
        assert closed == [True]
        await still_serves(pump)


async def test_a_stream_that_is_left_early_stops_its_generator():
    closed = asyncio.Event()

    async def bad(payload, metadata):
        try:
            while True:
                yield HandlerResponse.respond(Reply("more"))
                await asyncio.sleep(0)
        finally:
            closed.set()

    pump = make(bad)
    async with running(pump):
        answers = pump.stream("bad", Ask())
        async for answer in answers:
            assert answer == Reply("more")
            break
        await answers.aclose()
        async with guard(5):
            await closed.wait()
        await still_serves(pump)


# -- what is left in the context


async def test_context_variables_do_not_reach_the_next_call():
    variable = contextvars.ContextVar("variable", default="clean")
    seen = []

    async def bad(payload, metadata):
        seen.append(variable.get())
        variable.set("dirty")
        if payload.text == "wait":
            await asyncio.sleep(0)
            variable.set("dirtier")
        if payload.text == "fail":
            raise ValueError
        return HandlerResponse.respond(Reply())

    pump = make(bad, workers=1)
    async with running(pump):
        for text in ("", "wait", "fail", "wait", ""):
            await asyncio.gather(pump.request("bad", Ask(text)), return_exceptions=True)
        await still_serves(pump)
    assert seen == ["clean"] * 5
    assert variable.get() == "clean"


async def test_context_variables_do_not_reach_generators_either():
    variable = contextvars.ContextVar("variable", default="clean")
    seen = []

    async def bad(payload, metadata):
        seen.append(variable.get())
        variable.set("dirty")
        yield HandlerResponse.respond(Reply())
        seen.append(variable.get())
        await asyncio.sleep(0)
        seen.append(variable.get())

    pump = make(bad, workers=1)
    async with running(pump):
        for _ in range(2):
            await pump.request("bad", Ask())
            await pump.wait_idle()
    assert seen == ["clean", "dirty", "dirty"] * 2


# -- all at once


async def test_bad_and_good_handlers_mixed():
    """Under a mixed load of everything above, the good ones' answers are all right."""

    async def bad(payload, metadata):
        kind = payload.number % 6
        if kind == 0:
            raise OwnBaseException
        if kind == 1:
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        if kind == 2:
            raise asyncio.CancelledError
        if kind == 3:
            return 42
        if kind == 4:
            await asyncio.Event().wait()
        raise SystemExit

    pump = make(bad, workers=8, timeout=0.02)
    async with running(pump):
        results = await asyncio.gather(
            *(pump.request("bad", Other(number), timeout=10) for number in range(60)),
            *(pump.request("good", Ask(str(number)), timeout=10) for number in range(200)),
            return_exceptions=True,
        )
        assert all(isinstance(result, HandlerError | DeadlineExceeded) for result in results[:60])
        assert results[60:] == [Reply(str(number)) for number in range(200)]
        await still_serves(pump)
