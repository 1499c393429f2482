"""`mesh.workspace`, and the store of objects below it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mesh.kit import plain_peer
from xml_pipeline.mesh import AgentMesh, ConnectionLost, KVInvalidKey, ObjectNotFound, StorageError
from xml_pipeline.mesh.bucket import ARTIFACTS

STREAM = f"OBJ_{ARTIFACTS}"
PIECE = 128 * 1024


async def state(mesh: AgentMesh) -> dict:
    info = await mesh.parts.jetstream.api(f"STREAM.INFO.{STREAM}", {"subjects_filter": ">"})
    return info["state"]


async def pieces(mesh: AgentMesh) -> int:
    subjects = (await state(mesh)).get("subjects") or {}
    return sum(count for subject, count in subjects.items() if ".C." in subject)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 40 * PIECE + 17])
async def test_what_is_put_is_got(mesh, size):
    data = bytes(number % 251 for number in range(size))
    await mesh.workspace.put("f", data)
    assert await mesh.workspace.get("f") == data
    assert await pieces(mesh) == -(-size // PIECE)


async def test_text_is_stored_as_utf8(mesh):
    await mesh.workspace.put("f", "é")
    assert await mesh.workspace.get("f") == "é".encode()
    await mesh.workspace.put("f", bytearray(b"x"))
    assert await mesh.workspace.get("f") == b"x"


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable()))
def test_any_text_is_a_name(name, mesh_in_thread):
    mesh_in_thread(name)


@pytest.fixture
def mesh_in_thread(server):
    """Puts and gets under a name, in a loop of its own: hypothesis calls functions, not coroutines."""
    from concurrent.futures import ThreadPoolExecutor

    async def there_and_back(name: str) -> None:
        async with AgentMesh(server.url) as mesh:
            await mesh.workspace.put(name, name)
            assert await mesh.workspace.get(name) == name.encode()

    with ThreadPoolExecutor(1) as pool:
        yield lambda name: pool.submit(asyncio.run, there_and_back(name)).result(30)


@pytest.mark.parametrize("name", ["", None, 1, "x" * 501, "\ud800"])
async def test_what_is_no_name(mesh, name):
    for verb in (lambda: mesh.workspace.put(name, b""), lambda: mesh.workspace.get(name)):
        with pytest.raises(KVInvalidKey):
            await verb()


async def test_what_is_no_content(mesh):
    with pytest.raises(TypeError, match="not dict"):
        await mesh.workspace.put("f", {})
    assert await mesh.parts.jetstream.stream(STREAM) is None


async def test_what_is_not_there(mesh):
    """The bucket is made when something is put into it, and not before."""
    for verb in (lambda: mesh.workspace.get("f"), lambda: mesh.workspace.delete("f")):
        with pytest.raises(ObjectNotFound) as caught:
            await verb()
        assert caught.value.key == "f"
    assert await mesh.parts.jetstream.stream(STREAM) is None
    await mesh.workspace.put("other", b"x")
    with pytest.raises(ObjectNotFound):
        await mesh.workspace.get("f")


async def test_what_is_deleted_is_gone_with_its_pieces(mesh):
    await mesh.workspace.put("f", b"x" * 2 * PIECE)
    await mesh.workspace.delete("f")
    for verb in (lambda: mesh.workspace.get("f"), lambda: mesh.workspace.delete("f")):
        with pytest.raises(ObjectNotFound):
            await verb()
    assert await pieces(mesh) == 0
    await mesh.workspace.put("f", b"again")
    assert await mesh.workspace.get("f") == b"again"


async def test_of_many_who_put_the_same_one_stays_and_its_pieces_only(mesh, server):
    async with AgentMesh(server.url) as other:
        contents = [bytes([number]) * (2 * PIECE + number) for number in range(8)]
        spaces = (mesh.workspace, other.workspace) * 4
        await asyncio.gather(*(space.put("f", data) for space, data in zip(spaces, contents, strict=True)))
        assert await mesh.workspace.get("f") in contents
        assert await pieces(mesh) == 3


async def test_readers_get_whole_objects_while_they_are_replaced(mesh, server):
    async with AgentMesh(server.url) as other:
        await mesh.workspace.put("f", bytes([0]) * 20 * PIECE)
        done = asyncio.Event()

        async def replace() -> None:
            for number in range(1, 15):
                await mesh.workspace.put("f", bytes([number]) * 20 * PIECE)
            done.set()

        writing = asyncio.create_task(replace())
        read = 0
        while not done.is_set():
            data = await other.workspace.get("f")
            assert data == data[:1] * 20 * PIECE
            read += 1
        await writing
        assert read


async def test_a_damaged_object_is_not_taken_for_a_whole_one(mesh):
    await mesh.workspace.put("f", b"x" * 3 * PIECE)
    found = await mesh.parts.jetstream.api(f"STREAM.INFO.{STREAM}", {"subjects_filter": ">"})
    subject = next(subject for subject in found["state"]["subjects"] if ".C." in subject)
    await mesh.parts.jetstream.api(f"STREAM.PURGE.{STREAM}", {"filter": subject, "keep": 2})
    with pytest.raises(StorageError, match="damaged"):
        await mesh.workspace.get("f")


async def test_a_put_that_fails_leaves_the_earlier_one_and_no_pieces(mesh, monkeypatch):
    await mesh.workspace.put("f", b"earlier")
    publish, sent = mesh.parts.jetstream.publish, []

    async def failing(subject, body, headers=None):
        sent.append(subject)
        if len(sent) == 5:
            raise ConnectionLost
        return await publish(subject, body, headers)

    monkeypatch.setattr(mesh.parts.jetstream, "publish", failing)
    with pytest.raises(ConnectionLost):
        await mesh.workspace.put("f", b"x" * 10 * PIECE)
    assert await mesh.workspace.get("f") == b"earlier"
    assert await pieces(mesh) == 1


async def test_reading_leaves_nothing_on_the_server(mesh):
    await mesh.workspace.put("f", b"x" * 3 * PIECE)
    await asyncio.gather(*(mesh.workspace.get("f") for _ in range(5)))
    consumers = await mesh.parts.jetstream.api(f"CONSUMER.NAMES.{STREAM}")
    assert not consumers["consumers"]


async def test_it_is_a_store_like_any_other(mesh, server):
    """What a plain client makes and reads is what we make and read."""
    data = bytes(range(256)) * 2000
    async with plain_peer(server.url) as peer:
        theirs = await peer.jetstream().create_object_store(ARTIFACTS)
        await theirs.put("theirs", data)
        await mesh.workspace.put("ours", data)
        assert await mesh.workspace.get("theirs") == data
        assert (await theirs.get("ours")).data == data
        info = await theirs.get_info("ours")
        assert (info.name, info.bucket, info.size, info.chunks) == ("ours", ARTIFACTS, len(data), 4)
        await theirs.delete("ours")
        with pytest.raises(ObjectNotFound):
            await mesh.workspace.get("ours")
        await mesh.workspace.put("theirs", b"")
        assert (await theirs.get("theirs")).data == b""
        assert await pieces(mesh) == 0


async def test_a_plain_client_finds_the_store_that_we_made(mesh, peer):
    await mesh.workspace.put("f", b"x")
    theirs = await peer.jetstream().object_store(ARTIFACTS)
    assert (await theirs.get("f")).data == b"x"
    ours = (await theirs.status()).stream_info.config
    plain = (await (await peer.jetstream().create_object_store("plain")).status()).stream_info.config
    for name in ("max_msgs_per_subject", "num_replicas", "storage", "retention", "discard", "allow_direct", "max_age"):
        assert getattr(ours, name) == getattr(plain, name), name
    assert ours.allow_rollup_hdrs
