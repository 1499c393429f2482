"""Keys and files shared with the real SDK of version 0.2.0, and with its kind of client."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import nats.js.errors
import pytest

from xml_pipeline.mesh import KVEntry

oam = pytest.importorskip("openagentmesh")


@pytest.fixture
async def theirs(server):
    async with oam.AgentMesh(server.url) as theirs:
        yield theirs


async def test_each_reads_what_the_other_wrote(mesh, theirs):
    ours_first = await mesh.kv.put("ours", "é")
    theirs_first = await theirs.kv.put("theirs", "è")
    assert theirs_first == ours_first + 1
    assert await theirs.kv.get("ours") == "é"
    assert await mesh.kv.entry("theirs") == KVEntry("theirs", "è".encode(), theirs_first)
    await theirs.kv.delete("ours")
    await mesh.kv.delete("theirs")
    assert await mesh.kv.list(">") == []
    with pytest.raises(nats.js.errors.KeyNotFoundError):
        await theirs.kv.get("theirs")


async def test_each_loses_against_the_other(mesh, theirs):
    await mesh.kv.create("a", "1")
    async with mesh.kv.try_cas("a") as entry:
        async with theirs.kv.cas("a") as their_entry:
            their_entry.value = "theirs"
        entry.value = "ours"
    assert not entry.committed
    with pytest.raises(nats.js.errors.KeyWrongLastSequenceError):
        async with theirs.kv.cas("a") as their_entry:
            await mesh.kv.put("a", "ours")
            their_entry.value = "theirs again"
    assert await theirs.kv.get("a") == "ours"


async def test_both_count(mesh, theirs):
    await mesh.kv.create("n", "0")

    async def write(update, **options) -> None:
        for _ in range(20):
            await update("n", lambda value: str(int(value) + 1), **options)

    # Theirs tries again without a pause, and gives up after ten attempts, which is not what this is about.
    patient = {"max_retries": 10_000}
    await asyncio.gather(write(mesh.kv.update), write(mesh.kv.update), write(theirs.kv.update, **patient))
    assert await theirs.kv.get("n") == "60"


async def test_each_watches_the_other(mesh, theirs):
    await mesh.kv.put("k.1", "there")
    async with aclosing(theirs.kv.watch("k.*")) as seen:
        assert await anext(seen) == "there"
        await mesh.kv.put("k.2", "new")
        assert await anext(seen) == "new"
    for resume in ("", "me"):
        async with aclosing(mesh.kv.watch("k.*", resume=resume)) as values:
            assert [await anext(values) for _ in range(2)] == ["there", "new"]
            await theirs.kv.put("k.3", f"theirs{resume}")
            assert await anext(values) == f"theirs{resume}"
        await mesh.kv.delete("k.3")


async def test_files(mesh, theirs):
    data = bytes(range(256)) * 4000
    await mesh.workspace.put("ours", data)
    await theirs.workspace.put("theirs/é.bin", data)
    assert await theirs.workspace.get("ours") == data
    assert await mesh.workspace.get("theirs/é.bin") == data
    await theirs.workspace.put("ours", "text")
    assert await mesh.workspace.get("ours") == b"text"
    await mesh.workspace.delete("ours")
    with pytest.raises(nats.js.errors.ObjectNotFoundError):
        await theirs.workspace.get("ours")
