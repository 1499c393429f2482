"""Several payload classes per listener, answers of any class, and answers that pass through."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest
from lxml import etree
from pydantic import BaseModel

from third_party.xmlable import xmlify
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import ConfigurationError, PipelineError, RoutingError, ValidationError
from xml_pipeline.message_bus.message_state import SystemError

from .helpers import PATIENCE, Ask, Count, Note, Recorder, Reply, audited, calls, echo, text_of


@dataclass
class Add:
    a: int = 0
    b: int = 0


@dataclass
class Divide:
    a: int = 0
    b: int = 1


@dataclass
class Calculated:
    result: str = ""
    error: str = ""


class Weather(BaseModel):
    city: str
    degrees: float = 0.0


async def calculate(payload: Add | Divide, metadata: HandlerMetadata) -> HandlerResponse:
    if isinstance(payload, Add):
        return HandlerResponse.respond(Calculated(str(payload.a + payload.b)))
    if payload.b == 0:
        return HandlerResponse.respond(Calculated(error="division by zero"))
    return HandlerResponse.respond(Calculated(str(payload.a // payload.b)))


@pytest.mark.parametrize("several", [tuple, list, deque])
async def test_one_listener_takes_several_classes_each_validated_as_itself(several: Any) -> None:
    pump = StreamPump()
    pump.register("calculator.add", calculate, several((Add, Divide)))
    async with audited(pump):
        assert await pump.request("calculator.add", Add(2, 3)) == Calculated("5", "")
        assert await pump.request("calculator.add", Divide(7, 2)) == Calculated("3", "")
        assert (await pump.request("calculator.add", Divide(1, 0))).error == "division by zero"
        with pytest.raises(RoutingError):
            await pump.request("calculator.add", Ask("2+3"))
    assert set(pump.routing_table) >= {"calculator.add.add", "calculator.add.divide"}


async def test_an_agent_receives_answers_of_every_class_though_it_registered_one() -> None:
    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return [
                HandlerResponse(Add(1, 2), "calculator"),
                HandlerResponse(Note("x"), "scribe"),
                HandlerResponse(Note("Oslo"), "weather"),
            ]
        return None

    agent = Recorder(decide)
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["calculator", "scribe", "weather"])
    pump.register("calculator", calculate, Add)
    pump.register("scribe", echo, Note)
    pump.register("weather", Recorder(lambda n, _: HandlerResponse.respond(Weather(city=n.text, degrees=-1.5))), Note)
    async with audited(pump) as audit:
        await pump.inject("agent", Ask())
        await audit.idle()
    got = {type(message).__name__: message for message in agent.payloads[1:]}
    assert got == {
        "Calculated": Calculated("3"),
        "Reply": Reply("x"),
        "Weather": Weather(city="Oslo", degrees=-1.5),
    }


async def test_an_answer_that_a_tool_does_not_take_passes_through_to_its_caller() -> None:
    agent = calls("one", tag="outer")
    one, two = (Recorder(lambda ask, _, to=to: HandlerResponse(ask, to, tag="inner")) for to in ("two", "calculator"))
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["one"])
    pump.register("one", one, Ask)
    pump.register("two", two, Ask)
    pump.register("calculator", echo, Ask)
    async with audited(pump) as audit:
        assert await pump.request("agent", Ask("through")) == Reply("through")
        await audit.idle()
    assert len(one.seen) == len(two.seen) == 1
    assert (agent.metadata[1].from_id, agent.metadata[1].tag) == ("one", "outer")
    assert len(audit.outcomes(payload_type="Reply", to_id="agent")) == 1


async def test_an_answer_that_a_tool_takes_is_delivered_to_it() -> None:
    tool = calls("echo", tag="t")
    pump = StreamPump()
    pump.register("tool", tool, (Ask, Reply))
    pump.register("echo", echo, Ask)
    async with audited(pump):
        assert await pump.request("tool", Ask("x")) == Reply("x")
    assert [type(payload).__name__ for payload in tool.payloads] == ["Ask", "Reply"]
    assert tool.metadata[1].tag == "t"


async def test_the_nearest_frame_that_takes_it_gets_it() -> None:
    """agent -> takes -> passes -> echo: the answer skips one frame and stops at the next."""
    takes, passes = calls("passes"), calls("echo")
    agent = calls("takes")
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["takes"])
    pump.register("takes", takes, (Ask, Reply))
    pump.register("passes", passes, Ask)
    pump.register("echo", echo, Ask)
    async with audited(pump):
        assert await pump.request("agent", Ask("x")) == Reply("x")
    assert (len(takes.seen), len(passes.seen), len(agent.seen)) == (2, 1, 2)
    assert takes.metadata[1].from_id == "passes"


async def test_a_generic_listener_gets_answers_of_every_class_as_elements() -> None:
    def join(message: Any, metadata: HandlerMetadata) -> Any:
        if message.tag == "Ask":
            return HandlerResponse(Note("n"), "echo", tag="t")
        return HandlerResponse.respond(Calculated(f"{message.tag}:{message.findtext('Text')}:{metadata.tag}"))

    pump = StreamPump()
    join_ = Recorder(join)
    pump.register_generic_listener("join", join_)
    pump.register("echo", echo, Note)
    async with audited(pump):
        assert await pump.request("join", Ask("x")) == Calculated("Reply:n:t")


async def test_what_a_generic_listener_does_to_its_element_does_not_show_in_the_history() -> None:
    async def vandal(payload: Any, metadata: HandlerMetadata) -> None:
        payload.clear()
        payload.text = "vandalised"

    pump = StreamPump()
    pump.register_generic_listener("vandal", vandal)
    async with audited(pump) as audit:
        thread = await pump.inject("vandal", Ask("as it was"))
        await audit.idle()
        (slot,) = pump.engine.history.by_conversation(thread)
        assert b"as it was" in bytes(slot.payload)


async def test_a_generic_listener_may_send_an_element_on() -> None:
    def relay(element: Any, metadata: HandlerMetadata) -> Any:
        if element.tag == "SystemError":
            return HandlerResponse.respond(Reply(element.findtext("code")))
        return HandlerResponse(element, "sink")

    sink = Recorder()
    pump = StreamPump()
    pump.register_generic_listener("relay", Recorder(relay))
    pump.register("sink", sink, (Ask, Note))
    async with audited(pump) as audit:
        await pump.inject("relay", Ask("<&> x"))
        await pump.inject("relay", Note("y"))
        assert await pump.request("relay", Count(1)) == Reply("routing")
        await audit.idle()
    assert sorted(sink.payloads, key=text_of) == [Ask("<&> x"), Note("y")]


async def test_a_generic_listener_takes_part_in_errors() -> None:
    join = Recorder(
        lambda e, m: (
            HandlerResponse(Ask(), "nowhere", tag="t")
            if e.tag == "Ask"
            else HandlerResponse.respond(Reply(f"{e.tag} {e.findtext('code')} {m.tag} {m.from_id}"))
        )
    )
    pump = StreamPump()
    pump.register_generic_listener("join", join)
    async with audited(pump):
        assert await pump.request("join", Ask()) == Reply("SystemError routing t system")


async def test_after_unregistering_a_generic_listener_its_name_is_unknown() -> None:
    pump = StreamPump()
    pump.register_generic_listener("join", echo)
    async with audited(pump):
        assert pump.unregister_listener("join") is True
        assert pump.unregister_listener("join") is False
        with pytest.raises(RoutingError):
            await pump.request("join", Ask())


# --- what an answer must be -------------------------------------------------------------------------------------------


async def test_an_answer_is_held_to_the_declared_output_class() -> None:
    pump = StreamPump()
    pump.register("good", Recorder(lambda ask, _: HandlerResponse.respond(Reply("x"))), Ask, output_class=Reply)
    pump.register("bad", Recorder(lambda ask, _: HandlerResponse.respond(Note("x"))), Ask, output_class=Reply)
    async with audited(pump):
        assert await pump.request("good", Ask()) == Reply("x")
        with pytest.raises(ValidationError) as caught:
            await pump.request("bad", Ask())
    assert "declares output_class 'Reply' and answered <Note>" in caught.value.detail


async def test_an_answer_is_validated_against_the_schema_of_its_class() -> None:
    """A value that the class's own schema does not allow is found before anybody receives it."""
    bad = Count("not a number")  # type: ignore[arg-type]
    agent = calls("tool")
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", Recorder(lambda ask, _: HandlerResponse.respond(bad)), Ask)
    async with audited(pump):
        assert (await pump.request("agent", Ask())).text in ("validation", "handler")
    assert len(agent.seen) == 2


class WritesItself:
    def __init__(self, xml: str) -> None:
        self._xml = xml

    def to_xml(self) -> str:
        return self._xml


WRITTEN = [
    ("<Note><Text>hand-made</Text></Note>", ""),
    ('<?xml version="1.0"?><Note><Text>hand-made</Text></Note>', ""),
    ("<Note><Text>hand-made</Text><Extra/></Note>", "validation"),
    ("<Note><Text>cut", "validation"),
    ('<Note xmlns="urn:x"><Text>t</Text></Note>', "validation"),
    ("<Nobody/>", "routing"),
    ("<!DOCTYPE Note><Note><Text>hand-made</Text></Note>", "validation"),
    ("", "validation"),
]


@pytest.mark.parametrize(("xml", "code"), WRITTEN)
async def test_a_payload_that_writes_itself_is_parsed_strictly_and_validated_like_any_other(
    xml: str, code: str
) -> None:
    sink = Recorder()
    pump = StreamPump()
    agent = Recorder(lambda m, _: HandlerResponse(WritesItself(xml), "sink") if isinstance(m, Ask) else None)
    pump.register("agent", agent, Ask, agent=True, peers=["sink"])
    pump.register("sink", sink, Note)
    async with audited(pump) as audit:
        await pump.inject("agent", Ask())
        await audit.idle()
    assert sink.payloads == ([] if code else [Note("hand-made")])
    assert [text_of(message) for message in agent.payloads[1:]] == ([code] if code else [])


@pytest.mark.parametrize(("xml", "code"), WRITTEN)
async def test_from_outside_too(xml: str, code: str) -> None:
    sink = Recorder(lambda note, _: HandlerResponse.respond(Reply(note.text)))
    pump = StreamPump()
    pump.register("sink", sink, Note)
    async with audited(pump):
        if not code:
            assert await pump.request("sink", WritesItself(xml)) == Reply("hand-made")
            return
        with pytest.raises(PipelineError) as caught:
            await pump.request("sink", WritesItself(xml))
    assert caught.value.code == code
    assert not sink.seen


@dataclass
class WritesAnother:
    """A dataclass with a ``to_xml`` of its own is written by that, as it is when a handler returns it."""

    text: str = ""

    def to_xml(self) -> bytes:
        return f"<Note><Text>by hand: {self.text}</Text></Note>".encode()


@pytest.mark.parametrize("inside", [False, True])
async def test_a_dataclass_that_writes_itself_is_written_the_same_way_from_inside_and_outside(inside: bool) -> None:
    sink = Recorder()
    pump = StreamPump()
    pump.register("sink", sink, Note)
    pump.register("tool", Recorder(lambda ask, _: HandlerResponse(WritesAnother(ask.text), "sink")), Ask)
    async with audited(pump) as audit:
        await (pump.inject("tool", Ask("x")) if inside else pump.inject("sink", WritesAnother("x")))
        await audit.idle()
    assert sink.payloads == [Note("by hand: x")]


async def test_an_element_can_be_sent_from_outside() -> None:
    element = etree.fromstring("<Note><!-- said --><Text>an element</Text></Note>")
    typed, generic = Recorder(), Recorder()
    pump = StreamPump()
    pump.register("typed", typed, Note)
    pump.register_generic_listener("generic", generic)
    async with audited(pump) as audit:
        await pump.inject("typed", element)
        await pump.inject("generic", element)
        await pump.inject("generic", etree.fromstring("<Unheard of='1'/>"))
        await audit.idle()
        with pytest.raises(ValidationError):
            await pump.inject("generic", etree.fromstring('<Note xmlns="urn:x"/>'))
    assert typed.payloads == [Note("an element")]
    assert [each.tag for each in generic.payloads] == ["Note", "Unheard"]
    assert generic.payloads[0].findtext("Text") == "an element"


async def test_a_to_xml_that_raises_is_told_to_whoever_called() -> None:
    class Broken:
        def to_xml(self) -> str:
            raise KeyError("oops")

    pump = StreamPump()
    pump.register("echo", echo, Ask)
    async with audited(pump):
        with pytest.raises(KeyError):
            await pump.request("echo", Broken())
        assert await pump.request("echo", Ask("x")) == Reply("x")


async def test_an_answer_that_writes_itself_needs_an_output_class() -> None:
    answer = WritesItself("<Note><Text>hand-made</Text></Note>")
    pump = StreamPump()
    pump.register("declared", Recorder(lambda a, _: HandlerResponse.respond(answer)), Ask, output_class=Note)
    pump.register("undeclared", Recorder(lambda a, _: HandlerResponse.respond(answer)), Ask)
    async with audited(pump):
        assert await pump.request("declared", Ask()) == Note("hand-made")
        with pytest.raises(ValidationError):
            await pump.request("undeclared", Ask())


async def test_a_to_xml_that_raises_is_a_failure_of_the_handler() -> None:
    class Broken:
        def to_xml(self) -> str:
            raise KeyError("oops")

    pump = StreamPump()
    pump.register("tool", Recorder(lambda a, _: HandlerResponse.respond(Broken())), Ask)
    async with audited(pump):
        with pytest.raises(PipelineError) as caught:
            await pump.request("tool", Ask())
    assert caught.value.code == "handler"


# --- registration -----------------------------------------------------------------------------------------------------


async def test_register_xmlifies_what_is_not_yet() -> None:
    @dataclass
    class Plain:
        text: str = ""

    class Model(BaseModel):
        text: str = ""

    @xmlify
    @dataclass
    class Decorated:
        text: str = ""

    pump = StreamPump()
    seen = Recorder()
    pump.register("taker", seen, (Plain, Model, Decorated))
    async with audited(pump) as audit:
        for payload in (Plain("a"), Model(text="b"), Decorated("c")):
            await pump.inject("taker", payload)
            await audit.idle()
    assert seen.payloads == [Plain("a"), Model(text="b"), Decorated("c")]


def test_two_classes_of_one_name_are_refused() -> None:
    def make() -> type:
        @dataclass
        class Same:
            text: str = ""

        return Same

    pump = StreamPump()
    with pytest.raises(ConfigurationError, match="two payload classes named 'Same'"):
        pump.register("tool", echo, (make(), make()))


@pytest.mark.parametrize("payload_class", [str, dict, object, 7, ()])
def test_what_is_no_payload_class_is_refused(payload_class: Any) -> None:
    with pytest.raises((TypeError, ConfigurationError)):
        StreamPump().register("tool", echo, payload_class)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ([], ConfigurationError, "listener 'x' needs at least one payload class"),
        ((), ConfigurationError, "listener 'x' needs at least one payload class"),
        ([Add, 5], TypeError, r"listener 'x': payload_class\[1\] must be a class, not 5"),
        ((Add(), Divide), TypeError, r"listener 'x': payload_class\[0\] must be a class, not Add\(a=0, b=0\)"),
        ([[Add]], TypeError, r"listener 'x': payload_class\[0\] must be a class, not \[<class "),
        ([Add, str], TypeError, "listener 'x': .*str"),
        ("app.Add", TypeError, "must be a class, or a list or tuple of classes, not 'app.Add'"),
        (b"Add", TypeError, "must be a class, or a list or tuple of classes, not b'Add'"),
        (None, TypeError, "must be a class, or a list or tuple of classes, not None"),
        ({Add}, TypeError, "must be a class, or a list or tuple of classes, not {<class "),
        (Add(), TypeError, r"must be a class, or a list or tuple of classes, not Add\(a=0, b=0\)"),
    ],
)
def test_what_is_wrong_with_the_payload_classes_is_said(given: Any, error: type[Exception], said: str) -> None:
    pump = StreamPump()
    with pytest.raises(error, match=said):
        pump.register("x", echo, given)
    with pytest.raises(error, match=said):
        pump.listener("x", given)(echo)
    assert "x" not in pump.listeners


def test_a_class_that_is_called_like_the_pumps_own_error_is_refused() -> None:
    """A listener that takes it would be given the pump's errors as if they were its own class."""

    @dataclass
    class SystemError:
        note: str = ""

    pump = StreamPump()
    with pytest.raises(ConfigurationError) as caught:
        pump.register("tool", echo, (Ask, SystemError))
    assert "SystemError" in str(caught.value)
    with pytest.raises(ConfigurationError):
        pump.register("tool", echo, Ask, output_class=SystemError)
    assert "tool" not in pump.listeners


@pytest.mark.parametrize("where", ["payload", "output"])
def test_a_class_that_is_called_like_the_envelope_is_refused(where: str) -> None:
    message = make_dataclass("message", [("text", str, "")])
    pump = StreamPump()
    with pytest.raises(ConfigurationError):
        if where == "payload":
            pump.register("tool", echo, message)
        else:
            pump.register("tool", echo, Ask, output_class=message)
    assert "tool" not in pump.listeners


async def test_listing_the_error_class_delivers_it_as_an_object() -> None:
    tool = calls("nowhere", tag="t")
    pump = StreamPump()
    pump.register("tool", tool, (Ask, SystemError))
    async with audited(pump):
        assert await pump.request("tool", Ask()) == Reply("routing")
    assert isinstance(tool.payloads[1], SystemError)
    assert "tool.systemerror" in pump.routing_table


async def test_a_payload_without_fields_arrives() -> None:
    @dataclass
    class Ping:
        pass

    seen = Recorder(lambda ping, _: HandlerResponse.respond(Ping()))
    pump = StreamPump()
    pump.register("pong", seen, Ping)
    async with audited(pump):
        assert await pump.request("pong", Ping()) == Ping()


BAD = ValueError("not good")
"""One exception object for all: raised again while it is handled, it is its own cause."""


@dataclass
class Picky:
    text: str = ""

    def __post_init__(self) -> None:
        if self.text == "same":
            raise BAD
        if self.text == "chain":
            try:
                raise BAD
            except ValueError as exc:
                other = KeyError("other")
                exc.__cause__ = other
                raise other from exc
        if self.text in RAISED:
            raise RAISED[self.text]("from a payload class")


RAISED: dict[str, type[BaseException]] = {
    "cancelled": asyncio.CancelledError,
    "closed": GeneratorExit,
    "exit": SystemExit,
    "value": ValueError,
}


@pytest.mark.parametrize("text", ["same", "chain", *RAISED])
async def test_a_payload_class_that_refuses_its_values_ends_its_message_and_nothing_else(text: str) -> None:
    raw = (
        '<message xmlns="https://xml-pipeline.org/ns/envelope/v1">'
        f"<meta><from>external</from><to>tool</to><thread>{{}}</thread></meta>"
        f'<Picky xmlns=""><Text>{text}</Text></Picky></message>'
    )
    tool = Recorder(lambda payload, _: HandlerResponse.respond(Reply(payload.text)))
    pump = StreamPump()
    pump.register("tool", tool, Picky)
    async with audited(pump):
        for _ in range(2):
            with pytest.raises(ValidationError):
                await pump.request(raw.format(uuid.uuid4()).encode(), None, timeout=PATIENCE)
            assert await pump.request("tool", Picky("fine"), timeout=PATIENCE) == Reply("fine")
    assert tool.payloads == [Picky("fine")] * 2


async def test_a_payload_is_constructed_once() -> None:
    made = []

    @dataclass
    class Counted:
        text: str = ""

        def __post_init__(self) -> None:
            made.append(self.text)
            if self.text == "bad" and len(made) > 1:
                raise ValueError("no")

    pump = StreamPump()
    pump.register("tool", Recorder(), Counted)
    async with audited(pump) as audit:
        for text in ("good", "bad"):
            payload = Counted.__new__(Counted)
            payload.text = text
            await pump.inject("tool", payload)
            await audit.idle()
            assert made.count(text) == 1
