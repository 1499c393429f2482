"""From the entries of the ``mesh`` section to what they become."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

from xml_pipeline.bridge.discovered import Discovered
from xml_pipeline.bridge.event_feed import EventFeed
from xml_pipeline.bridge.exposed import Exposed
from xml_pipeline.bridge.kv_watched import KVWatched
from xml_pipeline.bridge.peer import MeshPeer
from xml_pipeline.bridge.sink import Sink, publish, put
from xml_pipeline.bridge.subject_durable import SubjectDurable
from xml_pipeline.bridge.subject_followed import SubjectFollowed
from xml_pipeline.config.mesh import agent_name_fault
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.subjects import events_subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xml_pipeline.bridge.incoming import IncomingCalls
    from xml_pipeline.bridge.outgoing import OutgoingCalls
    from xml_pipeline.bridge.part import Part
    from xml_pipeline.config import OrganismConfig
    from xml_pipeline.config.mesh import ExposeConfig, KVConfig, MeshAgentConfig, MeshConfig, SubjectConfig
    from xml_pipeline.mesh import KVEntry
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.stream_pump import StreamPump

    _Sending = TypeVar("_Sending", KVConfig, SubjectConfig)

__all__ = ["Entry", "PartMaker", "entries_of"]

Entry = tuple[str, Any]
"""What kind of entry, and all that its part is made of. Two equal ones are the same."""


def entries_of(config: OrganismConfig, section: MeshConfig, intake: bool) -> list[Entry]:
    """The entries of a section, in order.

    Args:
        config: whose section it is.
        section: the section.
        intake: whether those count by which anything comes in.
    """
    entries: list[Entry] = [("events", config.name)] if section.events else []
    if intake:
        entries += [("expose", _named(entry, config)) for entry in section.expose]
    entries += [("agents", entry) for entry in section.agents if intake or entry.to is None]
    entries += [("kv", _timed(entry, config)) for entry in section.kv if intake or entry.to is None]
    entries += [("subjects", _timed(entry, config)) for entry in section.subjects if intake or entry.to is None]
    return entries


def _named(entry: ExposeConfig, config: OrganismConfig) -> ExposeConfig:
    """With what the organism says in the place of what the entry does not."""
    said = {"name": entry.name or f"{config.name}.{entry.listener}", "version": entry.version or config.version}
    fault = agent_name_fault(said["name"])
    if fault is not None:
        raise ConfigurationError(f"mesh.expose: {entry.listener!r} needs 'as', the name on the mesh: {fault}")
    return entry.model_copy(update=said)


def _timed(entry: _Sending, config: OrganismConfig) -> _Sending:
    """The same for what goes out, which is handled here and has a time for that."""
    if entry.to is not None or entry.timeout is not None:
        return entry
    return entry.model_copy(update={"timeout": config.timeout})


class PartMaker:
    """Makes parts.

    Args:
        pump: whose.
        incoming: takes calls in.
        outgoing: makes calls.
    """

    def __init__(self, pump: StreamPump, incoming: IncomingCalls, outgoing: OutgoingCalls) -> None:
        self._pump = pump
        self._engine = pump.engine
        self._incoming = incoming
        self._outgoing = outgoing

    def make(self, entry: Entry) -> Part:
        """The part of an entry.

        Raises:
            ConfigurationError: it cannot be made.
        """
        kind, said = entry
        match kind:
            case "events":
                return EventFeed(self._engine.events, said, self._origin)
            case "expose":
                return Exposed(said, self._listener, self._engine.gateway, self._incoming)
            case "agents":
                return self._agent(said)
            case "kv":
                return self._kv(said)
            case _:
                return self._subject(said)

    def _agent(self, said: MeshAgentConfig) -> Part:
        lending = self._engine.dispatcher.lender.lending
        if said.subscribe:
            return self._followed(events_subject(said.subscribe), said, frames=True)
        if said.name and said.payload_class is not None:
            return MeshPeer(said, lending, self._outgoing).part
        return Discovered(said, self._engine, lending, self._outgoing)

    def _kv(self, said: KVConfig) -> Part:
        if said.watch:
            return KVWatched(said, self._engine.gateway, self._engine.dead_letters, self._has_put)
        return Sink(said, said.put, put, self._engine.dispatcher.lender.lending, self._origin).part

    def _subject(self, said: SubjectConfig) -> Part:
        if said.publish:
            return Sink(said, said.publish, publish, self._engine.dispatcher.lender.lending, self._origin).part
        is_own = None if said.echo else self._has_sent
        if said.durable:
            engine = self._engine
            return SubjectDurable(said, engine.gateway, engine.dead_letters, is_own, self._origin, self._name)
        return self._followed(said.subscribe, said, queue=said.queue, max_in_flight=said.max_in_flight, is_own=is_own)

    def _followed(self, subject: str, said: MeshAgentConfig | SubjectConfig, **options: Any) -> Part:
        assert isinstance(said.payload_class, type) and said.to is not None
        engine = self._engine
        return SubjectFollowed(subject, said.to, said.payload_class, engine.gateway, engine.dead_letters, **options)

    def _listener(self, name: str) -> Listener | None:
        return self._engine.table.listeners.get(name)

    # -- what is our own

    def _name(self) -> str:
        return self._pump.config.name

    def _origin(self) -> str:
        """What every node of the organism sends with all it sends. A name may hold what a header may not."""
        digest = hashlib.sha256(self._name().encode("utf-8", "surrogatepass")).hexdigest()
        return f"organism:{digest[:32]}"

    def _has_put(self, change: KVEntry[bytes]) -> bool:
        return change.origin == self._origin()

    def _has_sent(self, headers: Mapping[str, str]) -> bool:
        return headers.get(h.ORIGIN) == self._origin()
