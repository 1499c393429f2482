"""Durable subjects of several organisms under one name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import pytest

from tests.bridge.clerk import Clerk, order, taking, until_none_is_pending
from tests.mesh.kit import plain_peer, spin
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.mesh import EmbeddedServer, MeshTimeout, durable, durable_stream
from xml_pipeline.mesh.jetstream import JetStream
from xml_pipeline.mesh.kv_write import Pauses

ID = "xml-pipeline.owner-id"
NAME = "xml-pipeline.owner"


@pytest.fixture
def clerk():
    clerk = Clerk()
    clerk.go.set()
    return clerk


@pytest.fixture
def other():
    other = Clerk()
    other.go.set()
    return other


async def api(peer, verb, body=None):
    answer = json.loads((await peer.request(f"$JS.API.{verb}", json.dumps(body).encode() if body else b"")).data)
    assert "error" not in answer, answer
    return answer


async def consumer(peer, stream="mesh-clerk", name="clerk"):
    return (await api(peer, f"CONSUMER.INFO.{stream}.{name}"))["config"]


async def keep(peer, storage="memory"):
    """Both subjects in one stream."""
    await api(peer, "STREAM.CREATE.ORDERS", {"name": "ORDERS", "subjects": ["orders.>"], "storage": storage})


async def made_by_hand(peer, **config):
    said = {"name": "clerk", "durable_name": "clerk", "ack_policy": "explicit", **config}
    creation = {"stream_name": "ORDERS", "config": said, "action": "create"}
    await api(peer, "CONSUMER.CREATE.ORDERS.clerk", creation)


async def refused(pump):
    with pytest.raises(ConfigurationError) as caught:
        async with pump:
            pass
    return str(caught.value)


async def test_another_organism_does_not_take_the_consumer_over(server, peer, clerk, other):
    await keep(peer)
    async with taking(server.url, clerk, "shop"):
        text = await refused(taking(server.url, other, "bank", subscribe="orders.old"))
        assert text == (
            "mesh: subjects: 'orders.old', durable 'clerk': The durable consumer clerk of the stream ORDERS belongs to "
            "'shop', and stays as it is; wanted is the filter_subject orders.old, not orders.new. Take another name "
            f"for one of the two. If its owner is no more, or has got another name, remove {ID!r} from the consumer's "
            "metadata."
        )
        await order(peer, 1)
        await order(peer, 2, "orders.old")
        await until_none_is_pending(peer, "ORDERS")
    assert (clerk.done, other.done) == ([1], [])


async def test_nor_is_the_stream_of_its_own_changed(server, peer, clerk, other):
    async with taking(server.url, clerk, "shop"):
        text = await refused(taking(server.url, other, "bank", subscribe="bills.new"))
        assert "clerk of the stream mesh-clerk belongs to 'shop'" in text
        assert (await api(peer, "STREAM.INFO.mesh-clerk"))["config"]["subjects"] == ["orders.new"]


async def test_names_that_the_server_does_not_tell_apart_are_one(server, peer, clerk, other):
    await keep(peer)
    async with taking(server.url, clerk, "shop", durable="d.e"):
        assert "The durable consumer d_e of the stream ORDERS belongs to 'shop'" in await refused(
            taking(server.url, other, "bank", subscribe="orders.old", durable="d_e")
        )


async def test_what_belongs_to_it_does_so_while_it_is_away_and_after_a_restart_of_the_server(tmp_path, clerk, other):
    async with EmbeddedServer(tmp_path / "nats") as server:
        async with plain_peer(server.url) as peer:
            await keep(peer, "file")
            async with taking(server.url, clerk, "shop", ack_wait=1.0):
                await order(peer, 1)
                await until_none_is_pending(peer, "ORDERS")
            await order(peer, 2)
        server.kill()
        await server.wait()
        await server.start()
        assert "belongs to 'shop'" in await refused(taking(server.url, other, "bank", subscribe="orders.old"))
        async with plain_peer(server.url) as peer, taking(server.url, clerk, "shop", ack_wait=1.0):
            await order(peer, 3)
            await until_none_is_pending(peer, "ORDERS")
    assert sorted(set(clerk.done)) == [1, 2, 3]  # the server may have forgotten that the first was done
    assert other.done == []


async def test_nodes_of_one_organism_change_it_under_each_other(server, peer, clerk):
    await keep(peer)
    async with taking(server.url, clerk, "shop"):
        async with taking(server.url, clerk, "shop", subscribe="orders.*", ack_wait=7):
            found = await consumer(peer, "ORDERS")
            assert (found["filter_subject"], found["ack_wait"]) == ("orders.*", 7_000_000_000)
            assert found["metadata"][NAME] == "shop"
        async with taking(server.url, clerk, "shop", subscribe="orders.old"):
            assert (await consumer(peer, "ORDERS"))["filter_subject"] == "orders.old"


async def test_a_node_that_has_to_look_for_it_again_leaves_it_to_those_that_began_later(
    server, peer, clerk, monkeypatch
):
    await keep(peer)
    later, made, real = Clerk(), asyncio.Event(), durable.Durable._make
    later.go.set()

    async def make(self):
        await real(self)
        made.set()

    monkeypatch.setattr(durable.Durable, "_make", make)
    async with taking(server.url, clerk, "shop") as pump:
        (part,) = [each for _, each in pump.attachments[0]._parts if hasattr(each, "_durable")]
        async with taking(server.url, later, "shop", subscribe="orders.old"):
            made.clear()
            part._durable._trouble = MeshTimeout()  # as after a restart of the server
            part._durable._news.set()
            await made.wait()
            await order(peer, 1, "orders.old")
            assert (await consumer(peer, "ORDERS"))["filter_subject"] == "orders.old"
            await api(peer, "CONSUMER.DELETE.ORDERS.clerk")
            while "clerk" not in (await api(peer, "CONSUMER.NAMES.ORDERS"))["consumers"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_different_wait_is_a_change_too(server, peer, clerk, other):
    async with taking(server.url, clerk, "shop"):
        text = await refused(taking(server.url, other, "bank", ack_wait=7))
        assert "wanted is the ack_wait 7000000000, not 30000000000." in text
        assert (await consumer(peer))["ack_wait"] == 30_000_000_000


async def test_organisms_that_want_the_same_share_it_and_that_is_said(server, peer, clerk, other, caplog):
    async with taking(server.url, clerk, "shop"), taking(server.url, other, "bank"):
        for number in range(20):
            await order(peer, number)
        await until_none_is_pending(peer)
        await spin(lambda: sorted(clerk.done + other.done) == list(range(20)))
        assert (await consumer(peer))["metadata"][NAME] == "shop"
    texts = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert texts == [
        "The durable consumer clerk of the stream mesh-clerk belongs to 'shop', too: each message goes to one of both, "
        "not to each"
    ]


@pytest.mark.parametrize("before", ["orders.new", "orders.old"])
async def test_one_without_a_mark_belongs_to_whoever_comes(server, peer, clerk, other, before):
    await keep(peer)
    await made_by_hand(peer, filter_subject=before, metadata={"team": "blue"})
    async with taking(server.url, clerk, "shop"):
        await order(peer, 1)
        await until_none_is_pending(peer, "ORDERS")
        found = await consumer(peer, "ORDERS")
        assert found["filter_subject"] == "orders.new"
        assert (found["metadata"]["team"], found["metadata"][NAME]) == ("blue", "shop")
        assert "belongs to 'shop'" in await refused(taking(server.url, other, "bank", subscribe="orders.old"))
    assert clerk.done == [1]


@pytest.mark.parametrize("config", [{}, {"filter_subjects": ["orders.new", "orders.old"]}])
async def test_one_that_filters_in_another_way_is_not_marked(server, peer, clerk, config):
    await keep(peer)
    await made_by_hand(peer, **config)
    async with taking(server.url, clerk, "shop"):
        await order(peer, 1)
        await until_none_is_pending(peer, "ORDERS")
        assert ID not in (await consumer(peer, "ORDERS"))["metadata"]
    assert clerk.done == [1]


async def test_without_its_mark_it_can_be_taken_over(server, peer, clerk, other):
    await keep(peer)
    async with taking(server.url, clerk, "shop"):
        pass
    found = await consumer(peer, "ORDERS")
    del found["metadata"][ID]
    creation = {"stream_name": "ORDERS", "config": found, "action": "update"}
    await api(peer, "CONSUMER.CREATE.ORDERS.clerk", creation)
    async with taking(server.url, other, "bank", subscribe="orders.old"):
        await order(peer, 1, "orders.old")
        await until_none_is_pending(peer, "ORDERS")
        assert (await consumer(peer, "ORDERS"))["metadata"][NAME] == "bank"
    assert other.done == [1]


async def test_on_a_server_that_keeps_no_marks_the_last_to_come_decides(
    server, peer, clerk, other, monkeypatch, caplog
):
    """As servers before 2.10 do, which this one is made to look like."""
    await keep(peer)
    real = JetStream.api

    async def api_of_old(self, verb, body=None):
        if verb.startswith("CONSUMER.CREATE.") and "metadata" in body["config"]:
            body = {**body, "config": {key: value for key, value in body["config"].items() if key != "metadata"}}
        return await real(self, verb, body)

    monkeypatch.setattr(JetStream, "api", api_of_old)
    async with taking(server.url, clerk, "shop"):
        pass
    async with taking(server.url, other, "bank", subscribe="orders.old"):
        await order(peer, 1, "orders.old")
        await until_none_is_pending(peer, "ORDERS")
    assert other.done == [1]
    assert "the consumer clerk of ORDERS gave orders.new; now orders.old" in caplog.text


NAMES = ["x" * 2000, "Büro 'für' \"alles\" 😀", "shop.clerk"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
async def test_an_organism_of_any_name_knows_its_own(server, peer, clerk, other, name):
    await keep(peer)
    async with taking(server.url, clerk, name):
        pass
    async with taking(server.url, clerk, name, subscribe="orders.old"):
        found = await consumer(peer, "ORDERS")
        assert found["filter_subject"] == "orders.old"
        assert found["metadata"][NAME] == name[:200]
    text = await refused(taking(server.url, other, f"{name}!"))
    assert "belongs to " in text
    assert len(text) < 1000


async def test_one_that_was_removed_and_made_by_another_is_not_taken_back(
    server, peer, clerk, other, caplog, monkeypatch
):
    monkeypatch.setattr(durable_stream, "_LOOK_EVERY", 3600.0)  # the server tells it
    pause, paused = Pauses.pause, []

    async def short_pause(self):
        paused.append(self)
        self._pause = 0.01
        return await pause(self)

    monkeypatch.setattr(Pauses, "pause", short_pause)
    await keep(peer)
    async with taking(server.url, clerk, "shop"):
        await order(peer, 1)
        await until_none_is_pending(peer, "ORDERS")
        async with overtaken(monkeypatch):
            await api(peer, "CONSUMER.DELETE.ORDERS.clerk")
            await made_by_hand(peer, **FOREIGN)
        await spin(lambda: "belongs to 'bank', and stays as it is" in caplog.text)
        assert (await consumer(peer, "ORDERS"))["filter_subject"] == "orders.old"
        tries = len(paused)
        await spin(lambda: len(paused) > tries + 5)
        assert caplog.text.count("belongs to 'bank', and stays as it is") == 1  # and not each time that it is tried
        await order(peer, 2)
        await order(peer, 3, "orders.old")
        await api(peer, "CONSUMER.DELETE.ORDERS.clerk")
        await spin(lambda: 2 in clerk.done)
        await until_none_is_pending(peer, "ORDERS")
    assert clerk.done == [1, 1, 2]  # one that is made anew knows of nothing that was handled


async def test_nor_is_it_read_where_nobody_told_that_it_was_removed(server, peer, caplog, monkeypatch):
    monkeypatch.setattr(durable_stream, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(durable, "_TIMEOUT", 0.1)  # nobody hears that a message of a removed one is done
    await keep(peer)
    busy = Clerk()
    async with taking(server.url, busy, "shop", max_in_flight=1):
        await order(peer, 1)
        await busy.taken.get()  # it asks for nothing now
        async with overtaken(monkeypatch):
            await api(peer, "CONSUMER.DELETE.ORDERS.clerk")
            await made_by_hand(peer, **FOREIGN)
        await order(peer, 2, "orders.old")
        await spin(lambda: "belongs to 'bank', and stays as it is" in caplog.text)
        busy.go.set()
        await spin(lambda: busy.done == [1])
        assert (await api(peer, "CONSUMER.INFO.ORDERS.clerk"))["num_pending"] == 1


FOREIGN = {"filter_subject": "orders.old", "metadata": {ID: "somebody", NAME: "bank"}}


@contextlib.asynccontextmanager
async def overtaken(monkeypatch):
    """Whatever organisms want of the server has to wait meanwhile."""
    real, go = JetStream.api, asyncio.Event()

    async def api_that_waits(self, verb, body=None):
        await go.wait()
        return await real(self, verb, body)

    ask = durable.Durable._ask

    async def ask_that_waits(self):
        await go.wait()
        await ask(self)

    with monkeypatch.context() as patched:
        patched.setattr(JetStream, "api", api_that_waits)
        patched.setattr(durable.Durable, "_ask", ask_that_waits)
        yield
    go.set()
