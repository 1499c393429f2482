"""What is to go out while the server is away, or takes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest

from tests.bridge.kit import Ask, Told, echo, organism
from tests.mesh.kit import Gate, Tap, spin, until_names
from xml_pipeline.bridge import sink, waiting
from xml_pipeline.errors import DeadlineExceeded, NoAnswer, Overloaded
from xml_pipeline.mesh import AgentSpec, EmbeddedServer, MeshTimeout
from xml_pipeline.mesh.link import Link

WAYS = {
    "a call": {"agents": [{"name": "demo.echo", "as": "out", "payload_class": Ask, "output_class": Told}]},
    "a put": {"kv": [{"put": "out.{message}", "listener": "out", "payload_class": Ask}]},
    "a publication": {"subjects": [{"publish": "out.{message}", "listener": "out", "payload_class": Ask}]},
}
OTHERS = {
    "agents": [{"name": "demo.other", "payload_class": Ask, "output_class": Told}],
    "kv": [{"put": "other.{message}", "listener": "other.key", "payload_class": Ask}],
    "subjects": [{"publish": "other.{message}", "listener": "other.subject", "payload_class": Ask}],
}
NAMES = ("demo.other", "other.key", "other.subject")


def among_others(url, way):
    """An organism that has one of each besides."""
    sections = {kind: [*WAYS[way].get(kind, []), *entries] for kind, entries in OTHERS.items()}
    pump = organism(url, **sections)
    pump.register("echo", echo, Ask)
    return pump


def under_way(pump):
    """How much of the listener called `out` is."""
    return next(part for _, part in pump.attachments[0]._parts if part.listeners[0].name == "out").under_way


@contextlib.contextmanager
def stopped(server):
    """It is there, and does nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def begun(pump, *requests):
    """Requests, as pairs of a listener and a payload, that are under way until this is left."""
    tasks = [asyncio.create_task(pump.request(*request, timeout=None)) for request in requests]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.fixture
async def lasting_server(tmp_path):
    """A server that can be killed and started again on the same files and port."""
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.mark.parametrize("way", WAYS)
async def test_one_that_is_flooded_leaves_room_for_the_others(lasting_server, monkeypatch, way):
    monkeypatch.setattr(waiting, "MOST_UNDER_WAY", 3)
    async with among_others(lasting_server.url, way) as pump:
        link = pump.attachments[0].mesh.parts.link
        pump.listeners["out"].timeout = 60.0
        lasting_server.kill()
        await spin(lambda: not link.is_up)
        async with begun(pump, *(("out", Ask(f"m{number}")) for number in range(3))):
            await spin(lambda: link.waiting == 3)
            with pytest.raises(Overloaded) as refused:
                await pump.request("out", Ask("more"))
            assert refused.value.retry_allowed
            async with begun(pump, *((name, Ask("a")) for name in NAMES)):
                await spin(lambda: link.waiting == 6)
            assert await pump.request("echo", Ask("inside")) == Told("inside")
        await spin(lambda: link.waiting == 0)
        pump.listeners["out"].timeout = 0.1
        with pytest.raises(DeadlineExceeded):  # there is room again
            await pump.request("out", Ask("more"))


@pytest.mark.parametrize("way", WAYS)
async def test_only_so_much_waits_for_the_connection_in_all(lasting_server, monkeypatch, way):
    monkeypatch.setattr(waiting, "MOST_WAITING", 3)
    async with among_others(lasting_server.url, way) as pump:
        link = pump.attachments[0].mesh.parts.link
        lasting_server.kill()
        await spin(lambda: not link.is_up)
        async with begun(pump, *((name, Ask("a")) for name in NAMES)):
            await spin(lambda: link.waiting == 3)
            with pytest.raises(Overloaded):
                await pump.request("out", Ask("more"))
        assert under_way(pump).number == 0


@pytest.mark.parametrize("way", WAYS)
async def test_only_so_much_waits_for_a_server_that_stands_still(lasting_server, monkeypatch, way):
    monkeypatch.setattr(waiting, "MOST_UNDER_WAY", 3)
    async with among_others(lasting_server.url, way) as pump:
        with stopped(lasting_server), monkeypatch.context() as patch:
            patch.setattr(Link, "is_congested", way == "a publication")  # as where much was published already
            async with begun(pump, *(("out", Ask(f"m{number}")) for number in range(3))):
                await spin(lambda: under_way(pump).number == 3)
                with pytest.raises(Overloaded):
                    await pump.request("out", Ask("more"))
                assert pump.attachments[0].mesh.is_connected
            await spin(lambda: under_way(pump).number == 0)


async def test_a_stream_is_under_way_until_its_end(server, mesh, monkeypatch):
    monkeypatch.setattr(waiting, "MOST_UNDER_WAY", 1)
    gate = Gate()

    @mesh.agent(AgentSpec(name="demo.echo"))
    async def chunks(ask: dict) -> AsyncIterator[dict]:
        yield {"reply": "first"}
        await gate.pass_through(ask)
        yield {"reply": "last"}

    async with organism(server.url, **WAYS["a call"]) as pump:
        await until_names(pump.attachments[0].mesh, "demo.echo")
        async with contextlib.aclosing(pump.stream("out", Ask("a"))) as answers:
            assert await anext(answers) == Told("first")
            await gate.begun.get()
            with pytest.raises(Overloaded):
                await pump.request("out", Ask("b"))
            gate.go.set()
            assert [answer async for answer in answers] == [Told("last")]
        assert [answer async for answer in pump.stream("out", Ask("c"))] == [Told("first"), Told("last")]


@pytest.mark.parametrize("way", ["a put", "a publication"])
@pytest.mark.parametrize(("organism_says", "entry_says"), [(0.1, None), (60.0, 0.1)])
async def test_it_waits_as_long_as_the_entry_says_or_else_the_organism(lasting_server, way, organism_says, entry_says):
    section = {kind: [{**entry, "timeout": entry_says} for entry in entries] for kind, entries in WAYS[way].items()}
    async with organism(lasting_server.url, limits={"timeout": organism_says}, **section) as pump:
        assert pump.listeners["out"].timeout == 0.1
        lasting_server.kill()
        await spin(lambda: not pump.attachments[0].mesh.is_connected)
        with pytest.raises(DeadlineExceeded):
            await pump.request("out", Ask("one"), timeout=None)


async def test_what_waits_goes_out_when_the_server_is_back(lasting_server):
    async with organism(lasting_server.url, **WAYS["a put"]) as pump:
        mesh = pump.attachments[0].mesh
        lasting_server.kill()
        await spin(lambda: not mesh.is_connected)
        put = asyncio.create_task(pump.request("out", Ask("one"), timeout=None))
        await spin(lambda: mesh.parts.link.waiting)
        await lasting_server.wait()
        await lasting_server.stop()
        await lasting_server.start()
        with pytest.raises(NoAnswer, match="without an answer"):  # it is done, and answers nothing
            await put
        assert json.loads(await mesh.kv.get("out.one"))["message"] == "one"


async def test_events_are_not_sent_while_the_server_takes_nothing(server, peer, monkeypatch):
    tap = await Tap.on(peer, "mesh.pump.>")
    pump = organism(server.url, events=True)
    pump.register("echo", echo, Ask)
    congested = False
    monkeypatch.setattr(Link, "is_congested", property(lambda self: congested))
    async with pump:
        await tap.next()
        congested = True
        link = pump.attachments[0].mesh.parts.link
        await pump.request("echo", Ask("one"))
        await link.flush()
        await peer.flush()
        early = [tap.messages.get_nowait() for _ in range(tap.messages.qsize())]
        assert not any(b"<Message>one" in message.data for message in early)
        congested = False
        while b"<Message>one" not in (await tap.next()).data:
            pass


# -- a value that the server does not confirm


async def do_put(pump, message):
    with pytest.raises(NoAnswer, match="without an answer"):  # it is done, and answers nothing
        await pump.request("out", Ask(message), timeout=None)


async def test_a_put_that_is_not_confirmed_in_time_may_have_been_written_and_says_so(lasting_server, monkeypatch):
    monkeypatch.setattr(sink, "_MOMENT", 1.0)  # for a slow machine
    monkeypatch.setattr(sink, "_SHARE", 0.5)
    put = {"put": "out.{message}", "listener": "out", "payload_class": Ask, "timeout": 2.0}
    async with organism(lasting_server.url, kv=[put]) as pump:
        await do_put(pump, "before")
        with stopped(lasting_server):
            with pytest.raises(DeadlineExceeded) as caught:
                await pump.request("out", Ask("a"), timeout=None)
            assert caught.value.detail.startswith("the key 'out.a' of the mesh: timeout: out.a may have been written")
        mesh = pump.attachments[0].mesh
        async with contextlib.aclosing(mesh.kv.watch("out.a")) as values:
            assert json.loads(await anext(values)) == {"message": "a", "n": 1}  # which it was
        assert (await mesh.kv.entry("out.a")).revision == (await mesh.kv.entry("out.before")).revision + 1  # once


async def test_a_put_waits_for_its_confirmation_as_long_as_its_timeout_says(lasting_server):
    put = {"put": "out.{message}", "listener": "out", "payload_class": Ask, "timeout": 60.0}
    async with organism(lasting_server.url, kv=[put]) as pump:
        mesh = pump.attachments[0].mesh
        mesh.parts.jetstream._timeout = 0.05  # of all that says nothing else
        with stopped(lasting_server):
            async with asyncio.TaskGroup() as group:
                group.create_task(do_put(pump, "a"))
                await spin(lambda: under_way(pump).number)
                with pytest.raises(MeshTimeout):
                    await mesh.kv.get("out.a")
                os.kill(lasting_server.pid, signal.SIGCONT)
        mesh.parts.jetstream._timeout = 5.0
        assert json.loads(await mesh.kv.get("out.a")) == {"message": "a", "n": 1}


async def test_what_was_not_sent_does_not_say_that_it_may_have_been_written(lasting_server, monkeypatch):
    monkeypatch.setattr(sink, "_MOMENT", 1.0)
    monkeypatch.setattr(sink, "_SHARE", 0.5)
    put = {"put": "out.{message}", "listener": "out", "payload_class": Ask, "timeout": 2.0}
    async with organism(lasting_server.url, kv=[put]) as pump:
        lasting_server.kill()
        await spin(lambda: not pump.attachments[0].mesh.is_connected)
        with pytest.raises(DeadlineExceeded) as caught:
            await pump.request("out", Ask("a"), timeout=None)
        assert caught.value.detail == (
            "the key 'out.a' of the mesh: timeout: There was no connection to the mesh in time."
        )
