"""What is to go out while the server is away, or takes nothing."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.bridge.kit import Ask, Told, echo, organism
from tests.mesh.kit import Tap, spin
from xml_pipeline.bridge import waiting
from xml_pipeline.errors import DeadlineExceeded, NoAnswer, Overloaded
from xml_pipeline.mesh import EmbeddedServer
from xml_pipeline.mesh.link import Link

WAYS = {
    "a call": {"agents": [{"name": "demo.echo", "as": "out", "payload_class": Ask, "output_class": Told}]},
    "a put": {"kv": [{"put": "out.{message}", "listener": "out", "payload_class": Ask}]},
    "a publication": {"subjects": [{"publish": "out.{message}", "listener": "out", "payload_class": Ask}]},
}


@pytest.fixture
async def lasting_server(tmp_path):
    """A server that can be killed and started again on the same files and port."""
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.mark.parametrize("way", WAYS)
async def test_only_so_much_waits_for_the_connection(lasting_server, monkeypatch, way):
    monkeypatch.setattr(waiting, "MOST_WAITING", 3)
    async with organism(lasting_server.url, **WAYS[way]) as pump:
        link = pump.attachments[0].mesh.parts.link
        pump.listeners["out"].timeout = 60.0
        lasting_server.kill()
        await spin(lambda: not link.is_up)
        first = [asyncio.create_task(pump.request("out", Ask(f"m{number}"), timeout=None)) for number in range(3)]
        await spin(lambda: link.waiting == 3)
        with pytest.raises(Overloaded) as refused:
            await pump.request("out", Ask("more"))
        assert refused.value.retry_allowed
        for task in first:
            task.cancel()
        await asyncio.wait(first)
        await spin(lambda: link.waiting == 0)
        pump.listeners["out"].timeout = 0.1
        with pytest.raises(DeadlineExceeded):  # there is room again
            await pump.request("out", Ask("more"))


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
