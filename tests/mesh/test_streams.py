"""Streams, end to end, and against hosts that get it wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.mesh.kit import Ask, Chunk, Tap, chunks_on
from xml_pipeline.mesh import (
    AgentSpec,
    ChunkSequenceError,
    HandlerError,
    InvalidInput,
    InvalidReply,
    InvocationMismatch,
    MeshError,
    MeshTimeout,
    NotFound,
)


async def collect(stream) -> list:
    return [chunk async for chunk in stream]


async def test_chunks_come_in_order(host, mesh):
    chunks_on(host)
    async with host:
        assert await collect(mesh.stream("demo.chunks", Ask(message="m", n=3))) == [
            {"delta": "m0"},
            {"delta": "m1"},
            {"delta": "m2"},
        ]
        assert await collect(mesh.stream("demo.chunks", {"message": "m"}, result_type=Chunk)) == [Chunk(delta="m0")]
        many = await collect(mesh.stream("demo.chunks", {"message": "m", "n": 5000}))
        assert [one["delta"] for one in many] == [f"m{number}" for number in range(5000)]


async def test_a_stream_of_none(host, mesh):
    @host.agent(AgentSpec(name="a.none"))
    async def none(x: int) -> AsyncIterator[int]:
        for number in range(0):
            yield number

    async with host:
        assert await collect(mesh.stream("a.none", 1)) == []


async def test_chunks_of_nothing_are_never_empty(host, mesh):
    @host.agent(AgentSpec(name="a.nothing"))
    async def nothing(x: int) -> AsyncIterator[int | None]:
        yield None
        yield 1

    async with host:
        assert await collect(mesh.stream("a.nothing", 1)) == [{}, 1]


async def test_a_failure_comes_after_the_chunks_before_it(host, mesh):
    @host.agent(AgentSpec(name="a.failing"))
    async def failing(how: str) -> AsyncIterator[int]:
        yield 1
        if how == "mesh":
            raise MeshError("mine", "no more")
        if how == "cancel":
            raise asyncio.CancelledError
        if how == "type":
            yield "text"  # type: ignore[misc]
        raise ValueError("secret")

    async with host:
        for how, code in (
            ("mesh", "mine"),
            ("cancel", "handler_error"),
            ("type", "handler_error"),
            ("", "handler_error"),
        ):
            got = []
            with pytest.raises(MeshError) as caught:
                async for chunk in mesh.stream("a.failing", how):
                    got.append(chunk)  # noqa: PERF401
            assert got == [1]
            assert caught.value.code == code
            assert "secret" not in str(caught.value)


async def test_bad_input_is_told(host, mesh):
    chunks_on(host)
    async with host:
        with pytest.raises(InvalidInput):
            await collect(mesh.stream("demo.chunks", {"message": 1}))


async def test_nobody_serves_it(mesh):
    with pytest.raises(NotFound):
        await collect(mesh.stream("nobody", timeout=60.0))


async def test_leaving_early_stops_the_producer(host, mesh):
    produced = 0
    stopped = asyncio.Event()

    @host.agent(AgentSpec(name="a.endless"))
    async def endless(x: int) -> AsyncIterator[int]:
        nonlocal produced
        try:
            while True:
                produced += 1
                yield produced
                await asyncio.sleep(0)
        finally:
            stopped.set()

    async with host:
        stream = mesh.stream("a.endless", 1)
        async for _ in stream:
            break
        await stream.aclose()
        await asyncio.wait_for(stopped.wait(), 10)


async def test_a_consumer_that_is_cancelled_stops_the_producer(host, mesh):
    stopped = asyncio.Event()

    @host.agent(AgentSpec(name="a.stuck"))
    async def stuck(x: int) -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with host:
        got = asyncio.Event()

        async def consume():
            async for _ in mesh.stream("a.stuck", 1):
                got.set()

        task = asyncio.create_task(consume())
        await asyncio.wait_for(got.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(stopped.wait(), 10)


async def test_the_timeout_is_for_a_single_chunk(host, mesh):
    go = asyncio.Event()

    @host.agent(AgentSpec(name="a.pausing"))
    async def pausing(x: int) -> AsyncIterator[int]:
        yield 1
        await go.wait()
        yield 2

    async with host:
        got = []
        with pytest.raises(MeshTimeout, match=r"a\.pausing"):
            async for chunk in mesh.stream("a.pausing", 1, timeout=0.1):
                got.append(chunk)  # noqa: PERF401
        assert got == [1]


async def test_two_streams_of_one_agent_run_at_the_same_time(host, mesh):
    met = asyncio.Barrier(2)

    @host.agent(AgentSpec(name="a.meeting"))
    async def meeting(x: int) -> AsyncIterator[int]:
        await met.wait()
        yield x

    async with host:
        results = await asyncio.gather(*(collect(mesh.stream("a.meeting", number)) for number in range(2)))
        assert results == [[0], [1]]


# -- hosts that get it wrong


async def wrong_host(peer, *frames: tuple[dict[str, str], bytes]) -> None:
    async def answer(message):
        request_id = message.headers["X-Mesh-Request-Id"]
        for headers, body in frames:
            await peer.publish(f"mesh.stream.{request_id}", body, headers={"X-Mesh-Request-Id": request_id, **headers})

    await peer.subscribe("mesh.agent.wrong", "q.wrong", cb=answer)
    await peer.flush()


def chunk(seq, body=b"1"):
    return {"X-Mesh-Stream-Seq": str(seq), "X-Mesh-Stream-End": "false"}, body


def end(seq):
    return {"X-Mesh-Stream-Seq": str(seq), "X-Mesh-Stream-End": "true"}, b""


FAILED = {"X-Mesh-Stream-End": "true", "X-Mesh-Status": "error"}


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([chunk(0), chunk(1), end(2)], 2),
        ([chunk(0), ({}, b""), end(1)], 1),
        ([chunk(0), ({"X-Mesh-Stream-End": "true"}, b"")], 1),
        ([chunk(0), chunk(2), end(3)], ChunkSequenceError),
        ([chunk(0), chunk(0), end(2)], ChunkSequenceError),
        ([chunk(0), end(5)], ChunkSequenceError),
        ([({"X-Mesh-Stream-End": "false"}, b"1")], ChunkSequenceError),
        ([chunk("x")], ChunkSequenceError),
        ([chunk(0, b"{nope"), end(1)], InvalidReply),
        ([(FAILED, b"")], HandlerError),
        ([(FAILED, b"[]")], HandlerError),
    ],
)
async def test_what_a_wrong_host_sends(mesh, peer, frames, expected):
    await wrong_host(peer, *frames)
    if isinstance(expected, int):
        assert len(await collect(mesh.stream("wrong"))) == expected
    else:
        with pytest.raises(expected):
            await collect(mesh.stream("wrong"))


async def test_the_numbers_that_do_not_fit_are_told(mesh, peer):
    await wrong_host(peer, chunk(0), chunk(2))
    with pytest.raises(ChunkSequenceError) as caught:
        await collect(mesh.stream("wrong"))
    assert caught.value.details == {"expected_seq": 1, "got_seq": 2}


# -- callers that get it wrong


async def test_a_stream_without_an_id_is_answered(host, peer):
    chunks_on(host)
    async with host:
        for request_id in ({}, {"X-Mesh-Request-Id": "a b"}, {"X-Mesh-Request-Id": "a.>"}):
            reply = await peer.request(
                "mesh.agent.demo.chunks", b"{}", timeout=10, headers={"X-Mesh-Stream": "true", **request_id}
            )
            assert reply.headers["X-Mesh-Status"] == "error"
            assert MeshError.from_wire(reply.data).code == "invalid_input"


async def test_calling_a_streamer_is_answered_to_the_caller(host, peer, mesh):
    chunks_on(host)
    async with host:
        reply = await peer.request("mesh.agent.demo.chunks", b"{}", timeout=10, headers={"X-Mesh-Request-Id": "r"})
        error = MeshError.from_wire(reply.data)
        assert isinstance(error, InvocationMismatch)
        assert "stream()" in str(error)


async def test_a_host_leaves_the_reply_inbox_of_a_stream_alone(host, peer):
    """Peers that put one there do so to hear that nobody is there; an answer would confuse them."""
    chunks_on(host)
    async with host:
        inbox = await Tap.on(peer, "_INBOX.mine")
        frames = await Tap.on(peer, "mesh.stream.rid-1")
        headers = {"X-Mesh-Request-Id": "rid-1", "X-Mesh-Stream": "true"}
        await peer.publish("mesh.agent.demo.chunks", b'{"message": "m"}', reply="_INBOX.mine", headers=headers)
        assert (await frames.next()).data == b'{"delta":"m0"}'
        assert (await frames.next()).headers["X-Mesh-Stream-End"] == "true"
        assert inbox.messages.empty()


async def test_a_stream_of_one_place_may_stream_from_itself(host):
    """While it waits for the chunks of another one, its place is lent."""

    @host.agent(AgentSpec(name="a.down", max_concurrency=1))
    async def down(n: int) -> AsyncIterator[int]:
        if n:
            async for number in host.stream("a.down", n - 1):
                yield number
        yield n

    async with host:
        assert await asyncio.wait_for(collect(host.stream("a.down", 3)), 20) == [0, 1, 2, 3]


async def test_agents_of_one_place_may_stream_and_call_in_a_circle(host):
    @host.agent(AgentSpec(name="a.caller", max_concurrency=1))
    async def caller(n: int) -> int:
        return sum(await collect(host.stream("a.streamer", n - 1))) if n else 0

    @host.agent(AgentSpec(name="a.streamer", max_concurrency=1))
    async def streamer(n: int) -> AsyncIterator[int]:
        yield 1
        yield await host.call("a.caller", n)

    async with host:
        assert await asyncio.wait_for(host.call("a.caller", 3), 20) == 3
