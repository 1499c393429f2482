"""A mesh on this machine, with a server of its own, for development and tests."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from xml_pipeline.mesh.monitor import Monitor
from xml_pipeline.mesh.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from xml_pipeline.mesh.mesh import AgentMesh

__all__ = ["Local"]


class Local:
    """``AgentMesh.local()`` gives a new mesh object, ``mesh.local()`` the same one with the agents it has."""

    def __get__(
        self, mesh: AgentMesh | None, kind: type[AgentMesh]
    ) -> Callable[[], AbstractAsyncContextManager[AgentMesh]]:
        return partial(_local, mesh, kind)


@asynccontextmanager
async def _local(mesh: AgentMesh | None, kind: type[AgentMesh]) -> AsyncIterator[AgentMesh]:
    async with EmbeddedServer() as server, Monitor.of(server.url, server.system_url):
        used = mesh if mesh is not None else kind()
        with used.connecting_to(server.url):
            async with used:
                yield used
