"""What subscriptions miss, and how they say so."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.mesh.kit import plain_peer, spin
from xml_pipeline.mesh import AgentMesh, Gap
from xml_pipeline.mesh.gap import Continuity
from xml_pipeline.mesh.protocol import Frame, FrameKind


class Arrived:
    """A message, as far as it matters here."""

    def __init__(self, frame: Frame, subject: str = "s", body: bytes = b"1") -> None:
        self.subject, self.reply = subject, ""
        self.data = body if frame.kind is FrameKind.CHUNK else b""
        self.headers = frame.to_headers()


def event(seq: int, host: str = "h", kind: FrameKind = FrameKind.CHUNK) -> Arrived:
    return Arrived(Frame(kind, seq, instance_id=host))


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=40), st.lists(st.integers(0, 5), min_size=3))
def test_what_is_missing_is_counted(steps, begin):
    """Several hosts of one publisher count on their own; from the first that is seen, what is lost is found."""
    gaps: list[Gap] = []
    continuity = Continuity("s", gaps.append)
    numbers, lost, expected = begin[:3], [0, 0, 0], 0
    seen = [False, False, False]
    for host, arrives in steps:
        if arrives:
            continuity.see(event(numbers[host], str(host)))
            expected += lost[host]
            lost[host], seen[host] = 0, True
        elif seen[host]:
            lost[host] += 1
        numbers[host] += 1
    assert sum(gap.missed or 0 for gap in gaps) == expected
    assert all(gap.missed for gap in gaps)


def test_the_end_says_how_many_there_were():
    gaps: list[Gap] = []
    continuity = Continuity("s", gaps.append)
    continuity.see(event(0))
    continuity.see(event(3, kind=FrameKind.END))
    assert gaps == [Gap("s", 2, "h")]
    continuity.see(event(7))  # it was started again, and somebody else has seen the beginning
    assert len(gaps) == 1


def test_a_publisher_that_begins_again_has_lost_nothing():
    gaps: list[Gap] = []
    continuity = Continuity("s", gaps.append)
    for seq in (5, 6, 0, 1):
        continuity.see(event(seq))
    assert gaps == []


def test_without_a_host_or_a_number_nothing_is_known():
    gaps: list[Gap] = []
    continuity = Continuity("s", gaps.append)
    for seq in (0, 5, -1, 9):
        continuity.see(event(seq, ""))
    continuity.see(event(-1))
    assert gaps == []


def test_publishers_that_are_not_heard_of_any_more_are_forgotten():
    continuity = Continuity("s", lambda _: None)
    for number in range(10_000):
        continuity.see(event(0, str(number)))
    assert len(continuity._next) <= 4096
    assert ("s", "9999") in continuity._next


async def publish(client, seq: int) -> None:
    headers = Frame(FrameKind.CHUNK, seq, instance_id="h").to_headers()
    await client.publish("mesh.agent.a.ticks.events", str(seq).encode(), headers=headers)


async def subscribed(mesh: AgentMesh) -> None:
    link = mesh.parts.link
    await spin(lambda: any(one.subject.endswith(".events") for one in link._subscriptions))
    await link.flush()


async def test_events_that_are_missing_are_told_before_the_next(mesh, peer):
    told: list = []
    events = mesh.subscribe(subject="mesh.agent.a.ticks.events", on_gap=told.append)

    async def read() -> None:
        async for number in events:
            told.append(number)
            if number == 5:
                break

    reader = asyncio.create_task(read())
    await subscribed(mesh)
    for seq in (3, 4, 7, 5):
        await publish(peer, seq)
    await asyncio.wait_for(reader, 10)
    assert told == [3, 4, Gap("mesh.agent.a.ticks.events", 2, "h"), 7, 5]


async def test_without_a_callback_the_first_gap_is_logged(mesh, peer, caplog):
    events = mesh.subscribe(subject="mesh.agent.a.ticks.events")
    first = asyncio.create_task(anext(events))
    await subscribed(mesh)
    for seq in (0, 2, 9):
        await publish(peer, seq)
    assert [await first, await anext(events), await anext(events)] == [0, 2, 9]
    await events.aclose()
    warnings = [record.getMessage() for record in caplog.records if record.name.endswith("event_feed")]
    assert warnings == ["1 events of mesh.agent.a.ticks.events were missed"]


async def test_a_lost_connection_is_a_gap_at_once_though_nothing_comes(lasting_server):
    async with AgentMesh(lasting_server.url, drain_timeout=1.0) as mesh:
        gaps: asyncio.Queue[Gap] = asyncio.Queue()
        events = mesh.subscribe(subject="prices.*", on_gap=gaps.put_nowait)
        first = asyncio.create_task(anext(events))
        await spin(lambda: any(one.subject == "prices.*" for one in mesh.parts.link._subscriptions))
        lasting_server.kill()
        await lasting_server.wait()
        await lasting_server.stop()
        await lasting_server.start()
        assert await asyncio.wait_for(gaps.get(), 20) == Gap("prices.*", None)
        # From now on nothing is missed: what is read now is what there is.
        async with plain_peer(lasting_server.url) as client:
            await client.publish("prices.gold", b"7")
            assert await asyncio.wait_for(first, 10) == 7
        await events.aclose()
        assert gaps.empty()


async def test_a_callback_that_fails_does_not_end_the_loop(mesh, peer, caplog):
    def on_gap(gap: Gap) -> None:
        raise ValueError("in the callback")

    events = mesh.subscribe(subject="mesh.agent.a.ticks.events", on_gap=on_gap)
    first = asyncio.create_task(anext(events))
    await subscribed(mesh)
    for seq in (0, 2):
        await publish(peer, seq)
    assert [await first, await anext(events)] == [0, 2]
    await events.aclose()
    assert "in the callback" in caplog.text


async def test_a_callback_is_a_plain_function(mesh):
    async def on_gap(gap: Gap) -> None:
        """Never called."""

    with pytest.raises(TypeError, match="plain function"):
        await anext(mesh.subscribe(subject="x", on_gap=on_gap))


async def test_nothing_stays_behind_when_the_loop_is_left(mesh):
    before = list(mesh.parts.link.on_restored)
    events = mesh.subscribe(subject="x")
    first = asyncio.create_task(anext(events))
    await spin(lambda: mesh.parts.link.on_restored != before)
    first.cancel()
    await asyncio.wait([first])
    await events.aclose()
    assert mesh.parts.link.on_restored == before
