"""What conversations leave behind: their history."""

from __future__ import annotations

from xml_pipeline.memory.context_buffer import (
    ContextBuffer,
    ThreadContext,
    get_context_buffer,
    reset_context_buffer,
    slot_to_handler_metadata,
)
from xml_pipeline.memory.slots import BufferSlot, SlotMetadata

__all__ = [
    "BufferSlot",
    "ContextBuffer",
    "SlotMetadata",
    "ThreadContext",
    "get_context_buffer",
    "reset_context_buffer",
    "slot_to_handler_metadata",
]
