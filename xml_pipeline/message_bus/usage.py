"""What an agent is told about the peers it may call: their schemas, and an example that is valid against them.

The texts are long, and most are never read before the table of listeners changes again. So each is written when it is
first asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lxml import etree

from xml_pipeline.message_bus.routing import CurrentTable, RoutingTable

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.peer_tables import PeerTables
    from xml_pipeline.message_bus.permissions import Permissions

__all__ = ["Usage", "update_usage", "usage_instructions"]

_SEMANTICS = """\
## Answering and calling

- Answering your caller ends this call: everything it led to is closed.
- Peers that you called so far end with it and lose their state; they cannot be called again in that context.
- So finish all sub-tasks first, and answer once you have what you need.
- A call is not answered at once: wait for a peer's result, which comes to you as a message, before you answer.
"""

_MAX_NARROWED = 1_000
"""Texts for agents under peer tables that are kept; beyond it all are forgotten, and written anew."""


def usage_instructions(agent: Listener, table: RoutingTable, may: Callable[[str], bool] | None = None) -> str:
    """The text for one agent; empty for one without peers.

    Args:
        agent: the agent.
        table: where its peers are looked up.
        may: which of its peers are mentioned; default: all.

    Returns:
        Who it is, then each peer in the order of its list, with schema and example, then what answering means.
    """
    peers = [name for name in agent.peers or () if may is None or may(name)]
    if not peers:
        return ""
    parts = [f"You are {agent.name!r}.", *([agent.description] if agent.description else [])]
    parts.append("You may call the following peers by sending one of their payloads:")
    parts += [_peer(name, table) for name in peers]
    parts.append(_SEMANTICS)
    return "\n\n".join(parts)


def update_usage(table: RoutingTable) -> None:
    """Have the instructions of every agent of a table written anew, when they are next asked for."""
    for listener in table.listeners.values():
        if listener.is_agent:
            listener.usage = _Text(listener, table)


class _Text:
    """An agent's instructions with one table of listeners, written at the first call."""

    __slots__ = ("_agent", "_table", "_text")

    def __init__(self, agent: Listener, table: RoutingTable) -> None:
        self._agent = agent
        self._table: RoutingTable | None = table
        self._text = ""

    def __call__(self) -> str:
        table = self._table
        if table is not None:
            self._text = usage_instructions(self._agent, table)
            self._table = None  # not kept longer than it is needed
        return self._text


class Usage:
    """The instructions that the agents of one pump get with their messages.

    Args:
        current: has the routing table in force.
        peer_tables: of the same pump.
        permissions: says what a peer table leaves of an agent's peers.
    """

    def __init__(self, current: CurrentTable, peer_tables: PeerTables, permissions: Permissions) -> None:
        self._current = current
        self._peer_tables = peer_tables
        self._permissions = permissions
        self._narrowed: dict[tuple[str, str], tuple[tuple[int, ...], str]] = {}

    def of(self, agent: Listener, peer_table: str | None) -> str:
        """The instructions for a message to ``agent``: for its peers in force, as far as the conversation allows them.

        Args:
            agent: the record that its frame was opened with.
            peer_table: the conversation's.
        """
        table = self._current.table
        agent = table.listeners.get(agent.name, agent)
        if peer_table is None:
            return agent.usage_instructions
        key = (peer_table, agent.name)
        versions = self._peer_tables.versions(peer_table)
        known = self._narrowed.get(key)
        if known is not None and known[0] == versions:
            return known[1]
        text = usage_instructions(agent, table, lambda name: self._permissions.allows(agent, name, peer_table))
        if len(self._narrowed) >= _MAX_NARROWED:
            self._narrowed.clear()
        self._narrowed[key] = (versions, text)
        return text

    def forget(self) -> None:
        """Another routing table is in force: what was written with the one before is wrong now."""
        self._narrowed.clear()


def _peer(name: str, table: RoutingTable) -> str:
    members = table.groups.get(name)
    listener = table.listeners.get(name) or (members[0] if members else None)
    if listener is None:
        return f"## {name} (not registered)"
    parts = [f"## {name}"]
    if members:
        parts.append(f"A group of {len(members)}: each member gets your message and answers separately.")
        parts += [f"- {member.name}: {member.description}" for member in members]
    elif listener.description:
        parts.append(listener.description)
    if listener.is_generic:
        parts.append("Takes any payload.")
    for codec in listener.codecs.values():
        schema = etree.tostring(codec.xsd(), pretty_print=True, encoding="unicode").strip()
        parts.append(f"Schema:\n\n```xml\n{schema}\n```")
        parts.append(f"Example:\n\n```xml\n{codec.example().strip()}\n```")
    return "\n\n".join(parts)
