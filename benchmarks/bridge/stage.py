"""What the benchmarks of the bridge stand on: a server of their own, and an event loop that lives as long as it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from typing import Any, Self

from benchmarks.measure import Sample
from xml_pipeline import StreamPump
from xml_pipeline.bridge import Bridge
from xml_pipeline.config import OrganismConfig
from xml_pipeline.config.mesh import MeshConfig
from xml_pipeline.mesh import AgentMesh, EmbeddedServer

__all__ = ["Stage", "organism", "until_known"]


class Stage:
    """An embedded server with members, for a `with` block. What it measures runs in one event loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._closing = AsyncExitStack()

    def __enter__(self) -> Self:
        try:
            self._runner.run(self._enter())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        with self._runner:
            self._runner.run(self._closing.aclose())

    async def _enter(self) -> None:
        server = await self._closing.enter_async_context(EmbeddedServer())
        await self.fill(server.url, self._closing)

    async def fill(self, url: str, closing: AsyncExitStack) -> None:
        """Put the members there; for derived classes.

        Args:
            url: of the server.
            closing: is left at the end, before the server.
        """
        raise NotImplementedError

    def in_loop(self, measure: Callable[[], Coroutine[Any, Any, Sample]]) -> Callable[[], Sample]:
        """A measurement as a function that waits for it."""
        return lambda: self._runner.run(measure())


def organism(url: str, name: str, identity: str = "", **mesh: Any) -> StreamPump:
    """A pump on the mesh, with nothing registered yet, and not started.

    Args:
        url: of the server.
        name: of the organism.
        identity: path of its key; empty for none.
        **mesh: the entries of the ``mesh`` section.
    """
    pump = StreamPump(OrganismConfig(name=name, identity_path=identity, mesh=MeshConfig(url=url, **mesh)))
    pump.attach(Bridge(pump))
    return pump


async def until_known(mesh: AgentMesh, name: str) -> None:
    """Return when an agent of this name is in the catalog."""
    async with aclosing(mesh.catalog_changes()) as changes:
        async for change in changes:
            if change.name == name:
                return
