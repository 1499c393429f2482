"""Objects of any size on the server, under any name.

An object is stored in pieces under an id of its own, and described by one message under its name. Whoever reads it
takes the description first: so an object is there as a whole or not at all, and while it is replaced the earlier one
can be read. How it is stored is the same for every NATS client.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.errors import KVInvalidKey, MeshError, ObjectNotFound, StorageError
from xml_pipeline.mesh.fetching import fetch
from xml_pipeline.mesh.jetstream import STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE
from xml_pipeline.mesh.subjects import is_request_id, new_id

if TYPE_CHECKING:
    from xml_pipeline.mesh.jetstream import JetStream
    from xml_pipeline.mesh.link import Link

__all__ = ["ObjectStore"]

_log = logging.getLogger(__name__)

_PIECE = 128 * 1024  # what other clients use
_AT_ONCE = 8  # pieces on their way
_ROOM_FOR_HEADERS = 1024
_LONGEST_NAME = 500
_DIGEST = "SHA-256="
_ROLLUP = {"Nats-Rollup": "sub"}


@dataclass(frozen=True, slots=True)
class _Description:
    """What is stored under the name of an object."""

    seq: int
    fields: dict[str, Any]

    @property
    def is_deleted(self) -> bool:
        return bool(self.fields.get("deleted"))

    @property
    def id(self) -> str:
        """Part of a subject whose messages are read and removed: never a wildcard that somebody wrote there."""
        found = str(self.fields.get("nuid") or "")
        return found if is_request_id(found) else ""


class ObjectStore:
    """One bucket of objects, which is made when something is first put into it.

    Args:
        link: the connection.
        jetstream: how to reach it.
        name: of the bucket.
    """

    def __init__(self, link: Link, jetstream: JetStream, name: str) -> None:
        self.name = name
        self.stream = f"OBJ_{name}"
        self._link = link
        self._jetstream = jetstream

    async def open(self) -> None:
        """Make it if it is not there."""
        await self._jetstream.bind_or_create(
            self.stream,
            {
                "subjects": [f"$O.{self.name}.C.>", f"$O.{self.name}.M.>"],
                "max_consumers": -1,
                "max_msgs": -1,
                "max_bytes": -1,
                "max_age": 0,
                "max_msgs_per_subject": -1,
                "num_replicas": 1,
                "storage": "file",
                "retention": "limits",
                "discard": "new",
                "allow_rollup_hdrs": True,
                "allow_direct": True,
            },
        )

    async def put(self, name: str, data: bytes) -> None:
        """Store an object, in the place of an earlier one of its name.

        Raises:
            KVInvalidKey: this cannot be a name.
            MeshError: it could not be stored; an earlier one is still there.
        """
        subject = self._subject_of(name)
        await self.open()
        id_ = new_id()
        try:
            pieces = await self._put_pieces(id_, data)
            fields = {
                "name": name,
                "bucket": self.name,
                "nuid": id_,
                "size": len(data),
                "chunks": pieces,
                "digest": _digest_of(data),
                "mtime": datetime.now(UTC).isoformat(),
                "options": {"max_chunk_size": self._piece},
            }
            earlier = await self._describe(subject, fields)
        except BaseException:
            await self._purge_if_unused(subject, id_)
            raise
        if earlier:
            await self._purge(earlier)

    async def get(self, name: str) -> bytes:
        """The object.

        Raises:
            ObjectNotFound: there is none of this name.
            StorageError: it is damaged.
        """
        subject = self._subject_of(name)
        damage = ""
        while True:
            found = await self._described(subject)
            if found is None or found.is_deleted:
                raise ObjectNotFound(key=name)
            if damage == found.id:
                break
            data = await self._get_pieces(found)
            if data is not None:
                return data
            damage = found.id  # or it was replaced while we read: then it has another id now
        raise StorageError(f"The object {name} is damaged: what is stored is not what was put there.")

    async def delete(self, name: str) -> None:
        """Remove an object.

        Raises:
            ObjectNotFound: there is none of this name.
        """
        subject = self._subject_of(name)
        found = await self._described(subject)
        if found is None or found.is_deleted:
            raise ObjectNotFound(key=name)
        mtime = datetime.now(UTC).isoformat()
        fields = {**found.fields, "deleted": True, "size": 0, "chunks": 0, "digest": "", "mtime": mtime}
        earlier = await self._describe(subject, fields)
        if earlier:
            await self._purge(earlier)

    # -- the description

    def _subject_of(self, name: str) -> str:
        try:
            token = base64.urlsafe_b64encode(name.encode()).decode()
        except (AttributeError, UnicodeEncodeError):
            token = ""
        if not token or len(name) > _LONGEST_NAME:
            raise KVInvalidKey(
                f"{name!r:.100} is not the name of an object: a text of 1 to {_LONGEST_NAME} characters",
                key=f"{name!r:.100}",
            )
        return f"$O.{self.name}.M.{token}"

    async def _described(self, subject: str) -> _Description | None:
        try:
            stored = await self._jetstream.last(self.stream, subject)
        except StorageError as error:
            if error.details.get("err_code") == STREAM_NOT_FOUND:
                return None
            raise
        if stored is None:
            return None
        try:
            fields = json.loads(stored.body)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise StorageError(f"The description of an object in {self.name} cannot be read.")
        return _Description(stored.seq, fields)

    async def _describe(self, subject: str, fields: dict[str, Any]) -> str:
        """Write the description. Returns the id of the pieces that it takes the place of, if there are any."""
        body = json.dumps(fields).encode()
        while True:
            found = await self._described(subject)
            try:
                # On condition, so that of two who replace one object each removes the pieces of exactly one.
                await self._jetstream.publish_if(subject, body, found.seq if found else 0, _ROLLUP)
            except StorageError as error:
                if error.details.get("err_code") != WRONG_LAST_SEQUENCE:
                    raise
                continue
            if found is None or (found.is_deleted and not fields.get("deleted")):
                return ""
            return found.id

    # -- the pieces

    @property
    def _piece(self) -> int:
        return max(1, min(_PIECE, (self._link.max_payload or _PIECE) - _ROOM_FOR_HEADERS))

    def _pieces_of(self, id_: str) -> str:
        return f"$O.{self.name}.C.{id_}"

    async def _put_pieces(self, id_: str, data: bytes) -> int:
        subject, size = self._pieces_of(id_), self._piece
        starts = range(0, len(data), size)
        for first in range(0, len(starts), _AT_ONCE):
            batch = starts[first : first + _AT_ONCE]
            stored = (self._jetstream.publish(subject, data[start : start + size]) for start in batch)
            for outcome in await asyncio.gather(*stored, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
        return len(starts)

    async def _get_pieces(self, found: _Description) -> bytes | None:
        """What the description describes; ``None`` if that is not what is there."""
        size, count, digest = (found.fields.get(field) for field in ("size", "chunks", "digest"))
        if (found.fields.get("options") or {}).get("link"):
            raise StorageError(f"The object {found.fields.get('name')} is a link to another; links are not followed.")
        data = bytearray()
        if count:
            pieces = fetch(self._link, self._jetstream, self.stream, self._pieces_of(found.id))
            async with aclosing(pieces):
                async for piece, _ in pieces:
                    data += piece.data
        whole = bytes(data)
        if len(whole) != size or (digest and _digest_of(whole).rstrip("=") != str(digest).rstrip("=")):
            return None
        return whole

    async def _purge(self, id_: str) -> None:
        try:
            await self._jetstream.api(f"STREAM.PURGE.{self.stream}", {"filter": self._pieces_of(id_)})
        except MeshError as error:
            _log.warning("pieces of an object that is gone are left in %s: %s", self.name, error)

    async def _purge_if_unused(self, subject: str, id_: str) -> None:
        """After a failure, which may have come after the description was stored."""
        try:
            found = await self._described(subject)
        except MeshError as error:
            _log.warning("pieces of an object may be left in %s: %s", self.name, error)
            return
        if found is None or found.id != id_:
            await self._purge(id_)


def _digest_of(data: bytes) -> str:
    return _DIGEST + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
