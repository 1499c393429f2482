from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest

from tests.llm.router_kit import (
    HELLO,
    GatedBackend,
    ManualClock,
    StubBackend,
    answer,
    collect,
    drive,
    make_test_router,
    outcomes,
    settle,
)
from xml_pipeline.llm import (
    BackendError,
    LLMRequest,
    LLMResponse,
    LLMRouter,
    ProviderError,
    RateLimitError,
    RealCallsForbidden,
    RequestRefused,
    ScriptedBackend,
    Tool,
    complete,
    get_router,
    get_usage_tracker,
)
from xml_pipeline.llm.backend import Backend
from xml_pipeline.runtime import Runtime, use_runtime


@pytest.fixture(autouse=True)
def runtime():
    with use_runtime(Runtime()) as runtime:
        yield runtime


@pytest.fixture
def clock():
    return ManualClock()


# -- asking -------------------------------------------------------------------------------------------------------


async def test_a_model_is_asked_and_answers(clock):
    backend = ScriptedBackend(["Good morning"])
    router = make_test_router(clock, backend)
    tools = [Tool("search", "finds", {"type": "object"})]
    response = await router.complete("m", HELLO, temperature=0.1, max_tokens=50, tools=tools)
    assert response.content == "Good morning"
    assert backend.requests == [LLMRequest(HELLO, "m", 0.1, 50, tools)]


async def test_what_the_caller_does_with_its_list_afterwards_does_not_matter(clock):
    backend = GatedBackend()
    router = make_test_router(clock, backend)
    asked: list[LLMRequest] = []
    backend.serves = lambda model: True
    original = backend.complete

    async def remember(request):
        asked.append(request)
        return await original(request)

    backend.complete = remember
    messages = [*HELLO]
    task = asyncio.create_task(router.complete("m", messages))
    await settle()
    messages.append({"role": "user", "content": "and more"})
    backend.gate.set()
    await task
    assert asked[0].messages == HELLO


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"model": ""}, "model must be a name"),
        ({"model": None}, "model must be a name"),
        ({"messages": []}, "messages must not be empty"),
        ({"messages": "hello"}, "messages must be a list, not a str"),
        ({"messages": None}, "messages must be a list, not a NoneType"),
        ({"messages": [{"role": "king", "content": "x"}]}, r"messages\[0\]: role must be one of"),
        ({"messages": [*HELLO, {"role": "user", "content": 7}]}, r"messages\[1\]: content must be a text"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"tools": [{"type": "function"}]}, r"tools\[0\] must be a Tool"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"timeout": True}, "timeout must be"),
        ({"agent_id": 7}, "agent_id must be a text"),
        ({"thread_id": b"x"}, "thread_id must be a text"),
        ({"metadata": [1]}, "metadata must be a mapping"),
    ],
)
async def test_a_wrong_request_is_refused_before_anything_happens(clock, arguments, text):
    backend = StubBackend()
    router = make_test_router(clock, backend)
    with pytest.raises(ValueError, match=text):
        await router.complete(**{"model": "m", "messages": HELLO, **arguments})
    assert backend.calls == 0
    assert router.statistics()[0].active == 0


async def test_tools_that_are_no_json_are_refused(clock):
    parameters: dict = {}
    parameters["self"] = parameters
    with pytest.raises(ValueError, match="JSON"):
        await make_test_router(clock, StubBackend()).complete("m", HELLO, tools=[Tool("t", "d", parameters)])


async def test_a_model_that_nobody_serves(clock):
    router = make_test_router(
        clock, StubBackend(name="one", models=["gpt-4o", "o3"]), StubBackend(name="two", models=["x"])
    )
    with pytest.raises(
        ValueError, match=r"the model 'gpt-40', did you mean 'gpt-4o'\?; there are one \(gpt-4o, o3\), two"
    ):
        await router.complete("gpt-40", HELLO)
    with pytest.raises(ValueError, match="the router has none"):
        await LLMRouter().complete("m", HELLO)


async def test_a_long_list_of_backends_makes_no_long_error(clock):
    models = [f"model-{number}" for number in range(1000)]
    router = make_test_router(clock, *[StubBackend(name=f"b{number}", models=models) for number in range(100)])
    with pytest.raises(ValueError, match="nobody") as caught:
        await router.complete("nobody" * 1000, HELLO)
    assert len(str(caught.value)) < 5000


async def test_only_backends_that_serve_the_model_are_asked(clock):
    first, second = StubBackend(name="first", models=["a"]), StubBackend(name="second", models=["b"])
    router = make_test_router(clock, first, second)
    await router.complete("b", HELLO)
    assert (first.calls, second.calls) == (0, 1)


# -- failures -----------------------------------------------------------------------------------------------------


async def test_failures_are_tried_again_after_growing_delays(clock):
    backend = StubBackend(ProviderError("down", 500), RateLimitError("slow", 5.0), ProviderError("cut"), answer())
    router = make_test_router(clock, backend)
    response = await drive(clock, router.complete("m", HELLO))
    assert response.content == "Hi"
    assert clock.slept == [1.0, 5.0, 4.0]
    assert backend.calls == 4


async def test_after_the_last_attempt_nothing_is_waited_for(clock):
    backend = StubBackend(ProviderError("down", 503))
    router = make_test_router(clock, backend, retries=2)
    with pytest.raises(BackendError, match=r"'m': all attempts failed \(1. stub: .* 2. stub: .* 3. stub: ") as caught:
        await drive(clock, router.complete("m", HELLO))
    assert clock.slept == [1.0, 2.0]
    assert isinstance(caught.value.__cause__, ProviderError)


async def test_failover_asks_the_next_one_at_once(clock):
    first, second = StubBackend(ProviderError("down", 500), name="first"), StubBackend(name="second", priority=2)
    router = make_test_router(clock, first, second)
    await router.complete("m", HELLO)
    await router.complete("m", HELLO)
    assert (first.calls, second.calls) == (2, 2)
    assert clock.slept == []


async def test_a_backend_that_asked_for_rest_is_left_alone_by_all_calls(clock):
    first = StubBackend(RateLimitError("slow", 30.0), answer("from first"), name="first")
    second = StubBackend(answer("from second"), name="second")
    router = make_test_router(clock, first, second)
    assert [(await router.complete("m", HELLO)).content for _ in range(3)] == ["from second"] * 3
    assert first.calls == 1
    assert router.statistics()[0].resting == 30
    clock.advance(30)
    assert (await router.complete("m", HELLO)).content == "from first"


async def test_calls_that_were_waiting_for_a_place_leave_a_backend_that_asked_for_rest(clock):
    first = GatedBackend(RateLimitError("slow", 30.0), name="first", max_concurrent=1)
    second = StubBackend(answer("from second"), name="second", priority=2)
    router = make_test_router(clock, first, second)
    tasks = [asyncio.create_task(router.complete("m", HELLO)) for _ in range(5)]
    await settle()
    assert router.statistics()[0].waiting == 4
    first.gate.set()
    assert [response.content for response in await asyncio.gather(*tasks)] == ["from second"] * 5
    assert first.calls == 1
    assert (router.statistics()[0].active, router.statistics()[0].calls) == (0, 1)


async def test_a_refused_request_is_raised_as_such_and_not_repeated(clock):
    backend = StubBackend(RequestRefused("too long", 400))
    with pytest.raises(RequestRefused, match=r"^too long$"):
        await make_test_router(clock, backend).complete("m", HELLO)
    assert backend.calls == 1


async def test_a_wrong_key_at_one_backend_is_no_reason_to_give_up(clock):
    first, second = StubBackend(RequestRefused("bad key", 401), name="first"), StubBackend(name="second")
    await make_test_router(clock, first, second).complete("m", HELLO)
    assert (first.calls, second.calls) == (1, 1)


async def test_forbidden_real_calls_are_told_and_not_hidden_by_another_backend(clock):
    first, second = StubBackend(RealCallsForbidden("forbidden"), name="first"), StubBackend(name="second")
    with pytest.raises(RealCallsForbidden):
        await make_test_router(clock, first, second).complete("m", HELLO)
    assert second.calls == 0


async def test_a_backend_with_a_defect_harms_only_the_call(clock, caplog):
    caplog.set_level(logging.DEBUG)
    backend = StubBackend(KeyError("sk-very-secret"), "no response", answer())
    router = make_test_router(clock, backend)
    with pytest.raises(BackendError, match="the backend 'stub' raised KeyError") as caught:
        await router.complete("m", HELLO)
    with pytest.raises(BackendError, match="answered with a str"):
        await router.complete("m", HELLO)
    await router.complete("m", HELLO)
    assert "sk-very-secret" not in caplog.text + str(caught.value)
    assert router.statistics()[0].failures == 2
    assert router.statistics()[0].active == 0


# -- time ---------------------------------------------------------------------------------------------------------


async def test_a_call_that_hangs_ends_at_its_deadline(clock):
    backend = GatedBackend()
    router = make_test_router(clock, backend, timeout=50.0)
    with pytest.raises(BackendError, match="'m': no answer within 50 s; it was waiting for 'stub' to answer") as caught:
        await drive(clock, router.complete("m", HELLO))
    assert clock.now == 1050
    assert caught.value.retry_allowed
    assert backend.cancelled == 1
    statistics = router.statistics()[0]
    assert (statistics.active, statistics.failures, statistics.tokens_available) == (0, 1, 1_000_000)


async def test_a_call_that_ran_out_of_time_tells_what_failed_before(clock):
    class Hanging(StubBackend):
        async def complete(self, request):
            await super().complete(request)
            await asyncio.Event().wait()

    router = make_test_router(clock, Hanging(ProviderError("down", 500), answer()))
    with pytest.raises(
        BackendError, match=r"within 120 s; it was waiting for 'stub' to answer \(1\. stub: ProviderError: down\)"
    ) as caught:
        await drive(clock, router.complete("m", HELLO))
    assert isinstance(caught.value.__cause__, ProviderError)


async def test_the_caller_may_have_less_time(clock):
    router = make_test_router(clock, GatedBackend())
    with pytest.raises(BackendError, match=r"within 0\.5 s"):
        await drive(clock, router.complete("m", HELLO, timeout=0.5))
    assert clock.now == 1000.5


async def test_the_deadline_holds_while_waiting_for_a_place(clock):
    backend = GatedBackend(max_concurrent=1)
    router = make_test_router(clock, backend)
    first = asyncio.create_task(router.complete("m", HELLO))
    await settle()
    with pytest.raises(BackendError, match="waiting for a place at 'stub'"):
        await drive(clock, router.complete("m", HELLO, timeout=10))
    assert router.statistics()[0].waiting == 0
    backend.gate.set()
    assert (await first).content == "Hi"


async def test_the_deadline_holds_while_waiting_for_tokens(clock):
    router = make_test_router(clock, StubBackend(answer(completion=12_000), rate_limit_tpm=6000))
    await router.complete("m", HELLO)
    with pytest.raises(BackendError, match="no answer within 30 s; it was waiting for a place"):
        await drive(clock, router.complete("m", HELLO, timeout=30))
    await drive(clock, router.complete("m", HELLO))
    assert clock.now == 1061.0  # owed 6,000 and 100 for this one, at 100 a second


async def test_the_deadline_holds_over_all_attempts(clock):
    backend = StubBackend(ProviderError("down", 500))
    router = make_test_router(clock, backend, retries=50, timeout=20.0)
    with pytest.raises(BackendError, match=r"too short to wait 16\.0 s for 'stub'"):
        await drive(clock, router.complete("m", HELLO))
    assert clock.slept == [1, 2, 4, 8]
    assert clock.now == 1015


async def test_a_delay_beyond_the_deadline_is_not_even_begun(clock):
    router = make_test_router(clock, StubBackend(RateLimitError("slow", 500.0)))
    with pytest.raises(BackendError, match=r"too short to wait 500\.0 s") as caught:
        await router.complete("m", HELLO)
    assert isinstance(caught.value.__cause__, RateLimitError)
    assert clock.now == 1000


# -- limits -------------------------------------------------------------------------------------------------------


async def test_no_more_calls_at_a_time_than_the_backend_bears(clock):
    backend = GatedBackend(max_concurrent=7)
    router = make_test_router(clock, backend)
    tasks = [asyncio.create_task(router.complete("m", HELLO)) for _ in range(50)]
    await settle()
    statistics = router.statistics()[0]
    assert (backend.running, statistics.active, statistics.waiting, statistics.load) == (7, 7, 43, 1.0)
    backend.gate.set()
    await asyncio.gather(*tasks)
    statistics = router.statistics()[0]
    assert backend.most == 7
    assert (statistics.active, statistics.waiting, statistics.calls) == (0, 0, 50)


async def test_the_bucket_is_settled_with_what_was_used(clock):
    backend = StubBackend(
        answer(prompt=300, completion=700), ProviderError("down", 500), answer(), rate_limit_tpm=10_000
    )
    router = make_test_router(clock, backend)
    await router.complete("m", HELLO)
    assert router.statistics()[0].tokens_available == 9000
    await drive(clock, router.complete("m", HELLO))
    # 9,000, what came in the second before the retry, less 15: the failed attempt used nothing
    assert router.statistics()[0].tokens_available == 9000 + 166 - 15


async def test_max_tokens_are_reserved_while_the_call_runs(clock):
    backend = GatedBackend(rate_limit_tpm=10_000)
    router = make_test_router(clock, backend)
    task = asyncio.create_task(router.complete("m", HELLO, max_tokens=4000))
    await settle()
    assert router.statistics()[0].tokens_available == 10_000 - 4100
    backend.gate.set()
    await task
    assert router.statistics()[0].tokens_available == 10_000 - 15


async def test_requests_per_minute_are_limited(clock):
    backend = StubBackend(rate_limit_rpm=2)
    router = make_test_router(clock, backend)
    for _ in range(3):
        await drive(clock, router.complete("m", HELLO))
    assert clock.now == 1030
    assert router.statistics()[0].requests_available == 0


# -- cancellation -------------------------------------------------------------------------------------------------


async def test_a_cancelled_call_leaves_nothing_behind_wherever_it_was(clock):
    backend = GatedBackend(max_concurrent=1)
    resting = StubBackend(RateLimitError("slow", 30.0), name="resting", models=["resting"])
    router = make_test_router(clock, backend, resting)
    tasks = [asyncio.create_task(router.complete(model, HELLO)) for model in ("m", "m", "resting")]
    await settle()
    for task in tasks:
        task.cancel()
    await settle()
    assert all(task.cancelled() for task in tasks)
    assert backend.cancelled == 1
    assert [(each.active, each.waiting) for each in router.statistics()] == [(0, 0), (0, 0)]
    assert [each.tokens_available for each in router.statistics()] == [1_000_000] * 2
    assert clock.next_timer is None
    assert router.statistics()[0].failures == 0
    backend.gate.set()
    assert (await router.complete("m", HELLO)).content == "Hi"


class Message(dict):
    """A message that can be watched."""


@pytest.mark.parametrize("steps", [[answer()], [ProviderError("down", 500), answer()], [ProviderError("down", 500)]])
@pytest.mark.parametrize("streamed", [False, True])
async def test_nothing_of_a_call_is_left_for_the_garbage_collector(clock, steps, streamed):
    class Raising(StubBackend):
        async def complete(self, request):
            step = await super().complete(request)
            if step.content == "fail":
                raise ProviderError("down", 500)
            return step

    steps = [answer("fail") if isinstance(step, ProviderError) else step for step in steps]
    router = make_test_router(clock, Raising(*steps), retries=1)
    messages = [Message(HELLO[0])]
    watched = weakref.ref(messages[0])

    async def call():
        try:
            if streamed:
                await collect(router.stream("m", messages))
            else:
                await router.complete("m", messages)
        except BackendError:
            pass

    gc.collect()
    gc.disable()
    try:
        await drive(clock, call())
        messages.clear()
        assert watched() is None
    finally:
        gc.enable()


# -- the end ------------------------------------------------------------------------------------------------------


async def test_close_ends_what_runs_and_takes_nothing_new(clock):
    backend = GatedBackend(max_concurrent=2)
    router = make_test_router(clock, backend, StubBackend(name="other", models=["x"]))
    tasks = [asyncio.create_task(router.complete("m", HELLO)) for _ in range(5)]
    await settle()
    await router.close()
    assert (backend.closed, backend.running_when_closed, backend.cancelled) == (1, 0, 2)
    results = await outcomes(*tasks)
    assert [(type(result), str(result)) for result in results] == [
        (BackendError, "the router was closed before the model had answered")
    ] * 5
    with pytest.raises(BackendError, match="the router is closed"):
        await router.complete("m", HELLO)
    with pytest.raises(BackendError, match="the router is closed"):
        router.add_backend(StubBackend(name="late"))
    await router.close()
    assert clock.next_timer is None


async def test_drain_waits_for_what_runs_and_for_nothing_else(clock):
    backend = GatedBackend()
    router = make_test_router(clock, backend)
    await router.drain()
    tasks = [asyncio.create_task(router.complete("m", HELLO)) for _ in range(3)]
    await settle()
    drains = [asyncio.create_task(router.drain()) for _ in range(2)]
    tasks[0].cancel()
    await settle()
    assert not any(drain.done() for drain in drains)
    backend.gate.set()
    await asyncio.gather(*tasks[1:], *drains)
    assert clock.next_timer is None
    await router.complete("m", HELLO)  # it is not closed


async def test_drain_does_not_wait_for_a_stream_that_nobody_reads(clock):
    router = make_test_router(clock, StubBackend(answer("one two")))
    stream = router.stream("m", HELLO)
    await anext(stream)
    drain = asyncio.create_task(router.drain())
    await settle()
    clock.advance(119)
    await settle()
    assert not drain.done()
    clock.advance(1)
    await drain
    await stream.aclose()


async def test_a_backend_that_cannot_be_closed_does_not_keep_others_open(clock, caplog):
    class Stuck(StubBackend):
        async def close(self):
            raise OSError("sk-key in it")

    stuck, other = Stuck(name="stuck"), StubBackend(name="other")
    await make_test_router(clock, stuck, other).close()
    assert other.closed == 1
    assert "stuck could not be closed: OSError" in caplog.text
    assert "sk-key" not in caplog.text


# -- backends -----------------------------------------------------------------------------------------------------


def test_backends_are_shown_and_have_names_of_their_own(clock):
    router = make_test_router(clock, first := StubBackend(name="first"))
    router.add_backend(second := StubBackend(name="second"))
    assert router.backends == (first, second)
    with pytest.raises(ValueError, match="there is a backend named 'first'"):
        router.add_backend(StubBackend(name="first"))
    assert repr(router) == "<LLMRouter failover: first, second>"
    assert repr(LLMRouter()) == "<LLMRouter failover: no backends>"


def test_what_is_no_backend_is_refused(clock):
    with pytest.raises(TypeError, match="object is no Backend"):
        make_test_router(clock, object())
    for name, value in (("rate_limit_tpm", 0), ("max_concurrent", 2.5), ("rate_limit_rpm", -1)):
        backend = StubBackend()
        setattr(backend, name, value)
        with pytest.raises(ValueError, match=f"{name} of 'stub'"):
            make_test_router(clock, backend)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"strategy": "x"}, "no strategy 'x'"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"completion_allowance": -1}, "completion_allowance"),
        ({"retry_base_delay": "1"}, "retry_base_delay"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        LLMRouter(**settings)


def test_our_stub_is_a_backend():
    assert isinstance(StubBackend(), Backend)


# -- usage --------------------------------------------------------------------------------------------------------


async def test_usage_is_counted_by_agent_and_tracked(clock):
    events = []
    get_usage_tracker().subscribe(events.append)

    class Slow(StubBackend):
        async def complete(self, request):
            clock.advance(0.25)
            return await super().complete(request)

    router = make_test_router(clock, Slow(ProviderError("down", 500), answer(prompt=100, completion=50)))
    await drive(clock, router.complete("m", HELLO, agent_id="a", thread_id="t", metadata={"org": "o"}))
    await router.complete("m", HELLO, agent_id="b")
    (first, second) = events
    assert (first.thread_id, first.agent_id, first.model, first.provider) == ("t", "a", "m", "stub")
    assert (first.total_tokens, first.latency_ms, dict(first.metadata)) == (150, 250, {"org": "o"})
    assert (second.thread_id, second.agent_id) == (None, "b")
    usage = router.get_agent_usage("a")
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.request_count) == (100, 50, 150, 1)
    assert set(router.get_all_usage()) == {"a", "b"}
    assert router.get_agent_usage("nobody").request_count == 0
    router.reset_agent_usage("a")
    assert set(router.get_all_usage()) == {"b"}
    router.reset_agent_usage()
    assert router.get_all_usage() == {}
    assert get_usage_tracker().get_totals()["request_count"] == 2


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": None},
        {"prompt_tokens": "7"},
        None,
        [1],
        {"prompt_tokens": -5},
    ],
)
async def test_what_a_backend_says_nothing_about_is_estimated_and_not_free(clock, usage):
    events = []
    get_usage_tracker().subscribe(events.append)
    router = make_test_router(clock, StubBackend(LLMResponse("x" * 80, "m", usage, "stop")))
    await router.complete("m", [{"role": "user", "content": "y" * 400}], metadata={"org": "o"})
    assert (events[0].prompt_tokens, events[0].completion_tokens) == (100, 20)
    assert dict(events[0].metadata) == {"org": "o", "estimated": True}


async def test_a_tracker_may_be_given(clock):
    from xml_pipeline.llm import UsageTracker

    tracker = UsageTracker()
    await make_test_router(clock, StubBackend(), tracker=tracker).complete("m", HELLO)
    assert tracker.get_totals()["request_count"] == 1
    assert get_usage_tracker().get_totals()["request_count"] == 0


async def test_agents_beyond_ten_thousand_are_forgotten(clock):
    router = make_test_router(clock, StubBackend(rate_limit_tpm=10**9))
    for number in range(10_005):
        await router.complete("m", HELLO, agent_id=f"a{number}")
    assert len(router.get_all_usage()) == 10_000
    assert router.get_agent_usage("a0").request_count == 0
    assert router.get_agent_usage("a10004").request_count == 1


# -- the current one ----------------------------------------------------------------------------------------------


async def test_every_runtime_has_its_own_router(clock):
    router = get_router()
    assert get_router() is router
    with use_runtime(Runtime()):
        assert get_router() is not router
    router.add_backend(StubBackend(answer("from here")))
    assert (await complete("m", HELLO, agent_id="a")).content == "from here"
    assert router.get_agent_usage("a").request_count == 1
