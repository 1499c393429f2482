"""`Watches`: everything that is followed in loops of users and agents, so that it can end in good order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from xml_pipeline.mesh.feeds import current_feeds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Feed", "Watches"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Feed(Protocol[T_co]):
    """What can be followed."""

    async def start(self) -> None:
        """Begin."""

    async def next(self) -> T_co | None:
        """The next entry; ``None`` after `end`. Asking for it says that the one before was handled."""

    def end(self) -> None:
        """Give no more entries, also to who waits for one."""

    async def stop(self) -> None:
        """Free what it has on the server. Safe twice, and at the same time."""


class _Reading:
    """One loop, and the task that runs it."""

    def __init__(self, feed: Feed[Any]) -> None:
        self.feed = feed
        self.task = asyncio.current_task()
        self.is_over = asyncio.Event()

    @property
    def will_go_on(self) -> bool:
        """Whether its task can still ask for the next entry: it runs, and does not wait for us meanwhile."""
        return self.task is not None and not self.task.done() and self.task is not asyncio.current_task()


class Watches:
    """The loops of one mesh object."""

    def __init__(self) -> None:
        self._open: dict[_Reading, None] = {}
        self._is_closing = False

    async def follow(self, feed: Feed[T]) -> AsyncGenerator[T, None]:
        """The entries of a feed, until the loop is left, its agent is stopped, or the mesh object is closed.

        Raises:
            MeshError: what the feed says.
            CancelledError: the agent whose code this is, is being stopped.
        """
        agents = current_feeds()
        if agents is not None:
            agents.begin(feed)
        reading = _Reading(feed)
        self._open[reading] = None
        try:
            if self._is_closing:
                await asyncio.sleep(0)  # who begins again and again must not keep all others from ending
                return
            await feed.start()
            while True:
                reading.task = asyncio.current_task()  # it may be another one each time
                entry = await feed.next()
                if entry is None:
                    return
                yield entry
        finally:
            try:
                await feed.stop()
            finally:
                self._open.pop(reading, None)
                reading.is_over.set()
                if agents is not None:
                    agents.over(feed)

    async def close(self, timeout: float) -> float:
        """End all loops: each after the entry that it is at.

        Args:
            timeout: seconds for that; what is not handled then counts as not handled.

        Returns:
            How many seconds of it are left.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._is_closing = True
        readings = list(self._open)
        for reading in readings:
            reading.feed.end()
        awaited = [asyncio.ensure_future(reading.is_over.wait()) for reading in readings if reading.will_go_on]
        if awaited:
            await asyncio.wait(awaited, timeout=timeout)
        for waiter in awaited:
            waiter.cancel()
        await asyncio.gather(*awaited, return_exceptions=True)
        for reading in list(self._open):
            await reading.feed.stop()
        return max(0.0, deadline - loop.time())
