"""`xml_pipeline.message_bus.directory`: it says what the pump will do, and tells nobody of whom he may not call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from lxml import etree
from pydantic import BaseModel, Field

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import RoutingError, ValidationError
from xml_pipeline.message_bus.directory import Directory, ListenerInfo, get_directory
from xml_pipeline.message_bus.events import OutcomeEvent
from xml_pipeline.message_bus.listener import Listener, make_listener
from xml_pipeline.runtime import Runtime, use_runtime

from .helpers import Ask, Count, Note, Recorder, Reply, audited, calls, echo
from .pump_kit import silent


@dataclass
class Other:
    text: str = ""


class Even(BaseModel):
    number: int = Field(multiple_of=2)


def system_listener(name: str, handler: Any) -> Listener:
    return make_listener(name, handler, Ask, system=True, description="One of the pump's own.")


def a_pump() -> StreamPump:
    """Tools, an agent, a generic listener and a group; nobody of them does much."""
    pump = StreamPump()
    pump.register("tool", echo, (Note, Count), description="A tool.", output_class=Reply)
    pump.register("vault", echo, Note, description="A secret.")
    pump.register("caged", echo, Ask, agent=True, peers=["tool", "nobody", "crowd", "any", "tool"])
    pump.register_generic_listener("any", silent, "Takes all.")
    pump.register("crowd.one", echo, Note, broadcast=True, description="A member.")
    pump.register("crowd.two", echo, Note, broadcast=True, description="A member.")
    return pump


TOOL = ListenerInfo("tool", "A tool.", ("Note", "Count"), (Note, Count), "Reply", False, False, "")


async def inside(pump: StreamPump, name: str, act: Callable[[HandlerMetadata], Any], **options: Any) -> Any:
    """What ``act`` gives in a turn of a listener of that name and these options."""
    gave: list[Any] = []

    async def handler(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        gave.append(act(metadata))
        return HandlerResponse.respond(Reply("done"))

    pump.register(name, handler, Ask, **options)
    async with audited(pump):
        await pump.request(name, Ask())
    return gave[0]


# -- what is told


def test_the_program_is_told_everything() -> None:
    directory = a_pump().engine.directory
    assert directory.listener("tool") == TOOL
    assert directory.listener("vault") == ListenerInfo("vault", "A secret.", ("Note",), (Note,), None, False, False, "")
    assert directory.listener("any") == ListenerInfo("any", "Takes all.", (), (), None, False, True, "")
    assert directory.listener("caged") == ListenerInfo("caged", "", ("Ask",), (Ask,), None, True, False, "")
    member = directory.listener("crowd.one")
    assert member is not None and (member.name, member.group) == ("crowd.one", "crowd")
    assert directory.listener("Tool") is None
    assert directory.listener("nobody") is None


def test_a_group_is_told_as_one() -> None:
    assert a_pump().engine.directory.listener("crowd") == ListenerInfo(
        "crowd",
        "A group of 2: each member gets the message and answers separately. A member.",
        ("Note",),
        (Note,),
        None,
        False,
        False,
        "crowd",
    )


async def test_a_handler_is_told_of_whom_it_may_call_and_of_itself() -> None:
    names = ["tool", "vault", "nobody", "me", "crowd", "crowd.one", "system.boot", "system.todo", "external"]
    pump = a_pump()
    known = await inside(
        pump,
        "me",
        lambda _: [name for name in names if get_directory().listener(name) is not None],
        agent=True,
        peers=["tool", "nobody", "crowd"],
    )
    assert known == ["tool", "me", "crowd", "system.todo"]


async def test_a_tool_that_may_call_everybody_is_told_of_everybody_but_the_pumps_own() -> None:
    names = ["tool", "vault", "nobody", "crowd.one", "system.boot"]
    known = await inside(a_pump(), "me", lambda _: [get_directory().listener(name) is not None for name in names])
    assert known == [True, True, False, True, False]


async def test_a_helper_is_told_of_whom_it_may_call_itself_whoever_calls_it() -> None:
    """It may call them in its own right, so that its caller's list does not say what it may know."""
    known: list[bool] = []

    async def helper(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        known.extend(get_directory().listener(name) is not None for name in ("vault", "tool"))
        return HandlerResponse.respond(Reply())

    pump = a_pump()
    pump.register("helper", helper, Ask, peers=["vault"])
    pump.register("me", calls("helper"), Ask, agent=True, peers=["helper", "tool"])
    async with audited(pump):
        await pump.request("me", Ask())
    assert known == [True, False]


async def test_a_member_shows_its_group_only_to_whom_may_call_the_group() -> None:
    for peers, group in ((["crowd.one"], ""), (["crowd.one", "crowd"], "crowd")):
        info = await inside(
            a_pump(), "me", lambda _: get_directory().listener("crowd.one"), agent=True, peers=list(peers)
        )
        assert info.group == group


async def test_a_peer_table_hides_what_it_refuses() -> None:
    pump = a_pump()
    seen: list[bool] = []

    async def handler(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        directory = get_directory()
        seen.append(directory.listener("tool") is not None)
        assert [info.name for info in directory.callable_from(metadata.thread_id)] == ["tool"] * seen[-1]
        return HandlerResponse.respond(Reply())

    pump.register("me", handler, Ask, agent=True, peers=["tool"])
    pump.register_peer_table("narrow", {})
    async with audited(pump):
        await pump.request("me", Ask())
        await pump.request("me", Ask(), routing_table="narrow")
    assert seen == [True, False]


async def test_one_of_the_pumps_own_is_told_what_its_callers_may_know() -> None:
    """Else an agent would learn from it who exists."""
    told: dict[str, list[bool]] = {}

    async def deputy(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        names = ["tool", "vault", "nobody", "system.boot"]
        told[payload.text] = [get_directory().listener(name) is not None for name in names]
        if payload.text == "nested":
            return HandlerResponse(Ask("inner"), "system.inner", as_caller=True)
        return HandlerResponse.respond(Reply())

    pump = a_pump()
    pump._add(system_listener("system.deputy", deputy))
    pump._add(system_listener("system.inner", deputy))
    agent = Recorder(
        lambda message, _: (
            HandlerResponse(message, "system.deputy") if isinstance(message, Ask) else HandlerResponse.respond(Reply())
        )
    )
    pump.register("me", agent, Ask, agent=True, peers=["system.deputy", "system.inner", "tool", "nobody"])
    async with audited(pump):
        await pump.request("me", Ask("nested"))
        await pump.request("system.deputy", Ask("from outside"))
    assert told == {
        "nested": [True, False, False, False],
        "inner": [True, False, False, False],
        "from outside": [True, True, False, True],
    }


async def test_what_a_handler_left_behind_is_told_what_the_handler_was() -> None:
    left: list[asyncio.Task[Any]] = []
    ended = asyncio.Event()

    async def look_later() -> list[bool]:
        await ended.wait()
        return [get_directory().listener(name) is not None for name in ("tool", "vault")]

    def leave(_: HandlerMetadata) -> None:
        left.append(asyncio.get_running_loop().create_task(look_later()))

    await inside(a_pump(), "me", leave, agent=True, peers=["tool"])
    ended.set()
    assert await left[0] == [True, False]


async def test_a_handler_of_one_pump_is_the_program_to_another() -> None:
    other = a_pump()
    pump = StreamPump()
    known = await inside(
        pump,
        "me",
        lambda _: [other.engine.directory.listener("vault"), get_directory() is pump.engine.directory],
        agent=True,
        peers=[],
    )
    assert known[0] is not None
    assert known[1]


def test_without_a_pump_nobody_is_known() -> None:
    with use_runtime(Runtime()):
        assert get_directory().listener("tool") is None
        with pytest.raises(KeyError):
            get_directory().callable_from("x")
    assert Directory().listener("x") is None


# -- peers


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"agent": True, "peers": ["vault", "tool", "nobody", "crowd", "vault"]}, ["vault", "tool", "crowd"]),
        ({"agent": True, "peers": []}, []),
        ({"agent": True}, []),
        ({"peers": ["any", "tool"]}, ["any", "tool"]),
        ({}, ["tool", "vault", "caged", "any", "crowd.one", "crowd.two", "crowd"]),
    ],
)
async def test_a_frame_lists_whom_it_may_call(options: dict[str, Any], names: list[str]) -> None:
    infos = await inside(a_pump(), "me", lambda metadata: get_directory().callable_from(metadata.thread_id), **options)
    assert [info.name for info in infos] == names
    assert all(isinstance(info, ListenerInfo) for info in infos)


async def test_a_frame_lists_the_peers_in_force() -> None:
    pump = a_pump()

    def act(metadata: HandlerMetadata) -> list[str]:
        pump.unregister_listener("me")
        pump.register("me", echo, Ask, agent=True, peers=["vault"])
        return [info.name for info in get_directory().callable_from(metadata.thread_id)]

    assert await inside(pump, "me", act, agent=True, peers=["tool"]) == ["vault"]


@pytest.mark.parametrize("ask", ["callable_from", "check_call"])
def test_a_frame_that_is_not_open_is_an_error(ask: str) -> None:
    more = () if ask == "callable_from" else ("tool", "Note")
    with pytest.raises(KeyError, match="not open"):
        getattr(a_pump().engine.directory, ask)("no such thread", *more)


def test_a_frame_without_a_listener_may_call_nobody() -> None:
    pump = a_pump()
    frame = pump.engine.registry.open_root(pump.engine.registry.begin("external"), "made by hand")
    assert pump.engine.directory.callable_from(frame.id) == []
    with pytest.raises(RoutingError):
        pump.engine.directory.check_call(frame.id, "tool", "Note")


# -- calls are judged as the pump does


@pytest.mark.parametrize("table", [None, "narrow"])
@pytest.mark.parametrize("as_caller", [False, True])
async def test_what_is_refused_when_asked_is_refused_when_sent_and_the_other_way_round(
    as_caller: bool, table: str | None
) -> None:
    calls = [
        (to, payload)
        for to in ("tool", "vault", "caged", "crowd", "any", "nobody", "deputy", "boss", "system.boot", "system.todo")
        for payload in (Note(), Ask(), Other())
    ]
    judged: list[str] = []

    async def deputy(payload: Any, metadata: HandlerMetadata) -> list[HandlerResponse]:
        if not isinstance(payload, Count):
            return []  # an answer, or an error
        for to, sent in calls:
            try:
                get_directory().check_call(metadata.thread_id, to, type(sent).__name__, as_caller=as_caller)
            except RoutingError as error:
                judged.append(error.detail)
            else:
                judged.append("")
        return [HandlerResponse.call(sent, to, tag=str(i), as_caller=as_caller) for i, (to, sent) in enumerate(calls)]

    async def boss(payload: Any, metadata: HandlerMetadata) -> HandlerResponse | None:
        return HandlerResponse(Count(1), "deputy") if isinstance(payload, Count) else None

    pump = a_pump()
    pump.register("boss", boss, Count, agent=True, peers=["deputy", "tool", "any", "crowd", "caged"])
    pump.register("deputy", deputy, Count, agent=True, peers=["tool", "vault", "crowd", "any", "nobody", "boss"])
    pump.register_peer_table("narrow", {"boss": ["deputy", "tool", "caged"], "deputy": ["tool", "vault"]})
    async with audited(pump) as audit:
        await pump.inject("boss", Count(1), routing_table=table)
        await audit.idle()
    refused = [
        event.detail
        for event in audit.events
        if isinstance(event, OutcomeEvent) and event.from_id == "deputy" and event.code == "routing"
    ]
    assert refused == [detail for detail in judged if detail]
    assert len(judged) == len(calls)
    assert 0 < len(refused) < len(calls)


async def test_forbidden_and_absent_are_told_in_the_same_words() -> None:
    def act(metadata: HandlerMetadata) -> list[str]:
        told = []
        for to in ("vault", "penguin", "missing peer"):
            for ask in (
                lambda to=to: get_directory().check_call(metadata.thread_id, to, "Note"),
                lambda to=to: get_directory().check_payload(to, etree.XML("<Note/>")),
            ):
                with pytest.raises(RoutingError) as caught:
                    ask()
                told.append(str(caught.value))
        return told

    assert len(set(await inside(a_pump(), "me", act, agent=True, peers=["missing peer"]))) == 1


async def test_a_target_that_is_no_name_is_refused_as_the_pump_does() -> None:
    def act(metadata: HandlerMetadata) -> None:
        with pytest.raises(RoutingError, match="could not be delivered"):
            get_directory().check_call(metadata.thread_id, None, "Note")  # type: ignore[arg-type]

    await inside(a_pump(), "me", act)


# -- payloads


@pytest.mark.parametrize(
    ("to", "xml", "error"),
    [
        ("tool", "<Count><Number>3</Number></Count>", None),
        ("tool", "<Note><Text>hello</Text></Note>", None),
        ("tool", "<Note/>", None),
        ("tool", "<Count><Number>three</Number></Count>", ValidationError),
        ("tool", "<Count/>", ValidationError),
        ("tool", "<Note><Sound>hello</Sound></Note>", ValidationError),
        ("tool", "<Note loud='yes'/>", ValidationError),
        ("tool", "<Note xmlns='urn:x'/>", ValidationError),
        ("tool", "<x:Note xmlns:x='urn:x'/>", ValidationError),
        ("tool", "<Other/>", RoutingError),
        ("tool", "<note/>", RoutingError),
        ("even", "<Even><Number>4</Number></Even>", None),
        ("even", "<Even><Number>3</Number></Even>", ValidationError),  # only the class itself can say so
        ("crowd", "<Note/>", None),
        ("crowd", "<Note><Sound/></Note>", ValidationError),
        ("crowd", "<Ask/>", RoutingError),
        ("any", "<Whatever a='1'><b/></Whatever>", None),
        ("nobody", "<Note/>", RoutingError),
    ],
)
def test_a_payload_is_judged_as_the_pump_does(to: str, xml: str, error: type[Exception] | None) -> None:
    pump = a_pump()
    pump.register("even", echo, Even)
    element = etree.fromstring(xml)
    before = etree.tostring(element)
    if error is None:
        pump.engine.directory.check_payload(to, element)
    else:
        with pytest.raises(error):
            pump.engine.directory.check_payload(to, element)
    assert etree.tostring(element) == before


def test_an_element_is_judged_without_its_surroundings() -> None:
    directory = a_pump().engine.directory
    items = etree.fromstring("<items xmlns:x='urn:x'><Note><Text>a</Text></Note>tail<!-- --><Count/></items>")
    directory.check_payload("tool", items[0])
    with pytest.raises(TypeError, match="must be an lxml element"):
        directory.check_payload("tool", items[1])
    with pytest.raises(ValidationError):
        directory.check_payload("tool", items[2])
    with pytest.raises(TypeError, match="must be an lxml element"):
        directory.check_payload("tool", "<Note/>")  # type: ignore[arg-type]


async def test_a_handler_learns_no_schema_of_whom_it_may_not_call() -> None:
    def act(_: HandlerMetadata) -> None:
        get_directory().check_payload("tool", etree.XML("<Note/>"))
        with pytest.raises(ValidationError):
            get_directory().check_payload("tool", etree.XML("<Count/>"))
        for xml in ("<Note/>", "<Note><Sound/></Note>", "<Other/>"):
            with pytest.raises(RoutingError):
                get_directory().check_payload("vault", etree.XML(xml))

    await inside(a_pump(), "me", act, agent=True, peers=["tool"])
