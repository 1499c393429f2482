"""`Bridge`: an organism on the mesh, from the start of its pump to its end.

It is attached to a pump (`StreamPump.attach`) and does what the ``mesh`` section says. A reload changes it: entries
that are the same stay as they are, what is gone is stopped, what is new is started, and no message is lost by that.
Which server it talks to stays the same as long as the pump runs.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xml_pipeline.bridge.baggage import BaggageRoom
from xml_pipeline.bridge.border import Border
from xml_pipeline.bridge.discovered import Discovered
from xml_pipeline.bridge.event_feed import EventFeed
from xml_pipeline.bridge.exposed import Exposed
from xml_pipeline.bridge.incoming import IncomingCalls
from xml_pipeline.bridge.outgoing import OutgoingCalls
from xml_pipeline.bridge.outward import Outward
from xml_pipeline.bridge.part_maker import PartMaker, entries_of
from xml_pipeline.bridge.refused import Refused
from xml_pipeline.config import broadcast_group
from xml_pipeline.config.mesh import MeshConfig
from xml_pipeline.crypto import TrustStore
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.mesh import AgentMesh, MeshError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from xml_pipeline.bridge.part import Part
    from xml_pipeline.bridge.part_maker import Entry
    from xml_pipeline.config import OrganismConfig
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["Bridge"]

logger = logging.getLogger(__name__)

_OWN = "local"
_SERVER = ("url", "creds", "tls_cert", "tls_key", "tls_ca")


class Bridge:
    """Carries out the ``mesh`` section of a pump's configuration.

    ::

        pump = StreamPump(OrganismConfig(name="demo", mesh=MeshConfig(expose=[ExposeConfig(listener="greeter")])))
        pump.attach(Bridge(pump))

    Args:
        pump: that it is attached to.
        url: of the server, in the place of the configuration's; ``None`` for that.
        intake: whether anything comes in: with ``False`` nothing is exposed or followed, and listeners can only call
            out. For programs that do one thing and end, and are to take no work from those that stay.
    """

    def __init__(self, pump: StreamPump, *, url: str | None = None, intake: bool = True) -> None:
        self._pump = pump
        self._url = url
        self._intake = intake
        self._config = MeshConfig()
        self._parts: list[tuple[Entry, Part]] = []
        self._closing = AsyncExitStack()
        self._mesh: AgentMesh | None = None
        self._is_own = False
        self._turn = asyncio.Lock()
        self._changing: set[asyncio.Task[None]] = set()
        self._leaving: list[Part] = []
        engine = pump.engine
        self._refused = Refused(engine.events)
        self._border = Border(lambda: pump.identity, self._refused, lambda: pump.engine.limits.max_message_bytes)
        self._baggage = BaggageRoom(engine.budgets)
        incoming = IncomingCalls(lambda: pump.config.name, self._border, self._baggage)
        outgoing = OutgoingCalls(lambda: pump.config.name, self._border, self._baggage)
        self._maker = PartMaker(pump, incoming, outgoing)

    @property
    def refused(self) -> Mapping[str, int]:
        """How many requests and answers were not let in, by the reason, as `xml_pipeline.crypto.Reason` names it."""
        return self._refused.counts

    @property
    def mesh(self) -> AgentMesh:
        """The organism as a member of the mesh.

        Raises:
            RuntimeError: the pump has not started, or has stopped.
        """
        if self._mesh is None:
            raise RuntimeError("the bridge is not open: start the pump first")
        return self._mesh

    @property
    def own_url(self) -> str:
        """Where the server is that was started for this organism alone; empty if there is none."""
        return self._mesh.url if self._mesh is not None and self._is_own else ""

    # -- what the configuration means

    def plan(self, config: OrganismConfig) -> _Change:
        """See `Attachment.plan`."""
        section = config.mesh or MeshConfig()
        if self._mesh is not None and any(getattr(section, key) != getattr(self._config, key) for key in _SERVER):
            logger.warning("reload: the mesh's server stays the same until the next start")
        kept = list(self._parts)
        parts: list[tuple[Entry, Part]] = []
        for entry in entries_of(config, section, self._intake):
            known = next((each for each in kept if each[0] == entry), None)
            if known is not None:
                kept.remove(known)
            parts.append(known or (entry, self._maker.make(entry)))
        self._hand_on([part for _, part in kept], [part for _, part in parts])
        _check_names([part for _, part in parts])
        return _Change(self, section, parts, _trust(section), _said(config, section))

    def _hand_on(self, gone: Sequence[Part], parts: Sequence[Part]) -> None:
        """What an entry that is gone has found is there from the start for one that takes its place."""
        taken = {listener.name for part in parts for listener in part.listeners}
        for part in parts:
            if isinstance(part, Discovered) and all(part is not known for _, known in self._parts):
                for other in gone:
                    if isinstance(other, Discovered):
                        part.inherit(other, frozenset(taken))
                        taken |= {listener.name for listener in part.listeners}

    def put(self, section: MeshConfig, parts: list[tuple[Entry, Part]], trust: TrustStore) -> None:
        """Have these parts from now on; the change of a reload does it."""
        self._border.trust = trust
        before, self._parts, self._config = self._parts, parts, section
        if self._mesh is None:
            return  # `open` starts them
        gone = [part for entry, part in before if part not in [kept for _, kept in parts]]
        new = [part for _, part in parts if part not in [known for _, known in before]]
        for part in new:
            if isinstance(part, (Outward, Discovered)):
                part.open(self._mesh)  # its listener may be called as soon as this returns
        for part in gone:
            if isinstance(part, Discovered):
                part.end()  # the table is without its listeners already
        self._leaving += gone
        self._begin(self._change(gone, new))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)

    async def _change(self, gone: Sequence[Part], new: Sequence[Part]) -> None:
        async with self._turn:
            mesh = self._mesh
            if mesh is None:
                return
            # First what is new: where it takes the place of what is gone, nothing falls between them.
            results = await asyncio.gather(*(self._started(part, mesh) for part in new), return_exceptions=True)
            results += await asyncio.gather(*(part.refresh() for _, part in self._parts), return_exceptions=True)
        # What is still at work at the end of what is gone holds up no later reload.
        results += await asyncio.gather(*(part.stop(_FAREWELL) for part in gone), return_exceptions=True)
        self._leaving = [part for part in self._leaving if part not in gone]
        for result in results:
            if isinstance(result, Exception):
                logger.error("reload: a change of the mesh section failed", exc_info=result)

    async def _started(self, part: Part, mesh: AgentMesh) -> None:
        """Start what is new. What cannot start now, e.g. because the connection is away, is started later."""
        try:
            await part.start(mesh)
        except MeshError as error:
            logger.warning("reload: %s cannot start yet, and tries again: %s", type(part).__name__, error)
            self._begin(self._start_later(part, mesh))

    async def _start_later(self, part: Part, mesh: AgentMesh) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            async with self._turn:
                if all(part is not each for _, each in self._parts):
                    return  # another reload has taken it away
                try:
                    await part.start(mesh)
                except MeshError as error:
                    logger.debug("reload: %s cannot start yet: %s", type(part).__name__, error)
                else:
                    return

    # -- from start to end

    async def open(self) -> None:
        """See `Attachment.open`.

        Raises:
            ConfigurationError: there is no server, or it does not let the organism do what is configured.
        """
        url = self._url or self._config.url
        try:
            self._is_own = url == _OWN
            mesh = await self._enter(url)
            self._mesh = mesh
            self._border.memory.use(mesh)
            self._pump.engine.ledger.on_complete.append(self._baggage.forget)
            for _, part in self._parts:
                await part.start(mesh)
        except MeshError as error:
            raise ConfigurationError(f"mesh: {error}") from error

    async def _enter(self, url: str) -> AgentMesh:
        if self._is_own:
            return await self._closing.enter_async_context(AgentMesh.local())
        config = self._config
        mesh = AgentMesh(
            url,
            creds=config.creds or None,
            tls_cert=config.tls_cert or None,
            tls_key=config.tls_key or None,
            tls_ca=config.tls_ca or None,
        )
        return await self._closing.enter_async_context(mesh)

    async def quiesce(self, timeout: float) -> None:
        """See `Attachment.quiesce`."""
        for task in list(self._changing):
            task.cancel()
        await asyncio.gather(*self._changing, return_exceptions=True)
        # What happens while the pump drains is worth knowing, so the events come last, in `close`.
        parts = [part for _, part in self._parts if not isinstance(part, EventFeed)] + self._leaving
        results = await asyncio.gather(*(part.stop(timeout) for part in parts), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                logger.error("a part of the mesh section was not left in order", exc_info=result)

    async def close(self) -> None:
        """See `Attachment.close`."""
        self._mesh = None
        for _, part in self._parts:
            if isinstance(part, EventFeed):
                await part.stop(0.0)
        await self._closing.aclose()


_FAREWELL = 30.0
_PAUSE = 1.0
"""Seconds until what could not start tries again."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What another configuration means; see `Change`."""

    bridge: Bridge
    section: MeshConfig
    parts: list[tuple[Entry, Part]]
    trust: TrustStore
    said: frozenset[str]

    @property
    def listeners(self) -> list[Listener]:
        """What the parts add to the routing table. What is only found gives way to what the configuration says."""
        return [
            listener
            for _, part in self.parts
            for listener in part.listeners
            if not (isinstance(part, Discovered) and listener.name.lower() in self.said)
        ]

    def apply(self) -> None:
        """Put it into effect."""
        self.bridge.put(self.section, self.parts, self.trust)


def _said(config: OrganismConfig, section: MeshConfig) -> frozenset[str]:
    """The names of what the configuration says, in lower case; not of agents whose classes are found."""
    found = {each.listener_name for each in section.agents if each.payload_class is None}
    names = {name for _, name in section.listener_names()} - found
    for each in config.listeners:
        names |= {each.name, broadcast_group(each.name, each.broadcast) or each.name}
    return frozenset(name.lower() for name in names)


def _trust(section: MeshConfig) -> TrustStore:
    entries = [entry.model_dump() for entry in section.trust]
    try:
        return TrustStore.from_config(entries, section.signatures)
    except ConfigurationError as error:
        raise ConfigurationError(f"mesh: {error}") from error


def _check_names(parts: Sequence[Part]) -> None:
    names = [part.name for part in parts if isinstance(part, Exposed)]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigurationError(f"mesh.expose: two listeners are called {sorted(twice)[0]!r} on the mesh")
