"""`Roster`: the agents of one mesh object, and which of them others do not know of yet."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import MeshError

if TYPE_CHECKING:
    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.parts import Parts

__all__ = ["Roster"]

_log = logging.getLogger(__name__)


class Roster:
    """The agents, in the order of their registration; a later one of the same name takes the place of the earlier."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self._pending: dict[str, Agent] = {}
        self._parts: Parts | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._settling: asyncio.Task[None] | None = None

    def add(self, agent: Agent) -> None:
        """Register an agent. While the mesh object is connected, it is served at once, from whatever thread this is."""
        self.agents[agent.name] = agent
        self._pending[agent.name] = agent
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._settle_soon)

    def attach(self, parts: Parts) -> None:
        """The mesh object is connected: all agents are to be served."""
        self._pending = dict(self.agents)
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()

    async def detach(self) -> None:
        """The mesh object is about to leave: what is registered from now on waits for the next time."""
        self._parts = self._loop = None
        task, self._settling = self._settling, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def settle(self) -> None:
        """Serve every agent that is not served yet, and make it known.

        Raises:
            MeshError: it could not be done; it is tried again the next time.
        """
        if not self._pending or self._parts is None:
            return
        async with self._turn:
            parts = self._parts
            batch, self._pending = self._pending, {}
            if not batch or parts is None:
                return
            try:
                for agent in batch.values():
                    await parts.host.activate(agent)
                await parts.membership.join([agent.contract for agent in batch.values()])
            except BaseException:
                self._pending = {**batch, **self._pending}
                raise

    def _settle_soon(self) -> None:
        if self._parts is not None and (self._settling is None or self._settling.done()):
            self._settling = asyncio.create_task(self._settle_and_log())

    async def _settle_and_log(self) -> None:
        try:
            await self.settle()
        except MeshError as error:
            _log.warning("agents could not be registered yet: %s", error)
