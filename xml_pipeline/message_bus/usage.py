"""What an agent is told about the peers it may call: their schemas, and an example that is valid against them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lxml import etree

from xml_pipeline.message_bus.routing import RoutingTable

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["update_usage", "usage_instructions"]

_SEMANTICS = """\
## Answering and calling

- Answering your caller ends this call: everything it led to is closed.
- Peers that you called so far end with it and lose their state; they cannot be called again in that context.
- So finish all sub-tasks first, and answer once you have what you need.
- A call is not answered at once: wait for a peer's result, which comes to you as a message, before you answer.
"""


def usage_instructions(agent: Listener, table: RoutingTable) -> str:
    """The text for one agent; empty for one without peers.

    Args:
        agent: the agent.
        table: where its peers are looked up.

    Returns:
        Who it is, then each peer in the order of its list, with schema and example, then what answering means.
    """
    if not agent.peers:
        return ""
    parts = [f"You are {agent.name!r}.", *([agent.description] if agent.description else [])]
    parts.append("You may call the following peers by sending one of their payloads:")
    parts += [_peer(name, table) for name in agent.peers]
    parts.append(_SEMANTICS)
    return "\n\n".join(parts)


def update_usage(table: RoutingTable) -> None:
    """Write the instructions of every agent of a table."""
    for listener in table.listeners.values():
        if listener.is_agent:
            listener.usage_instructions = usage_instructions(listener, table)


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
