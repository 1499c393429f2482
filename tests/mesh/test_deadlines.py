from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.mesh.deadlines import Deadlines


@dataclass(eq=False)
class Waiting:
    deadline: float | None
    expired: asyncio.Event = field(default_factory=asyncio.Event)


class Room:
    """Some that wait, and where those go whose deadline has come."""

    def __init__(self) -> None:
        self.waiting: dict[Waiting, None] = {}
        self.early: list[Waiting] = []
        self.order: list[Waiting] = []
        self.deadlines = Deadlines(self.waiting.keys, self.expire)

    def enter(self, seconds: float | None) -> Waiting:
        now = asyncio.get_running_loop().time()
        one = Waiting(None if seconds is None else now + seconds)
        self.waiting[one] = None
        self.deadlines.watch(one.deadline)
        return one

    def expire(self, one: Waiting) -> None:
        if one.deadline is None or asyncio.get_running_loop().time() < one.deadline:
            self.early.append(one)
        del self.waiting[one]
        self.order.append(one)
        one.expired.set()


async def test_each_expires_in_the_order_of_its_deadline():
    room = Room()
    later, sooner, never, past = room.enter(0.06), room.enter(0.02), room.enter(None), room.enter(-1.0)
    await asyncio.gather(*(asyncio.wait_for(one.expired.wait(), 10) for one in (later, sooner, past)))
    assert room.order == [past, sooner, later]
    assert list(room.waiting) == [never]
    assert room.early == []


async def test_what_ended_in_time_does_not_expire_and_does_not_hold_up_others():
    room = Room()
    ended = room.enter(0.01)
    del room.waiting[ended]
    one = room.enter(0.03)
    await asyncio.wait_for(one.expired.wait(), 10)
    assert room.order == [one]


async def test_one_that_stays_expires_again_and_others_still_do():
    told = []
    stays, other = Waiting(asyncio.get_running_loop().time()), Waiting(asyncio.get_running_loop().time() + 0.02)

    def expire(one: Waiting) -> None:
        told.append(one)
        one.expired.set()

    deadlines = Deadlines(lambda: [stays, other], expire)
    for one in (stays, other):
        deadlines.watch(one.deadline)
    await asyncio.wait_for(other.expired.wait(), 10)
    assert told[0] is stays
    assert told[-1] is other


async def test_when_it_is_closed_nothing_expires_until_something_is_watched_again():
    room = Room()
    first = room.enter(0.0)
    room.deadlines.close()
    other = Room()
    assert await asyncio.wait_for(other.enter(0.02).expired.wait(), 10)
    assert not first.expired.is_set()
    second = room.enter(0.0)
    await asyncio.wait_for(second.expired.wait(), 10)
    assert room.order == [first, second]


@given(st.lists(st.none() | st.integers(-2, 30), max_size=30))
def test_none_is_early_and_none_is_forgotten(milliseconds):
    async def main() -> None:
        room = Room()
        all_ = [room.enter(None if each is None else each / 1000) for each in milliseconds]
        await asyncio.gather(*(asyncio.wait_for(one.expired.wait(), 10) for one in all_ if one.deadline is not None))
        assert room.early == []
        assert len(room.order) == len([each for each in milliseconds if each is not None])
        room.deadlines.close()

    asyncio.run(main())
