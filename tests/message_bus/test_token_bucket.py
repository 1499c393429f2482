from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.config import Rate
from xml_pipeline.message_bus.token_bucket import TokenBucket


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def taken(bucket):
    count = 0
    while bucket.take():
        count += 1
    return count


def test_a_fresh_bucket_gives_its_burst_and_no_more(clock):
    bucket = TokenBucket(Rate(10.0, 4), clock)
    assert taken(bucket) == 4


def test_time_earns_permissions(clock):
    bucket = TokenBucket(Rate(8.0, 4), clock)
    taken(bucket)
    clock.now += 2.5 / 8
    assert taken(bucket) == 2
    clock.now += 0.5 / 8
    assert taken(bucket) == 1  # the half that was left of before counts


def test_a_long_pause_earns_no_more_than_the_burst(clock):
    bucket = TokenBucket(Rate(10.0, 4), clock)
    taken(bucket)
    clock.now += 3600
    assert taken(bucket) == 4


def test_wait_time_is_when_the_next_one_comes(clock):
    bucket = TokenBucket(Rate(4.0, 1), clock)
    assert bucket.wait_time() == 0
    assert bucket.take()
    assert bucket.wait_time() == 0.25
    clock.now += bucket.wait_time()
    assert bucket.take()


@given(
    per_second=st.floats(0.1, 1000),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 10), max_size=30),
)
def test_never_more_than_the_rate_over_any_time(per_second, burst, pauses):
    clock = Clock()
    bucket = TokenBucket(Rate(per_second, burst), clock)
    total, began = taken(bucket), clock.now
    for pause in pauses:
        clock.now += pause
        total += taken(bucket)
        assert total <= burst + (clock.now - began) * per_second + 1e-6


@given(per_second=st.floats(0.001, 1e6), burst=st.integers(1, 5))
def test_waiting_as_long_as_told_is_soon_enough(per_second, burst):
    clock = Clock()
    bucket = TokenBucket(Rate(per_second, burst), clock)
    taken(bucket)
    for _ in range(3):  # rounding may cost a further, tiny wait
        clock.now += bucket.wait_time() + 1e-9
    assert bucket.take()
