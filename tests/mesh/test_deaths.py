"""Notices of death, and whom they concern."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.mesh.kit import gated_on, spin
from xml_pipeline.mesh import AgentDied, AgentMesh, AgentSpec
from xml_pipeline.mesh.deaths import DISCONNECT, FAREWELL, DeathNotice


def test_a_notice_is_written_as_peers_write_it():
    notice = DeathNotice("a.b", FAREWELL, "f" * 32, "2026-11-21T01:50:17.947282+00:00")
    assert notice.to_dict() == {
        "agent": "a.b",
        "reason": "graceful_shutdown",
        "detected_at": "2026-11-21T01:50:17.947282+00:00",
        "instance_id": "f" * 32,
    }


@given(st.text(), st.sampled_from([DISCONNECT, FAREWELL]), st.text(min_size=1), st.text(), st.booleans())
def test_what_is_written_is_read(agent, reason, instance_id, detected_at, is_last):
    notice = DeathNotice(agent, reason, instance_id, detected_at, is_last)
    assert DeathNotice.read(notice.to_json()) == notice


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b"3", b"{}", b'{"instance_id": 3}', b"[" * 100_000, b"\xff"])
def test_what_is_no_notice_is_none(body):
    assert DeathNotice.read(body) is None


def test_a_value_of_another_type_counts_as_none():
    notice = DeathNotice.read(b'{"instance_id": "x", "agent": ["a"], "is_last": 1}')
    assert notice is not None
    assert (notice.agent, notice.is_last) == ("", False)


async def accepted(mesh: AgentMesh) -> None:
    """Wait until the one call of this mesh object was accepted."""
    while not any(expected.instance_id for expected in mesh.parts.replies._expected.values()):  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_only_those_whom_it_concerns_are_failed(host, mesh, peer):
    gate = gated_on(host)
    async with host:
        call = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        await accepted(mesh)
        for body in (
            b"hello",
            b"{}",
            DeathNotice("demo.gated", DISCONNECT, "another").to_json(),
            DeathNotice("demo.gated", DISCONNECT, "another", is_last=True).to_json(),
        ):
            await peer.publish("mesh.death.demo.gated", body)
        gate.go.set()
        assert await call == 1


async def test_a_call_ends_when_its_host_is_said_to_be_gone(host, mesh, peer):
    gate = gated_on(host)
    async with host:
        call = asyncio.create_task(mesh.call("demo.gated", 1, timeout=60.0))
        await gate.begun.get()
        await accepted(mesh)
        notice = DeathNotice("", DISCONNECT, host.instance_id)
        await peer.publish(f"mesh.death.instance.{host.instance_id}", notice.to_json())
        with pytest.raises(AgentDied) as caught:
            await asyncio.wait_for(call, 10)
        assert caught.value.agent == "demo.gated"
        assert caught.value.details["instance_id"] == host.instance_id
        gate.go.set()


async def test_a_callback_hears_of_it_too(host, mesh, peer):
    gate = gated_on(host)
    errors: asyncio.Queue = asyncio.Queue()
    async with host:
        await mesh.send("demo.gated", 1, on_reply=print, on_error=errors.put_nowait, timeout=60.0)
        await gate.begun.get()
        await accepted(mesh)
        notice = DeathNotice("", DISCONNECT, host.instance_id)
        await peer.publish(f"mesh.death.instance.{host.instance_id}", notice.to_json())
        error = await asyncio.wait_for(errors.get(), 10)
        assert isinstance(error, AgentDied)
        assert (error.agent, error.details["instance_id"]) == ("demo.gated", host.instance_id)
        assert len(error.request_id) == 32
        await spin(lambda: not mesh.parts.sending._waiting)
        assert not mesh.parts.replies._expected
        assert not any(one.subject.startswith("mesh.results") for one in mesh.parts.link._subscriptions)
        gate.go.set()


async def silent(peer, name: str) -> asyncio.Queue:
    """An agent of a plain peer that takes requests and never answers; the queue has the requests."""
    taken: asyncio.Queue = asyncio.Queue()

    async def take(message):
        taken.put_nowait(message)

    await peer.subscribe(f"mesh.agent.{name}", f"q.{name}", cb=take)
    await peer.flush()
    return taken


async def test_a_host_that_never_accepts_is_mourned_only_on_the_word_of_the_server(mesh, peer):
    taken = await silent(peer, "plain.agent")
    call = asyncio.create_task(mesh.call("plain.agent", timeout=60.0))
    request = await taken.get()
    # One of two peers of another kind has left: this says nothing about the other one, who has the request.
    await peer.publish("mesh.death.plain.agent", DeathNotice("plain.agent", DISCONNECT, "one").to_json())
    await peer.publish(request.reply, b"7")
    assert await call == 7

    call = asyncio.create_task(mesh.call("plain.agent", timeout=60.0))
    await taken.get()
    notice = DeathNotice("plain.agent", DISCONNECT, "one", is_last=True)
    await peer.publish("mesh.death.plain.agent", notice.to_json())
    with pytest.raises(AgentDied):
        await asyncio.wait_for(call, 10)


async def test_a_stream_ends_when_its_host_is_said_to_be_gone(host, mesh, peer):
    @host.agent(AgentSpec(name="a.stream"))
    async def stream(x: int) -> AsyncIterator[int]:
        yield 1
        await go.wait()

    go = asyncio.Event()
    async with host:
        chunks = mesh.stream("a.stream", 1, timeout=60.0)
        assert await anext(chunks) == 1
        await peer.publish(
            f"mesh.death.instance.{host.instance_id}", DeathNotice("", DISCONNECT, host.instance_id).to_json()
        )
        with pytest.raises(AgentDied):
            await asyncio.wait_for(anext(chunks), 10)
        go.set()


async def test_a_stream_of_a_plain_host_ends_too(mesh, peer):
    """Its frames say which host they come from, though it never accepts."""
    taken = await silent(peer, "plain.stream")
    chunks = mesh.stream("plain.stream", timeout=60.0)
    first = asyncio.create_task(anext(chunks))
    request = await taken.get()
    frame = {"X-Mesh-Stream-Seq": "0", "X-Mesh-Stream-End": "false", "X-Mesh-Instance-Id": "one"}
    await peer.publish(f"mesh.stream.{request.headers['X-Mesh-Request-Id']}", b"1", headers=frame)
    assert await first == 1
    notice = {"agent": "plain.stream", "reason": "disconnect", "detected_at": "", "instance_id": "one"}
    await peer.publish("mesh.death.plain.stream", json.dumps(notice).encode())
    with pytest.raises(AgentDied):
        await asyncio.wait_for(anext(chunks), 10)


async def test_leaving_for_good_is_told_with_the_agent_and_the_host(host, mesh, peer):
    gated_on(host)
    heard: asyncio.Queue = asyncio.Queue()

    async def hear(message):
        heard.put_nowait(message)

    await peer.subscribe("mesh.death.>", cb=hear)
    await peer.flush()
    async with host:
        pass
    message = await asyncio.wait_for(heard.get(), 10)
    assert message.subject == "mesh.death.demo.gated"
    assert message.headers is None
    assert set(json.loads(message.data)) == {"agent", "reason", "detected_at", "instance_id"}
