"""Broadcast groups: each member gets its own copy on its own frame, and answers for itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import ConfigurationError, HandlerError, NoAnswer, RoutingError

from .helpers import PATIENCE, Ask, Note, Recorder, Reply, audited, crash, text_of


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)


def says(word: str) -> Recorder:
    return Recorder(lambda payload, _: HandlerResponse.respond(Reply(word)))


def crowd(pump: StreamPump, **handlers: Any) -> None:
    for name, handler in handlers.items():
        pump.register(f"crowd.{name}", handler, Ask, broadcast=True)


async def test_every_member_gets_it_on_a_frame_of_its_own_and_answers_for_itself() -> None:
    left, right = says("left"), says("right")
    agent = Recorder(
        lambda message, _: HandlerResponse(Ask("all"), "crowd", tag="t") if isinstance(message, Note) else None
    )
    pump = StreamPump()
    pump.register("agent", agent, Note, agent=True, peers=["crowd"])
    crowd(pump, left=left, right=right)
    async with audited(pump) as audit:
        thread = await pump.inject("agent", Note())
        await audit.idle()
    (left_metadata,), (right_metadata,) = left.metadata, right.metadata
    assert len({thread, left_metadata.thread_id, right_metadata.thread_id}) == 3
    for metadata in (left_metadata, right_metadata):
        assert (metadata.from_id, metadata.group_size, metadata.conversation_id) == ("agent", 2, thread)
    assert {message.text for message in agent.payloads[1:]} == {"left", "right"}
    for metadata in agent.metadata[1:]:
        assert (metadata.from_id, metadata.tag, metadata.group_size) == ("crowd", "t", 2)


async def test_members_run_at_the_same_time() -> None:
    together = asyncio.Barrier(3)

    async def member(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        await together.wait()
        return HandlerResponse.respond(Reply("here"))

    pump = StreamPump()
    crowd(pump, one=member, two=member, three=member)
    async with audited(pump):
        answers = [answer async for answer in pump.stream("crowd", Ask(), timeout=PATIENCE)]
    assert answers == [Reply("here")] * 3


@pytest.mark.parametrize("to", ["crowd", None])
async def test_from_outside_a_group_is_addressed_by_name_or_by_a_class_that_only_it_takes(to: str | None) -> None:
    pump = StreamPump()
    left, right = says("left"), says("right")
    crowd(pump, left=left, right=right)
    pump.register("other", says("other"), Note)
    async with audited(pump):
        answers = [answer.text async for answer in pump.stream(to, Ask())]
        assert await pump.request(to, Ask()) in (Reply("left"), Reply("right"))
    assert sorted(answers) == ["left", "right"]
    assert {metadata.group_size for metadata in left.metadata + right.metadata} == {2}
    assert len({metadata.thread_id for metadata in left.metadata + right.metadata}) == 4


@pytest.mark.parametrize(("is_agent", "peers"), [(False, None), (False, ["crowd"]), (True, ["crowd"])])
async def test_a_handler_reaches_the_only_group_of_a_class_without_a_name(
    is_agent: bool, peers: list[str] | None
) -> None:
    caller = Recorder(lambda message, _: HandlerResponse(Ask(), None, tag="t") if isinstance(message, Note) else None)
    pump = StreamPump()
    pump.register("caller", caller, (Note, Reply), agent=is_agent, peers=peers)
    crowd(pump, left=says("left"), right=says("right"))
    async with audited(pump) as audit:
        await pump.inject("caller", Note())
        await audit.idle()
    assert {message.text for message in caller.payloads[1:]} == {"left", "right"}
    assert {(metadata.from_id, metadata.tag) for metadata in caller.metadata[1:]} == {("crowd", "t")}


async def test_a_handler_without_the_peer_does_not_reach_the_only_group() -> None:
    left = says("left")
    agent = Recorder(lambda message, _: HandlerResponse(Ask(), None) if isinstance(message, Note) else None)
    pump = StreamPump()
    pump.register("agent", agent, Note, agent=True, peers=["elsewhere"])
    crowd(pump, left=left)
    async with audited(pump) as audit:
        await pump.inject("agent", Note())
        await audit.idle()
    assert not left.seen
    assert [text_of(message) for message in agent.payloads[1:]] == ["routing"]


@pytest.mark.parametrize("to", [None, 7, b"crowd", ["crowd"], ""])
async def test_a_message_of_a_handler_that_names_nobody_is_a_routing_error(to: Any) -> None:
    """Also without a name: no group, or more than one, takes the class."""
    agent = Recorder(lambda message, _: HandlerResponse(message, to, tag="t") if hasattr(message, "text") else None)
    pump = StreamPump()
    pump.register("agent", agent, (Note, Ask), agent=True, peers=["crowd", "mob"])
    pump.register("mob.one", says("mob"), Ask, broadcast=True)
    crowd(pump, left=says("left"))
    async with audited(pump) as audit:
        for payload in (Note(), Ask()):
            await pump.inject("agent", payload)
        await audit.idle()
    told = [(text_of(message), metadata.tag) for message, metadata in agent.seen if hasattr(message, "code")]
    assert told == [("routing", "t")] * 2


@pytest.mark.parametrize("to", [None, 7, b"crowd", ["crowd"], ""])
@pytest.mark.parametrize("verb", [HandlerResponse, HandlerResponse.call, HandlerResponse.delegate])
async def test_so_it_is_for_a_tool_that_may_call_everybody(verb: Any, to: Any) -> None:
    pump = StreamPump()
    pump.register("tool", Recorder(lambda message, _: verb(message, to)), Note)
    crowd(pump, left=says("left"))
    async with audited(pump):
        with pytest.raises(RoutingError):
            await pump.request("tool", Note())


async def test_a_class_that_two_groups_take_needs_a_name() -> None:
    pump = StreamPump()
    pump.register("a.x", says("a"), Ask, broadcast=True)
    pump.register("b.x", says("b"), Ask, broadcast=True)
    async with audited(pump):
        with pytest.raises(RoutingError):
            await pump.request(None, Ask())
        assert await pump.request("a", Ask()) == Reply("a")


async def test_a_class_that_only_single_listeners_take_needs_a_name() -> None:
    pump = StreamPump()
    pump.register("tool", says("tool"), Ask)
    async with audited(pump):
        with pytest.raises(RoutingError):
            await pump.request(None, Ask())


async def test_one_member_can_be_addressed_alone_and_answers_under_its_own_name() -> None:
    left, right = says("left"), says("right")
    agent = Recorder(lambda message, _: HandlerResponse(Ask(), "crowd.left") if isinstance(message, Note) else None)
    pump = StreamPump()
    pump.register("agent", agent, Note, agent=True, peers=["crowd.left"])
    crowd(pump, left=left, right=right)
    async with audited(pump) as audit:
        await pump.inject("agent", Note())
        await audit.idle()
    assert left.metadata[0].group_size == 0
    assert not right.seen
    assert agent.metadata[1].from_id == "crowd.left"


@pytest.mark.parametrize("inside", [True, False])
async def test_a_payload_that_one_member_changes_is_not_changed_for_the_others(inside: bool) -> None:
    seen: list[list[str]] = []

    async def spoil(payload: Basket, metadata: HandlerMetadata) -> None:
        seen.append(list(payload.items))
        payload.items.append("spoilt")

    pump = StreamPump()
    sender = Recorder(lambda message, _: HandlerResponse(Basket(["fresh"]), "crowd"))
    pump.register("sender", sender, Note)
    for name in ("one", "two", "three"):
        pump.register(name, spoil, Basket, broadcast="crowd")
    async with audited(pump) as audit:
        await (pump.inject("sender", Note()) if inside else pump.inject("crowd", Basket(["fresh"])))
        await audit.idle()
    assert seen == [["fresh"]] * 3


async def test_a_failing_member_does_not_touch_the_others() -> None:
    agent = Recorder(lambda message, _: HandlerResponse(Ask(), "crowd", tag="t") if isinstance(message, Note) else None)
    pump = StreamPump()
    pump.register("agent", agent, Note, agent=True, peers=["crowd"])
    crowd(pump, good=says("good"), bad=crash, quiet=Recorder())
    async with audited(pump) as audit:
        await pump.inject("agent", Note())
        await audit.idle()
    assert {text_of(message) for message in agent.payloads[1:]} == {"good", "handler"}
    assert {metadata.tag for metadata in agent.metadata[1:]} == {"t"}
    assert sorted(event.outcome for event in audit.outcomes(from_id="agent")) == ["answered", "failed", "handled"]


async def test_expect_answer_tells_of_each_member_that_was_silent() -> None:
    agent = Recorder(
        lambda message, _: HandlerResponse(Ask(), "crowd", expect_answer=True) if isinstance(message, Note) else None
    )
    pump = StreamPump()
    pump.register("agent", agent, Note, agent=True, peers=["crowd"])
    crowd(pump, loud=says("loud"), one=Recorder(), two=Recorder())
    async with audited(pump) as audit:
        await pump.inject("agent", Note())
        await audit.idle()
    assert sorted(text_of(message) for message in agent.payloads[1:]) == ["loud", "no-answer", "no-answer"]


async def test_from_outside_the_first_answer_or_the_first_error_counts() -> None:
    pump = StreamPump()
    crowd(pump, one=Recorder(), two=Recorder())
    async with audited(pump):
        with pytest.raises(NoAnswer):
            await pump.request("crowd", Ask())
    broken = StreamPump()
    crowd(broken, one=crash, two=Recorder())
    async with audited(broken):
        with pytest.raises(HandlerError):
            await broken.request("crowd", Ask())


async def test_every_copy_is_a_message_of_its_own() -> None:
    pump = StreamPump()
    crowd(pump, one=says("1"), two=says("2"), three=says("3"))
    async with audited(pump) as audit:
        await pump.inject("crowd", Ask())
        await audit.idle()
    assert [event.outcome for event in audit.outcomes(payload_type="Ask")] == ["answered"] * 3


async def test_a_wrong_class_for_a_group_is_refused() -> None:
    pump = StreamPump()
    member = Recorder()
    crowd(pump, one=member)
    async with audited(pump):
        with pytest.raises(RoutingError):
            await pump.request("crowd", Note())
    assert not member.seen


# --- registration -----------------------------------------------------------------------------------------------------


def test_members_take_the_same_payload_class() -> None:
    pump = StreamPump()
    pump.register("one", says(""), Ask, broadcast="crowd")
    with pytest.raises(ConfigurationError, match="same payload class"):
        pump.register("two", says(""), Note, broadcast="crowd")
    assert list(pump.listeners) == ["one"]


@pytest.mark.parametrize("name", ["crowd", "Crowd", "CROWD"])
def test_a_group_may_not_be_called_like_a_listener(name: str) -> None:
    pump = StreamPump()
    pump.register("one", says(""), Ask, broadcast="crowd")
    with pytest.raises(ConfigurationError, match="name of a listener"):
        pump.register(name, says(""), Note)
    other = StreamPump()
    other.register("crowd", says(""), Note)
    with pytest.raises(ConfigurationError, match="name of a listener"):
        other.register("one", says(""), Ask, broadcast=name)


def test_broadcast_true_takes_the_name_up_to_the_last_dot() -> None:
    pump = StreamPump()
    assert pump.register("a.b.c", says(""), Ask, broadcast=True).group == "a.b"
    with pytest.raises(ConfigurationError, match="last dot"):
        pump.register("undotted", says(""), Ask, broadcast=True)


async def test_a_group_ends_with_its_last_member() -> None:
    pump = StreamPump()
    crowd(pump, one=says("1"), two=says("2"))
    async with audited(pump):
        assert pump.unregister_listener("crowd.one")
        assert [answer.text async for answer in pump.stream("crowd", Ask())] == ["2"]
        assert pump.unregister_listener("crowd.two")
        with pytest.raises(RoutingError):
            await pump.request("crowd", Ask())


async def test_a_member_whose_copy_cannot_be_made_fails_alone() -> None:
    """A class may accept a value once and refuse it the next time; every member's message has its outcome."""
    made: list[str] = []

    @dataclass
    class Moody:
        text: str

        def __post_init__(self) -> None:
            made.append(self.text)
            if len(made) == 3:  # the sender's own, the first member's, the second member's
                raise ValueError("not again")

    first, second = Recorder(), Recorder()
    pump = StreamPump()
    pump.register("all.first", first, Moody, broadcast=True)
    pump.register("all.second", second, Moody, broadcast=True)
    async with audited(pump) as audit:
        await pump.inject("all", Moody("x"))
        await audit.idle()
    assert (len(first.payloads), len(second.payloads)) == (1, 0)
    assert pump.statistics().outcomes["dead-lettered"] == 1
