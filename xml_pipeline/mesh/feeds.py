"""`Feeds`: the loops that the code of one agent is in, so that they end before the agent does.

Whoever publishes or works in the background of his own accord cannot be told from outside to finish what he is at, but
by cancelling him. A loop over what the mesh delivers can be told: it gives nothing more, when the next is asked for.
So the loops of an agent are known to it, wherever in its code and in tasks that this has started they are.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Protocol

__all__ = ["Feeds", "current_feeds"]

_CURRENT: ContextVar[Feeds | None] = ContextVar("mesh_feeds", default=None)


def current_feeds() -> Feeds | None:
    """The loops of the agent that the running code belongs to; ``None`` if that is nobody's, or a request's."""
    return _CURRENT.get()


class _Endable(Protocol):
    def end(self) -> None:
        """Give nothing more, also to who waits for it."""


class Feeds:
    """The loops of one agent.

    Attributes:
        were_ended: whether one of them was told to end, so that the agent is to end by itself.
    """

    def __init__(self) -> None:
        self.were_ended = False
        self._is_ending = False
        self._open: dict[_Endable, None] = {}

    def adopt(self) -> None:
        """The code that runs in this task, and in those that it starts from now on, is the agent's."""
        _CURRENT.set(self)

    def begin(self, feed: _Endable) -> None:
        """A loop begins.

        Raises:
            CancelledError: the agent is being stopped; a loop inside of an endless one would hold it up.
        """
        if self._is_ending:
            raise asyncio.CancelledError
        self._open[feed] = None

    def over(self, feed: _Endable) -> None:
        """A loop has ended."""
        self._open.pop(feed, None)

    def end(self) -> None:
        """Tell all of them to end; none may begin any more."""
        self._is_ending = True
        self.were_ended = self.were_ended or bool(self._open)
        for feed in list(self._open):
            feed.end()
