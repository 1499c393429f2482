from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from xml_pipeline.mesh import ConnectionLost, NotFound, Overloaded
from xml_pipeline.mesh.inbound import Inbound


@dataclass
class Arrived:
    data: bytes
    subject: str = "x"
    reply: str = ""
    headers: dict[str, str] | None = None


async def test_messages_come_out_in_order():
    inbound = Inbound("x")
    for number in range(3):
        inbound.put(Arrived(b"%d" % number))
    assert [(await inbound.get(None)).data for _ in range(3)] == [b"0", b"1", b"2"]
    assert len(inbound) == 0


async def test_whoever_waits_is_woken():
    inbound = Inbound("x")
    waiting = asyncio.create_task(inbound.get(None))
    await asyncio.sleep(0)
    inbound.put(Arrived(b"1"))
    assert (await waiting).data == b"1"


async def test_nothing_in_time_is_none():
    assert await Inbound("x").get(0.001) is None


async def test_what_came_before_a_failure_can_still_be_taken():
    inbound = Inbound("x")
    inbound.put(Arrived(b"1"))
    inbound.fail(ConnectionLost())
    inbound.fail(NotFound())
    inbound.put(Arrived(b"2"))
    assert (await inbound.get(None)).data == b"1"
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            await inbound.get(None)


async def test_a_failure_wakes_whoever_waits():
    inbound = Inbound("x")
    waiting = asyncio.create_task(inbound.get(None))
    await asyncio.sleep(0)
    inbound.fail(ConnectionLost())
    with pytest.raises(ConnectionLost):
        await waiting


async def test_a_cancelled_reader_loses_nothing():
    inbound = Inbound("x")
    waiting = asyncio.create_task(inbound.get(None))
    await asyncio.sleep(0)
    inbound.put(Arrived(b"1"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await inbound.get(None)).data == b"1"


async def test_it_does_not_grow_without_end():
    inbound = Inbound("the stream of a", most=10)
    inbound.put(Arrived(b"12345678"))
    inbound.put(Arrived(b"123"))
    assert (await inbound.get(None)).data == b"12345678"
    with pytest.raises(Overloaded, match="the stream of a"):
        await inbound.get(None)
