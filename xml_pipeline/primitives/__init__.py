"""Payload classes and handlers that every organism has."""

from xml_pipeline.primitives.boot import Boot, handle_boot
from xml_pipeline.primitives.budget import BudgetWarning, warn_of_budget
from xml_pipeline.primitives.buffer import (
    BufferComplete,
    BufferDispatched,
    BufferError,
    BufferStart,
    handle_buffer_start,
)
from xml_pipeline.primitives.fragments import parse_payloads, payload_text
from xml_pipeline.primitives.sequence import SequenceComplete, SequenceError, SequenceStart, handle_sequence_start
from xml_pipeline.primitives.step_names import join_names, split_names
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
    "BudgetWarning",
    "BufferComplete",
    "BufferDispatched",
    "BufferError",
    "BufferStart",
    "SequenceComplete",
    "SequenceError",
    "SequenceStart",
    "TextInput",
    "TextOutput",
    "TodoClosed",
    "TodoComplete",
    "TodoRegistered",
    "TodoUntil",
    "handle_boot",
    "handle_buffer_start",
    "handle_sequence_start",
    "handle_todo",
    "handle_todo_complete",
    "join_names",
    "parse_payloads",
    "payload_text",
    "split_names",
    "warn_of_budget",
]
