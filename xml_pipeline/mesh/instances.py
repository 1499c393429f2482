"""`Instances`: which mesh object serves which agents, one record each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from xml_pipeline.mesh.bucket_watch import BucketWatch
from xml_pipeline.mesh.subjects import is_agent_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.kv_entry import KVEntry
    from xml_pipeline.mesh.link import Link

__all__ = ["Instances", "agents_of"]


def agents_of(value: bytes) -> frozenset[str]:
    """The agents that a record names, without what is no name; of a record that makes no sense, none."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return frozenset()
    names = found.get("agents") if isinstance(found, dict) else None
    return frozenset(filter(is_agent_name, names)) if isinstance(names, list) else frozenset()


class Instances:
    """The records of all mesh objects.

    Args:
        link: the connection.
        bucket: `bucket.INSTANCES`.
    """

    def __init__(self, link: Link, bucket: Bucket) -> None:
        self._link = link
        self._bucket = bucket

    async def put(self, instance_id: str, agents: Iterable[str]) -> None:
        """Say which agents a mesh object serves."""
        await self._bucket.put(instance_id, json.dumps({"agents": sorted(agents)}).encode())

    async def remove(self, instance_id: str) -> None:
        """Say that a mesh object serves none any more."""
        await self._bucket.delete(instance_id)

    async def all(self) -> dict[str, frozenset[str]]:
        """The agents of every mesh object that has a record."""
        found: dict[str, frozenset[str]] = {}

        def seen(entry: KVEntry[bytes]) -> None:
            if not entry.is_deleted:
                found[entry.key] = agents_of(entry.value)

        watch = BucketWatch(self._link, self._bucket, ">", seen)
        try:
            await watch.start()
        finally:
            await watch.stop()
        return found
