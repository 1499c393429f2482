"""`xml_pipeline.platform.model_agent`: what the model is told, what its calls become, and what is answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.message_bus.helpers import PATIENCE, Ask, Gate, Note, Recorder, Reply, echo, reached
from tests.platform.model_agent_kit import (
    PROMPT,
    City,
    ModelGate,
    Organism,
    Report,
    call,
    contents,
    roles,
    said,
    system_text,
    tool_names,
)
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.errors import DeadlineExceeded, HandlerError, HopLimitError
from xml_pipeline.llm import LLMRequest, ToolCall, UsageTracker
from xml_pipeline.platform import AgentPrompt, ModelAgent
from xml_pipeline.platform.history import history_messages
from xml_pipeline.primitives import TextInput, TextOutput
from xml_pipeline.runtime import use_runtime

# -- the first turn


async def test_prompt_instructions_and_text_are_what_the_model_is_told_first() -> None:
    organism = Organism("Three degrees.")
    organism.agent()
    assert await organism.answer("How warm is it?") == TextOutput("Three degrees.")
    (request,) = organism.requests
    assert [message["role"] for message in request.messages] == ["system", "system", "user"]
    assert request.messages[0]["content"] == PROMPT
    assert request.messages[-1]["content"] == "How warm is it?"
    assert "You are the agent 'agent'" in request.messages[1]["content"]
    assert "plain text" not in request.messages[1]["content"]
    assert tool_names(request) == ["weather"]


async def test_options_and_ids_reach_the_router() -> None:
    organism = Organism("fine")
    organism.agent(handler=ModelAgent(prompt="x", model="large", temperature=0.5, max_tokens=77))
    events: list[Any] = []
    tracker = UsageTracker()
    tracker.subscribe(events.append)
    organism.pump.runtime.put(tracker)
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        await organism.pump.wait(thread)
    request = organism.last
    assert (request.model, request.temperature, request.max_tokens) == ("large", 0.5, 77)
    assert [(event.agent_id, event.thread_id) for event in events] == [("agent", thread)]


async def test_defaults_leave_it_to_the_router_and_the_provider() -> None:
    organism = Organism("fine", default_model="small")
    organism.agent(peers=[])
    await organism.answer()
    request = organism.last
    assert (request.model, request.temperature, request.max_tokens, request.tools) == ("small", None, None, None)


async def test_any_other_payload_is_shown_as_canonical_xml() -> None:
    organism = Organism("fine")
    organism.agent(payload_class=(City, TextInput))
    await organism.answer(City("Oslo & <Bergen>"))
    assert organism.last.messages[-1]["content"] == "<City><Name>Oslo &amp; &lt;Bergen&gt;</Name></City>"


@pytest.mark.parametrize("text", ["", "  \n"])
async def test_a_blank_text_is_shown_as_xml_since_providers_refuse_it(text: str) -> None:
    organism = Organism("fine")
    organism.agent()
    await organism.answer(text)
    assert organism.last.messages[-1]["content"].startswith(f"<TextInput><Text>{text}</Text>")


async def test_the_listeners_own_prompt_wins_over_the_handlers() -> None:
    organism = Organism("fine")
    organism.agent(handler=ModelAgent(prompt="the handler's"), prompt="the listener's")
    await organism.answer()
    assert contents("system", organism.last)[0] == "the listener's"


async def test_prompt_and_model_are_those_in_force_when_the_frame_begins() -> None:
    first = ModelGate([call("weather", name="Oslo")])
    organism = Organism(first, "one", "two")
    organism.agent(prompt="before")
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        await reached(first.asked)
        organism.pump.engine.prompts.swap([AgentPrompt.create("agent", "after", model="other")])
        first.opened.set()
        assert await organism.pump.wait(thread) == TextOutput("one")
        assert await organism.ask() == TextOutput("two")
    assert [contents("system", request)[0] for request in organism.requests] == ["before", "before", "after"]
    assert [request.model for request in organism.requests] == ["m", "m", "other"]


async def test_a_prompt_of_nobody_is_left_out() -> None:
    organism = Organism("fine")
    organism.agent(handler=ModelAgent())
    await organism.answer()
    assert len(contents("system", organism.last)) == 1


async def test_only_agents_can_have_this_handler() -> None:
    organism = Organism("fine")
    organism.pump.register("tool", ModelAgent(prompt=PROMPT), TextInput)
    with pytest.raises(HandlerError) as caught:
        await organism.answer(to="tool")
    assert "register it with agent=True" in caught.value.detail
    assert organism.backend.calls == 0


# -- the history


async def test_the_next_turn_knows_what_was_said_in_the_ones_before() -> None:
    organism = Organism([call("weather", name="Oslo")], "Three.", "As I said.")
    organism.agent()
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("How warm?"))
        await organism.pump.wait(thread)
        assert await organism.ask("Really?", thread_id=thread) == TextOutput("As I said.")
    before, now = organism.last.messages[2:-1], organism.last.messages[-1]
    text = "<Text>How warm?</Text><Source>console</Source><User></User>"
    assert [(message["role"], message["content"]) for message in before] == [
        ("user", f"<from>external</from>\n<TextInput>{text}</TextInput>"),
        ("assistant", "<from>agent</from>\n<City><Name>Oslo</Name></City>"),
        ("user", "<from>weather</from>\n<Forecast><City>Oslo</City><Celsius>3</Celsius></Forecast>"),
        ("assistant", "<from>agent</from>\n<TextOutput><Text>Three.</Text><Status>ok</Status></TextOutput>"),
    ]
    assert now == {"role": "user", "content": "Really?"}
    assert "earlier in this conversation" in system_text(organism.last)
    assert "earlier in this conversation" not in system_text(organism.requests[0])


@pytest.mark.parametrize("through", ["agent", "tool", "group"])
async def test_an_answer_that_a_listener_takes_is_in_the_history_once(through: str) -> None:
    """The pump keeps it when it delivers it, if it does so in the agent's own name."""
    organism = Organism("one", "two")
    organism.agent(broadcast="group")

    def decide(payload: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(payload, Ask) or payload.text == "one":
            return HandlerResponse.call(TextInput("?"), through)
        return HandlerResponse.respond(Reply(payload.text))

    organism.pump.register("tool", Recorder(lambda payload, _: HandlerResponse(payload, "agent")), TextInput)
    organism.pump.register("boss", Recorder(decide), Ask, agent=True, peers=["agent", "tool", "group"])
    assert await organism.answer(Ask(), to="boss") == Reply("two")
    assert roles(organism.last) == ["user", "assistant", "user"]


async def test_an_answer_that_passes_through_tools_to_the_outside_is_kept() -> None:
    organism = Organism("one", "two")
    organism.agent()
    organism.pump.register("front", Recorder(lambda payload, _: HandlerResponse(Note(), "middle")), Ask)
    organism.pump.register("middle", Recorder(lambda payload, _: HandlerResponse(TextInput("?"), "agent")), Note)
    async with organism.running():
        thread = await organism.pump.inject("front", Ask())
        assert await organism.pump.wait(thread) == TextOutput("one")
        await organism.ask(Ask(), to="front", thread_id=thread)
    assert roles(organism.last) == ["user", "assistant", "user"]
    assert "<from>agent</from>" in organism.last.messages[-2]["content"]


async def test_history_is_bounded_by_the_oldest_and_may_be_left_out() -> None:
    organism = Organism(*["x"] * 4, *["y"] * 2)
    organism.agent(handler=ModelAgent(max_history_chars=300))
    organism.agent("forgetful", handler=ModelAgent(max_history_chars=0))
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("first"))
        await organism.pump.wait(thread)
        for text in ("second", "third", "fourth"):
            await organism.ask(text, thread_id=thread)
        history = "".join(str(message["content"]) for message in organism.last.messages[2:-1])
        assert "first" not in history and "third" in history
        assert 0 < len(history) <= 300
        thread = await organism.pump.inject("forgetful", TextInput("first"))
        await organism.pump.wait(thread)
        await organism.ask("second", to="forgetful", thread_id=thread)
    assert roles(organism.last) == ["user"]


async def test_two_conversations_never_mix() -> None:
    """They are interleaved: each is asked, calls, and answers while the other is in the middle."""
    gates = {name: ModelGate([call("weather", name=name)]) for name in ("Oslo", "Rome")}

    async def first(request: LLMRequest) -> Any:
        return await gates[request.messages[-1]["content"]](request)

    def second(request: LLMRequest) -> str:
        return request.messages[-1]["content"]

    organism = Organism(first, first, second, second)
    organism.agent()
    async with organism.running():
        threads = {name: await organism.pump.inject("agent", TextInput(name)) for name in gates}
        for gate in gates.values():
            await reached(gate.asked)
        for gate in reversed(gates.values()):
            gate.opened.set()
        for name, thread in threads.items():
            answer = await organism.pump.wait(thread, PATIENCE)
            assert json.loads(answer.text) == {"Forecast": {"city": name, "celsius": 3}}
    for request in organism.requests[2:]:
        assert ("Oslo" in str(request.messages)) != ("Rome" in str(request.messages))


# -- calls


async def test_calls_of_one_answer_run_at_once_and_their_results_go_back_together() -> None:
    gates = {"slow": Gate(Reply("slow")), "quick": Gate(Reply("quick"))}
    organism = Organism(said("Let me see.", call("slow", text="1"), call("quick", text="2")), "done")
    for name, gate in gates.items():
        organism.pump.register(name, gate, Ask)
    organism.agent(peers=["slow", "quick"])
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        for gate in gates.values():
            await reached(gate.entered)  # both run before either has ended
        gates["quick"].opened.set()
        await organism.turns(2)
        assert organism.backend.calls == 1
        gates["slow"].opened.set()
        assert await organism.pump.wait(thread, PATIENCE) == TextOutput("done")
    assert organism.backend.calls == 2
    asked, *results = organism.last.messages[-3:]
    assert (asked["role"], asked["content"]) == ("assistant", "Let me see.")
    assert [each.name for each in asked["tool_calls"]] == ["slow", "quick"]
    assert [(each["role"], each["tool_call_id"]) for each in results] == [
        ("tool", each.id) for each in asked["tool_calls"]
    ]
    assert [json.loads(each["content"]) for each in results] == [{"Reply": {"text": t}} for t in ("slow", "quick")]


async def test_no_more_calls_are_open_at_a_time_than_allowed() -> None:
    running = most = 0

    async def tool(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(20):
            await asyncio.sleep(0)
        running -= 1
        return HandlerResponse.respond(Reply(payload.text))

    organism = Organism([call("tool", text=str(number)) for number in range(7)], "done")
    organism.pump.register("tool", tool, Ask)
    organism.agent(handler=ModelAgent(max_parallel=3), peers=["tool"])
    assert await organism.answer() == TextOutput("done")
    assert most == 3
    assert [json.loads(text)["Reply"]["text"] for text in contents("tool", organism.last)] == list("0123456")


async def test_rounds_follow_each_other_until_there_is_an_answer() -> None:
    organism = Organism([call("weather", name="Oslo")], [call("weather", name="Rome")], "Both.")
    organism.agent()
    assert await organism.answer() == TextOutput("Both.")
    assert roles(organism.last) == ["user", "assistant", "tool", "assistant", "tool"]
    assert "Oslo" in contents("tool", organism.last)[0] and "Rome" in contents("tool", organism.last)[1]


async def test_a_further_answer_of_a_peer_is_no_result_of_a_later_call() -> None:
    """It says more than once; the first counts, and what comes later asks the model nothing."""

    async def twice(payload: Any, metadata: HandlerMetadata) -> Any:
        yield HandlerResponse.respond(Reply(f"{payload.text}, first"))
        yield HandlerResponse.respond(Reply(f"{payload.text}, second"))

    gate = Gate(Reply("gate"))
    organism = Organism([call("twice", text="a")], [call("gate", text="b")], "done")
    organism.pump.register("twice", twice, Ask)
    organism.pump.register("gate", gate, Ask)
    organism.agent(peers=["twice", "gate"])
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        await reached(gate.entered)
        await organism.turns(3)  # the question, and both answers
        assert organism.backend.calls == 2
        gate.opened.set()
        assert await organism.pump.wait(thread, PATIENCE) == TextOutput("done")
    assert contents("tool", organism.last) == ['{"Reply": {"text": "a, first"}}', '{"Reply": {"text": "gate"}}']


async def test_it_may_call_itself_in_a_frame_of_its_own() -> None:
    def play(request: LLMRequest) -> Any:
        match roles(request), request.messages[-1]["content"]:
            case [*_, "user"], "outer":
                return [call("agent", text="inner", source="", user="")]
            case [*_, "user"], "inner":
                return "from inside"
            case [*_, "tool"], text:
                return f"outside: {json.loads(text)['TextOutput']['text']}"

    organism = Organism(play, play, play)
    organism.agent(peers=["agent"])
    assert await organism.answer("outer") == TextOutput("outside: from inside")


async def test_agents_without_python_work_together() -> None:
    def play(request: LLMRequest) -> Any:
        match tool_names(request), roles(request)[-1]:
            case ["worker"], "user":
                return [call("worker", text=number, source="", user="") for number in "123"]
            case ["worker"], "tool":
                return ", ".join(sorted(json.loads(t)["TextOutput"]["text"] for t in contents("tool", request)))
            case ["weather"], "user":
                return [call("weather", name=request.messages[-1]["content"])]
            case ["weather"], "tool":
                return json.loads(request.messages[-1]["content"])["Forecast"]["city"]

    organism = Organism(*[play] * 8)
    organism.agent("boss", handler=ModelAgent(prompt="boss"), peers=["worker"])
    organism.agent("worker", handler=ModelAgent(prompt="worker", max_history_chars=0))
    assert await organism.answer(to="boss") == TextOutput("1, 2, 3")


# -- answers


async def test_without_an_output_class_the_text_is_the_answer() -> None:
    organism = Organism("  kept as it is\n")
    organism.agent()
    assert await organism.answer() == TextOutput("  kept as it is\n")


async def test_a_declared_text_output_means_the_same() -> None:
    organism = Organism("fine")
    organism.agent(output_class=TextOutput)
    assert await organism.answer() == TextOutput("fine")
    assert tool_names(organism.last) == ["weather"]


async def test_an_answer_that_was_cut_says_so() -> None:
    organism = Organism(said("It was a dark and", reason="length"))
    organism.agent()
    assert await organism.answer() == TextOutput("It was a dark and", "cut")


async def test_characters_that_xml_cannot_carry_are_replaced() -> None:
    organism = Organism("a\x00b\ud800c\ufffed\te\n😀")
    organism.agent()
    assert await organism.answer() == TextOutput("a\ufffdb\ufffdc\ufffdd\te\n😀")


async def test_with_an_output_class_the_model_answers_by_a_tool() -> None:
    organism = Organism([call("weather", name="Oslo")], [call("respond", title="Cold", lines=["3"])])
    organism.agent(output_class=Report)
    assert await organism.answer() == Report("Cold", ["3"])
    respond = organism.last.tools[-1]
    assert tool_names(organism.last) == ["weather", "respond"]
    assert respond.parameters["properties"]["lines"] == {"type": "array", "items": {"type": "string"}}
    assert respond.parameters["required"] == ["title", "lines"]
    assert "call 'respond'" in system_text(organism.last)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"title": "Cold"}, "'lines' is missing"),
        ({"title": 3, "lines": []}, "expected text"),
        ({"title": "a\x00", "lines": []}, "cannot be carried by XML"),
        ({"title": "Cold", "lines": [], "more": 1}, "'more' is unknown"),
    ],
)
async def test_an_answer_that_does_not_fit_is_told_to_the_model(arguments: dict[str, Any], told: str) -> None:
    organism = Organism([call("respond", **arguments)], [call("respond", title="Cold", lines=[])])
    organism.agent(output_class=Report)
    assert await organism.answer() == Report("Cold", [])
    error = json.loads(organism.last.messages[-1]["content"])["error"]
    assert (error["code"], error["retry_allowed"]) == ("validation", True)
    assert told in error["message"]


async def test_an_unreadable_answer_is_told_to_the_model() -> None:
    organism = Organism(ToolCall("1", "respond", {}, "the arguments are no JSON"), call("respond", title="", lines=[]))
    organism.agent(output_class=Report)
    assert await organism.answer() == Report("", [])
    assert "the arguments are no JSON" in organism.last.messages[-1]["content"]


async def test_an_answer_beside_other_calls_is_not_taken() -> None:
    """It was given without knowing their results. Nothing is lost: they are carried out, once."""
    asked = Recorder(lambda payload, _: HandlerResponse.respond(Reply(payload.text)))
    early = call("respond", title="early", lines=[])
    organism = Organism([call("tool", text="x"), early], [early, early], [call("respond", title="late", lines=[])])
    organism.pump.register("tool", asked, Ask)
    organism.agent(output_class=Report, peers=["tool"])
    assert await organism.answer() == Report("late", [])
    assert asked.payloads == [Ask("x")]
    results = contents("tool", organism.last)
    assert results[0] == '{"Reply": {"text": "x"}}'
    assert all("call it alone" in json.loads(text)["error"]["message"] for text in results[1:])
    assert len(results) == 4


async def test_text_in_place_of_a_wanted_class_is_reminded_of_once() -> None:
    organism = Organism("It is cold.", [call("respond", title="Cold", lines=[])])
    organism.agent(output_class=Report)
    assert await organism.answer() == Report("Cold", [])
    assert roles(organism.last) == ["user", "assistant", "user"]
    assert organism.last.messages[-2]["content"] == "It is cold."
    assert "call 'respond'" in organism.last.messages[-1]["content"]


async def test_text_again_after_the_reminder_fails() -> None:
    organism = Organism("It is cold.", "Very cold.")
    organism.agent(output_class=Report)
    with pytest.raises(HandlerError) as caught:
        await organism.answer()
    assert "the model of agent 'agent' answered in plain text" in caught.value.detail
    assert "cold" not in caught.value.detail
    assert organism.backend.calls == 2


async def test_a_call_after_the_reminder_is_a_new_beginning() -> None:
    organism = Organism("Hm.", [call("weather", name="Oslo")], "Hm.", [call("respond", title="Cold", lines=[])])
    organism.agent(output_class=Report)
    assert await organism.answer() == Report("Cold", [])


@pytest.mark.parametrize("nothing", ["", " \n"])
async def test_an_empty_answer_is_reminded_of_once(nothing: str) -> None:
    organism = Organism(nothing, "fine")
    organism.agent()
    assert await organism.answer() == TextOutput("fine")
    assert roles(organism.last) == ["user", "user"]  # providers refuse messages without text
    assert "answered nothing" in organism.last.messages[-1]["content"]


async def test_an_empty_answer_after_the_reminder_fails_and_says_why_it_stopped() -> None:
    organism = Organism("", said("", reason="length"))
    organism.agent()
    with pytest.raises(HandlerError) as caught:
        await organism.answer()
    assert "answered nothing" in caught.value.detail and "'length'" in caught.value.detail


async def test_respond_is_no_tool_where_text_is_wanted() -> None:
    organism = Organism([call("respond", text="fine")], "fine")
    organism.agent()
    assert await organism.answer() == TextOutput("fine")
    assert "answer in plain text" in organism.last.messages[-1]["content"]


# -- limits of its own


@pytest.mark.parametrize(
    "script",
    [
        [[call("weather", name="Oslo")], [call("weather", name="Oslo")]],
        [[call("weather", name=1)], [call("nobody")]],
        [[call("weather", name="Oslo")], ""],
        ["", [call("weather", name="Oslo")]],
    ],
    ids=["calls", "mistakes", "a reminder at the end", "a reminder at the start"],
)
async def test_beyond_its_model_calls_the_caller_is_told_hops(script: list[Any]) -> None:
    organism = Organism(*script, "never")
    organism.agent(handler=ModelAgent(max_model_calls=2))
    async with organism.running():
        with pytest.raises(HopLimitError):
            await organism.ask()
    assert organism.backend.calls == 2


async def test_the_last_allowed_model_call_may_answer() -> None:
    organism = Organism([call("weather", name="Oslo")], "just in time")
    organism.agent(handler=ModelAgent(max_model_calls=2))
    assert await organism.answer() == TextOutput("just in time")


async def test_model_calls_are_counted_by_frame() -> None:
    organism = Organism("one", "two")
    organism.agent(handler=ModelAgent(max_model_calls=1))
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        await organism.pump.wait(thread)
        assert await organism.ask(thread_id=thread) == TextOutput("two")


async def test_a_model_call_may_take_as_long_as_its_turn() -> None:
    """The router's own limit is not asked; and when time is up, it is the turn's."""
    timeouts: list[float] = []
    organism = Organism("fine")
    complete = organism.router.complete

    async def spy(*args: Any, **options: Any) -> Any:
        timeouts.append(options["timeout"])
        return await complete(*args, **options)

    organism.router.complete = spy  # type: ignore[method-assign]
    organism.agent(timeout=500.0)
    await organism.answer()
    assert 499.0 < timeouts[0] <= 501.0


async def test_a_turn_whose_time_is_up_is_a_timeout_to_the_caller() -> None:
    gate = ModelGate()
    organism = Organism(gate)
    organism.agent(timeout=0.05)
    async with organism.running():
        with pytest.raises(DeadlineExceeded):
            await organism.ask()
        await reached(gate.ended)


async def test_as_many_frames_as_configured_are_worked_on_at_once() -> None:
    gates = [ModelGate("one"), ModelGate("two")]
    organism = Organism(*gates)
    organism.agent(concurrency=1)
    async with organism.running():
        threads = [await organism.pump.inject("agent", TextInput("?")) for _ in gates]
        await reached(gates[0].asked)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not gates[1].asked.is_set()
        gates[0].opened.set()
        await reached(gates[1].asked)
        gates[1].opened.set()
        assert {(await organism.pump.wait(thread)).text for thread in threads} == {"one", "two"}


async def test_it_works_where_turns_are_not_in_order() -> None:
    organism = Organism([call("weather", name=str(number)) for number in range(8)], "done")
    organism.agent(ordered=False)
    assert await organism.answer() == TextOutput("done")
    assert len(contents("tool", organism.last)) == 8
    assert organism.backend.calls == 2


# -- the arguments


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prompt": None}, TypeError),
        ({"model": 3}, TypeError),
        ({"temperature": "hot"}, TypeError),
        ({"temperature": True}, TypeError),
        ({"temperature": 2.1}, ValueError),
        ({"temperature": float("nan")}, ValueError),
        ({"max_tokens": 0}, ValueError),
        ({"max_tokens": 1.5}, TypeError),
        ({"max_model_calls": 0}, ValueError),
        ({"max_model_calls": True}, TypeError),
        ({"max_parallel": 0}, ValueError),
        ({"max_history_chars": -1}, ValueError),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        ModelAgent(**options)


def test_the_prompt_is_not_shown() -> None:
    assert repr(ModelAgent(prompt=PROMPT, model="m")) == "<ModelAgent, model 'm'>"


# -- the history by itself


async def test_history_leaves_out_one_frame_only() -> None:
    organism = Organism()
    organism.pump.register("echo", echo, Note)
    with use_runtime(organism.pump.runtime):
        history = organism.pump.engine.history
        history.append("a", Note("kept"), "x", "agent")
        assert [m["content"] for m in history_messages("a", "agent")] == [
            "<from>x</from>\n<Note><Text>kept</Text></Note>"
        ]
        assert history_messages("a", "agent", without_thread="a") == []
        assert history_messages("a", "other") == []
