"""Hosts that disappear from a server that tells nobody."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace

import pytest

from tests.mesh.hosting import NAMES
from tests.mesh.kit import echo_on, spin, until_names
from xml_pipeline.mesh import AgentDied, AgentMesh, ConnectionLost
from xml_pipeline.mesh.leases import _Lease, _seconds_of


def with_lease(url: str, seconds: float) -> AgentMesh:
    mesh = AgentMesh(url, drain_timeout=5.0)
    mesh._options = replace(mesh._options, lease=seconds)
    return mesh


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b'{"seconds": 4.0}', 4.0),
        (b'{"seconds": 1}', 1.0),
        (b'{"seconds": 0.000001}', 0.05),
        (b'{"seconds": 1e300}', 60.0),
        (b'{"seconds": Infinity}', 60.0),
        (b'{"seconds": NaN}', 60.0),
        (b'{"seconds": -1}', 60.0),
        (b'{"seconds": true}', 60.0),
        (b'{"seconds": "4"}', 60.0),
        (b"[]", 60.0),
        (b"", 60.0),
        (b"[" * 100_000, 60.0),
    ],
)
def test_what_a_lease_says_is_taken_with_care(value, seconds):
    assert _seconds_of(value) == seconds


async def test_a_killed_host_is_noticed_and_buried(server, mesh, hosting):
    async with hosting(server.url, 0.2) as host:
        await until_names(mesh, *NAMES)
        call = asyncio.create_task(mesh.call("a.slow", 60.0, timeout=60.0))
        await host.begun()
        await spin(lambda: any(e.instance_id for e in mesh.parts.replies._expected.values()))
        host.process.kill()
        with pytest.raises(AgentDied):
            await asyncio.wait_for(call, 10)
        await asyncio.wait_for(until_names(mesh), 10)
        await spin(lambda: not mesh.parts.leases._leases)
        assert await mesh.parts.instances.all() == {}


async def test_one_of_two_hosts_is_not_missed_in_the_catalog(server, mesh, hosting):
    async with hosting(server.url, 0.2) as one, hosting(server.url, 0.2) as two:
        await until_names(mesh, *NAMES)
        one.process.kill()
        await spin(lambda: one.instance_id not in mesh.parts.leases._leases)
        assert set(await mesh.parts.instances.all()) == {two.instance_id}
        assert set(mesh.parts.catalog.entries) == set(NAMES)


async def test_two_hosts_that_are_killed_together_leave_nothing(server, mesh, hosting):
    async with hosting(server.url, 0.2) as one, hosting(server.url, 0.2) as two, AgentMesh(server.url) as other:
        await until_names(mesh, *NAMES)
        one.process.kill()
        two.process.kill()
        for each in (mesh, other):
            await asyncio.wait_for(until_names(each), 10)
            await spin(lambda each=each: not each.parts.leases._leases)
        assert await mesh.parts.instances.all() == {}


async def test_a_host_that_was_only_stopped_comes_back(server, mesh, hosting):
    async with hosting(server.url, 0.2) as host:
        await until_names(mesh, *NAMES)
        host.process.send_signal(signal.SIGSTOP)
        await asyncio.wait_for(until_names(mesh), 10)
        host.process.send_signal(signal.SIGCONT)
        await asyncio.wait_for(until_names(mesh, *NAMES), 10)
        assert await mesh.call("a.slow", 0.0) == host.instance_id
        await spin(lambda: host.instance_id in mesh.parts.leases._leases)
        # The record is written after the lease.
        while set(await mesh.parts.instances.all()) != {host.instance_id}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_host_that_was_stopped_for_less_loses_nothing(server, mesh, hosting):
    async with hosting(server.url, 4.0) as host:
        await until_names(mesh, *NAMES)
        host.process.send_signal(signal.SIGSTOP)
        call = asyncio.create_task(mesh.call("a.slow", 0.0, timeout=30.0))
        await mesh.parts.link.flush()
        host.process.send_signal(signal.SIGCONT)
        assert await call == host.instance_id


async def test_the_record_of_a_host_killed_long_ago_is_found_by_whoever_comes(server, hosting):
    async with hosting(server.url, 0.2) as host:
        host.process.kill()
        await host.process.ended()
    async with AgentMesh(server.url) as mesh:
        assert set(mesh.parts.catalog.entries) == set(NAMES)
        await asyncio.wait_for(until_names(mesh), 10)


async def test_leaving_does_not_count_on_the_dead(server, mesh):
    """Their records would keep the agents of those who leave in the catalog for ever."""
    host = with_lease(server.url, 30.0)
    echo_on(host)
    async with host:
        await mesh.parts.instances.put("f" * 32, ["demo.echo"])
        await mesh.parts.leases._bucket.put("f" * 32, b'{"seconds": 60}')
        await spin(lambda: "f" * 32 in host.parts.leases._leases)
        host.parts.leases._leases["f" * 32].heard -= 200.0
    await asyncio.wait_for(until_names(mesh), 10)


async def test_a_record_without_a_lease_is_a_peer_of_another_kind(server, mesh, host):
    echo_on(host)
    async with host:
        await mesh.parts.instances.put("f" * 32, ["demo.echo"])
        await mesh.parts.leases._look_at_overdue()
        assert set(await mesh.parts.instances.all()) == {"f" * 32, host.instance_id}
    await mesh.parts.link.flush()
    assert set(mesh.parts.catalog.entries) == {"demo.echo"}, "it may still serve it"


async def test_leaving_takes_the_lease_along(host, mesh):
    echo_on(host)
    async with host:
        await spin(lambda: host.instance_id in mesh.parts.leases._leases)
    assert await mesh.parts.leases._bucket.get(host.instance_id) is None


async def test_who_only_asks_holds_none(mesh, server):
    async with AgentMesh(server.url) as other:
        await other.catalog()
        assert await other.parts.leases._bucket.get(other.instance_id) is None


async def test_a_watch_that_was_behind_buries_nobody(server, mesh, hosting):
    """It is looked up again before."""
    async with hosting(server.url, 4.0) as host:
        await until_names(mesh, *NAMES)
        await spin(lambda: host.instance_id in mesh.parts.leases._leases)
        lease = mesh.parts.leases._leases[host.instance_id]
        lease.heard -= 100.0
        lease.revision -= 1
        await mesh.parts.leases._look_at_overdue()
        assert set(await mesh.parts.instances.all()) == {host.instance_id}
        assert not mesh.parts.leases.is_overdue(host.instance_id)


async def held_by_nobody(mesh: AgentMesh, seconds: bytes) -> _Lease:
    """A lease that nobody will renew, as it is seen there."""
    await mesh.parts.leases._bucket.put("f" * 32, b'{"seconds": %s}' % seconds)
    await spin(lambda: "f" * 32 in mesh.parts.leases._leases)
    return mesh.parts.leases._leases["f" * 32]


async def test_who_was_cut_off_itself_reckons_anew(mesh):
    lease = await held_by_nobody(mesh, b"60")
    lease.heard -= 1000.0
    assert mesh.parts.leases.is_overdue("f" * 32)
    mesh.parts.link._lost(ConnectionLost())
    await mesh.parts.link.wait_up(10)
    await spin(lambda: not mesh.parts.leases.is_overdue("f" * 32))


async def test_who_was_stopped_itself_reckons_anew(mesh):
    """With everybody else, maybe: a machine that was suspended."""
    lease = await held_by_nobody(mesh, b"0.2")
    for _ in range(20):
        await asyncio.sleep(0)  # until it sleeps
    time.sleep(2.0)  # noqa: ASYNC251  # that is what is tested
    woke = asyncio.get_running_loop().time()
    await spin(lambda: lease.heard >= woke)


async def test_being_buried_alive_is_noticed(host, mesh):
    """Another host of the agent keeps it in the catalog, so that only the lease tells."""
    echo_on(host)
    async with host:
        await mesh.parts.instances.remove(host.instance_id)
        await mesh.parts.leases._bucket.delete(host.instance_id)
        while host.instance_id not in await mesh.parts.instances.all():  # noqa: ASYNC110  # each look is a round trip
            await asyncio.sleep(0)


async def test_leaving_without_a_server_leaves_no_task_behind(lasting_server):
    before = asyncio.all_tasks()
    host = AgentMesh(lasting_server.url, drain_timeout=0.1)
    echo_on(host)
    async with host:
        lasting_server.kill()
        await lasting_server.wait()
        await lasting_server.stop()
        await spin(lambda: not host.is_connected)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before
