"""Entering, leaving, draining, and living through the death of the server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.mesh.kit import Ask, Tap, chunks_on, echo_on, gated_on, spin, until_names
from xml_pipeline.mesh import AgentMesh, AgentSpec, ConnectionFailed, ConnectionLost, EmbeddedServer, NotFound


async def test_no_task_is_left_behind(server):
    before = asyncio.all_tasks()
    host = AgentMesh(server.url)
    echo_on(host)
    async with host:
        await host.call("demo.echo", {"message": "x"})
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_it_can_be_entered_again(host, mesh):
    echo_on(host)
    for _ in range(2):
        async with host:
            await until_names(mesh, "demo.echo")
            assert await mesh.call("demo.echo", {"message": "x"}) == {"reply": "x"}
        await until_names(mesh)


async def test_it_cannot_be_entered_twice_at_a_time(host):
    async with host:
        with pytest.raises(RuntimeError, match="entered already"):
            await host.__aenter__()


async def test_it_may_be_left_in_another_task(host, mesh):
    echo_on(host)
    await asyncio.create_task(host.__aenter__())
    assert await mesh.call("demo.echo", {"message": "x"}) == {"reply": "x"}
    await asyncio.create_task(host.__aexit__(None, None, None))
    assert not host.is_connected


async def test_a_server_that_is_not_there_leaves_nothing_behind():
    async with EmbeddedServer() as server:
        url = server.url
    before = asyncio.all_tasks()
    mesh = AgentMesh(url)
    for _ in range(2):
        with pytest.raises(ConnectionFailed):
            await mesh.__aenter__()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_local_gives_a_mesh_of_its_own():
    async with AgentMesh.local() as mesh:
        echo_on(mesh)
        assert await mesh.call("demo.echo", {"message": "x"}) == {"reply": "x"}
        url = mesh.url
    assert mesh.url != url


async def test_local_keeps_the_agents_of_a_mesh_object():
    mesh = AgentMesh("nats://nowhere:1")
    echo_on(mesh)
    for _ in range(2):
        async with mesh.local() as same:
            assert same is mesh
            assert await mesh.call("demo.echo", {"message": "x"}) == {"reply": "x"}
    assert mesh.url == "nats://nowhere:1"


# -- leaving


async def test_what_was_taken_is_answered_before_it_leaves(host, mesh):
    gate = gated_on(host, max_concurrency=1)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(host)
        calls = [asyncio.create_task(mesh.call("demo.gated", number)) for number in range(3)]
        await gate.begun.get()
        await spin(lambda: not (host.parts.host.service("demo.gated").waiting < 2))
        leaving = asyncio.create_task(stack.aclose())
        await until_leaving(host)
        gate.go.set()
        assert await asyncio.gather(*calls) == [0, 1, 2]
        await leaving
    await until_names(mesh)


async def until_leaving(host: AgentMesh) -> None:
    await spin(lambda: not (host.parts.host.service("demo.gated")._subscription is not None))


async def test_requests_that_are_on_the_way_are_answered_too(host, peer):
    echo_on(host)
    answers = await Tap.on(peer, "answers")
    async with host:
        for _ in range(300):
            await peer.publish("mesh.agent.demo.echo", b'{"message": "x"}', reply="answers")
        await peer.flush()  # now the server has handed them out
    for _ in range(300):
        assert (await answers.next()).data == b'{"reply":"x"}'


async def test_no_call_fails_while_one_of_two_hosts_leaves(server, mesh):
    hosts = [AgentMesh(server.url, drain_timeout=10.0) for _ in range(2)]
    for host in hosts:

        @host.agent(AgentSpec(name="a.busy"))
        async def busy(ask: Ask) -> str:
            await asyncio.sleep(0.002)
            return ask.message

    async with hosts[0]:
        async with hosts[1]:
            calls = [asyncio.create_task(mesh.call("a.busy", {"message": "x"})) for _ in range(200)]
            await asyncio.sleep(0)
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            more = asyncio.create_task(keep_calling(mesh, 200))
        assert await asyncio.gather(*calls) == ["x"] * 200
        assert await more == 200


async def keep_calling(mesh: AgentMesh, times: int) -> int:
    for _ in range(times):
        await mesh.call("a.busy", {"message": "x"})
    return times


PROGRAM = """
    import asyncio, sys
    from xml_pipeline.mesh import AgentMesh, AgentSpec

    mesh = AgentMesh(sys.argv[1])

    @mesh.agent(AgentSpec(name="a.slow"))
    async def slow(seconds: float) -> float:
        print("begun", flush=True)
        await asyncio.sleep(seconds)
        return seconds

    @mesh.agent(AgentSpec(name="a.ticks"))
    async def ticks():
        while True:
            yield 1
            await asyncio.sleep(0.01)

    mesh.run()
    print("left", flush=True)
"""


@contextlib.asynccontextmanager
async def program(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(PROGRAM),
        url,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_the_program(server, mesh, number):
    async with program(server.url) as process:
        await until_names(mesh, "a.slow", "a.ticks")
        call = asyncio.create_task(mesh.call("a.slow", 0.2))
        assert await process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        assert await call == 0.2
        assert await process.stdout.readline() == b"left\n"
        assert await process.wait() == 0
    await until_names(mesh)


async def test_a_second_signal_ends_it_at_once(server, mesh):
    async with program(server.url) as process:
        await until_names(mesh, "a.slow", "a.ticks")
        call = asyncio.create_task(mesh.call("a.slow", 60.0))
        assert await process.stdout.readline() == b"begun\n"
        events = mesh.subscribe(agent="a.ticks", timeout=50.0)
        await anext(events)  # from now on it hears everything
        process.send_signal(signal.SIGTERM)
        async for _ in events:  # the publisher says farewell when the drain has begun
            pass
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM
        call.cancel()


# -- the death of the server


async def crash(server: EmbeddedServer) -> None:
    server.kill()
    await server.wait()
    await server.stop()


async def test_everything_works_again_when_the_server_is_back(lasting_server):
    host, mesh = (AgentMesh(lasting_server.url, drain_timeout=2.0) for _ in range(2))
    echo_on(host)
    async with host, mesh:
        for _ in range(3):
            await crash(lasting_server)
            await lasting_server.start()
            assert await mesh.call("demo.echo", {"message": "x"}, timeout=10.0, idempotent=True) == {"reply": "x"}
            await until_names(mesh, "demo.echo")
            assert (await mesh.contract("demo.echo")).name == "demo.echo"


async def test_what_others_removed_is_written_again(host, mesh):
    """E.g. a monitor that took us for dead, or another host of the agent that thinks it was the only one."""
    echo_on(host)
    async with host:
        await until_names(mesh, "demo.echo")
        await mesh.parts.catalog.remove(["demo.echo"])
        await until_names(mesh, "demo.echo")
        await mesh.parts.registry.remove(["demo.echo"])  # which comes later than the other
        await mesh.parts.instances.remove(host.instance_id)
        await asyncio.wait_for(host.parts.membership._staying, 10)
        assert (await mesh.contract("demo.echo")).name == "demo.echo"
        assert await mesh.parts.instances.all() == {host.instance_id: {"demo.echo"}}


async def test_a_call_in_flight_ends_at_once_and_typed(lasting_server):
    host, mesh = (AgentMesh(lasting_server.url, drain_timeout=1.0) for _ in range(2))
    gate = gated_on(host)
    async with host, mesh:
        call = asyncio.create_task(mesh.call("demo.gated", 1, timeout=60.0))
        await gate.begun.get()
        await crash(lasting_server)
        with pytest.raises(ConnectionLost) as caught:
            await asyncio.wait_for(call, 10)
        assert caught.value.agent == "demo.gated"
        with pytest.raises(ConnectionLost):
            await mesh.call("demo.gated", 1)
        gate.go.set()
        await lasting_server.start()


async def test_an_idempotent_call_is_made_again(lasting_server):
    host, mesh = (AgentMesh(lasting_server.url, drain_timeout=1.0) for _ in range(2))
    gate = gated_on(host)
    async with host, mesh:
        call = asyncio.create_task(mesh.call("demo.gated", 1, timeout=30.0, idempotent=True))
        await gate.begun.get()
        await crash(lasting_server)
        await lasting_server.start()
        await gate.begun.get()
        gate.go.set()
        assert await call == 1


async def test_an_idempotent_call_waits_for_an_agent_that_has_just_left(server, mesh):
    """As one does whose host is being started again."""
    host = AgentMesh(server.url, drain_timeout=5.0)
    echo_on(host)
    async with host:
        await until_names(mesh, "demo.echo")
    await until_names(mesh)
    with pytest.raises(NotFound):
        await mesh.call("demo.echo", {"message": "x"})
    call = asyncio.create_task(mesh.call("demo.echo", {"message": "x"}, timeout=30.0, idempotent=True))
    await asyncio.sleep(0)
    async with host:
        assert await call == {"reply": "x"}


async def test_an_idempotent_call_of_nobody_fails_at_once(host, mesh):
    echo_on(host)
    async with asyncio.timeout(10):
        with pytest.raises(NotFound):
            await mesh.call("demo.echo", {"message": "x"}, timeout=60.0, idempotent=True)
        async with host:
            await until_names(mesh, "demo.echo")
        await until_names(mesh)
        mesh.parts.catalog._left["demo.echo"] -= 100.0  # it is long ago
        with pytest.raises(NotFound):
            await mesh.call("demo.echo", {"message": "x"}, timeout=60.0, idempotent=True)


async def test_who_is_back_and_who_left_long_ago_is_not_remembered(mesh):
    catalog = mesh.parts.catalog
    for value, left in ((b'[{"name": "a", "description": ""}]', set()), (b"[]", {"a"})):
        catalog._look(value, catalog._revision)
        assert set(catalog._left) == left
    assert catalog.may_return("a")
    assert not catalog.may_return("b")
    catalog._left["a"] -= 100.0
    assert not catalog.may_return("a")
    catalog._look(b'[{"name": "b", "description": ""}]', catalog._revision)
    assert not catalog._left
    catalog._look(b"[]", catalog._revision)
    assert catalog.may_return("b")
    catalog._look(b'[{"name": "b", "description": ""}]', catalog._revision)
    assert not catalog.may_return("b")


async def test_an_answer_that_is_ready_while_the_host_is_cut_off_comes_later(host, mesh):
    gate = gated_on(host)
    async with host:
        call = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        host.parts.link._lost(ConnectionLost())
        gate.go.set()
        assert await call == 1
        assert host.parts.link.losses == 1


async def test_a_stream_in_flight_ends_typed(lasting_server):
    host, mesh = (AgentMesh(lasting_server.url, drain_timeout=1.0) for _ in range(2))

    @host.agent(AgentSpec(name="a.stream"))
    async def stream(x: int) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async with host, mesh:
        chunks = mesh.stream("a.stream", 1, timeout=60.0)
        assert await anext(chunks) == 1
        await crash(lasting_server)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(anext(chunks), 10)
        await lasting_server.start()


async def test_a_stream_whose_host_is_cut_off_ends_typed(host, mesh):
    """Its consumer has lost nothing, and would wait."""

    @host.agent(AgentSpec(name="a.stream"))
    async def stream(x: int) -> AsyncIterator[int]:
        yield 1
        await go.wait()
        yield 2

    go = asyncio.Event()
    async with host:
        chunks = mesh.stream("a.stream", 1, timeout=60.0)
        assert await anext(chunks) == 1
        host.parts.link._lost(ConnectionLost())
        go.set()
        with pytest.raises(ConnectionFailed):
            await asyncio.wait_for(anext(chunks), 20)


async def test_a_request_that_comes_before_the_host_can_answer_waits(host, mesh):
    """The new connection brings requests before it is there for everybody."""
    chunks_on(host)
    async with host:
        link = host.parts.link
        link._up.clear()
        service = host.parts.host.service("demo.chunks")
        chunks = mesh.stream("demo.chunks", {"message": "m"}, timeout=60.0)
        first = asyncio.create_task(anext(chunks))
        await spin(lambda: service.running)
        for _ in range(20):
            await asyncio.sleep(0)  # it could have begun by now
        link._up.set()
        assert await asyncio.wait_for(first, 20) == {"delta": "m0"}
        await chunks.aclose()


async def test_a_publisher_goes_on_where_it_was(lasting_server):
    host, mesh = (AgentMesh(lasting_server.url, drain_timeout=1.0) for _ in range(2))

    @host.agent(AgentSpec(name="a.ticks"))
    async def ticks() -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.001)

    async with host, mesh:
        events = mesh.subscribe(agent="a.ticks")
        before = await anext(events)
        await crash(lasting_server)
        await lasting_server.start()
        after = await asyncio.wait_for(anext(events), 20)
        assert after > before
        await events.aclose()


async def test_leaving_while_the_server_is_away(lasting_server, caplog):
    host = AgentMesh(lasting_server.url, drain_timeout=0.1)
    echo_on(host)
    async with host:
        lost = asyncio.Event()
        host.parts.link.on_lost.append(lambda error: lost.set())
        await crash(lasting_server)
        await asyncio.wait_for(lost.wait(), 10)
    assert "not told completely" in caplog.text


async def test_whoever_asks_while_an_agent_is_being_registered_waits_for_it(server):
    async with AgentMesh(server.url) as mesh:
        echo_on(mesh)
        answers = await asyncio.gather(*(mesh.call("demo.echo", {"message": str(number)}) for number in range(5)))
        assert answers == [{"reply": str(number)} for number in range(5)]
