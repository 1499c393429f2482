"""Following keys with a cursor on the server (`resume=`)."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from contextlib import aclosing, asynccontextmanager

import pytest

from tests.mesh.kit import Tap, plain_peer, spin
from xml_pipeline.mesh import AgentMesh, ConnectionLost
from xml_pipeline.mesh.bucket import CONTEXT, Bucket
from xml_pipeline.mesh.kv_cursor import Cursor, consumer_name

KEYS = [f"k.{number}" for number in range(6)]


async def put_all(mesh: AgentMesh, keys: list[str] = KEYS) -> None:
    for key in keys:
        await mesh.kv.put(key, key)


@asynccontextmanager
async def cursor_of(mesh: AgentMesh, patience: float = 10.0, pattern: str = "k.*"):
    parts = mesh.parts
    bucket = Bucket(parts.jetstream, CONTEXT)
    cursor = Cursor(parts.link, parts.replies, bucket, pattern, "me", patience)
    try:
        await cursor.start()
        yield cursor
    finally:
        await cursor.stop()
        await cursor.stop()


async def key_of(cursor: Cursor) -> str:
    entry = await asyncio.wait_for(cursor.next(), 20)
    return entry.key


async def bounce(server) -> None:
    server.kill()
    await server.wait()
    await server.stop()
    await server.start()


# -- one reader after the other


async def test_it_goes_on_where_the_last_loop_was_left(mesh, server):
    await put_all(mesh)
    async with AgentMesh(server.url) as first, aclosing(first.kv.watch_entries("k.*", resume="me")) as entries:
        assert [(await anext(entries)).key for _ in range(3)] == KEYS[:3]
    await mesh.kv.put("k.0", "again")
    async with AgentMesh(server.url) as second, aclosing(second.kv.watch_entries("k.*", resume="me")) as entries:
        found = [await anext(entries) for _ in range(5)]
    # The third was not handled, for nobody asked for the next.
    assert sorted(entry.key for entry in found) == ["k.0", *KEYS[2:]]
    assert [entry.value for entry in found if entry.key == "k.0"] == [b"again"]


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
async def test_however_the_loop_is_left_the_value_comes_again_at_once(mesh, how):
    await put_all(mesh, KEYS[:1])
    at_work = asyncio.Event()

    async def read() -> None:
        async for _ in mesh.kv.watch("k.*", resume="me"):
            at_work.set()
            if how == "break":
                break
            if how == "raise":
                raise RuntimeError
            await asyncio.Event().wait()

    reader = asyncio.create_task(read())
    await at_work.wait()
    if how == "cancel":
        reader.cancel()
    await asyncio.wait([reader])
    async with aclosing(mesh.kv.watch("k.*", resume="me")) as values:
        async with asyncio.timeout(5):  # less than it takes when nobody hands it back
            assert await anext(values) == "k.0"


async def test_a_deletion_is_a_change_and_the_values_skip_it(mesh):
    await put_all(mesh, KEYS[:2])
    await mesh.kv.delete("k.0")
    async with aclosing(mesh.kv.watch_entries("k.*", resume="entries")) as entries:
        found = [await anext(entries) for _ in range(2)]
        assert [(entry.key, entry.operation) for entry in found] == [("k.1", "PUT"), ("k.0", "DEL")]
    async with aclosing(mesh.kv.watch("k.*", resume="values")) as values:
        assert await anext(values) == "k.1"
        await mesh.kv.put("k.2", "new")
        assert await anext(values) == "new"


async def test_one_name_may_be_used_for_several_patterns_and_may_be_any_text(mesh):
    await put_all(mesh, ["a.1", "b.1"])
    for pattern, value in (("a.*", "a.1"), ("b.*", "b.1"), (">", "a.1")):
        async with aclosing(mesh.kv.watch(pattern, resume="ein Name. mit * und >")) as values:
            assert await anext(values) == value
    with pytest.raises(ValueError, match="1 to 200"):
        await anext(mesh.kv.watch("a.*", resume="x" * 201))
    names = {consumer_name(name, pattern) for name in ("a.b", "a_b") for pattern in ("x", "y")}
    assert len(names) == 4


# -- several readers


async def test_loops_of_one_name_share_the_changes(mesh, server):
    keys = [f"k.{number}" for number in range(40)]
    await put_all(mesh, keys[:20])
    seen: list[tuple[int, str]] = []
    all_seen = asyncio.Event()

    async def read(number: int, kv) -> None:
        async for entry in kv.watch_entries("k.*", resume="me"):
            seen.append((number, entry.key))
            await asyncio.sleep(0)
            if len(seen) == len(keys):
                all_seen.set()

    async with AgentMesh(server.url) as other:
        readers = [asyncio.create_task(read(n, kv)) for n, kv in enumerate((mesh.kv, mesh.kv, other.kv, other.kv))]
        await put_all(mesh, keys[20:])
        async with asyncio.timeout(20):
            await all_seen.wait()
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
    assert sorted(key for _, key in seen) == sorted(keys)
    assert len({number for number, _ in seen}) > 1


async def test_what_a_killed_process_had_handled_does_not_come_again(mesh, server):
    await put_all(mesh)
    program = f"""
        import asyncio
        from xml_pipeline.mesh import AgentMesh
        from xml_pipeline.mesh.bucket import CONTEXT, Bucket
        from xml_pipeline.mesh.kv_cursor import Cursor

        async def main():
            async with AgentMesh({server.url!r}) as mesh:
                parts = mesh.parts
                cursor = Cursor(parts.link, parts.replies, Bucket(parts.jetstream, CONTEXT), "k.*", "me", 1.0)
                await cursor.start()
                for _ in range(3):
                    print((await cursor.next()).key, flush=True)
                await asyncio.Event().wait()

        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert [(await process.stdout.readline()).decode().strip() for _ in range(3)] == KEYS[:3]
    process.kill()
    await process.communicate()
    async with cursor_of(mesh, patience=1.0) as cursor:
        assert sorted([await key_of(cursor) for _ in range(4)]) == KEYS[2:]


async def test_a_value_that_takes_long_is_not_given_to_another(mesh, server):
    await put_all(mesh, KEYS[:1])
    async with plain_peer(server.url) as peer, AgentMesh(server.url) as other:
        tap = await Tap.on(peer, "$JS.ACK.>")
        async with cursor_of(mesh, patience=0.6) as cursor, cursor_of(other, patience=0.6) as second:
            assert await key_of(cursor) == "k.0"
            theirs = asyncio.create_task(second.next())
            for _ in range(6):  # twice the patience
                assert (await tap.next()).data == b"+WPI"
            assert not theirs.done()
            await put_all(mesh, KEYS[1:2])
            assert (await theirs).key == "k.1"


# -- trouble


async def test_crashes_of_the_server_lose_nothing_and_repeat_nothing(lasting_server):
    seen = []
    async with AgentMesh(lasting_server.url) as mesh, cursor_of(mesh) as cursor:
        for round_ in range(3):
            async with AgentMesh(lasting_server.url) as other:
                await put_all(other, [f"k.{round_}-before"])
            seen.append(await key_of(cursor))
            await bounce(lasting_server)
            async with AgentMesh(lasting_server.url) as other:
                await put_all(other, [f"k.{round_}-while"])
            seen.append(await key_of(cursor))
    assert seen == [f"k.{round_}-{when}" for round_ in range(3) for when in ("before", "while")]


async def test_a_crash_while_it_waits(lasting_server):
    async with AgentMesh(lasting_server.url) as mesh, cursor_of(mesh) as cursor:
        waiting = asyncio.create_task(key_of(cursor))
        await bounce(lasting_server)
        async with AgentMesh(lasting_server.url) as other:
            await put_all(other, KEYS[:1])
        assert await waiting == "k.0"


async def test_a_confirmation_that_is_lost_is_said_again(mesh, monkeypatch):
    await put_all(mesh, KEYS[:2])
    replies, said = mesh.parts.replies, []
    ask = replies.ask

    async def lossy(subject, body, timeout, headers=None):
        if subject.startswith("$JS.ACK."):
            said.append(body)
            if len(said) == 1:
                raise ConnectionLost
        return await ask(subject, body, timeout, headers)

    monkeypatch.setattr(replies, "ask", lossy)
    async with cursor_of(mesh) as cursor:
        assert await key_of(cursor) == "k.0"
        assert await key_of(cursor) == "k.1"
    assert said == [b"+ACK", b"+ACK"]
    async with cursor_of(mesh) as cursor:
        assert await key_of(cursor) == "k.1"


async def test_what_was_handled_and_comes_again_all_the_same_is_passed_over(mesh, monkeypatch):
    """As after a crash of the server that forgot the confirmation."""
    await put_all(mesh, KEYS[:1])
    ask = mesh.parts.replies.ask
    swallowed = []

    async def forgetful(subject, body, timeout, headers=None):
        if subject.startswith("$JS.ACK.") and not swallowed:
            swallowed.append(subject)
            return await ask(subject, b"-NAK", timeout, headers)
        return await ask(subject, body, timeout, headers)

    monkeypatch.setattr(mesh.parts.replies, "ask", forgetful)
    async with cursor_of(mesh) as cursor:
        assert await key_of(cursor) == "k.0"
        following = asyncio.create_task(key_of(cursor))
        await put_all(mesh, KEYS[1:2])
        assert await following == "k.1"
    assert swallowed


async def test_a_bucket_that_was_replaced_is_read_from_its_beginning(mesh):
    await put_all(mesh, KEYS[:2])
    async with cursor_of(mesh) as cursor:
        assert await key_of(cursor) == "k.0"
        await mesh.parts.jetstream.api("STREAM.DELETE.KV_mesh-context")
        await put_all(mesh, KEYS[3:5])
        assert [await key_of(cursor) for _ in range(2)] == KEYS[3:5]


async def test_a_cursor_that_was_removed_while_it_waits_is_made_again(quick_heartbeat, mesh):
    async with cursor_of(mesh) as cursor:
        waiting = asyncio.create_task(key_of(cursor))
        name = consumer_name("me", "k.*")
        await spin(lambda: cursor._is_asking)
        await mesh.parts.jetstream.api(f"CONSUMER.DELETE.KV_mesh-context.{name}")
        await put_all(mesh, KEYS[:1])
        assert await waiting == "k.0"


async def test_what_others_write_to_its_inbox_does_not_confuse_it(mesh):
    async with cursor_of(mesh) as cursor:
        waiting = asyncio.create_task(key_of(cursor))
        await asyncio.sleep(0)
        for reply in ("", "_INBOX.x", "$JS.ACK.x.y.1.a.b.c.d"):
            await mesh.parts.link.publish(f"{cursor._inbox}.1", b"forged", reply)
        await mesh.parts.link.publish(f"{cursor._inbox}.77", b"", headers={"Status": "409"})
        await put_all(mesh, KEYS[:1])
        assert await waiting == "k.0"


async def test_a_loop_can_be_told_to_end_after_the_change_that_it_is_at(mesh):
    for number in range(5):
        await mesh.kv.put(f"k.{number}", "")
    enough, first = asyncio.Event(), []
    async with aclosing(mesh.kv.watch_entries("k.*", resume="r", until=enough)) as entries:
        async for entry in entries:
            first.append(entry.key)
            if len(first) == 3:
                enough.set()
    rest = []
    async with aclosing(mesh.kv.watch_entries("k.*", resume="r")) as entries:
        async for entry in entries:
            rest.append(entry.key)
            if entry.key == "k.4":
                break
    assert (first, rest) == (["k.0", "k.1", "k.2"], ["k.3", "k.4"])  # the third counts as handled


@pytest.mark.parametrize("resume", ["", "r"])
async def test_a_loop_that_waits_ends_when_it_is_told_to(mesh, resume):
    enough = asyncio.Event()

    async def read() -> list[str]:
        return [entry.key async for entry in mesh.kv.watch_entries("k.*", resume=resume, until=enough)]

    reading = asyncio.create_task(read())
    await mesh.kv.put("k.1", "")
    await spin(lambda: reading.done() or mesh.parts.watches._open)
    enough.set()
    assert await reading in ([], ["k.1"])
    assert await read() == []  # it was told before it began
