"""Everything that one can do with the mesh, done all the time, with a record of how it ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing

from tests.mesh.proofs.figures import Figure, count, spread
from xml_pipeline.mesh import AgentMesh, MeshError

__all__ = ["Load", "Outcomes"]

_TIMEOUT = 8.0
_KEYS = 20
_LONGEST = 60.0


class Outcomes:
    """How requests ended.

    Args:
        timeout: the seconds that each had.
    """

    def __init__(self, timeout: float) -> None:
        self.ends: Counter[str] = Counter()
        self.untyped: list[BaseException] = []
        self.wrong: list[object] = []
        self.times: list[float] = []  # of those that failed
        self._timeout = timeout

    async def note(self, request: object) -> bool:
        """Wait for one; whether it succeeded."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await request  # type: ignore[misc]
        except MeshError as error:
            self.ends[error.code] += 1
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.untyped.append(error)
        else:
            self.ends["ok"] += 1
            return True
        self.times.append(loop.time() - began)
        return False

    def figures(self, what: str) -> list[Figure]:
        """As figures."""
        ends = ", ".join(f"{number} {code}" for code, number in self.ends.most_common())
        found = [
            count(f"{what} in all", self.ends.total() + len(self.untyped), least=1, note=ends),
            count(f"{what} that ended untyped", len(self.untyped), exactly=0, note=str(self.untyped[:2] or "")),
            count(f"{what} with a wrong result", len(self.wrong), exactly=0, note=str(self.wrong[:2] or "")),
        ]
        if self.times:
            found.append(spread(f"until a failing one of the {what} failed", self.times, most=self._timeout + 0.5))
        return found


class Seen:
    """What one watcher or subscriber has seen: the latest number of each key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.latest: dict[str, int] = {}
        self.total = 0
        self.backwards = 0
        self._news = asyncio.Event()

    def add(self, key: str, number: int) -> None:
        """It has seen this."""
        self.backwards += number < self.latest.get(key, -1)
        self.latest[key] = number
        self.total += 1
        self._news.set()

    async def until(self, key: str, number: int) -> None:
        """Wait until it has seen this number, or a later one, of the key."""
        while self.latest.get(key, -1) < number:
            self._news.clear()
            await self._news.wait()

    async def wait_for_more(self) -> None:
        """Wait until it has seen anything from now on."""
        self._news.clear()
        await self._news.wait()


class Load:
    """The load; an asynchronous context manager.

    Args:
        mesh: who asks and writes.
        other: who watches, too.
        hosts: the first part of the names of the agents.
    """

    def __init__(self, mesh: AgentMesh, other: AgentMesh, hosts: list[str]) -> None:
        self.hosts = hosts
        self._mesh = mesh
        self._other = other
        self.calls = Outcomes(_TIMEOUT)
        self.retried = Outcomes(60.0)
        self.streams = Outcomes(_TIMEOUT)
        self.writes = Outcomes(5.0)
        self.watchers = [Seen("a watch"), Seen("a watch of another mesh object"), Seen("a watch with resume")]
        self.subscribers = [Seen(f"a subscriber of {host}") for host in hosts]
        self._buried = 0
        self._stored: dict[str, int] = {}  # what the server has confirmed
        self._numbers = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._writing = True

    async def __aenter__(self) -> Load:
        entries = (
            self._mesh.kv.watch_entries("p.>"),
            self._other.kv.watch_entries("p.*"),
            self._other.kv.watch_entries("p.>", resume="load"),
        )
        loads = [
            *(self._call(host) for host in self.hosts for _ in range(4)),
            *(self._call_again(host) for host in self.hosts),
            *(self._stream(host) for host in self.hosts for _ in range(2)),
            *(self._write(worker) for worker in range(2)),
            *(self._watch(seen, found) for seen, found in zip(self.watchers, entries, strict=True)),
            self._look(),
            *(self._subscribe(seen, host) for seen, host in zip(self.subscribers, self.hosts, strict=True)),
        ]
        self._tasks = [asyncio.create_task(load) for load in loads]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- what is done

    async def _call(self, host: str) -> None:
        number = 0
        while True:
            number += 1
            if not await self.calls.note(self._one_call(host, number)):
                await asyncio.sleep(0.01)

    async def _one_call(self, host: str, number: int, idempotent: bool = False) -> None:
        timeout = 60.0 if idempotent else _TIMEOUT
        found = await self._mesh.call(f"{host}.echo", number, timeout=timeout, idempotent=idempotent)
        if found != number:
            self.calls.wrong.append(found)

    async def _call_again(self, host: str) -> None:
        number = 0
        while True:
            number += 1
            await self.retried.note(self._one_call(host, number, idempotent=True))

    async def _stream(self, host: str) -> None:
        while True:
            if not await self.streams.note(self._one_stream(host)):
                await asyncio.sleep(0.01)

    async def _one_stream(self, host: str) -> None:
        found = [c["n"] async for c in self._mesh.stream(f"{host}.chunks", [100, 100], timeout=_TIMEOUT)]
        if found != list(range(100)):
            self.streams.wrong.append(found)

    async def _write(self, worker: int) -> None:
        while self._writing:
            self._numbers += 1
            number, key = self._numbers, f"p.{worker}-{self._numbers % _KEYS}"
            if await self.writes.note(self._mesh.kv.put(key, str(number))):
                self._stored[key] = number
                await asyncio.sleep(0.002)
            else:
                await asyncio.sleep(0.01)

    @staticmethod
    async def _watch(seen: Seen, entries: AsyncIterator) -> None:  # type: ignore[type-arg]
        async with aclosing(entries):  # type: ignore[type-var]
            async for entry in entries:
                seen.add(entry.key, int(entry.value))

    async def _subscribe(self, seen: Seen, host: str) -> None:
        async for event in self._mesh.subscribe(agent=f"{host}.ticks"):
            seen.add(host, event)

    async def _look(self) -> None:
        async for change in self._mesh.catalog_changes():
            self._buried += change.after is None

    # -- what others do meanwhile

    async def is_under_way(self) -> None:
        """Wait until something of everything is done from now on."""
        wanted = [one.ends["ok"] for one in (self.calls, self.retried, self.streams, self.writes)]
        async with asyncio.timeout(_LONGEST):
            await asyncio.gather(*(seen.wait_for_more() for seen in (*self.watchers, *self.subscribers)))
            while any(
                one.ends["ok"] <= before + 3
                for one, before in zip((self.calls, self.retried, self.streams, self.writes), wanted, strict=True)
            ):
                await asyncio.sleep(0.01)
                for task in self._tasks:
                    if task.done():
                        task.result()

    async def marks_are_seen(self) -> None:
        """Write something, and wait until every watcher has seen it."""
        self._numbers += 1
        number = self._numbers
        await self._mesh.kv.put("p.mark", str(number))
        await asyncio.gather(*(seen.until("p.mark", number) for seen in self.watchers))

    async def finish(self) -> None:
        """Write no more, and wait until all was seen."""
        self._writing = False
        await self.marks_are_seen()

    def missed(self, seen: Seen) -> int:
        """Keys of which a watcher has not seen what was stored last, or anything later."""
        return sum(seen.latest.get(key, -1) < number for key, number in self._stored.items())

    def figures(self) -> list[Figure]:
        """What was found."""
        found = [
            *self.calls.figures("calls"),
            *self.retried.figures("idempotent calls"),
            count("idempotent calls that failed", self.retried.ends.total() - self.retried.ends["ok"], exactly=0),
            *self.streams.figures("streams"),
            *self.writes.figures("writes of keys"),
        ]
        for seen in self.watchers:
            found.append(count(f"keys whose last change {seen.name} missed", self.missed(seen), exactly=0))
            found.append(count(f"changes that {seen.name} saw", seen.total, least=1))
        found += [
            count(f"changes that {seen.name} saw in the wrong order", seen.backwards, exactly=0)
            for seen in self.watchers[:2]
        ]
        over = [task for task in self._tasks if task.done() and not task.cancelled()]
        ended = [str(task.exception()) for task in over if task.exception() is not None]
        what = "times that an agent that was there disappeared from the catalog"
        found.append(count(what, self._buried, exactly=0, is_time=True))  # of a host that took too long, it may
        return [*found, count("loops that ended by themselves", len(ended), exactly=0, note=", ".join(ended))]
