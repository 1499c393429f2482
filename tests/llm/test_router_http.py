"""The router over real backends, a real HTTP library, and a real server that misbehaves, in both dialects: each failure
leads to what the documentation says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator

import pytest

from xml_pipeline.errors import BudgetExhausted
from xml_pipeline.llm import (
    BackendError,
    LLMResponse,
    LLMRouter,
    MalformedResponse,
    ProviderError,
    RateLimitError,
    RealCallsForbidden,
    RequestRefused,
    ScriptedBackend,
    forbid_real_calls,
    get_usage_tracker,
)
from xml_pipeline.llm.clock import Clock
from xml_pipeline.message_bus.budget_registry import configure_budget_registry, get_budget_registry
from xml_pipeline.runtime import Runtime, use_runtime

from .bad_server import (
    SSE_HEAD,
    BadServer,
    Behaviour,
    Connection,
    Received,
    cut_before_headers,
    cut_in_body,
    cut_in_headers,
    echo_key,
    events,
    raw,
    respond,
)
from .dialects import BOTH, KEY, Dialect
from .router_kit import HELLO, ManualClock, collect, outcomes, settle


class QuickClock(Clock):
    """Sleeps no longer than it has to, but says that it has."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._skipped = 0.0

    def time(self) -> float:
        return super().time() + self._skipped

    async def sleep(self, delay: float) -> None:
        self.slept.append(delay)
        self._skipped += delay
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def runtime():
    with use_runtime(Runtime()) as runtime:
        yield runtime


@pytest.fixture(params=BOTH, ids=str)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return request.param


@pytest.fixture
def clock() -> QuickClock:
    return QuickClock()


@pytest.fixture
async def router(dialect: Dialect, server: BadServer, clock: QuickClock) -> AsyncIterator[LLMRouter]:
    router = LLMRouter([dialect.backend(server)], clock=clock, random=lambda: 0.5)
    yield router
    await router.close()


def fine(dialect: Dialect, text: str = "Hello") -> Behaviour:
    return respond(200, dialect.answer(text))


def is_at_rest(router: LLMRouter) -> bool:
    return all((each.active, each.waiting) == (0, 0) for each in router.statistics())


PASSING = {
    "429 with seconds": (respond(429, headers={"retry-after": "7"}), [7.0]),
    "429 with a date": (
        respond(429, headers={"date": "Sat, 21 Nov 2026 10:00:00 GMT", "retry-after": "Sat, 21 Nov 2026 10:00:30 GMT"}),
        [30.0],
    ),
    "429 without": (respond(429), [1.0]),
    "500": (respond(500), [1.0]),
    "503 with seconds": (respond(503, headers={"retry-after": "3"}), [3.0]),
    "529": (respond(529), [1.0]),
    "cut before the headers": (cut_before_headers(), [1.0]),
    "cut in the headers": (cut_in_headers(), [1.0]),
    "cut in the body": (cut_in_body(), [1.0]),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.9\r\n"), [1.0]),
    "no JSON": (respond(200, b"<html>"), [1.0]),
    "wrong shape": (respond(200, {"choices": "none", "content": 7}), [1.0]),
}


@pytest.mark.parametrize("failure", PASSING)
async def test_what_may_pass_is_tried_again(server, router, dialect, clock, failure):
    behaviour, delays = PASSING[failure]
    server.will(behaviour, fine(dialect))
    response = await router.complete(dialect.model, HELLO, thread_id="t")
    assert response.content == "Hello"
    assert clock.slept == pytest.approx(delays, abs=0.5)
    assert len(server.received) == 2
    assert get_budget_registry().get_usage("t")["total_tokens"] == 17
    assert router.statistics()[0].failures == 1
    assert is_at_rest(router)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (respond(429, headers={"retry-after": "1"}), RateLimitError),
        (respond(500), ProviderError),
        (cut_in_body(), ProviderError),
        (respond(200, b"<html>"), MalformedResponse),
    ],
)
async def test_what_does_not_pass_is_given_up_after_four_attempts(server, router, dialect, clock, behaviour, kind):
    server.will(behaviour)
    with pytest.raises(BackendError, match="all attempts failed") as caught:
        await router.complete(dialect.model, HELLO, thread_id="t")
    assert isinstance(caught.value.__cause__, kind)
    assert str(caught.value).count(kind.__name__) == 4
    assert caught.value.retry_allowed
    assert len(server.received) == 4
    assert len(clock.slept) == 3
    assert get_budget_registry().get_usage("t")["total_tokens"] == 0
    assert get_budget_registry().get_budget("t").reserved == 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_final(server, router, dialect, status):
    server.will(respond(status))
    with pytest.raises(RequestRefused) as caught:
        await router.complete(dialect.model, HELLO)
    assert caught.value.status_code == status
    assert len(server.received) == 1


@pytest.mark.parametrize(("status", "is_tried_elsewhere"), [(400, False), (401, True), (403, True), (404, True)])
async def test_a_refusal_that_concerns_one_account_is_tried_at_the_next(
    server, dialect, clock, status, is_tried_elsewhere
):
    async with BadServer() as second:
        server.will(respond(status))
        second.will(fine(dialect, "from the second"))
        router = LLMRouter([dialect.backend(server), dialect.backend(second, name="second", priority=2)], clock=clock)
        if is_tried_elsewhere:
            assert (await router.complete(dialect.model, HELLO)).content == "from the second"
        else:
            with pytest.raises(RequestRefused):
                await router.complete(dialect.model, HELLO)
        assert (len(server.received), len(second.received)) == (1, int(is_tried_elsewhere))
        await router.close()


async def test_a_rate_limited_server_is_spared_while_another_is_free(server, dialect, clock):
    async with BadServer() as second:
        server.will(respond(429, headers={"retry-after": "30"}), fine(dialect))
        second.will(fine(dialect, "from the second"))
        router = LLMRouter([dialect.backend(server), dialect.backend(second, name="second", priority=2)], clock=clock)
        texts = [(await router.complete(dialect.model, HELLO)).content for _ in range(3)]
        assert texts == ["from the second"] * 3
        assert (len(server.received), len(second.received), clock.slept) == (1, 3, [])
        await router.close()


class Hanging:
    """Answers with ``before`` and nothing more, and tells when it was asked."""

    def __init__(self, server: BadServer, before: bytes = b"") -> None:
        self._hang = server.hang(before)
        self._asked = asyncio.Semaphore(0)
        server.will(self)

    async def __call__(self, received: Received, connection: Connection) -> None:
        self._asked.release()
        await self._hang(received, connection)

    async def asked(self) -> None:
        await self._asked.acquire()


async def test_a_server_that_hangs_is_left_at_the_deadline(server, dialect):
    clock, hanging = ManualClock(), Hanging(server)
    router = LLMRouter([dialect.backend(server)], clock=clock)
    task = asyncio.create_task(router.complete(dialect.model, HELLO))
    await hanging.asked()
    clock.advance(120)
    with pytest.raises(BackendError, match=r"no answer within 120 s; it was waiting for '.*' to answer"):
        await task
    await server.gone.wait()
    assert is_at_rest(router)
    await router.close()


async def test_a_cancelled_call_leaves_the_server(server, router, dialect):
    hanging = Hanging(server)
    task = asyncio.create_task(router.complete(dialect.model, HELLO))
    await hanging.asked()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await server.gone.wait()
    assert is_at_rest(router)


async def test_closing_the_router_ends_calls_and_leaves_the_server(server, router, dialect):
    hanging = Hanging(server)
    tasks = [asyncio.create_task(router.complete(dialect.model, HELLO)) for _ in range(3)]
    for _ in tasks:
        await hanging.asked()
    await router.close()
    texts = {str(result) for result in await outcomes(*tasks)}
    assert texts == {"the router was closed before the model had answered"}
    await server.gone.wait()


# -- streams ------------------------------------------------------------------------------------------------------


async def test_a_stream_is_tried_again_until_its_first_piece(server, router, dialect, clock):
    server.will(respond(429, headers={"retry-after": "2"}), raw(SSE_HEAD), events(*dialect.stream()))
    chunks = await collect(router.stream(dialect.model, HELLO, thread_id="t"))
    assert [chunk.text for chunk in chunks[:2]] == ["Hel", "lo"]
    assert chunks[-1].response.content == "Hello"
    assert clock.slept == pytest.approx([2.0, 2.0], abs=0.5)
    assert get_budget_registry().get_usage("t")["total_tokens"] == 17


async def test_a_stream_cut_in_the_middle_is_told_and_paid(server, router, dialect):
    server.will(events(*dialect.stream()[:2], dialect.text_event("x" * 400)), fine(dialect))
    stream = router.stream(dialect.model, HELLO, thread_id="t")
    with pytest.raises(ProviderError):
        await collect(stream)
    assert len(server.received) == 1
    assert get_budget_registry().get_usage("t")["completion_tokens"] >= 100
    assert is_at_rest(router)


async def test_a_slow_stream_ends_at_the_deadline(server, dialect):
    clock = ManualClock()
    Hanging(server, SSE_HEAD + b"".join(dialect.stream()[:2]) + dialect.text_event("Hel"))
    router = LLMRouter([dialect.backend(server)], clock=clock)
    stream = router.stream(dialect.model, HELLO)
    first = await anext(stream)
    assert first.text
    clock.advance(119)
    reading = asyncio.create_task(collect(stream))
    await settle()
    clock.advance(1)
    with pytest.raises(BackendError, match="no answer within 120 s"):
        await reading
    await server.gone.wait()
    assert is_at_rest(router)
    await router.close()


async def test_a_stream_left_in_the_middle_leaves_the_server(server, router, dialect):
    server.will(server.hang(SSE_HEAD + b"".join(dialect.stream()[:3]) + dialect.text_event("Hel")))
    async with contextlib.aclosing(router.stream(dialect.model, HELLO)) as chunks:
        async for _ in chunks:
            break
    await server.gone.wait()
    assert is_at_rest(router)


# -- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_the_key_is_in_no_error_log_event_or_repr(server, router, dialect, caplog, status):
    caplog.set_level(logging.DEBUG)
    told: list[object] = []
    get_usage_tracker().subscribe(told.append)
    server.will(echo_key(status, lambda key: {"error": {"message": f"bad key {key}"}, "message": key}))
    with pytest.raises(BackendError) as caught:
        await router.complete(dialect.model, HELLO, agent_id="a")
    server.will(fine(dialect))
    await router.complete(dialect.model, HELLO, agent_id="a")
    shown = [
        caplog.text,
        repr(router),
        repr(router.backends),
        repr(router.statistics()),
        repr(told),
        repr(router._calls),
    ]
    shown += traceback.format_exception(caught.value)
    assert len(told) == 1
    for text in shown:
        assert KEY not in text
        assert KEY[3:-3] not in text


# -- the switch, and many calls -----------------------------------------------------------------------------------


async def test_forbidden_real_calls_reach_no_server_and_are_not_hidden(server, dialect, clock):
    server.will(fine(dialect))
    router = LLMRouter([dialect.backend(server), ScriptedBackend(["x"], priority=2)], clock=clock)
    with forbid_real_calls(), pytest.raises(RealCallsForbidden):
        await router.complete(dialect.model, HELLO)
    assert server.connections == 0
    await router.close()


async def test_a_hundred_parallel_calls_with_a_budget_for_forty(server, dialect, clock):
    """Every third answer is a failure; each that is answered costs 17 tokens, as the server says."""
    requests = 0

    async def moody(received, connection):
        nonlocal requests
        requests += 1
        await (respond(500) if requests % 3 == 0 else fine(dialect))(received, connection)

    server.will(moody)
    configure_budget_registry(40 * 17 + 83)  # what is left for the last one is just what any call must have
    router = LLMRouter([dialect.backend(server)], clock=clock, retries=8, completion_allowance=200)
    work = (router.complete(dialect.model, HELLO, thread_id="t") for _ in range(100))
    results = await outcomes(*work)
    answered = [result for result in results if isinstance(result, LLMResponse)]
    refused = [result for result in results if isinstance(result, BudgetExhausted)]
    assert (len(answered), len(refused)) == (40, 60)
    assert requests == len(answered) + router.statistics()[0].failures
    usage = get_budget_registry().get_usage("t")
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["request_count"]) == (40 * 12, 40 * 5, 40)
    assert get_budget_registry().get_budget("t").reserved == 0
    assert get_usage_tracker().get_thread_totals("t")["total_tokens"] == 40 * 17
    assert is_at_rest(router)
    await router.close()
