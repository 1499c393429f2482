"""`SourceInput`: what a handler is called with for a change or a message.

======================= ============================ =====================================
Parameter               message of a subject         change of a key
======================= ============================ =====================================
none                    called without arguments     the same, also for a deletion
``bytes``               the body                     the value; no call for a deletion
``str``                 the body as text             the value as text; no call for a deletion
``T``                   the body, read as JSON       the value, read as JSON; no call for a deletion
``MeshMessage[T]``      everything, the body as T    (refused when it is registered)
``KVEntry[T]``          (refused)                    everything, the value as T; deletions too
======================= ============================ =====================================
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.kv_entry import KVEntry
from xml_pipeline.mesh.mesh_message import MeshMessage
from xml_pipeline.mesh.shapes import Envelope

if TYPE_CHECKING:
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.shapes import Handler

__all__ = ["SourceInput"]


class SourceInput:
    """Makes the arguments of one handler.

    Args:
        handler: whose.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def of_entry(self, entry: KVEntry[bytes]) -> tuple[Any, ...] | None:
        """The arguments for a change; ``None``: it is not called.

        Raises:
            InvalidInput: the value is not what the handler takes.
        """
        handler = self._handler
        if handler.envelope is Envelope.KV_ENTRY:
            return (replace(entry, value=self._content(entry.value, entry.is_deleted)),)
        if handler.input is None:
            return ()
        return None if entry.is_deleted else self._arguments(entry.value)

    def of_message(self, message: Message) -> tuple[Any, ...]:
        """The arguments for a message.

        Raises:
            InvalidInput: the body is not what the handler takes.
        """
        handler = self._handler
        if handler.envelope is Envelope.MESH_MESSAGE:
            payload = self._content(message.data, not message.data)
            return (MeshMessage(message.subject, dict(message.headers or {}), payload),)
        return self._arguments(message.data)

    def _content(self, body: bytes, is_absent: bool) -> Any:
        """What is in the envelope: of what is not there, the empty bytes or text, or ``None``."""
        if is_absent:
            return self._handler.raw() if self._handler.raw is not None else None
        return self._handler.read(body)

    def _arguments(self, body: bytes) -> tuple[Any, ...]:
        """As for a request, but that bytes and text are taken as they are."""
        return self._handler.arguments(body) if self._handler.raw is None else (self._handler.read(body),)
