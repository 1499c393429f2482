"""The listeners that every pump has."""

from __future__ import annotations

from xml_pipeline.message_bus.listener import Listener, make_listener
from xml_pipeline.primitives.boot import Boot, handle_boot
from xml_pipeline.primitives.buffer import BufferStart, handle_buffer_start
from xml_pipeline.primitives.sequence import SequenceStart, handle_sequence_start
from xml_pipeline.primitives.todo import TodoComplete, TodoUntil, handle_todo, handle_todo_complete
from xml_pipeline.sequence import SequenceRequest, handle_sequence_request

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
        make_listener(
            "system.sequence",
            handle_sequence_start,
            SequenceStart,
            description="Runs listeners one after another: each step's answer is what the next one is given.",
            joins=True,
            system=True,
        ),
        make_listener(
            "system.sequence.factory",
            handle_sequence_request,
            SequenceRequest,
            description="Checks that the steps of a sequence fit together, then runs it.",
            system=True,
        ),
        make_listener(
            "system.buffer",
            handle_buffer_start,
            BufferStart,
            description="Sends many items to one listener in parallel, and collects their results in order.",
            joins=True,
            system=True,
        ),
    ]
