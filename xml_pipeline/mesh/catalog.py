"""`Catalog`: all agents of the mesh, as this mesh object knows them, and its own entries among them.

The catalog is one key that every host writes, by reading it, changing its own elements, and writing it back on
condition that nobody was faster. Here that is tried again, with growing and random pauses, until it succeeds or the
time is up. All changes of one host that are due go into one write.

The view is kept by a watch, so that looking something up costs nothing. When somebody drops an entry of ours while we
serve the agent, whoever looks after our membership is told.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xml_pipeline.mesh.bucket_watch import BucketWatch
from xml_pipeline.mesh.catalog_document import elements_of, entries_of, merged, value_of
from xml_pipeline.mesh.errors import ConnectionDenied, KVConflict, MeshError, MeshTimeout, PayloadTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.catalog_entry import CatalogEntry
    from xml_pipeline.mesh.kv_entry import KVEntry
    from xml_pipeline.mesh.link import Link

__all__ = ["Catalog", "CatalogChange", "differences"]

_log = logging.getLogger(__name__)

KEY = "catalog"
_TIMEOUT = 30.0
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.5
_MAY_RETURN = 30.0


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """What became of one agent.

    Args:
        name: of the agent.
        before: its entry before; ``None`` if it is new.
        after: its entry now; ``None`` if it has left.
    """

    name: str
    before: CatalogEntry | None
    after: CatalogEntry | None


def differences(before: dict[str, CatalogEntry], now: dict[str, CatalogEntry]) -> list[CatalogChange]:
    """What has become of each agent whose entry is not what it was, of those that have left last."""
    names = [*now, *(name for name in before if name not in now)]
    changes = (CatalogChange(name, before.get(name), now.get(name)) for name in names)
    return [change for change in changes if change.before != change.after]


class Catalog:
    """The catalog.

    Args:
        link: the connection.
        bucket: `bucket.CATALOG`.

    Attributes:
        on_dropped: called when entries of ours have disappeared.
        on_changed: called when the view has changed; they must not wait.
    """

    def __init__(self, link: Link, bucket: Bucket) -> None:
        self.on_dropped: Callable[[], None] | None = None
        self.on_changed: list[Callable[[], object]] = []
        self._link = link
        self._bucket = bucket
        self._watch = BucketWatch(link, bucket, KEY, self._seen, self._reset)
        self._entries: dict[str, CatalogEntry] = {}
        self._left: dict[str, float] = {}  # agents that are not there any more, and since when
        self._value = b""
        self._revision = 0
        self._own: dict[str, CatalogEntry] = {}
        self._gone: set[str] = set()
        self._new: set[str] = set()  # of our own, those that take the place of what others wrote
        self._refused: ConnectionDenied | None = None
        self._wanted = 0  # counts our changes
        self._written = 0  # the last of them that is stored
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()

    # -- the view

    @property
    def entries(self) -> dict[str, CatalogEntry]:
        """All agents, by name; not to be changed.

        Raises:
            ConnectionDenied: the server does not permit to read them.
        """
        if self._refused is not None:
            raise copy.copy(self._refused)
        return self._entries

    def entry(self, name: str) -> CatalogEntry | None:
        """The agent's entry, if it has one."""
        return self._entries.get(name)

    def may_return(self, name: str) -> bool:
        """Whether the agent has left only a moment ago, as one does whose host is being started again."""
        left = self._left.get(name)
        return left is not None and asyncio.get_running_loop().time() - left < _MAY_RETURN

    async def open(self) -> None:
        """Begin to follow the catalog; its present state is there when this returns.

        Where the server does not permit it, agents can be asked all the same; see `entries`.

        Raises:
            StorageError: the server has no JetStream.
        """
        try:
            await self._watch.start()
        except ConnectionDenied as error:
            _log.warning("which agents there are is not known here: %s", error)
            self._refused = error

    async def close(self) -> None:
        """Follow it no more."""
        await self._watch.stop()

    async def changes(self) -> AsyncGenerator[CatalogChange, None]:
        """First every agent as new, then every change; of quick changes of one agent maybe the last only."""
        seen: dict[str, CatalogEntry] = {}
        while True:
            now, changed = self.entries, self._changed
            for change in differences(seen, now):
                yield change
            seen = now
            if now is self._entries:
                await changed.wait()

    def _seen(self, entry: KVEntry[bytes]) -> None:
        self._look(b"" if entry.is_deleted else entry.value, entry.revision)
        self._look_for_ours()

    def _reset(self) -> None:
        self._revision = 0
        self._look(b"", 0)
        self._look_for_ours()

    def _look(self, value: bytes, revision: int) -> None:
        if revision < self._revision:
            return
        self._revision = revision
        if value == self._value:
            return
        self._value = value
        before, self._entries = self._entries, entries_of(elements_of(value))
        self._remember(before)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for tell in list(self.on_changed):
            tell()

    def _remember(self, before: dict[str, CatalogEntry]) -> None:
        now = asyncio.get_running_loop().time()
        left = {name: at for name, at in self._left.items() if now - at < _MAY_RETURN and name not in self._entries}
        self._left = left | dict.fromkeys(before.keys() - self._entries.keys(), now)

    # -- our entries

    async def put(self, entries: Iterable[CatalogEntry], timeout: float = _TIMEOUT) -> None:
        """Have entries of ours in the catalog from now on.

        Args:
            entries: see there.
            timeout: seconds to go on trying.

        Raises:
            MeshTimeout: others were faster all the time.
            PayloadTooLarge: the catalog would be larger than the server allows in one message.
            MeshError: the server cannot be reached, or does not permit it.
        """
        for entry in entries:
            self._own[entry.name] = entry
            self._gone.discard(entry.name)
            self._new.add(entry.name)
        self._wanted += 1
        await self._store(timeout)

    def forget(self, names: Iterable[str]) -> None:
        """They are not ours any more; they stay where they are."""
        for name in names:
            self._own.pop(name, None)

    async def remove(self, names: Iterable[str], timeout: float = _TIMEOUT) -> None:
        """Take entries of ours out of the catalog. Arguments and errors as `put`."""
        for name in names:
            self._own.pop(name, None)
            self._gone.add(name)
        self._wanted += 1
        await self._store(timeout)

    async def restore(self, timeout: float = _TIMEOUT) -> None:
        """See to it that our entries are there, e.g. after the connection was lost. Errors as `put`."""
        self._wanted += 1
        await self._store(timeout)

    async def _store(self, timeout: float) -> None:
        wanted = self._wanted
        deadline = asyncio.get_running_loop().time() + timeout
        async with self._writing:
            if self._written >= wanted:
                return  # somebody who waited with us has stored it
            await self._store_until(deadline)

    async def _store_until(self, deadline: float) -> None:
        pause = _FIRST_PAUSE
        value, revision = self._value, self._revision
        is_known = self._watch.is_complete
        while True:
            wanted, gone, new = self._wanted, set(self._gone), set(self._new)
            try:
                if not is_known:
                    value, revision = await self._read()
                is_known = False
                await self._change(value, revision, gone, new)
            except (PayloadTooLarge, ConnectionDenied):
                raise
            except MeshError as error:
                loop = asyncio.get_running_loop()
                if loop.time() + pause > deadline or not self._link.is_open:
                    if isinstance(error, KVConflict):
                        text = "The catalog could not be written: others were always faster."
                        raise MeshTimeout(message=text) from error
                    raise
                await asyncio.sleep(pause * random.uniform(0.1, 1.0))  # spreads load, hides nothing
                pause = min(_LONGEST_PAUSE, pause * 2)
            else:
                self._written = wanted
                self._gone -= gone
                self._new -= new
                return

    async def _read(self) -> tuple[bytes, int]:
        last = await self._bucket.last(KEY)
        if last is None:
            return b"", 0
        return (b"" if last.is_deleted else last.value), last.revision

    async def _change(self, value: bytes, revision: int, gone: set[str], over: set[str]) -> None:
        elements = elements_of(value)
        changed = merged(elements, self._own.values(), gone, over)
        if changed is elements:
            self._look(value, revision)
            return
        new = value_of(changed)
        self._look(new, await self._bucket.put_if(KEY, new, revision))

    def _look_for_ours(self) -> None:
        missing = self._own.keys() - self._entries.keys()
        if missing and not self._writing.locked() and self.on_dropped is not None:
            _log.warning("somebody removed %s from the catalog", ", ".join(sorted(missing)[:5]))
            self.on_dropped()
