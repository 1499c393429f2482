"""`Roster`: the agents of one mesh object, and which of them others do not know of yet."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import ConnectionDenied, MeshError
from xml_pipeline.mesh.job import current_job

if TYPE_CHECKING:
    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.parts import Parts

__all__ = ["Roster"]

_log = logging.getLogger(__name__)

_FAREWELL = 5.0
_UNLISTED_WITHIN = 1.0  # others who leave wait for it


class Roster:
    """The agents, in the order of their registration; a later one of the same name takes the place of the earlier."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self._pending: dict[str, Agent] = {}
        self._parts: Parts | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._settling: asyncio.Task[None] | None = None
        self._refused: ConnectionDenied | None = None  # to be told to whoever does something next

    def add(self, agent: Agent) -> None:
        """Register an agent. While the mesh object is connected, it is served at once, from whatever thread this is."""
        self.agents[agent.name] = agent
        self._pending[agent.name] = agent
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._settle_soon)

    async def offer(self, agent: Agent) -> None:
        """`add`, and be sure that it is served and known, if there is a connection.

        Raises:
            ConnectionDenied: the server does not permit it.
            MeshError: it could not be done; it is tried again the next time.
        """
        self.agents[agent.name] = agent
        self._pending[agent.name] = agent
        await self.settle()

    async def withdraw(self, name: str, timeout: float) -> None:
        """Serve an agent no more, and let others know. One that is not registered: nothing happens.

        It leaves the catalog first, then it takes no more requests, then it finishes those that it has; so who looks
        for it in the catalog does not find what answers no more.

        Args:
            name: of the agent.
            timeout: seconds for the requests that it has.
        """
        async with self._turn:
            self._pending.pop(name, None)
            if self.agents.pop(name, None) is None or self._parts is None:
                return
            parts = self._parts
            gate = parts.gates.gate(name)
            try:
                if gate is not None:
                    await gate.stop()
                if name not in self.agents:
                    await parts.membership.unlist({name}, _UNLISTED_WITHIN)
            finally:  # also when whoever waits here gives up: nobody could withdraw it again
                ending = asyncio.ensure_future(parts.host.deactivate(name, timeout))
            await asyncio.sleep(0)  # it has begun: whoever takes the name now begins anew
        # What it has may take long. Meanwhile others come and go, and maybe one of its name.
        await ending
        async with self._turn:
            if name not in self.agents:
                await parts.membership.withdraw({name}, _FAREWELL)
                parts.journal.forget(name)

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
            ConnectionDenied: the server does not permit it; it is said once, and not tried again.
            MeshError: it could not be done; it is tried again the next time.
        """
        if self._parts is None or not (self._pending or self._refused or self._turn.locked()):
            return
        if not self._pending and current_job() is not None:
            return  # what is under way may wait for the very handler that asks
        async with self._turn:
            await self._serve_pending()
            refused, self._refused = self._refused, None
        if refused is not None:
            raise refused

    async def _serve_pending(self) -> None:
        parts = self._parts
        batch, self._pending = self._pending, {}
        if not batch or parts is None:
            return
        try:
            await parts.journal.open()
            await self._serve(parts, list(batch.values()))
        except BaseException:
            self._pending = {**batch, **self._pending}
            raise

    async def _serve(self, parts: Parts, agents: list[Agent]) -> None:
        try:
            for agent in agents:
                await parts.gates.admit(agent)
            await parts.host.confirm(agent.name for agent in agents)
            await parts.membership.join([agent.contract for agent in agents])
        except ConnectionDenied as error:
            for agent in agents:
                await self._turn_away(parts, agent)
            if len(agents) > 1:  # others of them may be permitted
                for agent in agents:
                    await self._serve(parts, [agent])
                return
            _log.error("the agent %s cannot be served: %s", agents[0].name, error)
            self._refused = error

    @staticmethod
    async def _turn_away(parts: Parts, agent: Agent) -> None:
        gate = parts.gates.gate(agent.name)
        if gate is not None:
            await gate.stop()
        await parts.host.deactivate(agent.name, 0.0)

    def _settle_soon(self) -> None:
        if self._parts is not None and (self._settling is None or self._settling.done()):
            self._settling = asyncio.create_task(self._settle_and_log())

    async def _settle_and_log(self) -> None:
        try:
            async with self._turn:
                while self._pending and self._parts is not None:  # one may be registered meanwhile
                    await self._serve_pending()
        except MeshError as error:
            _log.warning("agents could not be registered yet: %s", error)
