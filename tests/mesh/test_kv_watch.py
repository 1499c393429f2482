"""Following keys without a cursor."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.mesh.kit import spin
from xml_pipeline.mesh import AgentMesh, ConnectionDenied, ConnectionLost, KVEntry
from xml_pipeline.mesh.kv_watch import Backlog


def entry(key: str, revision: int, value: bytes = b"", operation: str = "PUT") -> KVEntry[bytes]:
    return KVEntry(key, value, revision, operation)


def drained(backlog: Backlog) -> list[tuple[str, int]]:
    taken = []
    while (one := backlog.take()) is not None:
        taken.append((one.key, one.revision))
    return taken


# -- what waits


def test_who_keeps_up_gets_every_change():
    backlog = Backlog(most_entries=3)
    for revision in range(1, 4):
        backlog.add(entry("a", revision))
    assert drained(backlog) == [("a", 1), ("a", 2), ("a", 3)]


def test_of_too_much_the_latest_of_each_key_is_kept():
    backlog = Backlog(most_entries=2)
    for revision, key in enumerate("aabcbabc", 1):
        backlog.add(entry(key, revision))
    assert len(backlog) == 5
    assert drained(backlog) == [("a", 1), ("a", 2), ("b", 7), ("c", 8), ("a", 6)]
    backlog.add(entry("a", 9))
    backlog.add(entry("a", 10))
    assert drained(backlog) == [("a", 9), ("a", 10)]


def test_what_came_later_never_overtakes_what_waits():
    backlog = Backlog(most_entries=1)
    backlog.add(entry("a", 1))
    backlog.add(entry("a", 2))
    assert backlog.take() == entry("a", 1)
    backlog.add(entry("b", 3))
    backlog.add(entry("a", 4))
    assert drained(backlog) == [("a", 4), ("b", 3)]


def test_bytes_count_too_and_one_value_always_fits():
    backlog = Backlog(most_bytes=10)
    backlog.add(entry("a", 1, b"x" * 100))
    backlog.add(entry("a", 2, b"x"))
    backlog.add(entry("a", 3, b"x"))
    assert drained(backlog) == [("a", 1), ("a", 3)]
    for revision in range(4, 15):
        backlog.add(entry("a", revision, b"x"))
    assert drained(backlog) == [("a", revision) for revision in range(4, 15) if revision != 14] + [("a", 14)]


def test_what_was_there_counts_as_deleted_when_the_bucket_is_another_one():
    backlog = Backlog()
    backlog.add(entry("a", 1))
    backlog.add(entry("b", 2))
    backlog.add(entry("b", 3, operation="DEL"))
    backlog.take()
    backlog.reset()
    backlog.add(entry("c", 1))
    taken = [backlog.take() for _ in range(len(backlog))]
    assert [(one.key, one.revision, one.operation) for one in taken] == [("a", 1, "DEL"), ("c", 1, "PUT")]
    backlog.reset()
    assert backlog.take().key == "c"
    assert backlog.take() is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, 3))), st.integers(1, 3))
def test_the_latest_change_of_every_key_arrives_and_none_goes_back_in_time(steps, most):
    """Whatever is added and taken in between: the view of a reader ends as the bucket is."""
    backlog = Backlog(most_entries=most)
    bucket, view, last = {}, {}, {}

    def take() -> bool:
        one = backlog.take()
        if one is None:
            return False
        assert one.revision > last.get(one.key, 0)
        last[one.key] = one.revision
        view[one.key] = one.operation
        return True

    for revision, (key, is_deleted, taken) in enumerate(steps, 1):
        bucket[key] = "DEL" if is_deleted else "PUT"
        backlog.add(entry(key, revision, operation=bucket[key]))
        assert len(backlog) <= most + len(bucket)
        for _ in range(taken):
            take()
    while take():
        pass
    assert view == bucket


# -- the loop


async def test_first_what_is_there_then_every_change(mesh):
    kv = mesh.kv
    await kv.put("a.1", "there")
    await kv.put("b.1", "elsewhere")
    async with aclosing(kv.watch("a.*")) as values, aclosing(kv.watch_entries("a.*")) as entries:
        assert await anext(values) == "there"
        assert (await anext(entries)).value == b"there"
        await kv.delete("a.1")
        revision = await kv.put("a.2", "new")
        assert await anext(values) == "new"
        deleted, put = await anext(entries), await anext(entries)
        assert (deleted.key, deleted.value, deleted.operation, deleted.is_deleted) == ("a.1", b"", "DEL", True)
        assert put == KVEntry("a.2", b"new", revision, "PUT")


async def test_every_loop_gets_everything(mesh, server):
    async with (
        AgentMesh(server.url) as other,
        aclosing(mesh.kv.watch("a")) as first,
        aclosing(other.kv.watch("a")) as second,
    ):
        await mesh.kv.put("a", "0")
        assert [await anext(first), await anext(second)] == ["0", "0"]
        for value in ("1", "2", "3"):
            await mesh.kv.put("a", value)
        for values in (first, second):
            assert [await anext(values) for _ in range(3)] == ["1", "2", "3"]


async def test_a_value_that_is_no_text_hides_no_other(mesh, caplog):
    await mesh.kv.put("a", b"\xff")
    await mesh.kv.put("b", "text")
    async with aclosing(mesh.kv.watch(">")) as values:
        assert await anext(values) == "text"
    assert "watch_entries" in caplog.text


async def test_a_slow_reader_gets_the_last_of_each_key(mesh, server):
    async with AgentMesh(server.url) as writer, aclosing(mesh.kv.watch_entries(">")) as entries:
        await writer.kv.put("first", "")
        assert (await anext(entries)).key == "first"
        for number in range(2000):
            await writer.kv.put(f"k.{number % 10}", str(number))
        await writer.kv.put("last", "")
        seen = {}
        async for one in entries:
            if one.key == "last":
                break
            seen[one.key] = one.value
        assert seen == {f"k.{number}": str(1990 + number).encode() for number in range(10)}


async def test_leaving_the_loop_ends_it_on_the_server(mesh):
    await mesh.kv.put("a", "1")
    before = len(mesh.parts.link._subscriptions)
    async for value in mesh.kv.watch("a"):
        assert value == "1"
        break
    await spin(lambda: len(mesh.parts.link._subscriptions) == before)


async def test_nothing_is_missed_when_the_server_crashes(lasting_server):
    async with AgentMesh(lasting_server.url) as mesh, aclosing(mesh.kv.watch_entries(">")) as entries:
        await mesh.kv.put("before", "")
        assert (await anext(entries)).key == "before"
        for round_ in range(3):
            lasting_server.kill()
            await lasting_server.wait()
            await lasting_server.stop()
            await lasting_server.start()
            async with AgentMesh(lasting_server.url) as other:
                await other.kv.put(f"while.{round_}", "")
                await other.kv.delete("before")
            assert [(await anext(entries)).key for _ in range(2)] == [f"while.{round_}", "before"]


async def test_a_connection_that_is_lost_while_it_begins_is_waited_for(mesh, monkeypatch):
    """The first entries may come before the answer to the request that asked for them."""
    await mesh.kv.put("a", "1")
    jetstream, asked = mesh.parts.jetstream, []
    api = jetstream.api

    async def lossy(verb, body=None):
        answer = await api(verb, body)
        if verb.startswith("CONSUMER.CREATE"):
            asked.append(verb)
            if len(asked) == 1:
                raise ConnectionLost
        return answer

    monkeypatch.setattr(jetstream, "api", lossy)
    async with aclosing(mesh.kv.watch(">")) as values:
        assert await anext(values) == "1"
        await mesh.kv.put("a", "2")
        assert await anext(values) == "2"
        await spin(lambda: len(asked) == 2)


async def test_a_bucket_that_was_replaced_is_read_again(quick_heartbeat, mesh, caplog):
    await mesh.kv.put("old", "1")
    async with aclosing(mesh.kv.watch_entries(">")) as entries:
        assert (await anext(entries)).key == "old"
        await mesh.parts.jetstream.api("STREAM.DELETE.KV_mesh-context")
        await mesh.kv.put("new", "2")
        found = [await anext(entries) for _ in range(2)]
        assert [(one.key, one.operation) for one in found] == [("old", "DEL"), ("new", "PUT")]
    assert "was replaced" in caplog.text


async def test_what_is_not_permitted_is_said(mesh, monkeypatch):
    async def denied(*_):
        raise ConnectionDenied("no")

    monkeypatch.setattr(mesh.parts.jetstream, "api", denied)
    for resume in ("", "x"):
        with pytest.raises(ConnectionDenied):
            await anext(mesh.kv.watch(">", resume=resume))
