"""Durable subjects, and streams that keep more, less or other than them."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from tests.bridge.clerk import Clerk, order, taking, until_none_is_pending
from tests.mesh.kit import plain_peer, spin
from tests.mesh.secured import ConfiguredServer
from xml_pipeline.bridge import bridge
from xml_pipeline.config.mesh import MeshConfig
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.mesh import EmbeddedServer, StorageError, durable_stream
from xml_pipeline.mesh.jetstream import JetStream

ROOT = Path(__file__).parents[2]
WIDE = "orders.>"


@pytest.fixture
def clerk():
    clerk = Clerk()
    clerk.go.set()
    return clerk


@pytest.fixture
def often(monkeypatch):
    """It is looked at very often what is in the streams."""
    monkeypatch.setattr(durable_stream, "_LOOK_EVERY", 0.01)


async def api(peer, verb, body=None):
    answer = json.loads((await peer.request(f"$JS.API.{verb}", json.dumps(body).encode() if body else b"")).data)
    assert "error" not in answer, answer
    return answer


async def stream(peer, name, *subjects, **more):
    await api(peer, f"STREAM.CREATE.{name}", {"name": name, "subjects": subjects, "storage": "memory", **more})


async def change(peer, name, *subjects):
    config = (await api(peer, f"STREAM.INFO.{name}"))["config"]
    await api(peer, f"STREAM.UPDATE.{name}", {**config, "subjects": subjects})


async def streams(peer):
    """The names of all but those that the mesh keeps for itself."""
    return {each for each in (await api(peer, "STREAM.NAMES"))["streams"] if not each.startswith("KV_mesh-")}


async def consumers(peer, of):
    return set((await api(peer, f"CONSUMER.NAMES.{of}"))["consumers"])


async def refused(pump):
    with pytest.raises(ConfigurationError) as caught:
        async with pump:
            pass
    return str(caught.value)


async def followed(peer, clerk, number, subject, kept_in):
    assert await order(peer, number, subject) == kept_in
    await spin(lambda: number in clerk.done)
    await until_none_is_pending(peer, kept_in)


# -- at the beginning


@pytest.mark.parametrize("said", ["", "ONLY"])
async def test_a_stream_that_keeps_only_a_part_is_refused(server, peer, clerk, said):
    await stream(peer, "ONLY", "orders.new", "orders.old")
    text = await refused(taking(server.url, clerk, subscribe=WIDE, stream=said))
    assert text == (
        "mesh: subjects: 'orders.>', durable 'clerk': The durable consumer clerk is to read orders.>, and the stream "
        "ONLY keeps orders.new, orders.old: the rest of orders.> would be lost. Give one stream the whole of it, or "
        "have one consumer for each stream, which asks for no more than that keeps."
    )
    assert await streams(peer) == {"ONLY"}
    assert await consumers(peer, "ONLY") == set()


async def test_it_is_refused_after_a_restart_of_the_server_and_read_once_it_keeps_all(tmp_path, clerk):
    async with EmbeddedServer(tmp_path / "nats") as server:
        async with plain_peer(server.url) as peer:
            await stream(peer, "ONLY", "orders.new", storage="file")
            await order(peer, 1)
        assert "ONLY keeps orders.new" in await refused(taking(server.url, clerk, subscribe=WIDE))
        server.kill()
        await server.wait()
        await server.start()
        assert "ONLY keeps orders.new" in await refused(taking(server.url, clerk, subscribe=WIDE))
        async with plain_peer(server.url) as peer:
            await change(peer, "ONLY", WIDE)
            await order(peer, 2, "orders.old")
            async with taking(server.url, clerk, subscribe=WIDE):
                await followed(peer, clerk, 3, "orders.a.b", "ONLY")
    assert sorted(clerk.done) == [1, 2, 3]


async def test_a_template_asks_for_all_that_may_stand_in_its_holes(server, peer, clerk):
    await stream(peer, "ONLY", "orders.1", "orders.2")
    text = await refused(taking(server.url, clerk, subscribe="orders.{number}"))
    assert "subjects: 'orders.{number}', durable 'clerk': " in text
    assert "is to read orders.*, and the stream ONLY keeps orders.1, orders.2:" in text


async def test_subjects_that_keep_all_of_it_together_will_do(server, peer, clerk):
    await stream(peer, "ALL", "orders.*", "orders.*.>")
    async with taking(server.url, clerk, subscribe=WIDE):
        await followed(peer, clerk, 1, "orders.new", "ALL")
        await followed(peer, clerk, 2, "orders.a.b.c", "ALL")


async def test_of_several_streams_that_keep_a_part_none_is_read_and_none_is_made(server, peer, clerk):
    await stream(peer, "NEW", "orders.new")
    await stream(peer, "OLD", "orders.old.>", "other")
    text = await refused(taking(server.url, clerk, subscribe=WIDE))
    assert "the stream NEW keeps orders.new; the stream OLD keeps orders.old.>, other: the rest of" in text
    assert await streams(peer) == {"NEW", "OLD"}


async def test_one_that_keeps_all_goes_before_those_that_keep_a_part(server, peer, clerk, monkeypatch):
    """A server lets no two streams have the same subject, so that they come about by renaming only."""
    await stream(peer, "AWAY", "bills.>", subject_transform={"src": "bills.>", "dest": "away.>"})
    await stream(peer, "ALL", "orders.>")
    real = JetStream.api

    async def api_that_names_both(self, verb, body=None):
        answer = await real(self, verb, body)
        return {**answer, "streams": ["AWAY", "GONE", "ALL"]} if verb == "STREAM.NAMES" else answer

    monkeypatch.setattr(JetStream, "api", api_that_names_both)
    async with taking(server.url, clerk, subscribe=WIDE):
        await followed(peer, clerk, 1, "orders.new", "ALL")


async def test_a_stream_that_renames_what_it_keeps_is_refused_but_under_the_new_name(server, peer, clerk):
    await stream(peer, "ARCHIVE", WIDE, subject_transform={"src": WIDE, "dest": "archive.>"})
    text = await refused(taking(server.url, clerk, subscribe=WIDE))
    assert "the stream ARCHIVE keeps archive.>: the rest" in text
    async with taking(server.url, clerk, subscribe="archive.>", stream="ARCHIVE"):
        await followed(peer, clerk, 1, "orders.new", "ARCHIVE")


async def test_a_mirror_is_read_if_it_is_one_of_all_that_is_asked_for(server, peer, clerk):
    await stream(peer, "ORIGIN", WIDE)
    await stream(peer, "COPY", mirror={"name": "ORIGIN"})
    await stream(peer, "PART", mirror={"name": "ORIGIN", "filter_subject": "orders.new"})
    assert "the stream PART keeps orders.new:" in await refused(
        taking(server.url, clerk, subscribe=WIDE, stream="PART")
    )
    async with taking(server.url, clerk, subscribe=WIDE, stream="COPY"):
        await order(peer, 1, "orders.old")
        assert await clerk.taken.get() == 1
    async with taking(server.url, clerk, stream="PART"):
        await order(peer, 2)
        assert await clerk.taken.get() == 2


async def test_a_stream_that_cannot_be_looked_into_is_read_and_that_is_said(server, peer, clerk, caplog):
    await stream(peer, "ORIGIN", WIDE)
    await stream(peer, "COPY", sources=[{"name": "ORIGIN"}])
    await api(peer, "STREAM.DELETE.ORIGIN")
    async with taking(server.url, clerk, subscribe=WIDE, stream="COPY"):
        await spin(lambda: "durable consumer clerk reads orders.>, and the stream COPY keeps" in caplog.text)
    assert "nothing of its own, and what it copies from elsewhere; the rest may be lost" in caplog.text


async def test_a_stream_that_is_not_there_is_named(server, clerk):
    assert await refused(taking(server.url, clerk, stream="GONE")) == (
        "mesh: subjects: 'orders.new', durable 'clerk': There is no stream GONE."
    )


# -- streams of our own


async def test_one_that_was_made_for_a_part_is_given_the_rest(server, peer, clerk):
    other = Clerk()
    other.go.set()
    async with (
        taking(server.url, clerk),
        taking(server.url, other, "other", subscribe=WIDE, durable="other"),
    ):
        await followed(peer, clerk, 1, "orders.new", "mesh-clerk")
        assert await order(peer, 2, "orders.old") == "mesh-clerk"
        await spin(lambda: sorted(other.done) == [1, 2])
        await until_none_is_pending(peer, "mesh-clerk", "other")
        found = await api(peer, "STREAM.INFO.mesh-clerk")
        assert (found["config"]["subjects"], found["config"]["retention"]) == ([WIDE], "interest")
    assert clerk.done == [1]


@pytest.mark.parametrize("durable", ["clerk", "other"])
async def test_what_is_confirmed_before_its_consumer_is_told_is_not_lost(server, peer, clerk, monkeypatch, durable):
    """As on servers before 2.10, which let nobody ask for what a stream does not keep yet."""
    async with taking(server.url, clerk):
        pass
    real = JetStream.api
    kept = []

    async def api_of_old(self, verb, body=None):
        if verb.startswith("CONSUMER.CREATE.mesh-clerk."):
            if not kept:
                raise StorageError("no valid subset", details={"err_code": 10093})
            kept.append(await order(peer, 5, "orders.old"))
        answer = await real(self, verb, body)
        if verb == "STREAM.UPDATE.mesh-clerk":
            kept.append(answer["config"]["retention"])
        return answer

    monkeypatch.setattr(JetStream, "api", api_of_old)
    async with taking(server.url, clerk, subscribe=WIDE, durable=durable):
        assert await clerk.taken.get() == 5
        await until_none_is_pending(peer, "mesh-clerk", durable)
    assert (kept[0], kept[-1]) == ("limits", "interest")


def between(monkeypatch, do):
    """Have something done right after a stream of the mesh was given more, by whoever does that."""
    real, is_done = JetStream.api, []

    async def api(self, verb, body=None):
        answer = await real(self, verb, body)
        if verb.startswith("STREAM.UPDATE.") and not is_done:
            is_done.append(verb)
            await do()
        return answer

    monkeypatch.setattr(JetStream, "api", api)


@pytest.mark.parametrize("wanted", [WIDE, "orders.old"])
async def test_nothing_goes_past_who_reads_on_while_the_subject_is_changed(server, peer, clerk, monkeypatch, wanted):
    after = Clerk()
    after.go.set()
    async with taking(server.url, clerk):  # a node that knows nothing of the change yet

        async def read_on():
            assert (await api(peer, "STREAM.INFO.mesh-clerk"))["config"]["retention"] == "interest"
            await order(peer, 5, "orders.old")
            await order(peer, 6)
            await spin(lambda: 6 in clerk.done)

        between(monkeypatch, read_on)
        async with taking(server.url, after, subscribe=wanted):
            await spin(lambda: 5 in after.done + clerk.done)
            await until_none_is_pending(peer)
    config = (await api(peer, "CONSUMER.INFO.mesh-clerk.clerk"))["config"]
    assert (config["filter_subject"], "xml-pipeline.next-filter" in config["metadata"]) == (wanted, False)


async def test_a_node_that_starts_while_its_stream_is_given_more_loses_nothing_of_that(
    server, peer, clerk, monkeypatch
):
    async with taking(server.url, clerk):
        pass
    other = Clerk()
    other.go.set()

    async def restart():
        async with taking(server.url, clerk):
            await order(peer, 5, "orders.old")

    between(monkeypatch, restart)
    async with taking(server.url, other, "other", subscribe=WIDE, durable="other"):
        await spin(lambda: other.done == [5])
        assert (await api(peer, "STREAM.INFO.mesh-clerk"))["config"]["retention"] == "interest"


@pytest.mark.parametrize("is_unmarked", [False, True])
@pytest.mark.parametrize("then", ["orders.new", "orders.old"])
async def test_a_change_that_stopped_halfway_loses_nothing_and_is_finished_or_undone(
    server, peer, clerk, monkeypatch, then, is_unmarked
):
    async with taking(server.url, clerk):
        by_hand = (await api(peer, "CONSUMER.INFO.mesh-clerk.clerk"))["config"] | {"max_ack_pending": 7}
        by_hand["metadata"]["team"] = "blue"
        if is_unmarked:
            del by_hand["metadata"]["xml-pipeline.owner-id"]
        creation = {"stream_name": "mesh-clerk", "config": by_hand, "action": "update"}
        await api(peer, "CONSUMER.CREATE.mesh-clerk.clerk", creation)
        real = JetStream.api

        async def api_that_breaks(self, verb, body=None):
            if verb.startswith("STREAM.UPDATE."):
                raise StorageError("no")
            return await real(self, verb, body)

        with monkeypatch.context() as patched:
            patched.setattr(JetStream, "api", api_that_breaks)
            await refused(taking(server.url, Clerk(), subscribe="orders.old"))
        await followed(peer, clerk, 1, "orders.new", "mesh-clerk")
        halfway = (await api(peer, "CONSUMER.INFO.mesh-clerk.clerk"))["config"]
        assert halfway["filter_subjects"] == ["orders.new", "orders.old"]
        text = await refused(taking(server.url, Clerk(), "bank", subscribe="orders.old"))
        assert "wanted is the filter_subject orders.old, not orders.new, orders.old." in text
    async with taking(server.url, clerk, subscribe=then):
        await followed(peer, clerk, 2, then, "mesh-clerk")
        config = (await api(peer, "CONSUMER.INFO.mesh-clerk.clerk"))["config"]
    mark = config["metadata"].pop("xml-pipeline.owner-id")
    assert mark == by_hand["metadata"].pop("xml-pipeline.owner-id", mark)
    assert config == {**by_hand, "filter_subject": then}


async def test_two_that_keep_a_part_each_are_not_put_together(server, peer, clerk):
    async with taking(server.url, clerk), taking(server.url, clerk, subscribe="orders.old", durable="old"):
        text = await refused(taking(server.url, clerk, subscribe=WIDE, durable="all"))
        assert "the stream mesh-clerk keeps orders.new; the stream mesh-old keeps orders.old: the rest" in text
        await followed(peer, clerk, 1, "orders.new", "mesh-clerk")


async def test_one_that_somebody_has_made_to_rename_is_refused(server, peer, clerk):
    await stream(peer, "mesh-clerk", "orders.new", subject_transform={"src": "orders.new", "dest": "old"})
    assert "the stream mesh-clerk keeps old:" in await refused(taking(server.url, clerk))


async def test_one_that_is_made_by_another_at_the_same_time_is_read(server, peer, clerk, monkeypatch):
    real = JetStream.api

    async def api_that_is_overtaken(self, verb, body=None):
        answer = await real(self, verb, body)
        if verb == "STREAM.NAMES" and not answer.get("streams"):
            await stream(peer, "OTHER", WIDE)
        return answer

    monkeypatch.setattr(JetStream, "api", api_that_is_overtaken)
    async with taking(server.url, clerk):
        await followed(peer, clerk, 1, "orders.new", "OTHER")


# -- later


def log_of(caplog, level):
    return [each.getMessage() for each in caplog.records if each.levelno == level and "durable" in each.name]


@pytest.mark.usefixtures("often")
async def test_one_that_keeps_less_later_is_read_on_and_that_is_said_once(server, peer, clerk, caplog):
    caplog.set_level(logging.INFO)
    await stream(peer, "ALL", WIDE)
    async with taking(server.url, clerk, subscribe=WIDE):
        await followed(peer, clerk, 1, "orders.old", "ALL")
        assert log_of(caplog, logging.ERROR) == []
        await change(peer, "ALL", "orders.new")
        await spin(lambda: log_of(caplog, logging.ERROR))
        await followed(peer, clerk, 2, "orders.new", "ALL")
        await change(peer, "ALL", "orders.*", "orders.*.>")
        await spin(lambda: "the stream ALL keeps all of orders.> again" in log_of(caplog, logging.INFO))
        await followed(peer, clerk, 3, "orders.old", "ALL")
    assert log_of(caplog, logging.ERROR) == [
        "the durable consumer clerk reads orders.>, and the stream ALL keeps orders.new; the rest is lost"
    ]


async def test_it_is_said_again_when_the_connection_is_back(tmp_path, clerk, caplog):
    """And what was stored meanwhile is handled."""
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    try:
        async with plain_peer(server.url) as peer:
            await stream(peer, "ALL", WIDE, storage="file")
        async with taking(server.url, clerk, subscribe=WIDE, ack_wait=1.0) as pump:
            async with plain_peer(server.url) as peer:
                await followed(peer, clerk, 1, "orders.old", "ALL")
                await change(peer, "ALL", "orders.new")
                await order(peer, 2)
            for count in (1, 2):
                server.kill()
                await server.wait()
                await spin(lambda: not pump.attachments[0].mesh.is_connected)
                await server.start()
                await spin(lambda count=count: len(log_of(caplog, logging.ERROR)) == count)
            async with plain_peer(server.url) as peer:
                await followed(peer, clerk, 3, "orders.new", "ALL")
                await spin(lambda: set(clerk.done) == {1, 2, 3})
    finally:
        await server.stop()


@pytest.mark.usefixtures("often")
async def test_one_of_our_own_that_others_change_back_is_given_the_rest_again(server, peer, clerk, caplog):
    other = Clerk()
    other.go.set()
    async with taking(server.url, clerk), taking(server.url, other, "other", subscribe=WIDE, durable="other"):
        await order(peer, 1, "orders.old")
        await change(peer, "mesh-clerk", "orders.new")  # as one does who read it before it was changed
        text = "the stream mesh-clerk keeps orders.new, and was given the rest of orders.> again"
        await spin(lambda: text in log_of(caplog, logging.WARNING))
        assert await order(peer, 2, "orders.old") == "mesh-clerk"
        await spin(lambda: other.done == [1, 2])
        assert (await api(peer, "STREAM.INFO.mesh-clerk"))["config"]["subjects"] == [WIDE]
    assert log_of(caplog, logging.ERROR) == []


@pytest.mark.usefixtures("often")
async def test_one_of_our_own_that_may_not_be_changed_is_read_on_and_that_is_said(
    server, peer, clerk, caplog, monkeypatch
):
    async with taking(server.url, clerk, subscribe=WIDE):
        real = JetStream.api

        async def api_that_refuses(self, verb, body=None):
            if verb.startswith("STREAM.UPDATE."):
                raise StorageError("no")
            return await real(self, verb, body)

        monkeypatch.setattr(JetStream, "api", api_that_refuses)
        await change(peer, "mesh-clerk", "orders.new")
        await spin(lambda: log_of(caplog, logging.ERROR))
        await followed(peer, clerk, 2, "orders.new", "mesh-clerk")
    assert log_of(caplog, logging.ERROR) == [
        "the durable consumer clerk reads orders.>, and the stream mesh-clerk keeps orders.new; the rest is lost"
    ]


@pytest.mark.usefixtures("often")
async def test_a_stream_that_was_made_anew_with_less_is_read_and_that_is_said(server, peer, clerk, caplog):
    await stream(peer, "ALL", WIDE)
    async with taking(server.url, clerk, subscribe=WIDE):
        await followed(peer, clerk, 1, "orders.old", "ALL")
        await api(peer, "STREAM.DELETE.ALL")
        await stream(peer, "LESS", "orders.new")
        while "clerk" not in await consumers(peer, "LESS"):  # noqa: ASYNC110  # the server announces nothing
            await asyncio.sleep(0.01)
        await followed(peer, clerk, 2, "orders.new", "LESS")
        await spin(lambda: "orders.>, and the stream LESS keeps orders.new; the rest is lost" in caplog.text)


async def test_a_reload_that_asks_for_too_much_begins_when_it_is_there(server, peer, clerk, monkeypatch, caplog):
    monkeypatch.setattr(bridge, "_PAUSE", 0.01)
    await stream(peer, "ONLY", "orders.new")
    async with taking(server.url, clerk) as pump:
        await followed(peer, clerk, 1, "orders.new", "ONLY")
        (entry,) = pump.config.mesh.subjects
        wide = entry.model_copy(update={"subscribe": WIDE})
        section = MeshConfig(url=server.url, subjects=[wide])
        pump.attachments[0].plan(pump.config.model_copy(update={"mesh": section})).apply()
        await spin(
            lambda: "reload: SubjectDurable cannot start yet, and tries again: subjects: 'orders.>'" in caplog.text
        )
        assert (await api(peer, "CONSUMER.INFO.ONLY.clerk"))["config"]["filter_subject"] == "orders.new"
        await order(peer, 2)
        await change(peer, "ONLY", WIDE)
        await spin(lambda: 2 in clerk.done)
        await followed(peer, clerk, 3, "orders.old", "ONLY")
    assert "is to read orders.>, and the stream ONLY keeps orders.new: the rest" in caplog.text


# -- permissions


def documented_permissions():
    """Those that a durable subject needs, by the documentation."""
    page = (ROOT / "docs" / "bridge.md").read_text(encoding="utf-8")
    (table,) = [part for part in page.split("\n\n") if "$JS.API.STREAM.NAMES" in part and part.startswith("|")]
    return [line.split("`")[1] for line in table.splitlines()[2:]]


def server_with(permissions, tmp_path):
    """For the user `peer`, who may everything, and `org`, who may that."""
    allowed = json.dumps([*permissions, "mesh.>", "_INBOX.>", "$KV.>", "$JS.API.STREAM.*.KV_mesh-catalog"])
    org = f'{{ user: org, password: pw, permissions: {{ publish: {allowed}, subscribe: ["_INBOX.>", "mesh.>"] }} }}'
    users = f"users: [ {{ user: peer, password: pw }}, {org} ]"
    return ConfiguredServer(f"accounts {{ APP {{ jetstream: enabled, {users} }} }}\n", tmp_path / "nats")


def those_of(stream, durable):
    permissions = documented_permissions()
    assert len(permissions) == 8
    return [each.replace("<stream>", stream).replace("<durable>", durable) for each in permissions]


async def test_the_documented_permissions_are_enough(tmp_path, clerk):
    async with server_with(those_of("mesh-cl_erk", "cl_erk"), tmp_path) as server:
        pump = taking(server.url_of("org"), clerk, durable="cl.erk", subscribe="orders.*")
        async with pump, plain_peer(server.url_of("peer")) as peer:
            assert await order(peer, 1) == "mesh-cl_erk"
            assert await clerk.taken.get() == 1
            await until_none_is_pending(peer, "mesh-cl_erk", "cl_erk")


async def test_what_may_not_be_confirmed_is_not_told_as_failed(tmp_path, clerk, caplog):
    permissions = [each for each in those_of("mesh-clerk", "clerk") if "$JS.ACK" not in each]
    async with server_with(permissions, tmp_path) as server:
        pump = taking(server.url_of("org"), clerk, ack_wait=0.5)
        async with pump, plain_peer(server.url_of("peer")) as peer:
            await order(peer, 1)
            await spin(lambda: len(clerk.done) == 2)  # at least once
            assert len(pump.dead_letters.list()) == 0
        assert "of orders.new was handled, and comes again, as that cannot be confirmed: The server does" in caplog.text
        assert "cannot be handled" not in caplog.text


async def test_a_missing_permission_is_named(tmp_path, clerk):
    permissions = [each for each in those_of("ALL", "clerk") if "STREAM.INFO" not in each]
    async with server_with(permissions, tmp_path) as server:
        async with plain_peer(server.url_of("peer")) as peer:
            await stream(peer, "ALL", WIDE)
        assert await refused(taking(server.url_of("org"), clerk)) == (
            "mesh: subjects: 'orders.new', durable 'clerk': "
            "The server does not permit to publish to $JS.API.STREAM.INFO.ALL."
        )
