"""The two lanes, alone: what is taken, in which order, and who waits."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from xml_pipeline.config import Rate
from xml_pipeline.errors import Overloaded, PumpStopped
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.scheduler import MAX_BATCH, Scheduler
from xml_pipeline.message_bus.token_bucket import TokenBucket

from .pump_kit import guard, quiesce


def make(**options):
    defaults = {
        "max_queue": 1000,
        "max_queue_per_listener": 100,
        "max_inside": 1000,
        "depth_first": False,
        "window_of": lambda target: 64,
    }
    return Scheduler(**{**defaults, **options})


def message(thread="t"):
    return MessageState(thread_id=thread)


def admit(scheduler, target, count=1, thread=None):
    states = [message(thread or f"{target}{number}") for number in range(count)]
    for state in states:
        scheduler.check_room(target)
        scheduler.admit(state, target)
    return states


# -- taking


def test_takes_what_is_there_and_never_waits():
    scheduler = make()
    assert scheduler.take() == []
    states = admit(scheduler, "a", 3)
    assert scheduler.take() == states
    assert scheduler.take() == []


def test_a_batch_is_bounded():
    scheduler = make()
    scheduler.push([message() for _ in range(200)])
    assert [len(scheduler.take()) for _ in range(5)] == [MAX_BATCH, MAX_BATCH, MAX_BATCH, 200 - 3 * MAX_BATCH, 0]


def test_targets_take_turns():
    scheduler = make()
    many = admit(scheduler, "a", 10)
    one = admit(scheduler, "b")
    other = admit(scheduler, "c")
    assert scheduler.take()[:4] == [many[0], one[0], other[0], many[1]]


def test_conversations_of_one_target_take_turns():
    scheduler = make()
    busy = admit(scheduler, "a", 3, thread="busy")
    quiet = admit(scheduler, "a", 1, thread="quiet")
    assert scheduler.take() == [busy[0], quiet[0], busy[1], busy[2]]


def test_of_one_target_no_more_are_taken_than_its_window():
    scheduler = make(window_of=lambda target: 4)
    states = admit(scheduler, "a", 10)
    others = admit(scheduler, "b", 2)
    batch = scheduler.take()
    assert [state for state in batch if state in states] == states[:4]
    assert [state for state in batch if state in others] == others
    assert scheduler.take() == []  # as long as none of them has begun
    scheduler.started(states[0])
    assert scheduler.take() == [states[4]]


def test_a_full_window_keeps_nobody_else_out():
    scheduler = make(window_of=lambda target: 1)
    admit(scheduler, "a", 50)
    assert len(scheduler.take()) == 1
    late = admit(scheduler, "b")
    assert scheduler.take() == late


def test_messages_inside_the_stages_are_bounded():
    scheduler = make(max_inside=5)
    scheduler.push([message() for _ in range(8)])
    first = scheduler.take()
    assert len(first) == 5
    assert scheduler.inside == 5
    assert scheduler.take() == []
    scheduler.leave(first[0])
    assert len(scheduler.take()) == 1


def test_new_work_gets_a_share_beside_a_conversation_that_breeds():
    scheduler = make()
    scheduler.push([message() for _ in range(1000)])
    external = admit(scheduler, "a", 20)
    batch = scheduler.take()
    assert [state for state in batch if state in external] == external[: MAX_BATCH // 4]


def test_internal_messages_use_the_share_that_nobody_claims():
    scheduler = make()
    scheduler.push([message() for _ in range(MAX_BATCH)])
    external = admit(scheduler, "a")
    batch = scheduler.take()
    assert len(batch) == MAX_BATCH
    assert external[0] in batch


def test_internal_messages_keep_their_order():
    scheduler = make()
    states = [message() for _ in range(150)]
    scheduler.push(states[:100])
    admit(scheduler, "a", 100)
    scheduler.push(states[100:])
    taken = []
    while len(taken) < 250:
        batch = scheduler.take()
        for state in batch:
            scheduler.leave(state)
            if state.window is not None:
                scheduler.started(state)
        taken += batch
    assert [state for state in taken if state in set(states)] == states


def test_internal_messages_are_never_refused():
    scheduler = make(max_queue=1, max_queue_per_listener=1)
    admit(scheduler, "a")
    scheduler.refuse()
    scheduler.push([message() for _ in range(10)])
    assert len(scheduler.take()) == 11


def test_depth_first_serves_started_conversations_first():
    class Talk:
        def __init__(self, name, participants):
            self.id, self.participants = name, participants

    scheduler = make(depth_first=True)
    fresh, started = message(), message()
    fresh.conversation, started.conversation = Talk("new", []), Talk("old", ["somebody"])
    scheduler.admit(fresh, "a")
    scheduler.admit(started, "a")
    assert scheduler.take() == [started, fresh]


# -- rate


def test_the_rate_holds_for_external_messages_only():
    clock = [0.0]
    scheduler = make(rate=TokenBucket(Rate(1.0, 2), clock=lambda: clock[0]))

    async def take():
        return scheduler.take()

    states = admit(scheduler, "a", 5)
    scheduler.push([internal := message()])
    assert asyncio.run(take()) == [internal, *states[:2]]
    clock[0] += 1.0
    scheduler._timer = None  # its loop is gone
    assert asyncio.run(take()) == [states[2]]


async def test_a_rate_wakes_the_source_in_time():
    scheduler = make(rate=TokenBucket(Rate(1000.0, 1)))
    states = admit(scheduler, "a", 3)
    taken = []
    async with guard():
        async for batch in scheduler.batches():
            taken += batch
            if len(taken) == 3:
                break
    assert taken == states


# -- bounds


def test_a_full_queue_of_one_target_refuses_that_target_only():
    scheduler = make(max_queue_per_listener=3)
    admit(scheduler, "a", 3)
    with pytest.raises(Overloaded, match="overloaded") as caught:
        scheduler.check_room("a")
    assert "max_queue_per_listener=3" in caught.value.detail
    assert caught.value.target == "a"
    scheduler.check_room("b")


def test_a_full_admission_lane_refuses_everybody():
    scheduler = make(max_queue=3)
    admit(scheduler, "a", 3)
    with pytest.raises(Overloaded) as caught:
        scheduler.check_room("b")
    assert "max_queue=3" in caught.value.detail


async def test_whoever_waits_for_a_target_comes_in_when_there_is_room_in_order():
    scheduler = make(max_queue_per_listener=2, window_of=lambda target: 1)
    admit(scheduler, "a", 2)
    came = []

    async def come(name):
        await scheduler.wait_for_room("a")
        came.append(name)
        scheduler.admit(message(name), "a")

    tasks = [asyncio.create_task(come(name)) for name in "xyz"]
    await quiesce()
    assert came == []
    first = scheduler.take()
    await quiesce()
    assert came == ["x"]
    scheduler.started(first[0])
    scheduler.take()
    await quiesce()
    assert came == ["x", "y"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_room_given_to_one_who_has_left_goes_to_the_next():
    scheduler = make(max_queue_per_listener=1)
    (only,) = admit(scheduler, "a")
    leaving = asyncio.create_task(scheduler.wait_for_room("a"))
    staying = asyncio.create_task(scheduler.wait_for_room("a"))
    await quiesce()
    assert scheduler.take() == [only]  # the room is given to the first
    leaving.cancel()
    async with guard():
        await staying
    await asyncio.gather(leaving, return_exceptions=True)


async def test_whoever_still_has_no_room_passes_the_wakening_on():
    """One woken by room in the whole lane, but whose own target is full, must not keep the others from it."""
    scheduler = make(max_queue=2, max_queue_per_listener=1)
    admit(scheduler, "a")
    admit(scheduler, "b")
    waiting_for_c = [asyncio.create_task(_come(scheduler, "c")) for _ in range(2)]
    waiting_for_d = asyncio.create_task(_come(scheduler, "d"))
    await quiesce()
    scheduler.take()  # room for two; the first two in line are for `c`, which takes one
    async with guard(5):
        await waiting_for_d
    for task in waiting_for_c:
        task.cancel()
    await asyncio.gather(*waiting_for_c, return_exceptions=True)


async def _come(scheduler, target):
    await scheduler.wait_for_room(target)
    scheduler.admit(message(), target)


async def test_refusing_tells_whoever_waits():
    scheduler = make(max_queue=1)
    admit(scheduler, "a")
    waiting = [asyncio.create_task(scheduler.wait_for_room(target)) for target in ("a", "b")]
    await quiesce()
    scheduler.refuse()
    async with guard():
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [PumpStopped, PumpStopped]
    with pytest.raises(PumpStopped):
        scheduler.check_room("c")


# -- leaving early


def test_discard_removes_one_conversation_and_keeps_count():
    scheduler = make()
    mine = admit(scheduler, "a", 3, thread="mine") + admit(scheduler, "b", 1, thread="mine")
    yours = admit(scheduler, "a", 2, thread="yours")
    assert Counter(map(id, scheduler.discard("mine", lambda state: True))) == Counter(map(id, mine))
    assert scheduler.queued == 2
    assert scheduler.take() == yours
    assert scheduler.queued == 0


def test_names_do_not_pile_up():
    scheduler = make()
    for number in range(100):
        (state,) = admit(scheduler, f"name-{number}")
        if number % 2:
            scheduler.take()
            scheduler.started(state)
        else:
            scheduler.discard(state.thread_id, lambda state: True)
    assert len(scheduler._windows) == 0


async def test_room_made_by_a_discard_is_given_away():
    scheduler = make(max_queue_per_listener=1)
    (state,) = admit(scheduler, "a")
    waiting = asyncio.create_task(scheduler.wait_for_room("a"))
    await quiesce()
    scheduler.discard(state.thread_id, lambda state: True)
    async with guard():
        await waiting


def test_drain_takes_both_lanes():
    scheduler = make(window_of=lambda target: 1)
    external = admit(scheduler, "a", 5)
    internal = [message()]
    scheduler.push(internal)
    assert scheduler.drain() == internal + external
    assert scheduler.waiting == 0
    assert scheduler.take() == []


def test_what_was_inside_can_be_taken_back():
    scheduler = make()
    states = admit(scheduler, "a", 3)
    scheduler.take()
    assert set(scheduler.take_inside()) == set(states)
    assert scheduler.inside == 0


# -- the source


async def test_batches_end_when_closed_and_everything_was_taken():
    scheduler = make()
    states = admit(scheduler, "a", 2)
    scheduler.close()
    assert [batch async for batch in scheduler.batches()] == [states]


async def test_an_idle_source_is_woken_by_either_lane_and_by_closing():
    scheduler = make()
    seen = []

    async def read():
        async for batch in scheduler.batches():
            seen.append(batch)  # noqa: PERF401, seen while it goes on

    reading = asyncio.create_task(read())
    await quiesce()
    (external,) = admit(scheduler, "a")
    await quiesce()
    internal = message()
    scheduler.push([internal])
    await quiesce()
    scheduler.close()
    async with guard():
        await reading
    assert seen == [[external], [internal]]


async def test_an_idle_source_sets_no_timer():
    """Nothing polls: the loop has nothing scheduled while the lanes are empty."""
    scheduler = make()
    source = scheduler.batches()
    reading = asyncio.create_task(anext(source))
    await quiesce()
    assert not asyncio.get_running_loop()._scheduled
    admit(scheduler, "a")
    assert len(await reading) == 1
    await source.aclose()


def test_a_changed_listener_gets_another_window():
    size = {"a": 1}
    scheduler = make(window_of=size.__getitem__)
    states = admit(scheduler, "a", 5)
    assert scheduler.take() == states[:1]
    size["a"] = 3
    scheduler.resize()
    assert scheduler.take() == states[1:3]
