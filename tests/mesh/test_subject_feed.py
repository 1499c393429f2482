"""Agents that are called by messages."""

from __future__ import annotations

import asyncio
import json

from hypothesis import given
from hypothesis import strategies as st

from tests.mesh.kit import Gate, Tap, plain_peer, spin
from tests.mesh.reacting import NAME, Doc, bounce, message, reacting
from tests.mesh.secured import ConfiguredServer
from xml_pipeline.mesh import (
    AgentMesh,
    AgentSpec,
    ConnectionDenied,
    MeshMessage,
)
from xml_pipeline.mesh.subject_feed import SubjectFeed
from xml_pipeline.mesh.subjects import errors_subject


async def test_messages_of_any_client_in_order(host, peer):
    values = reacting(host, bytes, host.subject_source("sensor.>"), name="a.values")
    messages = reacting(host, MeshMessage[Doc], host.subject_source("sensor.*"), name="a.messages")
    async with host:
        for number in range(50):
            await peer.publish(f"sensor.{number}", b'{"id": %d}' % number, headers={"x-own": "a b"})
        await peer.publish("sensor.a.b", b"\xff\x00")
        assert await values.some(51) == [b'{"id": %d}' % number for number in range(50)] + [b"\xff\x00"]
        assert await messages.some(50) == [
            MeshMessage(f"sensor.{number}", {"x-own": "a b"}, Doc(id=number)) for number in range(50)
        ]


async def test_what_a_mesh_publishes_comes_with_its_headers(host, mesh):
    seen = reacting(host, MeshMessage[Doc], host.subject_source("s"))
    async with host:
        await mesh.publish("s", Doc(id=1))
        found = await seen.next()
        assert found.payload == Doc(id=1)
        assert found.headers["X-Mesh-Instance-Id"] == mesh.instance_id
        assert found.headers["X-Mesh-Content-Type"] == "application/json"


async def test_a_group_shares_and_others_get_everything(server, peer):
    async with AgentMesh(server.url) as one, AgentMesh(server.url) as other:
        shared = [reacting(one_of, bytes, one_of.subject_source("s", queue_group="g")) for one_of in (one, other)]
        alone = [reacting(one_of, bytes, one_of.subject_source("s"), name="a.each") for one_of in (one, other)]
        for member in (one, other):
            await member.catalog()
        bodies = [b"%d" % number for number in range(40)]
        for body in bodies:
            await peer.publish("s", body)
        for seen in alone:
            assert await seen.some(40) == bodies
        await spin(lambda: sum(seen.values.qsize() for seen in shared) >= 40)
        found = [body for seen in shared for body in await seen.some(seen.values.qsize())]
        assert sorted(found) == sorted(bodies)


async def test_who_falls_behind_gets_the_newest_and_nobody_is_disconnected(host, peer, caplog):
    gate, found = Gate(), []

    @host.agent(AgentSpec(name=NAME), sources=[host.subject_source("s", max_waiting=10)])
    async def react(body: bytes) -> None:
        await gate.pass_through(body)
        found.append(int(body))

    async with host:
        await peer.publish("s", b"0")
        await gate.begun.get()
        for number in range(1, 301):
            await peer.publish("s", b"%d" % number)
        await peer.flush()
        await host.parts.link.flush()
        await spin(lambda: host.parts.reactions.statistics(NAME)[0].dropped == 290)
        gate.go.set()
        await spin(lambda: len(found) == 11)
        assert found == [0, *range(291, 301)]
        await spin(lambda: "290 messages of s were dropped" in caplog.text)
        assert host.parts.link.losses == 0
    assert caplog.text.count("the oldest are dropped") == 1


@given(st.lists(st.one_of(st.binary(max_size=8), st.none()), max_size=60), st.integers(1, 5), st.integers(1, 20))
def test_a_feed_keeps_the_newest_in_order_within_its_bounds(steps, most, most_bytes):
    """``None`` takes one. Whatever comes, what is taken and what is left is a subsequence that ends with the newest."""
    feed = SubjectFeed(None, "s", most=most, most_bytes=most_bytes)  # type: ignore[arg-type]
    waiting: list[bytes] = []
    dropped = 0

    async def run() -> None:
        nonlocal dropped
        for step in steps:
            if step is not None:
                feed.put(message(step))
                waiting.append(step)
                while len(waiting) > 1 and (len(waiting) > most or sum(map(len, waiting)) > most_bytes):
                    waiting.pop(0)
                    dropped += 1
            elif waiting:
                taken = await feed.next()
                assert taken is not None
                assert taken.data == waiting.pop(0)
            assert (len(feed), feed.dropped) == (len(waiting), dropped)

    asyncio.run(run())


PERMISSIONS = """
authorization {
  users = [
    {user: host, password: pw, permissions: {publish: ">", subscribe: {deny: "secret"}}}
    {user: peer, password: pw}
  ]
}
"""


async def test_a_subject_that_is_not_permitted_is_said(caplog):
    async with (
        ConfiguredServer(PERMISSIONS) as server,
        plain_peer(server.url_of("peer")) as peer,
        AgentMesh(server.url_of("host")) as host,
    ):
        errors = await Tap.on(peer, errors_subject(NAME))
        reacting(host, bytes, host.subject_source("secret"))
        seen = reacting(host, bytes, host.subject_source("open"), name="a.permitted")
        told = json.loads((await errors.next()).data)
        details = {"operation": "subscription", "subject": "secret", "source": "subject secret"}
        assert (told["code"], told["details"]) == ("connection_denied", details)
        await host.catalog()
        await peer.publish("open", b"x")
        assert await seen.next() == b"x"
    assert "gets nothing from its source (subject secret)" in caplog.text


async def test_a_subject_that_is_permitted_later_is_heard_then(host, peer):
    seen = reacting(host, bytes, host.subject_source("secret"))
    async with host:
        runner = host.parts.reactions._running[NAME][0]
        first = runner._feed
        for subject, operation in (("secret", "publish"), ("other", "subscription")):
            denied = ConnectionDenied("no", details={"operation": operation, "subject": subject})
            host.parts.link._denied(subject, denied)
            await host.parts.link.flush()
            assert runner._feed is first  # it was not about this
        host.parts.link._denied("secret", ConnectionDenied("no", details={"operation": "subscription"}))
        await spin(lambda: runner._feed not in (None, first) and runner._feed._subscription is not None)
        await host.parts.link.flush()
        await peer.publish("secret", b"now it is")
        assert await seen.next() == b"now it is"


async def test_a_subject_is_heard_again_after_a_crash(lasting_server):
    async with AgentMesh(lasting_server.url) as host:
        seen = reacting(host, bytes, host.subject_source("s"))
        await host.publish("s", b"1")
        assert await seen.next() == b"1"
        await bounce(lasting_server)
        await host.parts.link.wait_up(30)
        await host.publish("s", b"2")
        assert await seen.next() == b"2"
