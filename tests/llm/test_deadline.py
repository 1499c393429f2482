from __future__ import annotations

import asyncio

import pytest

from tests.llm.router_kit import ManualClock, settle
from xml_pipeline.llm.clock import Clock
from xml_pipeline.llm.deadline import Deadline, TimeIsUp


@pytest.fixture
def clock():
    return ManualClock()


async def forever(deadline, log):
    try:
        async with deadline.limit():
            await asyncio.Event().wait()
    except TimeIsUp:
        log.append("time is up")


async def test_a_step_ends_with_the_time(clock):
    deadline, log = Deadline(10.0, clock), []
    task = asyncio.create_task(forever(deadline, log))
    await settle()
    clock.advance(9.9)
    await settle()
    assert not task.done()
    clock.advance(0.1)
    await task
    assert log == ["time is up"]
    assert deadline.is_over


async def test_all_steps_share_one_time_and_what_is_between_counts(clock):
    deadline = Deadline(10.0, clock)
    async with deadline.limit():
        clock.advance(4)
    clock.advance(5)
    assert deadline.left() == pytest.approx(1)
    async with deadline.limit():
        pass
    clock.advance(1)
    with pytest.raises(TimeIsUp):
        async with deadline.limit():
            pytest.fail("there was no time for this")


async def test_between_steps_nobody_is_cancelled(clock):
    deadline = Deadline(1.0, clock)
    async with deadline.limit():
        pass
    clock.advance(5)
    deadline.end()
    await settle()
    assert asyncio.current_task().cancelling() == 0


async def test_a_step_that_is_cancelled_is_cancelled(clock):
    log = []
    task = asyncio.create_task(forever(Deadline(1.0, clock), log))
    await settle()
    task.cancel()
    await settle()
    assert task.cancelled()
    assert log == []
    assert clock.next_timer is None


async def test_a_step_may_be_ended_from_outside_and_waited_for(clock):
    deadline, log = Deadline(10.0, clock), []
    task = asyncio.create_task(forever(deadline, log))
    await deadline.at_rest()  # nothing runs yet
    await settle()
    deadline.end()
    deadline.end()
    await deadline.at_rest()
    await task
    assert log == ["time is up"]


async def test_an_error_of_the_step_is_its_own(clock):
    deadline = Deadline(10.0, clock)
    with pytest.raises(TimeoutError, match="mine"):
        async with deadline.limit():
            raise TimeoutError("mine")
    assert clock.next_timer is None
    assert not deadline.is_over


async def test_the_clock_of_the_loop_does_the_same():
    deadline = Deadline(0.01, Clock())
    with pytest.raises(TimeIsUp):
        async with deadline.limit():
            await asyncio.Event().wait()
    clock = Clock()
    before = clock.time()
    await clock.sleep(0.001)
    assert clock.time() > before
