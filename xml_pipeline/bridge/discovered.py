"""`Discovered`: agents of the mesh as listeners, as they appear.

Each agent whose name fits gets a listener of its name, with classes made from its contract, and loses it when the agent
is gone. What is called like a listener that is there already is left alone, and so is what cannot be said in classes.

One task looks at the agents, one after the other: at those that are new, or whose entry in the catalog or contract in
the registry has changed; and at those that are not offered again when a lost connection is back, and after a while that
grows, for what stood in the way, such as a listener of that name, may be gone. The log says once of each why it is not
offered, and once that it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xml_pipeline.bridge.classes import classes_of
from xml_pipeline.bridge.peer import MeshPeer
from xml_pipeline.config.mesh import pattern_matches
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.mesh import ConnectionDenied, MeshError
from xml_pipeline.mesh.bucket import REGISTRY, Bucket
from xml_pipeline.mesh.bucket_watch import BucketWatch

if TYPE_CHECKING:
    from xml_pipeline.bridge.outgoing import OutgoingCalls
    from xml_pipeline.config.mesh import MeshAgentConfig
    from xml_pipeline.mesh import AgentContract, AgentMesh, CatalogEntry, KVEntry
    from xml_pipeline.message_bus.engine import Engine
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["Discovered"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds until an agent that is not offered is looked at again: at first, and at most."""


@dataclass(slots=True)
class _Agent:
    """An agent whose name fits.

    Args:
        entry: as it was in the catalog.
        peer: its listener; ``None`` while it has none.
        contract: what its contract said, as a digest.
        due: when it is to be looked at, in the loop's time.
        tries: how often that has failed, one after the other.
    """

    entry: CatalogEntry
    peer: MeshPeer | None = None
    contract: str = ""
    due: float = 0.0
    tries: int = 0


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
        self._contracts: BucketWatch | None = None
        self._following: asyncio.Task[None] | None = None
        self._agents: dict[str, _Agent] = {}
        self._news = asyncio.Event()
        self._is_waiting = False

    @property
    def listeners(self) -> Sequence[Listener]:
        """Those of the agents that are there."""
        peers = [agent.peer for agent in self._agents.values()]
        return [listener for peer in peers if peer is not None for listener in peer.part.listeners]

    def inherit(self, other: Discovered, but: frozenset[str] = frozenset()) -> None:
        """Begin with what another entry offers, whose place this one takes: so there is no moment without it.

        Args:
            other: the part of that entry; it stays as it is.
            but: names of listeners that are left out.
        """
        for name, agent in other._agents.items():
            peer = agent.peer
            if peer is None or not other._is_in_table(peer) or not self._fits(agent.entry):
                continue
            took, gave = peer.entry.payload_class, peer.entry.output_class
            assert isinstance(took, type)
            heir = self._peer(name, took, gave if isinstance(gave, type) else None, peer.entry.description)
            if heir.part.listeners[0].name not in but:
                self._agents[name] = _Agent(agent.entry, heir)

    async def start(self, mesh: AgentMesh) -> None:
        """Begin to look; the agents that are known already are there when this returns."""
        await mesh.catalog()
        await self._watch_contracts(mesh)
        self.open(mesh)
        while await self._look_around(mesh) == 0.0:
            pass
        self._following = asyncio.create_task(self._follow(mesh))

    def open(self, mesh: AgentMesh) -> None:
        """What it has inherited can be called from now on."""
        self._mesh = mesh
        for agent in self._agents.values():
            if agent.peer is not None:
                agent.peer.part.open(mesh)

    async def refresh(self) -> None:
        """What stood in the way of an agent may be gone."""
        for agent in self._agents.values():
            if agent.peer is not None and not self._is_in_table(agent.peer):
                agent.peer = None
            if agent.peer is None:
                agent.due = 0.0
        self._news.set()

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
        contracts, self._contracts = self._contracts, None
        if contracts is not None:
            await contracts.stop()

    # -- looking

    @property
    def _pattern(self) -> str:
        return self.entry.pattern or self.entry.name

    def _fits(self, entry: CatalogEntry) -> bool:
        return entry.invocable and pattern_matches(self._pattern, entry.name)

    async def _watch_contracts(self, mesh: AgentMesh) -> None:
        """Who serves an agent now may take something else than who did before, and have the same entry."""
        registry = Bucket(mesh.parts.jetstream, REGISTRY)
        watch = BucketWatch(mesh.parts.link, registry, self._pattern, self._contract_changed)
        try:
            await watch.skip()
            await watch.start()
        except ConnectionDenied as error:
            logger.warning("mesh.agents: %s: which contracts change is not known here: %s", self._pattern, error)
        else:
            self._contracts = watch

    def _contract_changed(self, change: KVEntry[bytes]) -> None:
        agent = self._agents.get(change.key)
        if agent is not None and not change.is_deleted:
            agent.due = 0.0
            self._news.set()

    async def _follow(self, mesh: AgentMesh) -> None:
        changed, restored = mesh.parts.catalog.on_changed, mesh.parts.link.on_restored
        changed.append(self._news.set)
        restored.append(self._restored)
        try:
            while True:
                await self._wait(await self._look_again(mesh))
        finally:
            changed.remove(self._news.set)
            restored.remove(self._restored)

    async def _look_again(self, mesh: AgentMesh) -> float:
        try:
            return await self._look_around(mesh)
        except MeshError as error:
            logger.warning("mesh.agents: the catalog: %s", error)
        except Exception:
            logger.exception("mesh.agents: following the catalog")
        return _LONGEST_PAUSE

    async def _wait(self, pause: float) -> None:
        try:
            async with asyncio.timeout(pause if pause < math.inf else None):
                await self._news.wait()
        except TimeoutError:
            pass

    def _restored(self) -> None:
        for agent in self._agents.values():
            if agent.peer is None:
                agent.due = 0.0
        self._news.set()

    async def _look_around(self, mesh: AgentMesh) -> float:
        """Have those offered that are there.

        Returns:
            Seconds until there is something to look at again; 0.0 if that is now, for something has changed.
        """
        self._news.clear()
        self._compare({name: entry for name, entry in mesh.parts.catalog.entries.items() if self._fits(entry)})
        loop = asyncio.get_running_loop()
        for agent in list(self._agents.values()):
            if self._news.is_set():
                return 0.0
            if agent.due <= loop.time():
                if not mesh.is_connected:
                    self._tell_of_waiting()
                    return math.inf
                await self._look_at(mesh, agent)
        self._is_waiting = False
        return max(0.001, min((agent.due for agent in self._agents.values()), default=math.inf) - loop.time())

    def _compare(self, entries: dict[str, CatalogEntry]) -> None:
        for name in [name for name in self._agents if name not in entries]:
            self._withdraw(self._agents.pop(name))
        for name, entry in entries.items():
            agent = self._agents.get(name)
            if agent is None:
                self._agents[name] = _Agent(entry)
            elif agent.entry != entry:
                agent.entry, agent.due = entry, 0.0

    def _tell_of_waiting(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            logger.warning("mesh.agents: %s: looked for when the connection is there again", self._pattern)

    async def _look_at(self, mesh: AgentMesh, agent: _Agent) -> None:
        name = agent.entry.name
        agent.due = math.inf  # before anything is asked: what makes it due from now on counts
        if mesh.registered(name) is not None:
            return  # our own: the listener itself is there
        try:
            contract = await mesh.parts.directory.contract(name)
            if self._mesh is not None:  # else a reload has taken the entry away, or the pump stops
                self._offer(mesh, agent, contract)
        except MeshError as error:
            self._failed(mesh, agent, error)
        except ConfigurationError as error:
            self._withdraw(agent)
            self._failed(mesh, agent, error)
        except Exception as error:  # a contract may hold anything
            self._withdraw(agent)
            self._failed(mesh, agent, error, exc_info=True)
        else:
            if agent.tries and agent.peer is not None:
                logger.info("mesh.agents: %s is offered to listeners", name)
            agent.tries = 0

    def _failed(self, mesh: AgentMesh, agent: _Agent, error: Exception, *, exc_info: bool = False) -> None:
        name = agent.entry.name
        if not mesh.is_connected:
            agent.due = 0.0
            return
        if mesh.parts.catalog.entry(name) is None:
            return  # it has left meanwhile
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(agent.tries, 16))
        # Half of it is chance, lest all organisms of a mesh ask at the same time.
        agent.due = min(agent.due, asyncio.get_running_loop().time() + pause * random.uniform(0.5, 1.0))
        level = logging.DEBUG if agent.tries else logging.WARNING
        agent.tries += 1
        logger.log(level, "mesh.agents: %s is not offered to listeners: %s", name, error, exc_info=exc_info)

    # -- offering

    def _offer(self, mesh: AgentMesh, agent: _Agent, contract: AgentContract) -> None:
        """Have a listener for an agent.

        Raises:
            ConfigurationError: it can have none.
        """
        said = _digest(contract)
        known = agent.peer
        if known is not None and said == agent.contract and self._is_in_table(known):
            return
        takes, gives = self.entry.payload_class, self.entry.output_class
        if takes is None or gives is None:
            made = classes_of(contract)
            takes, gives = takes or made[0], gives or made[1]
        assert isinstance(takes, type)
        peer = self._peer(contract.name, takes, gives if isinstance(gives, type) else None, contract.description)
        table = self._engine.table
        (listener,) = peer.part.listeners
        if known is not None and self._is_in_table(known):
            table = table.without(known.part.listeners[0].name)
        self._engine.swap(table.with_listener(listener))
        peer.part.open(mesh)
        agent.peer, agent.contract = peer, said

    def _peer(self, name: str, takes: type, gives: type | None, description: str) -> MeshPeer:
        said = {
            "name": name,
            "pattern": "",
            "payload_class": takes,
            "output_class": gives,
            "description": self.entry.description or description,
        }
        return MeshPeer(self.entry.model_copy(update=said), self._lending, self._calls)

    def _withdraw(self, agent: _Agent) -> None:
        peer, agent.peer = agent.peer, None
        if peer is not None and self._mesh is not None and self._is_in_table(peer):
            self._engine.swap(self._engine.table.without(peer.part.listeners[0].name))

    def _is_in_table(self, peer: MeshPeer) -> bool:
        """Whether its listener is there, and not another one of that name, to which it gave way."""
        (listener,) = peer.part.listeners
        return self._engine.table.listeners.get(listener.name) is listener


def _digest(contract: AgentContract) -> str:
    """All of a contract that a listener is made of: to be compared, and not kept, for it may be long."""
    schemas = [contract.input_schema, contract.output_schema, contract.chunk_schema]
    said = json.dumps([contract.description, contract.streaming, *schemas], default=str)
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()
