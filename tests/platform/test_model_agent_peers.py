"""`xml_pipeline.platform.tools`: peers as a model's tools, and what comes back of calls that do not end well."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest

from tests.message_bus.helpers import Ask, Gate, Note, Recorder, Reply, crash, echo, reached
from tests.platform.model_agent_kit import (
    City,
    ModelGate,
    Organism,
    Report,
    call,
    contents,
    system_text,
    tool_names,
)
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.llm import LLMRequest, ToolCall
from xml_pipeline.message_bus.directory import ListenerInfo
from xml_pipeline.platform import ModelAgent
from xml_pipeline.platform.tool_names import ToolNames
from xml_pipeline.platform.tools import Toolbox, UnusableCall
from xml_pipeline.primitives import TextInput, TextOutput
from xml_pipeline.primitives.todo import TodoRegistered


def errors(request: LLMRequest) -> list[dict[str, Any]]:
    """What the model is told of calls without an answer."""
    return [json.loads(text)["error"] for text in contents("tool", request)]


# -- what is offered


class Unit(Enum):
    CELSIUS = "C"
    KELVIN = "K"


@dataclass
class Station:
    """A place that measures.

    Args:
        height: metres above the sea.
    """

    names: list[str]
    height: float = 0.0
    unit: Unit = Unit.CELSIUS
    next_to: Station | None = None


async def test_a_tool_has_the_listeners_description_and_the_schema_of_its_class() -> None:
    organism = Organism("fine")
    organism.pump.register("stations", echo, Station, description="Finds a station.")
    organism.agent(peers=["stations"])
    await organism.answer()
    (tool,) = organism.last.tools or ()
    assert (tool.name, tool.description) == ("stations", "Finds a station.")
    assert tool.parameters["type"] == "object"
    assert tool.parameters["required"] == ["names"]
    assert tool.parameters["properties"]["unit"]["default"] == "C"
    assert tool.parameters["description"].startswith("A place that measures.")
    assert "$schema" not in tool.parameters and tool.parameters["$defs"]["Station"]


async def test_arguments_become_the_payload_with_all_its_types() -> None:
    asked = Recorder(lambda payload, _: HandlerResponse.respond(Reply("found")))
    arguments = {"names": ["a", "b&<"], "height": 2, "unit": "K", "next_to": {"names": []}}
    organism = Organism([ToolCall("", "stations", arguments)], "fine")
    organism.pump.register("stations", asked, Station)
    organism.agent(peers=["stations"])
    await organism.answer()
    assert asked.payloads == [Station(["a", "b&<"], 2.0, Unit.KELVIN, Station([]))]
    assert asked.metadata[0].from_id == "agent"


async def test_only_peers_are_offered_in_the_order_of_the_list() -> None:
    organism = Organism("fine")
    for name in ("a", "b", "c"):
        organism.pump.register(name, echo, Ask)
    organism.agent(peers=["c", "missing", "a"])
    await organism.answer()
    assert tool_names(organism.last) == ["c", "a"]


@pytest.mark.parametrize("peers", [None, []])
async def test_an_agent_without_peers_has_no_tools_and_is_not_told_of_any(peers: Any) -> None:
    organism = Organism("fine")
    organism.agent(peers=peers)
    await organism.answer()
    assert organism.last.tools is None
    assert "Your tools" not in system_text(organism.last)


async def test_listeners_may_have_any_name() -> None:
    names = ["tools.web search", "журнал", "respond", 'a"b<&>', "a.b", "a b", "x" * 200]
    seen = {name: Recorder(lambda payload, _: HandlerResponse.respond(Reply(payload.text))) for name in names}

    def play(request: LLMRequest) -> list[ToolCall]:
        offered = [tool for tool in request.tools or () if tool.name != "respond"]
        return [call(tool.name, text=tool.description) for tool in offered]

    organism = Organism(play, [call("respond", title="done", lines=[])])
    for name, recorder in seen.items():
        organism.pump.register(name, recorder, Ask, description=f"this is {name}")
    organism.agent(peers=names, output_class=Report)
    assert await organism.answer() == Report("done", [])
    for name, recorder in seen.items():
        assert [payload.text for payload in recorder.payloads] == [f"this is {name}"]


async def test_a_listener_of_several_classes_is_several_tools() -> None:
    seen = Recorder(lambda payload, _: HandlerResponse.respond(Reply("ok")))
    organism = Organism([call("desk_Note", text="n"), call("desk_Ask", text="a")], "fine")
    organism.pump.register("desk", seen, (Ask, Note), description="A desk.")
    organism.agent(peers=["desk"])
    await organism.answer()
    assert tool_names(organism.last) == ["desk_Ask", "desk_Note"]
    assert sorted(map(repr, seen.payloads)) == ["Ask(text='a')", "Note(text='n')"]


async def test_an_own_description_is_made_up_and_a_long_one_is_cut() -> None:
    organism = Organism("fine")
    organism.pump.register("a b", echo, Ask)
    organism.pump.register("long", echo, Ask, description="x" * 5000)
    organism.agent(peers=["a b", "long"])
    await organism.answer()
    first, second = organism.last.tools or ()
    assert first.description == "The peer 'a b'."
    assert len(second.description) == 1024 and second.description.endswith("x…")


# -- generic listeners and groups


async def anything(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(Reply(f"{payload.tag}: {''.join(payload.itertext())}"))


async def test_a_generic_listener_takes_any_element_as_text() -> None:
    organism = Organism([call("sink", xml=" <Order><Item>a &amp; b</Item></Order>\n")], "fine")
    organism.pump.register_generic_listener("sink", anything, "Keeps it.")
    organism.agent(peers=["sink"])
    await organism.answer()
    assert contents("tool", organism.last) == ['{"Reply": {"text": "Order: a & b"}}']
    (tool,) = organism.last.tools or ()
    assert tool.description == "Keeps it. Takes any payload."


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "the only argument is 'xml'"),
        ({"xml": 3}, "the only argument is 'xml'"),
        ({"xml": "<a/>", "more": 1}, "the only argument is 'xml'"),
        ({"xml": "<a>"}, "is not a payload"),
        ({"xml": "<a/><b/>"}, "must be one element, not 2"),
        ({"xml": ""}, "must be one element, not 0"),
        ({"xml": "text"}, "is not a payload"),
        ({"xml": '<a xmlns="urn:x"/>'}, "must be in no namespace"),
        ({"xml": "<!DOCTYPE a><a/>"}, "is not a payload"),
        ({"xml": "<a>\x00</a>"}, "is not a payload"),
    ],
)
async def test_what_is_no_element_is_told_and_not_sent(arguments: dict[str, Any], told: str) -> None:
    sink = Recorder()
    organism = Organism([ToolCall("", "sink", arguments)], "fine")
    organism.pump.register_generic_listener("sink", sink)
    organism.agent(peers=["sink"])
    await organism.answer()
    (error,) = errors(organism.last)
    assert error["code"] == "validation" and told in error["message"]
    assert sink.seen == []


async def test_of_a_group_every_member_is_asked_and_the_first_answer_is_the_result() -> None:
    gates = [Gate(Reply("first")), Gate(Reply("second"))]
    organism = Organism([call("experts", text="?")], "fine")
    for number, gate in enumerate(gates):
        organism.pump.register(f"experts.{number}", gate, Ask, broadcast=True, description=f"Expert {number}.")
    organism.agent(peers=["experts"])
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        for gate in gates:
            await reached(gate.entered)
        gates[1].opened.set()
        assert await organism.pump.wait(thread) == TextOutput("fine")
        gates[0].opened.set()
    assert contents("tool", organism.last) == ['{"Reply": {"text": "second"}}']
    (tool,) = organism.last.tools or ()
    assert tool.description.startswith("A group of 2") and tool.description.endswith("The result is the first answer.")


# -- calls that do not end well


@pytest.mark.parametrize(
    ("asked", "code", "told"),
    [
        (call("weather", name=3), "validation", "City.name"),
        (call("weather"), "validation", "'name' is missing"),
        (call("weather", name="a\x0b"), "validation", "cannot be carried by XML"),
        (call("weather", name="a", nam="b"), "validation", "'nam' is unknown"),
        (ToolCall("", "weather", {}, "the arguments are no JSON"), "validation", "the arguments are no JSON"),
        (call("wether", name="a"), "routing", "there is no tool 'wether'"),
        (call("", name="a"), "routing", "there is no tool ''"),
        (call("n" * 500, name="a"), "routing", "there is no tool"),
        (call("we ather", name="a"), "routing", "there is no tool 'we ather'"),
        (call("weather", name=object()), "validation", "City.name: found <object"),
        (ToolCall("", "weather", None), "validation", "the arguments are no object"),  # type: ignore[arg-type]
        (call("weather", name=float("nan")), "validation", "City.name: found nan"),
    ],
)
async def test_what_cannot_be_sent_is_told_to_the_model_and_nothing_is_sent(
    asked: ToolCall, code: str, told: str
) -> None:
    organism = Organism(asked, "fine")
    organism.agent()
    async with organism.running() as audit:
        assert await organism.ask() == TextOutput("fine")
        await audit.idle()
    assert audit.outcomes(to_id="weather") == []
    (error,) = errors(organism.last)
    assert error["code"] == code and told in error["message"]
    (repeated,) = organism.last.messages[-2]["tool_calls"]
    json.dumps(dict(repeated.arguments), allow_nan=False)  # what a provider is told again can be written


async def test_a_name_that_only_looks_like_a_tools_is_not_that_tool() -> None:
    organism = Organism([call("a.b", text="x")], "fine")
    reached_by = Recorder()
    organism.pump.register("a_b", reached_by, Ask)
    organism.agent(peers=["a_b"])
    await organism.answer()
    assert reached_by.seen == []
    assert errors(organism.last)[0]["message"] == "there is no tool 'a.b'"


async def test_what_can_be_sent_is_sent_beside_what_cannot_and_results_keep_their_order() -> None:
    calls = [call("nobody"), call("weather", name="Oslo"), call("weather"), call("weather", name="Rome")]
    organism = Organism(calls, "fine")
    organism.agent()
    await organism.answer()
    results = [json.loads(text) for text in contents("tool", organism.last)]
    assert [next(iter(result)) for result in results] == ["error", "Forecast", "error", "Forecast"]
    assert [results[1]["Forecast"]["city"], results[3]["Forecast"]["city"]] == ["Oslo", "Rome"]


async def silent(payload: Any, metadata: HandlerMetadata) -> None:
    return None


async def refuses(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse("no payload at all", "nobody")


@pytest.mark.parametrize(
    ("handler", "code"),
    [(crash, "handler"), (silent, "no-answer"), (refuses, "handler")],
    ids=["crash", "silent", "refuses"],
)
async def test_a_peer_that_fails_is_an_error_result_with_its_code(handler: Any, code: str) -> None:
    organism = Organism([call("tool", text="x"), call("weather", name="Oslo")], "fine")
    organism.pump.register("tool", handler, Ask)
    organism.agent(peers=["tool", "weather"])
    assert await organism.answer() == TextOutput("fine")
    failed, well = contents("tool", organism.last)
    assert json.loads(failed)["error"]["code"] == code
    assert "secret of the handler" not in failed
    assert json.loads(well) == {"Forecast": {"city": "Oslo", "celsius": 3}}


async def test_a_peer_that_takes_too_long_is_a_timeout() -> None:
    gate = Gate()
    organism = Organism([call("tool", text="x")], "fine")
    organism.pump.register("tool", gate, Ask, timeout=0.05)
    organism.agent(peers=["tool"])
    assert await organism.answer() == TextOutput("fine")
    (error,) = errors(organism.last)
    assert (error["code"], error["retry_allowed"]) == ("timeout", True)


async def test_a_call_that_is_too_large_for_a_message_is_an_error_result() -> None:
    organism = Organism([call("weather", name="x" * 5000)], "fine", max_message_bytes=4000)
    organism.agent()
    assert await organism.answer() == TextOutput("fine")
    assert errors(organism.last)[0]["code"] == "validation"


# -- peer tables


async def test_what_a_peer_table_takes_away_is_not_offered() -> None:
    organism = Organism("fine", "fine")
    organism.pump.register("other", echo, Ask)
    organism.agent(peers=["weather", "other"])
    organism.pump.register_peer_table("narrow", {"agent": ["other"]})
    async with organism.running():
        await organism.ask(routing_table="narrow")
        await organism.ask()
    assert [tool_names(request) for request in organism.requests] == [["other"], ["weather", "other"]]


async def test_a_call_that_was_revoked_meanwhile_is_an_error_result() -> None:
    gate = ModelGate([call("weather", name="Oslo"), call("other", text="x")])
    organism = Organism(gate, "fine")
    organism.pump.register("other", echo, Ask)
    organism.agent(peers=["weather", "other"])
    organism.pump.register_peer_table("table", {"agent": ["weather", "other"]})
    async with organism.running() as audit:
        thread = await organism.pump.inject("agent", TextInput("?"), routing_table="table")
        await reached(gate.asked)
        organism.pump.modify_peer_table("table", "agent", revoke=["weather"])
        gate.opened.set()
        assert await organism.pump.wait(thread) == TextOutput("fine")
        await audit.idle()
    refused, done = contents("tool", organism.last)
    assert json.loads(refused)["error"]["code"] == "routing"
    assert json.loads(done) == {"Reply": {"text": "x"}}
    assert [tool_names(request) for request in organism.requests] == [["weather", "other"], ["other"]]


async def test_a_tools_name_keeps_its_meaning_when_another_peer_goes() -> None:
    """``a_b`` was the listener of that name. When it is revoked, ``a.b`` does not become ``a_b``."""
    gate = ModelGate([call("weather", name="Oslo")])
    organism = Organism(gate, [call("a_b", text="x")], "fine")
    near = Recorder()
    organism.pump.register("a_b", echo, Ask)
    organism.pump.register("a.b", near, Ask)
    organism.agent(peers=["a.b", "a_b", "weather"])
    organism.pump.register_peer_table("table", {"agent": ["a.b", "a_b", "weather"]})
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"), routing_table="table")
        await reached(gate.asked)
        organism.pump.modify_peer_table("table", "agent", revoke=["a_b"])
        gate.opened.set()
        await organism.pump.wait(thread)
    first, second, _ = map(tool_names, organism.requests)
    assert first[1] == "a_b" and second == [first[0], "weather"]
    assert errors_after(organism, 2)[-1]["code"] == "routing"
    assert near.seen == []


def errors_after(organism: Organism, number: int) -> list[dict[str, Any]]:
    return [json.loads(text).get("error", {}) for text in contents("tool", organism.requests[number])]


# -- todos


async def test_the_whole_cycle_of_a_todo() -> None:
    """The agent asks to be reminded, hears of it as long as it is open, and closes it."""

    def close(request: LLMRequest) -> Any:
        registered = json.loads(contents("tool", request)[0])["TodoRegistered"]
        return [call("system_todo_TodoComplete", id=registered["id"])]

    todo = call("system_todo_TodoUntil", wait_for="Forecast", from_listener="weather", description="pack a coat")
    organism = Organism([todo], [call("weather", name="Oslo")], close, "Packed.")
    organism.agent(peers=["weather", "system.todo"])
    assert await organism.answer() == TextOutput("Packed.")
    nudges = ["SYSTEM NOTE" in system_text(request) for request in organism.requests]
    assert nudges == [False, False, True, False]
    assert "pack a coat" in system_text(organism.requests[2])
    assert json.loads(contents("tool", organism.last)[-1])["TodoClosed"]["was_raised"] is True


# -- the toolbox by itself


def peer(name: str, *classes: type, **more: Any) -> ListenerInfo:
    known = {"output": None, "is_agent": False, "is_generic": not classes, "group": "", **more}
    return ListenerInfo(name, "", tuple(each.__name__ for each in classes), classes, **known)


def test_results_of_any_class_are_read_as_they_would_be_written() -> None:
    from xml_pipeline.message_bus.join import JoinResult
    from xml_pipeline.platform.tool_results import result_text

    @dataclass
    class Odd:
        value: float
        names: dict[str, int] = field(default_factory=dict)

    assert result_text(JoinResult(0, Odd(float("inf"), {"ж": 1}))) == '{"Odd": {"value": "INF", "names": {"ж": 1}}}'
    assert result_text(JoinResult(0, TodoRegistered("1"))).startswith('{"TodoRegistered": {"id": "1"')
    assert result_text(JoinResult(0, "<text>")) == "&lt;text&gt;"


def test_a_toolbox_without_an_answer_class_has_none() -> None:
    toolbox = Toolbox([peer("respond", City)], ToolNames())
    (tool,) = toolbox.tools
    assert tool.name.startswith("respond_")
    assert not toolbox.is_answer([call("respond")])
    with pytest.raises(UnusableCall):
        toolbox.message(call("respond", name="x"))
    assert toolbox.message(call(tool.name, name="x")).to == "respond"


async def test_a_hundred_conversations_at_once() -> None:
    """Each is answered with what was asked in it, and nothing is left."""

    def play(request: LLMRequest) -> Any:
        question = contents("user", request)[0]
        results = contents("tool", request)
        if len(results) < 4:
            return [call("weather", name=f"{question}.{len(results) + n}") for n in range(2)]
        return f"{question}: {[json.loads(text)['Forecast']['city'] for text in results]}"

    organism = Organism(*[play] * 300, max_concurrent_handlers=50)
    organism.agent(handler=ModelAgent(), concurrency=40)
    organism.backend.rate_limit_tpm = 10**9
    async with organism.running():
        answers = await asyncio.gather(*(organism.ask(str(number)) for number in range(100)))
    assert [each.text for each in answers] == [f"{n}: {[f'{n}.{k}' for k in range(4)]}" for n in range(100)]
