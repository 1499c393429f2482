"""One router after another: while calls run at the one before, the limits hold over both."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.llm.router_kit import HELLO, ManualClock, StubBackend, answer, make_test_router, settle
from xml_pipeline.config.llm import LLMConfig
from xml_pipeline.llm import LLMRouter, OpenAICompatibleBackend, get_router
from xml_pipeline.llm.errors import BackendError, RateLimitError
from xml_pipeline.message_bus.budget_registry import configure_budget_registry, get_budget_registry
from xml_pipeline.message_bus.model_calls import ModelCalls
from xml_pipeline.runtime import Runtime, use_runtime


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def call(router: LLMRouter, **options: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(router.complete("m", HELLO, **options))


class Service:
    """What two backends of one name have behind them."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = self.most = self.made = 0

    def backend(self, **options: Any) -> StubBackend:
        service = self

        class Backend(StubBackend):
            async def complete(self, request: Any) -> Any:
                service.running += 1
                service.made += 1
                service.most = max(service.most, service.running)
                try:
                    await service.gate.wait()
                finally:
                    service.running -= 1
                return await super().complete(request)

        return Backend(**options)


async def test_as_many_calls_run_at_both_as_at_one(clock: ManualClock) -> None:
    service = Service()
    old = make_test_router(clock, service.backend(max_concurrent=3))
    calls = [call(old) for _ in range(5)]
    await settle()
    new = make_test_router(clock, service.backend(max_concurrent=3))
    new.take_over(old)
    calls += [call(new) for _ in range(5)]
    await settle()
    assert service.running == 3
    (figures,) = new.statistics()
    assert (figures.active, figures.waiting) == (3, 7)
    service.gate.set()
    await asyncio.gather(*calls)
    assert (service.most, service.made) == (3, 10)


async def test_calls_of_both_wait_in_one_line(clock: ManualClock) -> None:
    service, order = Service(), []
    old = make_test_router(clock, service.backend(max_concurrent=1))
    new = make_test_router(clock, service.backend(max_concurrent=1))
    calls = [call(old), call(old)]
    await settle()
    new.take_over(old)
    calls.append(call(new))
    await settle()
    calls.append(call(old))  # somebody had the old one in hand
    for index, each in enumerate(calls):
        each.add_done_callback(lambda _, index=index: order.append(index))
    service.gate.set()
    await asyncio.gather(*calls)
    assert order == [0, 1, 2, 3]


async def test_tokens_and_requests_that_were_used_stay_used(clock: ManualClock) -> None:
    options = {"rate_limit_tpm": 1000, "rate_limit_rpm": 4}
    old = make_test_router(clock, StubBackend(answer(prompt=300, completion=300), **options))
    await call(old)
    new = make_test_router(clock, StubBackend(answer(prompt=50, completion=50), **options))
    new.take_over(old)
    (figures,) = new.statistics()
    assert (figures.tokens_available, figures.requests_available) == (400, 3)
    await asyncio.gather(*(call(new) for _ in range(3)))
    waiting = call(new)
    await settle()
    assert not waiting.done()
    clock.advance(15)  # a quarter of a minute: one request
    await waiting


async def test_new_limits_hold_for_both_at_once(clock: ManualClock) -> None:
    service = Service()
    old = make_test_router(clock, service.backend(max_concurrent=2))
    new = make_test_router(clock, service.backend(max_concurrent=4))
    calls = [call(old) for _ in range(6)]
    await settle()
    new.take_over(old)
    await settle()
    assert service.running == 4
    newest = make_test_router(clock, service.backend(max_concurrent=1))
    newest.take_over(new)
    calls.append(call(newest))
    service.gate.set()
    await settle()
    service.gate.clear()
    assert all(each.done() for each in calls)
    late = [call(router) for router in (old, new, newest)]
    await settle()
    assert service.running == 1
    service.gate.set()
    await asyncio.gather(*late)


async def test_both_leave_a_service_alone_that_asks_for_it(clock: ManualClock) -> None:
    backends = [
        StubBackend(RateLimitError("later", 50.0), answer("Hi")),
        StubBackend(answer("Hello")),
    ]
    old, new = (make_test_router(clock, backend, retries=0, timeout=100.0) for backend in backends)
    new.take_over(old)
    with pytest.raises(BackendError):
        await old.complete("m", HELLO)
    waiting = call(new)
    await settle()
    assert (new.statistics()[0].resting, backends[1].calls) == (50.0, 0)
    clock.advance(50)
    assert (await waiting).content == "Hello"


@pytest.mark.parametrize(
    ("one", "two", "is_shared"),
    [
        ({"name": "a"}, {"name": "a"}, True),
        ({"name": "a"}, {"name": "b"}, False),
        ({"name": "a", "provider": "ollama"}, {"name": "a"}, False),
        ({"name": "a", "base_url": "http://one.test/v1"}, {"name": "a", "base_url": "http://two.test/v1"}, False),
        ({"name": "a", "api_key": "old"}, {"name": "a", "api_key": "new"}, True),
        ({"name": "a", "priority": 5, "timeout": 5.0}, {"name": "a"}, True),
    ],
)
async def test_which_backends_are_one_service(one: dict[str, Any], two: dict[str, Any], is_shared: bool) -> None:
    base = {"provider": "openai-compatible", "base_url": "http://one.test/v1"}
    routers = []
    for options in (one, two):
        options = {**base, **options}
        routers.append(LLMRouter([OpenAICompatibleBackend(options.pop("provider"), **options)]))
    old, new = routers
    new.take_over(old)
    assert (new._routed[0].limiter is old._routed[0].limiter) == is_shared
    await asyncio.gather(old.close(), new.close())


async def test_a_call_waits_for_tokens_that_calls_at_the_other_have_only_reserved(clock: ManualClock) -> None:
    """And is not refused because of them."""
    with use_runtime(Runtime()):
        configure_budget_registry(1500)
        service = Service()
        old, new = (make_test_router(clock, service.backend(name=name)) for name in ("one", "two"))
        first = call(old, thread_id="t", max_tokens=1300)
        await settle()
        new.take_over(old)
        second = call(new, thread_id="t", max_tokens=1300)
        await settle()
        assert service.running == 1
        assert not second.done()
        service.gate.set()
        await asyncio.gather(first, second)
        usage = get_budget_registry().get_usage("t")
        assert usage is not None
        assert usage["request_count"] == 2


async def test_a_router_with_calls_takes_over_nothing(clock: ManualClock) -> None:
    service = Service()
    old, new = (make_test_router(clock, service.backend()) for _ in range(2))
    running = call(new)
    await settle()
    with pytest.raises(RuntimeError, match="before it has calls"):
        new.take_over(old)
    service.gate.set()
    await running
    await new.close()
    with pytest.raises(BackendError, match="closed"):
        new.take_over(old)


async def test_closing_the_one_before_leaves_the_line_to_the_other(clock: ManualClock) -> None:
    service = Service()
    old, new = (make_test_router(clock, service.backend(max_concurrent=1)) for _ in range(2))
    doomed = [call(old), call(old)]
    await settle()
    new.take_over(old)
    waiting = call(new)
    await settle()
    await old.close()
    for each in doomed:
        with pytest.raises(BackendError):
            await each
    await settle()
    assert service.running == 1
    service.gate.set()
    await waiting
    assert (new.statistics()[0].active, new.statistics()[0].waiting) == (0, 0)


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.one_of(st.integers(1, 4), st.just("call"), st.just("end"), st.just("late")), max_size=30))
def test_however_often_it_is_replaced_no_more_run_than_may(steps: list[Any]) -> None:
    """A number replaces the router by one that lets so many calls run."""

    async def play() -> None:
        clock, service, limit, calls = ManualClock(), Service(), 2, []
        routers = [make_test_router(clock, service.backend(max_concurrent=limit))]
        for step in steps:
            before = service.running
            if isinstance(step, int):
                limit = step
                routers.append(make_test_router(clock, service.backend(max_concurrent=limit)))
                routers[-1].take_over(routers[-2])
            elif step == "end":
                running = [each for each in calls if not each.done()]
                if running:
                    running[0].cancel()
            else:
                calls.append(call(routers[0 if step == "late" else -1]))
            await settle()
            waiting = sum(not each.done() for each in calls)
            assert service.running <= max(limit, before)
            assert service.running >= min(limit, waiting)  # and nobody waits for nothing
        service.gate.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert all(figures.active == figures.waiting == 0 for router in routers for figures in router.statistics())

    asyncio.run(play())


# -- reloads


def models(limit: int = 1, **settings: Any) -> LLMConfig:
    script = [{"text": "Hello."}]
    backend = {"provider": "scripted", "script": script, "repeat": True, "max_concurrent": limit}
    return LLMConfig(backends=[backend], **settings)


def gated(router: LLMRouter, service: Service) -> LLMRouter:
    """Its calls go to ``service``."""
    backend = service.backend()
    for routed in router._routed:
        routed.backend.complete = backend.complete  # type: ignore[method-assign]
    return router


async def test_a_reload_that_changes_the_section_does_not_let_more_calls_run() -> None:
    runtime, service = Runtime(), Service()
    with use_runtime(runtime):
        calls_of = ModelCalls(runtime, models())
        running = [call(gated(get_router(), service))]
        await settle()
        for retries in range(1, 4):
            router = calls_of.prepare(models(retries=retries))
            assert router is not None
            calls_of.swap(gated(router, service))
            running.append(call(get_router()))
            await settle()
            assert service.running == 1
        service.gate.set()
        assert [(await each).content for each in running] == ["Hi"] * 4
        await calls_of.close()


async def test_what_a_section_that_was_gone_for_a_while_left_running_counts() -> None:
    runtime, service = Runtime(), Service()
    with use_runtime(runtime):
        calls_of = ModelCalls(runtime, models())
        first = call(gated(get_router(), service))
        await settle()
        calls_of.swap(None)
        router = calls_of.prepare(models())
        assert router is not None
        calls_of.swap(gated(router, service))
        second = call(get_router())
        await settle()
        assert service.running == 1
        service.gate.set()
        await asyncio.gather(first, second)
        await settle()
        assert not calls_of._retiring
        await calls_of.close()


async def test_what_is_prepared_and_not_put_in_force_changes_nothing() -> None:
    runtime, service = Runtime(), Service()
    with use_runtime(runtime):
        calls_of = ModelCalls(runtime, models())
        running = [call(gated(get_router(), service)) for _ in range(3)]
        assert calls_of.prepare(models(5)) is not None
        await settle()
        assert service.running == 1
        service.gate.set()
        await asyncio.gather(*running)
        await calls_of.close()
