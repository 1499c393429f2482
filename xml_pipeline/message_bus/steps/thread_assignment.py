"""Every message travels on a thread with a proper id.

A thread id is a version-4 UUID in canonical form: 36 characters, lower case. Anything else is refused rather than
replaced: whoever sent it would wait on an id that does not exist.

Source: RFC 9562, section 4 (text form) and 5.4 (version 4: the version nibble is 4, the variant bits are 10).
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.message_state import Origin
from xml_pipeline.message_bus.steps.step import step

if TYPE_CHECKING:
    from xml_pipeline.message_bus.message_state import MessageState

__all__ = ["assign_thread", "is_thread_id", "thread_assignment_step"]

_INTERNAL = Origin.INTERNAL
_THREAD_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def is_thread_id(text: str) -> bool:
    """Whether ``text`` is a canonical, lower-case version-4 UUID."""
    return _THREAD_ID.fullmatch(text) is not None


def assign_thread(state: MessageState) -> MessageState:
    """Keep a proper thread id, make one where there is none, refuse any other.

    Raises:
        ValidationError: the id is not a canonical version-4 UUID. A note is added to ``metadata["diagnostics"]``.
    """
    if state.frame is not None or state.origin is _INTERNAL:
        return state  # the registry's own id, and the envelope was compared with it
    thread = state.thread_id
    if thread is None:
        state.thread_id = str(uuid.uuid4())
    elif _THREAD_ID.fullmatch(thread) is None:
        note = f"the thread id {thread[:80]!r} is not a canonical version-4 UUID"
        state.metadata.setdefault("diagnostics", []).append(note)
        raise ValidationError(note)
    return state


thread_assignment_step = step(assign_thread, "thread_assignment_step")
