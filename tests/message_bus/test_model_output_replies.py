"""Handlers that return bytes: what a model wrote, as answers and requests under the listener's own rules."""

from __future__ import annotations

from typing import Any

import pytest
from lxml import etree

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import PipelineError, RoutingError, ValidationError
from xml_pipeline.message_bus.message_state import SystemError

from .helpers import Ask, Note, Recorder, Reply, audited, echo, text_of


def model(raw: bytes) -> Recorder:
    """An agent that writes ``raw`` when it is asked, and answers an error with its code."""
    return Recorder(
        lambda message, _: HandlerResponse.respond(Reply(message.code)) if isinstance(message, SystemError) else raw
    )


def message(to: str, payload: str, head: str = "") -> str:
    return (
        f'<message xmlns="https://xml-pipeline.org/ns/envelope/v1"><meta>{head}<to>{to}</to></meta>{payload}</message>'
    )


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"<Reply><Text>plain</Text></Reply>", "plain"),
        (b"Sure! Here you are:\n```xml\n<Reply><Text>fenced</Text></Reply>\n```\nAnything else?", "fenced"),
        (b"<Reply><Text>if a < b && c</Text></Reply>", "if a < b && c"),
        (b"<Reply><Text>R&D &amp; more</Text></Reply>", "R&D & more"),
        (b"<Reply><Text>bell \x07</Text></Reply>", "bell \ufffd"),
        ("<Reply><Text>日本 é</Text></Reply>".encode(), "日本 é"),
        (b'<?xml version="1.0"?>\n<Reply><Text>declared</Text></Reply>', "declared"),
    ],
)
async def test_a_root_of_the_output_class_is_the_answer_and_repair_keeps_what_the_text_says(
    raw: bytes, text: str
) -> None:
    pump = StreamPump()
    pump.register("model", model(raw), Ask, agent=True, peers=[], output_class=Reply)
    async with audited(pump):
        assert await pump.request("model", Ask()) == Reply(text)


async def test_a_root_of_a_class_that_the_caller_takes_is_an_answer() -> None:
    boss = Recorder(
        lambda m, _: HandlerResponse(Ask(), "model") if isinstance(m, Note) else HandlerResponse.respond(Reply(m.text))
    )
    pump = StreamPump()
    pump.register("boss", boss, (Note, Reply), agent=True, peers=["model"])
    pump.register("model", model(b"<Reply><Text>for my caller</Text></Reply>"), Ask, agent=True, peers=[])
    async with audited(pump):
        assert await pump.request("boss", Note()) == Reply("for my caller")
        with pytest.raises(PipelineError):  # nobody outside said what an answer is
            await pump.request("model", Ask())


async def test_several_roots_are_several_answers_in_order() -> None:
    raw = b"First <Reply><Text>one</Text></Reply> and then <Reply><Text>two</Text></Reply>."
    pump = StreamPump()
    pump.register("model", model(raw), Ask, output_class=Reply)
    async with audited(pump) as audit:
        assert [answer.text async for answer in pump.stream("model", Ask())] == ["one", "two"]
        await audit.idle()
        (event,) = audit.outcomes(to_id="model")
    assert event.repairs  # text outside the roots was dropped, and that is recorded


async def test_a_message_names_a_target_and_may_carry_several_payloads() -> None:
    sink = Recorder()
    raw = message("sink", '<Note xmlns=""><Text>a</Text></Note><Note xmlns=""><Text>b</Text></Note>').encode()
    pump = StreamPump()
    pump.register("model", model(raw), Ask, agent=True, peers=["sink"])
    pump.register("sink", sink, Note)
    async with audited(pump) as audit:
        await pump.inject("model", Ask())
        await audit.idle()
    assert sink.payloads == [Note("a"), Note("b")]
    assert len({metadata.thread_id for metadata in sink.metadata}) == 2
    assert {metadata.from_id for metadata in sink.metadata} == {"model"}


async def test_requests_and_answers_may_be_mixed() -> None:
    sink = Recorder()
    raw = (message("sink", '<Note xmlns=""><Text>a</Text></Note>') + "<Reply><Text>done</Text></Reply>").encode()
    pump = StreamPump()
    pump.register("model", model(raw), Ask, agent=True, peers=["sink"], output_class=Reply)
    pump.register("sink", sink, Note)
    async with audited(pump) as audit:
        assert await pump.request("model", Ask()) == Reply("done")
        await audit.idle()
    assert sink.payloads == [Note("a")]


@pytest.mark.parametrize(
    ("to", "payload"),
    [
        ("secret", '<Note xmlns=""><Text>x</Text></Note>'),
        ("nobody", '<Note xmlns=""><Text>x</Text></Note>'),
        ("sink", '<Ask xmlns=""><Text>x</Text></Ask>'),
        ("", '<Note xmlns=""><Text>x</Text></Note>'),
    ],
)
async def test_a_request_is_held_to_peers_and_classes(to: str, payload: str) -> None:
    sink, secret = Recorder(), Recorder()
    pump = StreamPump()
    pump.register("model", model(message(to, payload).encode()), Ask, agent=True, peers=["sink", "nobody"])
    pump.register("sink", sink, Note)
    pump.register("secret", secret, Note)
    async with audited(pump):
        assert await pump.request("model", Ask()) == Reply("routing")
    assert not sink.seen
    assert not secret.seen


async def test_a_request_is_held_to_the_targets_schema() -> None:
    sink = Recorder()
    raw = message("sink", '<Note xmlns=""><Text>x</Text><Extra/></Note>').encode()
    pump = StreamPump()
    pump.register("model", model(raw), Ask, agent=True, peers=["sink"])
    pump.register("sink", sink, Note)
    async with audited(pump):
        assert await pump.request("model", Ask()) == Reply("validation")
    assert not sink.seen


async def test_an_answer_is_held_to_its_schema() -> None:
    pump = StreamPump()
    raw = b"<Reply><Text>x</Text><Extra>y</Extra></Reply>"
    boss = Recorder(
        lambda m, _: (
            HandlerResponse(Ask(), "model") if isinstance(m, Note) else HandlerResponse.respond(Reply(text_of(m)))
        )
    )
    pump.register("boss", boss, Note, agent=True, peers=["model"])
    pump.register("model", Recorder(lambda *_: raw), Ask, output_class=Reply)
    async with audited(pump):
        with pytest.raises(ValidationError):
            await pump.request("model", Ask())
        assert await pump.request("boss", Note()) == Reply("validation")


async def test_from_and_thread_of_a_message_are_ignored() -> None:
    sink = Recorder()
    head = "<from>system</from>"
    raw = message("sink", '<Note xmlns=""><Text>x</Text></Note>', head).encode()
    pump = StreamPump()
    pump.register("model", model(raw), Ask, agent=True, peers=["sink"])
    pump.register("sink", sink, Note)
    async with audited(pump) as audit:
        thread = await pump.inject("model", Ask())
        await audit.idle()
    assert (sink.metadata[0].from_id, sink.metadata[0].conversation_id) == ("model", thread)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"I am sorry.",
        b"<Reply><Text>cut in the mid",
        b"<Reply><Text>cut</Text>",
        b"<Reply><Text>10000</Te",
        b"<Unrelated/>",
        b"\xff\xfe",
        b"<!DOCTYPE Reply [<!ENTITY x 'y'>]><Reply><Text>&x;</Text></Reply>",
        b"<Reply a='1' a='2'><Text>x</Text></Reply>",
        b"<Reply xmlns='relative'><Text>x</Text></Reply>",
    ],
)
async def test_bytes_without_anything_usable_are_a_validation_error(raw: bytes) -> None:
    pump = StreamPump()
    pump.register("model", Recorder(lambda *_: raw), Ask, output_class=Reply)
    async with audited(pump) as audit:
        with pytest.raises(ValidationError):
            await pump.request("model", Ask())
        await audit.idle()
        assert not audit.outcomes(payload_type="Reply")


WHOLE = message("sink", '<Note xmlns=""><Text>1000000</Text></Note>').encode()


async def test_model_output_cut_at_any_byte_calls_nobody() -> None:
    cuts = iter(range(len(WHOLE)))
    sink = Recorder()
    pump = StreamPump()
    pump.register("model", Recorder(lambda *_: WHOLE[: next(cuts)]), Ask)
    pump.register("sink", sink, Note)
    async with audited(pump):
        for _ in range(len(WHOLE)):
            with pytest.raises(PipelineError):
                await pump.request("model", Ask())
    assert not sink.seen


async def test_too_many_roots_are_refused() -> None:
    pump = StreamPump(max_fan_out=3)
    pump.register("model", Recorder(lambda *_: b"<Reply><Text>x</Text></Reply>" * 4), Ask, output_class=Reply)
    async with audited(pump):
        with pytest.raises(ValidationError):
            await pump.request("model", Ask())


async def test_too_many_requests_in_one_message_are_refused() -> None:
    sink = Recorder()
    raw = message("sink", '<Note xmlns=""><Text>x</Text></Note>' * 4).encode()
    pump = StreamPump(max_fan_out=3)
    pump.register("model", Recorder(lambda *_: raw), Ask)
    pump.register("sink", sink, Note)
    async with audited(pump):
        with pytest.raises(ValidationError):
            await pump.request("model", Ask())
    assert not sink.seen


async def test_a_message_to_the_caller_is_an_answer() -> None:
    raw = message("boss", '<Reply xmlns=""><Text>hi</Text></Reply>').encode()
    boss = Recorder(lambda m, _: HandlerResponse(Ask(), "model") if isinstance(m, Note) else HandlerResponse.respond(m))
    pump = StreamPump()
    pump.register("boss", boss, (Note, Reply), agent=True, peers=["model"])
    pump.register("model", model(raw), Ask, agent=True, peers=[])
    async with audited(pump):
        assert await pump.request("boss", Note()) == Reply("hi")
    assert boss.metadata[0].thread_id == boss.metadata[1].thread_id


async def test_a_message_to_oneself_is_the_next_turn() -> None:
    def decide(message_: Any, metadata: HandlerMetadata) -> Any:
        if metadata.is_self_call:
            return HandlerResponse.respond(Reply(message_.text))
        return message("model", '<Ask xmlns=""><Text>think again</Text></Ask>').encode()

    pump = StreamPump()
    agent = Recorder(decide)
    pump.register("model", agent, Ask, agent=True, peers=[])
    async with audited(pump):
        assert await pump.request("model", Ask()) == Reply("think again")
    assert agent.metadata[0].thread_id == agent.metadata[1].thread_id


async def test_bytes_from_outside_are_not_repaired() -> None:
    raw = (
        b'<message xmlns="https://xml-pipeline.org/ns/envelope/v1"><meta><from>external</from><to>echo</to>'
        b"<thread>0b1d3c7e-6f0a-4f3b-9d0e-1c2b3a4d5e6f</thread></meta>"
        b'<Ask xmlns=""><Text>a & b</Text></Ask></message>'
    )
    pump = StreamPump()
    pump.register("echo", echo, Ask)
    async with audited(pump):
        with pytest.raises(ValidationError):
            await pump.wait(await pump.inject(raw, None, "external"))


async def test_an_unusable_root_beside_a_usable_one_is_dropped_and_recorded() -> None:
    raw = b"<Thinking>hm</Thinking><Reply><Text>answer</Text></Reply>"
    pump = StreamPump()
    pump.register("model", Recorder(lambda *_: raw), Ask, output_class=Reply)
    async with audited(pump) as audit:
        assert await pump.request("model", Ask()) == Reply("answer")
        await audit.idle()
        (event,) = audit.outcomes(to_id="model")
    assert any("Thinking" in repair for repair in event.repairs)


async def test_a_routing_error_of_a_tool_that_returns_bytes_reaches_its_caller() -> None:
    pump = StreamPump()
    pump.register("model", Recorder(lambda *_: message("nobody", '<Note xmlns=""/>').encode()), Ask)
    async with audited(pump):
        with pytest.raises(RoutingError):
            await pump.request("model", Ask())


@pytest.mark.parametrize(
    "unusable",
    [
        '<x xmlns="urn:x"/>',
        '<p:x xmlns:p="urn:x"/>',
        "<x/>",
        "<message><meta><to>peer</to><to>secret</to></meta><Ask/></message>",
        '<message><meta><to>peer</to></meta><p:Ask xmlns:p="urn:q"/></message>',
        "<message/>",
        "<message><meta><to>peer</to></meta></message>",
    ],
)
@pytest.mark.parametrize("first", [True, False])
async def test_one_unusable_root_does_not_take_the_usable_ones_with_it(unusable: str, first: bool) -> None:
    usable = "<Reply><Text>usable</Text></Reply>"
    raw = (unusable + usable if first else usable + unusable).encode()
    sink = Recorder()
    pump = StreamPump()
    pump.register("model", model(raw), Ask, agent=True, peers=["peer"], output_class=Reply)
    pump.register("peer", sink, Ask)
    async with audited(pump) as audit:
        assert [answer.text async for answer in pump.stream("model", Ask())] == ["usable"]
        await audit.idle()
        (event,) = audit.outcomes(to_id="model")
    assert any("dropped" in repair for repair in event.repairs)
    assert not sink.seen


async def test_a_request_without_a_target_does_not_take_the_answers_with_it() -> None:
    raw = b"<message><to>x</to></message><Reply><Text>usable</Text></Reply>"
    pump = StreamPump()
    pump.register("model", model(raw), Ask, agent=True, peers=["peer"], output_class=Reply)
    async with audited(pump) as audit:
        assert [answer.text async for answer in pump.stream("model", Ask())] == ["usable"]
        await audit.idle()
        assert audit.outcomes(code="routing")


@pytest.mark.parametrize("inner", ["", ' xmlns=""'])
@pytest.mark.parametrize("outer", ["", ' xmlns="https://xml-pipeline.org/ns/envelope/v1"'])
async def test_a_request_may_be_written_with_and_without_the_envelopes_namespace(outer: str, inner: str) -> None:
    """A model that follows the envelope leaves its payload in the envelope's namespace."""
    sink = Recorder()
    raw = f"<message{outer}><meta><to>sink</to></meta><Note{inner}><Text>a</Text></Note></message>"
    pump = StreamPump()
    pump.register("model", model(raw.encode()), Ask, agent=True, peers=["sink"])
    pump.register("sink", sink, Note)
    async with audited(pump) as audit:
        await pump.inject("model", Ask())
        await audit.idle()
    assert sink.payloads == [Note("a")]


@pytest.mark.parametrize("text", ["about xmlns", " xmlns=", "a>b xmlns:x='urn:x'", 'xmlns="urn:x"'])
async def test_an_attribute_may_speak_of_namespaces(text: str) -> None:
    element = etree.Element("Any")
    element.set("note", text)
    sink = Recorder()
    pump = StreamPump()
    pump.register_generic_listener(
        "tool", Recorder(lambda message, _: HandlerResponse(element, "sink") if message.tag == "Ask" else None)
    )
    pump.register_generic_listener("sink", sink)
    async with audited(pump) as audit:
        await pump.inject("tool", Ask())
        await audit.idle()
    assert [payload.get("note") for payload in sink.payloads] == [text]
