"""Budgets through a running pump: whose they are, and when they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.message_bus.helpers import PATIENCE, Ask, Gate, Recorder, Reply, audited, crash, reached
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.config import Limits
from xml_pipeline.errors import ConfigurationError, HandlerError
from xml_pipeline.message_bus import budget_registry
from xml_pipeline.message_bus.budget_registry import (
    BudgetExhaustedError,
    Reservation,
    ThreadBudgetRegistry,
    get_budget_registry,
)
from xml_pipeline.message_bus.dispatch_hook import overridden
from xml_pipeline.message_bus.hooks.budget import Budget


def spend(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
    """Use as many tokens as the message says, and answer how many the conversation has used."""
    budget, _ = get_budget_registry().consume(metadata.thread_id, int(payload.text))
    return HandlerResponse.respond(Reply(str(budget.total_tokens)))


async def test_every_frame_of_a_conversation_draws_on_one_budget() -> None:
    def decide(payload: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(payload, Ask):
            get_budget_registry().consume(metadata.thread_id, 5)
            return [HandlerResponse(Ask("10"), "worker"), HandlerResponse(Ask("10"), "worker")]
        return HandlerResponse.respond(payload) if len(boss.seen) == 3 else None

    boss, worker = Recorder(decide), Recorder(spend)
    pump = StreamPump()
    pump.register("boss", boss, Ask, agent=True, peers=["worker"])
    pump.register("worker", worker, Ask)
    async with audited(pump):
        assert await pump.request("boss", Ask(), timeout=PATIENCE) == Reply("25")
    assert len({metadata.thread_id for metadata in [*boss.metadata, *worker.metadata]}) == 3


async def test_conversations_do_not_share_a_budget() -> None:
    pump = StreamPump()
    pump.register("worker", Recorder(spend), Ask)
    async with audited(pump):
        first, second = await asyncio.gather(
            pump.request("worker", Ask("10"), timeout=PATIENCE), pump.request("worker", Ask("7"), timeout=PATIENCE)
        )
    assert (first, second) == (Reply("10"), Reply("7"))


async def test_a_budget_ends_with_its_conversation_however_that_ends() -> None:
    gate = Gate()

    async def failing(payload: Any, metadata: HandlerMetadata) -> None:
        get_budget_registry().consume(metadata.thread_id, 1)
        await crash(payload, metadata)

    async def hanging(payload: Any, metadata: HandlerMetadata) -> None:
        get_budget_registry().reserve(metadata.thread_id, 10)
        await gate(payload, metadata)

    pump = StreamPump()
    pump.register("good", Recorder(spend), Ask)
    pump.register("bad", failing, Ask)
    pump.register("hanging", hanging, Ask)
    budgets = pump.engine.budgets
    async with audited(pump) as audit:
        for number in range(50):
            await pump.request("good", Ask(str(number)), timeout=PATIENCE)
        with pytest.raises(HandlerError):
            await pump.request("bad", Ask(), timeout=PATIENCE)
        thread = await pump.inject("hanging", Ask())
        await reached(gate.entered)
        assert set(budgets.get_all_usage()) == {thread}
        pump.cancel(thread)
        await audit.idle()
        assert budgets.get_all_usage() == {}


async def test_the_next_turn_of_a_conversation_has_a_fresh_budget() -> None:
    """Within one turn frames share; between turns nothing runs that could overspend."""
    pump = StreamPump()
    pump.register("worker", Recorder(spend), Ask)
    async with audited(pump):
        thread = await pump.inject("worker", Ask("10"))
        assert await pump.wait(thread, timeout=PATIENCE) == Reply("10")
        assert await pump.request("worker", Ask("3"), thread_id=thread, timeout=PATIENCE) == Reply("3")


async def test_the_id_of_a_conversation_is_good_as_long_as_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when its first frame, which has the same id, has answered and what it called runs on."""
    monkeypatch.setattr(budget_registry, "MAX_STRAYS", 1)
    gate = Gate()

    async def boss(payload: Any, metadata: HandlerMetadata) -> Any:
        get_budget_registry().consume(metadata.thread_id, 5)
        return [HandlerResponse(payload, "worker"), HandlerResponse.respond(Reply(metadata.conversation_id))]

    async def worker(payload: Any, metadata: HandlerMetadata) -> None:
        await gate(payload, metadata)
        get_budget_registry().consume(metadata.thread_id, 10)

    pump = StreamPump()
    pump.register("boss", boss, Ask)
    pump.register("worker", worker, Ask)
    budgets = pump.engine.budgets
    async with audited(pump) as audit:
        thread = (await pump.request("boss", Ask(), timeout=PATIENCE)).text
        await reached(gate.entered)
        assert pump.engine.registry.frame(thread) is None
        budgets.consume(thread, 100)
        usage = budgets.get_budget(thread)
        for name in ("stray", "another"):
            budgets.consume(name, 1)
        gate.opened.set()
        await audit.idle()
        assert usage.total_tokens == 115
        assert list(budgets.get_all_usage()) == ["another"]


async def test_ids_of_no_open_conversation_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_registry, "MAX_STRAYS", 2)
    pump = StreamPump()
    pump.register("worker", Recorder(spend), Ask)
    async with audited(pump):
        thread = await pump.inject("worker", Ask("1"))
        await pump.wait(thread, timeout=PATIENCE)
        pump.engine.budgets.consume(thread, 1)  # it is remembered, but over
        for name in ("made up", "made up, too"):
            pump.engine.budgets.consume(name, 1)
    assert list(pump.engine.budgets.get_all_usage()) == ["made up", "made up, too"]


async def test_what_was_reserved_in_a_conversation_that_is_over_settles_harmlessly() -> None:
    kept: list[Reservation] = []

    async def worker(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        kept.append(get_budget_registry().reserve(metadata.thread_id, 10))
        return HandlerResponse.respond(Reply(metadata.thread_id))

    pump = StreamPump(max_tokens_per_thread=10)
    pump.register("worker", worker, Ask)
    async with audited(pump):
        await pump.request("worker", Ask(), timeout=PATIENCE)
        await pump.request("worker", Ask(), timeout=PATIENCE)
        kept[0].settle(10)
        kept[1].release()
    assert pump.engine.budgets.get_all_usage() == {}


async def test_the_limit_is_the_pumps_and_follows_its_configuration() -> None:
    pump, other = StreamPump(max_tokens_per_thread=7), StreamPump()
    assert pump.runtime.get(ThreadBudgetRegistry) is pump.engine.budgets
    assert (pump.engine.budgets.max_tokens_per_thread, other.engine.budgets.max_tokens_per_thread) == (7, 100_000)
    pump.engine.apply(Limits.of(max_tokens_per_thread=9))
    assert pump.engine.budgets.max_tokens_per_thread == 9
    with pytest.raises(ConfigurationError):
        StreamPump(max_tokens_per_thread=0)


async def test_the_program_gives_one_conversation_a_limit_before_it_begins() -> None:
    thread = "3f2b8c1e-6a55-4b0e-9d2a-0c9f2f6c7a11"

    async def worker(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        try:
            get_budget_registry().reserve(metadata.thread_id, 6)
        except BudgetExhaustedError as exc:
            return HandlerResponse.respond(Reply(f"refused, {exc.max_tokens}"))
        return HandlerResponse.respond(Reply("made"))

    pump = StreamPump()
    pump.register("worker", worker, Ask)
    async with audited(pump):
        pump.engine.budgets.set_limit(thread, 5)
        assert await pump.request("worker", Ask(), thread_id=thread, timeout=PATIENCE) == Reply("refused, 5")
        assert await pump.request("worker", Ask(), timeout=PATIENCE) == Reply("made")
    assert pump.engine.budgets.get_all_usage() == {}


def test_messages_pay_nothing_for_budgets() -> None:
    hook = Budget(ThreadBudgetRegistry())
    assert overridden([hook], "before") == []
    assert overridden([hook], "complete") == [hook.complete]
