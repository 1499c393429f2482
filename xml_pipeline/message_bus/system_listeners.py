"""The listeners that every pump has."""

from __future__ import annotations

from xml_pipeline.message_bus.listener import Listener, make_listener
from xml_pipeline.primitives.boot import Boot, handle_boot
from xml_pipeline.primitives.todo import TodoComplete, TodoUntil, handle_todo, handle_todo_complete

__all__ = ["system_listeners"]


def system_listeners() -> list[Listener]:
    """New records of the pump's own listeners."""
    return [
        make_listener("system.boot", handle_boot, Boot, description="Logs the start.", system=True),
        make_listener(
            "system.todo",
            handle_todo,
            (TodoUntil, TodoComplete),
            description="Reminds an agent when a message of a class has arrived.",
            system=True,
        ),
        make_listener(
            "system.todo-complete",
            handle_todo_complete,
            TodoComplete,
            description="Closes a reminder; system.todo does so too.",
            system=True,
        ),
    ]
