"""`StreamPump.sequence` and `StreamPump.map`, for programs and for handlers."""

from __future__ import annotations

import asyncio
import inspect
import math
import uuid
from typing import Any

import pytest
from pydantic import BaseModel

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import (
    ConversationCancelled,
    DeadlineExceeded,
    ForgedMessage,
    HandlerError,
    HopLimitError,
    NoAnswer,
    PipelineError,
    PumpStopped,
    RoutingError,
    ValidationError,
)
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.primitives.buffer import BufferStart
from xml_pipeline.primitives.handover import Handovers
from xml_pipeline.primitives.sequence import SequenceStart

from .helpers import Gate, Recorder, reached
from .orchestration_kit import Number, Sum, Word, double, fail, hang, increment, left, nothing, tidy, xml_of

DOTTED = ["math.add.one", "a, b", "back\\slash", "ein Name mit Leerzeichen", "数.加", "x", "x.y", "x.y.z", "<&>", '"q"']
"""Names that a path, a list or XML could trip over."""


class Model(BaseModel):
    n: int


def a_pump(**options: Any) -> StreamPump:
    pump = StreamPump(**options)
    pump.register("inc", increment, Number)
    pump.register("double", double, Number)
    pump.register("fail", fail, Number)
    pump.register("hang", hang, Number)
    pump.register("nothing", nothing, Number)
    return pump


# -- sequences


async def test_two_steps() -> None:
    pump = a_pump()
    async with tidy(pump):
        assert await pump.sequence(["inc", "double"], Number(4)) == Number(10)
        assert await pump.sequence(("double", "inc"), Number(4)) == Number(9)
        assert await pump.sequence(iter(["inc"]), Number(4)) == Number(5)


async def test_ten_steps_with_any_names() -> None:
    pump, order = StreamPump(), []

    def step(index: int) -> Any:
        async def handle(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
            order.append(index)
            return HandlerResponse.respond(Number(payload.n * 2 + index % 2))

        return handle

    for index, name in enumerate(DOTTED):
        pump.register(name, step(index), Number)
    async with tidy(pump):
        assert await pump.sequence(DOTTED, Number(0)) == Number(0b0101010101)
        assert await pump.sequence(DOTTED[::-1], Number(0)) == Number(0b1010101010)
    assert order == [*range(10), *range(9, -1, -1)]


async def test_classes_change_from_step_to_step() -> None:
    pump = StreamPump()

    async def to_word(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Word("x" * payload.n))

    async def to_model(payload: Word, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Model(n=len(payload.text)))

    pump.register("word", to_word, Number)
    pump.register("model", to_model, Word)
    async with tidy(pump):
        assert await pump.sequence(["word", "model"], Number(3)) == Model(n=3)
        assert await pump.sequence(["model", "model"][:1], Word("four")) == Model(n=4)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("fail", HandlerError),
        ("nothing", NoAnswer),
        ("missing", RoutingError),
        ("other", RoutingError),
        ("system.boot", RoutingError),
    ],
)
@pytest.mark.parametrize("index", [0, 1, 2])
async def test_the_error_says_which_step(bad: str, error: type[PipelineError], index: int) -> None:
    steps = ["inc", "inc"]
    steps.insert(index, bad)
    after = Recorder(lambda payload, metadata: HandlerResponse.respond(payload))
    pump = a_pump()
    pump.register("other", nothing, Word)  # it takes another class
    pump.register("after", after, Number)
    async with tidy(pump):
        with pytest.raises(error) as caught:
            await pump.sequence([*steps, "after"], Number(0))
    assert caught.value.target == bad
    assert caught.value.detail.startswith(f"step {index}, {bad!r}: ")
    assert str(caught.value) == error.public_message
    assert after.seen == []


async def test_the_time_is_for_all_steps_together() -> None:
    pump = a_pump()
    async with tidy(pump):
        with pytest.raises(DeadlineExceeded) as caught:
            await pump.sequence(["inc", "hang", "inc"], Number(0), timeout=0.02)
    assert caught.value.target == "hang"
    assert caught.value.detail.startswith("step 1, 'hang'")


async def test_the_time_is_that_of_the_steps_where_none_is_given() -> None:
    pump = StreamPump()
    pump.register("hang", hang, Number, timeout=0.02)
    async with tidy(pump):
        with pytest.raises(DeadlineExceeded):
            await pump.sequence(["hang"], Number(0), timeout=0)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, -math.inf, "1", None, True, 10**400])
async def test_a_wrong_time_is_refused_at_once(seconds: Any) -> None:
    begun = Recorder()
    pump = StreamPump()
    pump.register("tool", begun, Number)
    async with tidy(pump):
        for aw in (
            pump.sequence(["tool"], Number(1), timeout=seconds),
            pump.map("tool", [Number(1)], timeout=seconds),
            pump.map("tool", [Number(1)], item_timeout=seconds),
        ):
            with pytest.raises(ValidationError) as caught:
                await aw
            assert "timeout" in caught.value.detail
    assert begun.seen == []


@pytest.mark.parametrize("steps", ["inc", [1], [None], ["inc", ""], ["inc", "  "], 5, [["inc"]]])
async def test_steps_are_names(steps: Any) -> None:
    pump = a_pump()
    async with tidy(pump):
        with pytest.raises(TypeError):
            await pump.sequence(steps, Number(1))


async def test_a_sequence_needs_a_step() -> None:
    pump = a_pump()
    async with tidy(pump):
        with pytest.raises(ValidationError, match="at least one step"):
            await pump.sequence([], Number(1))


async def test_a_sequence_has_a_bounded_number_of_steps() -> None:
    pump = a_pump(max_fan_out=5)
    async with tidy(pump):
        assert await pump.sequence(["inc"] * 5, Number(0)) == Number(5)
        with pytest.raises(ValidationError) as caught:
            await pump.sequence(["inc"] * 6, Number(0))
    assert "more than 5 steps (max_fan_out)" in caught.value.detail


@pytest.mark.parametrize("payload", ["text", 5, None, Number, object(), {"n": 1}])
async def test_what_is_no_payload_is_refused_before_anything_is_sent(payload: Any) -> None:
    pump = a_pump()
    async with tidy(pump):
        with pytest.raises(TypeError, match="the payload must be an instance of"):
            await pump.sequence(["inc"], payload)


# -- maps


async def test_answers_come_in_the_order_of_the_payloads() -> None:
    """The first payloads are answered last."""
    pump, turn = StreamPump(max_concurrent_handlers=30), asyncio.Condition()
    done: list[int] = []

    async def backwards(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        async with turn:
            await turn.wait_for(lambda: len(done) == 9 - payload.n)
            done.append(payload.n)
            turn.notify_all()
        return HandlerResponse.respond(Sum(payload.n * payload.n))

    pump.register("tool", backwards, Number)
    async with tidy(pump):
        answers = await pump.map("tool", (Number(n) for n in range(10)))
    assert done == [*range(9, -1, -1)]
    assert answers == [Sum(n * n) for n in range(10)]


async def test_no_payloads_no_answers() -> None:
    pump = a_pump()
    async with tidy(pump) as audit:
        assert await pump.map("inc", []) == []
        assert audit.outcomes() == []


async def test_a_thousand_items_of_which_ten_fail_and_ten_hang() -> None:
    running = most = 0
    pump = StreamPump(max_concurrent_handlers=100)

    async def tool(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            if payload.n % 100 == 7:
                raise ValueError("on purpose")
            if payload.n % 100 == 13:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return HandlerResponse.respond(Sum(2 * payload.n))
        finally:
            running -= 1

    pump.register("the.tool", tool, Number)
    async with tidy(pump):
        outcomes = await pump.map(
            "the.tool",
            [Number(n) for n in range(1_000)],
            max_parallel=50,
            item_timeout=2.0,
            return_exceptions=True,
        )
    assert 10 < most <= 50
    assert running == 0
    for n, outcome in enumerate(outcomes):
        if n % 100 == 7:
            assert type(outcome) is HandlerError
            assert outcome.detail.startswith(f"item {n} of 1000 for 'the.tool': ")
        elif n % 100 == 13:
            assert type(outcome) is DeadlineExceeded
            assert outcome.target == "the.tool"
            assert outcome.detail.startswith(f"item {n} of 1000 for 'the.tool': ")
        else:
            assert outcome == Sum(2 * n)


async def test_the_first_error_is_raised_when_all_have_ended() -> None:
    ended: list[int] = []
    pump = StreamPump()

    async def tool(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        ended.append(payload.n)
        if payload.n in (3, 5):
            raise ValueError("on purpose")
        return HandlerResponse.respond(payload)

    pump.register("tool", tool, Number)
    async with tidy(pump):
        with pytest.raises(HandlerError) as caught:
            await pump.map("tool", [Number(n) for n in range(8)], max_parallel=2)
    assert ended == [*range(8)]
    assert caught.value.detail.startswith("item 3 of 8")


async def test_what_has_not_ended_by_the_deadline_has_an_error_and_the_others_have_their_answers() -> None:
    pump = StreamPump()
    begun: list[int] = []

    async def tool(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        begun.append(payload.n)
        if payload.n >= 2:
            await asyncio.Event().wait()
        return HandlerResponse.respond(payload)

    pump.register("tool", tool, Number)
    async with tidy(pump):
        outcomes = await pump.map(
            "tool", [Number(n) for n in range(6)], max_parallel=2, timeout=0.5, return_exceptions=True
        )
    assert outcomes[:2] == [Number(0), Number(1)]
    assert [type(outcome) for outcome in outcomes[2:]] == [DeadlineExceeded] * 4
    assert begun == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None])
async def test_a_wrong_max_parallel_is_refused(value: Any) -> None:
    pump = a_pump()
    async with tidy(pump):
        with pytest.raises(ValidationError) as caught:
            await pump.map("inc", [Number(1)], max_parallel=value)
    assert "max_parallel" in caught.value.detail


@pytest.mark.parametrize("target", ["missing", "", "inc "])
@pytest.mark.parametrize("return_exceptions", [False, True])
async def test_an_unknown_target_is_one_error(target: str, return_exceptions: bool) -> None:
    """Nobody asked anybody, so there is nothing to be told per item."""
    pump = a_pump()
    async with tidy(pump):
        with pytest.raises(RoutingError) as caught:
            await pump.map(target, [Number(1)] * 3, return_exceptions=return_exceptions)
    assert "Unknown target" in caught.value.detail


async def test_a_payload_that_cannot_be_sent_has_an_error_of_its_own() -> None:
    pump = a_pump()
    async with tidy(pump):
        outcomes = await pump.map(
            "inc",
            [Number(1), Word("x"), Number("x"), Number(5)],  # type: ignore[arg-type]
            return_exceptions=True,
        )
    assert outcomes[0] == Number(2)
    assert outcomes[3] == Number(6)
    assert [type(outcome) for outcome in outcomes[1:3]] == [RoutingError, ValidationError]


async def test_more_payloads_than_a_message_may_ask_for() -> None:
    """A program that has the objects at hand is not bounded."""
    pump = a_pump(max_fan_out=3)
    async with tidy(pump):
        assert await pump.map("inc", [Number(n) for n in range(50)], max_parallel=20) == [
            Number(n + 1) for n in range(50)
        ]


async def test_the_answers_need_not_fit_into_a_message_together() -> None:
    text = "<&>" * 1_000
    pump = StreamPump(max_message_bytes=30_000)

    async def tool(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Word(text))

    pump.register("tool", tool, Number)
    async with tidy(pump):
        assert await pump.map("tool", [Number(n) for n in range(20)]) == [Word(text)] * 20
        assert await pump.sequence(["tool"], Number(1)) == Word(text)


async def test_a_sequence_for_each_item() -> None:
    """The pump's own listeners are targets like others; a sequence below that fails is a failure."""
    pump = a_pump()
    starts = [SequenceStart(steps, xml_of(Number(5))) for steps in ("inc,double", "inc,fail", "double,inc")]
    async with tidy(pump):
        first, second, third = await pump.map("system.sequence", starts, return_exceptions=True)
        assert "<N>12</N>" in first.final_result
        assert isinstance(second, HandlerError)
        assert "<N>11</N>" in third.final_result
        with pytest.raises(RoutingError) as caught:
            await pump.sequence(["system.buffer", "inc"], BufferStart("missing", xml_of(Number(1))))
    assert (caught.value.target, caught.value.step) == ("system.buffer", "sequence")
    assert "Unknown target 'missing'" in caught.value.detail


# -- whoever asks


async def test_senders_conversations_and_peer_tables_are_as_for_any_message() -> None:
    seen = Recorder(lambda payload, metadata: HandlerResponse.respond(payload))
    pump = StreamPump()
    pump.register("tool", seen, Number)
    pump.register_peer_table("none", {"system.sequence": [], "system.buffer": []})
    thread = str(uuid.uuid4())
    async with tidy(pump):
        await pump.sequence(["tool"], Number(1), from_id="me", thread_id=thread)
        await pump.map("tool", [Number(1)], from_id="me", thread_id=thread)
        assert {metadata.conversation_id for metadata in seen.metadata} == {thread}
        with pytest.raises(ForgedMessage):
            await pump.sequence(["tool"], Number(1), from_id="you", thread_id=thread)
        with pytest.raises(ForgedMessage):
            await pump.map("tool", [Number(1)], from_id="tool")
        with pytest.raises(RoutingError):
            await pump.sequence(["tool"], Number(1), routing_table="none")
        with pytest.raises(RoutingError):
            await pump.map("tool", [Number(1)], routing_table="none")
        with pytest.raises(RoutingError):
            await pump.map("tool", [Number(1)], routing_table="missing")
    assert len(seen.seen) == 2


async def test_a_handler_may_use_them_also_with_one_slot() -> None:
    pump = a_pump(max_concurrent_handlers=1)

    @pump.listener("handler", Word)
    async def handler(payload: Word, metadata: HandlerMetadata) -> HandlerResponse:
        numbers = await pump.map("double", [Number(n) for n in range(20)])
        last = await pump.sequence(["inc", "double"], Number(sum(number.n for number in numbers)))
        return HandlerResponse.respond(Sum(last.n))

    async with tidy(pump):
        assert await pump.request("handler", Word()) == Sum(2 * (380 + 1))


async def test_cancelling_whoever_asks_cancels_everything() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Number)
    for make in (
        lambda: pump.sequence(["tool", "tool"], Number(1)),
        lambda: pump.map("tool", [Number(n) for n in range(100)]),
    ):
        gate.entered.clear()
        gate.cancelled.clear()
        if pump.statistics().state == "new":
            await pump.__aenter__()
        asking = asyncio.create_task(make())
        await reached(gate.entered)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await reached(gate.cancelled)
        await pump.wait_idle()
        now = left(pump)
        assert (now.frames, now.joins, now.sequences, now.buffers, now.handovers, now.limited_calls) == (
            1,
            0,
            0,
            0,
            0,
            0,
        )
    assert (await pump.shutdown()).drained


async def test_cancelling_the_conversation_of_a_thousand_open_calls() -> None:
    entered, running = asyncio.Event(), 0
    pump = StreamPump()

    async def tool(payload: Number, metadata: HandlerMetadata) -> None:
        nonlocal running
        running += 1
        if running == 20:
            entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            running -= 1

    pump.register("tool", tool, Number)
    thread = str(uuid.uuid4())
    async with tidy(pump) as audit:
        calls = [Number(n) for n in range(1_000)]
        asking = asyncio.create_task(pump.map("tool", calls, max_parallel=1_000, thread_id=thread))
        await reached(entered)
        assert left(pump).frames == 1_002
        assert pump.cancel(thread)
        with pytest.raises(ConversationCancelled):
            await asking
        await audit.idle()
        while running:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert len(audit.outcomes(to_id="tool")) == 1_000


async def test_shutdown_in_the_middle_finishes_what_was_begun() -> None:
    gate = Gate(Number(1))
    pump = StreamPump()
    pump.register("tool", gate, Number)
    await pump.__aenter__()
    asking = [
        asyncio.create_task(pump.sequence(["tool", "tool"], Number(1))),
        asyncio.create_task(pump.map("tool", [Number(n) for n in range(30)])),
    ]
    await reached(gate.entered)
    stopping = asyncio.create_task(pump.shutdown())
    await asyncio.sleep(0)
    gate.opened.set()
    assert (await stopping).drained
    assert await asyncio.gather(*asking) == [Number(1), [Number(1)] * 30]


async def test_shutdown_without_patience_tells_whoever_waits() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Number)
    await pump.__aenter__()
    asking = [
        asyncio.create_task(pump.sequence(["tool"], Number(1))),
        asyncio.create_task(pump.map("tool", [Number(n) for n in range(30)])),
    ]
    await reached(gate.entered)
    assert not (await pump.shutdown(0.0)).drained
    for each in asking:
        with pytest.raises(PumpStopped):
            await each
    now = left(pump)
    assert (now.joins, now.sequences, now.buffers, now.handovers, now.limited_calls) == (0, 0, 0, 0, 0)
    for late in (pump.sequence(["tool"], Number(1)), pump.map("tool", [Number(1)])):
        with pytest.raises(PumpStopped):
            await late
    assert len(pump.runtime.get(Handovers)) == 0


async def test_too_deep_a_recursion_ends_with_an_error() -> None:
    pump = StreamPump(max_hops=9)

    async def again(payload: Any, metadata: HandlerMetadata) -> Any:
        """Asks for a sequence whose only step is itself."""
        if isinstance(payload, Number):
            return HandlerResponse(SequenceStart("again", xml_of(Number(payload.n + 1))), "system.sequence")
        return HandlerResponse.respond(payload)

    pump.register("again", again, Number, agent=True, peers=["system.sequence"])
    async with tidy(pump):
        with pytest.raises(HopLimitError):
            await pump.sequence(["again"], Number(0))


# -- keys of handovers


async def test_a_key_that_somebody_guessed_is_no_key() -> None:
    """Nor is one that was used, or one of another kind of request."""
    pump = a_pump()
    async with tidy(pump):
        handovers = pump.runtime.get(Handovers)
        guessed = str(uuid.uuid4())
        answer = await pump.request("system.sequence", SequenceStart("inc", "", sequence_id=guessed))
        assert answer.code == "validation"
        answer = await pump.request("system.buffer", BufferStart("inc", "", buffer_id=guessed))
        assert answer.code == "validation"
        with handovers.offer([Number(1)]) as handover:
            start = BufferStart("inc", "", buffer_id=handover.key)
            assert (await pump.request("system.buffer", start)).successful == 1
            assert (await pump.request("system.buffer", start)).code == "validation"
            assert len(handovers) == 0
            assert [result.payload for result in handover.results if result] == [Number(2)]


async def test_the_objects_do_not_stand_in_the_request() -> None:
    """They go past the message; what history and events show of it is the key."""
    pump, payloads = a_pump(), []

    class Hook:
        async def on_intent(self, *, payload_bytes: bytes, **rest: Any) -> str:
            payloads.append(payload_bytes)
            return "x"

        async def on_acknowledged(self, intent_id: Any) -> None:
            pass

        async def on_failed(self, intent_id: Any, error: str) -> None:
            pass

        async def on_thread_complete(self, thread_id: str) -> None:
            pass

    async with tidy(pump):
        pump.register_dispatch_hook(Hook())
        await pump.sequence(["inc"], Number(1_234_567))
        await pump.map("inc", [Number(1_234_567)])
    requests = [each for each in payloads if each.startswith((b"<SequenceStart", b"<BufferStart"))]
    assert len(requests) == 2
    assert not any(b"1234567" in each for each in requests)


# -- the documented signatures


def test_the_signatures_are_the_documented_ones() -> None:
    sender = ["from_id", "thread_id", "routing_table"]
    told = {
        "sequence": ["self", "steps", "payload", "timeout", *sender],
        "map": ["self", "target", "payloads", "max_parallel", "timeout", "item_timeout", "return_exceptions", *sender],
    }
    for name, parameters in told.items():
        assert list(inspect.signature(getattr(StreamPump, name)).parameters) == parameters


async def test_an_error_answer_is_an_error() -> None:
    """A step or target that answers with `SystemError` has failed."""
    pump = StreamPump()

    async def refuse(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(SystemError("overloaded", "not now", True))

    pump.register("tool", refuse, Number)
    async with tidy(pump):
        for asked in (pump.sequence(["tool"], Number(1)), pump.map("tool", [Number(1)])):
            with pytest.raises(PipelineError) as caught:
                await asked
            assert caught.value.code == "overloaded"
