"""A bucket of keys and values on the server.

A bucket is a stream with one message per key; a deletion is a message too, with a header that says so. What a bucket is
called, how it is made and how it is written is the same for every client of the mesh.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.errors import KVConflict, KVInvalidKey, StorageError
from xml_pipeline.mesh.jetstream import STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE
from xml_pipeline.mesh.kv_entry import KVEntry

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from xml_pipeline.mesh.jetstream import JetStream

__all__ = [
    "ARTIFACTS",
    "CATALOG",
    "CONTEXT",
    "INSTANCES",
    "LEASES",
    "OBSERVABILITY",
    "REGISTRY",
    "Bucket",
    "check_key",
    "check_origin",
    "operation_of",
    "origin_of",
]

CATALOG = "mesh-catalog"
REGISTRY = "mesh-registry"
CONTEXT = "mesh-context"
ARTIFACTS = "mesh-artifacts"
INSTANCES = "mesh-instances"
LEASES = "mesh-leases"  # ours: plain peers do not know it
OBSERVABILITY = "mesh-observability"

_KEY = re.compile(r"[-/_=A-Za-z0-9]+(\.[-/_=A-Za-z0-9]+)*")
_LONGEST_KEY = 900
_ORIGIN = re.compile(r"[!-~]{1,200}")
_OPERATION = "KV-Operation"


def check_key(key: str) -> str:
    """The key, if it is one.

    Raises:
        KVInvalidKey: it is not.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key) or len(key) > _LONGEST_KEY:
        raise KVInvalidKey(
            f"{str(key)[:100]!r} is not a key: letters, digits and '-/_=' in segments joined by single dots",
            key=str(key)[:100],
        )
    return key


def check_origin(origin: str) -> str:
    """The origin, if it is one.

    Raises:
        ValueError: it is not: up to 200 visible characters of ASCII.
    """
    if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
        raise ValueError(f"an origin is 1 to 200 visible characters of ASCII, not {str(origin)[:100]!r}")
    return origin


def origin_of(headers: dict[str, str] | None) -> str:
    """What whoever put a value said of himself, from the headers of its message; empty for nothing."""
    return headers.get(h.ORIGIN, "") if headers else ""


def operation_of(headers: dict[str, str] | None) -> str:
    """``PUT``, ``DEL`` or ``PURGE``, from the headers of a message."""
    if not headers:
        return "PUT"
    found = headers.get(_OPERATION)
    if found in ("DEL", "PURGE"):
        return found
    # A marker that the server leaves when a value has expired.
    return "PURGE" if headers.get("Nats-Marker-Reason") else "PUT"


class Bucket:
    """One bucket.

    Args:
        jetstream: how to reach it.
        name: of the bucket.
    """

    def __init__(self, jetstream: JetStream, name: str) -> None:
        self.name = name
        self.stream = f"KV_{name}"
        self.prefix = f"$KV.{name}."
        self.jetstream = jetstream

    async def open(self) -> dict[str, Any]:
        """Make it if it is not there.

        Returns:
            What the server knows of its stream.
        """
        return await self.jetstream.bind_or_create(
            self.stream,
            {
                "subjects": [f"{self.prefix}>"],
                "max_consumers": -1,
                "max_msgs": -1,
                "max_bytes": -1,
                "max_age": 0,
                "max_msgs_per_subject": 1,
                "num_replicas": 1,
                "storage": "file",
                "retention": "limits",
                "discard": "new",
                "duplicate_window": 120_000_000_000,
                "deny_delete": True,
                "allow_rollup_hdrs": True,
            },
        )

    async def last(self, key: str) -> KVEntry[bytes] | None:
        """The key as it is, also if it was deleted; ``None`` if it never was."""
        stored = await self.jetstream.last(self.stream, self.prefix + check_key(key))
        if stored is None:
            return None
        headers = _headers(stored.headers)
        return KVEntry(key, stored.body, stored.seq, operation_of(headers), origin_of(headers))

    async def get(self, key: str) -> KVEntry[bytes] | None:
        """The key as it is; ``None`` if it has no value."""
        entry = await self.last(key)
        return None if entry is None or entry.is_deleted else entry

    async def put(self, key: str, value: bytes, origin: str = "", timeout: float | None = None) -> int:
        """Give the key a value, whatever it had, and say who did it. Returns its revision.

        Args:
            key: it.
            value: its.
            origin: who does it; empty for nobody.
            timeout: seconds until it has to be confirmed; ``None`` for those of any request.
        """
        subject, headers = self.prefix + check_key(key), {h.ORIGIN: check_origin(origin)} if origin else None
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout

        def write() -> Awaitable[int]:
            left = None if deadline is None else max(0.0, deadline - loop.time())
            return self.jetstream.publish(subject, value, headers, timeout=left)

        return await self._write(write)

    async def put_if(self, key: str, value: bytes, revision: int) -> int:
        """Give the key a value if its last change has this revision; 0: if it never had one.

        Returns:
            Its new revision.

        Raises:
            KVConflict: somebody else changed it.
            MeshTimeout: it is not known whether it was written.
        """
        try:
            return await self._write(lambda: self.jetstream.publish_if(self.prefix + check_key(key), value, revision))
        except StorageError as error:
            if error.details.get("err_code") == WRONG_LAST_SEQUENCE:
                raise KVConflict(key=key) from error
            raise

    async def delete(self, key: str) -> None:
        """Delete the key; no error if it is not there."""
        subject = self.prefix + check_key(key)
        await self._write(lambda: self.jetstream.publish(subject, b"", {_OPERATION: "DEL"}))

    async def _write(self, write: Any) -> int:
        """Write; where somebody removed the whole bucket meanwhile, make it again first."""
        try:
            return int(await write())
        except StorageError as error:
            if "err_code" in error.details and error.details["err_code"] != STREAM_NOT_FOUND:
                raise
        await self.open()
        return int(await write())


def _headers(block: bytes) -> dict[str, str]:
    found = {}
    for line in block.split(b"\r\n")[1:]:
        name, separator, value = line.partition(b":")
        if separator:
            found[name.strip().decode("utf-8", "replace")] = value.strip().decode("utf-8", "replace")
    return found
