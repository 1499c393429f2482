"""`xml_pipeline.message_bus.budget`: the record of one budget, its thresholds, and its error."""

from __future__ import annotations

import copy
import pickle

import pytest

from xml_pipeline.errors import BudgetExhausted, PipelineError
from xml_pipeline.message_bus.budget import (
    DEFAULT_WARNING_THRESHOLDS,
    BudgetExhaustedError,
    BudgetThresholdCrossed,
    ThreadBudget,
)
from xml_pipeline.message_bus.message_state import SystemError

NO_NUMBERS = [True, 1.0, "1", None]


def test_a_new_budget_is_unused() -> None:
    budget = ThreadBudget(1000)
    assert (budget.prompt_tokens, budget.completion_tokens, budget.request_count) == (0, 0, 0)
    assert (budget.total_tokens, budget.remaining, budget.available, budget.reserved) == (0, 1000, 1000, 0)
    assert not budget.is_exhausted
    assert budget.percent_used == 0.0
    assert budget.triggered_thresholds == set()


def test_consuming_adds_up_and_counts_calls() -> None:
    budget = ThreadBudget(1000)
    budget.consume(300, 200)
    budget.consume(prompt_tokens=100)
    budget.consume(completion_tokens=50)
    assert (budget.prompt_tokens, budget.completion_tokens, budget.total_tokens) == (400, 250, 650)
    assert budget.request_count == 3
    assert budget.remaining == 350
    assert budget.percent_used == 65.0


def test_remaining_is_never_negative() -> None:
    budget = ThreadBudget(100)
    budget.consume(150)
    assert budget.remaining == budget.available == 0
    assert budget.total_tokens == 150
    assert budget.percent_used == 150.0


@pytest.mark.parametrize(("tokens", "fits"), [(499, True), (500, True), (501, False)])
def test_what_fits_in_exactly_may_be_consumed(tokens: int, fits: bool) -> None:
    budget = ThreadBudget(1000)
    budget.consume(300, 200)
    assert budget.can_consume(tokens) is fits


def test_what_is_reserved_does_not_fit_in_again() -> None:
    budget = ThreadBudget(1000, prompt_tokens=400, reserved=500)
    assert budget.remaining == 600
    assert budget.available == 100
    assert budget.can_consume(100)
    assert not budget.can_consume(101)
    assert not budget.is_exhausted


def test_it_is_exhausted_at_equality() -> None:
    assert not ThreadBudget(100, prompt_tokens=99).is_exhausted
    assert ThreadBudget(100, prompt_tokens=99, completion_tokens=1).is_exhausted
    assert ThreadBudget(0).is_exhausted


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    budget = ThreadBudget(100)
    with pytest.raises(TypeError, match="max_tokens must be a whole number"):
        ThreadBudget(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="prompt_tokens must be a whole number"):
        budget.consume(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="completion_tokens must be a whole number"):
        budget.consume(1, value)  # type: ignore[arg-type]
    assert budget == ThreadBudget(100)


def test_negative_numbers_are_refused_and_change_nothing() -> None:
    budget = ThreadBudget(100)
    for numbers in ((-1, 0), (5, -1)):
        with pytest.raises(ValueError, match="negative"):
            budget.consume(*numbers)
    with pytest.raises(ValueError, match="max_tokens"):
        ThreadBudget(-1)
    assert budget == ThreadBudget(100)


# -- thresholds


def test_thresholds_have_their_severities() -> None:
    assert DEFAULT_WARNING_THRESHOLDS == {75: "warning", 90: "critical", 95: "final"}
    with pytest.raises(TypeError):
        DEFAULT_WARNING_THRESHOLDS[10] = "x"  # type: ignore[index]


def test_each_threshold_is_told_once_with_exact_figures() -> None:
    budget = ThreadBudget(1000)
    budget.consume(749)
    assert budget.check_thresholds() == []
    budget.consume(1)
    assert budget.check_thresholds() == [BudgetThresholdCrossed(75, "warning", 75.0, 750, 250, 1000)]
    assert budget.check_thresholds() == []
    assert budget.triggered_thresholds == {75}
    budget.consume(150)
    assert [c.threshold_percent for c in budget.check_thresholds()] == [90]
    budget.consume(50)
    assert budget.check_thresholds() == [BudgetThresholdCrossed(95, "final", 95.0, 950, 50, 1000)]
    budget.consume(500)
    assert budget.check_thresholds() == []


def test_several_thresholds_at_once_come_lowest_first() -> None:
    budget = ThreadBudget(1000)
    budget.consume(2000)
    crossed = budget.check_thresholds()
    assert [c.severity for c in crossed] == ["warning", "critical", "final"]
    assert {(c.percent_used, c.tokens_used, c.tokens_remaining) for c in crossed} == {(200.0, 2000, 0)}


def test_thresholds_of_ones_own() -> None:
    budget = ThreadBudget(10)
    budget.consume(5)
    assert [c.severity for c in budget.check_thresholds({50: "half", 20: "fifth", 60: "more"})] == ["fifth", "half"]


def test_what_is_reserved_reaches_no_threshold() -> None:
    assert ThreadBudget(100, reserved=100).check_thresholds() == []


@pytest.mark.parametrize("most", [3, 7, 49, 1_000_003])
def test_a_threshold_is_reached_neither_early_nor_late(most: int) -> None:
    """By whole numbers: the least ``used`` with used / most >= 75 / 100."""
    first = -(-75 * most // 100)
    before, at = ThreadBudget(most, prompt_tokens=first - 1), ThreadBudget(most, prompt_tokens=first)
    assert 75 not in [c.threshold_percent for c in before.check_thresholds()]
    assert at.check_thresholds()[0].threshold_percent == 75


def test_a_budget_of_nothing_has_no_part_used() -> None:
    budget = ThreadBudget(0)
    budget.consume(5)
    assert budget.percent_used == 0.0
    assert budget.check_thresholds() == []


def test_reset_forgets_use_and_thresholds_but_not_what_is_reserved() -> None:
    budget = ThreadBudget(100, reserved=20)
    budget.consume(60, 30)
    budget.check_thresholds()
    budget.reset()
    assert budget == ThreadBudget(100, reserved=20)


def test_usage() -> None:
    budget = ThreadBudget(1000)
    budget.consume(300, 200)
    assert budget.usage() == {
        "prompt_tokens": 300,
        "completion_tokens": 200,
        "total_tokens": 500,
        "remaining": 500,
        "max_tokens": 1000,
        "request_count": 1,
    }


# -- the error


def test_the_error_tells_its_caller_and_nobody_else() -> None:
    error = BudgetExhaustedError("t-1", 950, 1000, reserved=30, requested=40)
    assert isinstance(error, BudgetExhausted)
    assert (error.thread_id, error.used, error.max_tokens) == ("t-1", 950, 1000)
    assert str(error) == error.detail
    assert "budget exhausted" in str(error)
    for figure in ("t-1", "950", "1,000", "30", "40"):
        assert figure in str(error)
    told = SystemError.of(error)
    assert told == SystemError.of(BudgetExhausted())
    assert told == SystemError("budget", "The budget of the conversation is exhausted.", False)


def test_the_error_needs_no_more_than_its_three_numbers() -> None:
    text = str(BudgetExhaustedError("t", 1, 2))
    assert text == "budget exhausted: thread t has used 1 of 2 tokens"


@pytest.mark.parametrize("twin", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_error_survives_being_copied(twin) -> None:
    error = twin(BudgetExhaustedError("t", 1, 2, reserved=3, requested=4))
    assert str(error) == str(BudgetExhaustedError("t", 1, 2, reserved=3, requested=4))
    assert (error.reserved, error.requested, error.code, error.step) == (3, 4, "budget", "budget")


def test_it_is_in_the_tree_of_errors() -> None:
    assert issubclass(BudgetExhaustedError, PipelineError)
    assert not BudgetExhaustedError("t", 1, 2).retry_allowed
