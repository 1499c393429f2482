"""Whom a listener may call: peers fail closed, what is not allowed is refused."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import ForgedMessage, RoutingError
from xml_pipeline.message_bus.events import SourceEvent
from xml_pipeline.message_bus.listener import Listener, make_generic_listener, make_listener
from xml_pipeline.message_bus.permissions import may_call
from xml_pipeline.primitives import BufferError, BufferStart, payload_text
from xml_pipeline.primitives.todo import TodoUntil

from .helpers import Ask, Note, Recorder, Reply, audited, calls, echo, text_of
from .pump_kit import quiesce, until


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


# -- on behalf of the caller


def passes_on(to: str, verb: Any = HandlerResponse) -> Recorder:
    """A tool that hands what it is asked on, on behalf of its caller."""

    def decide(message: Any, _: HandlerMetadata) -> Any:
        sent = Note(message.text) if to == "vault" else Ask(message.text)
        return HandlerResponse.delegate(sent, to) if verb == "delegate" else HandlerResponse(sent, to, as_caller=True)

    return Recorder(decide)


def through(pump: StreamPump, *names: str, verb: Any = HandlerResponse) -> None:
    """A chain of the pump's own listeners, each calling the next one on behalf of its caller; the last the vault."""
    for name, to in zip(names, [*names[1:], "vault"], strict=True):
        pump._add(make_listener(name, passes_on(to, verb), Ask, system=True))


@pytest.mark.parametrize("is_peer", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3, 10])
async def test_an_agent_reaches_through_nobody_what_it_may_not_call_itself(depth: int, is_peer: bool) -> None:
    """A buffer inside a sequence inside an agent; the refusal reaches the agent."""
    names = [f"system.step.{number}" for number in range(depth)]
    vault = Recorder(lambda note, _: HandlerResponse.respond(Reply("gold")))
    agent = calls(names[0])
    pump = StreamPump()
    through(pump, *names)
    pump.register("agent", agent, Ask, agent=True, peers=[*names, *(["vault"] if is_peer else [])])
    pump.register("vault", vault, Note)
    async with audited(pump):
        assert await pump.request("agent", Ask()) == Reply("gold" if is_peer else "routing")
    assert len(vault.seen) == is_peer
    if not is_peer:
        assert agent.payloads[-1].message == RoutingError.public_message


async def test_what_stands_in_between_must_be_allowed_too() -> None:
    pump = StreamPump()
    through(pump, "system.one", "system.two")
    pump.register("agent", calls("system.one"), Ask, agent=True, peers=["system.one", "vault"])
    pump.register("vault", echo, Note)
    async with audited(pump):
        assert await pump.request("agent", Ask()) == Reply("routing")  # it may not call system.two


async def test_a_plain_call_in_between_ends_what_binds() -> None:
    """Who is called plainly acts in its own right, and so do those that it calls on its own behalf."""
    pump = StreamPump()
    through(pump, "system.one")
    pump.register("agent", calls("helper"), Ask, agent=True, peers=["helper"])
    pump.register("helper", calls("system.one"), (Ask, Reply), peers=["system.one", "vault"])
    pump.register("vault", echo, Note)
    async with audited(pump):
        assert await pump.request("agent", Ask("hello")) == Reply("hello")


@pytest.mark.parametrize("is_peer", [True, False])
async def test_a_frame_that_was_handed_over_binds_as_before(is_peer: bool) -> None:
    peers = ["system.one", "system.two", "system.three", *(["vault"] if is_peer else [])]
    pump = StreamPump()
    pump._add(make_listener("system.one", passes_on("system.two"), Ask, system=True))
    pump._add(make_listener("system.two", passes_on("system.three", "delegate"), Ask, system=True))
    pump._add(make_listener("system.three", passes_on("vault"), Ask, system=True))
    pump.register("agent", calls("system.one"), Ask, agent=True, peers=peers)
    pump.register("vault", echo, Note)
    async with audited(pump):
        assert await pump.request("agent", Ask("x")) == Reply("x" if is_peer else "routing")


async def test_whoever_asks_from_outside_restricts_nothing() -> None:
    pump = StreamPump()
    through(pump, "system.one", "system.two")
    pump.register("vault", echo, Note)
    async with audited(pump):
        assert await pump.request("system.one", Ask("hello")) == Reply("hello")


# -- peer tables


def shop(**options: Any) -> tuple[StreamPump, Recorder]:
    """An agent that calls the tool named in what it is asked, and answers with what comes back."""

    def decide(message: Any, _: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return HandlerResponse(Note("sold"), message.text)
        return HandlerResponse.respond(Reply(text_of(message)))

    agent = Recorder(decide)
    pump = StreamPump(**options)
    pump.register("agent", agent, Ask, agent=True, peers=["baker", "cook"])
    pump.register("baker", echo, Note)
    pump.register("cook", echo, Note)
    pump.register_peer_table("bread", {"agent": ["baker"]})
    pump.register_peer_table("nothing", {})
    return pump, agent


async def test_a_table_narrows_a_conversation_and_no_other() -> None:
    pump, _ = shop()
    async with audited(pump):
        for table, reached in ((None, ["sold", "sold"]), ("bread", ["sold", "routing"]), ("nothing", ["routing"] * 2)):
            answers = [await pump.request("agent", Ask(to), routing_table=table) for to in ("baker", "cook")]
            assert [answer.text for answer in answers] == reached


async def test_every_way_in_takes_a_table() -> None:
    pump, _ = shop()
    thread = str(uuid.uuid4())
    raw = (
        '<message xmlns="https://xml-pipeline.org/ns/envelope/v1"><meta><from>external</from><to>agent</to>'
        f'<thread>{thread}</thread></meta><Ask xmlns=""><Text>cook</Text></Ask><Ask xmlns=""><Text>baker</Text></Ask>'
        "</message>"
    )

    async def source() -> Any:
        yield "agent", Ask("cook")
        yield raw.replace(thread, str(uuid.uuid4())).encode()

    async with audited(pump) as audit:
        assert await pump.request("agent", Ask("cook"), routing_table="bread") == Reply("routing")
        assert [answer async for answer in pump.stream("agent", Ask("cook"), routing_table="bread")] == [
            Reply("routing")
        ]
        for inject in (pump.inject, pump.inject_nowait):
            assert await pump.wait(await inject("agent", Ask("cook"), routing_table="bread")) == Reply("routing")
        assert await pump.inject(raw.encode(), thread, "external", routing_table="bread") == thread
        pump.add_source(source(), "external", routing_table="bread")
        await until(lambda: any(isinstance(event, SourceEvent) for event in audit.events))
        await audit.idle()
    refused = [event.to_id for event in audit.outcomes(code="routing")]
    assert refused == ["cook"] * 7
    assert len(audit.outcomes(from_id="agent", to_id="baker", outcome="answered")) == 2  # of the raw ones


@pytest.mark.parametrize("table", ["nowhere", "", "Bread", "bread "])
async def test_an_unknown_table_is_refused_at_the_door(table: str) -> None:
    pump, _ = shop()
    async with audited(pump):
        for enter in (pump.inject, pump.inject_nowait, pump.request):
            with pytest.raises(RoutingError) as caught:
                await enter("agent", Ask("baker"), routing_table=table)
            assert repr(table) in caught.value.detail
        with pytest.raises(RoutingError):
            await pump.inject(b"<message/>", None, "external", routing_table=table)
        with pytest.raises(RoutingError):
            await anext(pump.stream("agent", Ask("baker"), routing_table=table))
        assert pump.statistics().open_conversations == 1  # the pump's own
        assert pump.statistics().retained_conversations == 0


async def test_a_table_that_goes_while_somebody_waits_for_room_is_refused_and_room_is_passed_on() -> None:
    pump, _ = shop(max_queue_per_listener=1)
    first = await pump.inject("baker", Note("1"))  # it does not run yet: the queue is full
    waiting = asyncio.create_task(pump.inject("baker", Note("2"), routing_table="bread"))
    behind = asyncio.create_task(pump.inject("baker", Note("3")))
    await quiesce()
    assert not waiting.done() and not behind.done()
    pump.engine.peer_tables.remove_peer_table("bread")
    async with audited(pump):
        with pytest.raises(RoutingError):
            await waiting
        assert await pump.wait(first) == Reply("1")
        assert await pump.wait(await behind) == Reply("3")


async def test_the_next_turn_is_held_to_the_table_without_naming_it() -> None:
    pump, _ = shop()
    async with audited(pump) as audit:
        thread = await pump.inject("agent", Ask("baker"), routing_table="bread")
        assert await pump.wait(thread) == Reply("sold")
        for table in (None, "bread"):
            assert await pump.request("agent", Ask("cook"), thread_id=thread, routing_table=table) == Reply("routing")
        with pytest.raises(RoutingError) as caught:
            await pump.request("agent", Ask("cook"), thread_id=thread, routing_table="nothing")
        assert "runs under peer table 'bread' for life, not under 'nothing'" in caught.value.detail
        # What was refused has left no trace: the conversation is as it was, and so is its last answer.
        await audit.idle()
        assert audit.statuses(thread)[-1] == "completed"
        assert await pump.wait(thread) == Reply("routing")
        assert await pump.request("agent", Ask("baker"), thread_id=thread) == Reply("sold")


async def test_a_conversation_without_a_table_does_not_get_one_later() -> None:
    pump, _ = shop()
    async with audited(pump):
        thread = await pump.inject("agent", Ask("cook"))
        assert await pump.wait(thread) == Reply("sold")
        with pytest.raises(RoutingError) as caught:
            await pump.inject("agent", Ask("cook"), thread_id=thread, routing_table="bread")
        assert "runs under no peer table for life" in caught.value.detail
        assert await pump.request("agent", Ask("cook"), thread_id=thread) == Reply("sold")


async def test_nobody_learns_the_table_of_somebody_elses_conversation() -> None:
    pump, _ = shop()
    async with audited(pump):
        thread = await pump.inject("agent", Ask("baker"), from_id="alice", routing_table="bread")
        await pump.wait(thread)
        for table in ("bread", "nothing", None):
            with pytest.raises(ForgedMessage):
                await pump.inject("agent", Ask("baker"), from_id="mallory", thread_id=thread, routing_table=table)


async def test_an_id_of_ones_own_begins_a_conversation_under_the_table() -> None:
    pump, _ = shop()
    thread = str(uuid.uuid4())
    async with audited(pump):
        assert await pump.request("agent", Ask("cook"), thread_id=thread, routing_table="bread") == Reply("routing")
        assert await pump.request("agent", Ask("cook"), thread_id=thread) == Reply("routing")


async def test_every_frame_below_is_held_to_the_table() -> None:
    """Tools too, where the table has an entry for them, however deep."""
    pump, _ = shop()
    pump.register("front", calls("middle"), (Ask, Reply))
    pump.register("middle", calls("agent"), (Ask, Reply))
    pump.register_peer_table("no middle", {"front": ["middle"], "middle": []})
    pump.register_peer_table("all tools", {"agent": ["cook"]})
    async with audited(pump):
        assert await pump.request("front", Ask("cook"), routing_table="all tools") == Reply("sold")
        assert await pump.request("front", Ask("baker"), routing_table="all tools") == Reply("routing")
        with pytest.raises(RoutingError) as caught:
            await pump.request("front", Ask("cook"), routing_table="no middle")
        assert caught.value.detail == "'middle' may not call 'agent': peer table 'no middle' does not allow it"


async def test_a_change_is_in_force_at_the_next_call_of_a_conversation_that_runs() -> None:
    done: list[str] = []

    def decide(message: Any, _: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return HandlerResponse(Note("1"), "tool")
        done.append(text_of(message))
        if len(done) == 1:
            pump.modify_peer_table("top", "agent", revoke=["tool"])
            return HandlerResponse(Note("2"), "tool")
        if len(done) == 2:
            pump.modify_peer_table("top", "agent", grant=["tool"])
            return HandlerResponse(Note("3"), "tool")
        return HandlerResponse.respond(Reply(" ".join(done)))

    pump = StreamPump()
    pump.register("agent", Recorder(decide), Ask, agent=True, peers=["tool"])
    pump.register("tool", echo, Note)
    pump.register_peer_table("top", {"agent": ["tool"]})
    pump.register_peer_table("low", {"agent": ["tool"]}, parent="top")
    async with audited(pump):
        assert await pump.request("agent", Ask(), routing_table="low") == Reply("1 routing 3")


async def test_a_conversation_whose_table_a_reload_takes_away_reaches_nobody(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "organism.yaml"
    pump, _ = shop()
    async with audited(pump):
        path.write_text(
            "organism: {name: x}\nlisteners:\n"
            "  - {name: reader, handler: tests.message_bus.helpers.echo, payload_class: tests.message_bus.helpers.Note,"
            " description: x}\npeer_tables: [{name: read, entries: [{listener: reader, peers: []}]}]\n"
        )
        assert pump.reload_config(str(path)).success
        thread = await pump.inject("agent", Ask("baker"), routing_table="read")
        assert await pump.wait(thread) == Reply("routing")
        path.write_text("organism: {name: x}\nlisteners: []\n")
        assert pump.reload_config(str(path)).success
        for _ in range(2):
            assert await pump.request("agent", Ask("baker"), thread_id=thread) == Reply("routing")
        with pytest.raises(RoutingError):
            await pump.request("agent", Ask("baker"), routing_table="read")
    assert caplog.text.count("peer table 'read' is gone") == 1


async def test_a_dead_letter_is_sent_again_under_its_table() -> None:
    pump, agent = shop()

    async def crash_first(payload: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(payload, Ask) and not agent.seen:
            agent.seen.append((payload, metadata))
            raise ValueError("once")
        return await agent(payload, metadata)

    pump.unregister_listener("agent")
    pump.register("agent", crash_first, Ask, agent=True, peers=["baker", "cook"])
    async with audited(pump) as audit:
        await pump.inject("agent", Ask("cook"), routing_table="bread")
        await audit.idle()
        (letter,) = pump.dead_letters.list()
        assert letter.routing_table == "bread"
        pump.engine.peer_tables.remove_peer_table("bread")
        with pytest.raises(RoutingError):
            await pump.dead_letters.retry(letter.id)
        assert pump.dead_letters.get(letter.id).attempts == 1
        pump.register_peer_table("bread", {"agent": ["baker"]})
        thread = await pump.dead_letters.retry(letter.id)
        assert await pump.wait(thread) == Reply("routing")
    assert not len(pump.dead_letters)


async def test_what_a_source_yields_under_an_unknown_table_is_kept_with_it() -> None:
    pump, _ = shop()

    async def source() -> Any:
        yield "agent", Ask("baker")

    async with audited(pump) as audit:
        pump.add_source(source(), "external", routing_table="nowhere")
        await until(lambda: any(isinstance(event, SourceEvent) for event in audit.events))
        (letter,) = pump.dead_letters.list()
        assert (letter.routing_table, letter.code) == ("nowhere", "routing")


async def test_what_a_table_forbids_looks_like_what_does_not_exist() -> None:
    pump, agent = shop()
    async with audited(pump):
        for to in ("cook", "penguin"):
            await pump.request("agent", Ask(to), routing_table="bread")
    forbidden, absent = (payload for payload in agent.payloads if not isinstance(payload, Ask))
    assert forbidden == absent


async def test_agents_are_reminded_also_under_an_empty_table() -> None:
    def decide(message: Any, _: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return HandlerResponse(TodoUntil("Reply"), "system.todo")
        return HandlerResponse.respond(Reply(type(message).__name__))

    pump = StreamPump()
    pump.register("agent", Recorder(decide), Ask, agent=True)
    pump.register_peer_table("nothing", {})
    async with audited(pump):
        assert await pump.request("agent", Ask(), routing_table="nothing") == Reply("TodoRegistered")


@pytest.mark.parametrize("chief_may", [False, True])
async def test_delegating_to_a_buffer_does_not_get_around_the_peers_of_who_delegates(chief_may: bool) -> None:
    """Who hands its frame over answers for what is called on the caller's behalf, and has not the caller's rights."""
    ran: list[object] = []

    async def secret(payload: Note, metadata: HandlerMetadata) -> None:
        ran.append(payload)

    async def sly(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.delegate(BufferStart("secret", payload_text(Note("x"))), "system.buffer")

    async def chief(payload: object, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(payload, Ask):
            return HandlerResponse(payload, "sly")
        return HandlerResponse.respond(payload)

    pump = StreamPump()
    pump.register("secret", secret, Note)
    pump.register("sly", sly, Ask, agent=True, peers=["system.buffer"])
    pump.register("chief", chief, Ask, agent=True, peers=["sly", *(["secret"] if chief_may else [])])
    async with pump:
        for target in ("sly", "chief"):
            answer = await pump.request(target, Ask("go"))
            assert isinstance(answer, BufferError)
            assert answer.code == "routing"
    assert ran == []


async def test_who_may_call_may_also_delegate_to_a_buffer() -> None:
    async def friend(payload: Note, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(payload)

    async def fair(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.delegate(BufferStart("friend", payload_text(Note("x"))), "system.buffer")

    pump = StreamPump()
    pump.register("friend", friend, Note)
    pump.register("fair", fair, Ask, agent=True, peers=["system.buffer", "friend"])
    async with pump:
        answer = await pump.request("fair", Ask("go"))
    assert (answer.total, answer.successful) == (1, 1)
