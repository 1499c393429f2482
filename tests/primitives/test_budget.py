"""`BudgetWarning`: what it says, and who gets it, through a running pump."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.message_bus.helpers import PATIENCE, Ask, Reply, audited
from third_party.xmlable import codec_of
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import NoAnswer
from xml_pipeline.message_bus.budget_registry import BudgetThresholdCrossed, ThreadBudget, get_budget_registry
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.message_bus.notices import Notices
from xml_pipeline.primitives import BudgetWarning, warn_of_budget
from xml_pipeline.runtime import Runtime, use_runtime


def crossed(used: int, most: int = 100_000) -> list[BudgetThresholdCrossed]:
    return ThreadBudget(most, used).check_thresholds()


def test_a_warning_has_the_figures_and_says_them() -> None:
    assert BudgetWarning.of(crossed(80_000)[0]) == BudgetWarning(
        80.0,
        80_000,
        20_000,
        100_000,
        "warning",
        "80 percent of the token budget of this conversation is used: 80,000 of 100,000 tokens, 20,000 are left. "
        "Plan what is still to be done, and keep model calls short.",
    )


def test_each_severity_has_its_advice() -> None:
    texts = {each.severity: BudgetWarning.of(each).message for each in crossed(100_000)}
    assert list(texts) == ["warning", "critical", "final"]
    assert len({text.partition("left. ")[2] for text in texts.values()}) == 3
    assert "Answer now" in texts["final"]
    (mine,) = ThreadBudget(10, 5).check_thresholds({50: "mine"})
    assert BudgetWarning.of(mine).message.endswith("5 are left.")


def test_it_has_an_xml_form() -> None:
    codec = codec_of(BudgetWarning)
    warning = BudgetWarning.of(crossed(100_001, 120_001)[0])
    assert codec.decode_text(codec.encode(warning)) == warning
    assert "<PercentUsed>" in codec.encode(warning)


class Spender:
    """An agent that uses tokens as it is told, and keeps what it gets."""

    def __init__(self, *amounts: int) -> None:
        self.amounts = list(amounts)
        self.seen: list[tuple[Any, HandlerMetadata]] = []

    async def __call__(self, payload: Any, metadata: HandlerMetadata) -> Any:
        self.seen.append((payload, metadata))
        if self.amounts:
            _, reached = get_budget_registry().consume(metadata.thread_id, self.amounts.pop(0))
            warn_of_budget(metadata.thread_id, reached)
        return None

    @property
    def warnings(self) -> list[tuple[str, int]]:
        return [(p.severity, p.tokens_used) for p, _ in self.seen if isinstance(p, BudgetWarning)]


async def test_the_agent_is_warned_once_for_each_threshold_on_its_frame() -> None:
    agent = Spender(700, 60, 200)

    async def turns(payload: Any, metadata: HandlerMetadata) -> Any:
        await agent(payload, metadata)
        if isinstance(payload, BudgetWarning) and payload.severity == "final":
            return HandlerResponse.respond(Reply("enough"))
        return HandlerResponse(Ask("again"), "agent") if isinstance(payload, Ask) and agent.amounts else None

    pump = StreamPump(max_tokens_per_thread=1000)
    pump.register("agent", turns, Ask, agent=True)
    async with audited(pump):
        assert await pump.request("agent", Ask("go"), timeout=PATIENCE) == Reply("enough")
    assert agent.warnings == [("warning", 760), ("critical", 960), ("final", 960)]
    assert {metadata.thread_id for _, metadata in agent.seen} == {agent.seen[0][1].thread_id}
    assert {metadata.from_id for p, metadata in agent.seen if isinstance(p, BudgetWarning)} == {"system.budget"}


async def test_several_thresholds_at_once_come_in_order() -> None:
    agent = Spender(2000)
    pump = StreamPump(max_tokens_per_thread=1000)
    pump.register("agent", agent, Ask, agent=True)
    async with audited(pump):
        with pytest.raises(NoAnswer):
            await pump.request("agent", Ask("go"), timeout=PATIENCE)
    assert agent.warnings == [("warning", 2000), ("critical", 2000), ("final", 2000)]


async def test_the_latest_word_is_the_severest_however_the_thresholds_were_gathered() -> None:
    seen: list[str] = []

    async def agent(payload: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(payload, BudgetWarning):
            seen.append(payload.severity)
            return HandlerResponse.respond(Reply(payload.severity)) if len(seen) == 3 else None
        assert warn_of_budget(metadata.thread_id, reversed(crossed(100_000))) == 3
        return None

    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True)
    async with audited(pump):
        assert await pump.request("agent", Ask("go"), timeout=PATIENCE) == Reply("final")
    assert seen == ["warning", "critical", "final"]


@given(st.lists(st.integers(0, 60), max_size=8), st.randoms(use_true_random=False))
def test_what_is_told_never_becomes_milder(amounts: list[int], chance: Any) -> None:
    told: list[BudgetWarning] = []

    class Post(Notices):
        def post(self, thread_id: str, payload: Any, *, from_id: str) -> bool:
            told.append(payload)
            return True

    budget, runtime = ThreadBudget(100), Runtime()
    runtime.put(Post(), Notices)
    with use_runtime(runtime):
        for amount in amounts:
            budget.consume(amount)
            reached = budget.check_thresholds()
            chance.shuffle(reached)
            assert warn_of_budget("t", reached) == len(reached)
            order = ["warning", "critical", "final"]
            due = [name for name, percent in zip(order, (75, 90, 95), strict=True) if budget.total_tokens >= percent]
            assert [warning.severity for warning in told] == due


async def test_the_agent_below_is_warned_and_not_its_caller() -> None:
    """The budget is the conversation's; the warning is for whose call reached the threshold."""
    boss, worker = Spender(), Spender(800)

    async def calling(payload: Any, metadata: HandlerMetadata) -> Any:
        await boss(payload, metadata)
        if isinstance(payload, Ask):
            return HandlerResponse(payload, "worker", expect_answer=True)
        return HandlerResponse.respond(Reply(type(payload).__name__))

    pump = StreamPump(max_tokens_per_thread=1000)
    pump.register("boss", calling, Ask, agent=True, peers=["worker"])
    pump.register("worker", worker, Ask, agent=True)
    async with audited(pump):
        assert await pump.request("boss", Ask("go"), timeout=PATIENCE) == Reply("SystemError")
    assert worker.warnings == [("warning", 800)]
    assert boss.warnings == []
    assert isinstance(boss.seen[1][0], SystemError)


async def test_a_tool_is_not_warned_unless_it_accepts_it() -> None:
    silent, listening = Spender(800), Spender(800)
    pump = StreamPump(max_tokens_per_thread=1000)
    pump.register("silent", silent, Ask)
    pump.register("listening", listening, (Ask, BudgetWarning))
    async with audited(pump):
        for name in ("silent", "listening"):
            with pytest.raises(NoAnswer):
                await pump.request(name, Ask("go"), timeout=PATIENCE)
    assert silent.warnings == []
    assert listening.warnings == [("warning", 800)]


def test_without_a_pump_nobody_is_warned() -> None:
    with use_runtime(Runtime()):
        assert warn_of_budget("t", crossed(100_000)) == 0
