"""Gaps: what a subscription has missed, as far as that can be known.

Nothing is kept for a subscriber: what is published while it has no connection is lost to it. That there was such a time
is known here; what was lost in it is not, except that a publisher numbers its events. So there are two kinds of gaps:
after every lost connection one of unknown size, at once, because whoever follows changes of a state may have to read it
again before the next event comes; and one of so many events, when the next number says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xml_pipeline.mesh.protocol import Frame, FrameKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.mesh.message import Message

__all__ = ["Continuity", "Gap"]

_MOST_PUBLISHERS = 4096


@dataclass(frozen=True, slots=True)
class Gap:
    """What a subscription has missed.

    Args:
        subject: that it has subscribed to, or, with a number, that of the publisher.
        missed: how many events; ``None``, after a lost connection, for any number, maybe none.
        instance_id: the host of the publisher; empty where ``missed`` is ``None``.
    """

    subject: str
    missed: int | None = None
    instance_id: str = ""


class Continuity:
    """The numbers of events that one subscription has seen.

    A publisher counts from 0 on each of its hosts. Of one that does not say which host it is, numbers say nothing, for
    there may be several.

    Args:
        subject: that of the subscription.
        tell: called with every gap.
    """

    def __init__(self, subject: str, tell: Callable[[Gap], None]) -> None:
        self._subject = subject
        self._tell = tell
        self._next: dict[tuple[str, str], int] = {}

    def restored(self) -> None:
        """The connection is there again."""
        self._tell(Gap(self._subject))

    def see(self, message: Message) -> Frame:
        """A message came, be it an event or the end of them.

        Returns:
            What it is.
        """
        frame = Frame.read(message.headers, message.data)
        if frame.seq < 0 or not frame.instance_id:
            return frame
        publisher = (message.subject, frame.instance_id)
        expected = self._next.pop(publisher, frame.seq)  # the first that is seen, whichever it is
        if frame.kind is FrameKind.CHUNK:
            self._next[publisher] = frame.seq + 1  # last, so that those which are heard of least are forgotten first
            if len(self._next) > _MOST_PUBLISHERS:
                del self._next[next(iter(self._next))]
        if frame.seq > expected:
            self._tell(Gap(message.subject, frame.seq - expected, frame.instance_id))
        return frame
