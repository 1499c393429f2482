"""`Leases`: a host says every few seconds that it is there, so that others notice when it stops saying so.

Records of hosts say who serves what, and nothing of whether that is still true: a host that was killed cannot delete
its own. So each host of ours holds a lease beside its record, in a bucket of its own that plain peers do not know, and
renews it. Whoever is connected follows the leases and reckons by its own clock::

    held --not renewed, three times--> overdue --looked up again--> buried
      ^---------------renewed------------/

A host that was only stopped for a while, and is buried meanwhile, finds its lease gone and joins again. A host without
a lease is a peer of another kind, and left alone. Who was itself stopped or cut off has heard nobody, and begins to
reckon anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import TYPE_CHECKING

from xml_pipeline.mesh.bucket_watch import BucketWatch
from xml_pipeline.mesh.errors import ConnectionDenied, MeshError
from xml_pipeline.mesh.subjects import is_request_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.burial import Burial
    from xml_pipeline.mesh.kv_entry import KVEntry
    from xml_pipeline.mesh.link import Link

__all__ = ["Leases"]

_log = logging.getLogger(__name__)

_MISSED = 3
_SHORTEST = 0.05
_LONGEST = 60.0
_STOPPED = 1.0  # seconds that waking up may be late before it means that this process did not run
_AGAIN = 1.0
_IDLE = 60.0


class _Lease:
    """One lease, as it is seen from here."""

    __slots__ = ("heard", "revision", "seconds")

    def __init__(self, heard: float, revision: int, seconds: float) -> None:
        self.heard = heard
        self.revision = revision
        self.seconds = seconds

    @property
    def due(self) -> float:
        """When it is overdue, in the loop's time."""
        return self.heard + self.seconds * _MISSED


class Leases:
    """The leases of all hosts, and that of this one.

    Args:
        link: the connection.
        instance_id: this mesh object.
        bucket: `bucket.LEASES`.
        burial: what is done about a host whose lease is overdue.

    Attributes:
        on_buried: called when others have taken this host for dead.
    """

    def __init__(self, link: Link, instance_id: str, bucket: Bucket, burial: Burial) -> None:
        self.on_buried: Callable[[], None] | None = None
        self._link = link
        self._instance_id = instance_id
        self._bucket = bucket
        self._burial = burial
        self._seconds = link.options.lease
        self._held: frozenset[str] = frozenset()
        self._may_hold = True
        self._leases: dict[str, _Lease] = {}
        self._watch = BucketWatch(link, bucket, ">", self._seen, self._leases.clear)
        self._changed = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to look after others. Where the server does not permit it, others have to."""
        try:
            await self._watch.start()
        except MeshError as error:
            _log.warning("hosts that are gone will not be noticed here: %s", error)
            return
        self._link.on_restored.append(self._begin_anew)
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Look after nobody any more, and hold nothing. Safe twice."""
        if self._renewing is not None:  # leaving has failed
            await _end(self._renewing)
            self._renewing = None
        if self._looking is not None:
            self._link.on_restored.remove(self._begin_anew)
            await _end(self._looking)
            self._looking = None
        await self._watch.stop()

    # -- our own

    async def hold(self, names: Collection[str]) -> None:
        """Say from now on that this host is there. Where the server does not permit it, it is not said.

        Args:
            names: the agents it serves.

        Raises:
            MeshError: it could not be said; it is tried again.
        """
        self._held = frozenset(names)
        if not self._may_hold:
            return
        try:
            await self._renew()
        except ConnectionDenied as error:
            self._may_hold = False
            _log.warning("others will notice only through a monitor if this host is gone: %s", error)
            return
        finally:
            if self._renewing is None and self._may_hold:
                self._renewing = asyncio.create_task(self._renew_again_and_again())

    async def let_go(self) -> None:
        """Say it no more: this host leaves.

        Raises:
            MeshError: that could not be said.
        """
        self._held = frozenset()
        if self._renewing is not None:
            await _end(self._renewing)
            self._renewing = None
            await self._bucket.delete(self._instance_id)

    async def _renew(self) -> None:
        await self._bucket.put(self._instance_id, json.dumps({"seconds": self._seconds}).encode())

    async def _renew_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(self._seconds * random.uniform(0.8, 1.0))  # lest all hosts say it at the same moment
            try:
                await self._renew()
            except MeshError as error:
                _log.debug("the lease could not be renewed: %s", error)

    # -- those of others

    def is_overdue(self, instance_id: str) -> bool:
        """Whether this host has a lease, and has not renewed it in time."""
        lease = self._leases.get(instance_id)
        return lease is not None and lease.due <= asyncio.get_running_loop().time()

    def _seen(self, entry: KVEntry[bytes]) -> None:
        if not is_request_id(entry.key):
            return  # no host has such an id, and one cannot even delete every key there may be
        if entry.key == self._instance_id:
            if entry.is_deleted and self._held and self.on_buried is not None:
                self.on_buried()
        elif entry.is_deleted:
            self._leases.pop(entry.key, None)
        else:
            now = asyncio.get_running_loop().time()
            is_new = entry.key not in self._leases
            self._leases[entry.key] = _Lease(now, entry.revision, _seconds_of(entry.value))
            if is_new:
                self._changed.set()

    def _begin_anew(self) -> None:
        now = asyncio.get_running_loop().time()
        for lease in self._leases.values():
            lease.heard = now

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            now = loop.time()
            wakes = max(now, min((lease.due for lease in self._leases.values()), default=now + _IDLE))
            try:
                async with asyncio.timeout(wakes - now):
                    await self._changed.wait()
            except TimeoutError:
                if loop.time() > wakes + _STOPPED:
                    self._begin_anew()
                elif not await self._may_look_at_overdue():
                    return

    async def _may_look_at_overdue(self) -> bool:
        try:
            await self._look_at_overdue()
        except ConnectionDenied as error:
            _log.info("hosts that are gone are buried by others: %s", error)
            return False
        return True

    async def _look_at_overdue(self) -> None:
        # Everybody has noticed at the same time; one is enough, and the others see the lease disappear.
        await asyncio.sleep(min(_AGAIN, self._seconds) * random.random())
        try:
            await self._link.wait_up(_IDLE)
            overdue = [instance_id for instance_id in self._leases if self.is_overdue(instance_id)]
            dead = [instance_id for instance_id in overdue if await self._is_gone(instance_id)]
            if dead:
                await self._burial.bury(dead, ours=self._held)
                for instance_id in dead:
                    await self._bucket.delete(instance_id)
        except ConnectionDenied:
            raise
        except MeshError as error:
            _log.debug("hosts that are gone could not be buried yet: %s", error)
            await asyncio.sleep(_AGAIN)

    async def _is_gone(self, instance_id: str) -> bool:
        """Look it up, for the watch may have been behind."""
        lease = self._leases.get(instance_id)
        last = await self._bucket.get(instance_id)
        if lease is None or last is None:
            self._leases.pop(instance_id, None)
            return False
        if last.revision != lease.revision:
            self._leases[instance_id] = _Lease(
                asyncio.get_running_loop().time(), last.revision, _seconds_of(last.value)
            )
            return False
        return True


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _seconds_of(value: bytes) -> float:
    """What a lease says of itself; hostile values are moved into bounds."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return _LONGEST
    seconds = found.get("seconds") if isinstance(found, dict) else None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        return _LONGEST
    return float(min(_LONGEST, max(_SHORTEST, seconds)))
