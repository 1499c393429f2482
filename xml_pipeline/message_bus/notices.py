"""`Notices`: what the pump itself has to say to a frame that is open, such as that its budget runs out.

A notice is a message like any other: it goes through the XML stages, it is counted in its conversation, it has an
outcome, and it is handled as the next turn of its frame. Only its sender is not a listener but ``system``, or a name
that begins with ``system.``, which no listener of a user's and nobody outside can have.

A handler can reach this, too, and must not speak to others in that name. So what runs on behalf of a turn, tasks left
behind by its handler included, posts to that turn's own frame and to no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xml_pipeline.config import name_fault
from xml_pipeline.envelope import escape_text
from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.mint import Mint
from xml_pipeline.message_bus.payloads import PayloadWriter
from xml_pipeline.runtime import current_runtime

if TYPE_CHECKING:
    from xml_pipeline.message_bus.conversation import Frame
    from xml_pipeline.message_bus.message_state import MessageState

__all__ = ["Notices", "get_notices"]

logger = logging.getLogger(__name__)


class Notices:
    """Posts messages of one pump's own. Without a pump no frame is open, and nothing is ever delivered.

    Args:
        frame: gives an open frame by its id.
        mint: makes messages.
        writer: writes payloads.
        emit: takes each message made.
        running: gives the frame whose handler runs here; ``None`` outside of every handler.
    """

    def __init__(
        self,
        frame: Callable[[str], Frame | None] = lambda thread_id: None,
        mint: Mint | None = None,
        writer: PayloadWriter | None = None,
        emit: Callable[[MessageState], None] = lambda state: None,
        running: Callable[[], Frame | None] = lambda: None,
    ) -> None:
        self._frame = frame
        self._mint = mint or Mint("")
        self._writer = writer or PayloadWriter()
        self._emit = emit
        self._running = running

    def post(self, thread_id: str, payload: Any, *, from_id: str) -> bool:
        """Deliver a payload as the next turn of an open frame.

        Args:
            thread_id: the frame's id.
            payload: an instance of a payload class, or another object that a handler may send.
            from_id: ``system``, or a name that begins with ``system.``.

        Returns:
            Whether it is on its way. It is not if the frame is closed, if its listener does not take this class
            (agents and generic listeners take any), or if what runs here is the turn of another frame.

        Raises:
            ValueError: ``from_id`` is another name.
            TypeError: the payload is none.
            ValidationError: it cannot be written in XML, or has no schema that it could be validated against.
        """
        if not _is_ours(from_id):
            raise ValueError(f"a notice is from 'system' or 'system.<name>', not from {from_id!r:.80}")
        written = self._writer.write(payload)
        frame, running = self._frame(thread_id), self._running()
        if frame is None or frame.listener is None:
            return False
        listener = frame.listener
        if running is not None and running is not frame:
            logger.warning("a turn of %r may not post to a frame of %r", running.callee, frame.callee)
            return False
        if not listener.accepts(written.name):
            return False
        codec = written.codec or listener.codecs.get(written.name)
        if codec is None and not listener.is_generic:
            raise ValidationError(f"the notice <{written.name}> was made by to_xml() and has no schema", step="notice")
        state = self._mint.to_frame(written.text, codec, frame, listener, None, escape_text(from_id))
        state.from_id = from_id
        state.is_answer = True  # should it fail, the frame is told, and goes on
        self._emit(state)
        return True


def _is_ours(name: object) -> bool:
    if not isinstance(name, str) or name_fault(name) is not None:
        return False
    return name == "system" or (name.startswith("system.") and len(name) > len("system."))


def get_notices() -> Notices:
    """The notices of the current pump."""
    return current_runtime().get(Notices)
