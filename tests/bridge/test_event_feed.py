"""The pump's events on the mesh."""

from __future__ import annotations

import json

import pytest

from tests.bridge.kit import Ask, echo, organism
from tests.mesh.kit import Tap, spin
from xml_pipeline import HandlerMetadata
from xml_pipeline.bridge.event_feed import events_of
from xml_pipeline.errors import HandlerError


async def fail(ask: Ask, metadata: HandlerMetadata) -> None:
    raise ValueError("no")


def watched(url, name="shop", **mesh):
    pump = organism(url, name, events=True, **mesh)
    pump.register("echo", echo, Ask)
    pump.register("desk.fail", fail, Ask)
    return pump


async def until(tap, name, **fields):
    seen = []
    while True:
        event = json.loads((await tap.next()).data)
        seen.append(event)
        if event["event"] == name and fields.items() <= event.items():
            return event, seen


async def test_every_event_is_published_with_its_fields(server, peer):
    tap = await Tap.on(peer, "mesh.pump.>")
    async with watched(server.url) as pump:
        thread = await pump.inject("echo", Ask("a & b"))
        received, _ = await until(tap, "MessageReceivedEvent", to_id="echo")
        assert received["payload"] == "<Ask><Message>a &amp; b</Message><N>1</N></Ask>"
        assert (received["organism"], received["conversation_id"]) == ("shop", thread)
        assert received["instance_id"] == pump.attachments[0].mesh.instance_id
        completed, seen = await until(tap, "ThreadEvent", status="completed", thread_id=thread)
        numbers = [event["seq"] for event in [*seen, completed]]
        assert numbers == sorted(numbers)


async def test_what_failed_is_a_log_event_too(server, peer):
    tap = await Tap.on(peer, "mesh.logs.>")
    async with watched(server.url) as pump:
        with pytest.raises(HandlerError):
            await pump.request("desk.fail", Ask("x"))
        while True:
            message = await tap.next()
            said = json.loads(message.data)
            if said["event"] == "message_failed":
                break
        assert message.subject == "mesh.logs.shop.desk.fail"
        assert (said["level"], said["data"]["code"]) == ("warn", "handler")
        assert "no" not in said["message"].split()


async def test_a_level_silences_them(server, peer, mesh):
    await mesh.observe.set_global(log_level="off")
    logs, events = await Tap.on(peer, "mesh.logs.>"), await Tap.on(peer, "mesh.pump.>")
    async with watched(server.url) as pump:
        with pytest.raises(HandlerError):
            await pump.request("desk.fail", Ask("x"))
        await until(events, "OutcomeEvent", code="handler")
    assert all(json.loads(message.data)["event"] != "message_failed" for message in drain(logs))


async def test_no_node_of_the_organism_gets_them_where_it_follows_its_own_subjects(server):
    follows = [{"subscribe": "mesh.pump.>", "to": "echo", "payload_class": Ask}]
    nodes = [watched(server.url, subjects=follows) for _ in range(2)]
    other = watched(server.url, "other")
    async with nodes[0], nodes[1], other:
        for pump in (nodes[0], other):
            await pump.request("echo", Ask("x"))
            await pump.wait_idle()
            await pump.attachments[0].mesh.parts.link.flush(5.0)
        for node in nodes:  # what they get is no payload
            await spin(node.dead_letters.list)
            assert {json.loads(letter.wire)["organism"] for letter in node.dead_letters.list()} == {"other"}


def drain(tap):
    while not tap.messages.empty():
        yield tap.messages.get_nowait()


def test_a_name_that_is_no_subject_becomes_one():
    assert events_of("my shop > all.") == "mesh.pump.my-shop---all.-.events"
    assert events_of("*") == "mesh.pump.>"
