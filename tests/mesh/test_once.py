"""Names that are taken once."""

from __future__ import annotations

import asyncio

import pytest

from xml_pipeline.mesh import AgentMesh, KVInvalidKey
from xml_pipeline.mesh.once import Forgotten, Once


@pytest.fixture
async def once(server):
    async with AgentMesh(server.url) as mesh:
        once = Once(mesh.parts.jetstream, "test-once", 60.0)
        await once.open()
        yield once


async def test_a_name_is_taken_once_whoever_asks_at_the_same_time(server, once):
    async with AgentMesh(server.url) as other:
        another = Once(other.parts.jetstream, "test-once", 60.0)
        await another.open()
        taken = await asyncio.gather(*((once if number % 2 else another).take("a.b") for number in range(20)))
    assert sorted(taken) == [False] * 19 + [True]
    assert await once.take("a.c")


async def test_it_is_kept_no_longer_than_it_says(once):
    info = await once._jetstream.stream("KV_test-once")
    assert info["config"]["max_age"] == 60_000_000_000


async def test_a_bucket_that_is_gone_is_said_and_made_again(once):
    assert await once.take("a")
    await once._jetstream.api("STREAM.DELETE.KV_test-once")
    with pytest.raises(Forgotten):
        await once.take("a")
    assert await once.take("a")
    assert not await once.take("a")


@pytest.mark.parametrize("key", ["", "a b", "a.*", ">", "a..b"])
async def test_what_is_no_key_is_not_taken(once, key):
    with pytest.raises(KVInvalidKey):
        await once.take(key)
