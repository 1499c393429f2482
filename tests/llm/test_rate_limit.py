from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.examples import examples
from tests.llm.router_kit import ManualClock, settle
from xml_pipeline.llm.rate_limit import Bucket, Limiter


@pytest.fixture
def clock():
    return ManualClock()


# -- a bucket -----------------------------------------------------------------------------------------------------


def test_a_full_bucket_has_a_minute_and_fills_in_a_minute(clock):
    bucket = Bucket(600, clock.time)
    assert bucket.take(600) == 600
    assert bucket.level == 0
    assert bucket.wait_time(100) == pytest.approx(10)
    clock.advance(10)
    assert bucket.wait_time(100) == 0
    clock.advance(3600)
    assert bucket.level == 600


def test_more_than_the_bucket_holds_is_taken_from_a_full_one_and_owed_later(clock):
    bucket = Bucket(600, clock.time)
    assert bucket.wait_time(5000) == 0
    taken = bucket.take(5000)
    assert taken == 600
    bucket.settle(taken, 900)
    assert bucket.level == -300
    assert bucket.wait_time(1) == pytest.approx(30.1)


def test_what_was_not_used_comes_back_and_no_more_than_that(clock):
    bucket = Bucket(600, clock.time)
    taken = bucket.take(500)
    bucket.settle(taken, 20)
    assert bucket.level == 580
    bucket.settle(0, 0)
    assert bucket.level == 580
    bucket.settle(600, 0)
    assert bucket.level == 600  # never more than it holds


def test_no_more_than_one_bucket_is_owed(clock):
    bucket = Bucket(600, clock.time)
    bucket.settle(bucket.take(1), 10**12)
    assert bucket.level == -600


# -- a limiter ----------------------------------------------------------------------------------------------------


async def test_calls_begin_at_once_while_there_is_room(clock):
    limiter = Limiter(600, None, 2, clock)
    first, second = await limiter.acquire(100), await limiter.acquire(200)
    assert (limiter.active, limiter.waiting, limiter.tokens.level) == (2, 0, 300)
    first.settle(50)
    second.refund()
    assert (limiter.active, limiter.tokens.level) == (0, 550)


async def test_a_permit_counts_once(clock):
    limiter = Limiter(600, 60, 1, clock)
    with await limiter.acquire(100) as permit:
        permit.settle(30)
        permit.refund()
        permit.undo()
        permit.settle(500)
    assert (limiter.active, limiter.tokens.level, limiter.requests.level) == (0, 570, 59)


async def test_what_is_left_unsettled_in_a_with_block_is_refunded(clock):
    limiter = Limiter(600, 60, 1, clock)
    with pytest.raises(RuntimeError), await limiter.acquire(100):
        raise RuntimeError
    assert (limiter.active, limiter.tokens.level) == (0, 600)
    assert limiter.requests.level == 59  # it was made


async def test_a_call_that_was_not_made_gives_back_its_request_too(clock):
    limiter = Limiter(600, 60, 1, clock)
    (await limiter.acquire(100)).undo()
    assert (limiter.active, limiter.tokens.level, limiter.requests.level) == (0, 600, 60)


async def test_a_call_larger_than_the_bucket_does_not_wait_for_ever(clock):
    limiter = Limiter(600, None, 5, clock)
    first = await limiter.acquire(100)
    task = asyncio.create_task(limiter.acquire(10_000))
    await settle()
    assert limiter.waiting == 1
    first.settle(100)
    clock.advance(10)
    await settle()
    assert (await task).taken == 600


async def test_tokens_are_waited_for_as_long_as_they_need(clock):
    limiter = Limiter(600, None, 5, clock)
    (await limiter.acquire(600)).settle(600)
    task = asyncio.create_task(limiter.acquire(300))
    await settle()
    clock.advance(29.9)
    await settle()
    assert not task.done()
    clock.advance(0.1)
    await settle()
    assert task.done()


async def test_requests_are_limited_beside_tokens(clock):
    limiter = Limiter(1_000_000, 60, 100, clock)
    for _ in range(60):
        (await limiter.acquire(1)).settle(1)
    task = asyncio.create_task(limiter.acquire(1))
    await settle()
    assert not task.done()
    clock.advance(1)
    await settle()
    assert task.done()


async def test_first_come_first_served_also_when_a_later_one_would_fit(clock):
    limiter = Limiter(600, None, 10, clock)
    (await limiter.acquire(600)).settle(500)  # 100 are left
    order = []

    async def call(name, tokens):
        with await limiter.acquire(tokens):
            order.append(name)

    tasks = [asyncio.create_task(call("large", 300)), asyncio.create_task(call("small", 10))]
    await settle()
    assert order == []
    clock.advance(20)
    await settle()
    assert order == ["large", "small"]
    await asyncio.gather(*tasks)


async def test_no_more_than_max_concurrent_at_a_time(clock):
    limiter = Limiter(1_000_000, None, 3, clock)
    permits = [await limiter.acquire(1) for _ in range(3)]
    tasks = [asyncio.create_task(limiter.acquire(1)) for _ in range(2)]
    await settle()
    assert (limiter.active, limiter.waiting) == (3, 2)
    permits[0].settle(1)
    await settle()
    assert (limiter.active, limiter.waiting) == (3, 1)
    assert [task.done() for task in tasks] == [True, False]
    permits[1].settle(1)
    await settle()
    assert tasks[1].done()


async def test_a_waiting_call_that_is_cancelled_gives_its_place_to_the_next(clock):
    limiter = Limiter(600, None, 10, clock)
    (await limiter.acquire(600)).settle(500)
    large = asyncio.create_task(limiter.acquire(600))
    small = asyncio.create_task(limiter.acquire(50))
    await settle()
    assert not small.done()
    large.cancel()
    await settle()
    assert small.done()
    assert (limiter.active, limiter.waiting, limiter.tokens.level) == (1, 0, 50)


async def test_a_call_cancelled_in_the_moment_it_may_begin_leaves_nothing_behind(clock):
    limiter = Limiter(600, 60, 1, clock)
    permit = await limiter.acquire(10)
    task = asyncio.create_task(limiter.acquire(20))
    await settle()
    permit.settle(10)  # grants to the task, which does not run yet
    assert limiter.active == 1
    task.cancel()
    await settle()
    assert task.cancelled()
    assert (limiter.active, limiter.waiting, limiter.tokens.level, limiter.requests.level) == (0, 0, 590, 59)


async def test_a_thousand_waiting_calls_are_cancelled(clock):
    limiter = Limiter(600, None, 1, clock)
    permit = await limiter.acquire(10)
    tasks = [asyncio.create_task(limiter.acquire(1)) for _ in range(1000)]
    await settle()
    assert limiter.waiting == 1000
    for task in tasks:
        task.cancel()
    await settle()
    permit.refund()
    assert (limiter.active, limiter.waiting, limiter.tokens.level) == (0, 0, 600)


def test_a_bucket_of_another_size_is_owed_no_more_than_itself(clock):
    bucket = Bucket(600, clock.time)
    bucket.settle(0, 1200)
    assert bucket.level == -600
    bucket.resize(100)
    assert bucket.level == -100
    clock.advance(60)
    assert bucket.level == 0
    bucket.resize(600)
    assert bucket.level == 500  # 100 were used
    assert bucket.wait_time(600) == 10


async def test_other_limits_hold_for_what_runs_waits_and_was_used(clock):
    limiter = Limiter(600, None, 2, clock)
    running = [await limiter.acquire(200) for _ in range(2)]
    waiting = [asyncio.create_task(limiter.acquire(100)) for _ in range(3)]
    await settle()
    limiter.resize(700, 1, 4)  # 400 are used, and nobody has counted requests so far
    await settle()
    assert limiter.tokens.level == 700 - 400 - 100
    assert (limiter.active, limiter.waiting) == (3, 2)  # one request a minute
    limiter.resize(700, None, 3)
    await settle()
    assert (limiter.active, limiter.waiting) == (3, 2)
    limiter.resize(300, None, 9)
    assert limiter.tokens.level == 300 - 500
    for permit in [*running, waiting[0].result()]:
        permit.refund()
    await asyncio.gather(*waiting)
    assert limiter.tokens.level == 100


# -- a limiter against a model of it ------------------------------------------------------------------------------

BURST, REQUESTS, PLACES = 240, 12, 3


class LimiterMachine(RuleBasedStateMachine):
    """The model is a straight simulation: a list of those that wait, those that run, and two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()

    @initialize()
    def begin(self) -> None:
        self.limiter = Limiter(BURST, REQUESTS, PLACES, self.clock)
        self.burst, self.per_minute, self.places = BURST, REQUESTS, PLACES
        self.tasks: dict[int, asyncio.Task] = {}
        self.tokens, self.requests = float(BURST), float(REQUESTS)
        self.waiting: list[tuple[int, int]] = []
        self.running: dict[int, float] = {}
        self.number = 0

    def teardown(self) -> None:
        self.runner.close()

    # what the model does

    def serve(self) -> None:
        while self.waiting and len(self.running) < self.places:
            number, tokens = self.waiting[0]
            amount = min(tokens, self.burst)
            if self.tokens < amount - 1e-6 or self.requests < 1 - 1e-6:
                return
            self.waiting.pop(0)
            self.tokens -= amount
            self.requests -= 1
            self.running[number] = amount

    def pass_time(self, seconds: float) -> None:
        # In small steps, because tokens that come while others wait are given away in between; so small that what may
        # be waited for comes with the end of one, also half a token that is left of a time with half the burst.
        for _ in range(round(seconds * 8)):
            self.tokens = min(self.burst, self.tokens + self.burst / 480)
            self.requests = min(self.per_minute, self.requests + self.per_minute / 480)
            self.serve()

    # what happens

    @rule(tokens=st.integers(1, 400))
    def arrive(self, tokens: int) -> None:
        self.number += 1

        async def acquire() -> asyncio.Task:
            return asyncio.create_task(self.limiter.acquire(tokens))

        self.tasks[self.number] = self.runner.run(acquire())
        self.waiting.append((self.number, tokens))
        self.serve()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), used=st.integers(0, 300), how=st.sampled_from(["settle", "refund", "undo"]))
    def finish(self, data: st.DataObject, used: int, how: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        permit = self.tasks.pop(number).result()
        taken = self.running.pop(number)

        async def close() -> None:
            permit.settle(used) if how == "settle" else getattr(permit, how)()

        self.runner.run(close())
        self.tokens = max(-self.burst, min(self.burst, self.tokens + taken - (used if how == "settle" else 0)))
        if how == "undo":
            self.requests = min(self.per_minute, self.requests + 1)
        self.serve()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([number for number, _ in self.waiting]))
        self.tasks.pop(number).cancel()
        self.waiting = [each for each in self.waiting if each[0] != number]
        self.runner.run(settle())
        self.serve()

    @rule(
        burst=st.sampled_from([BURST // 2, BURST]),
        per_minute=st.sampled_from([REQUESTS // 2, REQUESTS]),
        places=st.integers(1, PLACES + 2),
    )
    def resize(self, burst: int, per_minute: int, places: int) -> None:
        async def resize() -> None:
            self.limiter.resize(burst, per_minute, places)

        self.runner.run(resize())
        self.tokens = max(-burst, self.tokens + burst - self.burst)
        self.requests = max(-per_minute, self.requests + per_minute - self.per_minute)
        self.burst, self.per_minute, self.places = burst, per_minute, places
        self.serve()

    @rule(quarters=st.integers(1, 100))
    def wait(self, quarters: int) -> None:
        async def advance() -> None:
            for _ in range(quarters):
                self.clock.advance(0.25)

        self.runner.run(advance())
        self.pass_time(quarters / 4)

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "limiter"):
            return
        self.runner.run(settle())
        done = {number for number, task in self.tasks.items() if task.done()}
        assert done == set(self.running)
        assert (self.limiter.active, self.limiter.waiting) == (len(self.running), len(self.waiting))
        assert self.limiter.tokens.level == pytest.approx(self.tokens, abs=1e-3)
        assert self.limiter.requests.level == pytest.approx(self.requests, abs=1e-3)


TestLimiterAgainstItsModel = LimiterMachine.TestCase
TestLimiterAgainstItsModel.settings = settings(max_examples=examples(25), stateful_step_count=30, deadline=None)
