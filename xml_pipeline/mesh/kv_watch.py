"""Following keys for a reader who has its own pace: what it has not taken yet waits here.

As long as the reader keeps up it gets every change. When too much waits, of each key only the latest change is kept:
what waits is then never more than the bucket itself, and nobody is disconnected for being slow.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from xml_pipeline.mesh.bucket_watch import BucketWatch
from xml_pipeline.mesh.errors import ConnectionLost
from xml_pipeline.mesh.kv_entry import KVEntry

if TYPE_CHECKING:
    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.errors import ConnectionDenied
    from xml_pipeline.mesh.link import Link

__all__ = ["Backlog", "KVWatch"]

_log = logging.getLogger(__name__)

# The NATS client keeps as many for a watcher.
_MOST_ENTRIES = 256
_MOST_BYTES = 4 << 20
_LONG = 86_400.0


class Backlog:
    """Entries that wait for a reader: the first of them as they came, of the rest the latest of each key.

    A key keeps its place when a later change takes that of an earlier one, so that a key that changes all the time
    neither waits for ever nor keeps others waiting. Of one key, changes are in order; of several, maybe not.

    Args:
        most_entries: how many are kept as they came.
        most_bytes: how many bytes of values are.
    """

    def __init__(self, most_entries: int = _MOST_ENTRIES, most_bytes: int = _MOST_BYTES) -> None:
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._recent: deque[KVEntry[bytes]] = deque()
        self._bytes = 0  # of the values in it
        self._latest: dict[str, KVEntry[bytes]] = {}
        self._alive: dict[str, int] = {}  # every key that has a value, and its revision

    def __len__(self) -> int:
        return len(self._recent) + len(self._latest)

    def add(self, entry: KVEntry[bytes]) -> None:
        """A change came."""
        if entry.is_deleted:
            self._alive.pop(entry.key, None)
        else:
            self._alive[entry.key] = entry.revision
        fits = len(self._recent) < self._most_entries and self._bytes + len(entry.value) <= self._most_bytes
        if not self._latest and (fits or not self._recent):
            self._recent.append(entry)
            self._bytes += len(entry.value)
        else:
            self._latest[entry.key] = entry

    def knows(self, key: str) -> bool:
        """Whether the key has a value, as far as was seen."""
        return key in self._alive

    def reset(self) -> None:
        """The bucket is gone, and with it all keys: each counts as deleted. What follows is another bucket's."""
        self._recent.clear()
        self._bytes = 0
        self._latest.clear()
        alive, self._alive = self._alive, {}
        for key, revision in alive.items():
            self.add(KVEntry(key, b"", revision, "DEL"))

    def take(self) -> KVEntry[bytes] | None:
        """The next entry; ``None`` if none waits."""
        if self._recent:
            entry = self._recent.popleft()
            self._bytes -= len(entry.value)
            return entry
        if self._latest:
            return self._latest.pop(next(iter(self._latest)))
        return None


class KVWatch:
    """One loop over all changes of the keys of a pattern; every such loop sees all of them.

    Args:
        link: the connection.
        bucket: what to follow.
        pattern: which keys; it must have been checked.
        skip: whether to leave out the keys as they are when it begins.
    """

    def __init__(self, link: Link, bucket: Bucket, pattern: str, *, skip: bool = False) -> None:
        self._link = link
        self._bucket = bucket
        self._skip = skip
        self._backlog = Backlog()
        self._watch = BucketWatch(link, bucket, pattern, self._arrived, self._replaced, on_refused=self._refuse)
        self._refused: ConnectionDenied | None = None
        self._starting: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._is_over = False
        self._stopping = asyncio.Lock()

    async def start(self) -> None:
        """Begin.

        Raises:
            MeshError: it is not known what is to be skipped.
        """
        if self._skip:
            await self._watch.skip()
        self._starting = asyncio.create_task(self._begin())
        self._starting.add_done_callback(lambda _: self._news.set())

    async def next(self) -> KVEntry[bytes] | None:
        """The next entry; ``None`` after `end`.

        Raises:
            MeshError: it could not begin.
            ConnectionDenied: the server does not permit it any more.
        """
        while not self._is_over:
            entry = self._backlog.take()
            if entry is not None:
                return entry
            self._news.clear()
            if self._refused is not None:
                raise self._refused
            if self._starting is not None and self._starting.done():
                starting, self._starting = self._starting, None
                await starting  # raises what there was
            await self._news.wait()
        return None

    def end(self) -> None:
        """Give no more entries."""
        self._is_over = True
        self._news.set()

    async def stop(self) -> None:
        """Follow no more. Safe twice, and at the same time."""
        self.end()
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        async with self._stopping:
            await self._watch.stop()

    async def _begin(self) -> None:
        self._link.connection()  # without one it is refused; one that is lost meanwhile is waited for
        while True:
            try:
                return await self._watch.start()
            except ConnectionLost:
                await self._link.wait_up(_LONG)

    def _arrived(self, entry: KVEntry[bytes]) -> None:
        if entry.is_deleted and not (self._skip or self._watch.is_complete or self._backlog.knows(entry.key)):
            return  # it was deleted before this loop began
        self._backlog.add(entry)
        self._news.set()

    def _refuse(self, error: ConnectionDenied) -> None:
        self._refused = error
        self._news.set()

    def _replaced(self) -> None:
        _log.warning("the bucket %s was replaced by another one; all its keys are read again", self._bucket.name)
        self._backlog.reset()
        self._news.set()
