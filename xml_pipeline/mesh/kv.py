"""`KV`: keys and values that everybody on the mesh shares."""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from xml_pipeline.mesh.bucket import Bucket, check_key, operation_of, origin_of
from xml_pipeline.mesh.errors import (
    ConnectionLost,
    InvalidReply,
    KVConflict,
    KVKeyExists,
    KVKeyNotFound,
    MeshError,
    MeshTimeout,
    Unconfirmed,
)
from xml_pipeline.mesh.fetching import fetch
from xml_pipeline.mesh.kv_cas import CAS
from xml_pipeline.mesh.kv_cursor import Cursor
from xml_pipeline.mesh.kv_entry import KVEntry
from xml_pipeline.mesh.kv_value import bytes_of, check_pattern, model_of, text_of
from xml_pipeline.mesh.kv_watch import KVWatch
from xml_pipeline.mesh.kv_write import ConditionalWrite, Pauses
from xml_pipeline.mesh.seconds import check_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from xml_pipeline.mesh.kv_value import Value
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.replies import Replies
    from xml_pipeline.mesh.watches import Feed, Watches

__all__ = ["KV"]

_log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)
# In the class, `list` is the verb.
_Entries = list[KVEntry[bytes]]
_Models = list[KVEntry[M]]

_TIMEOUT = 30.0
_WRITE_TIMEOUT = 10.0
_CONFIRMATION = 5.0


class KV:
    """The keys and values; ``mesh.kv``.

    A key is made of letters, digits and ``-/_=`` in segments joined by single dots. In a pattern, ``*`` stands for one
    segment and ``>`` at the end for the rest. Every verb raises `KVInvalidKey` for what is neither, `ConnectionFailed`
    where there is no connection, and `MeshTimeout` where the server does not answer.

    Args:
        link: the connection.
        replies: how requests are answered.
        bucket: `bucket.CONTEXT`.
        watches: where loops are entered.
        ready: awaited before everything.
    """

    def __init__(
        self, link: Link, replies: Replies, bucket: Bucket, watches: Watches, ready: Callable[[], Awaitable[None]]
    ) -> None:
        self._link = link
        self._replies = replies
        self._bucket = bucket
        self._watches = watches
        self._ready = ready

    # -- one key

    async def put(self, key: str, value: Value, *, origin: str = "", timeout: float = _CONFIRMATION) -> int:
        """Give the key a value, whatever it had.

        Args:
            key: see the class.
            value: text, bytes, or a model, which is stored as JSON.
            origin: who puts it, in up to 200 visible characters of ASCII, so that he can tell his own in a watch
                (`KVEntry.origin`); empty for nothing. Other clients do not see it.
            timeout: seconds until the server has to confirm it.

        Returns:
            Its revision.

        Raises:
            TypeError: the value is something else.
            Unconfirmed: the server did not in time. It is not known whether the value was stored, and it is not sent
                again: read the key, or put it again if that does no harm.
            MeshTimeout: (any other) the server took nothing in all that time, and nothing was sent.
            ValueError: the origin is none.
            PayloadTooLarge: it is larger than the server allows in one message; see `AgentMesh.workspace`.
            ConnectionLost: there is no connection, or it was lost, and it is not known whether the value was stored.
        """
        data, timeout = bytes_of(value), check_seconds(timeout)
        await self._ready()
        try:
            return await self._bucket.put(key, data, origin, timeout)
        except MeshTimeout as error:
            if not error.subject:
                raise  # no answer was awaited yet: nothing was sent
            text = f"{key} may have been written: the server did not confirm it within {timeout:.3g} s."
            raise Unconfirmed(message=text, timeout=timeout, details={"key": key}) from error

    async def get(self, key: str) -> str:
        """The key's value as text.

        Raises:
            KVKeyNotFound: it has none.
            InvalidReply: it is not text.
        """
        return text_of(await self.entry(key))

    async def entry(self, key: str) -> KVEntry[bytes]:
        """The key's value as bytes, with its revision.

        Raises:
            KVKeyNotFound: it has none.
        """
        await self._ready()
        found = await self._bucket.get(key)
        if found is None:
            raise KVKeyNotFound(key=key)
        return found

    async def delete(self, key: str) -> None:
        """Take the key's value away; no error if it has none."""
        await self._ready()
        await self._bucket.delete(key)

    async def create(self, key: str, value: Value) -> int:
        """Give the key a value, provided that it has none.

        Args:
            key: see the class.
            value: as for `put`.

        Returns:
            Its revision.

        Raises:
            KVKeyExists: it has one.
        """
        data = bytes_of(value)
        await self._ready()
        write = ConditionalWrite(self._link, self._bucket, key)
        revision = 0
        while True:
            try:
                return await write.store_surely(data, revision, _WRITE_TIMEOUT)
            except KVConflict:
                last = await self._bucket.last(key)
                if last is not None and not last.is_deleted:
                    raise KVKeyExists(key=key) from None
                revision = 0 if last is None else last.revision

    def cas(self, key: str) -> CAS[str]:
        """Change the key's value in a block: ``async with mesh.kv.cas("k") as entry: entry.value = ...``.

        Raises:
            KVKeyNotFound: (when entered) it has none.
            KVConflict: (when left) somebody else changed it meanwhile; nothing was written.
        """
        return CAS(self._link, self._bucket, check_key(key), text_of, self._ready, may_lose=False)

    def try_cas(self, key: str) -> CAS[str]:
        """The same, but losing is no error: see ``entry.committed`` afterwards."""
        return CAS(self._link, self._bucket, check_key(key), text_of, self._ready, may_lose=True)

    async def update(
        self,
        key: str,
        fn: Callable[[str], Value | Awaitable[Value]],
        max_retries: int | None = None,
        *,
        timeout: float = _TIMEOUT,
    ) -> int:
        """Change the key's value, however many others do so at the same time: what each does is done once.

        Args:
            key: see the class.
            fn: makes the new value of the old one; a function or a coroutine function. It may be called several times.
            max_retries: how often it is tried at most; ``None`` for as often as there is time.
            timeout: seconds to go on trying.

        Returns:
            The revision of the value.

        Raises:
            KVKeyNotFound: the key has none.
            KVConflict: others were always faster.
            ConnectionLost: there is no connection, and nothing was sent; or it did not come back in time, and it is not
                known whether the change was stored.
            MeshTimeout: it is not known whether the change was stored.
        """
        await self._ready()
        self._link.connection()
        write = ConditionalWrite(self._link, self._bucket, key)
        pauses = Pauses(timeout)
        tries = 0
        while True:
            try:
                found = await self.entry(key)
            except (MeshTimeout, ConnectionLost) as error:
                await write.until_up(pauses, error)
                continue
            value = fn(text_of(found))
            after = bytes_of(await value if inspect.isawaitable(value) else value)
            if after == found.value:
                return found.revision
            tries += 1
            try:
                return await write.store(after, found.revision)
            except KVConflict:
                if tries == max_retries or not await pauses.pause():
                    text = f"{key} could not be changed in {tries} attempts: others were always faster."
                    raise KVConflict(text, key=key) from None
            except (MeshTimeout, ConnectionLost) as error:
                # If it was stored after all, the next attempt is not: it has the same mark.
                await write.until_up(pauses, error)

    # -- many keys

    async def list(self, pattern: str, *, timeout: float = _TIMEOUT) -> _Entries:
        """Every key of the pattern that has a value, in the order of their last changes.

        Args:
            pattern: see the class; ``>`` for all.
            timeout: in seconds.
        """
        check_pattern(pattern)
        await self._ready()
        try:
            async with asyncio.timeout(timeout):
                return await self._list(pattern)
        except MeshError:
            raise
        except TimeoutError:
            raise MeshTimeout(message=f"The keys {pattern} were not complete in time.", timeout=timeout) from None

    async def _list(self, pattern: str) -> _Entries:
        found: dict[str, KVEntry[bytes]] = {}
        await self._bucket.open()
        prefix, stream = self._bucket.prefix, self._bucket.stream
        stored = fetch(self._link, self._bucket.jetstream, stream, prefix + pattern, last_of_each=True)
        async with aclosing(stored):
            async for message, numbers in stored:
                key, operation = message.subject[len(prefix) :], operation_of(message.headers)
                found.pop(key, None)  # one that is changed meanwhile may come twice
                if operation == "PUT":
                    origin = origin_of(message.headers)
                    found[key] = KVEntry(key, message.data, numbers.revision, operation, origin)
        return list(found.values())

    async def watch(self, key: str, *, resume: str = "") -> AsyncGenerator[str, None]:
        """First the values there are, then every new one, as text; deletions are left out.

        A value that is not text is left out too, and logged: `watch_entries` has it.

        Args:
            key: a key, or a pattern of keys.
            resume: as for `watch_entries`.

        Yields:
            The values.
        """
        async with aclosing(self.watch_entries(key, resume=resume)) as entries:
            async for entry in entries:
                if entry.is_deleted:
                    continue
                try:
                    value = text_of(entry)
                except InvalidReply as error:
                    _log.warning("%s", error)
                    continue
                yield value

    async def watch_entries(
        self, pattern: str, *, resume: str = "", until: asyncio.Event | None = None
    ) -> AsyncGenerator[KVEntry[bytes], None]:
        """First the keys that there are, then every change, deletions too, across whatever happens to the connection.

        A loop that is slow may get only the last of several changes of a key, but always the last. When the bucket is
        removed and made again, its keys come as deleted, and then those of the new one.

        Args:
            pattern: a key, or a pattern of keys.
            resume: a name under which the server remembers what was handled, so that a later loop goes on from there;
                loops of the same name and pattern share the changes, also across processes. A change counts as handled
                when the next one is asked for. When the loop is left, the change that it is at is given to another
                loop, or to the next; so it may come again. When the server crashes, what it was told in its last
                moments may be lost with it: then changes that were handled just before come again, though not to the
                loop that handled them; none is left out. Without a name, every loop gets everything.
            until: when it is set, the loop ends: after the change that it is at, which then counts as handled.

        Yields:
            The changes, as `KVEntry` with key, value, revision and operation.

        Raises:
            ConnectionDenied: the server does not permit it.
            ValueError: ``resume`` is too long.
        """
        check_pattern(pattern)
        feed: Feed[KVEntry[bytes]]
        if resume:
            feed = Cursor(self._link, self._replies, self._bucket, pattern, resume)
        else:
            feed = KVWatch(self._link, self._bucket, pattern)
        await self._ready()
        ending = None if until is None else asyncio.create_task(_end_with(feed, until))
        try:
            async with aclosing(self._watches.follow(feed)) as entries:
                async for entry in entries:
                    yield entry
        finally:
            if ending is not None:
                ending.cancel()

    # -- models

    async def put_model(self, key: str, model: BaseModel) -> int:
        """`put` of a model, as JSON."""
        return await self.put(key, model)

    async def get_model(self, key: str, model: type[M]) -> M:
        """The key's value as a model.

        Raises:
            KVKeyNotFound: it has none.
            InvalidReply: it is not such a model.
        """
        return model_of(await self.entry(key), model)

    def cas_model(self, key: str, model: type[M]) -> CAS[M]:
        """`cas` of a model: change it, or assign another one. Raises `InvalidReply` where it is not such a model."""
        return self._cas_of(key, model, may_lose=False)

    def try_cas_model(self, key: str, model: type[M]) -> CAS[M]:
        """`try_cas` of a model, as `cas_model`."""
        return self._cas_of(key, model, may_lose=True)

    def _cas_of(self, key: str, model: type[M], may_lose: bool) -> CAS[M]:
        def read(entry: KVEntry[bytes]) -> M:
            return model_of(entry, model)

        return CAS(self._link, self._bucket, check_key(key), read, self._ready, may_lose)

    async def list_models(self, pattern: str, model: type[M], *, timeout: float = _TIMEOUT) -> _Models[M]:
        """`list`, of models. A value that is none is left out, and logged, lest it hides the others."""
        found = []
        for entry in await self.list(pattern, timeout=timeout):
            try:
                found.append(KVEntry(entry.key, model_of(entry, model), entry.revision))
            except InvalidReply as error:
                _log.warning("%s", error)
        return found


async def _end_with(feed: Feed[KVEntry[bytes]], until: asyncio.Event) -> None:
    await until.wait()
    feed.end()
