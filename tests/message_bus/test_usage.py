"""`xml_pipeline.message_bus.usage`: what agents are told of their peers, when it is written, what it leaves out."""

from __future__ import annotations

import re
from typing import Any

import pytest
from lxml import etree

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.message_bus import usage
from xml_pipeline.message_bus.usage import usage_instructions

from .helpers import Ask, Count, Note, Recorder, audited, echo


def pump_with(*peers: str, **options: Any) -> StreamPump:
    pump = StreamPump()
    pump.register("agent", echo, Ask, agent=True, peers=list(peers), description="Runs the shop.", **options)
    pump.register("baker", echo, (Note, Count), description="Bakes bread.")
    pump.register("cook", echo, Note, description="Boils soup.")
    return pump


def text_of(pump: StreamPump, name: str = "agent") -> str:
    return pump.listeners[name].usage_instructions


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of agents whose text was written, each time it was."""
    names: list[str] = []

    def counted(agent: Any, *arguments: Any) -> str:
        names.append(agent.name)
        return usage_instructions(agent, *arguments)

    monkeypatch.setattr(usage, "usage_instructions", counted)
    return names


# -- the text


def test_it_says_who_the_agent_is_then_its_peers_in_their_order_then_what_answering_means() -> None:
    text = text_of(pump_with("cook", "nobody", "baker"))
    assert text.startswith("You are 'agent'.\n\nRuns the shop.\n\nYou may call the following peers")
    assert headings(text) == ["cook", "nobody (not registered)", "baker", "Answering and calling"]
    assert text.index("Boils soup.") < text.index("Bakes bread.")


def test_its_examples_are_valid_against_its_schemas() -> None:
    blocks = re.findall(r"```xml\n(.*?)\n```", text_of(pump_with("baker", "cook")), re.DOTALL)
    pairs = list(zip(blocks[::2], blocks[1::2], strict=True))
    assert len(pairs) == 3
    for schema, example in pairs:
        etree.XMLSchema(etree.fromstring(schema)).assertValid(etree.fromstring(example))


def test_a_group_is_told_with_its_members() -> None:
    pump = pump_with("crowd")
    pump.register("one", echo, Note, broadcast="crowd", description="The first.")
    pump.register("two", echo, Note, broadcast="crowd", description="The second.")
    text = text_of(pump)
    assert "A group of 2" in text
    assert "- one: The first.\n\n- two: The second." in text


def test_without_peers_there_is_none() -> None:
    pump = pump_with()
    assert text_of(pump) == ""
    assert text_of(pump, "baker") == ""


# -- when it is written


def test_nothing_is_written_before_somebody_asks_and_then_once(written: list[str]) -> None:
    pump = pump_with("baker", "cook")
    for number in range(100):
        pump.register(f"tool {number}", echo, Note)
    assert written == []
    first = text_of(pump)
    assert text_of(pump) is first
    assert written == ["agent"]
    pump.register("another", echo, Note)
    assert text_of(pump) == first
    assert written == ["agent", "agent"]


async def test_it_follows_the_listeners_in_force_also_on_frames_that_were_opened_before() -> None:
    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if message.text:
            return HandlerResponse.respond(Note())
        pump.unregister_listener("agent")
        pump.unregister_listener("baker")
        pump.register("agent", agent, Ask, agent=True, peers=["baker"])
        pump.register("baker", echo, Note, description="Bakes cake.")
        return HandlerResponse(Ask("again"), "agent")

    agent = Recorder(decide)
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["cook"])
    pump.register("baker", echo, Note, description="Bakes bread.")
    async with audited(pump):
        await pump.request("agent", Ask())
    first, second = agent.metadata
    assert first.thread_id == second.thread_id
    assert headings(first.usage_instructions)[:-1] == ["cook (not registered)"]
    assert headings(second.usage_instructions)[:-1] == ["baker"]
    assert "Bakes cake." in second.usage_instructions


async def test_an_agent_that_is_not_registered_any_more_keeps_its_text() -> None:
    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if message.text:
            return HandlerResponse.respond(Note())
        pump.unregister_listener("agent")
        return HandlerResponse(Ask("again"), "agent")

    agent = Recorder(decide)
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["baker"])
    pump.register("baker", echo, Note)
    async with audited(pump):
        await pump.request("agent", Ask())
    assert len({metadata.usage_instructions for metadata in agent.metadata}) == 1


# -- under a peer table


def narrowed(pump: StreamPump, table: str | None, name: str = "agent") -> str:
    return pump.engine.usage.of(pump.listeners[name], table)


def test_what_a_table_refuses_is_not_mentioned() -> None:
    pump = pump_with("baker", "cook")
    pump.register_peer_table("no cook", {"agent": ["baker"]})
    pump.register_peer_table("nobody", {})
    text = narrowed(pump, "no cook")
    assert headings(text) == ["baker", "Answering and calling"]
    assert "cook" not in text
    assert "soup" not in text
    assert narrowed(pump, "nobody") == ""
    assert narrowed(pump, "never registered") == ""
    assert headings(narrowed(pump, None))[:-1] == ["baker", "cook"]
    assert narrowed(pump, "nobody", "baker") == ""


def test_it_follows_grants_and_revocations_up_the_chain(written: list[str]) -> None:
    pump = pump_with("baker", "cook")
    pump.register_peer_table("top", {"agent": ["baker", "cook"]})
    pump.register_peer_table("low", {"agent": ["baker"]}, parent="top")
    assert headings(narrowed(pump, "low"))[:-1] == ["baker"]
    pump.modify_peer_table("low", "agent", grant=["cook"])
    assert headings(narrowed(pump, "low"))[:-1] == ["baker", "cook"]
    pump.modify_peer_table("top", "agent", revoke=["baker"])
    assert headings(narrowed(pump, "low"))[:-1] == ["cook"]
    known = narrowed(pump, "low")
    written.clear()
    pump.register_peer_table("unrelated", {})
    assert narrowed(pump, "low") is known
    assert written == []


def test_it_follows_the_listeners_too() -> None:
    pump = pump_with("baker", "cook")
    pump.register_peer_table("t", {"agent": ["baker", "cook"]})
    assert "Bakes bread." in narrowed(pump, "t")
    pump.unregister_listener("baker")
    assert headings(narrowed(pump, "t"))[:-1] == ["baker (not registered)", "cook"]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch, written: list[str]) -> None:
    monkeypatch.setattr(usage, "_MAX_NARROWED", 3)
    pump = pump_with("baker")
    for number in range(7):
        pump.register_peer_table(f"t{number}", {"agent": ["baker"]})
        narrowed(pump, f"t{number}")
        narrowed(pump, f"t{number}")
        assert len(pump.engine.usage._narrowed) <= 3
    assert len(written) == 7


async def test_an_agent_is_told_what_it_may_call_in_this_conversation() -> None:
    agent = Recorder(lambda message, _: HandlerResponse.respond(Note()))
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["baker", "cook"])
    pump.register("baker", echo, Note)
    pump.register("cook", echo, Note)
    async with audited(pump):
        pump.register_peer_table("t", {"agent": ["cook"]})
        thread = await pump.inject("agent", Ask(), routing_table="t")
        await pump.wait(thread)
        await pump.request("agent", Ask())
        pump.modify_peer_table("t", "agent", revoke=["cook"])
        await pump.request("agent", Ask(), thread_id=thread)
    told = [headings(metadata.usage_instructions)[:-1] for metadata in agent.metadata]
    assert told == [["cook"], ["baker", "cook"], []]
