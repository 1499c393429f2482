"""Keys that become messages, and messages that become keys."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from tests.bridge.kit import organism
from tests.mesh.kit import spin
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.errors import ValidationError


@dataclass
class Document:
    id: str
    text: str


@dataclass
class Extracted:
    id: str
    words: int


class Desk:
    """Takes documents, and waits to be let go."""

    def __init__(self) -> None:
        self.taken = asyncio.Queue[Document]()
        self.go = asyncio.Event()
        self.fails = False

    async def take(self, document: Document, metadata: HandlerMetadata) -> None:
        self.taken.put_nowait(document)
        await self.go.wait()
        if self.fails:
            raise ValueError("no")


def watching(url, desk, pattern="doc.{id}.raw", **entry):
    pump = organism(url, kv=[{"watch": pattern, "to": "desk", "payload_class": Document, **entry}])
    pump.register("desk", desk.take, Document)
    return pump


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def open_desk(desk):
    desk.go.set()
    return desk


@pytest.mark.parametrize("resume", ["", "desk"])
async def test_values_become_messages_with_the_parts_of_their_keys(server, mesh, open_desk, resume):
    await mesh.kv.put("doc.a.raw", '{"text": "first"}')
    async with watching(server.url, open_desk, resume=resume):
        assert await open_desk.taken.get() == Document("a", "first")
        await mesh.kv.put("doc.b.raw", '{"text": "second", "id": "own"}')
        assert await open_desk.taken.get() == Document("own", "second")
        await mesh.kv.put("doc.b.other", "{}")
        await mesh.kv.delete("doc.a.raw")
        await mesh.kv.put("doc.c.raw", '{"text": "third"}')
        assert await open_desk.taken.get() == Document("c", "third")


async def test_a_change_that_was_not_over_comes_again(server, mesh, desk):
    await mesh.kv.put("doc.a.raw", '{"text": "x"}')
    pump = watching(server.url, desk, resume="desk")
    async with pump:
        await desk.taken.get()
        await pump.shutdown(0.0)
    desk.go.set()
    async with watching(server.url, desk, resume="desk"):
        assert await desk.taken.get() == Document("a", "x")


@pytest.mark.parametrize("resume", ["", "desk"])
async def test_a_change_whose_conversation_is_cancelled_is_over(server, mesh, resume):
    taken = asyncio.Queue[tuple[str, str]]()

    async def take(document: Document, metadata: HandlerMetadata) -> None:
        taken.put_nowait((document.id, metadata.thread_id))
        await asyncio.Event().wait()

    pump = organism(
        server.url, kv=[{"watch": "doc.{id}.raw", "to": "desk", "payload_class": Document, "resume": resume}]
    )
    pump.register("desk", take, Document)
    async with pump:
        await mesh.kv.put("doc.a.raw", '{"text": "x"}')
        _, thread = await taken.get()
        pump.cancel(thread)
        await spin(pump.dead_letters.list)
        (kept,) = pump.dead_letters.list()
        assert (kept.code, kept.target) == ("cancelled", "desk")
        await mesh.kv.put("doc.b.raw", '{"text": "y"}')
        assert (await taken.get())[0] == "b"
        await pump.shutdown(0.0)
    async with watching(server.url, desk := Desk(), resume=resume or "other"):
        assert (await desk.taken.get()).id == ("b" if resume else "a")
        desk.go.set()


@pytest.mark.parametrize("resume", ["", "desk"])
async def test_a_value_that_the_pump_does_not_admit_is_a_dead_letter(server, mesh, open_desk, resume):
    entry = {"watch": "doc.{id}.raw", "to": "desk", "payload_class": Document, "resume": resume}
    pump = organism(server.url, limits={"max_message_bytes": 2_000}, kv=[entry])
    pump.register("desk", open_desk.take, Document)
    async with pump:
        await mesh.kv.put("doc.a.raw", f'{{"text": "{"y" * 3_000}"}}')
        await spin(pump.dead_letters.list)
        (kept,) = pump.dead_letters.list()
        assert kept.code == "validation"
        await mesh.kv.put("doc.b.raw", '{"text": "y"}')
        assert (await open_desk.taken.get()).id == "b"


async def test_in_another_bucket_of_the_same_name_every_value_is_new(server, mesh, open_desk):
    async with watching(server.url, open_desk, resume="desk"):
        for number in range(3):
            await mesh.kv.put("doc.a.raw", f'{{"text": "{number}"}}')
            while (await open_desk.taken.get()).text != str(number):
                pass
        await mesh.parts.jetstream.api("STREAM.DELETE.KV_mesh-context")
        await mesh.kv.put("doc.a.raw", '{"text": "new"}')
        assert await open_desk.taken.get() == Document("a", "new")


async def test_a_change_that_was_over_does_not_come_again(server, mesh, open_desk):
    await mesh.kv.put("doc.a.raw", '{"text": "x"}')
    async with watching(server.url, open_desk, resume="desk") as pump:
        await open_desk.taken.get()
        await pump.wait_idle()
    async with watching(server.url, open_desk, resume="desk"):
        await mesh.kv.put("doc.b.raw", '{"text": "y"}')
        assert (await open_desk.taken.get()).id == "b"


@pytest.mark.parametrize("resume", ["", "desk"])
async def test_what_is_finished_while_it_stops_does_not_come_again(server, mesh, desk, resume):
    await mesh.kv.put("doc.a.raw", '{"text": "x"}')
    pump = watching(server.url, desk, resume=resume)
    async with pump:
        await desk.taken.get()
        stopping = asyncio.create_task(pump.shutdown(3600.0))
        await asyncio.sleep(0)
        desk.go.set()
        assert (await stopping).drained
    await mesh.kv.delete("doc.a.raw") if not resume else None  # else every start gets it
    async with watching(server.url, desk, resume=resume):
        await mesh.kv.put("doc.b.raw", '{"text": "y"}')
        assert (await desk.taken.get()).id == "b"


async def test_without_a_name_every_start_gets_what_there_is(server, mesh, open_desk):
    await mesh.kv.put("doc.a.raw", '{"text": "x"}')
    for _ in range(2):
        async with watching(server.url, open_desk):
            assert (await open_desk.taken.get()).id == "a"


async def test_several_are_under_way_at_a_time(server, mesh, desk):
    async with watching(server.url, desk, resume="desk"):
        for number in range(5):
            await mesh.kv.put(f"doc.{number}.raw", '{"text": "x"}')
        assert {(await desk.taken.get()).id for _ in range(5)} == set("01234")
        desk.go.set()


async def test_changes_of_one_key_are_handled_one_after_the_other(server, mesh, desk):
    async with watching(server.url, desk):
        await mesh.kv.put("doc.a.raw", '{"text": "1"}')
        assert (await desk.taken.get()).text == "1"
        await mesh.kv.put("doc.a.raw", '{"text": "2"}')
        await mesh.kv.put("doc.b.raw", '{"text": "b"}')
        assert (await desk.taken.get()).text == "b"
        assert desk.taken.empty()
        desk.go.set()
        assert (await desk.taken.get()).text == "2"


async def test_what_is_no_payload_is_a_dead_letter_and_blocks_nothing(server, mesh, open_desk):
    async with watching(server.url, open_desk, resume="desk") as pump:
        await mesh.kv.put("doc.a.raw", "no json")
        await mesh.kv.put("doc.b.raw", '{"text": "x"}')
        assert (await open_desk.taken.get()).id == "b"
        await spin(pump.dead_letters.list)
        (letter,) = pump.dead_letters.list()
        assert (letter.wire, letter.target, letter.code) == (b"no json", "desk", "validation")
        assert "doc.a.raw" in letter.detail


async def test_what_fails_is_a_dead_letter_that_can_be_retried(server, mesh, open_desk):
    open_desk.fails = True
    async with watching(server.url, open_desk, resume="desk") as pump:
        await mesh.kv.put("doc.a.raw", '{"text": "x"}')
        await open_desk.taken.get()
        await pump.wait_idle()
        (letter,) = pump.dead_letters.list()
        assert b"<key>doc.a.raw</key>" in letter.wire
        open_desk.fails = False
        await pump.dead_letters.retry(letter.id)
        assert (await open_desk.taken.get()).id == "a"


async def test_messages_become_keys(server, mesh):
    pump = organism(server.url, kv=[{"put": "doc.{id}.words", "listener": "out", "payload_class": Extracted}])

    async def extract(document: Document, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(Extracted(document.id, len(document.text.split())), "out")

    pump.register("extract", extract, Document)
    async with pump:
        await pump.inject("extract", Document("a", "one two"))
        await pump.wait_idle()
        assert await mesh.kv.get("doc.a.words") == '{"id":"a","words":2}'


@pytest.mark.parametrize("key", ["a.b", "", "*", ">", "a b", "ä"])
async def test_no_payload_reaches_another_key(server, mesh, key):
    pump = organism(server.url, kv=[{"put": "doc.{id}.words", "listener": "out", "payload_class": Extracted}])
    async with pump:
        with pytest.raises(ValidationError):
            await pump.request("out", Extracted(key, 1))
        assert [entry.key for entry in await mesh.kv.list(">")] == []


async def test_a_pipeline_of_two_stages_over_keys(server, mesh):
    pump = organism(
        server.url,
        kv=[
            {"watch": "doc.{id}.raw", "to": "extract", "payload_class": Document, "resume": "extract"},
            {"put": "doc.{id}.words", "listener": "out", "payload_class": Extracted},
        ],
    )

    async def extract(document: Document, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(Extracted(document.id, len(document.text.split())), "out")

    pump.register("extract", extract, Document)
    async with pump:
        for number in range(10):
            await mesh.kv.put(f"doc.{number}.raw", '{"text": "a b c"}')
        seen = set()
        async for entry in mesh.kv.watch_entries("doc.*.words"):
            seen.add(entry.key)
            if len(seen) == 10:
                break


# -- no echo -----------------------------------------------------------------------------------------------------------


def echoing(url, desk, name="org", **entry):
    """Puts what it watches."""
    put = {"put": "doc.{id}.raw", "listener": "out", "payload_class": Document}
    watch = {"watch": "doc.{id}.raw", "to": "desk", "payload_class": Document}
    pump = organism(url, name, kv=[put, {**watch, **entry}])
    pump.register("desk", desk.take, Document)
    return pump


async def put_by(pump, key):
    await pump.inject("out", Document(key, "own"))
    await pump.wait_idle()


@pytest.mark.parametrize("resume", ["", "desk"])
async def test_what_the_organism_puts_does_not_come_back(server, mesh, open_desk, resume):
    async with echoing(server.url, open_desk, resume=resume) as pump:
        await put_by(pump, "a")
        await mesh.kv.put("doc.b.raw", '{"text": "of others"}')
        assert await open_desk.taken.get() == Document("b", "of others")
        await put_by(pump, "b")
        await mesh.kv.put("doc.a.raw", '{"text": "of others"}')
        assert await open_desk.taken.get() == Document("a", "of others")
        assert await mesh.kv.get("doc.b.raw") == '{"id":"b","text":"own"}'


@pytest.mark.parametrize("resume", ["", "desk"])
async def test_it_does_where_that_is_wanted(server, open_desk, resume):
    async with echoing(server.url, open_desk, resume=resume, echo=True) as pump:
        await put_by(pump, "a")
        assert await open_desk.taken.get() == Document("a", "own")


@pytest.mark.parametrize("resume", ["", "desk"])
async def test_nor_does_it_reach_another_node_of_the_organism(server, mesh, open_desk, resume):
    nodes = [echoing(server.url, open_desk, resume=resume) for _ in range(3)]
    async with nodes[0], nodes[1], nodes[2]:
        for number, node in enumerate(nodes):
            await put_by(node, f"own{number}")
        await mesh.kv.put("doc.b.raw", '{"text": "of others"}')
        wanted = 1 if resume else len(nodes)  # with a name they share the changes
        assert [(await open_desk.taken.get()).id for _ in range(wanted)] == ["b"] * wanted
    assert open_desk.taken.empty()


async def test_nor_when_it_starts_again(server, mesh, open_desk):
    async with echoing(server.url, open_desk) as pump:
        await put_by(pump, "a")
    async with echoing(server.url, open_desk):
        await mesh.kv.put("doc.b.raw", '{"text": "of others"}')
        assert (await open_desk.taken.get()).id == "b"


async def test_another_organism_gets_it(server, desk, open_desk):
    async with (
        echoing(server.url, open_desk, "other ☃\u00a0organism", resume="other"),
        echoing(server.url, desk) as pump,
    ):
        await put_by(pump, "a")
        assert await open_desk.taken.get() == Document("a", "own")


async def test_a_plain_peer_sees_a_plain_value(server, peer, open_desk):
    bucket = peer.jetstream()
    async with echoing(server.url, open_desk) as pump:
        await put_by(pump, "a")
        entry = await (await bucket.key_value("mesh-context")).get("doc.a.raw")
        assert entry.value == b'{"id":"a","text":"own"}'
        assert entry.operation is None


async def test_what_a_plain_peer_puts_in_its_place_is_of_others(server, peer, open_desk):
    async with echoing(server.url, open_desk) as pump:
        await put_by(pump, "a")
        await (await peer.jetstream().key_value("mesh-context")).put("doc.a.raw", b'{"text": "of others"}')
        assert await open_desk.taken.get() == Document("a", "of others")
