"""Callers and handlers that mean no good: whatever they say, they are who they are, and reach what they may reach."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from tests.bridge.kit import Ask, Told, echo, organism
from tests.bridge.pair import met, wiretapped
from tests.mesh.kit import Tap, echo_on, spin, until_names
from third_party.xmlable import codec_of
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.bridge.letters import write_request
from xml_pipeline.mesh import MeshError
from xml_pipeline.message_bus.message_state import SystemError

ASKED = codec_of(Ask).encode_payload(Ask("x"))
THREAD = "7c0d3d5e-8f6c-4f0e-9a57-0d9f6c1b2a34"
BODY = b'{"message": "x"}'


class Clerk:
    """Answers, and remembers who asked, on which conversation."""

    def __init__(self) -> None:
        self.seen: list[HandlerMetadata] = []

    async def __call__(self, ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        self.seen.append(metadata)
        return HandlerResponse.respond(Told(ask.message))

    @property
    def senders(self) -> set[str]:
        return {each.from_id for each in self.seen}


@pytest.fixture
def clerk():
    return Clerk()


@pytest.fixture
async def bank(server, clerk):
    pump = organism(server.url, "bank", expose=[{"listener": "clerk"}])
    pump.register("clerk", clerk, Ask, output_class=Told)
    async with pump:
        await met(pump, "bank.clerk")
        yield pump


async def ask(client, body, headers=None):
    return await client.request("mesh.agent.bank.clerk", body, timeout=20, headers=headers)


# -- who somebody is

HEADERS = [
    "X-Mesh-Instance-Id",
    "X-Mesh-Request-Id",
    "X-Mesh-Thread",
    "X-Mesh-Budget",
    "X-Mesh-Deadline",
    "X-Mesh-Accept",
    "X-Mesh-Credit",
    "X-Mesh-Reply-To",
    "X-Mesh-Content-Type",
    "X-Mesh-Origin",
    "X-Mesh-Status",
    "X-Mesh-Source",
    "X-Mesh-Usage",
    "X-Mesh-Stream-Seq",
    "X-Mesh-Stream-End",
    "traceparent",
]
VALUES = ["clerk", "CLERK", "system", "external", "mesh:bank.clerk", "-1", "NaN", "9" * 400, "*.>", "\u202e\u0455ystem"]
VALUES += ["x" * 50_000, "a b", "_INBOX.x", "$SYS.REQ.SERVER.PING", "mesh.agent.bank.clerk"]


@pytest.mark.parametrize("header", HEADERS)
async def test_no_header_makes_anybody_somebody_else(bank, peer, clerk, header):
    for value in VALUES:
        reply = await ask(peer, BODY, {header: value})
        assert reply.data == b'{"reply":"x"}', value
    assert clerk.senders == {"mesh:anonymous"}
    conversations = {each.conversation_id for each in clerk.seen}
    assert len(conversations) == len(VALUES)
    assert bank.attachments[0].mesh.parts.link.losses == 0


NAMES = [
    "clerk",
    "Clerk",
    "CLERK",
    "\uff43lerk",  # full width
    "\u0441lerk",  # Cyrillic
    "clerk\u200b",  # with an invisible space
    "bank.clerk",
    "system",
    "System",
    "\u0455ystem",
    "sys\u00adtem",
    "\u202esystem",
    "system.todo",
    "external",
    "console",
    "core",
    "mesh:anonymous",
    "MESH:bank.clerk",
    "s." + "a" * 100_000,
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
async def test_no_envelope_makes_anybody_somebody_else(server, bank, clerk, name):
    async with wiretapped(server.url) as wire:
        reply = await wire.send(write_request(ASKED, name, "bank.clerk", THREAD), instance_id=name[:20].encode().hex())
        assert reply.headers["X-Mesh-Status"] == "ok"
    assert clerk.senders == {"mesh:" + name[:20].encode().hex()}
    assert {each.thread_id for each in clerk.seen}.isdisjoint({THREAD})


async def test_a_live_thread_is_of_no_use_to_anybody(bank, peer, clerk):
    """Its id as the thread, as the request's id, as the sender and in the trace; in JSON and in an envelope."""
    begun, go, found = asyncio.Event(), asyncio.Event(), []

    async def wait(told: Told, metadata: HandlerMetadata) -> HandlerResponse:
        found.append(metadata)
        begun.set()
        await go.wait()
        return HandlerResponse.respond(told)

    bank.register("waits", wait, Told)
    asking = asyncio.create_task(bank.request("waits", Told("mine")))
    await begun.wait()
    thread, plain = found[0].thread_id, found[0].thread_id.replace("-", "")
    headers = {
        "X-Mesh-Thread": thread,
        "X-Mesh-Request-Id": plain,
        "X-Mesh-Instance-Id": plain,
        "traceparent": f"00-{plain}-{plain[:16]}-01",
    }
    await ask(peer, BODY, headers)
    await ask(peer, b'{"message": "%s"}' % thread.encode(), {"X-Mesh-Thread": found[0].conversation_id})
    letter = write_request(ASKED, "clerk", "bank.clerk", thread)
    await ask(peer, letter, {**headers, "X-Mesh-Content-Type": "application/xml"})
    await peer.publish(f"mesh.cancel.{plain}", b"")
    await peer.publish(f"mesh.cancel.{thread}", b"")
    await peer.flush()
    assert len(clerk.seen) == 3
    assert {thread, found[0].conversation_id}.isdisjoint({each.thread_id for each in clerk.seen})
    assert len({each.conversation_id for each in [*clerk.seen, *found]}) == 4
    go.set()
    assert await asking == Told("mine")


# -- what they send

LETTER = write_request(ASKED, "shop.clerk", "bank.clerk", THREAD)
XML = {"X-Mesh-Content-Type": "application/xml"}


def nested(depth):
    return write_request("<a>" * depth + "</a>" * depth, "s.a", "bank.clerk", THREAD)


REFUSED = {
    "an envelope as JSON": (LETTER, None),
    "an envelope as a JSON text": (json.dumps(LETTER.decode()).encode(), None),
    "an envelope of another content type": (LETTER, {"X-Mesh-Content-Type": "text/xml"}),
    "JSON as an envelope": (BODY, XML),
    "deep JSON": (b"[" * 300_000 + b"]" * 300_000, None),
    "deep objects": (b'{"message":' * 50_000 + b"1" + b"}" * 50_000, None),
    "wide JSON": (b"[" + b"1," * 300_000 + b"1]", None),
    "many members": (json.dumps({f"k{number}": 1 for number in range(50_000)}).encode(), None),
    "a number without end": (b'{"message":"x","n":1' + b"0" * 100_000 + b"}", None),
    "an infinite number": (b'{"message":"x","n":1e999}', None),
    "half a character": (b'{"message":"\\ud800"}', None),
    "a character that XML has not": (b'{"message":"\\u0000"}', None),
    "another encoding": ('{"message":"x"}'.encode("utf-16"), None),
    "a class": (b'{"message":"x","__class__":"os.system"}', None),
    "deep XML": (nested(10_000), XML),
    "a deep payload": (nested(90), XML),
    "entities": (b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><message>&b;</message>', XML),
    "many attributes": (
        write_request(
            '<Ask xmlns="" ' + " ".join(f'a{n}="1"' for n in range(9_000)) + "/>", "s.a", "bank.clerk", THREAD
        ),
        XML,
    ),
    "many payloads": (write_request(ASKED * 2_000, "s.a", "bank.clerk", THREAD), XML),
}


@pytest.mark.parametrize("how", REFUSED)
async def test_nothing_that_is_sent_does_more_than_be_refused(bank, peer, clerk, how, caplog):
    body, headers = REFUSED[how]
    reply = await ask(peer, body, headers)
    assert MeshError.from_wire(reply.data).code == "invalid_input"
    assert len(reply.data) < 500
    assert clerk.seen == []
    assert not [record for record in caplog.records if record.exc_info or record.levelno > logging.WARNING]
    assert (await ask(peer, BODY)).data == b'{"reply":"x"}'
    assert bank.attachments[0].mesh.parts.link.losses == 0


async def test_an_envelope_within_json_is_a_text(bank, peer, clerk):
    reply = await ask(peer, json.dumps({"message": LETTER.decode()}).encode())
    assert json.loads(reply.data) == {"reply": LETTER.decode()}
    assert clerk.senders == {"mesh:anonymous"}


# -- what a handler reaches

SEARCH = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}


@pytest.mark.parametrize("peers", [None, [], ["other"], ["tools.other", "TOOLS.search", "tools.Search", "tools.*"]])
@pytest.mark.parametrize("how", ["call", "delegate", "bytes", "bytes of another", "other letters"])
async def test_no_agent_reaches_an_agent_of_the_mesh_that_is_not_its_peer(server, mesh, peer, peers, how):
    """Neither one that was found nor one that was named, a key or a subject; by no form of an answer."""
    for name in ("tools.search", "named.search"):
        echo_on(mesh, name)
    await mesh.catalog()
    requests = await Tap.on(peer, "mesh.agent.*.search")
    puts = await Tap.on(peer, "$KV.mesh-context.>")
    told = await Tap.on(peer, "out.>")
    agents = [{"pattern": "tools.*"}, {"name": "named.search", "payload_class": Ask, "output_class": Told}]
    kv = [{"put": "kept.{message}", "listener": "store", "payload_class": Ask}]
    subjects = [{"publish": "out.{message}", "listener": "alarm", "payload_class": Ask}]
    pump = organism(server.url, agents=agents, kv=kv, subjects=subjects)

    def form(target, payload):
        envelope = (
            f'<message xmlns="https://xml-pipeline.org/ns/envelope/v1"><meta><from>%s</from><to>{target}</to></meta>'
        )
        if how == "call":
            return HandlerResponse(payload, to=target)
        if how == "delegate":
            return HandlerResponse.delegate(payload, to=target)
        if how == "other letters":
            return HandlerResponse(payload, to=target.upper())
        sender = "bad" if how == "bytes" else "trusted"
        return ((envelope % sender) + ASKED + "</message>").encode()

    async def bad(message: Told | SystemError, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(message, SystemError):
            return HandlerResponse.respond(Told(message.code))
        listener = pump.listeners[message.reply]
        return form(message.reply, listener.payload_class(message="x"))

    async def trusted(message: Ask | Told, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(message, Told):
            return HandlerResponse.respond(message)
        return HandlerResponse(message, to="named.search")

    pump.register("bad", bad, Told, agent=True, peers=peers)
    pump.register("other", echo, Ask)
    pump.register("trusted", trusted, Ask, agent=True, peers=["named.search"])
    async with pump:
        await spin(lambda: "tools.search" in pump.listeners)
        for target in ("tools.search", "named.search", "store", "alarm"):
            assert (await pump.request("bad", Told(target))).reply in ("routing", "validation"), target
        await pump.wait_idle()
        await pump.attachments[0].mesh.parts.link.flush(5.0)
        assert await pump.request("trusted", Ask("x")) == Told("x")  # nobody else is hindered
        assert (await requests.next()).subject == "mesh.agent.named.search"
        assert requests.messages.empty() and puts.messages.empty() and told.messages.empty()


async def test_a_caller_reaches_no_further_than_the_peer_table_that_it_is_given(server, mesh):
    """Nobody names the table with a header: it stands in the entry."""
    expose = [{"listener": "desk", "as": "open.desk"}, {"listener": "desk", "as": "shut.desk", "peer_table": "none"}]
    agents = [{"name": "named.search", "payload_class": Ask, "output_class": Told}]
    limits = {"peer_tables": [{"name": "none", "peers": {"desk": []}}]}
    echo_on(mesh, "named.search")
    pump = organism(server.url, limits=limits, expose=expose, agents=agents)

    async def desk(message: Ask | Told | SystemError, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(message, Ask):
            return HandlerResponse.call(message, to="named.search")
        return HandlerResponse.respond(message if isinstance(message, Told) else Told(message.code))

    pump.register("desk", desk, Ask, agent=True, peers=["named.search"])
    async with pump:
        await until_names(mesh, "named.search", "open.desk", "shut.desk")
        await met(pump, "named.search")
        assert await mesh.call("open.desk", {"message": "x"}) == {"reply": "x"}
        assert await mesh.call("shut.desk", {"message": "x"}) == {"reply": "routing"}
