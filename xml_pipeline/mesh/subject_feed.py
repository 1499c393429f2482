"""`SubjectFeed`: the messages of a subject for a reader who has its own pace.

What the reader has not taken yet waits here. When too much waits, the oldest messages are dropped, and counted: who
falls behind on a subject is to see what is happening now, and nobody is disconnected for being slow. What must not be
lost belongs under a key, or into a stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from xml_pipeline.mesh.refusals import SUBSCRIBE, is_about

if TYPE_CHECKING:
    from xml_pipeline.mesh.errors import ConnectionDenied
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message

__all__ = ["SubjectFeed"]

_log = logging.getLogger(__name__)

_MOST_BYTES = 64 << 20


class SubjectFeed:
    """One subscription.

    Args:
        link: the connection.
        subject: where; it must have been checked.
        queue: the group in which each message goes to one member only; empty for none.
        most: messages that may wait.
        most_bytes: bytes of bodies that may wait, but that one message may always.

    Attributes:
        dropped: messages that were dropped because too much waited.
    """

    def __init__(
        self, link: Link, subject: str, queue: str = "", most: int = 10_000, most_bytes: int = _MOST_BYTES
    ) -> None:
        self._link = link
        self._subject = subject
        self._queue = queue
        self._most = most
        self._most_bytes = most_bytes
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self.dropped = 0
        self._lately = 0  # of those, since the reader was up to date
        self._denied: ConnectionDenied | None = None
        self._news = asyncio.Event()
        self._is_over = False
        self._subscription: Subscription | None = None

    def __len__(self) -> int:
        return len(self._messages)

    async def start(self) -> None:
        """Begin.

        Raises:
            ConnectionLost: there is no connection.
        """
        self._link.on_denied.append(self._not_permitted)
        try:
            self._subscription = await self._link.subscribe(self._subject, self.put, self._queue)
        except BaseException:
            self._link.on_denied.remove(self._not_permitted)
            raise

    def put(self, message: Message) -> None:
        """A message came."""
        self._messages.append(message)
        self._bytes += len(message.data)
        while len(self._messages) > 1 and (len(self._messages) > self._most or self._bytes > self._most_bytes):
            self._bytes -= len(self._messages.popleft().data)
            self.dropped += 1
            self._lately += 1
            if self._lately == 1:
                _log.warning("messages of %s come faster than they are handled: the oldest are dropped", self._subject)
        self._news.set()

    async def next(self) -> Message | None:
        """The next message; ``None`` after `end`.

        Raises:
            ConnectionDenied: the server does not permit to subscribe.
        """
        while not self._is_over:
            if self._messages:
                message = self._messages.popleft()
                self._bytes -= len(message.data)
                return message
            self._caught_up()
            if self._denied is not None:
                raise self._denied
            self._news.clear()
            await self._news.wait()
        return None

    def _caught_up(self) -> None:
        if self._lately:
            _log.warning("%d messages of %s were dropped, %d in all", self._lately, self._subject, self.dropped)
            self._lately = 0

    def _not_permitted(self, subject: str, error: ConnectionDenied) -> None:
        if subject == self._subject and is_about(error, SUBSCRIBE):
            self._denied = error
            self._news.set()

    def end(self) -> None:
        """Give no more messages."""
        self._is_over = True
        self._news.set()

    async def stop(self) -> None:
        """Receive no more. Safe twice."""
        self.end()
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        self._link.on_denied.remove(self._not_permitted)
        await subscription.close()
        self._caught_up()
        if self._messages:
            _log.warning("%d messages of %s that waited are not handled", len(self._messages), self._subject)
