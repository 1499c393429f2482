from __future__ import annotations

import itertools
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.llm.router_kit import ManualClock, StubBackend
from xml_pipeline.llm.errors import (
    BackendError,
    MalformedResponse,
    ProviderError,
    RateLimitError,
    RealCallsForbidden,
    RequestRefused,
)
from xml_pipeline.llm.retry import Attempts, RetryPolicy
from xml_pipeline.llm.routed import RoutedBackend
from xml_pipeline.llm.strategy import Strategy

# -- delays -------------------------------------------------------------------------------------------------------


def test_delays_double_up_to_the_longest():
    policy = RetryPolicy(10, 1.0, 10.0, lambda: 0.5)
    assert [policy.delay(failures) for failures in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@given(failures=st.integers(1, 10_000), random=st.floats(0, 1), base=st.floats(0, 1e6), longest=st.floats(0, 1e6))
def test_delays_are_spread_by_a_quarter_and_never_too_long(failures, random, base, longest):
    policy = RetryPolicy(3, base, longest, lambda: random)
    plain = min(base * 2.0 ** min(failures - 1, 60), longest)
    assert 0.75 * plain * (1 - 1e-9) <= policy.delay(failures) <= min(1.25 * plain * (1 + 1e-9), longest)


def test_both_ends_of_the_spread_are_reached():
    assert RetryPolicy(3, 8.0, 60.0, lambda: 0.0).delay(1) == 6.0
    assert RetryPolicy(3, 8.0, 60.0, lambda: 1.0).delay(1) == 10.0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"retries": -1}, "retries"),
        ({"retries": 1.5}, "retries"),
        ({"retries": True}, "retries"),
        ({"base_delay": -1.0}, "retry_base_delay"),
        ({"base_delay": False}, "retry_base_delay"),
        ({"max_delay": float("nan")}, "retry_max_delay"),
        ({"max_delay": float("inf")}, "retry_max_delay"),
        ({"max_delay": "60"}, "retry_max_delay"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, name):
    with pytest.raises(ValueError, match=name):
        RetryPolicy(**settings)


# -- which backend, and when --------------------------------------------------------------------------------------


@pytest.fixture
def clock():
    return ManualClock()


class Plan:
    """Attempts at backends called a, b, c ..."""

    def __init__(self, clock, count=1, strategy=Strategy.FAILOVER, retries=3, priorities=()):
        self.clock = clock
        self.backends = [
            RoutedBackend(StubBackend(name="abcdef"[place], priority=(*priorities, *[1] * count)[place]), place, clock)
            for place in range(count)
        ]
        self.strategy = strategy
        self.policy = RetryPolicy(retries, 1.0, 60.0, lambda: 0.5)
        self.turns = itertools.count(1)
        self.begin()

    def begin(self):
        self.attempts = Attempts("m", self.backends, self.strategy, self.policy, self.clock, self.turns)

    def next(self, left=120.0):
        backend, wait = self.attempts.next(left)
        self.clock.now += wait
        return backend.name, wait

    def fail(self, name, error):
        backend = next(each for each in self.backends if each.name == name)
        self.attempts.failed(backend, backend.failed(error))


def test_one_backend_is_tried_again_after_growing_delays_and_not_after_the_last(clock):
    plan = Plan(clock)
    seen = []
    for _ in range(4):
        seen.append(plan.next())
        plan.fail("a", ProviderError("down", 500))
    assert seen == [("a", 0), ("a", 1), ("a", 2), ("a", 4)]
    with pytest.raises(BackendError) as caught:
        plan.next()
    assert type(caught.value) is BackendError
    assert caught.value.retry_allowed
    assert isinstance(caught.value.__cause__, ProviderError)
    assert str(caught.value).count("ProviderError: down") == 4


def test_without_retries_there_is_one_attempt(clock):
    plan = Plan(clock, retries=0)
    plan.next()
    plan.fail("a", ProviderError("down", 500))
    with pytest.raises(BackendError, match=r"'m': all attempts failed \(1\. a: ProviderError: down\)"):
        plan.next()


def test_the_next_backend_is_tried_at_once(clock):
    plan = Plan(clock, 3, priorities=(2, 1, 1))
    order = []
    for _ in range(4):
        name, wait = plan.next()
        order.append((name, wait))
        plan.fail(name, ProviderError("down", 500))
    assert order == [("b", 0), ("c", 0), ("a", 0), ("b", 1)]


def test_a_backend_not_tried_yet_comes_before_one_whose_delay_is_over(clock):
    plan = Plan(clock, 2)
    plan.next()
    plan.fail("a", ProviderError("down", 500))
    clock.now += 10
    assert plan.next() == ("b", 0)


def test_retry_after_may_be_shorter_than_the_own_delay(clock):
    plan = Plan(clock)
    for _ in range(3):
        plan.next()
        plan.fail("a", RateLimitError("slow down", 0.5))
    assert plan.next() == ("a", 0.5)


def test_retry_after_is_honoured_instead_of_the_own_delay(clock):
    plan = Plan(clock)
    plan.next()
    plan.fail("a", RateLimitError("slow down", 7.5))
    assert plan.next() == ("a", 7.5)
    plan.fail("a", ProviderError("overloaded", 529, retry_after=3.0))
    assert plan.next() == ("a", 3.0)
    plan.fail("a", RateLimitError("slow down", 0.0))  # says nothing
    assert plan.next() == ("a", 4.0)


def test_a_backend_that_asked_for_rest_is_avoided_while_others_are_free(clock):
    plan = Plan(clock, 2)
    assert plan.next() == ("a", 0)
    plan.fail("a", RateLimitError("slow down", 30.0))
    assert plan.next() == ("b", 0)
    plan.fail("b", ProviderError("down", 500))
    assert plan.next() == ("b", 1)  # tried already, but free sooner
    plan.begin()  # another call
    assert plan.next() == ("b", 0)
    clock.now += 29
    plan.begin()
    assert plan.next() == ("a", 0)


def test_when_all_rest_the_one_that_is_back_first_is_waited_for(clock):
    plan = Plan(clock, 2)
    plan.fail("a", RateLimitError("slow down", 30.0))
    plan.fail("b", RateLimitError("slow down", 20.0))
    plan.begin()
    assert plan.next() == ("b", 20)


def test_a_longer_rest_is_not_shortened_by_a_shorter_one(clock):
    plan = Plan(clock)
    plan.fail("a", RateLimitError("slow down", 30.0))
    plan.fail("a", RateLimitError("slow down", 5.0))
    plan.begin()
    assert plan.next() == ("a", 30)


def test_a_rest_of_a_year_is_one_of_an_hour(clock):
    plan = Plan(clock)
    plan.fail("a", RateLimitError("slow down", 365 * 86400.0))
    plan.begin()
    assert plan.next(left=10_000.0) == ("a", 3600)


def test_there_is_no_use_in_waiting_beyond_the_deadline(clock):
    plan = Plan(clock)
    plan.next()
    plan.fail("a", RateLimitError("slow down", 100.0))
    with pytest.raises(BackendError, match=r"too short to wait 100.0 s for 'a' \(1. a: RateLimitError: slow") as caught:
        plan.next(left=60.0)
    assert isinstance(caught.value.__cause__, RateLimitError)
    plan.begin()
    with pytest.raises(BackendError, match="too short") as caught:
        plan.next(left=60.0)
    assert caught.value.__cause__.retry_after == 100.0
    assert caught.value.retry_allowed


@pytest.mark.parametrize("error", [RequestRefused("bad request", 400), RequestRefused("too long", 422)])
def test_a_wrong_request_is_wrong_everywhere(clock, error):
    plan = Plan(clock, 3)
    plan.next()
    plan.fail("a", error)
    with pytest.raises(RequestRefused) as caught:
        plan.next()
    assert caught.value is error


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_is_wrong_at_one_backend_only(clock, status):
    plan = Plan(clock, 2, retries=5)
    plan.next()
    plan.fail("a", RequestRefused("no", status))
    for delay in (0, 1, 2):
        assert plan.next() == ("b", delay)
        plan.fail("b", ProviderError("down", 500))


def test_when_all_refuse_it_is_told_so(clock):
    plan = Plan(clock, 2)
    plan.next()
    plan.fail("a", RequestRefused("bad key", 401))
    plan.next()
    plan.fail("b", RequestRefused("no such model", 404))
    with pytest.raises(BackendError, match=r"1\. a: RequestRefused: bad key; 2\. b: RequestRefused: no such") as caught:
        plan.next()
    assert not caught.value.retry_allowed
    assert caught.value.__cause__.status_code == 404


def test_a_refusal_by_the_only_backend_is_raised_as_it_is(clock):
    plan = Plan(clock)
    plan.next()
    error = RequestRefused("bad key", 401)
    plan.fail("a", error)
    with pytest.raises(RequestRefused) as caught:
        plan.next()
    assert caught.value is error


def test_forbidden_real_calls_end_everything(clock):
    plan = Plan(clock, 2)
    plan.next()
    plan.fail("a", RealCallsForbidden("forbidden"))
    with pytest.raises(RealCallsForbidden):
        plan.next()


def test_a_malformed_answer_is_tried_again(clock):
    plan = Plan(clock)
    plan.next()
    plan.fail("a", MalformedResponse("Malformed"))
    assert plan.next() == ("a", 1)


@pytest.mark.parametrize(("allowed", "again"), [(True, True), (False, False)])
def test_other_errors_say_themselves_whether_there_is_use(clock, allowed, again):
    plan = Plan(clock)
    plan.next()
    plan.fail("a", BackendError("odd", retry_allowed=allowed))
    if again:
        assert plan.next() == ("a", 1)
    else:
        with pytest.raises(BackendError, match=r"^odd$"):
            plan.next()


def test_what_a_foreign_exception_says_is_not_told(clock, caplog):
    caplog.set_level(logging.DEBUG)
    plan = Plan(clock)
    plan.next()
    plan.fail("a", ValueError("sk-secret-key"))
    with pytest.raises(BackendError, match="the backend 'a' raised ValueError") as caught:
        plan.next()
    assert isinstance(caught.value.__cause__, ValueError)
    assert "sk-secret" not in str(caught.value) + caplog.text


def test_long_texts_and_many_attempts_make_no_long_error(clock):
    plan = Plan(clock, retries=1000)
    for _ in range(1001):
        plan.next(left=1e9)
        plan.fail("a", ProviderError("x" * 10_000 + "\nsecond line", 500))
    with pytest.raises(BackendError) as caught:
        plan.next()
    text = str(caught.value)
    assert "1001. a: ProviderError: xxx" in text
    assert len(text) < 10_000
    assert "\n" not in text


def test_every_failure_is_logged_and_counted(clock, caplog):
    plan = Plan(clock)
    plan.next()
    plan.fail("a", ProviderError("down", 500))
    assert "model 'm' at a: attempt 1 of 4 failed: ProviderError: down" in caplog.text
    assert plan.backends[0].statistics().failures == 1


# -- strategies ---------------------------------------------------------------------------------------------------


def test_round_robin_takes_the_one_whose_turn_is_longest_ago(clock):
    plan = Plan(clock, 3, Strategy.ROUND_ROBIN, priorities=(9, 1, 5))
    seen = []
    for _ in range(6):
        plan.begin()
        seen.append(plan.next()[0])
    assert seen == ["a", "b", "c", "a", "b", "c"]
    plan.backends.append(RoutedBackend(StubBackend(name="new"), 3, clock))
    plan.begin()
    assert plan.next()[0] == "new"


def test_round_robin_tries_the_others_first_when_one_fails(clock):
    plan = Plan(clock, 3, Strategy.ROUND_ROBIN)
    seen = []
    for _ in range(4):
        name, _ = plan.next()
        seen.append(name)
        plan.fail(name, ProviderError("down", 500))
    assert seen == ["a", "b", "c", "a"]


async def test_least_loaded_counts_what_runs_and_what_waits_in_relation_to_the_places(clock):
    small = RoutedBackend(StubBackend(name="small", max_concurrent=2), 0, clock)
    large = RoutedBackend(StubBackend(name="large", max_concurrent=10, priority=5), 1, clock)
    backends, policy = [small, large], RetryPolicy()

    async def choose():
        attempts = Attempts("m", backends, Strategy.LEAST_LOADED, policy, clock, itertools.count())
        backend, _ = attempts.next(1.0)
        await backend.begin(1)
        return backend.name

    assert [await choose() for _ in range(8)] == [
        "small",
        "large",
        "large",
        "large",
        "large",
        "large",
        "small",
        "large",
    ]


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["round-robin", "Round_Robin", Strategy.ROUND_ROBIN])
def test_strategies_are_found_by_name(name):
    assert Strategy.of(name) is Strategy.ROUND_ROBIN


def test_an_unknown_strategy_is_refused_with_what_was_meant():
    with pytest.raises(ValueError, match="no strategy 'fail-over', did you mean 'failover'"):
        Strategy.of("fail-over")
    with pytest.raises(ValueError, match="there are failover, round-robin, least-loaded"):
        Strategy.of("x")
    with pytest.raises(ValueError, match="no strategy 7"):
        Strategy.of(7)
    with pytest.raises(ValueError, match="no strategy"):
        Strategy.of("x" * 1_000_000)
