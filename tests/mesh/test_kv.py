"""`mesh.kv`: single keys, and what is made of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from contextlib import aclosing

import pytest
from pydantic import BaseModel

from xml_pipeline.mesh import (
    AgentMesh,
    AgentSpec,
    ConnectionFailed,
    ConnectionLost,
    InvalidReply,
    KVConflict,
    KVInvalidKey,
    KVKeyExists,
    KVKeyNotFound,
    MeshTimeout,
    PayloadTooLarge,
    Unconfirmed,
)


class Task(BaseModel):
    title: str
    done: bool = False


@pytest.fixture
async def kv(mesh):
    return mesh.kv


@pytest.fixture
async def other(server):
    async with AgentMesh(server.url) as other:
        yield other.kv


# -- one key


async def test_put_get_delete(kv, other):
    first = await kv.put("a.b", "1")
    second = await other.put("a.b", b"\xc3\xa9")
    assert second > first
    assert await kv.get("a.b") == "é"
    entry = await kv.entry("a.b")
    assert (entry.key, entry.value, entry.revision, entry.operation) == ("a.b", b"\xc3\xa9", second, "PUT")
    await kv.delete("a.b")
    with pytest.raises(KVKeyNotFound) as caught:
        await other.get("a.b")
    assert caught.value.key == "a.b"
    await kv.delete("a.b")


async def test_a_key_that_never_was(kv):
    with pytest.raises(KVKeyNotFound):
        await kv.get("never")
    await kv.delete("never")


async def test_an_empty_value_is_a_value(kv):
    await kv.put("a", "")
    assert await kv.get("a") == ""
    assert [entry.key for entry in await kv.list(">")] == ["a"]


@pytest.mark.parametrize("key", ["", "a b", "a.*", ">", "a..b", None])
async def test_what_is_no_key_is_refused_by_every_verb(kv, key):
    for verb in (
        lambda: kv.put(key, "1"),
        lambda: kv.get(key),
        lambda: kv.delete(key),
        lambda: kv.create(key, "1"),
        lambda: kv.update(key, str),
        lambda: kv.cas(key).__aenter__(),
        lambda: kv.try_cas(key).__aenter__(),
    ):
        with pytest.raises(KVInvalidKey):
            await verb()


async def test_what_is_no_value_is_refused_before_anything_is_sent(kv):
    with pytest.raises(TypeError, match="not int"):
        await kv.put("a", 1)
    with pytest.raises(TypeError, match="not dict"):
        await kv.create("a", {})
    with pytest.raises(ValueError, match="surrogates"):
        await kv.put("a", "\ud800")
    assert await kv.list(">") == []


async def test_what_is_too_large_is_refused(kv):
    with pytest.raises(PayloadTooLarge):
        await kv.put("a", b"x" * ((1 << 20) + 1))
    assert await kv.list(">") == []


async def test_a_value_that_is_no_text_says_how_to_read_it(kv):
    await kv.put("a", b"\xff")
    with pytest.raises(InvalidReply, match="`entry` or `watch_entries`"):
        await kv.get("a")
    assert (await kv.entry("a")).value == b"\xff"


async def test_before_entering_and_after_leaving_there_is_none(server):
    mesh = AgentMesh(server.url)
    with pytest.raises(ConnectionFailed):
        _ = mesh.kv
    async with mesh:
        kv = mesh.kv
        await kv.put("a", "1")
    with pytest.raises(ConnectionFailed):
        _ = mesh.workspace
    with pytest.raises(ConnectionFailed):
        await kv.put("a", "2")


async def test_it_first_completes_registrations(host, mesh):
    async with host:

        @host.agent(AgentSpec(name="late", description="Registered late"))
        async def late() -> int:
            return 1

        await host.kv.put("a", "1")
        assert "late" in host.parts.host.names


# -- create


async def test_create_makes_what_is_not_there(kv, other):
    revision = await kv.create("a", Task(title="x"))
    assert (await kv.entry("a")).revision == revision
    with pytest.raises(KVKeyExists) as caught:
        await other.create("a", "y")
    assert caught.value.key == "a"
    await kv.delete("a")
    assert await other.create("a", "z") > revision
    assert await kv.get("a") == "z"


async def test_of_many_who_create_one_succeeds(kv, other):
    outcomes = await asyncio.gather(
        *(store.create("a", str(number)) for number, store in enumerate((kv, other) * 5)), return_exceptions=True
    )
    (won,) = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, int)]
    assert sum(isinstance(outcome, KVKeyExists) for outcome in outcomes) == 9
    assert await kv.get("a") == str(won)


# -- cas


async def test_cas_writes_what_was_changed(kv):
    first = await kv.put("a", "1")
    async with kv.cas("a") as entry:
        assert (entry.key, entry.value, entry.revision) == ("a", "1", first)
        entry.value = "2"
    assert entry.committed and entry.attempted_write and entry.revision > first
    assert await kv.get("a") == "2"


async def test_cas_writes_nothing_when_nothing_was_changed_or_the_block_failed(kv):
    revision = await kv.put("a", "1")
    async with kv.cas("a") as entry:
        entry.value = "1"
    assert entry.committed and not entry.attempted_write
    with pytest.raises(ZeroDivisionError):
        async with kv.cas("a") as entry:
            entry.value = "2"
            1 / 0  # noqa: B018
    assert not entry.committed
    assert (await kv.entry("a")).revision == revision


async def test_cas_loses_with_an_error_and_try_cas_without(kv, other):
    await kv.put("a", "1")
    with pytest.raises(KVConflict) as caught:
        async with kv.cas("a") as entry:
            await other.put("a", "theirs")
            entry.value = "2"
    assert caught.value.key == "a"
    async with kv.try_cas("a") as entry:
        await other.put("a", "theirs again")
        entry.value = "2"
    assert entry.attempted_write and not entry.committed
    assert await kv.get("a") == "theirs again"
    async with kv.try_cas("a") as entry:
        entry.value = "mine"
    assert entry.committed
    assert await kv.get("a") == "mine"


async def test_cas_of_a_key_that_is_not_there(kv):
    for block in (kv.cas("a"), kv.try_cas("a")):
        with pytest.raises(KVKeyNotFound):
            async with block:
                pytest.fail("it was entered")


# -- update


async def test_update_with_functions_of_both_kinds(kv):
    await kv.put("n", "1")
    revision = await kv.update("n", lambda value: str(int(value) + 1))

    async def double(value: str) -> str:
        await asyncio.sleep(0)
        return str(int(value) * 2)

    assert await kv.update("n", double) > revision
    assert await kv.get("n") == "4"


async def test_update_that_changes_nothing_writes_nothing(kv):
    revision = await kv.put("n", "1")
    assert await kv.update("n", lambda value: value) == revision
    assert (await kv.entry("n")).revision == revision


async def test_update_of_a_key_that_is_not_there(kv):
    with pytest.raises(KVKeyNotFound):
        await kv.update("n", str)


async def test_what_the_function_of_update_raises_is_raised(kv):
    await kv.put("n", "x")
    with pytest.raises(ValueError, match="invalid literal"):
        await kv.update("n", lambda value: str(int(value)))
    with pytest.raises(TypeError, match="not NoneType"):
        await kv.update("n", lambda value: None)
    assert await kv.get("n") == "x"


async def test_twenty_writers_lose_nothing(kv, other):
    await kv.create("n", "0")

    async def write(store) -> None:
        for _ in range(50):
            await store.update("n", lambda value: str(int(value) + 1))

    await asyncio.gather(*(write(store) for store in (kv, other) * 10))
    assert await kv.get("n") == "1000"


async def test_update_gives_up_after_as_many_attempts_as_it_is_told(kv, other):
    await kv.put("n", "0")
    seen = []

    async def beaten(value: str) -> str:
        seen.append(value)
        await other.put("n", f"theirs {len(seen)}")
        return "mine"

    with pytest.raises(KVConflict, match="3 attempts"):
        await kv.update("n", beaten, 3)
    assert seen == ["0", "theirs 1", "theirs 2"]
    with pytest.raises(KVConflict):
        await kv.update("n", beaten, timeout=0.01)
    assert (await kv.get("n")).startswith("theirs")


# -- list


async def test_list_has_what_has_a_value(kv):
    assert await kv.list(">") == []
    for key in ("a.x", "b.x", "a.y", "a.z.z"):
        await kv.put(key, key)
    await kv.put("a.x", "again")
    await kv.delete("a.y")
    assert [entry.key for entry in await kv.list(">")] == ["b.x", "a.z.z", "a.x"]
    assert [(entry.key, entry.value, entry.operation) for entry in await kv.list("a.*")] == [("a.x", b"again", "PUT")]
    assert [entry.key for entry in await kv.list("*.x")] == ["b.x", "a.x"]
    assert [entry.key for entry in await kv.list("b.x")] == ["b.x"]


@pytest.mark.parametrize("pattern", ["", "a.>.b", "a b", "a..b", "*a", "a.", None, "x" * 901])
async def test_what_is_no_pattern(kv, pattern):
    with pytest.raises(KVInvalidKey):
        await kv.list(pattern)
    with pytest.raises(KVInvalidKey):
        await anext(kv.watch(pattern))


async def test_list_leaves_nothing_on_the_server(kv, mesh):
    await kv.put("a", "1")
    await asyncio.gather(*(kv.list(">") for _ in range(20)))
    consumers = await mesh.parts.jetstream.api("CONSUMER.NAMES.KV_mesh-context")
    assert not consumers["consumers"]


async def test_list_of_more_than_comes_at_once(kv):
    for number in range(100):
        await kv.put(f"many.{number}", str(number))
    assert [entry.value for entry in await kv.list("many.*")] == [str(number).encode() for number in range(100)]


async def test_list_has_a_deadline(kv):
    await kv.put("a", "1")
    with pytest.raises(MeshTimeout, match="not complete in time"):
        await kv.list(">", timeout=0)


# -- models


async def test_models(kv):
    await kv.put_model("tasks.1", Task(title="x"))
    assert await kv.get("tasks.1") == '{"title":"x","done":false}'
    assert await kv.get_model("tasks.1", Task) == Task(title="x")
    async with kv.cas_model("tasks.1", Task) as entry:
        entry.value.done = True
    assert await kv.get_model("tasks.1", Task) == Task(title="x", done=True)
    async with kv.try_cas_model("tasks.1", Task) as entry:
        entry.value = Task(title="y")
    assert entry.committed
    listed = await kv.list_models("tasks.*", Task)
    assert [(entry.key, entry.value) for entry in listed] == [("tasks.1", Task(title="y"))]


async def test_a_model_that_others_wrote_in_other_words_is_not_changed(kv):
    revision = await kv.put("task", '{ "title": "x" }')
    async with kv.cas_model("task", Task) as entry:
        pass
    assert not entry.attempted_write
    assert (await kv.entry("task")).revision == revision


async def test_what_is_no_such_model(kv, caplog):
    await kv.put("tasks.1", '{"title": 1}')
    await kv.put_model("tasks.2", Task(title="x"))
    with pytest.raises(InvalidReply) as caught:
        await kv.get_model("tasks.1", Task)
    assert caught.value.details["key"] == "tasks.1"
    assert caught.value.details["errors"][0]["loc"] == ("title",)
    with pytest.raises(InvalidReply):
        async with kv.cas_model("tasks.1", Task):
            pytest.fail("it was entered")
    assert [entry.key for entry in await kv.list_models("tasks.*", Task)] == ["tasks.2"]
    assert "tasks.1 is not a Task" in caplog.text


# -- when the server is away


@contextlib.contextmanager
def stopped(server):
    """It is there, and does nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_a_value_that_is_not_confirmed_in_time_may_have_been_stored(lasting_server):
    async with AgentMesh(lasting_server.url) as mesh:
        revision = await mesh.kv.put("a", "1")
        with stopped(lasting_server), pytest.raises(Unconfirmed, match="a may have been written") as caught:
            await mesh.kv.put("a", "2", timeout=0.2)
        assert (caught.value.code, caught.value.timeout, caught.value.details) == ("timeout", 0.2, {"key": "a"})
        async with aclosing(mesh.kv.watch_entries("a")) as entries:
            async for entry in entries:
                if entry.value == b"2":
                    break
        assert entry.revision == revision + 1  # once


async def test_what_could_not_be_sent_was_not_stored(lasting_server):
    async with AgentMesh(lasting_server.url) as mesh:
        revision = await mesh.kv.put("a", "1")
        link = mesh.parts.link
        with stopped(lasting_server):
            while not link.is_congested:
                link.publish_now("b", b"x" * 500_000)
                await asyncio.sleep(0)
            with pytest.raises(MeshTimeout, match="nothing was sent") as caught:
                await mesh.kv.put("a", "2", timeout=0.2)
            assert not isinstance(caught.value, Unconfirmed)
        assert await mesh.kv.put("a", "3") == revision + 1


@pytest.mark.parametrize("timeout", ["1", None, float("nan"), float("inf"), True])
async def test_what_is_no_time_limit_is_refused_before_anything_is_put(kv, timeout):
    with pytest.raises((TypeError, ValueError)):
        await kv.put("a", "1", timeout=timeout)
    with pytest.raises(KVKeyNotFound):
        await kv.get("a")


async def test_without_a_connection_everything_is_refused_at_once(lasting_server):
    async with AgentMesh(lasting_server.url) as mesh:
        kv = mesh.kv
        await kv.put("a", "1")
        lost = asyncio.Event()
        mesh.parts.link.on_lost.append(lambda _: lost.set())
        lasting_server.kill()
        await lost.wait()
        for verb in (
            lambda: kv.put("a", "2"),
            lambda: kv.get("a"),
            lambda: kv.create("b", "2"),
            lambda: kv.update("a", str.upper),
            lambda: kv.list(">"),
            lambda: anext(kv.watch(">")),
            lambda: anext(kv.watch(">", resume="x")),
            lambda: mesh.workspace.put("a", b"1"),
            lambda: mesh.workspace.get("a"),
        ):
            with pytest.raises(ConnectionLost):
                await verb()
        await lasting_server.wait()
        await lasting_server.stop()
        await lasting_server.start()
        await mesh.parts.link.wait_up(20)
        assert await kv.get("a") == "1"


# -- who put it


@pytest.mark.parametrize("resume", ["", "reader"])
async def test_a_value_says_who_put_it(kv, resume):
    await kv.put("a", "1", origin="organism:me")
    await kv.put("b", "2")
    await kv.create("c", "3")
    assert [(entry.key, entry.origin) for entry in await kv.list(">")] == [("a", "organism:me"), ("b", ""), ("c", "")]
    assert (await kv.entry("a")).origin == "organism:me"
    seen = []
    async with aclosing(kv.watch_entries(">", resume=resume)) as entries:
        async for entry in entries:
            seen.append((entry.key, entry.value, entry.origin))
            if entry.key == "c":
                await kv.put("a", "4")  # by nobody in particular, in the place of the other
            if entry.value == b"4":
                break
    assert seen == [("a", b"1", "organism:me"), ("b", b"2", ""), ("c", b"3", ""), ("a", b"4", "")]


@pytest.mark.parametrize("origin", ["a b", "a\r\nX-Mesh-Status: ok", "é", "x" * 201, 5])
async def test_what_is_no_origin_is_refused_before_anything_is_put(kv, origin):
    with pytest.raises(ValueError, match="an origin is"):
        await kv.put("a", "1", origin=origin)
    with pytest.raises(KVKeyNotFound):
        await kv.get("a")
