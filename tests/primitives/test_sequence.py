"""Sequences: the registry, and `SequenceStart` to ``system.sequence`` through a running pump."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.message_bus.helpers import Gate, Recorder, reached
from tests.message_bus.orchestration_kit import (
    Asker,
    Number,
    Sum,
    Told,
    Word,
    double,
    fail,
    hang,
    increment,
    left,
    nothing,
    read,
    tidy,
    xml_of,
)
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import ConversationCancelled, NoAnswer
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.primitives.buffer import BufferStart
from xml_pipeline.primitives.sequence import (
    SequenceComplete,
    SequenceError,
    SequenceRegistry,
    SequenceStart,
    SequenceState,
    get_sequence_registry,
    handle_sequence_start,
    reset_sequence_registry,
)
from xml_pipeline.runtime import use_runtime

ONE = xml_of(Number(1))


def a_pump(**options: Any) -> StreamPump:
    pump = StreamPump(**options)
    pump.register("inc", increment, Number)
    pump.register("math.double", double, Number)
    pump.register("fail", fail, Number)
    pump.register("hang", hang, Number)
    pump.register("nothing", nothing, Number)
    return pump


async def run(pump: StreamPump, steps: str, payload: str = ONE, **options: Any) -> Any:
    return await pump.request("system.sequence", SequenceStart(steps, payload, **options))


def result_of(complete: SequenceComplete) -> int:
    number: Number = read(Number, complete.final_result)
    return number.n


# -- the registry


@pytest.fixture
def registry() -> SequenceRegistry:
    return SequenceRegistry()


def create(registry: SequenceRegistry, name: str = "s", steps: Any = ("a", "b", "c")) -> SequenceState:
    return registry.create(name, steps, "agent", "thread", "agent", "<first/>")


def test_a_new_sequence_is_at_its_first_step(registry: SequenceRegistry) -> None:
    state = create(registry)
    assert registry.get("s") is state
    assert (state.sequence_id, state.steps, state.return_to) == ("s", ["a", "b", "c"], "agent")
    assert (state.thread_id, state.from_id) == ("thread", "agent")
    assert (state.current_index, state.results, state.last_result) == (0, [], "<first/>")
    assert (state.failed, state.failed_step, state.error) == (False, None, None)
    assert (state.is_complete, state.current_step, state.remaining_steps) == (False, "a", ["a", "b", "c"])


def test_steps_end_in_order(registry: SequenceRegistry) -> None:
    state = create(registry)
    for index, step in enumerate("abc"):
        assert state.current_step == step
        assert state.remaining_steps == ["a", "b", "c"][index:]
        assert not state.is_complete
        assert registry.advance("s", f"<{step}/>") is state
        assert state.last_result == f"<{step}/>"
    assert state.results == ["<a/>", "<b/>", "<c/>"]
    assert (state.is_complete, state.current_step, state.remaining_steps) == (True, None, [])


def test_a_failed_sequence_goes_nowhere(registry: SequenceRegistry) -> None:
    state = create(registry)
    registry.advance("s", "<a/>")
    assert registry.mark_failed("s", "b", "why") is state
    assert (state.failed, state.failed_step, state.error) == (True, "b", "why")
    assert (state.is_complete, state.current_step, state.remaining_steps) == (False, None, [])
    registry.advance("s", "<b/>")
    assert state.results == ["<a/>"]


def test_sequences_are_listed_and_removed(registry: SequenceRegistry) -> None:
    create(registry, "s")
    create(registry, "t")
    assert registry.list_active() == ["s", "t"]
    assert len(registry) == 2
    assert registry.remove("s")
    assert not registry.remove("s")
    registry.clear()
    assert registry.list_active() == []


def test_what_is_unknown_is_none(registry: SequenceRegistry) -> None:
    assert registry.get("x") is None
    assert registry.advance("x", "") is None
    assert registry.mark_failed("x", "", "") is None


def test_one_that_is_under_way_is_not_replaced(registry: SequenceRegistry) -> None:
    state = create(registry)
    with pytest.raises(ValueError, match="'s' is under way already"):
        create(registry)
    assert registry.get("s") is state
    other = registry.create("s", ["a"], "", "", "", key="another key")
    assert registry.get("another key") is other


def test_the_accessors_are_those_of_the_current_pump() -> None:
    one, two = StreamPump(), StreamPump()
    with use_runtime(one.runtime):
        create(get_sequence_registry())
        assert len(get_sequence_registry()) == 1
        with use_runtime(two.runtime):
            assert len(get_sequence_registry()) == 0
            reset_sequence_registry()
        assert len(get_sequence_registry()) == 1
        reset_sequence_registry()
        assert len(get_sequence_registry()) == 0


@pytest.mark.parametrize(
    ("cls", "defaults"),
    [
        (SequenceStart, {"steps": "", "payload": "", "return_to": "", "sequence_id": "", "timeout": 0.0}),
        (SequenceComplete, {"sequence_id": "", "final_result": "", "step_count": 0}),
        (SequenceError, {"sequence_id": "", "failed_step": "", "step_index": 0, "error": "", "code": ""}),
    ],
)
def test_the_fields_and_their_defaults(cls: Any, defaults: dict[str, Any]) -> None:
    assert dataclasses.asdict(cls()) == defaults
    assert cls.__module__.startswith("xml_pipeline.primitives.")


# -- sequences that end well


async def test_two_steps() -> None:
    pump = a_pump()
    async with tidy(pump):
        assert await run(pump, "inc, math.double", sequence_id="mine") == SequenceComplete("mine", xml_of(Number(4)), 2)


async def test_ten_steps() -> None:
    pump = a_pump()
    async with tidy(pump):
        complete = await run(pump, ",".join(["inc", "math.double"] * 5))
        assert complete.step_count == 10
        assert result_of(complete) == 1 * 32 + 2 + 4 + 8 + 16 + 32


async def test_an_id_is_made_up_if_none_is_given() -> None:
    pump = a_pump()
    async with tidy(pump):
        ids = {(await run(pump, "inc")).sequence_id for _ in range(3)}
    assert len(ids) == 3
    assert all(len(each) == 8 for each in ids)


async def test_the_same_id_in_two_conversations_at_once() -> None:
    gate = Gate(Number(5))
    pump = a_pump()
    pump.register("gate", gate, Number)
    async with tidy(pump):
        slow = asyncio.create_task(run(pump, "gate,inc", sequence_id="same"))
        await reached(gate.entered)
        assert result_of(await run(pump, "inc,inc", sequence_id="same")) == 3
        gate.opened.set()
        complete = await slow
        assert (complete.sequence_id, result_of(complete)) == ("same", 6)


@pytest.mark.parametrize(
    "payload",
    [
        "<Number><N>1</N></Number>",
        "\n\n  <Number>\n    <N>1</N>\n  </Number>\n",
        "<!-- a --><Number><!-- b --><N>1</N></Number><!-- c -->",
        "<Number><N><![CDATA[1]]></N></Number>",
        "<Number xmlns=''><N>&#49;</N></Number>",
        "<?pi x?><Number><N>1</N></Number>",
    ],
)
async def test_the_payload_may_have_any_layout(payload: str) -> None:
    pump = a_pump()
    async with tidy(pump):
        assert result_of(await run(pump, "inc", payload)) == 2


async def test_an_agent_asks_and_is_answered() -> None:
    for return_to in ("", "agent"):
        asker = Asker(SequenceStart("inc,math.double", ONE, return_to), "system.sequence")
        pump = a_pump()
        pump.register("agent", asker, Word, agent=True, peers=["system.sequence", "inc", "math.double"])
        async with tidy(pump):
            await pump.request("agent", Word())
        (complete,) = asker.got
        assert result_of(complete) == 4


# -- what a step may do


async def test_a_step_that_answers_several_times_is_taken_at_its_first_word() -> None:
    seen = Recorder(lambda payload, metadata: HandlerResponse.respond(payload))
    pump = a_pump()

    async def several(payload: Number, metadata: HandlerMetadata) -> list[HandlerResponse]:
        return [HandlerResponse.respond(Number(n)) for n in (10, 20, 30)]

    async def stream(payload: Number, metadata: HandlerMetadata) -> Any:
        for n in (40, 50):
            yield HandlerResponse.respond(Number(n))

    pump.register("several", several, Number)
    pump.register("stream", stream, Number)
    pump.register("seen", seen, Number)
    async with tidy(pump):
        assert result_of(await run(pump, "several,seen")) == 10
        assert result_of(await run(pump, "stream,seen")) == 40
        assert result_of(await run(pump, "several,stream,several")) == 10
    assert seen.payloads == [Number(10), Number(40)]


async def test_steps_that_delegate_call_others_or_themselves() -> None:
    pump = a_pump()

    async def delegating(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.delegate(payload, "math.double")

    async def forwarding(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(Word("x" * payload.n), "counting")  # whose answer passes through

    async def counting(payload: Word, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Sum(len(payload.text) + 1_000))

    async def patient(payload: Sum, metadata: HandlerMetadata) -> HandlerResponse:
        if metadata.is_self_call:
            return HandlerResponse.respond(Number(payload.n + 7))
        return HandlerResponse(payload, "patient")

    pump.register("delegating", delegating, Number)
    pump.register("forwarding", forwarding, Number)
    pump.register("counting", counting, Word)
    pump.register("patient", patient, Sum)
    async with tidy(pump):
        assert result_of(await run(pump, "delegating,forwarding,patient")) == 1_009


async def test_a_step_may_answer_what_a_sequence_is_asked_with() -> None:
    """It is an answer, handed on like any other, and begins nothing."""
    begun = Recorder()
    pump = a_pump()

    async def tricky(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(SequenceStart("begun", ONE))

    async def trickier(payload: SequenceStart, metadata: HandlerMetadata) -> HandlerResponse:
        assert payload == SequenceStart("begun", ONE)
        return HandlerResponse.respond(BufferStart("begun", ONE))

    pump.register("tricky", tricky, Number)
    pump.register("trickier", trickier, SequenceStart)
    pump.register("begun", begun, Number)
    async with tidy(pump):
        complete = await run(pump, "tricky,trickier")
        assert read(BufferStart, complete.final_result) == BufferStart("begun", ONE)
        # As the payload of a step that takes it, it is a sequence of its own.
        error = await run(pump, "tricky,system.sequence")
        assert (error.failed_step, error.step_index, error.code) == ("system.sequence", 1, "no-answer")
    assert begun.payloads == [Number(1)]


async def test_a_group_as_a_step_is_taken_at_its_first_answer() -> None:
    pump = a_pump()
    for n in (1, 2, 3):
        pump.register(f"pool.{n}", increment, Number, broadcast=True)
    async with tidy(pump):
        assert result_of(await run(pump, "pool,math.double,pool")) == 5


async def test_the_requester_may_be_a_step() -> None:
    """Of a frame of its own."""
    frames = []

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        frames.append(metadata.thread_id)
        if isinstance(payload, Word):
            return HandlerResponse(SequenceStart("agent,inc,agent", ONE), "system.sequence")
        if isinstance(payload, Number):
            return HandlerResponse.respond(Number(payload.n * 10))
        return HandlerResponse.respond(Told(payload.final_result))

    pump = a_pump()
    pump.register("agent", agent, (Word, Number), agent=True, peers=["system.sequence", "inc"])
    async with tidy(pump):
        assert await pump.request("agent", Word()) == Told(xml_of(Number(110)))
    assert frames[0] == frames[3]
    assert len(set(frames)) == 3


async def test_a_step_that_asks_for_a_sequence_of_its_own() -> None:
    """``system.sequence`` is its caller; what it sends there is a request all the same. Also from a model's bytes."""
    pump = a_pump()

    async def by_response(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(payload, Number):
            return HandlerResponse(SequenceStart("inc,inc", xml_of(payload)), "system.sequence")
        return HandlerResponse.respond(Number(result_of(payload)))

    async def by_bytes(payload: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(payload, Number):
            start = xml_of(SequenceStart("inc,inc", xml_of(payload)))
            return f"<message><meta><to>system.sequence</to></meta>{start}</message>".encode()
        return HandlerResponse.respond(Number(result_of(payload)))

    peers = ["system.sequence", "inc"]
    pump.register("by response", by_response, Number, agent=True, peers=peers)
    pump.register("by bytes", by_bytes, Number, agent=True, peers=peers)
    async with tidy(pump):
        assert result_of(await run(pump, "by response,by bytes,inc")) == 6


# -- sequences that do not


@pytest.mark.parametrize("steps", ["", " ", ",", " , ,, "])
async def test_no_steps(steps: str) -> None:
    pump = a_pump()
    async with tidy(pump):
        error = await run(pump, steps, sequence_id="mine")
    assert (error.sequence_id, error.failed_step, error.step_index, error.code) == ("mine", "", 0, "validation")
    assert error.error.startswith("No steps")


@pytest.mark.parametrize(("index", "steps"), [(0, "missing,inc,inc"), (1, "inc,missing,inc"), (2, "inc,inc,missing")])
async def test_an_unknown_step_is_found_before_anything_runs(index: int, steps: str) -> None:
    seen = Recorder()
    pump = a_pump()
    pump.unregister_listener("inc")
    pump.register("inc", seen, Number)
    async with tidy(pump):
        error = await run(pump, steps)
    assert (error.failed_step, error.step_index, error.code) == ("missing", index, "routing")
    assert "Unknown listener 'missing'" in error.error
    assert seen.seen == []


@pytest.mark.parametrize(
    ("step", "code"), [("fail", "handler"), ("nothing", "no-answer"), ("other", "routing"), ("late", "timeout")]
)
async def test_a_step_that_does_not_end_well(step: str, code: str) -> None:
    after = Recorder()
    pump = a_pump()
    pump.register("other", nothing, Word)
    pump.register("late", hang, Number, timeout=0.02)
    pump.register("after", after, Number)
    async with tidy(pump):
        error = await run(pump, f"inc,{step},after", sequence_id="mine")
    assert (error.sequence_id, error.failed_step, error.step_index, error.code) == ("mine", step, 1, code)
    assert error.error == SystemError(code, error.error).to_error().public_message  # and no secret of the handler's
    assert after.seen == []


async def test_a_step_that_answers_with_an_error_has_failed() -> None:
    pump = a_pump()

    async def refuse(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(SystemError("budget", "whatever it says", False))

    pump.register("refuse", refuse, Number)
    async with tidy(pump):
        error = await run(pump, "refuse,inc")
    assert (error.failed_step, error.step_index, error.code) == ("refuse", 0, "budget")


async def test_a_sequence_below_that_fails_is_a_failure() -> None:
    pump = a_pump()
    async with tidy(pump):
        error = await run(pump, "system.sequence,inc", xml_of(SequenceStart("inc,fail", ONE)))
        assert (error.failed_step, error.step_index, error.code) == ("system.sequence", 0, "handler")
        error = await run(pump, "system.buffer,inc", xml_of(BufferStart("inc", "")))
        assert (error.failed_step, error.step_index, error.code) == ("system.buffer", 0, "validation")
        assert error.error.startswith("No items")


async def test_the_time_is_for_all_steps() -> None:
    pump = a_pump()
    async with tidy(pump):
        error = await run(pump, "inc,hang,inc", timeout=0.03)
        assert (error.failed_step, error.step_index, error.code) == ("hang", 1, "timeout")
        error = await run(pump, "inc,inc", timeout=1e-9)
        assert (error.failed_step, error.step_index, error.code) == ("inc", 0, "timeout")


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
async def test_a_wrong_time(seconds: float) -> None:
    pump = a_pump()
    async with tidy(pump):
        error = await run(pump, "inc", timeout=seconds)
    assert (error.failed_step, error.step_index, error.code) == ("inc", 0, "validation")
    assert error.error.startswith("timeout must be a number of seconds")


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ("", "one element, not 0"),
        ("<!-- nothing -->", "one element, not 0"),
        (ONE + ONE, "one element, not 2"),
        ("text", "text outside"),
        (ONE + "text", "text outside"),
        ("<![CDATA[text]]>" + ONE, "text outside"),
        ("<Number><N>1</N>", "not well-formed"),
        ("</payloads>" + ONE, "not well-formed"),
        ("</payloads><payloads>", "not well-formed"),
        ("<?xml version='1.0'?>" + ONE, "not well-formed"),
        ("<!-- " + ONE, "not well-formed"),
        ("<!DOCTYPE Number [<!ENTITY a 'b'>]>" + ONE, "not well-formed"),
        ("<Number><N>&a;</N></Number>", "not well-formed"),
        ("<Number xmlns='urn:x'><N>1</N></Number>", "no namespace"),
        ("<p:Number xmlns:p='urn:x'><p:N>1</p:N></p:Number>", "no namespace"),
        ("<Number " + " ".join(f"a{n}=''" for n in range(1_000)) + "/>", "max_attributes"),
        ("<Number>" + "<N/>" * 60_000 + "</Number>", "max_elements"),
        ("<Number>" * 150 + "</Number>" * 150, "max_element_depth"),
        ("<Number>" * 300 + "</Number>" * 300, "not well-formed"),
    ],
    ids=range(19),
)
async def test_a_payload_that_is_none_is_refused_before_anything_runs(payload: str, told: str) -> None:
    seen = Recorder()
    pump = a_pump()
    pump.register("seen", seen, Number)
    async with tidy(pump):
        error = await run(pump, "seen", payload)
    assert isinstance(error, SequenceError)
    assert (error.failed_step, error.step_index, error.code) == ("seen", 0, "validation")
    assert told in error.error
    assert seen.seen == []


@pytest.mark.parametrize(
    ("payload", "code"),
    [("<Number><N>many</N></Number>", "validation"), ("<Number/>", "validation"), ("<Word/>", "routing")],
)
async def test_a_payload_that_the_first_step_does_not_take(payload: str, code: str) -> None:
    pump = a_pump()
    async with tidy(pump):
        error = await run(pump, "inc,inc", payload)
    assert (error.failed_step, error.step_index, error.code) == ("inc", 0, code)


async def test_an_answer_that_is_too_large_for_a_message() -> None:
    """Each hop of it is small enough, but as text in the last message it is larger."""
    pump = a_pump(max_message_bytes=20_000)

    async def large(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Word("&<>" * payload.n))

    pump.register("large", large, Number)
    async with tidy(pump):
        assert read(Word, (await run(pump, "large", xml_of(Number(300)))).final_result) == Word("&<>" * 300)
        error = await run(pump, "large", xml_of(Number(1_200)))
    assert (error.failed_step, error.step_index, error.code) == ("large", 0, "validation")
    assert "max_message_bytes" in error.error


async def test_names_that_are_too_long_are_cut() -> None:
    pump = a_pump()
    async with tidy(pump):
        error = await run(pump, "x" * 500_000)
    assert error.failed_step == "x" * 200
    assert len(error.error) < 500


async def test_more_steps_than_a_message_may_ask_for() -> None:
    pump = a_pump()
    async with tidy(pump):
        assert (await run(pump, ",".join(["inc"] * 1_000))).step_count == 1_000
        for many in ("inc," * 1_001, "inc," * 100_000, "in\\c," * 100_000):
            error = await run(pump, many)
            assert (error.error, error.code) == ("more than 1000 steps (max_fan_out)", "validation")


async def test_the_answer_goes_to_nobody_else() -> None:
    pump = a_pump()
    async with tidy(pump):
        for return_to in ("inc", "system.sequence", " external"):
            error = await run(pump, "inc", return_to=return_to)
            assert error.code == "validation"
            assert error.error.startswith("return_to must be empty or your own name")
        assert result_of(await run(pump, "inc", return_to="external")) == 2


# -- peers


@pytest.mark.parametrize("steps", ["vault", "inc,vault", "vault,inc"])
async def test_steps_are_bound_by_the_requesters_peers(steps: str) -> None:
    """The refusal reaches it, in the words that it gets for what does not exist."""
    vault = Recorder(lambda payload, metadata: HandlerResponse.respond(payload))
    answers = {}
    for peers in (["system.sequence", "inc"], ["system.sequence", "inc", "vault"]):
        asker = Asker(SequenceStart(steps, ONE), "system.sequence")
        pump = a_pump()
        pump.register("vault", vault, Number)
        pump.register("agent", asker, Word, agent=True, peers=peers)
        async with tidy(pump):
            await pump.request("agent", Word())
        (answers[len(peers)],) = asker.got
    error = answers[2]
    assert isinstance(error, SequenceError)
    assert (error.failed_step, error.code) == ("vault", "routing")
    assert "it is not registered, or not among your peers" in error.error
    assert isinstance(answers[3], SequenceComplete)
    assert len(vault.seen) == 1


async def test_an_agent_without_the_peer_cannot_ask() -> None:
    asker = Asker(SequenceStart("inc", ONE), "system.sequence")
    pump = a_pump()
    pump.register("agent", asker, Word, agent=True, peers=["inc"])
    async with tidy(pump):
        assert await pump.request("agent", Word()) == Told("routing")


async def test_peers_are_looked_at_again_when_a_step_is_called() -> None:
    """What was allowed when the sequence began may be taken away while it runs."""
    gate = Gate(Number(2))
    asker = Asker(SequenceStart("gate,inc", ONE), "system.sequence")
    pump = a_pump()
    pump.register("gate", gate, Number)
    pump.register("agent", asker, Word, agent=True, peers=["system.sequence", "gate", "inc"])
    pump.register_peer_table("table", {"agent": ["system.sequence", "gate", "inc"]})
    async with tidy(pump):
        asking = asyncio.create_task(pump.request("agent", Word(), routing_table="table"))
        await reached(gate.entered)
        pump.modify_peer_table("table", "agent", revoke=["inc"])
        gate.opened.set()
        await asking
    (error,) = asker.got
    assert (error.failed_step, error.step_index, error.code) == ("inc", 1, "routing")


async def test_a_step_has_its_own_peers_for_what_it_does_itself() -> None:
    """It is bound by the requester in that it may be called at all, not in whom it asks."""
    asker = Asker(SequenceStart("helper", ONE), "system.sequence")
    pump = a_pump()

    async def helper(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(Word(), "private")

    async def private(payload: Word, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Told("the private answer"))

    pump.register("helper", helper, Number)
    pump.register("private", private, Word)
    pump.register("agent", asker, Word, agent=True, peers=["system.sequence", "helper"])
    async with tidy(pump):
        await pump.request("agent", Word())
    assert read(Told, asker.got[0].final_result) == Told("the private answer")


async def test_a_tool_that_does_not_take_the_answer_passes_it_on() -> None:
    """Tools reach ``system.*`` only if they list it."""
    pump = a_pump()

    async def tool(payload: Word, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(SequenceStart("inc", ONE), "system.sequence")

    pump.register("tool", tool, Word, peers=["system.sequence", "inc"])
    pump.register("bound", tool, Word, peers=["system.sequence"])
    pump.register("free", tool, Word)
    async with tidy(pump):
        assert result_of(await pump.request("tool", Word())) == 2
        assert (await pump.request("bound", Word())).code == "routing"
        with pytest.raises(Exception, match="could not be delivered"):
            await pump.request("free", Word())


# -- cancelled, changed and stopped on the way


async def test_cancelling_one_steps_call_ends_the_sequence() -> None:
    frames = asyncio.Queue[str]()
    pump = a_pump()

    async def step(payload: Number, metadata: HandlerMetadata) -> None:
        frames.put_nowait(metadata.thread_id)
        await asyncio.Event().wait()

    pump.register("step", step, Number)
    async with tidy(pump):
        asking = asyncio.create_task(run(pump, "inc,step,inc"))
        assert pump.cancel(await frames.get())
        error = await asking
    assert (error.failed_step, error.step_index, error.code) == ("step", 1, "cancelled")


async def test_cancelling_the_requesters_conversation_leaves_nothing() -> None:
    gate = Gate()
    asker = Asker(SequenceStart("inc,gate", ONE), "system.sequence")
    pump = a_pump()
    pump.register("gate", gate, Number)
    pump.register("agent", asker, Word, agent=True, peers=["system.sequence", "inc", "gate"])
    async with tidy(pump):
        thread = await pump.inject("agent", Word())
        await reached(gate.entered)
        assert left(pump)[:4] == (4, 2, 1, 1)
        assert pump.cancel(thread)
        await reached(gate.cancelled)
        with pytest.raises(ConversationCancelled):
            await pump.wait(thread)
    assert asker.got == []


async def test_a_step_that_is_removed_while_it_runs_still_answers() -> None:
    """And one that is removed before its turn is not found any more."""
    gate = Gate(Number(2))
    pump = a_pump()
    pump.register("gate", gate, Number)
    async with tidy(pump):
        asking = asyncio.create_task(run(pump, "gate,inc,math.double"))
        await reached(gate.entered)
        assert pump.unregister_listener("gate")
        assert pump.unregister_listener("math.double")
        gate.opened.set()
        error = await asking
    assert (error.failed_step, error.step_index, error.code) == ("math.double", 2, "routing")


async def test_a_reload_while_a_step_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that runs is finished; the next one is the new listener of that name."""
    gate = Gate(Number(2))
    module = tmp_path / "reloaded_steps.py"
    module.write_text(
        "from dataclasses import dataclass\n"
        "from xml_pipeline import HandlerResponse\n"
        "from tests.message_bus.orchestration_kit import Number\n"
        "async def old(payload, metadata):\n    return HandlerResponse.respond(Number(payload.n + 1))\n"
        "async def new(payload, metadata):\n    return HandlerResponse.respond(Number(payload.n + 100))\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "organism.yaml"
    text = (
        "organism: {name: demo}\nlisteners:\n  - {name: step, description: A step., "
        "payload_class: reloaded_steps.Number, handler: reloaded_steps.old}\n"
    )
    file.write_text(text, encoding="utf-8")
    pump = await StreamPump.from_yaml(str(file))
    pump.register("gate", gate, Number)
    async with pump:
        asking = asyncio.create_task(run(pump, "step,gate,step"))
        await reached(gate.entered)
        file.write_text(text.replace(".old", ".new"), encoding="utf-8")
        assert pump.reload_config().success
        gate.opened.set()
        assert result_of(await asking) == 102


async def test_stopping_in_the_middle_tells_whoever_waits() -> None:
    gate = Gate()
    pump = a_pump()
    pump.register("gate", gate, Number)
    await pump.__aenter__()
    asking = asyncio.create_task(run(pump, "inc,gate"))
    await reached(gate.entered)
    await pump.shutdown(0.0)
    with pytest.raises(ConversationCancelled):
        await asking
    assert left(pump)[2:7] == (0, 0, 0, 0, 0)


async def test_a_message_that_is_none_of_its_own_is_left_alone() -> None:
    """The handler is called with everything that comes to its frames."""
    with use_runtime(StreamPump().runtime):
        metadata = HandlerMetadata("no frame of a sequence", "somebody")
        assert await handle_sequence_start(Number(1), metadata) is None


async def test_nobody_hears_of_a_sequence_that_was_forgotten() -> None:
    """Somebody cleared the registry while it ran; it does not hang, and does not break."""
    gate = Gate(Number(2))
    pump = a_pump()
    pump.register("gate", gate, Number)
    async with tidy(pump):
        asking = asyncio.create_task(run(pump, "gate,inc"))
        await reached(gate.entered)
        pump.runtime.get(SequenceRegistry).clear()
        gate.opened.set()
        with pytest.raises(NoAnswer):
            await asking
