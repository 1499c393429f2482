"""What the mesh needs of JetStream: requests in JSON, and errors that say what the server said.

It is spoken here directly, and not through the NATS client's own classes, because their watches stay blind for up to
twenty seconds after a restart of the server, end without an error when a bucket was deleted and made again, and lose
entries unnoticed when read slowly.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.errors import StorageError

if TYPE_CHECKING:
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.replies import Replies

__all__ = [
    "CONSUMER_NOT_FOUND",
    "MESSAGE_NOT_FOUND",
    "STREAM_IN_USE",
    "STREAM_NOT_FOUND",
    "WRONG_LAST_SEQUENCE",
    "JetStream",
    "Stored",
]

# `err_code` of the server's errors.
STREAM_NOT_FOUND = 10059
STREAM_IN_USE = 10058
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
WRONG_LAST_SEQUENCE = 10071

_EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored message.

    Args:
        subject: where it was published.
        seq: its number in the stream.
        body: its payload.
        headers: the raw block of its headers.
    """

    subject: str
    seq: int
    body: bytes
    headers: bytes


class JetStream:
    """JetStream as the mesh uses it.

    Args:
        replies: how requests are answered.
        timeout: seconds for one request.
    """

    def __init__(self, replies: Replies, timeout: float = _TIMEOUT) -> None:
        self._replies = replies
        self._timeout = timeout

    async def api(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request to the API.

        Args:
            verb: what follows ``$JS.API.``.
            body: of the request.

        Raises:
            StorageError: the server refused, or has no JetStream.
            MeshError: as `Replies.ask`.
        """
        data = json.dumps(body).encode() if body is not None else b""
        return _read(await self._replies.ask(f"$JS.API.{verb}", data, self._timeout), verb)

    async def publish(
        self, subject: str, body: bytes, headers: dict[str, str] | None = None, *, timeout: float | None = None
    ) -> int:
        """Store a message.

        Args:
            subject: where.
            body: the payload.
            headers: of the message.
            timeout: seconds until the server has to confirm it; ``None`` for those of any request.

        Returns:
            Its number in the stream.

        Raises:
            StorageError: it was not stored.
            MeshTimeout: it is not known whether it was stored.
        """
        patience = self._timeout if timeout is None else timeout
        answer = _read(await self._replies.ask(subject, body, patience, headers), subject)
        seq = answer.get("seq")
        if not isinstance(seq, int):
            raise StorageError(f"The server did not store what was published to {subject}.", details=answer)
        return seq

    async def publish_if(self, subject: str, body: bytes, seq: int, headers: dict[str, str] | None = None) -> int:
        """The same, provided that the last message of the subject has this number; 0 for that there is none."""
        return await self.publish(subject, body, {**(headers or {}), _EXPECTED_SEQUENCE: str(seq)})

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject; ``None`` if there is none."""
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except StorageError as error:
            if error.details.get("err_code") == MESSAGE_NOT_FOUND:
                return None
            raise
        found = answer["message"]
        return Stored(
            found["subject"],
            found["seq"],
            base64.b64decode(found.get("data", "")),
            base64.b64decode(found.get("hdrs", "")),
        )

    async def stream(self, stream: str) -> dict[str, Any] | None:
        """What the server knows of the stream; ``None`` if there is none."""
        try:
            return await self.api(f"STREAM.INFO.{stream}")
        except StorageError as error:
            if error.details.get("err_code") == STREAM_NOT_FOUND:
                return None
            raise

    async def bind_or_create(self, stream: str, config: dict[str, Any]) -> dict[str, Any]:
        """The stream, which is made if there is none; one that somebody else made in another way is taken as it is."""
        found = await self.stream(stream)
        if found is not None:
            return found
        try:
            return await self.api(f"STREAM.CREATE.{stream}", {"name": stream, **config})
        except StorageError as error:
            if error.details.get("err_code") != STREAM_IN_USE:
                raise
        found = await self.stream(stream)
        if found is None:
            raise StorageError(f"The stream {stream} can neither be made nor found.")
        return found


def _read(message: Message, what: str) -> dict[str, Any]:
    if not message.data:
        status = (message.headers or {}).get(h.SERVER_STATUS)
        if status == h.NO_RESPONDERS:
            raise StorageError(f"The server stores nothing for {what}; is JetStream switched on?")
        raise StorageError(f"The server's answer to {what} is empty.", details={"status": status})
    try:
        answer = json.loads(message.data)
    except ValueError as error:
        raise StorageError(f"The server's answer to {what} cannot be read.") from error
    if not isinstance(answer, dict):
        raise StorageError(f"The server's answer to {what} cannot be read.")
    problem = answer.get("error")
    if isinstance(problem, dict):
        raise StorageError(f"The server refused {what}: {problem.get('description', problem)}", details=problem)
    return answer
