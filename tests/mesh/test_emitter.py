"""How publishers and background tasks end: with what they have in their hands done, and nothing waited for besides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.mesh.kit import spin
from xml_pipeline.mesh import AgentMesh, AgentSpec, ConnectionLost

LONG = 300.0  # a drain timeout that no test lives to see


@pytest.fixture
def host(server):
    return AgentMesh(server.url, drain_timeout=LONG)


async def follow(mesh: AgentMesh, name: str) -> asyncio.Task[list]:
    """Collect what a publisher publishes, from now on."""

    async def collect() -> list:
        return [event async for event in mesh.subscribe(agent=name)]

    task = asyncio.create_task(collect())
    link = mesh.parts.link
    await spin(lambda: any(one.subject.endswith(".events") for one in link._subscriptions))
    await link.flush()
    return task


async def leave(host: AgentMesh) -> None:
    await asyncio.wait_for(host.__aexit__(None, None, None), 30)


async def test_an_idle_publisher_ends_at_once_and_says_so(host, mesh):
    @host.agent(AgentSpec(name="a.ticks"))
    async def ticks() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    async with host:
        events = await follow(mesh, "a.ticks")
        await leave(host)
    assert await asyncio.wait_for(events, 10) == []


async def test_an_event_that_is_ready_is_published_first(host, mesh):
    queue: asyncio.Queue[int] = asyncio.Queue()

    @host.agent(AgentSpec(name="a.ticks"))
    async def ticks() -> AsyncIterator[int]:
        while True:
            yield await queue.get()

    async with host:
        events = await follow(mesh, "a.ticks")
        queue.put_nowait(1)
        host.parts.host.tell()
        await leave(host)
    assert await asyncio.wait_for(events, 10) == [1]


async def test_an_event_that_was_yielded_while_there_is_no_connection_is_published_when_there_is_one(host, mesh):
    queue: asyncio.Queue[int] = asyncio.Queue()

    @host.agent(AgentSpec(name="a.ticks"))
    async def ticks() -> AsyncIterator[int]:
        while True:
            yield await queue.get()

    async with host:
        events = await follow(mesh, "a.ticks")
        host.parts.link._lost(ConnectionLost())
        queue.put_nowait(1)
        emitter = host.parts.host._emitters["a.ticks"]
        await spin(lambda: emitter._is_sending)
        await leave(host)
    assert await asyncio.wait_for(events, 10) == [1]


async def test_a_publisher_may_say_a_last_thing_when_it_is_told(host, mesh):
    @host.agent(AgentSpec(name="a.ticks"))
    async def ticks() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield 99

    async with host:
        events = await follow(mesh, "a.ticks")
        await leave(host)
    assert await asyncio.wait_for(events, 10) == [99]


@pytest.mark.parametrize("resume", ["", "me"])
async def test_a_publisher_in_a_loop_over_keys_publishes_what_it_is_at(host, mesh, resume):
    at_work, go = asyncio.Event(), asyncio.Event()

    @host.agent(AgentSpec(name="a.changes"))
    async def changes() -> AsyncIterator[str]:
        async for value in host.kv.watch("k.*", resume=resume):
            at_work.set()
            await go.wait()
            yield value
        yield "last"

    async with host:
        events = await follow(mesh, "a.changes")
        for number in range(3):
            await mesh.kv.put(f"k.{number}", str(number))
        await at_work.wait()
        leaving = asyncio.create_task(leave(host))
        await spin(lambda: host.parts.host._emitters["a.changes"]._stopping)
        go.set()
        await leaving
    assert await asyncio.wait_for(events, 10) == ["0", "last"]
    if resume:
        async for value in mesh.kv.watch("k.*", resume=resume):
            assert value == "1", "what was published counts as handled"
            break


async def test_what_it_is_at_is_published_even_if_the_connection_is_lost_meanwhile(host, mesh):
    at_work, go = asyncio.Event(), asyncio.Event()

    @host.agent(AgentSpec(name="a.changes"))
    async def changes() -> AsyncIterator[str]:
        async for value in host.kv.watch("k"):
            at_work.set()
            await go.wait()
            host.parts.link._lost(ConnectionLost())
            yield value

    async with host:
        events = await follow(mesh, "a.changes")
        await mesh.kv.put("k", "1")
        await at_work.wait()
        leaving = asyncio.create_task(leave(host))
        await spin(lambda: host.parts.host._emitters["a.changes"]._stopping)
        go.set()
        await leaving
    assert await asyncio.wait_for(events, 10) == ["1"]


async def test_a_background_task_in_a_loop_finishes_what_it_is_at_and_what_follows(host, mesh):
    at_work, go, done = asyncio.Event(), asyncio.Event(), []

    @host.agent(AgentSpec(name="a.worker"))
    async def worker() -> None:
        async for value in host.kv.watch("k"):
            at_work.set()
            await go.wait()
            done.append(value)
        await host.kv.put("out", done[0])  # it may still use the mesh
        done.append("end")

    async with host:
        await mesh.kv.put("k", "1")
        await at_work.wait()
        leaving = asyncio.create_task(leave(host))
        await spin(lambda: host.parts.host._emitters["a.worker"]._stopping)
        go.set()
        await leaving
    assert done == ["1", "end"]
    assert await mesh.kv.get("out") == "1"


async def test_so_do_the_tasks_that_it_has_started(host, mesh):
    at_work: asyncio.Queue[str] = asyncio.Queue()
    go, done = asyncio.Event(), []

    async def watch(key: str) -> None:
        async for value in host.kv.watch(key):
            at_work.put_nowait(key)
            await go.wait()
            done.append(value)

    @host.agent(AgentSpec(name="a.worker"))
    async def worker() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(watch("k.1"))
            group.create_task(watch("k.2"))

    async with host:
        await mesh.kv.put("k.1", "1")
        await mesh.kv.put("k.2", "2")
        assert {await at_work.get(), await at_work.get()} == {"k.1", "k.2"}
        leaving = asyncio.create_task(leave(host))
        await spin(lambda: host.parts.host._emitters["a.worker"]._stopping)
        go.set()
        await leaving
    assert sorted(done) == ["1", "2"]


async def test_a_background_task_in_a_subscription_finishes_the_message_it_is_at(host, mesh):
    at_work, go, done = asyncio.Event(), asyncio.Event(), []

    @host.agent(AgentSpec(name="a.worker"))
    async def worker() -> None:
        async for value in host.subscribe(subject="jobs.*"):
            at_work.set()
            await go.wait()
            done.append(value)

    async with host:
        await spin(lambda: any(one.subject == "jobs.*" for one in host.parts.link._subscriptions))
        await host.parts.link.flush()
        for number in range(3):
            await mesh.publish("jobs.x", str(number))
        await at_work.wait()
        leaving = asyncio.create_task(leave(host))
        await spin(lambda: host.parts.host._emitters["a.worker"]._stopping)
        go.set()
        await leaving
    assert done == [0]


async def test_a_loop_that_is_begun_again_and_again_ends(host, mesh):
    rounds = 0

    @host.agent(AgentSpec(name="a.worker"))
    async def worker() -> None:
        nonlocal rounds
        while True:
            async for _ in host.kv.watch(">"):
                pass
            rounds += 1

    async with host:
        await spin(lambda: host.parts.watches._open)
        await leave(host)
    assert rounds == 1


async def test_a_loop_of_nobodys_that_is_begun_again_and_again_does_not_stop_the_rest(host, mesh):
    """It would run for ever without letting anybody else run."""
    entered, go = asyncio.Event(), asyncio.Event()

    @host.agent(AgentSpec(name="a.slow"))
    async def slow(number: int) -> int:
        entered.set()
        await go.wait()
        return number

    async with host:

        async def read() -> None:
            while True:
                async for _ in host.subscribe(subject="x"):
                    pass

        reader = asyncio.create_task(read())
        await spin(lambda: host.parts.watches._open)
        call = asyncio.create_task(mesh.call("a.slow", 1))
        await entered.wait()
        leaving = asyncio.create_task(leave(host))
        await spin(lambda: host.parts.watches._is_closing)
        go.set()
        await leaving
        assert await call == 1
    reader.cancel()
    await asyncio.wait([reader])


async def test_any_other_background_task_is_cancelled_at_once(host):
    cancelled = asyncio.Event()

    @host.agent(AgentSpec(name="a.worker"))
    async def worker() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with host:
        await asyncio.sleep(0)
        await leave(host)
    assert cancelled.is_set()


async def test_what_it_does_about_that_it_may_do_until_the_deadline(host):
    cancelled, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @host.agent(AgentSpec(name="a.worker"))
    async def worker() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            await go.wait()
            done.set()
            raise

    async with host:
        await asyncio.sleep(0)
        leaving = asyncio.create_task(leave(host))
        await cancelled.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not leaving.done()
        go.set()
        await leaving
    assert done.is_set()


async def test_at_the_deadline_it_is_cancelled_again(server, caplog):
    host = AgentMesh(server.url, drain_timeout=0.05)
    times = 0

    @host.agent(AgentSpec(name="a.worker"))
    async def worker() -> None:
        nonlocal times
        while times < 2:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            times += 1

    async with host:
        await asyncio.sleep(0)
        await leave(host)
    assert times == 2
    assert "does not end" not in caplog.text


@pytest.mark.parametrize("ending", ["deactivated", "replaced"])
async def test_it_is_the_same_for_one_that_is_stopped_while_the_host_serves_on(host, mesh, ending):
    at_work, go, done = asyncio.Event(), asyncio.Event(), []

    def register(count: int) -> None:
        @host.agent(AgentSpec(name="a.worker"))
        async def worker() -> None:
            if count:
                return
            async for value in host.kv.watch("k"):
                at_work.set()
                await go.wait()
                done.append(value)

    register(0)
    async with host:
        await mesh.kv.put("k", "1")
        await at_work.wait()
        emitter = host.parts.host._emitters["a.worker"]
        if ending == "deactivated":
            stopping = asyncio.create_task(host.parts.host.deactivate("a.worker", LONG))
        else:
            register(1)
            stopping = asyncio.create_task(host.catalog())
        await spin(lambda: emitter._stopping)
        await mesh.kv.put("k", "2")
        go.set()
        await stopping
        assert done == ["1"]
        await mesh.kv.put("k", "3")
        await host.kv.put("k", "4")  # its loops are still possible
        assert done == ["1"]


async def test_a_loop_of_a_user_over_a_subject_ends_with_the_mesh_object(host):
    async with host:

        async def read() -> list:
            return [event async for event in host.subscribe(subject="x")]

        reader = asyncio.create_task(read())
        await spin(lambda: host.parts.watches._open)
        await leave(host)
    assert await asyncio.wait_for(reader, 10) == []
