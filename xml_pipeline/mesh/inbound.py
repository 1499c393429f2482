"""`Inbound`: messages of a subscription on their way to one consumer, who takes them at its own pace."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import MeshError, Overloaded

if TYPE_CHECKING:
    from xml_pipeline.mesh.message import Message

__all__ = ["Inbound"]

# Beyond this, a consumer is not slow but gone; losing messages without a word would be the alternative.
_MOST_BYTES = 256 << 20


class Inbound:
    """A queue with one reader, that also ends with an error.

    Args:
        what: whose messages these are, for the error.
        most: bytes that may wait.
    """

    __slots__ = ("_bytes", "_error", "_is_over", "_messages", "_most", "_reader", "_what")

    def __init__(self, what: str, most: int = _MOST_BYTES) -> None:
        self._what = what
        self._most = most
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._error: MeshError | None = None
        self._is_over = False
        self._reader: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """A message came."""
        if self._error is not None or self._is_over:
            return
        self._bytes += len(message.data)
        if self._bytes > self._most:
            self.fail(Overloaded(f"More than {self._most} bytes of {self._what} wait to be read."))
            return
        self._messages.append(message)
        self._wake()

    def fail(self, error: MeshError) -> None:
        """Nothing comes any more, because of this; what is there can still be taken."""
        if self._error is None:
            self._error = error
            self._wake()

    def end(self) -> None:
        """The reader is to have no more, not even what is there."""
        self._is_over = True
        self._messages.clear()
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self, timeout: float | None) -> Message | None:
        """The next message; ``None`` if none came in time, or after `end`.

        Args:
            timeout: in seconds; ``None`` for as long as it takes.

        Raises:
            MeshError: what `fail` was called with.
        """
        if not self._messages and self._error is None and not self._is_over:
            await self._come(timeout)
        if self._messages:
            message = self._messages.popleft()
            self._bytes -= len(message.data)
            return message
        if self._error is not None and not self._is_over:
            raise self._error
        return None

    async def _come(self, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        reader = self._reader = loop.create_future()
        timer = loop.call_later(timeout, self._wake) if timeout is not None else None
        try:
            await reader
        finally:
            self._reader = None
            if timer is not None:
                timer.cancel()
