"""Publishers, subscriptions, plain subjects, and requests nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.mesh.kit import Ask, Tap, Told, chunks_on, echo_on, gated_on, spin
from xml_pipeline.mesh import (
    AgentMesh,
    AgentSpec,
    ConnectionLost,
    HandlerError,
    InvocationMismatch,
    MeshError,
    MeshTimeout,
    NotFound,
)

_OWN = ("_INBOX", "mesh.death.")  # what a mesh object subscribes to by itself


class Tick:
    """A publisher that publishes what it is given."""

    def __init__(self, mesh: AgentMesh, name: str = "demo.ticks") -> None:
        self.queue: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        self.closed = asyncio.Event()

        @mesh.agent(AgentSpec(name=name, description="Publishes"))
        async def ticks() -> AsyncIterator[int]:
            try:
                while (item := await self.queue.get()) is not None:
                    if isinstance(item, Exception):
                        raise item
                    yield item
            finally:
                self.closed.set()


async def start(events) -> asyncio.Task:
    """Collect what is subscribed to, once the subscription is made."""
    task = asyncio.create_task(collect(events))
    await asyncio.sleep(0)
    return task


async def collect(events) -> list:
    return [event async for event in events]


async def subscribed(mesh: AgentMesh, count: int = 1) -> None:
    """Wait until the server knows of this many subscriptions of the mesh object's, besides its own."""
    link = mesh.parts.link
    await spin(lambda: not (sum(1 for one in link._subscriptions if not one.subject.startswith(_OWN)) < count))
    await link.flush()


async def test_events_are_followed_to_the_end(host, mesh):
    ticks = Tick(host)
    async with host:
        task = await start(mesh.subscribe(agent="demo.ticks"))
        await subscribed(mesh)
        for item in (1, 2, None):
            ticks.queue.put_nowait(item)
        assert await asyncio.wait_for(task, 10) == [1, 2]


async def test_a_publisher_that_fails_tells_its_subscribers(host, mesh, peer):
    ticks = Tick(host)
    async with host:
        errors = await Tap.on(peer, "mesh.errors.demo.ticks")
        task = await start(mesh.subscribe(agent="demo.ticks"))
        await subscribed(mesh)
        ticks.queue.put_nowait(1)
        ticks.queue.put_nowait(ValueError("secret"))
        with pytest.raises(HandlerError) as caught:
            await asyncio.wait_for(task, 10)
        assert "secret" not in str(caught.value)
        copy = await errors.next()
        assert copy.headers == {"X-Mesh-Status": "error", "X-Mesh-Instance-Id": host.instance_id}


async def test_a_publisher_that_is_stopped_says_that_this_was_the_end(host, mesh):
    ticks = Tick(host)
    async with host:
        task = await start(mesh.subscribe(agent="demo.ticks"))
        await subscribed(mesh)
        ticks.queue.put_nowait(1)
    assert await asyncio.wait_for(task, 10) == [1]
    assert ticks.closed.is_set()


async def test_a_channel_outlives_its_publishers_and_hides_requests(host, mesh):
    first, second = Tick(host, "news.first"), Tick(host, "news.second")
    echo_on(host, "news.echo")
    async with host:
        task = await start(mesh.subscribe(channel="news", timeout=1.0))
        await subscribed(mesh)
        assert await mesh.call("news.echo", {"message": "x"}) == {"reply": "x"}
        for queue, item in ((first.queue, 1), (first.queue, None), (second.queue, ValueError()), (second.queue, 2)):
            queue.put_nowait(item)
        await mesh.publish("mesh.agent.news.custom", Told(reply="own"))
        with pytest.raises(MeshTimeout):
            await task


async def test_what_a_channel_yields(host, mesh):
    ticks = Tick(host, "news.first")
    async with host:
        events = mesh.subscribe(channel="news")
        following = asyncio.create_task(anext(events))
        await subscribed(mesh)
        ticks.queue.put_nowait(7)
        assert await asyncio.wait_for(following, 10) == 7
        await events.aclose()


async def test_any_subject(mesh):
    events = mesh.subscribe(subject="prices.*", result_type=Told)
    following = asyncio.create_task(anext(events))
    await subscribed(mesh)
    await mesh.publish("prices.gold", Told(reply="1"))
    assert await asyncio.wait_for(following, 10) == Told(reply="1")
    await events.aclose()


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"agent": "a", "subject": "b"},
        {"subject": "a b"},
        {"subject": ""},
        {"channel": "a.*"},
        {"subject": "a\r\nX"},
    ],
)
async def test_what_cannot_be_subscribed_to(mesh, what):
    with pytest.raises(ValueError):
        await anext(mesh.subscribe(**what))


async def test_a_publisher_that_nobody_knows(mesh):
    with pytest.raises(NotFound):
        await anext(mesh.subscribe(agent="nobody"))
    with pytest.raises(NotFound):
        await anext(mesh.subscribe(agent="no body"))


async def test_silence_is_a_timeout(mesh):
    with pytest.raises(MeshTimeout) as caught:
        await anext(mesh.subscribe(subject="quiet", timeout=0.01))
    assert (caught.value.subject, caught.value.timeout) == ("quiet", 0.01)


@pytest.mark.parametrize(
    ("payload", "kind", "body"),
    [
        (Told(reply="x"), "application/json", b'{"reply":"x"}'),
        (b"\x00\x01", "application/octet-stream", b"\x00\x01"),
        ("ä", "text/plain", "ä".encode()),
    ],
)
async def test_what_is_published(mesh, peer, payload, kind, body):
    tap = await Tap.on(peer, "x.y")
    await mesh.publish("x.y", payload, {"X-Own": "1"})
    message = await tap.next()
    assert message.data == body
    assert message.headers["X-Mesh-Content-Type"] == kind
    assert message.headers["X-Mesh-Instance-Id"] == mesh.instance_id
    assert len(message.headers["X-Mesh-Request-Id"]) == 32
    assert message.headers["X-Own"] == "1"


async def test_what_cannot_be_published(mesh):
    with pytest.raises(TypeError):
        await mesh.publish("x.y", {"a": 1})
    for headers in ({"X-Own": 1}, {1: "own"}, {"X-Own": b"1"}):
        with pytest.raises(TypeError, match="header"):
            await mesh.publish("x.y", b"", headers)
    for subject in ("x.*", "x.>", "", "x y", "x\r\nPUB"):
        with pytest.raises(ValueError, match="publish"):
            await mesh.publish(subject, b"")


# -- requests nobody waits for


async def test_a_request_that_nobody_waits_for_is_run(host, mesh):
    ran: asyncio.Queue[int] = asyncio.Queue()

    @host.agent(AgentSpec(name="a.quiet"))
    async def quiet(x: int) -> None:
        ran.put_nowait(x)

    async with host:
        await mesh.send("a.quiet", 5)
        assert await asyncio.wait_for(ran.get(), 10) == 5


async def test_its_failure_is_seen_by_observers_only(host, mesh, peer):
    echo_on(host)
    async with host:
        tap = await Tap.on(peer, "mesh.errors.>")
        await mesh.send("demo.echo", {"message": 1})
        message = await tap.next()
        assert message.subject == "mesh.errors.demo.echo"
        assert MeshError.from_wire(message.data).code == "invalid_input"


async def test_a_callback_gets_the_answer_once_and_no_timeout_after_it(host, mesh):
    echo_on(host)
    replies: asyncio.Queue[object] = asyncio.Queue()
    async with host:
        await mesh.send("demo.echo", Ask(message="x"), on_reply=replies.put, on_error=replies.put, timeout=0.2)
        assert await asyncio.wait_for(replies.get(), 10) == {"reply": "x"}
        assert not mesh.parts.sending._waiting or await asyncio.wait(mesh.parts.sending._waiting)
        assert replies.empty()


async def test_a_callback_may_be_a_plain_function_and_may_fail(host, mesh, caplog):
    echo_on(host)
    called = asyncio.Event()

    def on_reply(value):
        called.set()
        raise ValueError("in the callback")

    async with host:
        await mesh.send("demo.echo", {"message": "x"}, on_reply=on_reply)
        await asyncio.wait_for(called.wait(), 10)
        await spin(lambda: not (mesh.parts.sending._waiting))
        assert "in the callback" in caplog.text


@pytest.mark.parametrize(
    ("name", "payload", "code"),
    [
        ("demo.echo", {"message": 1}, "invalid_input"),
        ("nobody", None, "not_found"),
        ("demo.chunks", None, "invocation_mismatch"),
    ],
)
async def test_a_callback_gets_the_error(host, mesh, name, payload, code):
    echo_on(host)
    chunks_on(host)
    errors: asyncio.Queue[MeshError] = asyncio.Queue()
    async with host:
        await mesh.send(name, payload, on_reply=print, on_error=errors.put)
        assert (await asyncio.wait_for(errors.get(), 10)).code == code


async def test_silence_is_an_error_for_the_callback(mesh, peer):
    await Tap.on(peer, "mesh.agent.deaf")
    errors: asyncio.Queue[MeshError] = asyncio.Queue()
    await mesh.send("deaf", on_reply=print, on_error=errors.put, timeout=0.01)
    assert isinstance(await asyncio.wait_for(errors.get(), 10), MeshTimeout)


async def test_a_lost_connection_is_an_error_for_the_callback(host, mesh):
    """Whether the request was handled is not known, as with a call."""
    gate = gated_on(host)
    errors: asyncio.Queue[MeshError] = asyncio.Queue()
    async with host:
        await mesh.send("demo.gated", 1, on_reply=print, on_error=errors.put, timeout=60.0)
        await gate.begun.get()
        mesh.parts.link._lost(ConnectionLost())
        error = await asyncio.wait_for(errors.get(), 10)
        assert isinstance(error, ConnectionLost)
        assert error.agent == "demo.gated"
        gate.go.set()


async def test_the_answer_can_go_elsewhere(host, mesh, peer):
    echo_on(host)
    async with host:
        requests = await Tap.on(peer, "mesh.agent.demo.echo")
        tap = await Tap.on(peer, "my.reply")
        await mesh.send("demo.echo", {"message": "x"}, reply_to="my.reply")
        assert (await tap.next()).data == b'{"reply":"x"}'
        request = await requests.next()
        assert (request.reply, request.headers["X-Mesh-Reply-To"]) == ("my.reply", "my.reply")


async def test_what_cannot_be_sent(host, mesh):
    Tick(host)
    async with host:
        with pytest.raises(InvocationMismatch, match="publisher"):
            await host.send("demo.ticks")
        with pytest.raises(ValueError, match="mutually exclusive"):
            await mesh.send("x", on_reply=print, reply_to="y")
        with pytest.raises(ValueError, match="subscribe"):
            await mesh.send("x", reply_to="a b")
