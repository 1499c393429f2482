"""The server is killed and started again on its files, while everything that can run does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from tests.mesh.proofs.family import family
from tests.mesh.proofs.figures import Figure, count, spread
from tests.mesh.proofs.load import Load
from xml_pipeline.mesh import AgentMesh, EmbeddedServer, MeshError, Monitor

__all__ = ["prove"]

_AGENTS = {"h#.echo": "echo", "h#.chunks": "chunks", "h#.ticks": "ticks"}
_HOSTS = 2
_NAMES = {f"h{number}.{kind}" for number in range(_HOSTS) for kind in ("echo", "chunks", "chunks-state", "ticks")}
_LONGEST = 60.0  # after which something counts as dead


async def prove(folder: Path, times: int, longest_absence: float) -> list[Figure]:
    """Kill it.

    Args:
        folder: for the server's files.
        times: how often.
        longest_absence: seconds that the server is away, at most.
    """
    chance = random.Random(1)
    server = EmbeddedServer(folder)
    await server.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop)
        await stack.enter_async_context(Monitor.of(server.url, server.system_url))
        hosts = await stack.enter_async_context(family("serve", server.url, _HOSTS, agents=_AGENTS))
        await hosts.lines("in")
        mesh, other = [await stack.enter_async_context(AgentMesh(server.url)) for _ in range(2)]
        load = Load(mesh, other, [f"h{number}" for number in range(_HOSTS)])
        await stack.enter_async_context(load)
        returns = Returns(mesh, load)
        for _ in range(times):
            await load.is_under_way()
            server.kill()
            await server.wait()
            await server.stop()
            await asyncio.sleep(chance.random() * longest_absence)
            await server.start()
            await returns.measure()
        await load.finish()
        async with AgentMesh(server.url) as newcomer:
            left = len(await newcomer.catalog())
        return [
            count("times the server was killed", times),
            count("agents in the catalog afterwards", left, exactly=len(_NAMES)),
            *returns.figures(),
            *load.figures(),
        ]


class Returns:
    """What happens when the server is back.

    Args:
        mesh: who looks.
        load: what runs meanwhile.
    """

    def __init__(self, mesh: AgentMesh, load: Load) -> None:
        self._mesh = mesh
        self._load = load
        self._answers: list[float] = []
        self._listed: list[float] = []
        self._streams: list[float] = []
        self._events: list[float] = []
        self._changes: list[float] = []
        self.dead: list[str] = []

    async def measure(self) -> None:
        """Measure how long everything takes from now on."""
        load = self._load
        await asyncio.gather(
            *(self._until(self._answers, lambda h=h: self._call(h), f"{h}.echo") for h in load.hosts),
            *(self._until(self._streams, lambda h=h: self._stream(h), f"{h}.chunks") for h in load.hosts),
            self._until(self._listed, self._list, "the catalog"),
            *(
                self._until(self._events, lambda seen=seen: seen.wait_for_more(), seen.name)
                for seen in load.subscribers
            ),
            self._until(self._changes, load.marks_are_seen, "the watches"),
        )

    async def _until(self, times: list[float], attempt: Callable[[], object], what: str) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < _LONGEST:
            try:
                async with asyncio.timeout(_LONGEST):
                    await attempt()  # type: ignore[misc]
            except MeshError:
                await asyncio.sleep(0.005)
            except TimeoutError:
                break
            else:
                times.append(loop.time() - began)
                return
        self.dead.append(what)

    async def _call(self, host: str) -> None:
        assert await self._mesh.call(f"{host}.echo", 7, timeout=5.0) == 7

    async def _stream(self, host: str) -> None:
        found = [chunk["n"] async for chunk in self._mesh.stream(f"{host}.chunks", [3, 10], timeout=5.0)]
        assert found == [0, 1, 2]

    async def _list(self) -> None:
        for name in _NAMES:
            await self._mesh.contract(name)
        if {entry.name for entry in await self._mesh.catalog()} != _NAMES:
            raise MeshError("not_listed", "not all are listed")

    def figures(self) -> list[Figure]:
        """What was measured."""
        return [
            count("dead objects", len(self.dead), exactly=0, note=", ".join(self.dead)),
            spread("until every agent answered a call", self._answers, most=2.0),
            spread("until every agent gave a stream", self._streams, most=2.0),
            spread("until every agent was listed with its contract", self._listed, most=2.0),
            spread("until a subscriber had its next event", self._events),
            spread("until every watch had a new change", self._changes),
        ]
