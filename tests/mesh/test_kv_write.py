"""Writes whose outcome is in doubt."""

from __future__ import annotations

import pytest

from xml_pipeline.mesh import ConnectionLost, KVConflict, KVKeyExists, MeshTimeout
from xml_pipeline.mesh.bucket import CONTEXT, Bucket
from xml_pipeline.mesh.kv_write import ConditionalWrite


class Doubtful:
    """The server's answers to the first writes are lost: before they were stored, or after."""

    def __init__(self, jetstream, is_stored: bool, times: int = 1, meanwhile=None) -> None:
        self._publish = jetstream.publish
        self.is_stored = is_stored
        self.times = times
        self.meanwhile = meanwhile
        self.sent = 0

    async def __call__(self, subject, body, headers=None, **options):
        if not headers or "Nats-Msg-Id" not in headers:
            return await self._publish(subject, body, headers, **options)
        self.sent += 1
        if self.sent > self.times:
            return await self._publish(subject, body, headers, **options)
        if self.is_stored:
            await self._publish(subject, body, headers, **options)
        if self.meanwhile is not None:
            await self.meanwhile()
        raise MeshTimeout if self.sent % 2 else ConnectionLost


@pytest.fixture
def doubtful(mesh, monkeypatch):
    def make(**how):
        publish = Doubtful(mesh.parts.jetstream, **how)
        monkeypatch.setattr(mesh.parts.jetstream, "publish", publish)
        return publish

    return make


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("times", [1, 3])
async def test_an_update_in_doubt_is_done_once(mesh, doubtful, is_stored, times):
    await mesh.kv.put("n", "5")
    publish = doubtful(is_stored=is_stored, times=times)
    await mesh.kv.update("n", lambda value: str(int(value) + 1))
    assert await mesh.kv.get("n") == "6"
    assert publish.sent > times


async def test_an_update_in_doubt_that_others_have_overwritten_is_not_done_again(mesh, doubtful):
    await mesh.kv.put("n", "5")

    async def others() -> None:
        value = await mesh.kv.get("n")
        await mesh.kv.put("n", str(int(value) + 10))

    doubtful(is_stored=True, meanwhile=others)
    await mesh.kv.update("n", lambda value: str(int(value) + 1))
    assert await mesh.kv.get("n") == "16"


@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_creation_in_doubt_is_found_out(mesh, doubtful, is_stored):
    doubtful(is_stored=is_stored)
    revision = await mesh.kv.create("a", "mine")
    assert (await mesh.kv.entry("a")).revision == revision


@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_cas_in_doubt_is_found_out(mesh, doubtful, is_stored):
    await mesh.kv.put("a", "1")
    doubtful(is_stored=is_stored)
    async with mesh.kv.cas("a") as entry:
        entry.value = "2"
    assert entry.committed
    assert (await mesh.kv.entry("a")).revision == entry.revision


async def test_doubt_that_cannot_be_removed_is_raised(mesh, doubtful):
    await mesh.kv.put("a", "1")

    async def others() -> None:
        await mesh.kv.put("a", "theirs")

    for is_stored in (True, False):
        doubtful(is_stored=is_stored, meanwhile=others)
        with pytest.raises(MeshTimeout):
            async with mesh.kv.try_cas("a") as entry:
                entry.value = "2"
        assert entry.attempted_write and not entry.committed


async def test_a_bucket_that_was_removed_is_made_again(mesh):
    await mesh.kv.put("a", "1")
    await mesh.parts.jetstream.api("STREAM.DELETE.KV_mesh-context")
    assert await mesh.kv.create("a", "2") == 1
    await mesh.parts.jetstream.api("STREAM.DELETE.KV_mesh-context")
    with pytest.raises(KVConflict):
        write = ConditionalWrite(mesh.parts.link, Bucket(mesh.parts.jetstream, CONTEXT), "a")
        await write.store(b"3", 99)
    await mesh.kv.put("a", "4")
    with pytest.raises(KVKeyExists):
        await mesh.kv.create("a", "5")
