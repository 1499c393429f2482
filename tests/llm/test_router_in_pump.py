"""The router as handlers of a running pump use it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from tests.llm.router_kit import HELLO, GatedBackend, StubBackend, answer, outcomes, settle
from xml_pipeline import HandlerResponse, StreamPump
from xml_pipeline.errors import BudgetExhausted, ConversationCancelled
from xml_pipeline.llm import LLMResponse, LLMRouter, get_router, get_usage_tracker
from xml_pipeline.message_bus.budget_registry import get_budget_registry
from xml_pipeline.primitives import BudgetWarning


@dataclass
class Ask:
    count: int = 1


@dataclass
class Told:
    answered: int = 0
    refused: int = 0
    used: int = 0


async def many(payload, metadata):
    """So many calls at once."""
    calls = (
        get_router().complete("m", HELLO, thread_id=metadata.thread_id, agent_id=metadata.own_name)
        for _ in range(payload.count)
    )
    results = await outcomes(*calls)
    answered = sum(isinstance(result, LLMResponse) for result in results)
    refused = sum(isinstance(result, BudgetExhausted) for result in results)
    used = get_usage_tracker().get_thread_totals(metadata.conversation_id)["total_tokens"]
    return HandlerResponse.respond(Told(answered, refused, used))


def make_pump(*backends, **options):
    pump = StreamPump(name="test", **options)
    pump.runtime.put(LLMRouter(backends))
    return pump


async def test_a_hundred_calls_of_one_handler_with_a_budget_for_forty():
    backend = StubBackend(answer(prompt=100, completion=150))
    pump = make_pump(backend, max_tokens_per_thread=40 * 250)
    pump.register("asker", many, Ask, agent=True, prompt="p")
    async with pump:
        assert await pump.request("asker", Ask(100)) == Told(40, 60, 40 * 250)
        assert await pump.request("asker", Ask(3)) == Told(3, 0, 750)  # another conversation
    assert backend.calls == 43


async def test_a_hundred_frames_of_one_conversation_with_a_budget_for_forty():
    backend = StubBackend(answer(prompt=100, completion=150))
    pump = make_pump(backend, max_tokens_per_thread=40 * 250, max_concurrent_handlers=200)
    sums = Told()

    async def leader(payload, metadata):
        if isinstance(payload, Ask):
            return [HandlerResponse(Ask(1), "worker") for _ in range(payload.count)]
        sums.answered += payload.answered
        sums.refused += payload.refused
        sums.used = max(sums.used, payload.used)
        return HandlerResponse.respond(sums) if sums.answered + sums.refused == 100 else None

    pump.register("leader", leader, (Ask, Told), agent=True, prompt="p", peers=["worker"])
    pump.register("worker", many, Ask, concurrency=100)
    async with pump:
        assert await pump.request("leader", Ask(100)) == Told(40, 60, 40 * 250)
    assert backend.calls == 40


async def test_cancelling_the_conversation_ends_the_call_and_gives_back_its_reservation():
    backend = GatedBackend()
    pump = make_pump(backend)
    budgets = []
    begun = asyncio.Event()

    async def handler(payload, metadata):
        budgets.append(get_budget_registry().get_budget(metadata.thread_id))
        asyncio.get_running_loop().call_soon(begun.set)
        return await many(payload, metadata)

    pump.register("asker", handler, Ask, agent=True, prompt="p")
    async with pump:
        thread = await pump.inject("asker", Ask(3))
        await begun.wait()
        await settle()
        assert backend.running == 3
        assert budgets[0].reserved == 3 * 1124
        assert pump.cancel(thread)
        with pytest.raises(ConversationCancelled):
            await pump.wait(thread)
        await settle()
        (figures,) = pump.runtime.get(LLMRouter).statistics()
    assert budgets[0].reserved == 0
    assert (backend.cancelled, figures.active, figures.waiting) == (3, 0, 0)


async def test_the_agent_is_warned_on_its_own_frame():
    pump = make_pump(StubBackend(answer(prompt=500, completion=300)), max_tokens_per_thread=1000)
    warnings = []

    async def agent(payload, metadata):
        if isinstance(payload, BudgetWarning):
            warnings.append((metadata.from_id, payload.severity))
            return HandlerResponse.respond(Told(1))
        await get_router().complete("m", HELLO, thread_id=metadata.thread_id, agent_id=metadata.own_name)
        return None

    pump.register("agent", agent, Ask, agent=True, prompt="p")
    async with pump:
        assert await pump.request("agent", Ask()) == Told(1)
    assert warnings == [("system.budget", "warning")]


async def test_two_pumps_share_neither_router_nor_budget_nor_usage():
    pumps = []
    for name in ("one", "two"):
        pump = make_pump(StubBackend(answer(name, prompt=100, completion=100)), max_tokens_per_thread=300)
        pump.register("asker", many, Ask, agent=True, prompt="p")
        pumps.append(pump)
    async with pumps[0], pumps[1]:
        results = await asyncio.gather(*(pump.request("asker", Ask(5)) for pump in pumps))
        totals = [pump.runtime.get(type(get_usage_tracker())).get_totals()["request_count"] for pump in pumps]
    assert results == [Told(2, 3, 400)] * 2
    assert totals == [2, 2]
