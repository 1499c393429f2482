"""The bytes on the wire, as a plain client sees them: what peers of any version and language rely on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from tests.mesh.kit import Ask, Chunk, Tap, chunks_on, echo_on, until_names
from xml_pipeline.mesh import AgentMesh, AgentSpec, MeshError


async def test_an_answer(host, peer):
    echo_on(host)
    async with host:
        reply = await peer.request(
            "mesh.agent.demo.echo", b'{"message":"hi","n":2}', timeout=10, headers={"X-Mesh-Request-Id": "bb13"}
        )
    assert reply.data == b'{"reply":"hihi"}'
    assert reply.headers == {
        "X-Mesh-Status": "ok",
        "X-Mesh-Source": "demo.echo",
        "X-Mesh-Request-Id": "bb13",
        "X-Mesh-Instance-Id": host.instance_id,
    }


@pytest.mark.parametrize("headers", [None, {}, {"Other": "x"}])
async def test_a_request_without_headers(host, peer, headers):
    echo_on(host)
    async with host:
        reply = await peer.request("mesh.agent.demo.echo", b'{"message":"hi"}', timeout=10, headers=headers)
    assert reply.data == b'{"reply":"hi"}'
    assert reply.headers["X-Mesh-Request-Id"] == ""


async def test_an_error_and_its_copy(host, peer):
    echo_on(host)
    async with host:
        errors = await Tap.on(peer, "mesh.errors.demo.echo")
        reply = await peer.request(
            "mesh.agent.demo.echo", b'{"message":5,"n":0}', timeout=10, headers={"X-Mesh-Request-Id": "81f1"}
        )
        copy = await errors.next()
    assert (copy.data, copy.headers) == (reply.data, reply.headers)
    assert reply.headers == {
        "X-Mesh-Status": "error",
        "X-Mesh-Request-Id": "81f1",
        "X-Mesh-Instance-Id": host.instance_id,
    }
    body = json.loads(reply.data)
    assert body.keys() == {"code", "message", "agent", "request_id", "details"}
    assert (body["code"], body["agent"], body["request_id"]) == ("invalid_input", "demo.echo", "81f1")
    assert [(one["type"], one["loc"]) for one in body["details"]["errors"]] == [
        ("string_type", ["message"]),
        ("greater_than_equal", ["n"]),
    ]


async def test_a_stream(host, peer):
    chunks_on(host)
    async with host:
        frames = await Tap.on(peer, "mesh.stream.a3bf")
        headers = {"X-Mesh-Request-Id": "a3bf", "X-Mesh-Stream": "true"}
        await peer.publish("mesh.agent.demo.chunks", b'{"message": "m", "n": 2}', headers=headers)
        came = [await frames.next() for _ in range(3)]
    common = {"X-Mesh-Request-Id": "a3bf", "X-Mesh-Instance-Id": host.instance_id}
    assert [(frame.data, frame.headers) for frame in came] == [
        (b'{"delta":"m0"}', {"X-Mesh-Stream-Seq": "0", "X-Mesh-Stream-End": "false", **common}),
        (b'{"delta":"m1"}', {"X-Mesh-Stream-Seq": "1", "X-Mesh-Stream-End": "false", **common}),
        (b"", {"X-Mesh-Stream-Seq": "2", "X-Mesh-Stream-End": "true", **common}),
    ]


async def test_a_stream_that_fails(host, peer):
    @host.agent(AgentSpec(name="demo.boom"))
    async def boom(ask: Ask) -> AsyncIterator[Chunk]:
        yield Chunk(delta="0")
        raise MeshError("handler_error", "midstream")

    async with host:
        frames = await Tap.on(peer, "mesh.stream.4d46")
        headers = {"X-Mesh-Request-Id": "4d46", "X-Mesh-Stream": "true"}
        await peer.publish("mesh.agent.demo.boom", b'{"message": "m"}', headers=headers)
        await frames.next()
        last = await frames.next()
    assert last.headers == {
        "X-Mesh-Stream-End": "true",
        "X-Mesh-Status": "error",
        "X-Mesh-Request-Id": "4d46",
        "X-Mesh-Instance-Id": host.instance_id,
    }
    assert json.loads(last.data) == {
        "code": "handler_error",
        "message": "midstream",
        "agent": "demo.boom",
        "request_id": "4d46",
        "details": {},
    }


async def test_a_stream_asked_of_a_responder(host, peer):
    echo_on(host)
    async with host:
        frames, errors = await Tap.on(peer, "mesh.stream.rid-2"), await Tap.on(peer, "mesh.errors.demo.echo")
        headers = {"X-Mesh-Request-Id": "rid-2", "X-Mesh-Stream": "true"}
        await peer.publish("mesh.agent.demo.echo", b"{}", headers=headers)
        for message in (await frames.next(), await errors.next()):
            assert json.loads(message.data)["code"] == "invocation_mismatch"


async def test_events(host, peer):
    go = asyncio.Event()

    @host.agent(AgentSpec(name="demo.pub"))
    async def pub() -> AsyncIterator[Chunk]:
        await go.wait()
        for number in range(2):
            yield Chunk(delta=str(number))

    async with host:
        events = await Tap.on(peer, "mesh.agent.demo.pub.events")
        go.set()
        came = [await events.next() for _ in range(3)]
    instance = {"X-Mesh-Instance-Id": host.instance_id}
    assert [(event.data, event.headers) for event in came] == [
        (b'{"delta":"0"}', {"X-Mesh-Stream-Seq": "0", "X-Mesh-Stream-End": "false", **instance}),
        (b'{"delta":"1"}', {"X-Mesh-Stream-Seq": "1", "X-Mesh-Stream-End": "false", **instance}),
        (b"", {"X-Mesh-Stream-Seq": "2", "X-Mesh-Stream-End": "true", **instance}),
    ]


async def test_the_requests_we_send(mesh, peer):
    seen = await Tap.on(peer, "mesh.agent.plain")
    call = asyncio.create_task(mesh.call("plain", Ask(message="x"), timeout=5.0))
    request = await seen.next()
    assert request.data == b'{"message":"x","n":1}'
    assert request.reply.startswith("_INBOX.")
    ours = {name: request.headers.pop(name) for name in ("X-Mesh-Deadline", "X-Mesh-Accept")}
    assert len(request.headers.pop("X-Mesh-Request-Id")) == 32
    assert request.headers == {"X-Mesh-Instance-Id": mesh.instance_id}
    assert 0 < int(ours["X-Mesh-Deadline"]) <= 5000
    await peer.publish(request.reply, b'"plain answer"')  # of a peer that sends no headers
    assert await call == "plain answer"


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_an_answer_without_content(mesh, peer, body):
    async def answer(message):
        await peer.publish(message.reply, body, headers={"X-Mesh-Status": "ok"})

    await peer.subscribe("mesh.agent.plain", cb=answer)
    await peer.flush()
    assert await mesh.call("plain") == {}


async def test_a_minimal_foreign_agent(mesh, peer):
    """What a plain program has to write to be found, described, checked and called."""
    entry = {"name": "plain", "description": "d", "version": "1", "tags": [], "invocable": True, "streaming": False}
    contract = {
        "name": "plain",
        "description": "d",
        "version": "1",
        "capabilities": {"streaming": False, "invocable": True},
        "skills": [
            {"id": "plain", "name": "plain", "description": "d", "tags": [], "inputSchema": {"type": "integer"}}
        ],
        "x-agentmesh": {"subject": "mesh.agent.plain", "tags": [], "registered_at": "2026-01-02T03:04:05+00:00"},
    }
    js = peer.jetstream()
    await (await js.key_value("mesh-registry")).put("plain", json.dumps(contract).encode())
    await (await js.key_value("mesh-catalog")).put("catalog", json.dumps([entry]).encode())
    await until_names(mesh, "plain")
    assert (await mesh.contract("plain")).input_schema == {"type": "integer"}
    with pytest.raises(MeshError) as caught:
        await anext(mesh.stream("plain"))
    assert caught.value.code == "invocation_mismatch"


async def test_the_connection_says_who_it_is(server):
    """Monitors of other versions go by this name."""
    from tests.mesh.kit import plain_peer

    async with plain_peer(server.system_url) as system:
        came = await system.subscribe("$SYS.ACCOUNT.*.CONNECT")
        await system.flush()
        async with AgentMesh(server.url) as mesh:
            assert f'"oam-host-{mesh.instance_id}"'.encode() in (await came.next_msg(10)).data


async def test_the_buckets_that_every_peer_expects(mesh, peer):
    js = peer.jetstream()
    for bucket in ("mesh-catalog", "mesh-registry", "mesh-context", "mesh-instances", "mesh-observability"):
        assert (await js.key_value(bucket)) is not None
