"""What is under way while the server is away, and goes on when it is back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.mesh.kit import chunks_on, echo_on, plain_peer, spin, until_names
from xml_pipeline.mesh import AgentMesh, AgentSpec, ConnectionLost, NotAvailable, StorageError, link
from xml_pipeline.mesh.durable import Delivery, Durable

ECHO = {"message": "hi"}


@pytest.fixture
async def host(lasting_server):
    host = AgentMesh(lasting_server.url)
    echo_on(host)
    async with host:
        yield host


@pytest.fixture
async def streamer(lasting_server):
    host = AgentMesh(lasting_server.url)
    chunks_on(host)
    async with host:
        yield host


@pytest.fixture
async def mesh(lasting_server):
    async with AgentMesh(lasting_server.url) as mesh:
        yield mesh


async def crash(server, *meshes):
    """Kill the server, and wait until they have noticed."""
    server.kill()
    await server.wait()
    await server.stop()
    await spin(lambda: not any(mesh.is_connected for mesh in meshes))


def delay_return(mesh, monkeypatch):
    """Have a mesh object come back only when it is told."""
    go, try_again = asyncio.Event(), mesh.parts.link._try_again

    async def later():
        await go.wait()
        return await try_again()

    monkeypatch.setattr(mesh.parts.link, "_try_again", later)
    return go


async def test_a_call_is_made_again_until_those_who_serve_it_are_back(lasting_server, host, mesh, monkeypatch):
    monkeypatch.setattr(link, "_SETTLING", 60.0)
    await until_names(mesh, "demo.echo")
    go = delay_return(host, monkeypatch)
    await crash(lasting_server, mesh, host)
    await lasting_server.start()
    await mesh.parts.link.wait_up(30.0)
    replies = mesh.parts.replies
    before = replies._count
    call = asyncio.create_task(mesh.call("demo.echo", ECHO, timeout=60.0))
    await spin(lambda: call.done() or replies._count > before + 2)  # nobody was there, more than once
    go.set()
    assert await call == {"reply": "hi"}


async def test_a_call_is_not_made_again_for_longer_than_it_may_take(lasting_server, host, mesh, monkeypatch):
    monkeypatch.setattr(link, "_SETTLING", 60.0)
    await until_names(mesh, "demo.echo")
    go = delay_return(host, monkeypatch)
    await crash(lasting_server, mesh, host)
    await lasting_server.start()
    await mesh.parts.link.wait_up(30.0)
    with pytest.raises(NotAvailable):
        await mesh.call("demo.echo", ECHO, timeout=0.3)
    go.set()


async def test_a_call_is_made_once_where_the_server_was_never_away(lasting_server, mesh, monkeypatch):
    monkeypatch.setattr(link, "_SETTLING", 60.0)
    host = AgentMesh(lasting_server.url)
    echo_on(host)
    async with host:
        await until_names(mesh, "demo.echo")
        await host.parts.host.service("demo.echo")._subscription.close()  # it is listed, and not there
        await host.parts.link.flush()
        before = mesh.parts.replies._count
        with pytest.raises(NotAvailable):
            await mesh.call("demo.echo", ECHO, timeout=60.0)
        assert mesh.parts.replies._count == before + 1


async def collect(stream):
    return [chunk async for chunk in stream]


CHUNKS = [{"delta": "hi0"}, {"delta": "hi1"}]
TWO = {"message": "hi", "n": 2}


async def test_a_stream_is_asked_for_again_until_those_who_serve_it_are_back(
    lasting_server, streamer, mesh, monkeypatch
):
    monkeypatch.setattr(link, "_SETTLING", 60.0)
    await until_names(mesh, "demo.chunks")
    go = delay_return(streamer, monkeypatch)
    await crash(lasting_server, mesh, streamer)
    await lasting_server.start()
    await mesh.parts.link.wait_up(30.0)
    parts = mesh.parts
    before, subscriptions = parts.replies._count, len(parts.link._subscriptions)
    stream = asyncio.create_task(collect(mesh.stream("demo.chunks", TWO, timeout=60.0)))
    await spin(lambda: stream.done() or parts.replies._count > before + 2)  # nobody was there, more than once
    go.set()
    assert await stream == CHUNKS
    assert len(parts.link._subscriptions) == subscriptions


async def test_a_stream_is_not_asked_for_again_for_longer_than_it_may_be_silent(
    lasting_server, streamer, mesh, monkeypatch
):
    monkeypatch.setattr(link, "_SETTLING", 60.0)
    await until_names(mesh, "demo.chunks")
    go = delay_return(streamer, monkeypatch)
    await crash(lasting_server, mesh, streamer)
    await lasting_server.start()
    await mesh.parts.link.wait_up(30.0)
    with pytest.raises(NotAvailable):
        await collect(mesh.stream("demo.chunks", TWO, timeout=0.3))
    go.set()


async def test_a_stream_is_asked_for_once_where_the_server_was_never_away(lasting_server, streamer, mesh, monkeypatch):
    monkeypatch.setattr(link, "_SETTLING", 60.0)
    await until_names(mesh, "demo.chunks")
    await streamer.parts.host.service("demo.chunks")._subscription.close()  # it is listed, and not there
    await streamer.parts.link.flush()
    before = mesh.parts.replies._count
    with pytest.raises(NotAvailable):
        await collect(mesh.stream("demo.chunks", TWO, timeout=60.0))
    assert mesh.parts.replies._count == before + 1


@pytest.mark.parametrize("after", [0, 1])
async def test_a_stream_that_somebody_has_heard_is_asked_for_once(lasting_server, mesh, monkeypatch, after):
    host = AgentMesh(lasting_server.url)
    asked = []

    @host.agent(AgentSpec(name="demo.chunks"))
    async def chunks(ask: dict) -> AsyncIterator[dict]:
        asked.append(ask)
        for number in range(after):
            yield {"delta": f"hi{number}"}
        raise NotAvailable("somebody else is not there")

    async with host:
        await until_names(mesh, "demo.chunks")
        monkeypatch.setattr(type(mesh.parts.link), "is_fresh", True)
        came = []
        with pytest.raises(NotAvailable):
            async for chunk in mesh.stream("demo.chunks", TWO, timeout=60.0):
                came.append(chunk)  # noqa: PERF401
        assert (came, len(asked)) == (CHUNKS[:after], 1)


async def test_a_stream_of_which_something_came_is_asked_for_once(lasting_server, streamer, mesh, monkeypatch):
    await until_names(mesh, "demo.chunks")
    await streamer.parts.host.service("demo.chunks")._subscription.close()  # somebody else answers in its place
    await streamer.parts.link.flush()
    monkeypatch.setattr(type(mesh.parts.link), "is_fresh", True)
    async with plain_peer(lasting_server.url) as peer:

        async def answer(message):
            subject, first = f"mesh.stream.{message.headers['X-Mesh-Request-Id']}", {"X-Mesh-Stream-Seq": "0"}
            await peer.publish(subject, b'{"delta": "hi0"}', headers={**first, "X-Mesh-Stream-End": "false"})
            await peer.publish(message.reply, b"", headers={"Status": "503"})  # as if nobody were there

        await peer.subscribe("mesh.agent.demo.chunks", cb=answer)
        await peer.flush()
        came = []
        with pytest.raises(NotAvailable):
            async for chunk in mesh.stream("demo.chunks", TWO, timeout=60.0):
                came.append(chunk)  # noqa: PERF401
        assert came == CHUNKS[:1]


async def test_it_is_known_how_many_wait_for_a_connection(lasting_server, mesh):
    own = mesh.parts.link
    await crash(lasting_server, mesh)
    waiting = [asyncio.create_task(own.wait_up(60.0)) for _ in range(3)]
    await spin(lambda: own.waiting == 3)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert own.waiting == 2
    await lasting_server.start()
    await asyncio.gather(*waiting[1:])
    assert own.waiting == 0


async def test_a_message_that_is_done_is_confirmed_however_long_the_server_was_away(lasting_server, mesh, monkeypatch):
    parts = mesh.parts
    came: asyncio.Queue[Delivery] = asyncio.Queue()
    reader = Durable(parts.link, parts.replies, parts.jetstream, "jobs.*", "worker", came.put_nowait)
    await reader.start()
    await parts.jetstream.publish("jobs.one", b"{}")
    delivery = await came.get()
    await lasting_server.stop()  # one that is killed may have forgotten to whom it gave the message
    await spin(lambda: not mesh.is_connected)

    async def wait_in_vain(timeout):
        raise ConnectionLost

    monkeypatch.setattr(parts.link, "wait_up", wait_in_vain)  # as after the longest time that anybody waits
    done = asyncio.create_task(delivery.done())
    await asyncio.wait([done], timeout=0.1)
    assert not done.done()
    monkeypatch.undo()
    await lasting_server.start()
    await done
    await reader.stop(10.0)
    left = await parts.jetstream.api("CONSUMER.INFO.mesh-worker.worker")
    assert (left["ack_floor"]["stream_seq"], left["num_ack_pending"], left["num_pending"]) == (1, 0, 0)
    assert came.empty()


async def test_a_consumer_that_was_removed_is_made_again_and_not_asked_for_without_a_pause(lasting_server, mesh):
    parts = mesh.parts
    came: asyncio.Queue[Delivery] = asyncio.Queue()
    reader = Durable(parts.link, parts.replies, parts.jetstream, "jobs.*", "worker", came.put_nowait)
    await reader.start()
    await spin(lambda: reader._requests)
    await parts.link.flush()
    await parts.jetstream.api("CONSUMER.DELETE.mesh-worker.worker")
    while True:  # what is published while there is none is not kept
        with contextlib.suppress(StorageError):
            await parts.jetstream.api("CONSUMER.INFO.mesh-worker.worker")
            break
    await parts.jetstream.publish("jobs.one", b"{}")
    delivery = await came.get()
    assert delivery.message.subject == "jobs.one"
    await delivery.done()
    assert reader._requests < 20
    await reader.stop(10.0)
