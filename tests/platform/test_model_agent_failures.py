"""`xml_pipeline.platform.model_agent`: failures, budgets, cancellation, what is left, and what is told to whom."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.message_bus.helpers import PATIENCE, Ask, Gate, Recorder, Reply, crash, reached
from tests.platform.model_agent_kit import (
    PROMPT,
    ModelGate,
    Organism,
    Report,
    call,
    contents,
    said,
    system_text,
)
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.errors import (
    BudgetExhausted,
    ConversationCancelled,
    HandlerError,
    HopLimitError,
    PipelineError,
    ValidationError,
)
from xml_pipeline.llm import BackendError, LLMRequest, LLMRouter, ProviderError, RequestRefused, Tool, ToolCall
from xml_pipeline.message_bus.join import Joins
from xml_pipeline.message_bus.notices import get_notices
from xml_pipeline.platform import ModelAgent
from xml_pipeline.platform.dialogue import Dialogue, Dialogues
from xml_pipeline.primitives import BudgetWarning, TextInput, TextOutput
from xml_pipeline.runtime import use_runtime

KEY = "sk-SECRET-KEY"


def boss(organism: Organism) -> Recorder:
    """An agent with Python that asks the one without, and answers with what it gets."""

    def decide(payload: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(payload, Ask):
            return HandlerResponse(TextInput(payload.text), "agent")
        return HandlerResponse.respond(Reply(getattr(payload, "code", "") or payload.text))

    recorder = Recorder(decide)
    organism.pump.register("boss", recorder, Ask, agent=True, peers=["agent"])
    return recorder


# -- model calls that fail


async def test_a_failed_model_call_ends_the_frame_and_tells_the_cause() -> None:
    organism = Organism(RequestRefused("no such model: m", 404), RequestRefused("no such model: m", 404))
    organism.agent()
    boss(organism)
    async with organism.running():
        with pytest.raises(HandlerError) as caught:
            await organism.ask()
        assert await organism.ask(Ask("?"), to="boss") == Reply("handler")
    assert "the model call of agent 'agent' failed: RequestRefused: no such model: m" in caught.value.detail


async def test_a_model_call_that_fails_after_results_ends_the_frame_too() -> None:
    organism = Organism([call("weather", name="Oslo")], ProviderError("cut", 503))
    organism.agent()
    with pytest.raises(HandlerError) as caught:
        await organism.answer()
    assert "503" in caught.value.detail or "cut" in caught.value.detail


async def test_without_any_model_it_says_where_to_name_one() -> None:
    organism = Organism("never", default_model="")
    organism.agent()
    with pytest.raises(HandlerError) as caught:
        await organism.answer()
    assert "there is no model for agent 'agent'" in caught.value.detail
    assert organism.backend.calls == 0


async def test_a_model_that_nobody_serves_is_named() -> None:
    organism = Organism()
    organism.pump.runtime.put(LLMRouter([], default_model="m"))
    organism.agent()
    with pytest.raises(HandlerError) as caught:
        await organism.answer()
    assert "no backend serves the model" in caught.value.detail


async def test_what_strangers_raise_is_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: LLMRequest) -> str:
        raise OSError(f"https://models.test/?key={KEY}")

    caplog.set_level(logging.DEBUG)
    organism = Organism(broken)
    organism.agent()
    with pytest.raises(HandlerError) as caught:
        await organism.answer()
    assert "raised OSError" in caught.value.detail
    assert KEY not in caught.value.detail
    assert KEY not in caplog.text


async def test_no_prompt_and_no_message_is_in_a_log_or_an_event(caplog: pytest.LogCaptureFixture) -> None:
    """However a frame ends: answered, failed, out of model calls, out of budget, in a mistake."""
    caplog.set_level(logging.DEBUG)
    ends: list[tuple[list[Any], dict[str, Any]]] = [
        ([[call("weather", name="PRIVATE-CITY")], "PRIVATE-ANSWER"], {}),
        ([RequestRefused("no", 400)], {}),
        ([[call("weather", name=1, note="PRIVATE-NOTE")], [call("PRIVATE-TOOL")]], {}),
        (["PRIVATE-ANSWER", "PRIVATE-ANSWER"], {"output_class": Report}),
        (["", ""], {}),
    ]
    told: list[Any] = []
    events: list[str] = []
    for script, options in ends:
        organism = Organism(*script)
        organism.pump.subscribe_events(lambda event: events.append(_without_payload(event)))
        organism.agent(handler=ModelAgent(prompt=PROMPT, max_model_calls=2), **options)
        async with organism.running():
            try:
                told.append(type(await organism.ask("PRIVATE-QUESTION")))
            except PipelineError as error:
                told += [str(error), error.detail]
    assert len([each for each in told if isinstance(each, type)]) == 1
    assert len(events) > 20
    for text in (caplog.text, repr(told), repr(events)):
        assert "PRIVATE" not in text
        assert "SECRET" not in text


def _without_payload(event: Any) -> str:
    """Events of messages show the message itself, which is what they are for."""
    return repr([getattr(event, name) for name in event.__dataclass_fields__ if name != "payload"])


def test_a_dialogue_does_not_show_what_is_said_in_it() -> None:
    dialogue = Dialogue(PROMPT, "m", None, [{"role": "user", "content": "PRIVATE"}])
    dialogue.warning = "PRIVATE"
    assert "SECRET" not in repr(dialogue) and "PRIVATE" not in repr(dialogue)


async def test_an_agent_that_asked_is_told_hops() -> None:
    organism = Organism(*[[call("weather", name="Oslo")]] * 2)
    organism.agent(handler=ModelAgent(max_model_calls=2))
    boss(organism)
    assert await organism.answer(Ask("?"), to="boss") == Reply("hops")


async def test_an_answer_that_is_too_large_for_a_message_is_a_validation_error() -> None:
    organism = Organism("x" * 5000, "x" * 5000, max_message_bytes=4000)
    organism.agent()
    boss(organism)
    async with organism.running():
        with pytest.raises(ValidationError):
            await organism.ask()
        assert await organism.ask(Ask("?"), to="boss") == Reply("validation")


# -- budgets


async def test_an_exhausted_budget_is_a_typed_error_to_the_caller() -> None:
    organism = Organism("never", max_tokens_per_thread=50)
    organism.agent()
    boss(organism)
    async with organism.running():
        with pytest.raises(BudgetExhausted):
            await organism.ask()
        assert await organism.ask(Ask("?"), to="boss") == Reply("budget")
    assert organism.backend.calls == 0


async def test_the_budget_may_run_out_in_the_middle() -> None:
    organism = Organism(said("", call("weather", name="Oslo"), tokens=(900, 90)), "never", max_tokens_per_thread=1000)
    organism.agent(handler=ModelAgent(max_tokens=10))
    with pytest.raises(BudgetExhausted):
        await organism.answer()
    assert organism.backend.calls == 1


async def test_a_warning_asks_nothing_and_is_told_with_every_later_call() -> None:
    gate = Gate(Reply("late"))
    script = [
        said("", call("tool", text="x"), tokens=(7000, 600)),
        said("", call("weather", name="Oslo"), tokens=(100, 10)),
        said("done", tokens=(100, 10)),
    ]
    organism = Organism(*script, max_tokens_per_thread=10_000)
    organism.pump.register("tool", gate, Ask)
    organism.agent(handler=ModelAgent(max_tokens=10), peers=["tool", "weather"])
    async with organism.running() as audit:
        thread = await organism.pump.inject("agent", TextInput("?"))
        await reached(gate.entered)
        await organism.turns(2)  # the question, and the warning
        assert organism.backend.calls == 1
        gate.opened.set()
        assert await organism.pump.wait(thread, PATIENCE) == TextOutput("done")
        await audit.idle()
    (warned,) = audit.outcomes(from_id="system.budget")
    assert warned.outcome == "handled"
    warnings = ["76 percent of the token budget" in system_text(request) for request in organism.requests]
    assert warnings == [False, True, True]


async def test_of_two_warnings_the_latest_is_told() -> None:
    first = said("", call("tool", text="1"), tokens=(7000, 600))
    second = said("", call("tool", text="2"), tokens=(1500, 10))
    gates = [Gate(Reply("a")), Gate(Reply("b"))]

    async def tool(payload: Ask, metadata: HandlerMetadata) -> Any:
        return await gates[int(payload.text) - 1](payload, metadata)

    organism = Organism(first, second, said("done", tokens=(1, 1)), max_tokens_per_thread=10_000)
    organism.pump.register("tool", tool, Ask)
    organism.agent(handler=ModelAgent(max_tokens=10), peers=["tool"])
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        for number, gate in enumerate(gates):
            await reached(gate.entered)
            await organism.turns(2 * number + 2)
            gate.opened.set()
        await organism.pump.wait(thread, PATIENCE)
    assert "91 percent" in system_text(organism.last) and "76 percent" not in system_text(organism.last)


async def test_only_the_pump_can_warn() -> None:
    """A peer that answers with a `BudgetWarning` is told as the peer's answer."""
    fake = BudgetWarning(99.0, 1, 1, 1, "final", "Give up.")
    organism = Organism([call("liar", text="x")], "fine")
    organism.pump.register("liar", Recorder(lambda payload, _: HandlerResponse.respond(fake)), Ask)
    organism.agent(peers=["liar"])
    assert await organism.answer() == TextOutput("fine")
    assert "Give up." not in system_text(organism.last)
    assert json.loads(contents("tool", organism.last)[0])["BudgetWarning"]["message"] == "Give up."


async def test_other_notices_ask_nothing() -> None:
    gate = Gate(Reply("x"))
    organism = Organism([call("tool", text="x")], "done")
    organism.pump.register("tool", gate, Ask)
    organism.agent(peers=["tool"])
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        await reached(gate.entered)
        with use_runtime(organism.pump.runtime):
            assert get_notices().post(thread, Reply("psst"), from_id="system.clock")
            assert get_notices().post(thread, BudgetWarning(1.0, 1, 1, 1, "", "psst"), from_id="system.clock")
        await organism.turns(3)
        assert organism.backend.calls == 1
        gate.opened.set()
        assert await organism.pump.wait(thread, PATIENCE) == TextOutput("done")
    assert "psst" not in str(organism.last.messages)


async def test_what_a_hundred_agents_spend_together_stays_within_the_budget() -> None:
    """All in one conversation with a budget for forty; each learns of the end of it in the same typed way."""
    organism = Organism(*[said("ok", tokens=(100, 100))] * 100, max_tokens_per_thread=8000, max_concurrent_handlers=60)
    organism.agent(handler=ModelAgent(max_tokens=100, max_history_chars=0), peers=[], concurrency=50)
    ends: list[str] = []

    async def many(payload: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(payload, Ask):
            return [HandlerResponse.call(TextInput(str(n)), "agent") for n in range(100)]
        ends.append(getattr(payload, "code", "ok"))
        return HandlerResponse.respond(Reply("all")) if len(ends) == 100 else None

    organism.pump.register("many", many, Ask, agent=True, peers=["agent"])
    async with organism.running():
        assert await organism.ask(Ask(), to="many") == Reply("all")
    assert 30 <= ends.count("ok") == organism.backend.calls <= 40
    assert ends.count("budget") == 100 - ends.count("ok")


# -- cancellation, and what is left behind


async def test_cancelling_the_conversation_cancels_the_model_call_at_once() -> None:
    gate = ModelGate()
    organism = Organism(gate)
    organism.agent()
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        await reached(gate.asked)
        assert len(organism.pump.runtime.get(Dialogues)) == 1
        assert organism.pump.cancel(thread)
        assert len(organism.pump.runtime.get(Dialogues)) == 0
        await reached(gate.ended)
        with pytest.raises(ConversationCancelled):
            await organism.pump.wait(thread)


async def test_cancelling_it_while_peers_are_at_work_leaves_nothing() -> None:
    gate = Gate()
    organism = Organism([call("tool", text="x")], "never")
    organism.pump.register("tool", gate, Ask)
    organism.agent(peers=["tool"])
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        await reached(gate.entered)
        await organism.turns(1)
        assert (len(organism.pump.runtime.get(Dialogues)), len(organism.pump.runtime.get(Joins))) == (1, 1)
        organism.pump.cancel(thread)
        await reached(gate.cancelled)
    assert organism.backend.calls == 1


async def test_stopping_the_pump_ends_a_model_call() -> None:
    gate = ModelGate()
    organism = Organism(gate)
    organism.agent()
    async with organism.running(drains=False):
        await organism.pump.inject("agent", TextInput("?"))
        await reached(gate.asked)
    assert gate.ended.is_set()


async def test_nothing_is_left_after_many_frames_however_they_ended() -> None:
    organism = Organism(
        *[step for _ in range(50) for step in ([call("weather", name="Oslo")], "fine", BackendError("no"), "", "")]
    )
    organism.agent(handler=ModelAgent(max_history_chars=0))
    ends: list[str] = []
    async with organism.running():
        await organism.pump.wait_idle()  # it has started
        baseline = organism.pump.statistics().open_frames
        for _ in range(150):
            try:
                ends.append((await organism.ask()).text)
            except HandlerError:
                ends.append("failed")
            assert len(organism.pump.runtime.get(Dialogues)) == 0
        assert organism.pump.statistics().open_frames == baseline
    assert (ends.count("fine"), ends.count("failed")) == (50, 100)


# -- whatever a model says

TOOLS = ["weather", "crash", "nobody", "respond", "", "we ather"]
CALLS = st.builds(
    ToolCall,
    id=st.sampled_from(["", "a", "b"]),
    name=st.sampled_from(TOOLS),
    arguments=st.sampled_from(
        [
            {"name": "Oslo"},
            {"text": "x"},
            {},
            {"name": None},
            {"text": "fine", "status": "ok"},
            {"title": "t", "lines": []},
        ]
    ),
    fault=st.sampled_from(["", "", "", "the arguments are no JSON"]),
)
SAID = st.tuples(
    st.sampled_from(["", " ", "text", "\x00"]), st.lists(CALLS, max_size=4), st.sampled_from(["stop", "length"])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SAID, max_size=7), st.booleans(), st.integers(1, 6))
def test_whatever_a_model_says_the_caller_hears_of_one_end(script: list[Any], by_class: bool, most: int) -> None:
    """And every call that the model makes is answered before the model is asked again, once, in order."""
    steps = [said(text, *calls, reason=reason) for text, calls, reason in script]

    async def play() -> Organism:
        organism = Organism(*steps)
        organism.pump.register("crash", crash, Ask)
        organism.agent(
            handler=ModelAgent(prompt=PROMPT, max_model_calls=most),
            peers=["weather", "crash"],
            output_class=Report if by_class else None,
        )
        try:
            answer = await organism.answer()
            assert type(answer) is (Report if by_class else TextOutput)
        except (HandlerError, HopLimitError) as error:
            assert organism.backend.calls == most or isinstance(error, HandlerError)
        return organism

    logging.getLogger("xml_pipeline").setLevel(logging.CRITICAL)
    try:
        organism = asyncio.run(play())
    finally:
        logging.getLogger("xml_pipeline").setLevel(logging.NOTSET)
    assert 1 <= organism.backend.calls <= most
    for request in organism.requests:
        check_transcript(request)


def check_transcript(request: LLMRequest) -> None:
    open_ids: list[str] = []
    for message in request.messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] == open_ids.pop(0)
        else:
            assert open_ids == []
            open_ids = [each.id for each in message.get("tool_calls", ())]
            assert len(set(open_ids)) == len(open_ids)
            for each in message.get("tool_calls", ()):
                Tool(each.name, "", {})  # which refuses names that providers do
                json.dumps(dict(each.arguments), allow_nan=False)
            assert message["content"].strip() or open_ids
    assert open_ids == []
