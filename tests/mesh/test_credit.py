"""Producers that are faster than their consumers, and consumers that are not there any more."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.mesh.kit import Tap, spin
from xml_pipeline.mesh import AgentMesh, AgentSpec, CallCancelled, MeshTimeout
from xml_pipeline.mesh import credit as credit_module
from xml_pipeline.mesh import outflow as outflow_module
from xml_pipeline.mesh.credit import MOST_BYTES, SPEAK_BYTES, WINDOW, Credit, Window
from xml_pipeline.mesh.outflow import Outflow
from xml_pipeline.mesh.protocol import Request


@dataclass
class Arrived:
    data: bytes
    subject: str = "x"
    reply: str = ""
    headers: dict[str, str] | None = None


class Wire:
    """What a window says, as its producer hears it."""

    def __init__(self) -> None:
        self.said: list[bytes] = []

    def publish_now(self, subject: str, body: bytes) -> None:
        assert subject == "mesh.credit.r"
        self.said.append(body)


# -- the numbers


@pytest.mark.parametrize("body", [b"", b"x", b"-5", b"1.5", b"\xff\xff", b"9" * 16, b"3", b"4", " ٣".encode()])
def test_what_says_nothing_changes_nothing(body):
    credit = Credit(4)
    credit.arrived(Arrived(body))
    assert credit.allowed == 4


def test_chunks_are_counted():
    credit = Credit(2)
    credit.sent(1)
    assert not credit.is_used_up
    credit.sent(1)
    assert credit.is_used_up
    credit.arrived(Arrived(b"3"))
    assert not credit.is_used_up


def test_bytes_are_counted_until_they_are_taken():
    credit = Credit(100)
    credit.sent(MOST_BYTES - 1)
    assert not credit.is_used_up
    credit.sent(1)
    assert credit.is_used_up
    credit.arrived(Arrived(b"101"))
    assert not credit.is_used_up


def test_who_allows_more_than_was_sent_is_taken_at_their_word():
    credit = Credit(1)
    credit.sent(5)
    credit.arrived(Arrived(b"1000000"))
    credit.sent(MOST_BYTES)
    assert credit.is_used_up


@given(st.lists(st.integers(1, 2 << 20), min_size=1, max_size=4000), st.randoms(use_true_random=False))
def test_whatever_the_chunks_both_go_on(sizes, random):
    """Neither side ever waits for the other while both could do something, and little is on the way."""

    async def run():
        wire = Wire()
        credit, window = Credit(WINDOW), Window(wire, "r")
        sent = taken = 0
        while taken < len(sizes):
            may_send = sent < len(sizes) and not credit.is_used_up
            may_take = taken < sent
            assert may_send or may_take, "both wait"
            if may_send and (not may_take or random.random() < 0.7):
                credit.sent(sizes[sent])
                sent += 1
                assert sum(sizes[taken:sent]) < MOST_BYTES + sizes[sent - 1]
                assert sent - taken <= WINDOW
            else:
                window.took(sizes[taken])
                taken += 1
                while wire.said:
                    credit.arrived(Arrived(wire.said.pop(0)))

    asyncio.run(run())


async def test_a_slow_consumer_speaks_now_and_then(monkeypatch):
    wire = Wire()
    window = Window(wire, "r")
    window.took(1)
    assert wire.said == []
    window._spoke -= 10.0
    window.took(1)
    assert wire.said == [b"%d" % (WINDOW + 2)]
    window.took(SPEAK_BYTES)
    assert wire.said[1:] == [b"%d" % (WINDOW + 3)]


# -- end to end


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="measures the memory of this process")
async def test_a_consumer_that_stalls_costs_little_and_loses_nothing(server, mesh, peer, hosting):
    async with hosting(server.url):
        frames = await Tap.on(peer, "mesh.stream.>")
        chunks = mesh.stream("a.chunks", 500_000)
        assert len(await anext(chunks)) == 500_000
        before = resident()
        on_the_way = 0
        while (frame := await frames.next()).data:  # one without a body: the producer waits
            on_the_way += len(frame.data)
            del frame
        assert on_the_way < 40 << 20
        assert resident() - before < 150 << 20
        for _ in range(300):
            assert len(await anext(chunks)) == 500_000
        await chunks.aclose()


def endless_on(mesh: AgentMesh, **spec: object) -> tuple[list[int], asyncio.Event]:
    produced: list[int] = []
    stopped = asyncio.Event()

    @mesh.agent(AgentSpec(name="a.endless", **spec))  # type: ignore[arg-type]
    async def endless(pause: float) -> AsyncIterator[int]:
        try:
            while True:
                produced.append(1)
                yield len(produced)
                if pause:
                    await asyncio.sleep(pause)
        finally:
            stopped.set()

    return produced, stopped


async def ask(peer, pause: float, credit: int | None = None, request_id: str = "rid-1") -> None:
    headers = {"X-Mesh-Request-Id": request_id, "X-Mesh-Stream": "true"}
    if credit is not None:
        headers["X-Mesh-Credit"] = str(credit)
    await peer.publish("mesh.agent.a.endless", b"%g" % pause, headers=headers)
    await peer.flush()


async def chunks_of(frames: Tap, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        if (frame := await frames.next()).data:
            found.append(frame.data)
    return found


async def test_the_producer_sends_what_it_has_credit_for(host, peer):
    produced, stopped = endless_on(host)
    async with host:
        frames = await Tap.on(peer, "mesh.stream.rid-1")
        await ask(peer, 0, credit=3)
        assert await chunks_of(frames, 3) == [b"1", b"2", b"3"]
        assert (await frames.next()).data == b"", "it asks whether anybody is there"
        assert len(produced) == 4, "one is ready, and not more"
        await peer.publish("mesh.credit.rid-1", b"5")
        assert await chunks_of(frames, 2) == [b"4", b"5"]
        assert (await frames.next()).data == b""
        await peer.publish("mesh.cancel.rid-1", b"")
        await asyncio.wait_for(stopped.wait(), 10)


async def test_a_consumer_of_ours_that_leaves_while_the_producer_waits(host, mesh):
    produced, stopped = endless_on(host)
    async with host:
        chunks = mesh.stream("a.endless", 0)
        await anext(chunks)
        await spin(lambda: len(produced) > WINDOW)
        await chunks.aclose()
        await asyncio.wait_for(stopped.wait(), 10)
        assert len(produced) == WINDOW + 1


async def test_a_plain_consumer_that_leaves_stops_the_producer(host, peer):
    """It says nothing, but the server does."""
    _, stopped = endless_on(host)
    async with host:
        gone = asyncio.Event()

        async def take(message):
            gone.set()

        subscription = await peer.subscribe("mesh.stream.rid-1", cb=take)
        errors = await Tap.on(peer, "mesh.errors.a.endless")
        await ask(peer, 0.001)
        await asyncio.wait_for(gone.wait(), 10)
        await subscription.unsubscribe()
        await asyncio.wait_for(stopped.wait(), 10)
        assert b'"cancelled"' in (await errors.next()).data


async def test_a_consumer_that_dies_while_the_producer_waits_stops_it(host, peer):
    _, stopped = endless_on(host)
    async with host:
        frames = await Tap.on(peer, "mesh.stream.rid-1")
        await ask(peer, 0, credit=1)
        await chunks_of(frames, 1)
        await frames.next()
        await peer.close()
        await asyncio.wait_for(stopped.wait(), 10)


async def test_a_consumer_that_takes_nothing_is_given_up(host, peer, monkeypatch):
    monkeypatch.setattr(outflow_module.Outflow.__init__, "__defaults__", (0.1,))
    _, stopped = endless_on(host)
    async with host:
        frames = await Tap.on(peer, "mesh.stream.rid-1")
        await ask(peer, 0, credit=1)
        await chunks_of(frames, 1)
        await asyncio.wait_for(stopped.wait(), 10)
        while (last := await frames.next()).headers.get("X-Mesh-Status") != "error":
            pass
        assert b'"timeout"' in last.data


async def test_streams_that_wait_leave_their_slots_to_others(host, peer, mesh):
    endless_on(host, max_concurrency=1)
    async with host:
        frames = await Tap.on(peer, "mesh.stream.rid-1")
        await ask(peer, 0, credit=1)
        await chunks_of(frames, 1)
        chunks = mesh.stream("a.endless", 0)
        assert await asyncio.wait_for(anext(chunks), 10)
        await chunks.aclose()
        await peer.publish("mesh.credit.rid-1", b"2")
        assert await chunks_of(frames, 1)
        await peer.publish("mesh.cancel.rid-1", b"")


async def test_a_consumer_that_speaks_of_something_else_is_not_heard(host, mesh, peer):
    produced, _ = endless_on(host)
    async with host:
        frames = await Tap.on(peer, "mesh.stream.rid-1")
        await ask(peer, 0, credit=2)
        await chunks_of(frames, 2)
        for body in (b"", b"all", b"1", b"\xff", b"9" * 100):
            await peer.publish("mesh.credit.rid-1", body)
        await peer.publish("mesh.credit.rid-2", b"100")
        await peer.publish("mesh.credit.rid-1", b"3")
        assert await chunks_of(frames, 1) == [b"3"]
        assert (await frames.next()).data == b""
        assert len(produced) == 4
        await peer.publish("mesh.cancel.rid-1", b"")


async def test_nothing_of_a_stream_is_left_behind(host, mesh):
    _, stopped = endless_on(host)
    async with host:
        subscriptions = len(host.parts.link._subscriptions)
        chunks = mesh.stream("a.endless", 0)
        for _ in range(3 * WINDOW):
            await anext(chunks)
        assert len(host.parts.link._subscriptions) == subscriptions + 1
        await chunks.aclose()
        await asyncio.wait_for(stopped.wait(), 10)
        await spin(lambda: len(host.parts.link._subscriptions) == subscriptions)
        assert not host.parts.replies._expected
        assert not mesh.parts.replies._expected


async def test_an_outflow_says_why_it_stops(mesh):
    parts = mesh.parts
    request = Request("rid-9", True, credit=1)
    with pytest.raises(CallCancelled, match="Nobody listens"):
        async with Outflow(parts.link, parts.replies, request, "me") as outflow:
            await outflow.send(b"1")
            await outflow.send(b"2")
    subscription = await parts.link.subscribe("mesh.stream.rid-9", lambda message: None)
    with pytest.raises(MeshTimeout, match="took nothing"):
        async with Outflow(parts.link, parts.replies, request, "me", patience=0.05) as outflow:
            await outflow.send(b"1")
            await outflow.send(b"2")
    await subscription.close()


def test_a_window_speaks_before_its_producer_has_to_wait():
    assert credit_module.SPEAK_CHUNKS * 2 <= WINDOW
    assert SPEAK_BYTES * 2 <= MOST_BYTES
