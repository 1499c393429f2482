"""`Inflow`: a stream as its consumer sees it: chunks in order, and one end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import ChunkSequenceError, MeshError, MeshTimeout
from xml_pipeline.mesh.protocol import Frame, FrameKind
from xml_pipeline.mesh.usage import collect

if TYPE_CHECKING:
    from xml_pipeline.mesh.credit import Window
    from xml_pipeline.mesh.inbound import Inbound
    from xml_pipeline.mesh.message import Message

__all__ = ["Inflow"]


class Inflow:
    """One stream.

    ::

        open --chunk with the number that was to come--> open
          |---end with the number of chunks--> ended
          \\--error, another number, silence--> failed

    Args:
        name: the agent's.
        request_id: that of the request.
        inbound: its messages.
        timeout: seconds without one after which it is given up.
        window: what its host is told of those that were taken.

    Attributes:
        is_over: whether its host has nothing more to send, so that it need not be told to stop.
    """

    __slots__ = ("_inbound", "_name", "_received", "_request_id", "_timeout", "_window", "is_over")

    def __init__(self, name: str, request_id: str, inbound: Inbound, timeout: float, window: Window) -> None:
        self._name = name
        self._request_id = request_id
        self._inbound = inbound
        self._timeout = timeout
        self._window = window
        self._received = 0
        self.is_over = False

    async def next(self) -> bytes | None:
        """The next chunk; ``None`` after the last.

        Raises:
            ChunkSequenceError: a chunk, or the end of the stream, is missing.
            MeshTimeout: nothing came in time.
            MeshError: what its host, or the connection, said instead.
        """
        while True:
            message = await self._next_message()
            frame = Frame.read(message.headers, message.data)
            if frame.kind is FrameKind.CHUNK:
                self._count(frame.seq)
                self._received += 1
                self._window.took(len(message.data))
                return message.data
            if frame.kind is FrameKind.NOISE:
                continue
            self.is_over = True
            if frame.kind is FrameKind.ERROR:
                raise MeshError.from_wire(
                    message.data, agent=self._name, request_id=self._request_id, code="handler_error"
                )
            if frame.seq >= 0:  # there are peers that do not count
                self._count(frame.seq)
            if frame.usage:
                collect(frame.usage)
            return None

    async def _next_message(self) -> Message:
        try:
            message = await self._inbound.get(self._timeout)
        except MeshError:
            self.is_over = True
            raise
        if message is None:
            text = f"Nothing came from the stream of {self._name} for {self._timeout:g} s."
            raise MeshTimeout(message=text, timeout=self._timeout, agent=self._name, request_id=self._request_id)
        return message

    def _count(self, seq: int) -> None:
        if seq != self._received:
            raise ChunkSequenceError(
                message=f"The stream of {self._name} has the number {seq} where {self._received} was to come.",
                agent=self._name,
                request_id=self._request_id,
                details={"expected_seq": self._received, "got_seq": seq},
            )
