"""Subjects whose messages are kept until they are done."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from tests.bridge.clerk import Clerk, Order, order, taking, until_none_is_pending
from tests.bridge.kit import organism
from tests.mesh.kit import Tap, spin
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.bridge import subject_durable
from xml_pipeline.mesh.errors import StorageError
from xml_pipeline.mesh.jetstream import JetStream
from xml_pipeline.message_bus.gateway import Gateway


@pytest.fixture
def clerk():
    return Clerk()


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(subject_durable, "_FIRST_DELAY", 0.01)


async def test_each_is_handled_and_then_no_more(server, peer, clerk):
    clerk.go.set()
    async with taking(server.url, clerk):
        for number in range(20):
            await order(peer, number)
        await spin(lambda: len(clerk.done) == 20)
        await until_none_is_pending(peer)
    assert sorted(clerk.done) == list(range(20))


async def test_what_is_published_while_nobody_runs_is_kept(server, peer, clerk):
    clerk.go.set()
    async with taking(server.url, clerk):
        pass
    await order(peer, 7)
    async with taking(server.url, clerk):
        assert await clerk.taken.get() == 7


async def test_what_is_confirmed_before_there_is_a_consumer_is_not_lost(server, peer, clerk, monkeypatch):
    """The stream is made first, and whoever publishes does not wait for the consumer."""
    clerk.go.set()
    api = JetStream.api

    async def api_with_a_message_before(self, subject, body=None):
        if subject == "CONSUMER.CREATE.mesh-clerk.clerk":
            await order(peer, 5)
        return await api(self, subject, body)

    monkeypatch.setattr(JetStream, "api", api_with_a_message_before)
    async with taking(server.url, clerk):
        assert await clerk.taken.get() == 5
        await until_none_is_pending(peer)
        stream = json.loads((await peer.request("$JS.API.STREAM.INFO.mesh-clerk", b"")).data)
        assert stream["config"]["retention"] == "interest"
        while stream["state"]["messages"]:  # what is handled is not kept
            await asyncio.sleep(0.01)
            stream = json.loads((await peer.request("$JS.API.STREAM.INFO.mesh-clerk", b"")).data)


async def test_a_stream_that_may_not_be_changed_keeps_more_and_that_is_said(server, peer, clerk, monkeypatch, caplog):
    clerk.go.set()
    api = JetStream.api

    async def api_that_refuses(self, subject, body=None):
        if subject.startswith("STREAM.UPDATE."):
            raise StorageError("not permitted")
        return await api(self, subject, body)

    monkeypatch.setattr(JetStream, "api", api_that_refuses)
    async with taking(server.url, clerk):
        await order(peer, 6)
        assert await clerk.taken.get() == 6
    assert "mesh-clerk keeps everything for ever, until its retention is set to interest: not permitted" in caplog.text
    monkeypatch.undo()
    async with taking(server.url, clerk):
        stream = json.loads((await peer.request("$JS.API.STREAM.INFO.mesh-clerk", b"")).data)
        assert stream["config"]["retention"] == "interest"
    assert clerk.done == [6]


async def test_what_was_not_done_is_done_by_another(server, peer, clerk):
    pump = taking(server.url, clerk)
    async with pump:
        await order(peer, 1)
        await clerk.taken.get()
        await pump.shutdown(0.0)
    assert clerk.done == []
    clerk.go.set()
    async with taking(server.url, clerk):
        await spin(lambda: clerk.done == [1])


async def test_nodes_share_the_messages(server, peer, clerk):
    clerk.go.set()
    async with taking(server.url, clerk), taking(server.url, clerk):
        for number in range(20):
            await order(peer, number)
        await until_none_is_pending(peer)
    assert sorted(clerk.done) == list(range(20))


async def test_what_comes_again_while_it_is_under_way_is_not_begun_twice(server, peer, clerk):
    async with taking(server.url, clerk) as pump:
        await order(peer, 1)
        await clerk.taken.get()
        held = pump.attachments[0]._parts[0][1]._durable._held
        (delivery,) = held.values()
        await peer.publish(delivery.message.reply, b"-NAK")  # as if we had been silent for too long
        await spin(lambda: next(iter(held.values())).times == 2)
        clerk.go.set()
        await until_none_is_pending(peer)
        assert clerk.done == [1]
        assert clerk.taken.empty()


async def test_no_more_are_under_way_than_may_be(server, peer, clerk):
    async with taking(server.url, clerk, max_in_flight=3):
        for number in range(10):
            await order(peer, number)
        for _ in range(3):
            await clerk.taken.get()
        info = json.loads((await peer.request("$JS.API.CONSUMER.INFO.mesh-clerk.clerk", b"")).data)
        assert info["num_ack_pending"] == 3
        clerk.go.set()
        await spin(lambda: len(clerk.done) == 10)


@pytest.mark.usefixtures("quickly")
async def test_what_fails_is_tried_again_and_then_buried(server, peer, clerk):
    clerk.go.set()
    clerk.fails.add(1)
    tap = await Tap.on(peer, "mesh.dead.clerk")
    async with taking(server.url, clerk, max_deliver=3) as pump:
        await order(peer, 1)
        letter = await tap.next()
        assert [await clerk.taken.get() for _ in range(3)] == [1, 1, 1]
        assert json.loads(letter.data) == {"number": 1}
        assert letter.headers["X-Mesh-Dead-Reason"] == "handler"
        assert letter.headers["X-Mesh-Dead-Attempts"] == "3"
        await until_none_is_pending(peer)
        (kept,) = pump.dead_letters.list()
        assert (kept.wire, kept.target) == (b'{"number": 1}', "clerk")


@pytest.mark.usefixtures("quickly")
async def test_what_fails_once_is_done_the_second_time(server, peer, clerk):
    clerk.go.set()
    clerk.fails.add(1)
    async with taking(server.url, clerk) as pump:
        await order(peer, 1)
        await clerk.taken.get()
        clerk.fails.clear()
        await spin(lambda: clerk.done == [1])
        await until_none_is_pending(peer)
        assert pump.dead_letters.list() == []


@pytest.mark.usefixtures("quickly")
async def test_what_is_cancelled_is_tried_as_often_as_what_fails(server, peer):
    taken = []

    async def take(order: Order, metadata: HandlerMetadata) -> None:
        taken.append(order.number)
        pump.cancel(metadata.thread_id)
        await asyncio.Event().wait()

    tap = await Tap.on(peer, "mesh.dead.clerk")
    said = {"subscribe": "orders.new", "to": "clerk", "payload_class": Order, "durable": "clerk", "max_deliver": 2}
    pump = organism(server.url, subjects=[said])
    pump.register("clerk", take, Order)
    async with pump:
        await order(peer, 1)
        letter = await tap.next()
        assert letter.headers["X-Mesh-Dead-Reason"] == "cancelled"
        assert taken == [1, 1]
        await until_none_is_pending(peer)


async def test_what_is_no_payload_is_buried_at_once(server, peer, clerk):
    tap = await Tap.on(peer, "dead.orders")
    async with taking(server.url, clerk, dead_letters="dead.orders"):
        await peer.request("orders.new", b"{")
        letter = await tap.next()
        assert (letter.data, letter.headers["X-Mesh-Dead-Attempts"]) == (b"{", "1")
        await until_none_is_pending(peer)
    assert clerk.taken.empty()


async def test_what_breaks_us_is_tried_as_often_as_what_fails(server, peer, clerk, quickly, monkeypatch, caplog):
    clerk.go.set()
    tap = await Tap.on(peer, "mesh.dead.clerk")
    async with taking(server.url, clerk, max_deliver=3) as pump:

        async def follow(arrival):
            if arrival.payload.number == 1:
                raise TypeError("a mistake of ours")
            await Gateway.follow(pump.engine.gateway, arrival)

        monkeypatch.setattr(pump.engine.gateway, "follow", follow)
        await order(peer, 1)
        await order(peer, 2)
        letter = await tap.next()
        assert (letter.headers["X-Mesh-Dead-Reason"], letter.headers["X-Mesh-Dead-Attempts"]) == ("handler", "3")
        await until_none_is_pending(peer)
        (kept,) = pump.dead_letters.list()
        assert "a mistake of ours" in kept.detail
    assert clerk.done == [2]
    assert len([each for each in caplog.records if each.exc_info]) == 3


# -- changed entries ---------------------------------------------------------------------------------------------------


async def follows(peer, clerk, stream, subject, number):
    assert await order(peer, number, subject) == stream
    await spin(lambda: number in clerk.done)
    await until_none_is_pending(peer, stream)


@pytest.mark.parametrize(
    ("pattern", "subject"),
    [("orders.urgent", "orders.urgent"), ("orders.*", "orders.old"), ("orders.>", "orders.a.b"), ("o.{number}", "o.x")],
)
async def test_the_same_name_may_follow_another_subject(server, peer, clerk, pattern, subject):
    clerk.go.set()
    async with taking(server.url, clerk):
        await follows(peer, clerk, "mesh-clerk", "orders.new", 1)
    async with taking(server.url, clerk, subscribe=pattern):
        await follows(peer, clerk, "mesh-clerk", subject, 2)
    async with taking(server.url, clerk):  # and back
        await follows(peer, clerk, "mesh-clerk", "orders.new", 3)
    assert clerk.done == [1, 2, 3]


async def test_the_same_name_may_follow_another_subject_of_a_stream_that_is_there(server, peer, clerk):
    clerk.go.set()
    await peer.jetstream().add_stream(name="ORDERS", subjects=["orders.>"])
    async with taking(server.url, clerk):
        await follows(peer, clerk, "ORDERS", "orders.new", 1)
    async with taking(server.url, clerk, subscribe="orders.urgent", ack_wait=7):
        await follows(peer, clerk, "ORDERS", "orders.urgent", 2)
        found = json.loads((await peer.request("$JS.API.CONSUMER.INFO.ORDERS.clerk", b"")).data)["config"]
        assert (found["filter_subject"], found["ack_wait"]) == ("orders.urgent", 7_000_000_000)
    stream = json.loads((await peer.request("$JS.API.STREAM.INFO.ORDERS", b"")).data)
    assert stream["config"]["subjects"] == ["orders.>"]


async def test_a_consumer_that_filters_nothing_stays_so(server, peer, clerk):
    clerk.go.set()
    js = peer.jetstream()
    await js.add_stream(name="ORDERS", subjects=["orders.>"])
    await js.add_consumer("ORDERS", durable_name="clerk", ack_policy="explicit")
    async with taking(server.url, clerk, max_deliver=1, stream="ORDERS"):
        await order(peer, 1)
        await until_none_is_pending(peer, "ORDERS")
        found = json.loads((await peer.request("$JS.API.CONSUMER.INFO.ORDERS.clerk", b"")).data)["config"]
        assert "filter_subject" not in found
    assert clerk.done == [1]


# -- no echo -----------------------------------------------------------------------------------------------------------

OUT = {"publish": "orders.new", "listener": "out", "payload_class": Order}


def echoing(url, clerk, name="org", **entry):
    """Publishes what it takes."""
    said = {"subscribe": "orders.new", "to": "clerk", "payload_class": Order, "durable": "clerk", **entry}
    pump = organism(url, name, subjects=[said, OUT])
    pump.register("clerk", clerk.take, Order)
    return pump


async def test_what_the_organism_publishes_is_acknowledged_and_not_handled(server, peer, clerk):
    clerk.go.set()
    other = Clerk()
    other.go.set()
    async with (
        echoing(server.url, clerk) as pump,
        echoing(server.url, clerk),
        echoing(server.url, other, "other", durable="other"),
    ):
        for number in range(10):
            await pump.inject("out", Order(number))
        await pump.wait_idle()
        await pump.attachments[0].mesh.parts.link.flush(5.0)
        await order(peer, 99)
        await spin(lambda: len(other.done) == 11)
        await until_none_is_pending(peer)
    assert clerk.done == [99]
    assert sorted(other.done) == [*range(10), 99]


async def test_with_echo_it_is_handled(server, peer, clerk):
    clerk.go.set()
    async with echoing(server.url, clerk, echo=True) as pump:
        await pump.inject("out", Order(1))
        assert await clerk.taken.get() == 1
        await until_none_is_pending(peer)


ROUNDS = 5


@pytest.mark.parametrize(("is_wanted", "rounds"), [(True, ROUNDS), (False, 1)])
async def test_what_is_published_in_answer_goes_round_only_where_that_is_wanted(server, peer, is_wanted, rounds):
    seen = []

    async def raise_it(order: Order, metadata: HandlerMetadata) -> HandlerResponse | None:
        seen.append(order.number)
        return HandlerResponse(Order(order.number + 1), "out") if order.number < ROUNDS else None

    said = {"subscribe": "orders.new", "to": "raise", "payload_class": Order, "durable": "clerk", "echo": is_wanted}
    pump = organism(server.url, subjects=[said, OUT])
    pump.register("raise", raise_it, Order)
    async with pump:
        tap = await Tap.on(peer, "orders.new")
        await order(peer, 1)
        for _ in range(ROUNDS if is_wanted else 2):
            await tap.next()
        await until_none_is_pending(peer)
        assert sorted(seen) == list(range(1, rounds + 1))


@pytest.mark.usefixtures("quickly")
async def test_nor_does_what_it_gives_up_come_back(server, peer, clerk):
    clerk.go.set()
    clerk.fails.add(1)
    tap = await Tap.on(peer, "orders.dead")
    config = {"name": "ALL", "subjects": ["orders.>"], "storage": "memory"}
    await peer.request("$JS.API.STREAM.CREATE.ALL", json.dumps(config).encode())
    async with taking(server.url, clerk, subscribe="orders.*", dead_letters="orders.dead", max_deliver=1) as pump:
        await order(peer, 1)
        await tap.next()
        await order(peer, 2)
        await spin(lambda: clerk.done == [2])
        await until_none_is_pending(peer, "ALL")
        assert clerk.taken.qsize() == 2
        assert len(pump.dead_letters.list()) == 1


async def test_a_stream_that_is_there_is_used(server, peer, clerk):
    clerk.go.set()
    config = {"name": "ALL", "subjects": ["orders.>"], "storage": "memory"}
    await peer.request("$JS.API.STREAM.CREATE.ALL", json.dumps(config).encode())
    await order(peer, 5)
    async with taking(server.url, clerk):
        assert await clerk.taken.get() == 5


async def test_a_server_that_is_killed_loses_nothing(tmp_path):
    from tests.mesh.kit import plain_peer
    from xml_pipeline.mesh import EmbeddedServer

    clerk = Clerk()
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    try:
        async with taking(server.url, clerk, ack_wait=1.0):
            async with plain_peer(server.url) as peer:
                for number in range(5):
                    await order(peer, number)
            for _ in range(5):
                await clerk.taken.get()
            server.kill()
            await server.wait()
            await server.start()
            clerk.go.set()
            async with plain_peer(server.url) as peer:
                await order(peer, 9)
                await spin(lambda: set(clerk.done) >= {0, 1, 2, 3, 4, 9})
                await until_none_is_pending(peer)
    finally:
        with contextlib.suppress(Exception):
            await server.stop()
