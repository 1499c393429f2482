"""What is outside of the organism: agents that it calls, those who call it, write for it, and hear it; one process.

What the server has confirmed, and what came from the organism, is said in lines, with the time (`time.monotonic`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from xml_pipeline.mesh import AgentMesh, AgentSpec, MeshError

__all__ = ["Outside", "outside"]

_ROOT = Path(__file__).parents[3]
_PAUSE = 0.02
"""Seconds between two of the same kind."""


class Outside:
    """The process, as whoever has started it sees it.

    Attributes:
        confirmed: when the server has confirmed each ``change`` of a key, and each ``task`` of the durable subject.
        latest: when anything of a kind was last seen; ``called`` is an answer of the organism, ``put``, ``news`` and
            ``event`` are what came from it.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.confirmed: dict[str, dict[int, float]] = {"change": {}, "task": {}}
        self.latest: dict[str, float] = defaultdict(float)
        self._process = process
        self._news = asyncio.Event()
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            kind, at, number = line.decode().split()
            self.latest[kind] = float(at)
            if kind in self.confirmed:
                self.confirmed[kind][int(number)] = float(at)
            self._news.set()

    async def first_since(self, kind: str, since: float) -> float:
        """Wait until there is something of this kind later than a moment; when that was."""
        while self.latest[kind] < since:
            if self.reading.done():
                raise EOFError("the process has ended")
            self._news.clear()
            await asyncio.wait([asyncio.ensure_future(self._news.wait()), self.reading], return_when="FIRST_COMPLETED")
        return self.latest[kind]

    async def settle(self) -> None:
        """Have nothing more written, and wait until it is known what was."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        await self.first_since("settled", 1.0)

    async def close(self) -> None:
        """End it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self.reading


@asynccontextmanager
async def outside(url: str) -> AsyncIterator[Outside]:
    """Start it, and end it with the block.

    Args:
        url: of the server.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bridge.proofs.outside", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # of what cannot be done, much is said
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )
    found = Outside(process)
    try:
        await found.first_since("in", 1.0)
        yield found
    finally:
        await found.close()


# -- in the process


@dataclass
class Need:
    number: int


@dataclass
class Far:
    number: int


def _say(kind: str, number: int = 0) -> None:
    os.write(1, f"{kind} {time.monotonic()} {number}\n".encode())


def _agents_on(mesh: AgentMesh) -> None:
    @mesh.agent(AgentSpec(name="outside.far", max_queue=100_000))
    async def far(need: Need) -> Far:
        await asyncio.sleep(_PAUSE)
        return Far(need.number)

    @mesh.agent(AgentSpec(name="outside.found", max_queue=100_000))
    async def found(need: Need) -> Far:
        return Far(need.number)


async def _again(kind: str, attempt: Callable[[int], Awaitable[object]], stopping: asyncio.Event) -> None:
    """Try one thing after the other, and say what was done."""
    number = 0
    while not stopping.is_set():
        number += 1
        try:
            await attempt(number)
        except MeshError:
            pass  # it may have been done, or not
        else:
            _say(kind, number)
        await asyncio.sleep(_PAUSE)


async def _hear(kind: str, mesh: AgentMesh, subject: str) -> None:
    """Say at times that something comes on a subject."""
    said = 0.0

    def arrived(_: object) -> None:
        nonlocal said
        if time.monotonic() - said > _PAUSE:
            said = time.monotonic()
            _say(kind)

    await mesh.parts.link.subscribe(subject, arrived)


async def _watch(mesh: AgentMesh) -> None:
    async with aclosing(mesh.kv.watch_entries("out.>")) as entries:
        async for _ in entries:
            _say("put")


async def _live(url: str) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, stopping.set)
    mesh = AgentMesh(url)
    _agents_on(mesh)
    async with mesh:
        jetstream = mesh.parts.jetstream
        await _hear("news", mesh, "news.*")
        await _hear("event", mesh, "mesh.pump.home.events")
        watching = asyncio.create_task(_watch(mesh))
        _say("in")
        await asyncio.gather(
            _again("change", lambda number: mesh.kv.put(f"in.{number}", "{}"), stopping),
            _again("task", lambda number: jetstream.publish(f"tasks.{number}", b"{}"), stopping),
            _again("called", lambda number: mesh.call("home.ping", {"number": number}, timeout=2.0), stopping),
        )
        watching.cancel()
        _say("settled")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_live(sys.argv[1]))
