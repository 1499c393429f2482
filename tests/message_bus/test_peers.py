"""Whom a listener may call: peers fail closed, what is not allowed is refused."""

from __future__ import annotations

from typing import Any

import pytest

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import RoutingError
from xml_pipeline.message_bus.listener import Listener, make_generic_listener, make_listener
from xml_pipeline.message_bus.routing import may_call

from .helpers import Ask, Note, Recorder, Reply, audited, calls, echo, text_of


def listener(agent: bool, peers: list[str] | None) -> Listener:
    return make_listener("me", echo, Ask, agent=agent, peers=peers)


@pytest.mark.parametrize(
    ("agent", "peers", "to", "allowed"),
    [
        (True, None, "other", False),
        (True, [], "other", False),
        (True, ["other"], "other", True),
        (True, ["other"], "Other", False),
        (True, ["other"], "another", False),
        (True, None, "system.todo", True),
        (True, [], "system.todo-complete", True),
        (True, [], "system.todox", False),
        (True, [], "system.boot", False),
        (True, ["system.boot"], "system.boot", True),
        (False, None, "other", True),
        (False, None, "Other", True),
        (False, [], "other", False),
        (False, ["other"], "other", True),
        (False, ["other"], "another", False),
        (False, None, "system.boot", False),
        (False, None, "System.Boot", False),
        (False, ["system.boot"], "system.boot", True),
    ],
)
def test_the_rule(agent: bool, peers: list[str] | None, to: str, allowed: bool) -> None:
    assert may_call(listener(agent, peers), to) is allowed


def test_a_generic_listener_is_a_tool_without_peers() -> None:
    generic = make_generic_listener("join", echo)
    assert may_call(generic, "other")
    assert not may_call(generic, "system.boot")


def asks(to: str) -> Recorder:
    """Calls ``to`` when asked, and answers with what comes back."""
    return calls(to, payload=Note)


@pytest.mark.parametrize("peers", [None, [], ["friend"]])
async def test_an_agent_reaches_its_peers_and_nobody_else(peers: list[str] | None) -> None:
    friend, secret = Recorder(lambda note, _: HandlerResponse.respond(Reply("hi"))), Recorder()
    agent = Recorder(
        lambda message, _: (
            [HandlerResponse(Note(), "secret", tag="secret"), HandlerResponse(Note(), "friend", tag="friend")]
            if isinstance(message, Ask)
            else None
        )
    )
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=peers)
    pump.register("friend", friend, Note)
    pump.register("secret", secret, Note)
    async with audited(pump) as audit:
        await pump.inject("agent", Ask())
        await audit.idle()
    assert not secret.seen
    told = {metadata.tag: text_of(message) for message, metadata in agent.seen[1:]}
    assert told == {"secret": "routing", "friend": "hi" if peers else "routing"}
    refused = audit.outcomes(from_id="agent", code="routing")
    assert {event.to_id for event in refused} == ({"secret"} if peers else {"secret", "friend"})


async def test_a_tool_without_peers_is_unrestricted_and_with_a_list_is_held_to_it() -> None:
    pump = StreamPump()
    pump.register("free", asks("vault"), (Ask, Reply))
    pump.register("bound", asks("vault"), (Ask, Reply), peers=["elsewhere"])
    pump.register("blank", asks("vault"), (Ask, Reply), peers=[])
    pump.register("vault", Recorder(lambda note, _: HandlerResponse.respond(Reply("gold"))), Note)
    async with audited(pump):
        assert await pump.request("free", Ask()) == Reply("gold")
        for name in ("bound", "blank"):
            with pytest.raises(RoutingError) as caught:
                await pump.request(name, Ask())
            assert f"{name!r} may not call 'vault'" in caught.value.detail


async def test_answering_and_sending_to_oneself_need_no_peer() -> None:
    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if not metadata.is_self_call:
            return HandlerResponse(Ask("again"), "agent")
        return HandlerResponse(Reply("done"), "external")

    pump = StreamPump()
    pump.register("agent", Recorder(decide), Ask, agent=True, peers=[])
    async with audited(pump):
        assert await pump.request("agent", Ask()) == Reply("done")


@pytest.mark.parametrize("agent", [True, False])
@pytest.mark.parametrize("verb", [HandlerResponse.call, HandlerResponse.delegate])
async def test_a_call_or_a_frame_given_to_oneself_needs_no_peer(verb: Any, agent: bool) -> None:
    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask) and not metadata.is_self_call and not message.text:
            return verb(Ask("again"), "me")
        return HandlerResponse.respond(Reply(text_of(message)))

    pump = StreamPump()
    me = Recorder(decide)
    pump.register("me", me, (Ask, Reply), agent=agent, peers=[])
    async with audited(pump):
        assert await pump.request("me", Ask()) == Reply("again")
    assert len({metadata.thread_id for metadata in me.metadata}) == 2  # in a frame of its own


async def test_a_fresh_call_to_the_caller_needs_a_peer() -> None:
    """Answering the caller is always allowed; calling it back is a call like any other."""
    pump = StreamPump()
    boss = Recorder(lambda message, _: HandlerResponse(Ask(), "sub") if isinstance(message, Ask) else None)
    sub = Recorder(lambda message, _: HandlerResponse.call(Note(), "boss") if isinstance(message, Ask) else None)
    pump.register("boss", boss, (Ask, Note), agent=True, peers=["sub"])
    pump.register("sub", sub, Ask, agent=True, peers=[])
    async with audited(pump) as audit:
        await pump.inject("boss", Ask())
        await audit.idle()
    assert boss.payloads == [Ask()]
    assert sub.payloads[1].code == "routing"


@pytest.mark.parametrize("verb", [HandlerResponse.call, HandlerResponse.delegate, HandlerResponse])
async def test_every_way_to_send_is_held_to_the_peers(verb: Any) -> None:
    vault = Recorder()
    agent = Recorder(lambda message, _: verb(Note(), "vault") if isinstance(message, Ask) else None)
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["friend"])
    pump.register("vault", vault, Note)
    async with audited(pump) as audit:
        await pump.inject("agent", Ask())
        await audit.idle()
    assert not vault.seen
    assert agent.payloads[1].code == "routing"


async def test_a_group_is_reached_by_whoever_lists_the_group() -> None:
    members = Recorder()
    pump = StreamPump()
    for peers in (["crowd"], ["one", "two"]):
        name = "lists " + "-".join(peers)
        agent = Recorder(lambda message, _: HandlerResponse(Note(), "crowd") if isinstance(message, Ask) else None)
        pump.register(name, agent, Ask, agent=True, peers=peers)
    pump.register("one", members, Note, broadcast="crowd")
    pump.register("two", members, Note, broadcast="crowd")
    async with audited(pump) as audit:
        await pump.inject("lists one-two", Ask())
        await audit.idle()
        assert len(members.seen) == 0
        await pump.inject("lists crowd", Ask())
        await audit.idle()
        assert len(members.seen) == 2


async def test_the_refusal_tells_the_agent_nothing_about_whether_the_target_exists() -> None:
    agent = Recorder(
        lambda message, _: (
            [HandlerResponse(Note(), "vault"), HandlerResponse(Note(), "no such thing")]
            if isinstance(message, Ask)
            else None
        )
    )
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["no such thing"])
    pump.register("vault", echo, Note)
    async with audited(pump) as audit:
        await pump.inject("agent", Ask())
        await audit.idle()
    first, second = agent.payloads[1:]
    assert first == second
    assert "vault" not in first.message


async def test_an_unknown_peer_table_is_an_error() -> None:
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with audited(pump):
        with pytest.raises(RoutingError) as caught:
            await pump.inject("tool", Ask(), routing_table="nowhere")
        assert "nowhere" in caught.value.detail
        with pytest.raises(RoutingError):
            await pump.request("tool", Ask(), routing_table="nowhere")
