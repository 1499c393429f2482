"""A process that handles changes under a name, killed at any moment and started again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from pathlib import Path

from tests.mesh.proofs.family import family
from tests.mesh.proofs.figures import Figure, count
from xml_pipeline.mesh import AgentMesh, EmbeddedServer

__all__ = ["prove"]

_LAST = "r.last"


class Lives:
    """What the process did in each of its lives: which changes it began, in order."""

    def __init__(self) -> None:
        self.begun: list[list[str]] = [[]]
        self.latest: dict[str, str] = {}

    def heard(self, line: str) -> None:
        """It said something: that it begins with a change, or is done with it."""
        what, *about = line.split(" ")
        if what == "begun":
            key, revision, value = about
            self.begun[-1].append(f"{key} {revision}")
            self.latest[key] = value

    @property
    def repeated(self) -> list[str]:
        """Changes that came again, although they were handled: all but the one that each life ended at."""
        handled: set[str] = set()
        found = []
        for life in self.begun:
            found += [change for index, change in enumerate(life) if change in handled or change in life[:index]]
            handled |= set(life[:-1])
        return found


async def prove(folder: Path, kills: int, keys: int, patience: float, longest: float) -> list[Figure]:
    """Kill it while others write.

    Args:
        folder: for the server's files.
        kills: how often.
        keys: how many there are.
        patience: seconds after which the server gives a change to the next life that the one before had.
        longest: seconds that a life lasts at most, from the first change on.
    """
    chance = random.Random(8)
    lives, stored = Lives(), {}
    server = EmbeddedServer(folder)
    await server.start()
    try:
        async with AgentMesh(server.url) as mesh:
            number = 0

            async def write(stopping: asyncio.Event) -> None:
                nonlocal number
                while not stopping.is_set():
                    number += 1
                    key = f"r.k{chance.randrange(keys)}"
                    await mesh.kv.put(key, str(number))
                    stored[key] = str(number)
                    await asyncio.sleep(0.002)

            options = {"pattern": "r.>", "name": "proof", "patience": patience}
            for _ in range(kills):
                async with family("follow", server.url, 1, **options) as following:
                    writing = asyncio.create_task(write(stopping := asyncio.Event()))
                    lives.heard(await following.line(0, "begun", whole=True))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(chance.random() * longest):
                            while True:
                                lives.heard(await following.line(0))
                    following.send(0, signal.SIGKILL)
                    while not (line := await following.line(0)).startswith(("ended", "gone")):
                        lives.heard(line)
                    stopping.set()
                    await writing
                lives.begun.append([])
            await mesh.kv.put(_LAST, "0")
            stored[_LAST] = "0"
            async with family("follow", server.url, 1, **options) as following:
                while not lives.latest.items() >= stored.items():
                    lives.heard(await following.line(0))
    finally:
        await server.stop()
    begun = sum(map(len, lives.begun))
    return [
        count("times the process was killed", kills),
        count("writes", number),
        count("changes handled", begun, least=1),
        count("keys whose last change was missed", len(stored.items() - lives.latest.items()), exactly=0),
        count("handled changes that came again", len(lives.repeated), exactly=0, note=" ".join(lives.repeated[:5])),
    ]
