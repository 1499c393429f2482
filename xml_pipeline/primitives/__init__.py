"""Payload classes and handlers that every organism has."""

from xml_pipeline.primitives.boot import Boot, handle_boot
from xml_pipeline.primitives.text import TextInput, TextOutput
from xml_pipeline.primitives.todo import (
    TodoClosed,
    TodoComplete,
    TodoRegistered,
    TodoUntil,
    handle_todo,
    handle_todo_complete,
)

__all__ = [
    "Boot",
    "TextInput",
    "TextOutput",
    "TodoClosed",
    "TodoComplete",
    "TodoRegistered",
    "TodoUntil",
    "handle_boot",
    "handle_todo",
    "handle_todo_complete",
]
