"""Reminders over the wire: "tell me again when this has arrived".

An agent sends `TodoUntil` to ``system.todo`` and is told the watcher's id. When a message of the awaited class reaches
anybody in its conversation, the watcher is raised, and every later call of the agent carries the reminder in
``metadata.todo_nudge`` until it sends `TodoComplete`. Watchers end with their conversation.
"""

from __future__ import annotations

from dataclasses import dataclass

from third_party.xmlable import xmlify
from xml_pipeline.message_bus.message_state import HandlerMetadata, HandlerResponse
from xml_pipeline.message_bus.todo_registry import get_todo_registry

__all__ = ["TodoClosed", "TodoComplete", "TodoRegistered", "TodoUntil", "handle_todo", "handle_todo_complete"]


@xmlify
@dataclass(frozen=True, slots=True)
class TodoUntil:
    """Ask to be reminded.

    Args:
        wait_for: name of the payload class that is awaited.
        from_listener: only when it comes from this listener; empty for anybody.
        description: what is to be done then; it is part of the reminder.
    """

    wait_for: str = ""
    from_listener: str = ""
    description: str = ""


@xmlify
@dataclass(frozen=True, slots=True)
class TodoComplete:
    """Close a todo.

    Args:
        id: as `TodoRegistered` or the reminder gave it.
    """

    id: str = ""


@xmlify
@dataclass(frozen=True, slots=True)
class TodoRegistered:
    """The answer to `TodoUntil`."""

    id: str = ""
    wait_for: str = ""
    description: str = ""


@xmlify
@dataclass(frozen=True, slots=True)
class TodoClosed:
    """The answer to `TodoComplete`.

    Args:
        id: the todo's id.
        was_raised: whether what it waited for had arrived.
    """

    id: str = ""
    was_raised: bool = False


async def handle_todo(payload: TodoUntil | TodoComplete, metadata: HandlerMetadata) -> HandlerResponse | None:
    """Register a watcher for the caller, in its conversation, or close one of its own.

    Raises:
        ValueError: ``wait_for`` is empty.
    """
    if isinstance(payload, TodoComplete):
        return await handle_todo_complete(payload, metadata)
    watcher_id = get_todo_registry().register(
        metadata.conversation_id,
        metadata.from_id,
        payload.wait_for,
        payload.from_listener or None,
        payload.description,
    )
    return HandlerResponse.respond(TodoRegistered(watcher_id, payload.wait_for, payload.description))


async def handle_todo_complete(payload: TodoComplete, metadata: HandlerMetadata) -> HandlerResponse | None:
    """Close a watcher of the caller's own; nothing is answered for one that is unknown, or somebody else's."""
    registry = get_todo_registry()
    watcher = registry.get(payload.id)
    if watcher is None or not registry.close(payload.id, issuer=metadata.from_id):
        return None
    return HandlerResponse.respond(TodoClosed(payload.id, watcher.eyebrow_raised))
