"""Agents that are called by changes of keys and by messages: what is said of it, and changes of keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from pydantic import Field

from tests.mesh.kit import Gate, spin
from tests.mesh.reacting import NAME, Doc, bounce, handled, reacting
from xml_pipeline.mesh import (
    AgentMesh,
    AgentSpec,
    KVEntry,
    KVInvalidKey,
    KVSource,
    MeshMessage,
    SubjectSource,
)
from xml_pipeline.mesh.agent import Agent
from xml_pipeline.mesh.bucket import CONTEXT, Bucket
from xml_pipeline.mesh.kv_cursor import Cursor
from xml_pipeline.mesh.kv_watch import KVWatch
from xml_pipeline.mesh.shapes import Envelope, Shape, read_handler

# -- what is said about them


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: AgentMesh.subject_source("a..b"), ValueError),
        (lambda: AgentMesh.subject_source("a b"), ValueError),
        (lambda: AgentMesh.subject_source(""), ValueError),
        (lambda: AgentMesh.subject_source("a", queue_group=""), ValueError),
        (lambda: AgentMesh.subject_source("a", queue_group="q 1\r\nPUB"), ValueError),
        (lambda: AgentMesh.subject_source("a", max_waiting=0), ValueError),
        (lambda: AgentMesh.kv_source("a.>.b"), KVInvalidKey),
        (lambda: AgentMesh.kv_source("a", on_init="latest"), ValueError),  # type: ignore[arg-type]
        (lambda: AgentMesh.kv_source("a", resume="x", queue_group="y"), ValueError),
        (lambda: AgentMesh.kv_source("a", resume=""), ValueError),
        (lambda: AgentMesh.kv_source("a", queue_group="x" * 201), ValueError),
    ],
)
def test_a_source_that_cannot_be_is_refused_where_it_is_made(make, error):
    with pytest.raises(error):
        make()


def test_sources_are_values():
    assert AgentMesh.subject_source("a.*", queue_group="q") == SubjectSource("a.*", "q", 10_000)
    assert AgentMesh.kv_source("a.*", on_init="skip", resume="me") == KVSource("a.*", None, "skip", "me")
    assert KVSource("a", queue_group="q").cursor == KVSource("a", resume="q").cursor == "q"
    assert KVSource("a").cursor is None


KEYS = KVSource("a.*")
SUBJECT = SubjectSource("a.*")


async def takes_entry(entry: KVEntry[Doc]) -> None: ...


async def takes_message(message: MeshMessage[Doc]) -> None: ...


async def takes_doc(doc: Doc) -> int:
    return doc.id


async def publishes() -> AsyncIterator[int]:
    yield 1


async def streams(doc: Doc) -> AsyncIterator[int]:
    yield doc.id


@pytest.mark.parametrize(
    ("handler", "sources", "said"),
    [
        (takes_entry, None, "takes a KVEntry, which only a source gives"),
        (takes_message, [], "takes a MeshMessage, which only a source gives"),
        (takes_entry, [SUBJECT], "take a MeshMessage, or the value itself"),
        (takes_message, [KEYS], "take a KVEntry, or the value itself"),
        (takes_message, [SUBJECT, KEYS], "the source of keys a.* does not"),
        (publishes, [KEYS], "yields and has sources"),
        (streams, [SUBJECT], "yields and has sources"),
        (takes_doc, KEYS, "must be a list of sources, not KVSource"),
        (takes_doc, 5, "must be a list of sources, not int"),
        (takes_doc, ["a.*"], "is no source: use mesh.kv_source"),
    ],
)
def test_a_handler_and_sources_that_do_not_go_together_are_refused(handler, sources, said):
    mesh = AgentMesh()
    with pytest.raises(TypeError, match=said.replace("*", r"\*")):
        mesh.agent(AgentSpec(name=NAME), sources=sources)(handler)
    assert not mesh._roster.agents


async def yields_for_entries(entry: KVEntry[Doc]) -> AsyncIterator[int]:
    yield 1


async def yields_for_messages(message: MeshMessage[bytes]) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("handler", [yields_for_entries, yields_for_messages])
def test_a_generator_of_envelopes_is_refused_and_told_what_to_do(handler):
    with pytest.raises(TypeError, match=r"without `yield`, and publish from it, with mesh\.publish"):
        read_handler(handler)


class Unknown:
    pass


async def takes_unknown(entry: KVEntry[Unknown]) -> None: ...


def test_a_content_without_schema_is_named():
    with pytest.raises(TypeError, match="parameter 'entry' of takes_unknown is of type Unknown"):
        read_handler(takes_unknown)


def kind_of(kind: Any) -> tuple[Envelope, type | None, Shape]:
    async def handle(value) -> Doc:
        raise NotImplementedError

    handle.__annotations__["value"] = kind
    handler = read_handler(handle)
    return handler.envelope, handler.raw, handler.shape


@pytest.mark.parametrize(
    ("kind", "envelope", "raw"),
    [
        (KVEntry[Doc], Envelope.KV_ENTRY, None),
        (KVEntry, Envelope.KV_ENTRY, bytes),
        (KVEntry[str] | None, Envelope.KV_ENTRY, str),
        (Annotated[KVEntry[bytes], "x"], Envelope.KV_ENTRY, bytes),
        (MeshMessage[Annotated[str, Field(max_length=3)]], Envelope.MESH_MESSAGE, str),
        (MeshMessage[Doc | None], Envelope.MESH_MESSAGE, None),
    ],
)
def test_envelopes_are_told_from_their_annotation_and_nobody_can_ask_for_them(kind, envelope, raw):
    assert kind_of(kind) == (envelope, raw, Shape.BACKGROUND)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [(bytes, bytes), (str, str), (str | None, str), (Doc, None), (list[bytes], None), (int | str, None)],
)
def test_other_parameters_leave_an_agent_invocable(kind, raw):
    assert kind_of(kind) == (Envelope.VALUE, raw, Shape.RESPONDER)


def test_the_contract_says_nothing_of_sources_and_has_the_flag():
    spec = AgentSpec(name=NAME)
    plain, reacts = Agent.of(spec, takes_doc), Agent.of(spec, takes_doc, sources=[KEYS])
    plain.contract.registered_at = reacts.contract.registered_at
    assert plain.contract == reacts.contract
    entry = Agent.of(spec, takes_entry, sources=[KEYS], mcp=True).contract
    assert (entry.invocable, entry.streaming, entry.input_schema) == (False, False, None)
    assert json.loads(entry.to_registry_json())["x-agentmesh"]["mcp"] is True
    assert "mcp" not in json.loads(plain.contract.to_registry_json())["x-agentmesh"]


# -- keys


async def test_first_the_keys_there_are_then_every_change_from_any_client(host, peer):
    """What other clients write: the value as it is; a deletion, as a header and nothing else."""
    seen = reacting(host, KVEntry[bytes], host.kv_source("job.*"))
    async with host:
        pass  # the buckets are there now
    for subject, body, headers in [
        ("job.1", b"\x00one", None),
        ("job.gone", b"x", None),
        ("job.gone", b"", {"KV-Operation": "DEL"}),
        ("other", b"x", None),
    ]:
        await peer.request(f"$KV.mesh-context.{subject}", body, headers=headers)
    seen.values = asyncio.Queue()
    async with host:
        assert await seen.next() == KVEntry("job.1", b"\x00one", 1)
        await peer.request("$KV.mesh-context.job.2", b'{"id": 2}')
        assert await seen.next() == KVEntry("job.2", b'{"id": 2}', 5)
        await peer.request("$KV.mesh-context.job.1", b"", headers={"KV-Operation": "DEL"})
        await peer.request("$KV.mesh-context.job.2", b"", headers={"KV-Operation": "PURGE", "Nats-Rollup": "sub"})
        assert await seen.some(2) == [KVEntry("job.1", b"", 6, "DEL"), KVEntry("job.2", b"", 7, "PURGE")]


async def test_values_come_validated_and_without_deletions(host, mesh):
    docs = reacting(host, Doc, host.kv_source("doc.*"), name="a.docs")
    texts = reacting(host, str, host.kv_source("doc.*"), name="a.texts")
    async with host:
        await mesh.kv.put("doc.1", Doc(id=1))
        assert [await docs.next(), await texts.next()] == [Doc(id=1), '{"id":1}']
        await mesh.kv.delete("doc.1")
        await mesh.kv.put("doc.2", Doc(id=2))
        assert [await docs.next(), await texts.next()] == [Doc(id=2), '{"id":2}']


async def test_a_handler_without_parameter_is_told_that_something_changed(host, mesh):
    called = asyncio.Queue[None]()

    @host.agent(AgentSpec(name=NAME), sources=[host.kv_source("a")])
    async def react() -> None:
        called.put_nowait(None)

    async with host:
        assert [(entry.invocable, entry.streaming) for entry in await host.catalog()] == [(False, False)]
        assert called.empty()  # it is no background task, that would run by itself
        await mesh.kv.put("a", "1")
        await called.get()
        await mesh.kv.delete("a")
        await called.get()


async def test_skip_leaves_out_what_is_there_when_it_is_served(host, mesh):
    await mesh.kv.put("a.old", "0")
    await mesh.kv.put("a.both", "0")
    skipping = reacting(host, KVEntry[str], host.kv_source("a.*", on_init="skip"), name="a.skips")
    replaying = reacting(host, KVEntry[str], host.kv_source("a.*"), name="a.replays")
    async with host:
        assert [(one.key, one.value) for one in await replaying.some(2)] == [("a.old", "0"), ("a.both", "0")]
        await mesh.kv.put("a.both", "1")
        await mesh.kv.delete("a.old")
        for seen in (skipping, replaying):
            assert [(one.key, one.value) for one in await seen.some(2)] == [("a.both", "1"), ("a.old", "")]


async def test_a_slow_handler_gets_the_last_of_each_key(host, mesh):
    gate, last = Gate(), {}

    @host.agent(AgentSpec(name=NAME), sources=[host.kv_source("k.*")])
    async def react(entry: KVEntry[str]) -> None:
        await gate.pass_through(entry.key)
        last[entry.key] = entry.value

    async with host:
        for number in range(1500):
            await mesh.kv.put(f"k.{number % 5}", str(number))
        await gate.begun.get()
        gate.go.set()
        await spin(lambda: last == {f"k.{number}": str(1495 + number) for number in range(5)})


async def test_nothing_is_missed_when_the_server_crashes(lasting_server):
    async with AgentMesh(lasting_server.url) as host:
        entries = reacting(host, KVEntry[str], host.kv_source("k.>"), name="a.all")
        resumed = reacting(host, KVEntry[str], host.kv_source("k.>", resume="me"), name="a.resumed")
        await host.kv.put("k.before", "0")
        assert [(await one.next()).key for one in (entries, resumed)] == ["k.before"] * 2
        for round_ in range(2):
            await bounce(lasting_server)
            async with AgentMesh(lasting_server.url) as other:
                await other.kv.put(f"k.while.{round_}", "1")
                await other.kv.put("k.before", str(round_))
            for one in (entries, resumed):
                assert {entry.key for entry in await one.some(2)} == {f"k.while.{round_}", "k.before"}


async def test_a_bucket_that_is_made_again_is_followed(quick_heartbeat, host, mesh):
    seen = reacting(host, KVEntry[str], host.kv_source(">"))
    skips = reacting(host, KVEntry[str], host.kv_source(">", on_init="skip"), name="a.skips")
    await mesh.kv.put("old", "1")
    async with host:
        assert (await seen.next()).key == "old"
        await mesh.parts.jetstream.api("STREAM.DELETE.KV_mesh-context")
        await mesh.kv.put("new", "2")
        assert [(one.key, one.operation) for one in await seen.some(2)] == [("old", "DEL"), ("new", "PUT")]
        assert (await skips.next()).key == "new"


# -- a place that the server remembers


async def test_with_a_name_it_goes_on_where_it_stopped(server, mesh):
    for number in range(3):
        await mesh.kv.put(f"k.{number}", "0")
    for expected in (["k.0", "k.1", "k.2"], ["k.1"]):
        async with AgentMesh(server.url) as host:
            seen = reacting(host, KVEntry[str], host.kv_source("k.*", resume="me"))
            assert [one.key for one in await seen.some(len(expected))] == expected
            await spin(lambda host=host, expected=expected: handled(host) == len(expected))
        assert seen.is_empty
        await mesh.kv.put("k.1", "1")


@pytest.mark.parametrize("how", ["queue_group", "resume"])
async def test_those_of_a_name_share_the_changes(server, mesh, how):
    done: list[str] = []
    is_done = asyncio.Event()

    async def count(entry: KVEntry[str]) -> None:
        done.append(entry.key)
        await asyncio.sleep(0)
        if len(done) == 30:
            is_done.set()

    async with AgentMesh(server.url) as one, AgentMesh(server.url) as other:
        for member in (one, other):
            source = member.kv_source("k.*", **{how: "workers"})
            member.agent(AgentSpec(name=NAME), sources=[source, source])(count)
            await member.catalog()
        for number in range(30):
            await mesh.kv.put(f"k.{number}", "x")
        await is_done.wait()
        await spin(lambda: handled(one) + handled(other) == 30)
        assert sorted(done) == sorted(f"k.{number}" for number in range(30))


async def test_a_name_that_is_new_may_skip_what_is_there(server, mesh):
    await mesh.kv.put("k.old", "0")
    for round_, on_init in enumerate(("skip", "skip", "replay")):  # it matters to the first only
        async with AgentMesh(server.url) as host:
            seen = reacting(host, KVEntry[str], host.kv_source("k.*", on_init=on_init, resume="me"))
            await host.catalog()
            await mesh.kv.put(f"k.{round_}", "1")
            assert (await seen.next()).key == f"k.{round_}"
            await spin(lambda host=host: handled(host) == 1)
        assert seen.is_empty


async def test_a_cursor_that_skips_reads_all_of_another_bucket(mesh):
    bucket = Bucket(mesh.parts.jetstream, CONTEXT)
    await mesh.kv.put("old", "0")
    cursor = Cursor(mesh.parts.link, mesh.parts.replies, bucket, ">", "me", skip=True)
    await cursor.start()
    try:
        await mesh.parts.jetstream.api("STREAM.DELETE.KV_mesh-context")
        await mesh.kv.put("new", "1")
        assert (await asyncio.wait_for(cursor.next(), 20)).key == "new"
    finally:
        await cursor.stop()


async def test_what_failed_counts_as_handled_and_what_was_given_up_does_not(server, mesh):
    await mesh.kv.put("k.bad", "0")
    await mesh.kv.put("k.slow", "0")
    begun = asyncio.Event()

    async with AgentMesh(server.url, drain_timeout=0.0) as host:

        @host.agent(AgentSpec(name=NAME), sources=[host.kv_source("k.*", resume="me")])
        async def react(entry: KVEntry[str]) -> None:
            if entry.key == "k.bad":
                raise ValueError
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise RuntimeError("on the way out")

        await begun.wait()
    async with AgentMesh(server.url) as host:
        seen = reacting(host, KVEntry[str], host.kv_source("k.*", resume="me"))
        async with asyncio.timeout(8):  # less than it takes when nobody hands it back
            assert (await seen.next()).key == "k.slow"
        assert seen.is_empty


# -- what the sources are made of


async def test_a_watch_that_skips_gets_what_changes_before_it_is_complete(mesh):
    """Also the deletion of a key that it has not seen."""
    bucket = Bucket(mesh.parts.jetstream, CONTEXT)
    await mesh.kv.put("old", "0")
    watch = KVWatch(mesh.parts.link, bucket, ">", skip=True)
    begin = watch._begin

    async def later() -> None:
        await mesh.kv.delete("old")
        await begin()

    watch._begin = later  # type: ignore[method-assign]
    await watch.start()
    try:
        entry = await asyncio.wait_for(watch.next(), 20)
        assert (entry.key, entry.operation) == ("old", "DEL")
    finally:
        await watch.stop()


async def test_a_key_that_is_deleted_before_a_watch_is_complete_is_told_if_it_was_seen(mesh):
    watch = KVWatch(mesh.parts.link, Bucket(mesh.parts.jetstream, CONTEXT), ">")
    for entry in (KVEntry("gone", b"", 1, "DEL"), KVEntry("a", b"x", 2), KVEntry("a", b"", 3, "DEL")):
        watch._arrived(entry)
    assert [await watch.next() for _ in range(2)] == [KVEntry("a", b"x", 2), KVEntry("a", b"", 3, "DEL")]
    assert not watch._backlog


async def test_a_loop_begins_with_the_keys_there_are_not_with_those_there_were(mesh):
    await mesh.kv.put("gone", "0")
    await mesh.kv.delete("gone")
    await mesh.kv.put("there", "1")
    entries = mesh.kv.watch_entries(">")
    assert (await anext(entries)).key == "there"
    await mesh.kv.delete("there")
    assert (await anext(entries)).operation == "DEL"
    await entries.aclose()
