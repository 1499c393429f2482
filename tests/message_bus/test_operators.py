"""Customising the pipeline: each documented example, and what a stage may do wrong."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from uuid import uuid4

import pytest
from aiostream import pipable_operator, streamcontext

from xml_pipeline.envelope import message_text
from xml_pipeline.errors import (
    ConversationCancelled,
    DeadlineExceeded,
    HandlerError,
    PipelineError,
    PumpStopped,
    RoutingError,
    ValidationError,
)
from xml_pipeline.message_bus.message_state import HandlerResponse
from xml_pipeline.message_bus.operators import pipe, stream
from xml_pipeline.message_bus.steps.c14n import c14n_step
from xml_pipeline.message_bus.steps.envelope_validation import envelope_validation_step
from xml_pipeline.message_bus.steps.payload_extraction import payload_extraction_step
from xml_pipeline.message_bus.steps.repair import repair_step
from xml_pipeline.message_bus.steps.thread_assignment import thread_assignment_step
from xml_pipeline.message_bus.stream_pump import StreamPump, extract_payloads

from .pump_kit import Ask, Gate, Other, Reply, echo, guard, quiesce, running, silent, until


def pump_with(*stages, handler=echo, **limits):
    """A pump with further stages in front of the others, and one tool."""

    class Custom(StreamPump):
        def build_pipeline(self, source):
            for stage in stages:
                source = stage(source)
            return super().build_pipeline(source)

    pump = Custom(**limits)
    pump.register("tool", handler, Ask)
    return pump


def external(state):
    return state.from_id == "external"


# -- the documented examples


async def test_log_between_stages():
    """``pipe.action`` between two of the pump's own stages."""
    log = []

    class Logging(StreamPump):
        def build_pipeline(self, source):
            return super().build_pipeline(
                stream.map(source, self._note) | pipe.action(lambda state: log.append("then"))
            )

        def _note(self, state):
            log.append(state.from_id)
            return state

    pump = Logging()
    pump.register("tool", echo, Ask)
    async with running(pump):
        log.clear()
        assert await pump.request("tool", Ask("x")) == Reply("x")
    assert log == ["external", "then", "tool", "then"]


async def test_throttle_a_stage():
    """An async map with a ``task_limit``: so many at once, and no more."""
    gate = asyncio.Event()
    now = most = 0
    reached = asyncio.Event()

    async def look_up(state):
        nonlocal now, most
        if not external(state):
            return state
        now += 1
        most = max(most, now)
        if now == 3:
            reached.set()
        await gate.wait()
        now -= 1
        return state

    pump = pump_with(pipe.map(look_up, task_limit=3))
    async with running(pump):
        asking = [asyncio.create_task(pump.request("tool", Ask(str(number)))) for number in range(10)]
        await reached.wait()
        await quiesce()
        assert most == 3
        gate.set()
        assert await asyncio.gather(*asking) == [Reply(str(number)) for number in range(10)]
    assert most == 3


async def test_filter():
    """What is filtered out ends as cancelled, and whoever waits for it is told."""
    pump = pump_with(pipe.filter(lambda state: b"spam" not in (state.raw_bytes or b"")))
    async with running(pump):
        assert await pump.request("tool", Ask("ham")) == Reply("ham")
        with pytest.raises(ConversationCancelled):
            await pump.request("tool", Ask("spam"))
        await pump.wait_idle()
        assert len(pump.dead_letters) == 0


async def test_branch_errors_off():
    """``partition`` sees failed messages; here they are told to somebody, and go on to their outcome."""
    told = []

    class Branching(StreamPump):
        def build_pipeline(self, source):
            def checked(state):
                if b">bad<" in (state.raw_bytes or b""):
                    raise ValidationError("bad")
                return state

            alarm = lambda branch: _tap(branch, told)  # noqa: E731 - short
            split = stream.map(source, checked) | pipe.partition(lambda state: state.error is not None, alarm)
            return super().build_pipeline(split)

    pump = Branching()
    pump.register("tool", echo, Ask)
    async with running(pump):
        assert await pump.request("tool", Ask("good")) == Reply("good")
        with pytest.raises(ValidationError):
            await pump.request("tool", Ask("bad"))
        assert await pump.request("tool", Ask("good")) == Reply("good")
    assert told == ["bad"]


def _tap(source, told):
    @pipable_operator
    async def tap(source):
        async with streamcontext(source) as streamer:
            async for batch in streamer:
                told.extend(state.error for state in batch)
                yield batch

    return tap.raw(source)


async def test_merge_sources():
    """``pipe.merge``: another source's messages come in through admission, like everything from outside."""
    got = []

    async def note(payload, metadata):
        got.append((metadata.from_id, payload.text))

    async def feed():
        yield ("tool", Ask("one"))
        yield message_text(
            '<Ask xmlns=""><Text>two</Text></Ask>', "feed", "tool", "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"
        )

    class Merging(StreamPump):
        def build_pipeline(self, source):
            return super().build_pipeline(stream.merge(source, feed(), from_id="feed"))

    pump = Merging()
    pump.register("tool", note, Ask)
    async with running(pump):
        await until(lambda: len(got) == 2)
    assert got == [("feed", "one"), ("feed", "two")]


async def test_merge_cannot_forge():
    async def feed():
        yield ("tool", Ask("one"))

    class Merging(StreamPump):
        def build_pipeline(self, source):
            return super().build_pipeline(stream.merge(source, feed(), from_id="system"))

    pump = Merging()
    pump.register("tool", silent, Ask)
    async with running(pump):
        await until(lambda: len(pump.dead_letters))
    (letter,) = pump.dead_letters.list()
    assert letter.from_id == "system"
    assert "system" in letter.detail


async def test_per_message_timeout():
    """``pipe.timeout`` runs from the stage to the end of the handler; an idle stream is none of its business."""
    gate = Gate()
    pump = pump_with(pipe.timeout(0.02), handler=gate)
    async with running(pump):
        with pytest.raises(DeadlineExceeded):
            await pump.request("tool", Ask("slow"), timeout=5)
        assert gate.cancelled == ["slow"]
        gate.open()
        assert await pump.request("tool", Ask("quick")) == Reply("quick")


async def test_a_timeout_that_passes_while_a_message_waits_is_not_started():
    gate = Gate(answer=False)
    pump = pump_with(pipe.timeout(0.03))
    pump.unregister_listener("tool")
    pump.register("tool", gate, Ask, concurrency=1)
    async with running(pump):
        first, second = (asyncio.create_task(pump.request("tool", Ask(text), timeout=5)) for text in "ab")
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [DeadlineExceeded] * 2
    assert gate.begun == ["a"]


@pytest.mark.parametrize("what", ["group", "payloads"])
async def test_a_timeout_is_that_of_every_message_that_one_becomes(what):
    """Each member of a group, and each payload of an envelope, has no more time than the message had."""
    left = []

    async def look(payload, metadata):
        left.append(metadata.deadline - asyncio.get_running_loop().time())
        return HandlerResponse.respond(Reply())

    pump = pump_with(pipe.timeout(100), handler=look)
    for name in ("crowd.one", "crowd.two", "crowd.three"):
        pump.register(name, look, Ask, broadcast=True, timeout=3600)
    pump.unregister_listener("tool")
    pump.register("tool", look, Ask, timeout=3600)
    async with running(pump):
        await (pump.inject("crowd", Ask()) if what == "group" else pump.inject(two_payloads()))
        await pump.wait_idle()
    assert len(left) == (3 if what == "group" else 2)
    assert all(0 < seconds <= 100 for seconds in left)


async def test_space_out_external_messages():
    """The first passes at once, the next waits for its time; what the pump sends itself never waits."""
    got = []

    async def note(payload, metadata):
        got.append(payload.text)
        return HandlerResponse(Ask("inner " + payload.text), "inner")

    async def inner(payload, metadata):
        got.append(payload.text)

    pump = pump_with(pipe.spaceout(3600), handler=note)
    pump.register("inner", inner, Ask)
    async with running(pump, shutdown=0.01):
        await pump.inject("tool", Ask("1"))
        await pump.inject("tool", Ask("2"))
        await quiesce(300)
        assert got == ["1", "inner 1"]


async def test_spaced_out_messages_all_arrive():
    got = []

    async def note(payload, metadata):
        got.append(payload.text)

    pump = pump_with(pipe.spaceout(0.001), handler=note, max_concurrent_pipelines=4)
    async with running(pump):
        for number in range(30):
            await pump.inject("tool", Ask(str(number)))
        await pump.wait_idle()
    assert got == [str(number) for number in range(30)]


# -- the whole sentence, as users' programs write it


class TheirSentence(StreamPump):
    """The pipeline as it stands in users' programs; only the import of the operators is another."""

    def build_pipeline(self, source):
        return (
            stream.iterate(source)
            | pipe.map(repair_step)
            | pipe.map(c14n_step)
            | pipe.map(envelope_validation_step)
            | pipe.map(payload_extraction_step)
            | pipe.map(thread_assignment_step)
            | pipe.flatmap(extract_payloads)
            | pipe.map(self._validate_and_deserialize)
            | pipe.map(self._route_step)
            | pipe.action(self._handle_errors)
            | pipe.filter(lambda s: s.error is None and s.target_listeners)
            | pipe.flatmap(self._dispatch_to_handlers, task_limit=20)
            | pipe.action(self._reinject_responses)
        )


def their_stages(pump):
    """The same stages one by one, to put others between them."""
    return [
        pipe.map(repair_step),
        pipe.map(c14n_step),
        pipe.map(envelope_validation_step),
        pipe.map(payload_extraction_step),
        pipe.map(thread_assignment_step),
        pipe.flatmap(extract_payloads),
        pipe.map(pump._validate_and_deserialize),
        pipe.map(pump._route_step),
        pipe.action(pump._handle_errors),
        pipe.filter(lambda s: s.error is None and s.target_listeners),
        pipe.flatmap(pump._dispatch_to_handlers, task_limit=20),
        pipe.action(pump._reinject_responses),
    ]


def tapped(place, *stages):
    """A pump with that sentence and further stages before the one with this number."""

    class Tapped(StreamPump):
        def build_pipeline(self, source):
            sentence = their_stages(self)
            sentence[place:place] = stages
            flow = stream.iterate(source)
            for stage in sentence:
                flow = flow | stage
            return flow

    return Tapped()


def populate(pump):
    """One listener of every kind that matters to the stages: tools, an agent, a group, and some that fail."""

    async def front(payload, metadata):
        if isinstance(payload, Ask):
            return HandlerResponse(Other(20), "double")
        return HandlerResponse.respond(Reply(f"it is {payload.number}"))

    async def double(payload, metadata):
        return HandlerResponse.respond(Other(2 * payload.number))

    async def crash(payload, metadata):
        raise RuntimeError("no")

    async def astray(payload, metadata):
        if isinstance(payload, Ask):
            return HandlerResponse(Ask(), "nobody")
        return HandlerResponse.respond(Reply(payload.code))

    async def one(payload, metadata):
        return HandlerResponse.respond(Reply(f"one of {metadata.group_size}"))

    async def two(payload, metadata):
        return HandlerResponse.respond(Reply(f"two of {metadata.group_size}"))

    pump.register("tool", echo, Ask)
    pump.register("front", front, Ask, agent=True, peers=["double"])
    pump.register("double", double, Other)
    pump.register("crash", crash, Ask)
    pump.register("astray", astray, Ask, agent=True, peers=["nobody"])
    pump.register("crowd.one", one, Ask, broadcast=True)
    pump.register("crowd.two", two, Ask, broadcast=True)
    return pump


def two_payloads():
    payloads = "".join(f'<Ask xmlns=""><Text>{text}</Text></Ask>' for text in ("first", "second"))
    return message_text(payloads, "external", "tool", str(uuid4()))


async def does_everything(pump):
    """Requests, calls, several payloads in one envelope, a group, and errors of each stage; each has its end."""
    assert await pump.request("tool", Ask("x"), timeout=5) == Reply("x")
    assert await pump.request("front", Ask(), timeout=5) == Reply("it is 40")
    assert {answer.text async for answer in pump.stream(two_payloads(), None, timeout=5)} == {"first", "second"}
    assert {answer.text async for answer in pump.stream("crowd", Ask(), timeout=5)} == {"one of 2", "two of 2"}
    assert await pump.request("astray", Ask(), timeout=5) == Reply("routing")
    for target, payload, error in [
        ("crash", Ask(), HandlerError),
        ("nobody", Ask(), RoutingError),
        ("tool", Other(), RoutingError),
        (b"<message>cut off", None, ValidationError),
    ]:
        with pytest.raises(error):
            await pump.request(target, payload, timeout=5)
    answers = await asyncio.gather(*(pump.request("tool", Ask(str(number)), timeout=5) for number in range(200)))
    assert answers == [Reply(str(number)) for number in range(200)]
    await pump.wait_idle()
    statistics = pump.statistics()
    assert statistics.accepted == sum(statistics.outcomes.values())
    assert (statistics.in_flight, pump.queue.inside, statistics.open_conversations) == (0, 0, 1)  # the pump's own


async def test_the_sentence_of_users_programs_runs_with_only_the_import_changed(caplog):
    pump = populate(TheirSentence())
    async with running(pump):
        await does_everything(pump)
    assert "does not validate" not in caplog.text
    assert "broke the pipeline" not in caplog.text


async def test_a_message_is_handled_once_by_that_sentence():
    """Dispatch and re-injection stand in it once each: nothing is answered twice, nothing is counted twice."""
    handled = Counter()

    async def note(payload, metadata):
        handled[payload.text] += 1
        return HandlerResponse.respond(Reply(payload.text))

    pump = TheirSentence()
    pump.register("tool", note, Ask)
    async with running(pump):
        before = pump.statistics().accepted
        for number in range(20):
            answers = [answer.text async for answer in pump.stream("tool", Ask(str(number)), timeout=5)]
            assert answers == [str(number)]
        assert pump.statistics().accepted - before == 40
    assert set(handled.values()) == {1}


TAPS = {
    "action": lambda seen: pipe.action(seen.append),
    "map": lambda seen: pipe.map(lambda state: seen.append(state) or state),
    "async action": lambda seen: pipe.action(_later(seen.append)),
    "filter": lambda seen: pipe.filter(lambda state: seen.append(state) or True),
    "flatmap": lambda seen: pipe.flatmap(lambda state: seen.append(state) or [state]),
}


def _later(function):
    async def call(state):
        await asyncio.sleep(0)
        function(state)

    return call


@pytest.mark.parametrize("place", range(13))
async def test_a_tap_anywhere_in_that_sentence_sees_the_messages_and_changes_nothing(place):
    seen = []
    pump = populate(tapped(place, pipe.action(seen.append)))
    async with running(pump):
        await does_everything(pump)
    assert {"tool", "double", "crowd"} <= {state.from_id for state in seen}
    # Behind the dispatch stage, what flows are the messages that handlers sent.
    assert any(external(state) for state in seen) is (place < 11)


@pytest.mark.parametrize("kind", TAPS)
@pytest.mark.parametrize("place", [0, 5, 8, 11, 12])
async def test_every_kind_of_tap(kind, place):
    seen = []
    pump = populate(tapped(place, TAPS[kind](seen)))
    async with running(pump):
        await does_everything(pump)
    assert seen


async def test_a_tap_in_front_of_all_stages():
    seen = []

    class Tapped(StreamPump):
        def build_pipeline(self, source):
            return super().build_pipeline(source | pipe.action(lambda state: seen.append(state.from_id)))

    pump = populate(Tapped())
    async with running(pump):
        await does_everything(pump)
    assert {"external", "tool", "double"} <= set(seen)


async def test_a_tap_behind_all_stages():
    seen = []

    class Tapped(StreamPump):
        def build_pipeline(self, source):
            return super().build_pipeline(source) | pipe.action(lambda state: seen.append(state.from_id))

    pump = populate(Tapped())
    async with running(pump):
        await does_everything(pump)
    assert {"tool", "double", "crowd"} <= set(seen)
    assert "external" not in seen


@pytest.mark.parametrize(
    "name",
    ["_validate_and_deserialize", "_route_step", "_handle_errors", "_dispatch_to_handlers", "_reinject_responses"],
)
async def test_a_stage_that_is_overridden_is_the_one_in_that_sentence(name):
    """Written out or not, the sentence takes its stages from the pump: a subclass may override any of them."""
    passed = []

    def wrapped(self, argument):
        passed.append(argument)
        return getattr(super(custom, self), name)(argument)

    wrapped.__name__ = name
    custom = type("Custom", (TheirSentence,), {name: wrapped})
    pump = populate(custom())
    async with running(pump):
        await does_everything(pump)
    assert passed


# -- leaving validation out


UNCHECKED = "does not validate"


def valid_as_it_is(state):
    return state


class WithoutEnvelopeValidation(StreamPump):
    _envelope_validation_step = staticmethod(valid_as_it_is)


class SentenceWithoutEnvelopeValidation(StreamPump):
    def build_pipeline(self, source):
        flow = stream.iterate(source)
        for stage in [*their_stages(self)[:2], *their_stages(self)[3:]]:
            flow = flow | stage
        return flow


class WithoutPayloadValidation(StreamPump):
    def _validate_and_deserialize(self, state):
        if not external(state):
            return super()._validate_and_deserialize(state)
        if state.listener is None:
            state.listener = self.listeners[state.to_id]
            state.frame.listener = state.listener
        state.payload = Ask(state.payload_tree.findtext("Text"))
        return state


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (WithoutEnvelopeValidation, "envelopes"),
        (SentenceWithoutEnvelopeValidation, "envelopes"),
        (WithoutPayloadValidation, "payloads"),
    ],
)
async def test_leaving_validation_out_is_logged_once_and_loudly(kind, what, caplog):
    pump = kind()
    pump.register("tool", silent, Ask)
    async with running(pump):
        for _ in range(3):
            await pump.inject("tool", Ask())
        await pump.wait_idle()
    said = [record for record in caplog.records if UNCHECKED in record.getMessage()]
    assert len(said) == 1
    assert what in said[0].getMessage()
    assert said[0].levelname == "ERROR"


@pytest.mark.parametrize("kind", [StreamPump, TheirSentence])
async def test_nothing_is_said_of_a_pump_that_validates_all(kind, caplog):
    pump = populate(kind())
    pump.register_generic_listener("any", silent)
    async with running(pump):
        await does_everything(pump)
        await pump.inject("any", Ask())
        await pump.wait_idle()
    assert UNCHECKED not in caplog.text


# -- stopping with stages that wait


async def test_a_shutdown_does_not_wait_for_messages_held_by_spaceout():
    pump = pump_with(pipe.spaceout(3600))
    async with guard(8):
        await pump.__aenter__()
        asking = [asyncio.create_task(pump.request("tool", Ask(str(number)))) for number in range(3)]
        await quiesce(100)
        report = await pump.shutdown(0.01)
        results = await asyncio.gather(*asking, return_exceptions=True)
    assert not report.drained
    assert all(isinstance(result, ConversationCancelled) for result in results[1:])
    assert pump.statistics().in_flight == 0


async def test_a_shutdown_does_not_wait_for_a_stage_that_never_ends():
    entered = asyncio.Event()

    async def never(state):
        if external(state):
            entered.set()
            await asyncio.Event().wait()
        return state

    pump = pump_with(pipe.map(never))
    async with guard(8):
        await pump.__aenter__()
        asking = asyncio.create_task(pump.request("tool", Ask()))
        await entered.wait()
        await pump.shutdown(0.01)
        (result,) = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(result, ConversationCancelled)
    assert pump.statistics().in_flight == 0


async def test_a_cancelled_message_leaves_its_stage():
    """Cancelling a conversation whose message waits in a user's stage gives it its outcome at once."""
    gate = asyncio.Event()
    entered = asyncio.Event()

    async def hold(state):
        if external(state):
            entered.set()
            await gate.wait()
        return state

    pump = pump_with(pipe.map(hold))
    async with running(pump):
        thread = await pump.inject("tool", Ask())
        await entered.wait()
        pump.cancel(thread)
        with pytest.raises(ConversationCancelled):
            await pump.wait(thread)
        gate.set()
        await pump.wait_idle()
        assert pump.statistics().in_flight == 0


# -- what a lifted function may do


@pytest.mark.parametrize("kind", ["map", "action", "filter", "flatmap"])
@pytest.mark.parametrize("error", [ValueError, StopIteration, KeyError])
async def test_an_exception_is_that_messages_outcome(kind, error):
    def fail(state):
        if b">bad<" in (state.raw_bytes or b""):
            raise error
        return [state] if kind == "flatmap" else state

    pump = pump_with(getattr(pipe, kind)(fail))
    async with running(pump):
        results = await asyncio.gather(
            *(pump.request("tool", Ask(text), timeout=5) for text in ("good", "bad", "good")), return_exceptions=True
        )
    assert [results[0], results[2]] == [Reply("good")] * 2
    assert isinstance(results[1], PipelineError)
    assert error.__name__ in results[1].detail


@pytest.mark.parametrize("kind", ["map", "action"])
async def test_an_exception_in_an_async_function_too(kind):
    async def fail(state):
        await asyncio.sleep(0)
        if b">bad<" in (state.raw_bytes or b""):
            raise ValueError("why")
        return state

    pump = pump_with(getattr(pipe, kind)(fail))
    async with running(pump):
        results = await asyncio.gather(
            *(pump.request("tool", Ask(text), timeout=5) for text in ("good", "bad", "good")), return_exceptions=True
        )
    assert [results[0], results[2]] == [Reply("good")] * 2
    assert "ValueError: why" in results[1].detail


@pytest.mark.parametrize("kind", ["map", "action", "filter", "flatmap"])
@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, SystemExit])
async def test_what_a_plain_function_raises_never_ends_the_pump(kind, error):
    """Nothing is awaited in it: a cancellation can only be its own."""

    def fail(state):
        if b">bad<" in (state.raw_bytes or b""):
            raise error("why")
        return [state] if kind == "flatmap" else state

    pump = pump_with(getattr(pipe, kind)(fail))
    async with running(pump):
        for _ in range(2):
            with pytest.raises(PipelineError) as caught:
                await pump.request("tool", Ask("bad"), timeout=5)
            assert not isinstance(caught.value, PumpStopped)
            assert await pump.request("tool", Ask("good"), timeout=5) == Reply("good")
        assert pump.statistics().state == "running"


async def test_an_async_function_that_is_cancelled_from_inside():
    async def cancels(state):
        if external(state):
            raise asyncio.CancelledError
        return state

    pump = pump_with(pipe.map(cancels))
    async with running(pump):
        with pytest.raises(PipelineError):
            await pump.request("tool", Ask(), timeout=3)


@pytest.mark.parametrize("returned", [None, 42, "text"])
async def test_a_map_that_returns_no_message(returned):
    pump = pump_with(pipe.map(lambda state: returned if external(state) else state))
    async with running(pump):
        with pytest.raises(PipelineError) as caught:
            await pump.request("tool", Ask(), timeout=5)
    assert type(returned).__name__ in caught.value.detail


async def test_a_map_may_return_a_changed_copy():
    """The functional habit: more of them than may be inside the stages at once, so that a leak would show."""
    pump = pump_with(
        pipe.map(lambda state: dataclasses.replace(state, metadata={"seen": True})), max_concurrent_pipelines=5
    )
    async with running(pump):
        for number in range(30):
            assert await pump.request("tool", Ask(str(number)), timeout=5) == Reply(str(number))
        assert pump.queue.inside == 0


async def test_a_flatmap_that_drops_a_message_gives_it_an_outcome():
    pump = pump_with(pipe.flatmap(lambda state: [] if external(state) else [state]))
    async with running(pump, shutdown=0.5):
        with pytest.raises(ConversationCancelled):
            await pump.request("tool", Ask(), timeout=2)
        async with guard(2):
            await pump.wait_idle()


async def test_a_flatmap_may_split_a_message():
    got = []

    async def note(payload, metadata):
        got.append(metadata.thread_id)

    class Splitting(StreamPump):
        def _fan_out_step(self, state):
            found = super()._fan_out_step(state)
            states = found if isinstance(found, list) else [found]
            return [*states, self.split(states[0])] if external(state) else states

    pump = Splitting()
    pump.register("tool", note, Ask)
    async with running(pump):
        await pump.inject("tool", Ask())
        await pump.wait_idle()
    assert len(set(got)) == 2


async def test_async_map_keeps_the_order_of_a_frame():
    """The first takes longest; those of other frames overtake, those of its own do not."""
    handled = []

    async def reverse(state):
        await asyncio.sleep(0)
        if b"<Number>0<" in (state.raw_bytes or b""):
            await quiesce(30)
        return state

    async def again(payload, metadata):
        handled.append((metadata.thread_id, payload.number))
        if payload.number == 100:
            return [HandlerResponse(Other(number), "again") for number in range(10)]
        return None

    pump = pump_with(pipe.map(reverse, task_limit=8))
    pump.register("again", again, Other)
    async with running(pump):
        threads = [await pump.inject("again", Other(100)) for _ in range(4)]
        await pump.wait_idle()
    for thread in threads:
        assert [number for frame, number in handled if frame == thread] == [100, *range(10)]


async def test_async_map_lets_other_frames_overtake():
    gate = asyncio.Event()

    async def hold(state):
        if b"slow" in (state.raw_bytes or b"") and external(state):
            await gate.wait()
        return state

    pump = pump_with(pipe.map(hold))
    async with running(pump):
        slow = asyncio.create_task(pump.request("tool", Ask("slow")))
        await quiesce()
        assert await pump.request("tool", Ask("quick")) == Reply("quick")
        assert not slow.done()
        gate.set()
        assert await slow == Reply("slow")


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_task_limit_below_one_is_refused(limit):
    async def function(state):
        return state

    pump = pump_with(pipe.map(function, task_limit=limit))
    async with guard():
        with pytest.raises(ValueError, match="task_limit"):
            await pump.run()
        await pump.shutdown()


async def test_failed_messages_pass_by_users_functions():
    seen = []

    def fail(state):
        if external(state):
            raise ValueError
        return state

    pump = pump_with(pipe.map(fail), pipe.action(lambda state: seen.append(state.from_id)))
    async with running(pump):
        seen.clear()
        with pytest.raises(PipelineError):
            await pump.request("tool", Ask())
    assert seen == []


# -- overriding stages


async def test_build_pipeline_is_called_once():
    calls = []

    class Counting(StreamPump):
        def build_pipeline(self, source):
            calls.append(source)
            return super().build_pipeline(source)

    pump = Counting()
    pump.register("tool", echo, Ask)
    async with running(pump):
        for _ in range(5):
            await pump.request("tool", Ask())
    assert len(calls) == 1


@pytest.mark.parametrize(
    "name",
    [
        "_repair_step",
        "_c14n_step",
        "_envelope_validation_step",
        "_payload_extraction_step",
        "_thread_assignment_step",
        "_fan_out_step",
        "_validate_and_deserialize",
        "_route_step",
    ],
)
async def test_each_stage_can_be_overridden_and_may_fail(name):
    seen = Counter()

    def wrapped(self, state):
        seen[name] += 1
        if state.metadata.get("fail") or b">bad<" in (state.wire or state.raw_bytes or b""):
            raise ValueError("in " + name)
        return getattr(super(custom, self), name)(state)

    custom = type("Custom", (StreamPump,), {name: wrapped})
    pump = custom()
    pump.register("tool", echo, Ask)
    async with running(pump):
        assert await pump.request("tool", Ask("good")) == Reply("good")
        with pytest.raises(PipelineError) as caught:
            await pump.request("tool", Ask("bad"), timeout=5)
        assert "in " + name in caught.value.detail
        assert await pump.request("tool", Ask("good")) == Reply("good")
    assert seen[name] >= 5


@pytest.mark.parametrize("name", ["_handle_errors", "_dispatch_to_handlers", "_reinject_responses"])
async def test_a_stage_of_the_pump_that_breaks_once_loses_nobody(name):
    """Those three are not lifted over messages: an exception there breaks the stream. It is made anew, and whoever was
    inside is told."""
    broken = []

    def breaks(self, argument):
        states = argument if isinstance(argument, list) else [argument]
        if not broken and any(state.conversation and state.conversation.owner == "external" for state in states):
            broken.append(True)
            raise ValueError("broken once")
        return getattr(super(custom, self), name)(argument)

    custom = type("Custom", (StreamPump,), {name: breaks})
    pump = custom()
    pump.register("tool", echo, Ask)
    async with running(pump, shutdown=0.5):
        with pytest.raises(PipelineError):
            await pump.request("nobody" if name == "_handle_errors" else "tool", Ask(), timeout=3)
        assert broken
        assert await pump.request("tool", Ask("x"), timeout=3) == Reply("x")
        async with guard(3):
            await pump.wait_idle()


def breaking(times):
    """A stage of a user's own that raises for the first so many external messages."""
    left = [times]

    @pipable_operator
    async def stage(source):
        async with streamcontext(source) as streamer:
            async for batch in streamer:
                if left[0] and any(external(state) for state in batch):
                    left[0] -= 1
                    raise ValueError("the stage broke")
                yield batch

    return stage.pipe()


async def test_a_users_stage_that_breaks_the_stream(caplog):
    pump = pump_with(breaking(3))
    async with running(pump):
        for _ in range(3):
            with pytest.raises(PipelineError) as caught:
                await pump.request("tool", Ask("inside"), timeout=3)
            assert "the stage broke" in caught.value.detail
        assert await pump.request("tool", Ask("after")) == Reply("after")
        await pump.wait_idle()
        statistics = pump.statistics()
        assert sum(statistics.outcomes.values()) == statistics.accepted
    assert "a stage broke the pipeline" in caplog.text


async def test_handlers_that_run_survive_a_broken_stage():
    """What runs when a stage breaks was inside no stage."""
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    pump.register("other", echo, Other)
    broken = []

    @pipable_operator
    async def only_other(source):
        async with streamcontext(source) as streamer:
            async for batch in streamer:
                if not broken and any(state.to_id == "other" for state in batch):
                    broken.append(True)
                    raise ValueError
                yield batch

    pump.build_pipeline = lambda source: StreamPump.build_pipeline(pump, only_other.raw(source))
    async with running(pump):
        asking = asyncio.create_task(pump.request("tool", Ask("x")))
        await gate.until_begun(1)
        with pytest.raises(PipelineError):
            await pump.request("other", Other(), timeout=3)
        gate.open()
        assert await asking == Reply("x")


async def test_a_stage_that_always_breaks_ends_the_pump_and_nobody_waits():
    pump = pump_with(breaking(10**6))
    async with guard():
        run = asyncio.create_task(pump.run())
        await pump.wait_idle()
        results = await asyncio.gather(
            *(pump.request("tool", Ask(), timeout=5) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, PipelineError) for result in results)
        for _ in range(10):
            if run.done():
                break
            await asyncio.gather(pump.request("tool", Ask(), timeout=5), return_exceptions=True)
        (ended,) = await asyncio.gather(run, return_exceptions=True)
        assert isinstance(ended, ValueError)
        await pump.shutdown()


async def test_module_functions_of_the_steps_build_a_pipeline_of_ones_own():
    """The documented coroutine forms, without a pump."""
    from xml_pipeline.message_bus.message_state import MessageState

    raw = message_text('<Ask xmlns=""><Text>x</Text></Ask>', "a", "tool", "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11")
    state = MessageState(raw)
    for step in (repair_step, c14n_step, envelope_validation_step, payload_extraction_step, thread_assignment_step):
        state = await step(state)
    assert (state.error, state.from_id, state.to_id) == (None, "a", "tool")
    assert state.payload_tree.findtext("Text") == "x"


def test_both_namespaces_offer_the_same_names():
    names = {name for name in vars(pipe) if not name.startswith("_")}
    assert names == {"map", "action", "filter", "flatmap", "timeout", "spaceout", "merge", "partition"}
    assert names <= {name for name in vars(stream) if not name.startswith("_")}
