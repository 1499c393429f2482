"""Credit: how far the producer of a stream may be ahead of its consumer.

The request says how many chunks the consumer takes before it says more: its window. As it goes on, it says on
``mesh.credit.<request id>`` how many the producer may send in total, which is what it has taken plus the window::

    consumer                                     producer
    X-Mesh-Credit: 1024           -->            may send 1024
                                  <--            0, 1, 2, ... 1023
    takes 256 of them
    mesh.credit.<id>: 1280        -->            may send up to 1280

Chunks can be large, so the producer also counts the bytes of those that were not taken yet, and pauses at `MOST_BYTES`.
Therefore a consumer speaks after some bytes, too. A number that was lost, or came before anybody listened, does no
harm: the next one says more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import MeshError
from xml_pipeline.mesh.protocol import read_count
from xml_pipeline.mesh.subjects import credit_subject

if TYPE_CHECKING:
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.message import Message

__all__ = ["MOST_BYTES", "SPEAK_BYTES", "SPEAK_CHUNKS", "WINDOW", "Credit", "Window"]

WINDOW = 1024
MOST_BYTES = 16 << 20
SPEAK_CHUNKS = WINDOW // 4
SPEAK_BYTES = MOST_BYTES // 4
_SPEAK_AFTER = 1.0  # seconds: of a slow consumer its producer hears that it is alive


class Window:
    """The consumer's side of one stream: it says what it has taken.

    Args:
        link: the connection.
        request_id: that of the stream.
    """

    __slots__ = ("_bytes", "_chunks", "_link", "_said", "_spoke", "_subject")

    def __init__(self, link: Link, request_id: str) -> None:
        self._link = link
        self._subject = credit_subject(request_id)
        self._chunks = 0  # taken
        self._said = 0  # of them, those that the producer was told of
        self._bytes = 0  # of the others
        self._spoke = asyncio.get_running_loop().time()

    def took(self, size: int) -> None:
        """The consumer took a chunk of so many bytes."""
        self._chunks += 1
        self._bytes += size
        now = asyncio.get_running_loop().time()
        if self._chunks - self._said >= SPEAK_CHUNKS or self._bytes >= SPEAK_BYTES or now - self._spoke >= _SPEAK_AFTER:
            self._said, self._bytes, self._spoke = self._chunks, 0, now
            try:
                self._link.publish_now(self._subject, b"%d" % (self._chunks + WINDOW))
            except MeshError:
                return  # the stream is about to end with this error


class Credit:
    """The producer's side of one stream.

    Args:
        window: chunks that the consumer takes before it says more.
    """

    __slots__ = ("_allowed", "_bytes", "_changed", "_sent", "_sizes", "_taken", "_window")

    def __init__(self, window: int) -> None:
        self._window = window
        self._allowed = window
        self._sent = 0
        self._taken = 0
        self._sizes: deque[int] = deque()  # of the chunks that were not taken yet
        self._bytes = 0
        self._changed = asyncio.Event()

    @property
    def allowed(self) -> int:
        """How many chunks may be sent in total."""
        return self._allowed

    @property
    def is_used_up(self) -> bool:
        """Whether no chunk may be sent now."""
        return self._sent >= self._allowed or self._bytes >= MOST_BYTES

    @property
    def is_awaited(self) -> bool:
        """Whether it is time to listen to the consumer. One of ours has nothing to say before, and most streams end
        before that; of another one nothing is known."""
        return self._window < WINDOW or self._sent >= SPEAK_CHUNKS - 1 or self._bytes >= SPEAK_BYTES // 2

    def sent(self, size: int) -> None:
        """A chunk of so many bytes was sent."""
        self._sent += 1
        self._sizes.append(size)
        self._bytes += size

    def arrived(self, message: Message) -> None:
        """The consumer said how many chunks it allows; what is no number, or less than before, says nothing."""
        allowed = read_count(message.data.decode("ascii", "replace"))
        if allowed <= self._allowed:
            return
        self._allowed = allowed
        while self._sizes and self._taken < allowed - self._window:
            self._taken += 1
            self._bytes -= self._sizes.popleft()
        self._changed.set()

    def wake(self) -> None:
        """Have `wait` return, for there is something else to look at."""
        self._changed.set()

    async def wait(self, timeout: float) -> None:
        """Wait until something has changed, or for so many seconds."""
        self._changed.clear()
        timer = asyncio.get_running_loop().call_later(timeout, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()
