"""Writing a key on condition that nobody was faster, and knowing whether it was done.

Whether a write was stored is unknown when the connection is lost before the server's answer. Therefore every such write
has a mark, which the server keeps with the value and remembers for two minutes: a write that is sent again with the
same mark is not stored twice, and a value that has the mark was stored by the writer that knows it.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from xml_pipeline.mesh.bucket import check_key
from xml_pipeline.mesh.errors import ConnectionLost, KVConflict, MeshError, MeshTimeout, StorageError
from xml_pipeline.mesh.jetstream import STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE
from xml_pipeline.mesh.subjects import new_id

if TYPE_CHECKING:
    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.link import Link

__all__ = ["ConditionalWrite", "Pauses"]

_MARK = "Nats-Msg-Id"


class Pauses:
    """Growing, random pauses between attempts, until a deadline.

    Args:
        timeout: seconds for all attempts.
        first: seconds of the first pause, at most.
        longest: seconds of a pause, at most.
    """

    def __init__(self, timeout: float, first: float = 0.005, longest: float = 0.25) -> None:
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._pause = first
        self._longest = longest

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    async def pause(self) -> bool:
        """Wait a little; returns whether there is time for another attempt."""
        if not self.left:
            return False
        await asyncio.sleep(min(self.left, self._pause * random.uniform(0.1, 1.0)))  # spreads load, hides nothing
        self._pause = min(self._longest, self._pause * 2)
        return True


class ConditionalWrite:
    """One write, in one attempt or several, stored at most once.

    Args:
        link: the connection.
        bucket: where.
        key: what.
    """

    def __init__(self, link: Link, bucket: Bucket, key: str) -> None:
        self._link = link
        self._bucket = bucket
        self._key = key
        self._subject = bucket.prefix + check_key(key)
        self._mark = new_id()

    async def store(self, value: bytes, revision: int) -> int:
        """Send it. It may be sent again with another value and revision: if an earlier one was stored, this one is not.

        Args:
            value: of the key.
            revision: what the key's last change must have; 0 for that there is none.

        Returns:
            The revision of what was stored.

        Raises:
            KVConflict: somebody else changed the key. If an earlier attempt ended in doubt, it may have been us.
            MeshTimeout: it is not known whether it was stored.
            ConnectionLost: likewise.
        """
        try:
            return await self._publish(value, revision)
        except StorageError as error:
            if error.details.get("err_code", STREAM_NOT_FOUND) != STREAM_NOT_FOUND:
                raise
        await self._bucket.open()  # somebody removed it
        return await self._publish(value, revision)

    async def store_surely(self, value: bytes, revision: int, timeout: float) -> int:
        """The same, but when the outcome is unknown, find it out.

        Args:
            value: as for `store`.
            revision: as for `store`.
            timeout: seconds for finding out.

        Raises:
            KVConflict: somebody else changed the key; ours was not stored.
            MeshTimeout: it could not be found out.
            ConnectionLost: likewise; or there was no connection to begin with, and nothing was sent.
        """
        self._link.connection()
        doubt: MeshError | None = None
        pauses = Pauses(timeout)
        while True:
            try:
                return await self.store(value, revision)
            except KVConflict:
                if doubt is None:
                    raise
            except (MeshTimeout, ConnectionLost) as error:
                doubt = error
                await self.until_up(pauses, error)
                continue
            found = await self._marked()
            if found:
                return found
            raise doubt

    async def until_up(self, pauses: Pauses, error: MeshError) -> None:
        """Wait until there is a connection, but not for longer than the pauses may take.

        Raises:
            MeshError: ``error``, because there was none in time.
        """
        if not await pauses.pause():
            raise error
        try:
            await self._link.wait_up(pauses.left)
        except ConnectionLost:
            raise error from None

    async def _publish(self, value: bytes, revision: int) -> int:
        jetstream = self._bucket.jetstream
        try:
            return await jetstream.publish_if(self._subject, value, revision, {_MARK: self._mark})
        except StorageError as error:
            if error.details.get("err_code") == WRONG_LAST_SEQUENCE:
                raise KVConflict(key=self._key) from error
            raise

    async def _marked(self) -> int:
        """The revision of the key's last change, if it was ours; else 0."""
        stored = await self._bucket.jetstream.last(self._bucket.stream, self._subject)
        return stored.seq if stored is not None and self._mark.encode() in stored.headers else 0
