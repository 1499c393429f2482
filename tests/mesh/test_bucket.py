from __future__ import annotations

import asyncio

import pytest

from tests.mesh.kit import spin
from xml_pipeline.mesh import KVConflict, KVInvalidKey, StorageError
from xml_pipeline.mesh.bucket import Bucket, check_key
from xml_pipeline.mesh.bucket_watch import BucketWatch
from xml_pipeline.mesh.jetstream import JetStream
from xml_pipeline.mesh.link import Link
from xml_pipeline.mesh.options import ConnectionOptions
from xml_pipeline.mesh.replies import Replies


class Store:
    """A bucket, and a watch of it."""

    def __init__(self, url: str) -> None:
        self.link = Link(ConnectionOptions(url=url))
        self.replies = Replies(self.link)
        self.jetstream = JetStream(self.replies)
        self.bucket = Bucket(self.jetstream, "mesh-test")
        self.seen: asyncio.Queue[object] = asyncio.Queue()
        self.watches: list[BucketWatch] = []

    async def __aenter__(self):
        await self.link.open()
        await self.replies.open()
        await self.bucket.open()
        return self

    async def __aexit__(self, *_):
        for watch in self.watches:
            await watch.stop()
            await watch.stop()
        await self.replies.close()
        await self.link.close()

    async def watch(self, pattern: str = ">") -> BucketWatch:
        watch = BucketWatch(
            self.link,
            self.bucket,
            pattern,
            lambda entry: self.seen.put_nowait((entry.key, entry.value, entry.operation)),
            lambda: self.seen.put_nowait("reset"),
            heartbeat=0.2,
        )
        self.watches.append(watch)
        await watch.start()
        return watch

    async def next(self) -> object:
        return await asyncio.wait_for(self.seen.get(), 20)


@pytest.fixture
async def store(lasting_server):
    async with Store(lasting_server.url) as store:
        yield store


async def test_put_get_delete(store):
    bucket = store.bucket
    assert await bucket.get("a.b") is None
    assert await bucket.put("a.b", b"1") == 1
    assert await bucket.put("a.b", b"2") == 2
    entry = await bucket.get("a.b")
    assert (entry.key, entry.value, entry.revision) == ("a.b", b"2", 2)
    await bucket.delete("a.b")
    assert await bucket.get("a.b") is None
    assert (await bucket.last("a.b")).operation == "DEL"
    await bucket.delete("never")


async def test_writing_on_condition(store):
    bucket = store.bucket
    first = await bucket.put_if("a", b"1", 0)
    with pytest.raises(KVConflict) as caught:
        await bucket.put_if("a", b"x", 0)
    assert caught.value.key == "a"
    second = await bucket.put_if("a", b"2", first)
    with pytest.raises(KVConflict):
        await bucket.put_if("a", b"x", first)
    assert (await bucket.get("a")).revision == second


@pytest.mark.parametrize("key", ["", "a..b", ".a", "a.", "a b", "a*", "a.>", "a\n", "x" * 901, None, "ä"])
def test_what_is_no_key(key):
    with pytest.raises(KVInvalidKey):
        check_key(key)


async def test_it_is_a_bucket_like_any_other(store, lasting_server):
    """What a plain client makes and reads is what we make and read."""
    from tests.mesh.kit import plain_peer

    async with plain_peer(lasting_server.url) as peer:
        theirs = await peer.jetstream().key_value("mesh-test")
        await theirs.put("theirs", b"1")
        assert (await store.bucket.get("theirs")).value == b"1"
        await theirs.delete("theirs")
        assert await store.bucket.get("theirs") is None
        await store.bucket.put("ours", b"2")
        assert (await theirs.get("ours")).value == b"2"
        made = (await theirs.status()).stream_info.config
        other = (await (await peer.jetstream().create_key_value(bucket="plain")).status()).stream_info.config
        same = ("max_msgs_per_subject", "num_replicas", "storage", "retention", "discard", "deny_delete", "deny_purge")
        for name in (*same, "allow_rollup_hdrs", "duplicate_window", "max_age", "max_msgs", "max_consumers"):
            assert getattr(made, name) == getattr(other, name), name


async def test_a_deleted_bucket_is_made_again_by_writing(store):
    await store.jetstream.api("STREAM.DELETE.KV_mesh-test")
    assert await store.bucket.put("a", b"1") == 1
    assert (await store.bucket.get("a")).value == b"1"


async def test_two_who_make_it_at_the_same_time(store):
    other = Bucket(store.jetstream, "mesh-other")
    made = await asyncio.gather(*(other.open() for _ in range(20)))
    assert {info["config"]["name"] for info in made} == {"KV_mesh-other"}


async def test_without_jetstream_the_error_says_so(store):
    with pytest.raises(StorageError) as caught:
        await store.jetstream.publish("nobody.stores.this", b"")
    assert "JetStream" in str(caught.value)


# -- watching


async def test_first_what_is_there_then_every_change(store):
    await store.bucket.put("a", b"1")
    await store.bucket.put("b", b"2")
    await store.bucket.put("a", b"3")
    watch = await store.watch()
    assert watch.is_complete
    assert store.seen.qsize() == 2
    assert [await store.next(), await store.next()] == [("b", b"2", "PUT"), ("a", b"3", "PUT")]
    await store.bucket.put("c", b"4")
    await store.bucket.delete("a")
    assert await store.next() == ("c", b"4", "PUT")
    assert await store.next() == ("a", b"", "DEL")


async def test_only_the_keys_of_the_pattern(store):
    await store.watch("a.*")
    for key in ("b.x", "a.x", "a.x.y", "a.z"):
        await store.bucket.put(key, b"")
    assert await store.next() == ("a.x", b"", "PUT")
    assert await store.next() == ("a.z", b"", "PUT")


async def test_an_empty_bucket_is_complete_at_once(store):
    assert (await store.watch()).is_complete


async def test_no_change_is_missed_and_none_comes_twice_across_crashes(store, lasting_server):
    await store.watch()
    await store.bucket.put("before", b"")
    assert await store.next() == ("before", b"", "PUT")
    for round_ in range(3):
        lasting_server.kill()
        await lasting_server.wait()
        await lasting_server.stop()
        await lasting_server.start()
        async with Store(lasting_server.url) as other:  # quicker than the link of the watch, or not
            await other.bucket.put(f"while.{round_}", b"")
        assert await store.next() == (f"while.{round_}", b"", "PUT")
    assert store.seen.empty()


async def test_a_bucket_that_was_deleted_and_made_again_is_followed(store):
    await store.bucket.put("old", b"1")
    await store.watch()
    assert await store.next() == ("old", b"1", "PUT")
    await store.jetstream.api("STREAM.DELETE.KV_mesh-test")
    await store.bucket.put("new", b"2")
    assert [await store.next(), await store.next()] == ["reset", ("new", b"2", "PUT")]


async def test_a_consumer_that_was_deleted_is_made_again(store):
    await store.watch()
    consumers = await store.jetstream.api("CONSUMER.NAMES.KV_mesh-test")
    for name in consumers["consumers"]:
        await store.jetstream.api(f"CONSUMER.DELETE.KV_mesh-test.{name}")
    await store.bucket.put("a", b"1")
    assert await store.next() == ("a", b"1", "PUT")


async def test_what_others_write_to_its_inbox_does_not_confuse_it(store):
    watch = await store.watch()
    inbox = watch._subscription.subject
    for reply in ("", "$JS.ACK.x.y.1.a.b.c.d", "$JS.ACK.x.y.1.99.99.0.0", "_INBOX.x"):
        await store.link.publish(inbox, b"forged", reply)
    await store.link.publish(inbox, b"", headers={"Status": "100", "Nats-Last-Consumer": "77"})
    await store.bucket.put("a", b"1")
    assert await store.next() == ("a", b"1", "PUT")


async def test_a_message_that_was_lost_on_the_way_is_fetched(store):
    watch = BucketWatch(store.link, store.bucket, ">", lambda entry: store.seen.put_nowait(entry.key))
    store.watches.append(watch)
    arrived, dropped = watch._arrived, []

    def lossy(consumer, message):
        if message.subject.endswith("lost") and not dropped:
            dropped.append(message)
        else:
            arrived(consumer, message)

    watch._arrived = lossy
    await watch.start()
    for key in ("lost", "next"):
        await store.bucket.put(key, b"")
    assert [await store.next(), await store.next()] == ["lost", "next"]
    assert len(dropped) == 1


async def consumers(store) -> list[str]:
    return (await store.jetstream.api("CONSUMER.NAMES.KV_mesh-test"))["consumers"] or []


async def test_stopping_leaves_nothing_on_the_server(store):
    watch = await store.watch()
    assert len(await consumers(store)) == 1
    await watch.stop()
    assert await consumers(store) == []
    await store.bucket.put("a", b"1")
    await store.link.flush()
    assert store.seen.empty()


async def test_it_can_be_stopped_by_several_at_the_same_time_and_while_it_begins(store):
    watch = await store.watch()
    first = asyncio.create_task(watch.stop())
    await spin(lambda: not watch._name)  # it waits for the server
    await watch.stop()
    assert first.done(), "whoever stops it finds it stopped"
    await asyncio.gather(*(watch.stop() for _ in range(3)))
    again = BucketWatch(store.link, store.bucket, ">", lambda entry: None)
    starting = asyncio.create_task(again.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, again.stop(), return_exceptions=True)
    assert await consumers(store) == []
    assert watch._trouble.set not in store.link.on_restored
    assert again._trouble.set not in store.link.on_restored


@pytest.mark.parametrize("turns", range(5))
async def test_it_stops_also_in_the_moment_in_which_something_happens(store, turns):
    """Python 3.11's `asyncio.wait_for` may lose a cancellation that comes together with what it waits for."""
    watch = await store.watch()
    for _ in range(5):
        await asyncio.sleep(0)
    watch._trouble.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await watch.stop()
    assert await consumers(store) == []


async def test_it_is_stopped_without_a_server_too(store, lasting_server):
    watch = await store.watch()
    lasting_server.kill()
    await lasting_server.wait()
    await lasting_server.stop()
    await watch.stop()
    assert watch._task is None


async def test_what_begins_in_vain_leaves_nothing_behind(store):
    """Its end is not waited for any more while the first keys are still on their way."""
    await store.bucket.put("a", b"1")
    watch = BucketWatch(store.link, store.bucket, ">", lambda entry: None)
    watch._arrived = lambda consumer, message: None
    starting = asyncio.create_task(watch.start())
    while not await consumers(store):  # noqa: ASYNC110  # each look is a round trip
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await consumers(store) == []
    assert watch._task is None
