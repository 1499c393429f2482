"""Waiting for several calls at once: the books of a join, against a simple model; then joins through a running pump."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.examples import examples
from third_party.xmlable import codec_of
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import HandlerError, HopLimitError, NoAnswer
from xml_pipeline.message_bus.conversation import FrameState
from xml_pipeline.message_bus.join import Join, JoinResult, Joins, get_joins
from xml_pipeline.message_bus.message_state import TIMEOUT_ERROR, SystemError
from xml_pipeline.message_bus.thread_registry import Frame, ThreadRegistry
from xml_pipeline.runtime import use_runtime
from xml_pipeline.strict_xml import parse_strict

from .helpers import Recorder
from .orchestration_kit import Number, Sum, Word, fail, hang, increment, nothing, tidy

FAILED = SystemError.of(HandlerError())


def turn(tag: str, from_id: str = "tool") -> HandlerMetadata:
    return HandlerMetadata("thread", from_id, tag=tag)


def a_call(n: int = 0, **options: Any) -> HandlerResponse:
    return HandlerResponse.call(Number(n), "tool", **options)


# -- the books, against a model


class Books(RuleBasedStateMachine):
    """Any order of additions, answers, errors, repetitions, foreign messages and time."""

    @initialize(
        max_parallel=st.integers(1, 4), timeout=st.sampled_from([0.0, 5.0, 20.0]), each=st.sampled_from([0.0, 3.0])
    )
    def begin(self, max_parallel: int, timeout: float, each: float) -> None:
        self.now = 100.0
        self.ends_at = self.now + timeout if timeout else math.inf
        self.each = each
        self.max_parallel = max_parallel
        self.join = Join(max_parallel=max_parallel, timeout=timeout, call_timeout=each, clock=lambda: self.now)
        self.waiting: list[int] = []
        self.open: dict[str, int] = {}
        self.past: list[str] = []
        self.results: list[JoinResult | None] = []

    @rule(count=st.integers(0, 5))
    def add(self, count: int) -> None:
        first = len(self.results)
        self.join.add(a_call(first + number) for number in range(count))
        self.waiting += range(first, first + count)
        self.results += [None] * count

    @rule()
    def send(self) -> None:
        calls = self.join.due()
        room = self.max_parallel - len(self.open)
        expected, self.waiting = self.waiting[:room], self.waiting[room:]
        assert [call.payload.n for call in calls] == expected
        for call in calls:
            assert call.is_fresh_call
            assert call.expect_answer
            assert call.tag not in self.open
            assert call.tag not in self.past
            self.open[call.tag] = call.payload.n
            limit = min(self.each or math.inf, self.ends_at - self.now)
            if limit == math.inf:
                assert call.timeout == 0
            elif limit > 0:
                assert call.timeout == pytest.approx(limit)
            else:
                assert 0 < call.timeout < 0.001  # it will be cancelled before it begins

    @precondition(lambda self: self.open)
    @rule(data=st.data(), well=st.booleans(), as_element=st.booleans())
    def end(self, data: st.DataObject, well: bool, as_element: bool) -> None:
        tag = data.draw(st.sampled_from(sorted(self.open)))
        index = self.open.pop(tag)
        self.past.append(tag)
        if well:
            answer = Number(index)
            taken, expected = self.join.take(answer, turn(tag)), JoinResult(index, answer)
        else:
            error: Any = parse_strict(codec_of(SystemError).encode(FAILED).encode()) if as_element else FAILED
            taken, expected = self.join.take(error, turn(tag, "system")), JoinResult(index, error=FAILED)
        assert taken == expected
        self.results[index] = expected
        if self.now >= self.ends_at:
            for late in self.waiting:
                self.results[late] = JoinResult(late, error=TIMEOUT_ERROR)
            self.waiting.clear()

    @rule(data=st.data(), from_id=st.sampled_from(["tool", "system"]))
    def repeat(self, data: st.DataObject, from_id: str) -> None:
        """A further answer, the answer to a call of somebody else, or a message that answers nothing."""
        foreign = ["", "join", "join:0", "join:1:0", "other:0:0", "join:0:", "join:0:x", "join:0:-1", "9" * 5_000]
        tag = data.draw(st.sampled_from([*self.past, *foreign]))
        assert not self.join.expects(tag)
        assert self.join.take(Number(-1), turn(tag, from_id)) is None

    @rule(seconds=st.sampled_from([0.5, 2.0, 9.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def agree(self) -> None:
        join = self.join
        assert join.results == self.results
        assert list(join) == [result for result in self.results if result is not None]
        assert len(join) == len(self.results)
        assert join.open_calls == len(self.open) <= self.max_parallel
        assert all(join.expects(tag) for tag in self.open)
        assert join.is_complete == all(result is not None for result in self.results)

    def teardown(self) -> None:
        """However far it came, it completes if each call that is given is answered."""
        for _ in range(len(self.results) + 1):
            self.send()
            for tag in list(self.open):
                self.open.pop(tag)
                assert self.join.take(FAILED, turn(tag, "system")) is not None
            if self.join.is_complete:
                return
            self.waiting = [index for index in self.waiting if self.join.results[index] is None]
        raise AssertionError("it does not complete")


Books.TestCase.settings = settings(max_examples=examples(30), stateful_step_count=30, deadline=None)
TestBooks = Books.TestCase


@given(
    total=st.integers(0, 30),
    max_parallel=st.integers(1, 8),
    order=st.randoms(use_true_random=False),
    late_after=st.integers(0, 40),
)
@settings(deadline=None)
def test_whatever_the_order_every_call_ends_once(total: int, max_parallel: int, order: Any, late_after: int) -> None:
    """The handler's loop, with a clock that runs out after so many turns."""
    now = 0.0
    join = Join(max_parallel=max_parallel, timeout=1.0, clock=lambda: now)
    join.add(a_call(n) for n in range(total))
    sent, turns = [*join.due()], 0
    while not join.is_complete:
        turns += 1
        now = 2.0 if turns > late_after else 0.0
        call = sent.pop(order.randrange(len(sent)))
        assert join.take(Number(call.payload.n), turn(call.tag)) is not None
        sent += join.due()
        assert len(sent) <= max_parallel
    assert not sent
    assert [result.index for result in join] == list(range(total))
    answered = [result for result in join if result.ok]
    assert all(result.payload == Number(result.index) for result in answered)
    assert len(answered) == turns  # those that were sent; time did not take away what had come
    assert all(result.error == TIMEOUT_ERROR for result in join if not result.ok)


# -- what is refused


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None, math.nan])
def test_max_parallel_is_a_number_of_calls(value: Any) -> None:
    with pytest.raises(ValueError, match="max_parallel must be a whole number above 0"):
        Join(max_parallel=value, clock=lambda: 0.0)


@pytest.mark.parametrize("what", ["timeout", "call_timeout"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf, True, "3", None, 10**400])
def test_times_are_numbers_of_seconds(what: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{what} must be a number of seconds") as caught:
        Join(**{what: value}, clock=lambda: 0.0)
    assert len(str(caught.value)) < 200


def test_whole_numbers_of_seconds_are_times() -> None:
    join = Join(timeout=5, call_timeout=2, clock=lambda: 0.0)
    join.add(a_call())
    assert join.due()[0].timeout == 2


@pytest.mark.parametrize(
    "wrong", [Number(1), None, "text", HandlerResponse.respond(Number(1)), HandlerResponse.delegate(Number(1), "x")]
)
def test_only_calls_can_be_added(wrong: Any) -> None:
    join = Join(clock=lambda: 0.0)
    with pytest.raises(TypeError, match="a join makes calls"):
        join.add([a_call(), wrong])
    assert [call.payload for call in join.due()] == [Number(0)]


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, True, "1"])
def test_a_calls_own_time_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(ValueError, match="the timeout of a call must be"):
        Join(clock=lambda: 0.0).add(a_call(timeout=seconds))


def test_the_earliest_of_the_times_counts() -> None:
    join = Join(timeout=10.0, call_timeout=4.0, max_parallel=9, clock=lambda: 0.0)
    join.add([a_call(), a_call(timeout=1.0), a_call(timeout=7.0)])
    assert [call.timeout for call in join.due()] == [4.0, 1.0, 4.0]


def test_the_same_response_may_be_added_more_than_once_and_is_not_changed() -> None:
    call, join = a_call(), Join(timeout=3.0, clock=lambda: 0.0)
    join.add([call] * 3)
    assert len({each.tag for each in join.due()}) == 3
    assert call == a_call()


def test_what_a_call_asked_for_is_kept() -> None:
    join = Join(clock=lambda: 0.0)
    join.add(HandlerResponse(Number(1), "tool", as_caller=True))
    join.add(HandlerResponse(Number(2), None))
    first, second = join.due()
    assert (first.payload, first.to, first.as_caller, first.is_fresh_call) == (Number(1), "tool", True, True)
    assert (second.to, second.as_caller) == (None, False)


def test_results_become_exceptions_for_programs() -> None:
    assert JoinResult(0, Number(1)).to_error() is None
    error = JoinResult(0, error=SystemError("no-answer", "x", False)).to_error("item 0")
    assert isinstance(error, NoAnswer)
    assert error.detail == "item 0"


def test_a_join_shows_how_far_it_is() -> None:
    join = Join(name="survey", max_parallel=2, clock=lambda: 0.0)
    join.add(a_call() for _ in range(5))
    join.take(Number(0), turn(join.due()[0].tag))
    assert repr(join) == "<Join survey:0: 1/5 ended, 1 open>"


def test_an_answer_that_looks_like_an_error_is_an_answer() -> None:
    """Only what the pump itself says is an error; a class of somebody's own may have a field called tag."""
    join = Join(clock=lambda: 0.0)
    join.add(a_call())
    taken = join.take(FAILED, turn(join.due()[0].tag, "tool"))
    assert taken == JoinResult(0, FAILED)


# -- the joins of a pump


@pytest.fixture
def registry() -> ThreadRegistry:
    return ThreadRegistry()


def a_frame(registry: ThreadRegistry) -> Frame:
    return registry.open_root(registry.begin("external"), "tool")


async def test_joins_belong_to_frames(registry: ThreadRegistry) -> None:
    joins = Joins(registry)
    one, two = a_frame(registry), a_frame(registry)
    first = joins.open(HandlerMetadata(one.id, "x"))
    named = joins.open(HandlerMetadata(one.id, "x"), name="other", max_parallel=3)
    assert joins.of(HandlerMetadata(one.id, "x")) is first
    assert joins.of(HandlerMetadata(one.id, "x"), "other") is named
    assert joins.of(HandlerMetadata(two.id, "x")) is None
    assert joins.of(HandlerMetadata(one.id, "x"), "third") is None
    assert named.max_parallel == 3
    assert len(joins) == 1


@pytest.mark.parametrize("state", [FrameState.ENDED, FrameState.CANCELLED])
async def test_joins_are_forgotten_with_their_frame(registry: ThreadRegistry, state: FrameState) -> None:
    joins, frame = Joins(registry), a_frame(registry)
    metadata = HandlerMetadata(frame.id, "x")
    join = joins.open(metadata)
    join.add(a_call())
    tag = join.due()[0].tag
    assert joins.expects(frame.id, tag)
    registry.close(frame, state)
    assert joins.of(metadata) is None
    assert len(joins) == 0
    assert not joins.expects(frame.id, tag)
    with pytest.raises(KeyError, match="not open"):
        joins.open(metadata)
    assert len(joins) == 0


async def test_an_unfinished_join_is_not_replaced(registry: ThreadRegistry) -> None:
    joins, metadata = Joins(registry), HandlerMetadata(a_frame(registry).id, "x")
    join = joins.open(metadata)
    join.add(a_call())
    with pytest.raises(ValueError, match="unfinished join 'join'"):
        joins.open(metadata)
    assert joins.of(metadata) is join


async def test_a_refused_join_is_not_kept(registry: ThreadRegistry) -> None:
    joins, metadata = Joins(registry), HandlerMetadata(a_frame(registry).id, "x")
    with pytest.raises(ValueError, match="max_parallel"):
        joins.open(metadata, max_parallel=0)
    assert joins.of(metadata) is None
    assert len(joins) == 0


async def test_answers_to_a_join_before_are_not_taken_for_ones_own(registry: ThreadRegistry) -> None:
    joins, metadata = Joins(registry), HandlerMetadata(a_frame(registry).id, "x")
    tags = []
    for _ in range(3):
        join = joins.open(metadata)
        join.add(a_call())
        (call,) = join.due()
        assert all(join.take(Number(-1), turn(tag)) is None for tag in tags)
        tags.append(call.tag)
        assert join.take(Number(1), turn(call.tag)) is not None
    assert len(set(tags)) == 3


async def test_every_pump_has_its_own_joins() -> None:
    one, two = StreamPump(), StreamPump()
    assert one.runtime.get(Joins) is not two.runtime.get(Joins)
    with use_runtime(one.runtime):
        assert get_joins() is one.runtime.get(Joins)


# -- through a running pump


class Gather:
    """A handler that makes calls with a join, and answers with a sum: of the answers, and of the errors by code.

    Args:
        calls: gives the calls.
        first_complete: ask whether it is complete before asking what is due, as one may.
        **options: of the join.
    """

    def __init__(
        self, calls: Callable[[Any], list[HandlerResponse]], first_complete: bool = False, **options: Any
    ) -> None:
        self._calls = calls
        self._first_complete = first_complete
        self._options = options
        self.results: list[JoinResult] = []
        self.most = 0

    async def __call__(self, payload: Any, metadata: HandlerMetadata) -> Any:
        join = get_joins().of(metadata)
        if join is None:
            join = get_joins().open(metadata, **self._options)
            join.add(self._calls(payload))
        else:
            join.take(payload, metadata)
        if self._first_complete and not join.is_complete:
            return join.due()
        due = join.due()
        self.most = max(self.most, join.open_calls)
        if not join.is_complete:
            return due
        self.results = list(join)
        return HandlerResponse.respond(Sum(sum(result.payload.n for result in join if result.ok)))


def codes(results: list[JoinResult]) -> list[str]:
    return ["ok" if result.error is None else result.error.code for result in results]


def kinds(pump: StreamPump, name: str, handler: Any, kind: str) -> None:
    """Register a listener to which all answers and errors come."""
    if kind == "agent":
        pump.register(name, handler, Word, agent=True, peers=["inc", "fail", "hang", "nothing", "nobody", "twice"])
    else:
        pump.register(name, handler, Word, joins=True)


@pytest.mark.parametrize("kind", ["agent", "tool"])
async def test_every_way_in_which_a_call_ends(kind: str) -> None:
    targets = ["inc", "fail", "hang", "nothing", "nobody", "inc"]
    gather = Gather(
        lambda payload: [HandlerResponse.call(Number(n), to) for n, to in enumerate(targets)], call_timeout=0.5
    )
    pump = StreamPump()
    kinds(pump, "gather", gather, kind)
    pump.register("inc", increment, Number)
    pump.register("fail", fail, Number)
    pump.register("hang", hang, Number)
    pump.register("nothing", nothing, Number)
    async with tidy(pump):
        assert await pump.request("gather", Word()) == Sum(1 + 6)
    assert codes(gather.results) == ["ok", "handler", "timeout", "no-answer", "routing", "ok"]
    assert [result.index for result in gather.results] == list(range(6))


async def test_no_calls_at_all_are_complete_at_once() -> None:
    gather = Gather(lambda payload: [])
    pump = StreamPump()
    pump.register("gather", gather, Word, joins=True)
    async with tidy(pump):
        assert await pump.request("gather", Word()) == Sum(0)


@pytest.mark.parametrize("first_complete", [False, True])
@pytest.mark.parametrize("timeout", [1e-12, 1e-9, 0.02])
async def test_a_join_completes_by_its_deadline(timeout: float, first_complete: bool) -> None:
    """Also when the time is over before the first call could be made; those that are not made have not begun."""
    begun = Recorder()
    calls = [HandlerResponse.call(Number(n), "hang" if n < 3 else "later") for n in range(10)]
    gather = Gather(lambda payload: calls, first_complete, timeout=timeout, max_parallel=3)
    pump = StreamPump()
    pump.register("gather", gather, Word, joins=True)
    pump.register("hang", hang, Number)
    pump.register("later", begun, Number)
    async with tidy(pump):
        assert await pump.request("gather", Word()) == Sum(0)
    assert codes(gather.results) == ["timeout"] * 10
    assert begun.seen == []


async def test_no_more_calls_than_allowed_are_open() -> None:
    gather = Gather(lambda payload: [HandlerResponse.call(Number(n), "inc") for n in range(50)], max_parallel=7)
    pump = StreamPump()
    pump.register("gather", gather, Word, joins=True)
    pump.register("inc", increment, Number)
    async with tidy(pump):
        assert await pump.request("gather", Word()) == Sum(sum(range(51)))
    assert gather.most == 7


async def test_joined_answers_and_errors_are_no_turns() -> None:
    """The number of turns is bounded, the number of calls that are joined is not; also where all of them fail."""
    results = {}
    for to in ("inc", "fail"):
        gather = Gather(lambda payload, to=to: [HandlerResponse.call(Number(n), to) for n in range(40)])
        pump = StreamPump(max_turns=5)
        pump.register("gather", gather, Word, joins=True)
        pump.register("inc", increment, Number)
        pump.register("fail", fail, Number)
        async with tidy(pump):
            await pump.request("gather", Word())
        results[to] = codes(gather.results)
    assert results == {"inc": ["ok"] * 40, "fail": ["handler"] * 40}


async def test_an_error_that_nobody_joins_is_a_turn() -> None:
    """Or a listener that answers each refusal with another call would never end."""
    calls = Recorder(lambda payload, metadata: HandlerResponse(Number(1), "nobody"))
    pump = StreamPump(max_turns=5)
    pump.register("stubborn", calls, Word, joins=True)
    async with tidy(pump):
        with pytest.raises(HopLimitError):
            await pump.request("stubborn", Word())
    assert len(calls.seen) == 5


async def test_a_second_answer_does_not_end_the_next_joins_call() -> None:
    """The first join's tool answers twice; meanwhile a second join of the same name waits for another tool."""
    rounds: list[list[Any]] = []

    async def agent(payload: Any, metadata: HandlerMetadata) -> Any:
        joins = get_joins()
        join = joins.of(metadata)
        if join is None:
            join = joins.open(metadata)
            join.add(HandlerResponse.call(Number(1), "twice"))
            return join.due()
        if join.take(payload, metadata) is None:
            return None
        rounds.append([result.payload for result in join])
        if len(rounds) == 2:
            return HandlerResponse.respond(Sum(rounds[1][0].n))
        join = joins.open(metadata)
        join.add(HandlerResponse.call(Number(100), "inc"))
        return join.due()

    async def twice(payload: Number, metadata: HandlerMetadata) -> list[HandlerResponse]:
        return [HandlerResponse.respond(Number(1)), HandlerResponse.respond(Number(2))]

    pump = StreamPump()
    pump.register("agent", agent, Word, agent=True, peers=["twice", "inc"])
    pump.register("twice", twice, Number)
    pump.register("inc", increment, Number)
    async with tidy(pump):
        assert await pump.request("agent", Word()) == Sum(101)
    assert rounds == [[Number(1)], [Number(101)]]


async def test_two_joins_of_one_frame_are_told_apart() -> None:
    async def agent(payload: Any, metadata: HandlerMetadata) -> Any:
        joins = get_joins()
        if isinstance(payload, Word):
            made = []
            for name in ("left", "right"):
                join = joins.open(metadata, name=name)
                join.add(HandlerResponse.call(Number(n), "inc") for n in ((0, 1) if name == "left" else (10, 20)))
                made += join.due()
            return made
        both = [joins.of(metadata, name) for name in ("left", "right")]
        for join in both:
            join.take(payload, metadata)
        if not all(join.is_complete for join in both):
            return None
        left, right = ([result.payload.n for result in join] for join in both)
        assert (left, right) == ([1, 2], [11, 21])
        return HandlerResponse.respond(Sum(sum(left + right)))

    pump = StreamPump()
    pump.register("agent", agent, Word, agent=True, peers=["inc"])
    pump.register("inc", increment, Number)
    async with tidy(pump):
        assert await pump.request("agent", Word()) == Sum(35)


async def test_a_group_ends_its_call_with_its_first_answer() -> None:
    gather = Gather(lambda payload: [HandlerResponse.call(Number(1), "pool")])
    pump = StreamPump()
    pump.register("gather", gather, Word, joins=True)
    for number in range(3):
        pump.register(f"pool.{number}", increment, Number, broadcast=True)
    async with tidy(pump):
        assert await pump.request("gather", Word()) == Sum(2)
    assert codes(gather.results) == ["ok"]
