"""`Discovered`: agents of the mesh as listeners, as they appear.

Each agent whose name fits gets a listener of its name, with classes made from its contract, and loses it when the agent
is gone. What is called like a listener that is there already is left alone, and so is what cannot be said in classes;
both are logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import TYPE_CHECKING, Final

from xml_pipeline.bridge.classes import classes_of
from xml_pipeline.bridge.peer import MeshPeer
from xml_pipeline.config.mesh import pattern_matches
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.mesh import MeshError

if TYPE_CHECKING:
    from xml_pipeline.bridge.outgoing import OutgoingCalls
    from xml_pipeline.config.mesh import MeshAgentConfig
    from xml_pipeline.mesh import AgentMesh, CatalogEntry
    from xml_pipeline.message_bus.engine import Engine
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["Discovered"]

logger = logging.getLogger(__name__)

_PAUSE: Final = 1.0


class Discovered:
    """One entry of ``mesh.agents`` with ``pattern``, or with a ``name`` and no class.

    Args:
        entry: what the configuration says.
        engine: whose routing table the listeners come into.
        lending: see `MeshPeer`.
        calls: see `MeshPeer`.
    """

    def __init__(
        self,
        entry: MeshAgentConfig,
        engine: Engine,
        lending: Callable[[], AbstractContextManager[None]],
        calls: OutgoingCalls,
    ) -> None:
        self.entry = entry
        self._engine = engine
        self._lending = lending
        self._calls = calls
        self._mesh: AgentMesh | None = None
        self._following: asyncio.Task[None] | None = None
        self._peers: dict[str, MeshPeer] = {}

    @property
    def listeners(self) -> Sequence[Listener]:
        """Those of the agents that are there."""
        return [listener for peer in self._peers.values() for listener in peer.listeners]

    async def start(self, mesh: AgentMesh) -> None:
        """Begin to look; the agents that are known already are there when this returns."""
        self._mesh = mesh
        for entry in await mesh.catalog():
            if self._fits(entry):
                await self._appeared(mesh, entry)
        self._following = asyncio.create_task(self._follow(mesh))

    async def refresh(self) -> None:
        """What stood in the way of an agent may be gone."""
        if self._mesh is not None:
            self._peers = {name: peer for name, peer in self._peers.items() if self._is_in_table(peer)}
            for entry in await self._mesh.catalog():
                if self._fits(entry) and entry.name not in self._peers:
                    await self._appeared(self._mesh, entry)

    def end(self) -> None:
        """Add nothing more to the table, from now on."""
        self._mesh = None

    async def stop(self, timeout: float) -> None:
        """Look no more. The agents can be called as long as their listeners are in the table."""
        self.end()
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def _fits(self, entry: CatalogEntry) -> bool:
        pattern = self.entry.pattern or self.entry.name
        return entry.invocable and pattern_matches(pattern, entry.name)

    async def _follow(self, mesh: AgentMesh) -> None:
        while True:
            try:
                async with aclosing(mesh.catalog_changes()) as changes:
                    async for change in changes:
                        if change.after is not None and self._fits(change.after):
                            await self._appeared(mesh, change.after)
                        elif change.name in self._peers:
                            self._gone(change.name)
            except MeshError as error:
                logger.warning("mesh.agents: following the catalog: %s", error)
            except Exception:
                logger.exception("mesh.agents: following the catalog")
            await asyncio.sleep(_PAUSE)

    async def _appeared(self, mesh: AgentMesh, entry: CatalogEntry) -> None:
        name = entry.name
        if mesh.registered(name) is not None:
            return  # our own: the listener itself is there
        try:
            contract = await mesh.contract(name)
            takes, gives = self.entry.payload_class, self.entry.output_class
            if takes is None or gives is None:
                made = classes_of(contract)
                takes, gives = takes or made[0], gives or made[1]
            said = {
                "name": name,
                "pattern": "",
                "payload_class": takes,
                "output_class": gives,
                "description": self.entry.description or contract.description,
            }
            peer = MeshPeer(self.entry.model_copy(update=said), self._lending, self._calls)
        except (MeshError, ConfigurationError) as error:
            logger.warning("mesh.agents: %s is not offered to listeners: %s", name, error)
            return
        self._add(name, peer, mesh)

    def _add(self, name: str, peer: MeshPeer, mesh: AgentMesh) -> None:
        if self._mesh is None:
            return  # a reload has taken the entry away, or the pump stops
        table = self._engine.table
        known = self._peers.get(name)
        if known is not None and _same(known, peer):
            return
        (listener,) = peer.listeners
        if known is not None and self._is_in_table(known):
            table = table.without(listener.name)
        try:
            self._engine.swap(table.with_listener(listener))
        except ConfigurationError as error:
            logger.warning("mesh.agents: %s is not offered to listeners: %s", name, error)
            return
        peer.open(mesh)
        self._peers[name] = peer

    def _gone(self, name: str) -> None:
        peer = self._peers.pop(name)
        if self._is_in_table(peer):
            self._engine.swap(self._engine.table.without(peer.listeners[0].name))

    def _is_in_table(self, peer: MeshPeer) -> bool:
        """Whether its listener is there, and not another one of that name, to which it gave way."""
        (listener,) = peer.listeners
        return self._engine.table.listeners.get(listener.name) is listener


def _same(one: MeshPeer, other: MeshPeer) -> bool:
    """Whether an agent still says the same of itself: its classes are made anew each time."""
    first, second = one.listeners[0], other.listeners[0]
    return (
        first.description == second.description
        and [codec.json_schema() for codec in first.codecs.values()]
        == [codec.json_schema() for codec in second.codecs.values()]
        and (first.output_codec and first.output_codec.json_schema())
        == (second.output_codec and second.output_codec.json_schema())
    )
