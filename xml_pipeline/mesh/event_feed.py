"""`EventFeed`: what comes on a subject, for a loop of a user, and what that loop misses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.errors import MeshTimeout
from xml_pipeline.mesh.gap import Continuity, Gap
from xml_pipeline.mesh.inbound import Inbound

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.protocol import Frame

__all__ = ["EventFeed"]

_log = logging.getLogger(__name__)


class EventFeed:
    """One subscription.

    Args:
        link: the connection.
        subject: where; it must have been checked.
        agent: the publisher, for errors; empty if it is not one only.
        timeout: seconds without a message after which it fails; ``None`` for never.
        on_gap: called with every gap; ``None`` to log the first as a warning.
    """

    def __init__(
        self, link: Link, subject: str, agent: str, timeout: float | None, on_gap: Callable[[Gap], Any] | None
    ) -> None:
        self._link = link
        self._subject = subject
        self._agent = agent
        self._timeout = timeout
        self._on_gap = on_gap
        self._inbound = Inbound(subject)
        self._continuity = Continuity(subject, self._missed)
        self._gaps = 0
        self._is_over = False
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Begin.

        Raises:
            ConnectionLost: there is no connection.
        """
        put, fail = self._inbound.put, self._inbound.fail
        self._subscription = await self._link.subscribe(self._subject, put, on_denied=fail)
        self._link.on_restored.append(self._continuity.restored)

    async def next(self) -> tuple[Message, Frame] | None:
        """The next message, and what it is; ``None`` after `end`.

        Raises:
            MeshTimeout: none came in time.
            ConnectionDenied: the server does not permit to subscribe.
            Overloaded: too many wait.
        """
        message = await self._inbound.get(self._timeout)
        if self._is_over:
            return None
        if message is None:
            raise MeshTimeout(subject=self._subject, timeout=self._timeout or 0.0, agent=self._agent)
        return message, self._continuity.see(message)

    def end(self) -> None:
        """Give no more messages, also to who waits for one."""
        self._is_over = True
        self._inbound.end()

    async def stop(self) -> None:
        """Receive no more. Safe twice."""
        self.end()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._link.on_restored.remove(self._continuity.restored)
            await subscription.close()

    def _missed(self, gap: Gap) -> None:
        self._gaps += 1
        if self._on_gap is None:
            level = logging.WARNING if self._gaps == 1 else logging.DEBUG
            if gap.missed is None:
                _log.log(level, "what was published to %s while there was no connection was missed", gap.subject)
            else:
                _log.log(level, "%d events of %s were missed", gap.missed, gap.subject)
            return
        try:
            self._on_gap(gap)
        except Exception:
            _log.exception("the callback for gaps of %s failed", gap.subject)
