"""The window against a record of everything that was ever let in, with clocks that go as they like."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.examples import examples
from xml_pipeline.crypto.refusals import Reason
from xml_pipeline.crypto.replay import ReplayWindow, Seen

from .kit import NOON, Clock


def window(clock: Clock, **options: float) -> ReplayWindow:
    given: dict[str, float] = {"max_age": 60.0, "tolerance": 30.0, "capacity": 100, "floor": -math.inf, **options}
    return ReplayWindow(clock=clock, **given)  # type: ignore[arg-type]


def seen(message: str = "m", created: float = NOON, key: str = "k") -> Seen:
    return Seen(key, message, created)


def test_a_message_comes_in_once():
    clock = Clock()
    one = window(clock)
    assert one.admit(seen()) is None
    for _ in range(3):
        clock.now += 20
        assert one.admit(seen()) is Reason.REPLAYED


def test_an_id_with_another_time_is_the_same_id():
    one = window(Clock())
    assert one.admit(seen()) is None
    assert one.admit(seen(created=NOON + 1)) is Reason.REPLAYED
    assert one.admit(seen(created=NOON - 1)) is Reason.REPLAYED


def test_the_ids_of_one_key_are_not_those_of_another():
    one = window(Clock())
    assert one.admit(seen(key="a")) is None and one.admit(seen(key="b")) is None
    assert one.admit(seen(key="a")) is Reason.REPLAYED


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (0, None),
        (60, None),
        (90, None),
        (90.001, Reason.EXPIRED),
        (3600, Reason.EXPIRED),
        (1e15, Reason.EXPIRED),
        (-30, None),
        (-30.001, Reason.FROM_THE_FUTURE),
        (-3600, Reason.FROM_THE_FUTURE),
        (math.nan, Reason.EXPIRED),
        (math.inf, Reason.EXPIRED),
        (-math.inf, Reason.FROM_THE_FUTURE),
    ],
)
def test_the_edges_of_freshness(age, reason):
    clock = Clock(0.0)
    one = window(clock)
    assert one.admit(seen(created=-age)) is reason
    assert len(one) == (reason is None)


def test_an_id_is_remembered_to_the_last_moment_of_its_freshness():
    clock = Clock()
    one = window(clock)
    assert one.admit(seen()) is None
    clock.now = NOON + 90
    assert one.admit(seen()) is Reason.REPLAYED
    clock.now = NOON + 90.001
    assert one.admit(seen()) is Reason.EXPIRED
    assert one.admit(seen("other", clock.now)) is None
    assert len(one) == 1  # the first is forgotten


def test_a_clock_that_is_set_back_brings_nothing_back():
    clock = Clock()
    one = window(clock)
    assert one.admit(seen("old", NOON)) is None
    clock.now = NOON + 3600  # by mistake
    assert one.admit(seen("new", clock.now)) is None
    clock.now = NOON + 10  # corrected
    assert one.admit(seen("old", NOON)) is Reason.NOT_REMEMBERED
    assert one.admit(seen("older", NOON - 1)) is Reason.NOT_REMEMBERED
    assert one.admit(seen("fresh", NOON + 1)) is None  # what it cannot have forgotten comes in
    assert one.admit(seen("elsewhere", NOON, key="other")) is None


def test_a_clock_that_stands_still():
    one = window(Clock())
    assert [one.admit(seen(f"m{number}")) for number in range(50)] == [None] * 50
    assert {one.admit(seen(f"m{number}")) for number in range(50)} == {Reason.REPLAYED}


def test_when_it_is_full_it_refuses_and_does_not_forget():
    clock = Clock()
    one = window(clock, capacity=3)
    for number in range(3):
        assert one.admit(seen(f"m{number}", NOON + number)) is None
    assert one.admit(seen("m3", NOON)) is Reason.WINDOW_FULL
    assert one.admit(seen("m0", NOON)) is Reason.REPLAYED
    assert one.admit(seen("m3", NOON, key="other")) is None, "another key has room of its own"
    clock.now = NOON + 90.5  # the first is not fresh any more
    assert one.admit(seen("m3", clock.now)) is None
    assert one.admit(seen("m4", clock.now)) is Reason.WINDOW_FULL
    assert one.admit(seen("m0", NOON)) is Reason.EXPIRED
    assert len(one) == 4  # three of this key, one of the other


def test_memory_is_bounded_for_keys_that_come_and_go():
    clock = Clock()
    one = window(clock)
    for number in range(100):
        assert one.admit(seen("m", clock.now, key=f"key{number}")) is None
        clock.now += 10
    assert len(one) <= 11


# -- restarts


def test_a_new_window_does_not_know_what_came_before_it():
    clock = Clock()
    one = window(clock, floor=NOON + 30)  # the default, see below
    assert one.admit(seen("m1", NOON - 5)) is Reason.NOT_REMEMBERED
    assert one.admit(seen("m2", NOON + 30)) is Reason.NOT_REMEMBERED, "let in early by a process whose clock was behind"
    clock.now = NOON + 1
    assert one.admit(seen("m3", NOON + 30.001)) is None


def test_by_default_nothing_is_taken_for_granted():
    clock = Clock()
    fresh = ReplayWindow(clock=clock)
    assert fresh.admit(seen(created=NOON)) is Reason.NOT_REMEMBERED
    clock.now = NOON + 31
    assert fresh.admit(seen(created=clock.now)) is None


def test_a_window_can_continue_another():
    clock = Clock()
    one = window(clock)
    for number in range(10):
        assert one.admit(seen(f"m{number}", NOON + number, key=f"k{number % 2}")) is None
    clock.now = NOON + 92.5  # of the first ones something is forgotten
    floor, remembered = one.snapshot()
    two = window(clock, floor=floor, seen=remembered)  # type: ignore[arg-type]
    assert len(remembered) == 7
    for number in range(10):
        reason = two.admit(seen(f"m{number}", NOON + number, key=f"k{number % 2}"))
        assert reason is (Reason.EXPIRED if number < 3 else Reason.REPLAYED)
    clock.now = NOON + 50
    assert two.admit(seen("m0", NOON, key="k0")) is Reason.NOT_REMEMBERED
    assert two.admit(seen("new", NOON + 40, key="k0")) is None


def test_forgetting_does_not_lower_the_floor():
    clock = Clock()
    one = window(clock, floor=NOON + 10, seen=[seen("m")])  # type: ignore[arg-type]
    clock.now = NOON + 95  # it is forgotten; what follows is fresh
    assert one.admit(seen("other", NOON + 6)) is Reason.NOT_REMEMBERED
    assert len(one) == 0
    assert one.admit(seen("other", NOON + 11)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"max_age": 0},
        {"max_age": -1},
        {"max_age": math.inf},
        {"max_age": math.nan},
        {"tolerance": -1},
        {"tolerance": math.inf},
        {"tolerance": math.nan},
        {"capacity": 0},
    ],
)
def test_bounds_that_are_none(options):
    with pytest.raises(ValueError, match="must be"):
        window(Clock(), **options)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads change places as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_of_many_at_once_one_comes_in():
    one = window(Clock(), capacity=10_000)
    results: list[Reason | None] = []
    start = threading.Barrier(8)

    def enter() -> None:
        start.wait()
        results.extend(one.admit(seen(f"m{number}")) for number in range(500))

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(None) == 500 and results.count(Reason.REPLAYED) == 3500


# -- anything, in any order


class Machine(RuleBasedStateMachine):
    """Whatever happens to the clock and to the process, nothing comes in twice, and what is honest comes in."""

    @initialize(max_age=st.integers(1, 50), tolerance=st.integers(0, 20), capacity=st.integers(1, 12))
    def begin(self, max_age: int, tolerance: int, capacity: int) -> None:
        self.clock = Clock(1000.0)
        self.options = {"max_age": max_age, "tolerance": tolerance, "capacity": capacity}
        self.window = ReplayWindow(clock=self.clock, floor=-math.inf, **self.options)
        self.let_in: set[Seen] = set()
        self.stepped_back = False

    @rule(step=st.integers(0, 60))
    def time_passes(self, step: int) -> None:
        self.clock.now += step

    @rule(step=st.integers(1, 200))
    def clock_is_set_back(self, step: int) -> None:
        self.clock.now -= step
        self.stepped_back = True

    @rule(key=st.sampled_from("ab"), message=st.integers(0, 5), age=st.integers(-30, 80))
    def message_comes(self, key: str, message: int, age: int) -> None:
        self.enter(Seen(key, str(message), self.clock.now - age))

    @precondition(lambda self: self.let_in)
    @rule(data=st.data())
    def message_comes_again(self, data: st.DataObject) -> None:
        assert self.window.admit(data.draw(st.sampled_from(sorted(self.let_in)))) is not None

    @rule()
    def process_starts_anew_with_what_it_knew(self) -> None:
        floor, remembered = self.window.snapshot()
        self.window = ReplayWindow(clock=self.clock, floor=floor, seen=remembered, **self.options)

    @precondition(lambda self: not self.stepped_back)
    @rule()
    def process_starts_anew_with_nothing(self) -> None:
        self.window = ReplayWindow(clock=self.clock, **self.options)

    def enter(self, message: Seen) -> None:
        reason = self.window.admit(message)
        age = self.clock.now - message.created
        fresh = -self.options["tolerance"] <= age <= self.options["max_age"] + self.options["tolerance"]
        if reason is None:
            assert fresh and message not in self.let_in
            self.let_in.add(message)
        if not fresh:
            assert reason in (Reason.EXPIRED, Reason.FROM_THE_FUTURE)
        elif reason is Reason.REPLAYED:
            assert any(other[:2] == message[:2] for other in self.let_in)

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "window"):
            assert len(self.window) <= 2 * self.options["capacity"]


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=examples(50), stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(-30, 90)), unique_by=lambda pair: pair[0], max_size=60))
def test_honest_messages_all_come_in_whatever_their_order(messages):
    one = window(Clock(), capacity=60)
    assert {one.admit(seen(str(number), NOON - age)) for number, age in messages} <= {None}
