from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest

from tests.llm.router_kit import HELLO, ManualClock, StubBackend, answer, collect, drive, make_test_router, settle
from xml_pipeline.llm import (
    BackendError,
    LLMChunk,
    MalformedResponse,
    ProviderError,
    RequestRefused,
    ScriptedBackend,
    get_usage_tracker,
)
from xml_pipeline.runtime import Runtime, use_runtime


@pytest.fixture(autouse=True)
def runtime():
    with use_runtime(Runtime()) as runtime:
        yield runtime


@pytest.fixture
def clock():
    return ManualClock()


class Pieces(StubBackend):
    """Streams what it is told; an exception is raised, an event waited for."""

    def __init__(self, *streams, **options):
        super().__init__(**options)
        self.streams = list(streams)
        self.left = 0

    async def stream(self, request):
        steps = self.streams[min(self.calls, len(self.streams) - 1)]
        self.calls += 1
        try:
            for step in steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        finally:
            self.left += 1


LAST = LLMChunk(response=answer("one two", 40, 20))


def state(router):
    figures = router.statistics()[0]
    return figures.active, figures.waiting, 1_000_000 - figures.tokens_available


async def test_the_pieces_come_and_then_the_whole(clock):
    router = make_test_router(clock, ScriptedBackend(["Good morning to you"]))
    chunks = await collect(router.stream("m", HELLO, agent_id="a", thread_id="t"))
    assert "".join(chunk.text for chunk in chunks) == "Good morning to you"
    assert [chunk.response is not None for chunk in chunks] == [False] * 4 + [True]
    assert chunks[-1].response.content == "Good morning to you"
    assert router.get_agent_usage("a").request_count == 1
    assert get_usage_tracker().get_thread_totals("t")["request_count"] == 1


async def test_the_request_says_that_pieces_are_wanted(clock):
    backend = ScriptedBackend(["x"])
    await collect(make_test_router(clock, backend).stream("m", HELLO))
    assert backend.requests[0].stream


async def test_a_failure_before_the_first_piece_is_tried_again(clock):
    backend = Pieces([ProviderError("down", 500)], [LLMChunk(""), ProviderError("cut")], [LLMChunk("one "), LAST])
    router = make_test_router(clock, backend)
    chunks = await drive(clock, collect(router.stream("m", HELLO)))
    assert [chunk.text for chunk in chunks] == ["one ", ""]
    assert clock.slept == [1, 2]
    assert (backend.calls, backend.left) == (3, 3)
    assert state(router)[:2] == (0, 0)


async def test_a_failure_in_the_middle_is_told_and_what_came_is_counted(clock):
    backend = Pieces([LLMChunk("x" * 400), ProviderError("cut")])
    router = make_test_router(clock, backend)
    stream = router.stream("m", HELLO, agent_id="a")
    assert (await anext(stream)).text == "x" * 400
    with pytest.raises(ProviderError, match=r"^cut$"):
        await anext(stream)
    assert backend.calls == 1
    usage = router.get_agent_usage("a")
    assert (usage.prompt_tokens, usage.completion_tokens) == (2, 100)
    assert state(router) == (0, 0, 102)
    assert router.statistics()[0].failures == 1


async def test_a_stream_that_ends_without_its_answer_is_malformed(clock):
    router = make_test_router(clock, Pieces([LLMChunk("one")]), retries=0)
    with pytest.raises(MalformedResponse, match="Malformed stream of 'stub': it ended without an answer"):
        await collect(router.stream("m", HELLO))
    router = make_test_router(clock, Pieces([]), retries=0)
    with pytest.raises(BackendError, match=r"1\. stub: MalformedResponse: Malformed stream"):
        await collect(router.stream("m", HELLO))
    router = make_test_router(clock, Pieces(["text"]))
    with pytest.raises(BackendError, match="streams a str"):
        await collect(router.stream("m", HELLO))


async def test_nothing_is_read_after_the_answer(clock):
    backend = Pieces([LAST, ProviderError("late")])
    router = make_test_router(clock, backend)
    assert await collect(router.stream("m", HELLO)) == [LAST]
    assert backend.left == 1
    assert state(router) == (0, 0, 60)


async def test_a_stream_left_in_the_middle_is_closed_and_costs_what_came(clock):
    backend = Pieces([LLMChunk("x" * 40), LLMChunk("never"), LAST])
    router = make_test_router(clock, backend)
    async with contextlib.aclosing(router.stream("m", HELLO, agent_id="a")) as chunks:
        async for _ in chunks:
            assert state(router) == (1, 0, 100)
            break
    assert backend.left == 1
    assert state(router) == (0, 0, 12)
    assert router.get_agent_usage("a").completion_tokens == 10


async def test_a_stream_that_nobody_reads_costs_nothing(clock):
    router = make_test_router(clock, Pieces([LAST]))
    stream = router.stream("m", HELLO)
    await stream.aclose()
    assert state(router) == (0, 0, 0)


async def test_a_consumer_that_stops_at_the_answer_is_counted_once(clock):
    router = make_test_router(clock, Pieces([LLMChunk("one"), LAST]))
    async with contextlib.aclosing(router.stream("m", HELLO, agent_id="a")) as chunks:
        async for chunk in chunks:
            if chunk.response is not None:
                break
    assert router.get_agent_usage("a").total_tokens == 60
    assert router.get_agent_usage("a").request_count == 1


async def test_a_forgotten_stream_is_closed_by_the_loop(clock):
    backend = Pieces([LLMChunk("one"), LAST])
    router = make_test_router(clock, backend)
    stream = router.stream("m", HELLO)
    await anext(stream)
    del stream
    gc.collect()
    await settle()
    assert (backend.left, state(router)[0]) == (1, 0)


async def test_a_silent_stream_ends_at_the_deadline(clock):
    backend = Pieces([LLMChunk("one"), asyncio.Event(), LAST])
    router = make_test_router(clock, backend)
    with pytest.raises(BackendError, match="no answer within 5 s; it was waiting for 'stub' to answer"):
        await drive(clock, collect(router.stream("m", HELLO, timeout=5)))
    assert (backend.left, state(router)[0]) == (1, 0)


async def test_a_slow_reader_uses_up_the_time_but_is_not_cancelled(clock):
    router = make_test_router(clock, Pieces([LLMChunk("one"), LLMChunk("two"), LAST]))
    stream = router.stream("m", HELLO, timeout=5)
    assert (await anext(stream)).text == "one"
    clock.advance(10)
    await settle()
    with pytest.raises(BackendError, match="within 5 s"):
        await anext(stream)


@pytest.mark.parametrize("before", [[], [LLMChunk("one")]])
async def test_cancelling_the_reader_closes_the_stream(clock, before):
    backend = Pieces([*before, asyncio.Event(), LAST])
    router = make_test_router(clock, backend)
    task = asyncio.create_task(collect(router.stream("m", HELLO)))
    await settle()
    task.cancel()
    await settle()
    assert task.cancelled()
    assert (backend.left, state(router)[0]) == (1, 0)


async def test_close_ends_streams_that_are_read_and_those_that_rest(clock):
    backend = Pieces([LLMChunk("one"), asyncio.Event(), LAST])
    router = make_test_router(clock, backend)
    reading = asyncio.create_task(collect(router.stream("m", HELLO)))
    resting = router.stream("m", HELLO)
    await anext(resting)
    await settle()
    await router.close()
    with pytest.raises(BackendError, match="the router was closed"):
        await reading
    with pytest.raises(BackendError, match="the router was closed"):
        await anext(resting)
    assert (backend.left, state(router)[0]) == (2, 0)


async def test_refusals_and_wrong_requests_are_told_at_the_first_piece(clock):
    router = make_test_router(clock, Pieces([RequestRefused("no", 400)]))
    with pytest.raises(RequestRefused):
        await anext(router.stream("m", HELLO))
    with pytest.raises(ValueError, match="messages must not be empty"):
        await anext(router.stream("m", []))


async def test_a_backend_that_fails_on_being_closed_harms_nobody(clock):
    class Stubborn(Pieces):
        async def stream(self, request):
            try:
                yield LLMChunk("one")
            finally:
                raise OSError("sk-key")

    router = make_test_router(clock, Stubborn())
    stream = router.stream("m", HELLO)
    await anext(stream)
    await stream.aclose()
    assert state(router)[0] == 0
