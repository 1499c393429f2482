"""The embedded server's monitor: hosts that are killed, cut off, and not dead at all."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from tests.mesh.hosting import NAMES, RELEASE
from tests.mesh.kit import echo_on, gated_on, plain_peer, spin, until_names
from xml_pipeline.mesh import AgentDied, AgentMesh, ConnectionLost, NotFound, StorageError
from xml_pipeline.mesh import monitor as monitor_module
from xml_pipeline.mesh.monitor import Monitor


@pytest.fixture
async def monitor(server):
    async with Monitor.of(server.url, server.system_url) as monitor:
        yield monitor


async def accepted_by(mesh: AgentMesh, count: int) -> None:
    await spin(lambda: sum(bool(e.instance_id) for e in mesh.parts.replies._expected.values()) == count)


async def test_local_has_one(hosting):
    async with AgentMesh.local() as mesh, hosting(mesh.url, lease=60.0) as host:
        await until_names(mesh, *NAMES)
        call = asyncio.create_task(mesh.call("a.slow", 60.0, timeout=60.0))
        await host.begun()
        await accepted_by(mesh, 1)
        host.process.kill()
        with pytest.raises(AgentDied):
            await asyncio.wait_for(call, 20)
        await asyncio.wait_for(until_names(mesh), 20)
        with pytest.raises(NotFound):
            await mesh.call("a.slow", 1.0)
        with pytest.raises(NotFound):
            await mesh.contract("a.slow")
        assert await mesh.parts.instances.all() == {}


async def test_a_stream_of_a_killed_host_ends(server, mesh, monitor, hosting):
    async with hosting(server.url, lease=60.0) as host:
        chunks = mesh.stream("a.one", 1, timeout=60.0)
        assert await anext(chunks) == 1
        host.process.kill()
        with pytest.raises(AgentDied):
            await asyncio.wait_for(anext(chunks), 20)


async def test_of_two_hosts_only_what_the_killed_one_had_is_lost(server, mesh, monitor, hosting):
    async with hosting(server.url, lease=60.0) as one, hosting(server.url, lease=60.0) as two:
        calls = [asyncio.create_task(mesh.call("a.slow", 60.0, timeout=90.0)) for _ in range(16)]
        await accepted_by(mesh, 16)
        had = sum(e.instance_id == one.instance_id for e in mesh.parts.replies._expected.values())
        assert 0 < had < 16
        one.process.kill()
        await spin(lambda: sum(call.done() for call in calls) == had)
        await mesh.publish(RELEASE, b"")
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(result, AgentDied) for result in results) == had
        assert results.count(two.instance_id) == 16 - had
        await spin(lambda: not monitor._gone)
        assert set(mesh.parts.catalog.entries) == set(NAMES)
        assert await mesh.call("a.slow", 0.0) == two.instance_id
        assert list(await mesh.parts.instances.all()) == [two.instance_id]


async def test_an_idempotent_call_goes_to_the_other_host(server, mesh, monitor, hosting):
    async with hosting(server.url, lease=60.0) as one:
        call = asyncio.create_task(mesh.call("a.slow", 60.0, timeout=90.0, idempotent=True))
        await one.begun()
        await accepted_by(mesh, 1)
        async with hosting(server.url, lease=60.0) as two:
            one.process.kill()
            await two.begun()
            await mesh.publish(RELEASE, b"")
            assert await call == two.instance_id


async def test_a_peer_of_another_kind_that_still_serves_keeps_the_entry(server, mesh, monitor, peer, hosting):
    async with hosting(server.url, lease=60.0) as host:
        await until_names(mesh, *NAMES)

        async def answer(message):
            await message.respond(b'"still here"')

        await peer.subscribe("mesh.agent.a.slow", "q.a.slow", cb=answer)
        await peer.flush()
        host.process.kill()
        await asyncio.wait_for(until_names(mesh, "a.slow"), 20)
        assert await mesh.call("a.slow", 1.0) == "still here"


async def test_whoever_comes_back_at_once_is_not_dead(host, mesh, monitor, peer):
    """The connection was cut, and made again; what it had is answered."""
    gate = gated_on(host)
    async with host:
        await until_names(mesh, "demo.gated")
        looked = asyncio.Event()
        connected = monitor._connected

        async def looking():
            found = await connected()
            looked.set()
            return found

        monitor._connected = looking
        call = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        host.parts.link._lost(ConnectionLost())
        await asyncio.wait_for(looked.wait(), 10)
        gate.go.set()
        assert await call == 1
        assert set(await mesh.parts.instances.all()) == {host.instance_id}


async def test_who_leaves_properly_is_not_mourned(host, mesh, monitor, peer):
    echo_on(host)
    heard = []

    async def hear(message):
        heard.append(json.loads(message.data)["reason"])

    await peer.subscribe("mesh.death.>", cb=hear)
    await peer.flush()
    noticed = asyncio.create_task(spin(lambda: host.instance_id in monitor._gone))  # where it does not stay for long
    async with host:
        pass
    await noticed
    await spin(lambda: not monitor._gone)
    await monitor._system.flush()
    await peer.flush()
    assert heard == ["graceful_shutdown"]


async def test_records_of_before_are_cleared_at_the_start(server, mesh, monkeypatch, host):
    monkeypatch.setattr(monitor_module, "_SETTLED", 0.01)
    echo_on(host)
    async with host:
        await mesh.parts.instances.put("f" * 32, ["a.ghost", "demo.echo"])
        await mesh.parts.instances.put("odd.key", ["a b", "", "x" * 1000])
        async with Monitor.of(server.url, server.system_url):
            await asyncio.wait_for(only(mesh, host.instance_id), 10)
        assert set(mesh.parts.catalog.entries) == {"demo.echo"}


async def only(mesh: AgentMesh, *instance_ids: str) -> None:
    while set(await mesh.parts.instances.all()) != set(instance_ids):  # noqa: ASYNC110  # each look is a round trip
        await asyncio.sleep(0)


async def test_it_goes_on_when_the_server_is_back(lasting_server, hosting):
    urls = lasting_server.url, lasting_server.system_url
    async with Monitor.of(*urls) as monitor, AgentMesh(lasting_server.url) as mesh:
        lasting_server.kill()
        await lasting_server.wait()
        await lasting_server.stop()
        await lasting_server.start()
        async with hosting(lasting_server.url, lease=60.0) as host:
            for link in (monitor._system, monitor._link, mesh.parts.link):
                await spin(lambda link=link: link.losses)
                await link.wait_up(20)
                await link.flush()
            await until_names(mesh, *NAMES)
            host.process.kill()
            await asyncio.wait_for(until_names(mesh), 20)


async def test_who_is_not_connected_because_the_server_was_away_is_not_dead(host, mesh, monitor):
    echo_on(host)
    async with host:
        connected, look_for, looked = monitor._connected, monitor._look_for, asyncio.Event()

        async def nobody_yet():
            monitor._connected = connected
            monitor._system._lost(ConnectionLost())
            return set(), True

        async def looking(gone, everybody):
            await look_for(gone, everybody)
            looked.set()

        monitor._connected, monitor._look_for = nobody_yet, looking
        monitor._gone.add(host.instance_id)
        monitor._look_at_all = True
        monitor._noticed.set()
        await asyncio.wait_for(looked.wait(), 10)
        assert set(await mesh.parts.instances.all()) == {host.instance_id}
        assert set(mesh.parts.catalog.entries) == {"demo.echo"}


async def test_what_was_noticed_before_the_server_went_is_forgotten(monitor):
    """Whoever it was may be about to come back."""
    monitor._gone.add("f" * 32)
    monitor._look_at_all = True
    monitor._system._lost(ConnectionLost())
    assert not monitor._gone
    assert not monitor._look_at_all
    await monitor._system.wait_up(10)


class Away:
    """A link to the system account that is lost and restored by hand."""

    def __init__(self, monitor: Monitor) -> None:
        self.losses = 0
        self.is_up = True
        self._monitor = monitor

    def lose(self) -> None:
        self.is_up, self.losses = False, self.losses + 1
        self._monitor._forget(ConnectionLost())

    def restore(self) -> None:
        self.is_up = True
        self._monitor._restored.set()


async def test_everybody_is_looked_at_when_the_server_has_been_there_for_a_while(monkeypatch):
    waits = asyncio.Queue[asyncio.Event]()

    async def until_told(seconds: float) -> None:
        await waits.put(told := asyncio.Event())
        await told.wait()

    monitor = Monitor.of("nats://nowhere", "nats://nowhere")
    monitor._system = link = Away(monitor)
    monkeypatch.setattr(monitor_module, "_sleep", until_told)
    settling = asyncio.create_task(monitor._settle())
    first = await waits.get()
    link.lose()
    link.restore()
    link.lose()
    first.set()
    link.restore()  # twice away while it waited: it waits anew
    second = await waits.get()
    assert not monitor._look_at_all
    second.set()
    await asyncio.wait_for(monitor._noticed.wait(), 10)
    assert monitor._look_at_all
    settling.cancel()
    await asyncio.wait([settling])


async def test_what_could_not_be_done_is_done_again(server, mesh, monkeypatch, hosting):
    monkeypatch.setattr(monitor_module, "_SETTLED", 1000.0)
    async with Monitor.of(server.url, server.system_url) as monitor, hosting(server.url, lease=60.0) as host:
        connected = monitor._connected

        async def failing():
            monitor._connected = connected
            raise StorageError

        await until_names(mesh, *NAMES)
        monitor._connected = failing
        host.process.kill()
        await asyncio.wait_for(until_names(mesh), 10)


async def test_advisories_that_make_no_sense_are_ignored(server, mesh, monitor, hosting):
    async with plain_peer(server.system_url) as system:
        for body in (b"", b"[]", b"{}", b'{"client": 3}', b'{"client": {"name": 3}}', b'{"client": {"name": "x"}}'):
            await system.publish("$SYS.ACCOUNT.APP.DISCONNECT", body)
        await system.flush()
    async with hosting(server.url, lease=60.0) as host:
        await until_names(mesh, *NAMES)
        host.process.send_signal(signal.SIGKILL)
        await asyncio.wait_for(until_names(mesh), 20)


async def test_nothing_is_left_behind(server):
    before = asyncio.all_tasks()
    async with Monitor.of(server.url, server.system_url):
        pass
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
