"""Reading a key, changing it in a block, and writing it back unless somebody else did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from xml_pipeline.mesh.errors import KVConflict, KVKeyNotFound
from xml_pipeline.mesh.kv_value import bytes_of
from xml_pipeline.mesh.kv_write import ConditionalWrite

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.kv_entry import KVEntry
    from xml_pipeline.mesh.link import Link

__all__ = ["CAS", "CASEntry"]

T = TypeVar("T")

_TIMEOUT = 10.0


class CASEntry(Generic[T]):
    """What the block works with: change ``value``, or assign another one.

    Attributes:
        key: the key.
        value: its value; what it is when the block ends is written, if it is another one.
        revision: of the value; after the block, of what was written.
        attempted_write: after the block, whether the value had been changed.
        committed: after the block, whether the key has the value: it was written, or had not been changed.
    """

    def __init__(self, key: str, value: T, revision: int) -> None:
        self.key = key
        self.value = value
        self.revision = revision
        self.attempted_write = False
        self.committed = False


class CAS(Generic[T]):
    """The block, as an async context manager; made by `kv.KV`.

    Args:
        link: the connection.
        bucket: where.
        key: what.
        read: makes the value of an entry.
        ready: awaited first.
        may_lose: whether losing against somebody else is an outcome, and no error.
    """

    def __init__(
        self,
        link: Link,
        bucket: Bucket,
        key: str,
        read: Callable[[KVEntry[bytes]], T],
        ready: Callable[[], Awaitable[None]],
        may_lose: bool,
    ) -> None:
        self._link = link
        self._bucket = bucket
        self._key = key
        self._read = read
        self._ready = ready
        self._may_lose = may_lose
        self._entry: CASEntry[T] | None = None
        self._before = b""

    async def __aenter__(self) -> CASEntry[T]:
        await self._ready()
        found = await self._bucket.get(self._key)
        if found is None:
            raise KVKeyNotFound(key=self._key)
        self._entry = CASEntry(self._key, self._read(found), found.revision)
        # Not what is stored: another writer may have put the same value in other words.
        self._before = bytes_of(self._entry.value)  # type: ignore[arg-type]  # text or a model, see `kv.KV`
        return self._entry

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        entry, self._entry = self._entry, None
        if entry is None or kind is not None:
            return
        after = bytes_of(entry.value)  # type: ignore[arg-type]
        entry.attempted_write = after != self._before
        if entry.attempted_write:
            try:
                write = ConditionalWrite(self._link, self._bucket, self._key)
                entry.revision = await write.store_surely(after, entry.revision, _TIMEOUT)
            except KVConflict:
                if self._may_lose:
                    return
                raise
        entry.committed = True
