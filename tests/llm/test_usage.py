from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.llm import UsageTracker, get_prices, get_usage_tracker, reset_usage_tracker
from xml_pipeline.runtime import Runtime, use_runtime


@pytest.fixture(autouse=True)
def runtime():
    with use_runtime(Runtime()) as runtime:
        yield runtime


def record(tracker, thread="t", agent="a", model="gpt-4o", prompt=100, completion=50, latency=100.0, metadata=None):
    return tracker.record(thread, agent, model, "openai", prompt, completion, latency, metadata)


def test_an_event_tells_everything():
    event = record(UsageTracker(), metadata={"org": "o1"}, prompt=1_000_000, completion=100_000)
    assert (event.thread_id, event.agent_id, event.model, event.provider) == ("t", "a", "gpt-4o", "openai")
    assert (event.prompt_tokens, event.completion_tokens, event.total_tokens) == (1_000_000, 100_000, 1_100_000)
    assert (event.latency_ms, event.estimated_cost) == (100.0, 3.5)
    assert dict(event.metadata) == {"org": "o1"}
    assert event.timestamp.tzinfo is UTC
    with pytest.raises(AttributeError):
        event.model = "other"
    with pytest.raises(TypeError):
        event.metadata["org"] = "o2"


def test_totals_over_all_and_by_agent_model_and_thread():
    tracker = UsageTracker()
    record(tracker, "t1", "greeter", "gpt-4o", 100, 50, 100.0)
    record(tracker, "t2", "greeter", "unknown", 200, 100, 200.0)
    record(tracker, "t2", "shouter", "gpt-4o", 10, 5, 30.0)
    totals = tracker.get_totals()
    assert totals["prompt_tokens"] == 310
    assert totals["completion_tokens"] == 155
    assert totals["total_tokens"] == 465
    assert totals["request_count"] == 3
    assert totals["avg_latency_ms"] == 110.0
    assert totals["total_cost"] == pytest.approx((110 * 2.5 + 55 * 10) / 1e6)
    assert totals["unpriced_count"] == 1
    assert tracker.get_agent_totals("greeter")["total_tokens"] == 450
    assert tracker.get_model_totals("gpt-4o")["request_count"] == 2
    assert tracker.get_thread_totals("t2")["avg_latency_ms"] == 115.0
    assert set(tracker.get_all_agent_totals()) == {"greeter", "shouter"}
    assert set(tracker.get_all_model_totals()) == {"gpt-4o", "unknown"}
    assert tracker.get_all_thread_totals()["t1"] == tracker.get_thread_totals("t1")


def test_without_calls_there_are_zeros():
    totals = UsageTracker().get_agent_totals("nobody")
    assert set(totals.values()) == {0}
    assert totals == UsageTracker().get_totals()


def test_calls_of_nobody_are_in_the_sum_of_all_only():
    tracker = UsageTracker()
    record(tracker, None, None)
    assert tracker.get_totals()["request_count"] == 1
    assert tracker.get_all_agent_totals() == tracker.get_all_thread_totals() == {}


def test_names_not_heard_of_for_longest_are_forgotten_but_not_what_they_used():
    tracker = UsageTracker(max_names=2)
    for thread in ("t1", "t2", "t1", "t3"):
        record(tracker, thread)
    assert set(tracker.get_all_thread_totals()) == {"t1", "t3"}
    assert tracker.get_thread_totals("t1")["request_count"] == 2
    assert tracker.get_totals()["request_count"] == 4


def test_subscribers_are_told_until_they_do_not_want_to_be():
    tracker, first, second = UsageTracker(), [], []
    tracker.subscribe(first.append)
    tracker.subscribe(second.append)
    event = record(tracker)
    tracker.unsubscribe(first.append)
    tracker.unsubscribe(first.append)  # harmless
    record(tracker)
    assert first == [event]
    assert len(second) == 2


def test_a_failing_subscriber_harms_nobody(caplog):
    tracker, told = UsageTracker(), []

    def fail(event):
        raise RuntimeError("full disk")

    tracker.subscribe(fail)
    tracker.subscribe(told.append)
    record(tracker)
    assert len(told) == 1
    assert tracker.get_totals()["request_count"] == 1
    assert "subscriber to usage events failed" in caplog.text


def test_a_subscriber_may_unsubscribe_while_it_is_told():
    tracker, told = UsageTracker(), []

    def once(event):
        tracker.unsubscribe(once)
        told.append(event)

    tracker.subscribe(once)
    tracker.subscribe(told.append)
    record(tracker)
    record(tracker)
    assert len(told) == 3


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ({"prompt": -1}, "prompt_tokens"),
        ({"completion": 1.5}, "completion_tokens"),
        ({"completion": True}, "completion_tokens"),
        ({"latency": -0.1}, "latency_ms"),
        ({"latency": float("nan")}, "latency_ms"),
    ],
)
def test_impossible_numbers_are_refused_and_nothing_is_counted(numbers, name):
    tracker = UsageTracker()
    with pytest.raises(ValueError, match=name):
        record(tracker, **numbers)
    assert tracker.get_totals()["request_count"] == 0


def test_reset_begins_at_zero_and_keeps_subscribers():
    tracker, told = UsageTracker(), []
    tracker.subscribe(told.append)
    record(tracker)
    tracker.reset()
    assert tracker.get_totals()["request_count"] == 0
    assert tracker.get_all_model_totals() == {}
    record(tracker)
    assert len(told) == 2


def test_every_runtime_has_its_own_tracker():
    tracker = get_usage_tracker()
    assert get_usage_tracker() is tracker
    with use_runtime(Runtime()):
        assert get_usage_tracker() is not tracker
    reset_usage_tracker()
    assert get_usage_tracker() is not tracker


def test_what_was_counted_keeps_the_price_it_had():
    tracker = UsageTracker()
    record(tracker, prompt=1_000_000, completion=0)
    get_prices().add("gpt-4o", 100.0, 100.0)
    assert tracker.get_totals()["total_cost"] == 2.5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10**9), st.integers(0, 10**9)), max_size=50))
def test_the_sums_by_name_add_up_to_the_sum_of_all(calls):
    tracker = UsageTracker()
    for name, prompt, completion in calls:
        record(tracker, name, name, name, prompt, completion)
    for totals in (tracker.get_all_agent_totals(), tracker.get_all_model_totals(), tracker.get_all_thread_totals()):
        assert sum(each["total_tokens"] for each in totals.values()) == tracker.get_totals()["total_tokens"]
    assert tracker.get_totals()["total_tokens"] == sum(prompt + completion for _, prompt, completion in calls)
