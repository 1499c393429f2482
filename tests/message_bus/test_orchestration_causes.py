"""What `StreamPump.map` and `StreamPump.sequence` raise tells a program what `StreamPump.request` would have told it;
what agents and handlers are told is the public text."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import HandlerError, NoAnswer, PipelineError
from xml_pipeline.message_bus.budget_registry import BudgetExhaustedError, get_budget_registry
from xml_pipeline.message_bus.join import Joins, get_joins
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.primitives.buffer import BufferStart
from xml_pipeline.primitives.sequence import SequenceStart

from .orchestration_kit import Number, Sum, Told, Word, fail, hang, increment, nothing, tidy, xml_of

SECRET = "the secret of the handler"
"""What `fail` raises."""


async def passes_on(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
    """A tool that takes no errors: what fails below it passes by."""
    return HandlerResponse(payload, "fail")


async def broke(payload: Number, metadata: HandlerMetadata) -> None:
    get_budget_registry().reserve(metadata.thread_id, 11)


async def refuses(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(SystemError("overloaded", SECRET, True))


async def is_wrong(payload: Number, metadata: HandlerMetadata) -> Any:
    return 5


async def answers_wrongly(payload: Number, metadata: HandlerMetadata) -> Any:
    return HandlerResponse.respond(Sum(1))


def a_pump(**options: Any) -> StreamPump:
    pump = StreamPump(max_tokens_per_thread=10, **options)
    pump.register("inc", increment, Number)
    pump.register("fail", fail, Number)
    pump.register("passes on", passes_on, Number)
    pump.register("hangs", hang, Number, timeout=0.02)
    pump.register("broke", broke, Number)
    pump.register("refuses", refuses, Number)
    pump.register("wrong", is_wrong, Number)
    pump.register("other class", nothing, Word)
    pump.register("answers wrongly", answers_wrongly, Number, output_class=Number)
    return pump


def told(error: BaseException | None) -> tuple[Any, ...]:
    assert isinstance(error, PipelineError)
    return type(error), error.code, error.detail, error.step, error.target, str(error)


def without_threads(error: tuple[Any, ...]) -> tuple[Any, ...]:
    """Two calls are on two threads, and some errors name them."""
    return tuple(part.partition("thread")[0] if isinstance(part, str) else part for part in error)


KINDS = ["fail", "passes on", "hangs", "broke", "refuses", "wrong", "other class", "answers wrongly"]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_error_is_that_of_a_request_and_says_which_call(kind: str) -> None:
    pump = a_pump()
    async with tidy(pump):
        with pytest.raises(PipelineError) as asked:
            await pump.request(kind, Number(2))
        with pytest.raises(PipelineError) as of_sequence:
            await pump.sequence(["inc", kind, "inc"], Number(1))
        with pytest.raises(PipelineError) as of_map:
            await pump.map(kind, [Number(2)] * 3)
        returned = await pump.map(kind, [Number(2)] * 3, return_exceptions=True)
    wanted = without_threads(told(asked.value))
    errors = {f"step 1, {kind!r}: ": of_sequence.value, f"item 0 of 3 for {kind!r}: ": of_map.value}
    errors |= {f"item {index} of 3 for {kind!r}: ": error for index, error in enumerate(returned)}
    for where, error in errors.items():
        assert without_threads(told(error.__cause__)) == wanted
        assert (type(error), error.code, error.step) == (type(asked.value), asked.value.code, asked.value.step)
        assert error.target == kind
        assert error.detail.startswith(where + wanted[2])
        assert where + wanted[2] in "".join(traceback.format_exception_only(error))


async def test_what_has_a_class_of_its_own_keeps_it() -> None:
    """Also the figures that it carries."""
    pump = a_pump()
    async with tidy(pump):
        (error,) = await pump.map("broke", [Number(1)], return_exceptions=True)
    assert type(error) is BudgetExhaustedError
    assert (error.max_tokens, error.requested) == (10, 11)
    assert str(error).startswith("item 0 of 1 for 'broke': budget exhausted")
    assert str(error.__cause__).startswith("budget exhausted")


async def test_no_answer_says_who_gave_none() -> None:
    pump = a_pump()
    pump.register("nothing", nothing, Number)
    async with tidy(pump):
        (error,) = await pump.map("nothing", [Number(1)], return_exceptions=True)
    assert type(error) is NoAnswer
    assert error.detail == "item 0 of 1 for 'nothing': 'nothing' ended without an answer"


async def test_who_failed_below_is_named_by_the_cause() -> None:
    """The error itself names the step, as it always does."""
    pump = a_pump()
    async with tidy(pump):
        with pytest.raises(HandlerError) as caught:
            await pump.sequence(["inc", "passes on"], Number(1))
    assert caught.value.target == "passes on"
    assert caught.value.detail == f"step 1, 'passes on': handler of 'fail' raised RuntimeError: {SECRET}"
    assert isinstance(caught.value.__cause__, HandlerError)
    assert caught.value.__cause__.target == "fail"


async def test_what_was_never_sent_says_so() -> None:
    pump = a_pump()
    pump.register("stuck", hang, Number)
    async with tidy(pump):
        first, second = await pump.map("stuck", [Number(1)] * 2, max_parallel=1, timeout=0.02, return_exceptions=True)
    assert first.code == second.code == "timeout"
    assert "not sent" not in first.detail
    assert second.detail == "item 1 of 2 for 'stuck': it was not sent before the time for all was over"
    assert (second.target, second.step) == ("stuck", "map")


async def test_what_is_refused_before_it_begins_names_its_target() -> None:
    pump = a_pump()
    async with tidy(pump):
        with pytest.raises(PipelineError) as of_map:
            await pump.map("nobody", [Number(1)])
        with pytest.raises(PipelineError) as of_sequence:
            await pump.sequence(["inc", "nobody"], Number(1))
    assert (of_map.value.target, of_map.value.step) == ("nobody", "map")
    assert (of_sequence.value.target, of_sequence.value.step) == ("nobody", "sequence")
    assert of_sequence.value.detail.startswith("step 1, 'nobody': Unknown listener")


async def test_a_failure_that_a_sequence_below_tells_of_is_told_in_its_words() -> None:
    pump = a_pump()
    async with tidy(pump):
        (error,) = await pump.map(
            "system.sequence", [SequenceStart("inc,fail", xml_of(Number(1)))], return_exceptions=True
        )
    assert type(error) is HandlerError
    assert error.detail == f"item 0 of 1 for 'system.sequence': {HandlerError.public_message}"


@pytest.mark.parametrize("kind", KINDS)
async def test_no_frame_of_a_handler_is_kept(kind: str) -> None:
    pump = a_pump()
    async with tidy(pump):
        (error,) = await pump.map(kind, [Number(1)], return_exceptions=True)
    cause = error.__cause__
    assert error.__traceback__ is cause.__traceback__ is None
    assert cause.__cause__ is cause.__context__ is None


@settings(max_examples=examples(15), deadline=None)
@given(
    st.lists(st.sampled_from(["fails", "answers", "refuses", "errs below", "answers and fails"]), min_size=1),
    st.integers(1, 7),
)
async def test_each_item_has_its_own_cause(fates: list[str], max_parallel: int) -> None:
    pump = StreamPump()

    async def tool(payload: Number, metadata: HandlerMetadata) -> Any:
        fate = fates[payload.n]
        if fate == "fails":
            raise ValueError(f"number {payload.n}.")
        if fate == "refuses":
            return HandlerResponse.respond(SystemError("hops", f"number {payload.n}.", False))
        if fate == "errs below":
            return HandlerResponse(Sum(payload.n), "below")
        answer = HandlerResponse.respond(payload)
        return [answer, HandlerResponse(Word(), "nobody")] if fate == "answers and fails" else answer

    async def below(payload: Sum, metadata: HandlerMetadata) -> None:
        raise LookupError(f"number {payload.n}.")

    pump.register("tool", tool, Number)
    pump.register("below", below, Sum)
    async with tidy(pump):
        outcomes = await pump.map(
            "tool", [Number(n) for n in range(len(fates))], max_parallel=max_parallel, return_exceptions=True
        )
    for n, (fate, outcome) in enumerate(zip(fates, outcomes, strict=True)):
        if fate.startswith("answers"):
            assert outcome == Number(n)
        elif fate == "refuses":
            assert (outcome.code, outcome.detail) == (
                "hops",
                f"item {n} of {len(fates)} for 'tool': 'tool' answered with an error",
            )
        else:
            assert outcome.detail.endswith(f"Error: number {n}.")


# -- agents, and handlers


class Asks:
    """An agent that asks for what it is made with, and keeps what it is told."""

    def __init__(self, payload: Any, to: str) -> None:
        self.payload, self.to, self.seen = payload, to, [""]

    async def __call__(self, payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        self.seen.append(repr(payload))
        return HandlerResponse(self.payload, self.to) if isinstance(payload, Word) else HandlerResponse.respond(Told())


@pytest.mark.parametrize(
    ("payload", "to"),
    [
        (SequenceStart("inc,fail", xml_of(Number(1))), "system.sequence"),
        (BufferStart("fail", xml_of(Number(1), Number(2))), "system.buffer"),
        (Number(1), "fail"),
    ],
)
async def test_an_agent_is_told_the_public_text_only(payload: Any, to: str) -> None:
    pump, agent = a_pump(), Asks(payload, to)
    pump.register("agent", agent, Word, agent=True, peers=[to, "inc", "fail"])
    async with tidy(pump):
        # A program's own, at the same time, over the same listeners.
        assert await pump.request("agent", Word()) == Told()
        (error,) = await pump.map("fail", [Number(1)], return_exceptions=True)
    assert SECRET in error.detail
    assert HandlerError.public_message in "".join(agent.seen)
    assert SECRET not in "".join(agent.seen)


async def test_the_messages_of_a_programs_sequence_tell_no_more_either() -> None:
    """They are in the history, and hooks read them."""
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
        for asked in (pump.sequence(["fail"], Number(1)), pump.map("fail", [Number(1)])):
            with pytest.raises(HandlerError, match=HandlerError.public_message):
                await asked
    assert any(payload.startswith(b"<SystemError") for payload in payloads)
    assert not any(SECRET.encode() in payload for payload in payloads)


async def test_a_handler_gets_no_causes_of_its_own_joins() -> None:
    pump, causes = a_pump(), {}

    async def asks(payload: Any, metadata: HandlerMetadata) -> Any:
        join = get_joins().of(metadata)
        if join is None:
            join = get_joins().open(metadata)
            join.causes = causes
            join.add(HandlerResponse.call(Number(1), "fail"))
            return join.due()
        result = join.take(payload, metadata)
        assert result is not None
        return HandlerResponse.respond(Told(str(result.error)))

    pump.register("asks", asks, Word, joins=True)
    async with tidy(pump):
        answer = await pump.request("asks", Word())
    assert HandlerError.public_message in answer.text
    assert SECRET not in answer.text
    assert causes == {}


async def test_a_sequence_that_came_as_a_message_keeps_no_causes() -> None:
    """There is no program behind it that may know."""
    pump = a_pump()
    joins, kept = pump.runtime.get(Joins), []

    def note(frame: Any, tag: str, failure: PipelineError) -> None:
        joins.note(frame, tag, failure)
        (join,) = joins._joins[frame.id].values()
        kept.append(join.causes)

    async with tidy(pump):
        pump.engine.mint.on_error = note
        await pump.request("system.sequence", SequenceStart("fail", xml_of(Number(1))))
        await pump.map("fail", [Number(1)], return_exceptions=True)
    of_message, of_program = kept
    assert of_message is None
    assert list(of_program) == [0]
