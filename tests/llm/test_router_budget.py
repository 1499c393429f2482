from __future__ import annotations

import asyncio
import contextlib
import random
from types import SimpleNamespace

import pytest

from tests.llm.router_kit import (
    HELLO,
    GatedBackend,
    ManualClock,
    StubBackend,
    answer,
    drive,
    make_test_router,
    outcomes,
    settle,
)
from xml_pipeline.errors import BudgetExhausted
from xml_pipeline.llm import (
    BackendError,
    LLMResponse,
    ProviderError,
    RequestRefused,
    ScriptedBackend,
    get_usage_tracker,
)
from xml_pipeline.message_bus.budget_registry import configure_budget_registry, get_budget_registry
from xml_pipeline.message_bus.thread_registry import get_registry
from xml_pipeline.runtime import Runtime, use_runtime


@pytest.fixture(autouse=True)
def runtime():
    with use_runtime(Runtime()) as runtime:
        yield runtime


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def make(clock, warnings):
    def make(*backends, **options):
        options.setdefault("on_threshold", lambda *told: warnings.append(told))
        return make_test_router(clock, *backends, **options)

    return make


def used(thread="t"):
    usage = get_budget_registry().get_usage(thread)
    return usage["prompt_tokens"], usage["completion_tokens"], usage["request_count"]


def reserved(thread="t"):
    return get_budget_registry().get_budget(thread).reserved


# -- one call -----------------------------------------------------------------------------------------------------


async def test_a_call_is_reserved_before_and_settled_after(make):
    backend = GatedBackend(answer(prompt=100, completion=50))
    task = asyncio.create_task(make(backend).complete("m", HELLO, thread_id="t"))
    await settle()
    assert reserved() == 100 + 1024
    backend.gate.set()
    await task
    assert used() == (100, 50, 1)
    assert reserved() == 0


async def test_an_answer_of_limited_length_reserves_just_that(make):
    backend = GatedBackend()
    task = asyncio.create_task(make(backend).complete("m", HELLO, thread_id="t", max_tokens=300))
    await settle()
    assert reserved() == 400
    backend.gate.set()
    await task


async def test_a_long_request_reserves_a_quarter_of_its_characters(make):
    backend = GatedBackend()
    router = make(backend, completion_allowance=0)
    task = asyncio.create_task(router.complete("m", [{"role": "user", "content": "x" * 4000}], thread_id="t"))
    await settle()
    assert reserved() == 1000
    backend.gate.set()
    await task


async def test_an_exhausted_budget_is_told_before_any_call(make):
    configure_budget_registry(1000)
    get_budget_registry().consume("t", 950)
    backend = StubBackend()
    router = make(backend)
    with pytest.raises(BudgetExhausted):
        await router.complete("m", HELLO, thread_id="t")
    with pytest.raises(BudgetExhausted):
        await anext(router.stream("m", HELLO, thread_id="t"))
    assert backend.calls == 0
    assert used() == (950, 0, 1)
    assert reserved() == 0


async def test_the_last_call_may_use_what_is_left_without_an_allowance(make):
    configure_budget_registry(1000)
    get_budget_registry().consume("t", 900)
    router = make(StubBackend(answer(prompt=60, completion=30)))
    await router.complete("m", HELLO, thread_id="t")
    assert used() == (960, 30, 2)
    with pytest.raises(BudgetExhausted):
        await router.complete("m", HELLO, thread_id="t")


async def test_an_answer_of_limited_length_must_fit_in(make):
    configure_budget_registry(1000)
    router = make(StubBackend())
    with pytest.raises(BudgetExhausted):
        await router.complete("m", HELLO, thread_id="t", max_tokens=901)
    await router.complete("m", HELLO, thread_id="t", max_tokens=900)


@pytest.mark.parametrize("thread_id", [None, ""])
async def test_without_a_thread_nobody_pays(make, thread_id):
    configure_budget_registry(0)
    await make(StubBackend()).complete("m", HELLO, thread_id=thread_id)
    assert get_budget_registry().get_all_usage() == {}


async def test_all_frames_of_a_conversation_share_its_budget(make):
    threads = get_registry()
    conversation = threads.begin("external")
    root = threads.open_root(conversation, "agent")
    frame = threads.open_child(root, SimpleNamespace(name="tool"), "agent")
    assert frame.id != conversation.id
    router = make(StubBackend(answer(prompt=100, completion=50)))
    await router.complete("m", HELLO, thread_id=frame.id, agent_id="agent")
    await router.complete("m", HELLO, thread_id=conversation.id)
    assert get_usage_tracker().get_thread_totals(conversation.id)["total_tokens"] == 300
    assert set(get_budget_registry().get_all_usage()) == {conversation.id}


async def test_several_attempts_are_one_reservation(make, clock):
    configure_budget_registry(400)
    router = make(StubBackend(ProviderError("down", 500), ProviderError("down", 500), answer(prompt=10, completion=5)))
    await drive(clock, router.complete("m", HELLO, thread_id="t"))
    assert used() == (10, 5, 1)
    assert reserved() == 0


@pytest.mark.parametrize("error", [RequestRefused("no", 400), ProviderError("down", 500), ValueError("defect")])
async def test_a_failed_call_gives_everything_back(make, clock, error):
    router = make(StubBackend(error))
    with pytest.raises(BackendError):
        await drive(clock, router.complete("m", HELLO, thread_id="t"))
    assert (used(), reserved()) == ((0, 0, 0), 0)


async def test_a_cancelled_call_gives_everything_back(make):
    task = asyncio.create_task(make(GatedBackend()).complete("m", HELLO, thread_id="t"))
    await settle()
    assert reserved() == 1124
    task.cancel()
    await settle()
    assert (used(), reserved()) == ((0, 0, 0), 0)


async def test_a_call_whose_time_is_up_gives_everything_back(make, clock):
    with pytest.raises(BackendError):
        await drive(clock, make(GatedBackend()).complete("m", HELLO, thread_id="t", timeout=1))
    assert (used(), reserved()) == ((0, 0, 0), 0)


async def test_a_stream_left_in_the_middle_is_charged_for_what_came(make):
    router = make(StubBackend(LLMResponse("word " * 100, "m", {}, "stop")))
    async with contextlib.aclosing(router.stream("m", HELLO, thread_id="t")) as chunks:
        async for _ in chunks:
            break
    assert used() == (2, 1, 1)
    assert reserved() == 0


# -- many calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowance", [400, 1024, 5000])
async def test_a_hundred_parallel_calls_with_a_budget_for_forty(make, allowance):
    """Each uses 100 + 400 tokens, and none says so before."""
    configure_budget_registry(40 * 500)
    backend = GatedBackend(answer(prompt=100, completion=400), max_concurrent=100)
    router = make(backend, completion_allowance=allowance)
    tasks = [asyncio.create_task(router.complete("m", HELLO, thread_id="t", agent_id="a")) for _ in range(100)]
    await settle()
    assert reserved() <= 40 * 500
    backend.gate.set()
    results = await outcomes(*tasks)
    assert [type(result) for result in results[:40]] == [LLMResponse] * 40
    assert all(isinstance(result, BudgetExhausted) for result in results[40:])
    assert backend.calls == 40
    assert used() == (4000, 16_000, 40)
    assert reserved() == 0
    assert router.get_agent_usage("a").total_tokens == get_usage_tracker().get_totals()["total_tokens"] == 20_000
    assert router._accounts._spending._purses == {}


async def test_a_hundred_calls_of_limited_length_are_never_more_than_the_budget_bears(make):
    configure_budget_registry(40 * 500)
    backend = GatedBackend(answer(prompt=100, completion=400), max_concurrent=100)
    router = make(backend)
    tasks = [asyncio.create_task(router.complete("m", HELLO, thread_id="t", max_tokens=400)) for _ in range(100)]
    await settle()
    assert backend.running == 40
    backend.gate.set()
    results = await outcomes(*tasks)
    assert sum(isinstance(result, BudgetExhausted) for result in results) == 60
    assert backend.calls == 40
    assert used() == (4000, 16_000, 40)


async def test_a_hundred_calls_of_a_scripted_model_with_a_budget_for_forty(make):
    request = [{"role": "user", "content": "x" * 400}]
    configure_budget_registry(40 * 110)
    backend = ScriptedBackend(["y" * 40], repeat=True)
    results = await outcomes(*(make(backend).complete("m", request, thread_id="t") for _ in range(100)))
    made = [result for result in results if isinstance(result, LLMResponse)]
    assert len(made) == backend.calls <= 40
    assert all(isinstance(result, BudgetExhausted) for result in results if result not in made)
    assert sum(used()[:2]) == 110 * len(made)


async def test_sums_are_exact_after_failures_refunds_and_cancellations(make, clock):
    """A thousand calls of ten conversations that succeed, fail, are tried again, are cancelled, or run out of time."""
    rng = random.Random(7)
    answered = {}

    class Moody(StubBackend):
        async def complete(self, request):
            conversation = request.messages[0]["content"]
            await clock.sleep(rng.random() * 5)
            mood = rng.random()
            if mood < 0.2:
                raise ProviderError("down", 500)
            if mood < 0.3:
                raise RequestRefused("no", 400)
            response = answer(prompt=rng.randrange(1, 200), completion=rng.randrange(1, 300))
            answered.setdefault(conversation, []).append(response)
            return response

    configure_budget_registry(5_000)
    router = make(Moody(rate_limit_tpm=10**7, max_concurrent=50), timeout=60.0)
    started = clock.time()

    async def call(number):
        name = f"t{number % 10}"
        task = asyncio.create_task(router.complete("m", [{"role": "user", "content": name}], thread_id=name))
        if rng.random() < 0.2:
            with contextlib.suppress(asyncio.CancelledError):
                await clock.sleep(rng.random() * 10)
            task.cancel()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    results = await drive(clock, outcomes_of(call(number) for number in range(1000)))
    assert clock.time() - started <= 60
    kinds = {type(result) for result in results}
    assert {LLMResponse, asyncio.CancelledError, BackendError, RequestRefused} <= kinds
    assert any(issubclass(kind, BudgetExhausted) for kind in kinds)
    returned = {id(result) for result in results}
    for name in (f"t{number}" for number in range(10)):
        counted = [response.usage for response in answered[name] if id(response) in returned]
        assert used(name) == (
            sum(usage["prompt_tokens"] for usage in counted),
            sum(usage["completion_tokens"] for usage in counted),
            len(counted),
        )
        assert reserved(name) == 0
        assert sum(used(name)[:2]) < 5_000 + 500  # the last one ran alone
    figures = router.statistics()[0]
    assert (figures.active, figures.waiting) == (0, 0)
    assert router._accounts._spending._purses == {}
    assert router._calls == set()


async def outcomes_of(work):
    return await outcomes(*work)


async def test_a_call_waits_for_what_others_have_only_reserved(make):
    configure_budget_registry(1200)
    first, second = GatedBackend(name="first", models=["1"]), GatedBackend(name="second", models=["2"])
    router = make(first, second)
    tasks = [asyncio.create_task(router.complete(model, HELLO, thread_id="t")) for model in ("1", "2")]
    await settle()
    assert (first.running, second.running) == (1, 0)
    other = asyncio.create_task(router.complete("2", HELLO, thread_id="another conversation"))
    await settle()
    assert second.running == 1
    first.gate.set()
    await settle()
    assert second.running == 2
    second.gate.set()
    await asyncio.gather(*tasks, other)


async def test_a_call_for_which_there_will_be_no_room_does_not_wait(make):
    configure_budget_registry(1000)
    get_budget_registry().consume("t", 850)
    backend = GatedBackend()
    router = make(backend)
    running = asyncio.create_task(router.complete("m", HELLO, thread_id="t"))
    await settle()
    with pytest.raises(BudgetExhausted):
        await router.complete("m", [{"role": "user", "content": "x" * 604}], thread_id="t")
    backend.gate.set()
    await running


async def test_calls_wait_in_the_order_in_which_they_came(make):
    configure_budget_registry(1200)
    backend = GatedBackend()
    router = make(backend)
    order = []

    async def call(number, characters):
        await router.complete("m", [{"role": "user", "content": "x" * characters}], thread_id="t")
        order.append(number)

    tasks = [asyncio.create_task(call(number, 4 * size)) for number, size in enumerate([150, 900, 120, 100])]
    await settle()
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def test_a_waiting_call_that_is_cancelled_lets_the_next_one_in(make):
    configure_budget_registry(1200)
    backend = GatedBackend()
    router = make(backend)
    tasks = [asyncio.create_task(router.complete("m", HELLO, thread_id="t")) for _ in range(4)]
    await settle()
    assert backend.running == 1
    tasks[1].cancel()
    tasks[2].cancel()
    await settle()
    backend.gate.set()
    results = await outcomes(*tasks)
    assert [type(result) for result in results] == [
        LLMResponse,
        asyncio.CancelledError,
        asyncio.CancelledError,
        LLMResponse,
    ]
    assert router._accounts._spending._purses == {}


async def test_waiting_for_the_budget_has_a_deadline_too(make, clock):
    configure_budget_registry(1200)
    backend = GatedBackend()
    router = make(backend)
    running = asyncio.create_task(router.complete("m", HELLO, thread_id="t"))
    await settle()
    with pytest.raises(BackendError, match="waiting for tokens that other calls of the conversation have reserved"):
        await drive(clock, router.complete("m", HELLO, thread_id="t", timeout=10))
    backend.gate.set()
    await running


@pytest.mark.parametrize("budget", [1300, 1200])
async def test_who_asks_while_reading_a_stream_does_not_wait_for_it(make, budget):
    """There is room for one more call without an allowance; or for none until the stream has ended."""
    configure_budget_registry(budget)
    router = make(StubBackend(answer("one two three", 10, 5)))
    texts = []
    async with contextlib.aclosing(router.stream("m", HELLO, thread_id="t")) as chunks:
        async for _ in chunks:
            try:
                texts.append((await router.complete("m", HELLO, thread_id="t")).content)
            except BudgetExhausted as error:
                texts.append(error.code)
            break
    assert texts == (["one two three"] if budget == 1300 else ["budget"])


async def test_a_stream_that_is_over_and_not_left_yet_confuses_nobody(make):
    configure_budget_registry(1200)
    gated = GatedBackend(models=["gated"])
    router = make(StubBackend(answer("one"), models=["free"], name="free"), gated)
    stream = router.stream("free", HELLO, thread_id="t")
    while (await anext(stream)).response is None:
        pass
    assert router.statistics()[0].active == 0  # what comes after the answer is nobody's business
    first = asyncio.create_task(router.complete("gated", HELLO, thread_id="t"))
    await settle()
    await stream.aclose()
    second = asyncio.create_task(router.complete("gated", HELLO, thread_id="t"))
    await settle()
    assert gated.running == 1  # the second one waits for the first
    gated.gate.set()
    await asyncio.gather(first, second)


# -- thresholds ---------------------------------------------------------------------------------------------------


async def test_every_threshold_is_told_once_with_agent_and_thread(make, warnings):
    configure_budget_registry(1000)
    router = make(StubBackend(answer(prompt=100, completion=100)))
    for _ in range(4):
        await router.complete("m", HELLO, thread_id="t", agent_id="a")
    assert [(crossed.threshold_percent, agent, thread) for crossed, agent, thread in warnings] == [(75, "a", "t")]
    await router.complete("m", HELLO, thread_id="t")
    assert [(crossed.threshold_percent, agent) for crossed, agent, _ in warnings[1:]] == [(90, None), (95, None)]
    assert warnings[0][0].tokens_used == 800


async def test_thresholds_that_one_call_reaches_are_told_lowest_first(make, warnings):
    configure_budget_registry(1000)
    router = make(StubBackend(answer(prompt=900, completion=100)))
    await router.complete("m", HELLO, thread_id="t", agent_id="a")
    assert [crossed.severity for crossed, _, _ in warnings] == ["warning", "critical", "final"]
    assert {crossed.tokens_used for crossed, _, _ in warnings} == {1000}


async def test_a_failing_callback_fails_no_call(make, caplog):
    def fail(*told):
        raise RuntimeError("no post today")

    configure_budget_registry(1000)
    router = make(StubBackend(answer(prompt=800, completion=100)), on_threshold=fail)
    assert (await router.complete("m", HELLO, thread_id="t", agent_id="a")).content == "Hi"
    assert caplog.text.count("could not be delivered") == 2
    assert router.get_agent_usage("a").total_tokens == 900
    assert get_usage_tracker().get_totals()["request_count"] == 1


async def test_by_default_the_agent_gets_a_warning_on_its_thread(clock, runtime):
    from xml_pipeline.message_bus.notices import Notices
    from xml_pipeline.primitives.budget import BudgetWarning

    posted = []

    class Post(Notices):
        def post(self, thread_id, payload, *, from_id):
            posted.append((thread_id, payload, from_id))
            return True

    runtime.put(Post(), Notices)
    configure_budget_registry(1000)
    router = make_test_router(clock, StubBackend(answer(prompt=700, completion=60)))
    await router.complete("m", HELLO, thread_id="t", agent_id="a")
    ((thread_id, payload, from_id),) = posted
    assert (thread_id, from_id) == ("t", "system.budget")
    assert isinstance(payload, BudgetWarning)
    assert (payload.severity, payload.tokens_used) == ("warning", 760)
