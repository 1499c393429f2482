"""Hosts that are killed with requests at hand, and hosts that are only stopped for a while."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

from tests.mesh.kit import until
from tests.mesh.proofs.family import Family, family
from tests.mesh.proofs.figures import Figure, count, seconds, spread
from tests.mesh.proofs.load import Outcomes
from xml_pipeline.mesh import AgentDied, AgentMesh, EmbeddedServer, Monitor

__all__ = ["prove", "prove_stopped"]

_WORK = "a.work"


async def _accepted(mesh: AgentMesh, calls: int) -> dict[str, int]:
    """How many requests each host has, as soon as they have all been accepted."""
    expected = mesh.parts.replies._expected
    while sum(bool(one.instance_id) for one in expected.values()) < calls:  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.001)
    hosts = [one.instance_id for one in expected.values() if one.instance_id]
    return {host: hosts.count(host) for host in hosts}


async def prove(calls: int, *, monitored: bool, work: float, lease: float = 4.0) -> list[Figure]:
    """Kill one of two hosts with calls at hand, then the other.

    Args:
        calls: how many there are.
        monitored: whether there is a monitor, as on an embedded server.
        work: seconds that a request takes the hosts.
        lease: that of the hosts.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer())
        if monitored:
            await stack.enter_async_context(Monitor.of(server.url, server.system_url))
        mesh, other = [await stack.enter_async_context(AgentMesh(server.url)) for _ in range(2)]
        agents = {_WORK: "slow", "h#.own": "echo"}
        hosts = await stack.enter_async_context(family("serve", server.url, 2, agents=agents, lease=lease))
        ids = [(await hosts.line(number, "in")) for number in range(2)]
        await until(other, lambda entries: len(entries) == 3)
        failed: list[float] = []
        at = 0.0

        async def ask() -> object:
            try:
                return await mesh.call(_WORK, work, timeout=120.0)
            except AgentDied:
                failed.append(loop.time() - at)
                return "died"

        asked = [asyncio.create_task(ask()) for _ in range(calls)]
        had = (await _accepted(mesh, calls)).get(ids[0], 0)
        at = loop.time()
        hosts.send(0, signal.SIGKILL)
        await until(other, lambda entries: entries.keys() == {_WORK, "h1.own"})
        right = loop.time() - at
        answers = await asyncio.gather(*asked)
        rest = [asyncio.create_task(ask()) for _ in range(calls)]
        await _accepted(mesh, calls)
        at = loop.time()
        hosts.send(1, signal.SIGKILL)
        await until(other, lambda entries: not entries)
        gone = loop.time() - at
        ends = await asyncio.gather(*rest)
        limits = (1.0, 2.0) if monitored else (15.0, 15.0)
        return [
            count("calls at hand of the first that was killed", had, least=1),
            count("calls that failed typed", answers.count("died"), exactly=had),
            count("calls that the other one answered", answers.count(ids[1]), exactly=calls - had),
            count("calls at hand of the last that was killed, and failed typed", ends.count("died"), exactly=calls),
            spread("until they failed", failed, most=limits[0]),
            seconds("until the catalog was right after the first", right, most=limits[1]),
            seconds("until the catalog was empty after the last", gone, most=limits[1]),
        ]


async def prove_stopped(wait: float, callers: int, *, monitored: bool = True) -> list[Figure]:
    """Stop one of two hosts, and let it go on, while others call.

    Args:
        wait: seconds that it stands still.
        callers: how many there are, each of which asks one thing after the other.
        monitored: as for `prove`.
    """
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer())
        if monitored:
            await stack.enter_async_context(Monitor.of(server.url, server.system_url))
        mesh = await stack.enter_async_context(AgentMesh(server.url))
        agents = {_WORK: "slow", "h#.own": "echo"}
        hosts: Family = await stack.enter_async_context(family("serve", server.url, 2, agents=agents))
        ids = await hosts.lines("in")
        names = {_WORK, "h0.own", "h1.own"}
        await until(mesh, lambda entries: entries.keys() == names)
        outcomes, stopping = Outcomes(60.0), asyncio.Event()
        fewest = len(names)

        async def ask(name: str, value: object) -> None:
            while not stopping.is_set():
                await outcomes.note(mesh.call(name, value, timeout=60.0))

        async def look() -> None:
            nonlocal fewest
            async for _ in mesh.catalog_changes():
                fewest = min(fewest, len(await mesh.catalog()))

        looking = asyncio.create_task(look())
        asked = [asyncio.create_task(ask(_WORK, 0.001)) for _ in range(callers)]
        asked += [asyncio.create_task(ask("h0.own", 7)) for _ in range(callers)]
        while outcomes.ends.total() < callers * 4:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.001)
        hosts.send(0, signal.SIGSTOP)
        await asyncio.sleep(wait)
        hosts.send(0, signal.SIGCONT)
        stopping.set()
        await asyncio.gather(*asked)
        back = [await mesh.call("h0.own", 7, timeout=30.0), len(await mesh.catalog())]
        records = set(await mesh.parts.instances.all())
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        failed = outcomes.ends.total() - outcomes.ends["ok"]
        return [
            *outcomes.figures("calls"),
            count("calls that failed", failed, exactly=0),
            count("fewest agents in the catalog", fewest, exactly=len(names)),
            count("of the one that was stopped, an answer, and its agents", int(back == [7, 3]), exactly=1),
            count("records of hosts", len(records), exactly=2, note="" if records == set(ids) else "others"),
        ]
