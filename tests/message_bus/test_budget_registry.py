"""`xml_pipeline.message_bus.budget_registry`: reserve, then settle; whose budget it is, and when it ends."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from tests.examples import examples
from xml_pipeline.errors import BudgetExhausted
from xml_pipeline.message_bus import budget_registry
from xml_pipeline.message_bus.budget_registry import (
    BudgetExhaustedError,
    Reservation,
    ThreadBudget,
    ThreadBudgetRegistry,
    configure_budget_registry,
    get_budget_registry,
    reset_budget_registry,
)
from xml_pipeline.runtime import Runtime, use_runtime


@pytest.fixture
def registry() -> ThreadBudgetRegistry:
    return ThreadBudgetRegistry(1000)


# -- limits


def test_the_default_is_a_hundred_thousand() -> None:
    registry = ThreadBudgetRegistry()
    assert registry.max_tokens_per_thread == 100_000
    assert registry.get_budget("t").max_tokens == 100_000


def test_a_new_default_is_for_new_budgets(registry: ThreadBudgetRegistry) -> None:
    old = registry.get_budget("old")
    registry.configure(50)
    assert registry.max_tokens_per_thread == 50
    assert registry.get_budget("old") is old
    assert old.max_tokens == 1000
    assert registry.get_budget("new").max_tokens == 50


def test_a_conversation_may_have_a_limit_of_its_own(registry: ThreadBudgetRegistry) -> None:
    registry.consume("t", 100)
    assert registry.set_limit("t", 150) is registry.get_budget("t")
    with pytest.raises(BudgetExhaustedError):
        registry.reserve("t", 51)
    registry.set_limit("t", 151)
    registry.reserve("t", 51)
    assert registry.get_budget("u").max_tokens == 1000


@pytest.mark.parametrize("value", [True, 1.5, "1", None])
def test_numbers_are_whole(registry: ThreadBudgetRegistry, value: object) -> None:
    for call in (
        lambda: ThreadBudgetRegistry(value),  # type: ignore[arg-type]
        lambda: registry.configure(value),  # type: ignore[arg-type]
        lambda: registry.set_limit("t", value),  # type: ignore[arg-type]
        lambda: registry.reserve("t", value),  # type: ignore[arg-type]
        lambda: registry.check_budget("t", value),  # type: ignore[arg-type]
        lambda: registry.consume("t", value),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="whole number"):
            call()
    assert registry.max_tokens_per_thread == 1000
    assert registry.get_budget("t") == ThreadBudget(1000)


def test_numbers_are_not_negative(registry: ThreadBudgetRegistry) -> None:
    for call in (
        lambda: ThreadBudgetRegistry(-1),
        lambda: registry.configure(-1),
        lambda: registry.set_limit("t", -1),
        lambda: registry.reserve("t", -1),
        lambda: registry.check_budget("t", -1),
        lambda: registry.consume("t", 1, -1),
    ):
        with pytest.raises(ValueError, match="negative"):
            call()
    assert registry.get_budget("t") == ThreadBudget(1000)


@pytest.mark.parametrize("thread_id", [None, 1, b"t"])
def test_a_thread_id_is_a_string(registry: ThreadBudgetRegistry, thread_id: object) -> None:
    with pytest.raises(TypeError, match="thread id"):
        registry.reserve(thread_id, 1)  # type: ignore[arg-type]


# -- checking and consuming


def test_a_check_passes_or_raises_with_the_figures(registry: ThreadBudgetRegistry) -> None:
    assert registry.check_budget("t") is True
    assert registry.check_budget("t", 1000) is True
    registry.consume("t", 600, 300)
    assert registry.check_budget("t", 100) is True
    with pytest.raises(BudgetExhaustedError, match="budget exhausted") as caught:
        registry.check_budget("t", 101)
    assert (caught.value.thread_id, caught.value.used, caught.value.max_tokens) == ("t", 900, 1000)
    registry.consume("t", 100)
    with pytest.raises(BudgetExhausted, match="budget exhausted"):
        registry.check_budget("t")


def test_a_check_reserves_nothing(registry: ThreadBudgetRegistry) -> None:
    registry.check_budget("t", 1000)
    registry.check_budget("t", 1000)
    assert registry.get_budget("t").reserved == 0


def test_consuming_returns_the_budget_and_what_it_reached(registry: ThreadBudgetRegistry) -> None:
    budget, crossed = registry.consume("t", 500, 249)
    assert budget is registry.get_budget("t")
    assert crossed == []
    _, crossed = registry.consume("t", 200)
    assert [(c.threshold_percent, c.severity, c.tokens_used) for c in crossed] == [
        (75, "warning", 949),
        (90, "critical", 949),
    ]
    assert registry.consume("t", 0)[1] == []


def test_consuming_too_much_is_counted_all_the_same(registry: ThreadBudgetRegistry) -> None:
    registry.consume("t", 5000)
    usage = registry.get_usage("t")
    assert usage is not None
    assert (usage["total_tokens"], usage["remaining"]) == (5000, 0)


def test_usage_is_by_conversation_and_asking_makes_no_budget(registry: ThreadBudgetRegistry) -> None:
    assert registry.get_usage("t") is None
    assert not registry.has_budget("t")
    assert registry.get_all_usage() == {}
    registry.consume("t", 1, 2)
    registry.consume("u", 3)
    assert registry.has_budget("t")
    assert registry.get_usage("t") == registry.get_all_usage()["t"]
    assert {key: usage["total_tokens"] for key, usage in registry.get_all_usage().items()} == {"t": 3, "u": 3}


# -- reserving and settling


def test_what_is_reserved_is_not_there_for_others(registry: ThreadBudgetRegistry) -> None:
    first = registry.reserve("t", 600)
    with pytest.raises(BudgetExhaustedError) as caught:
        registry.reserve("t", 401)
    assert (caught.value.used, caught.value.reserved, caught.value.requested) == (0, 600, 401)
    assert registry.get_budget("t").reserved == 600
    second = registry.reserve("t", 400)
    first.release()
    second.settle(10, 20)
    assert registry.get_budget("t").reserved == 0
    assert registry.get_budget("t").total_tokens == 30


def test_settling_counts_what_was_really_used(registry: ThreadBudgetRegistry) -> None:
    reservation = registry.reserve("t", 100)
    assert [c.severity for c in reservation.settle(700, 250)] == ["warning", "critical", "final"]
    budget = registry.get_budget("t")
    assert (budget.prompt_tokens, budget.completion_tokens, budget.request_count, budget.reserved) == (700, 250, 1, 0)


def test_a_reservation_ends_once(registry: ThreadBudgetRegistry) -> None:
    reservation = registry.reserve("t", 100)
    assert reservation.is_open
    reservation.settle(760)
    assert not reservation.is_open
    assert reservation.settle(5) == []
    reservation.release()
    assert registry.get_budget("t") == ThreadBudget(1000, 760, 0, 1, {75})
    other = registry.reserve("t", 100)
    other.release()
    assert other.settle(99) == []
    assert registry.get_budget("t").total_tokens == 760


def test_a_block_that_did_not_settle_gives_back(registry: ThreadBudgetRegistry) -> None:
    with pytest.raises(KeyError), registry.reserve("t", 100) as reservation:
        assert registry.get_budget("t").reserved == 100
        raise KeyError
    assert not reservation.is_open
    assert registry.get_budget("t") == ThreadBudget(1000)
    with registry.reserve("t", 100) as reservation:
        reservation.settle(30, 4)
    assert registry.get_budget("t") == ThreadBudget(1000, 30, 4, 1)


def test_wrong_figures_leave_the_reservation_as_it_is(registry: ThreadBudgetRegistry) -> None:
    reservation = registry.reserve("t", 100)
    with pytest.raises(ValueError, match="negative"):
        reservation.settle(1, -1)
    with pytest.raises(TypeError):
        reservation.settle(True, 1)
    assert reservation.is_open
    assert registry.get_budget("t") == ThreadBudget(1000, reserved=100)


def test_nothing_is_reserved_of_a_budget_that_is_used_up(registry: ThreadBudgetRegistry) -> None:
    registry.consume("t", 1000)
    with pytest.raises(BudgetExhaustedError):
        registry.reserve("t", 0)
    registry.set_limit("u", 0)
    with pytest.raises(BudgetExhaustedError):
        registry.reserve("u", 0)


def test_a_reservation_outlives_its_conversation_harmlessly(registry: ThreadBudgetRegistry) -> None:
    reservation, given_back = registry.reserve("t", 100), registry.reserve("t", 50)
    assert registry.cleanup_thread("t") is not None
    registry.consume("t", 10)  # the conversation's next turn
    reservation.settle(500, 400)
    given_back.release()
    assert registry.get_budget("t") == ThreadBudget(1000, 10, 0, 1)


async def test_of_a_hundred_parallel_calls_a_budget_for_forty_lets_forty_through() -> None:
    registry = ThreadBudgetRegistry(40 * 25)
    made = refused = 0

    async def call(number: int) -> None:
        nonlocal made, refused
        try:
            reservation = registry.reserve("t", 25)
        except BudgetExhausted:
            refused += 1
            return
        with reservation:
            made += 1
            await asyncio.sleep(0)
            reservation.settle(20, 5)

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(call(number))
    assert (made, refused) == (40, 60)
    assert registry.get_budget("t") == ThreadBudget(1000, 800, 200, 40, {75, 90, 95})


def test_reservations_have_a_readable_form(registry: ThreadBudgetRegistry) -> None:
    reservation = registry.reserve("t", 7)
    assert repr(reservation) == "<Reservation of 7 tokens for t>"
    reservation.release()
    assert repr(reservation) == "<Reservation of 7 tokens for t, ended>"
    assert isinstance(reservation, Reservation)


# -- whose budget, and its end


def test_all_frames_of_a_conversation_share_one_budget() -> None:
    frames = {"f1": "c", "f2": "c", "c": "c", "other": "d"}
    registry = ThreadBudgetRegistry(100, conversation_of=frames.get)
    registry.consume("f1", 40)
    registry.reserve("f2", 60)
    with pytest.raises(BudgetExhaustedError) as caught:
        registry.reserve("c", 1)
    assert caught.value.thread_id == "c"
    registry.reserve("other", 100)
    assert set(registry.get_all_usage()) == {"c", "d"}
    assert registry.has_budget("f1")
    assert registry.get_usage("f2") == registry.get_usage("c")
    registry.reset_thread("f1")
    assert registry.get_budget("c") == ThreadBudget(100, reserved=60)
    assert registry.cleanup_thread("f1") == ThreadBudget(100, reserved=60)
    assert not registry.has_budget("c")


def test_reset_keeps_the_limit_and_leaves_the_unknown_alone(registry: ThreadBudgetRegistry) -> None:
    registry.set_limit("t", 7)
    registry.consume("t", 7)
    registry.reset_thread("t")
    assert registry.get_budget("t") == ThreadBudget(7)
    registry.reset_thread("unknown")
    assert not registry.has_budget("unknown")


def test_cleanup_returns_the_budget_once(registry: ThreadBudgetRegistry) -> None:
    registry.consume("t", 5)
    assert registry.cleanup_thread("t") == ThreadBudget(1000, 5, 0, 1)
    assert registry.cleanup_thread("t") is None
    assert not registry.has_budget("t")


def test_clear(registry: ThreadBudgetRegistry) -> None:
    registry.configure(5)
    registry.consume("t", 5)
    registry.clear()
    assert registry.get_all_usage() == {}
    assert registry.max_tokens_per_thread == 5
    registry.reset()
    assert registry.max_tokens_per_thread == 1000


def test_of_ids_without_a_conversation_only_the_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_registry, "MAX_STRAYS", 3)
    known = {"frame": "<c>"}
    registry = ThreadBudgetRegistry(10, conversation_of=known.get)
    registry.consume("frame", 1)
    for name in "abc":
        registry.consume(name, 1)
    registry.consume("a", 1)  # used again
    registry.consume("d", 1)
    assert set(registry.get_all_usage()) == {"<c>", "a", "c", "d"}


def test_a_stray_with_calls_under_way_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_registry, "MAX_STRAYS", 2)
    registry = ThreadBudgetRegistry(10)
    reservations = [registry.reserve(name, 10) for name in "abcd"]
    with pytest.raises(BudgetExhaustedError):
        registry.reserve("a", 1)
    for reservation in reservations:
        reservation.settle(10)
    registry.consume("e", 1)
    assert set(registry.get_all_usage()) == {"a", "e"}


@pytest.mark.parametrize("forget", [ThreadBudgetRegistry.clear, lambda registry: registry.cleanup_thread("a")])
def test_what_was_forgotten_does_not_count_among_the_strays(monkeypatch: pytest.MonkeyPatch, forget) -> None:
    monkeypatch.setattr(budget_registry, "MAX_STRAYS", 2)
    registry = ThreadBudgetRegistry(10)
    registry.consume("a", 1)
    forget(registry)
    for name in "bcd":
        registry.consume(name, 1)
    assert set(registry.get_all_usage()) == {"c", "d"}


def test_a_limit_may_be_set_before_the_conversation_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_registry, "MAX_STRAYS", 1)
    known: dict[str, str] = {}
    registry = ThreadBudgetRegistry(10, conversation_of=known.get)
    registry.set_limit("c", 77)
    known.update({"c": "c", "frame": "c"})
    assert registry.get_budget("frame").max_tokens == 77
    registry.consume("stray", 1)
    registry.consume("another", 1)
    assert registry.get_budget("c").max_tokens == 77
    assert set(registry.get_all_usage()) == {"c", "another"}


# -- accessors


def test_each_runtime_has_its_own() -> None:
    one, two = Runtime("one"), Runtime("two")
    with use_runtime(one):
        configure_budget_registry(5)
        first = get_budget_registry()
        assert first.get_budget("t").max_tokens == 5
    with use_runtime(two):
        assert get_budget_registry() is not first
        assert not get_budget_registry().has_budget("t")
        assert get_budget_registry().max_tokens_per_thread == 100_000
    with use_runtime(one):
        assert configure_budget_registry(6) is get_budget_registry() is first


def test_reset_goes_back_to_the_beginning_in_place() -> None:
    """In place: the pump, too, holds the registry."""
    with use_runtime(Runtime()) as runtime:
        runtime.put(ThreadBudgetRegistry(30, conversation_of={"f": "c"}.get))
        registry = configure_budget_registry(5)
        registry.consume("f", 5)
        reset_budget_registry()
        assert get_budget_registry() is registry
        assert registry.get_all_usage() == {}
        assert registry.get_budget("f").max_tokens == 30
        assert registry.has_budget("c")


# -- against a model

TOKENS = st.integers(min_value=0, max_value=120)
FRAMES = {"f1": "c1", "f2": "c1", "c1": "c1", "f3": "c2"}
IDS = st.sampled_from([*FRAMES, "stray"])


class Budgets(RuleBasedStateMachine):
    """Used, reserved and limit of every key, as plain numbers."""

    reservations: Bundle[tuple[Reservation, str]] = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.registry = ThreadBudgetRegistry(100, conversation_of=FRAMES.get)
        self.default = 100
        self.limit: dict[str, int] = {}
        self.used: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.told: dict[str, set[int]] = {}
        self.held: dict[str, dict[int, int]] = {}

    @initialize()
    def begin(self) -> None:
        assert self.registry.get_all_usage() == {}

    def touch(self, thread_id: str) -> str:
        key = FRAMES.get(thread_id, thread_id)
        if key not in self.limit:
            self.limit[key], self.used[key], self.calls[key] = self.default, 0, 0
            self.told[key], self.held[key] = set(), {}
        return key

    def spend(self, key: str, tokens: int) -> list[int]:
        self.used[key] += tokens
        self.calls[key] += 1
        most = self.limit[key]
        new = [p for p in (75, 90, 95) if most and self.used[key] * 100 >= p * most and p not in self.told[key]]
        self.told[key].update(new)
        return new

    @rule(target=reservations, thread_id=IDS, tokens=TOKENS)
    def reserve(self, thread_id: str, tokens: int) -> object:
        key = self.touch(thread_id)
        taken = self.used[key] + sum(self.held[key].values())
        if self.used[key] >= self.limit[key] or taken + tokens > self.limit[key]:
            with pytest.raises(BudgetExhaustedError) as caught:
                self.registry.reserve(thread_id, tokens)
            assert (caught.value.used, caught.value.max_tokens) == (self.used[key], self.limit[key])
            with pytest.raises(BudgetExhaustedError):
                self.registry.check_budget(thread_id, tokens)
            return multiple()
        assert self.registry.check_budget(thread_id, tokens)
        reservation = self.registry.reserve(thread_id, tokens)
        self.held[key][id(reservation)] = tokens
        return reservation, key

    @rule(pair=reservations, prompt=TOKENS, completion=TOKENS)
    def settle(self, pair: tuple[Reservation, str], prompt: int, completion: int) -> None:
        reservation, key = pair
        crossed = [each.threshold_percent for each in reservation.settle(prompt, completion)]
        if self.held.get(key, {}).pop(id(reservation), None) is not None:
            assert crossed == self.spend(key, prompt + completion)
        assert not reservation.is_open

    @rule(pair=reservations)
    def release(self, pair: tuple[Reservation, str]) -> None:
        reservation, key = pair
        reservation.release()
        self.held.get(key, {}).pop(id(reservation), None)

    @rule(thread_id=IDS, prompt=TOKENS, completion=TOKENS)
    def consume(self, thread_id: str, prompt: int, completion: int) -> None:
        key = self.touch(thread_id)
        budget, crossed = self.registry.consume(thread_id, prompt, completion)
        assert [each.threshold_percent for each in crossed] == self.spend(key, prompt + completion)
        assert budget is self.registry.get_budget(key)

    @rule(thread_id=IDS, most=TOKENS)
    def set_limit(self, thread_id: str, most: int) -> None:
        self.limit[self.touch(thread_id)] = most
        self.registry.set_limit(thread_id, most)

    @rule(most=TOKENS)
    def configure(self, most: int) -> None:
        self.default = most
        self.registry.configure(most)

    @rule(thread_id=IDS)
    def reset_thread(self, thread_id: str) -> None:
        key = FRAMES.get(thread_id, thread_id)
        self.registry.reset_thread(thread_id)
        if key in self.limit:
            self.used[key] = self.calls[key] = 0
            self.told[key].clear()

    @rule(thread_id=IDS)
    def cleanup(self, thread_id: str) -> None:
        key = FRAMES.get(thread_id, thread_id)
        budget = self.registry.cleanup_thread(thread_id)
        assert (budget is None) == (key not in self.limit)
        for numbers in (self.limit, self.used, self.calls, self.told, self.held):
            numbers.pop(key, None)  # type: ignore[attr-defined]

    @invariant()
    def the_sums_are_exact(self) -> None:
        usage = self.registry.get_all_usage()
        assert {key: each["total_tokens"] for key, each in usage.items()} == self.used
        assert {key: each["max_tokens"] for key, each in usage.items()} == self.limit
        assert {key: each["request_count"] for key, each in usage.items()} == self.calls
        for key in usage:
            assert self.registry.get_budget(key).reserved == sum(self.held[key].values())


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(max_examples=examples(40), deadline=None)
