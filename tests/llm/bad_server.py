"""A real HTTP server on a loopback port that behaves as badly as it is told to.

::

    async with BadServer() as server:
        server.will(respond(429, headers={"retry-after": "2"}), ok_openai("Hello"))
        ...                                       # the first call gets the 429, all later ones the last behaviour
        server.received[0].document["model"]

A behaviour is an async function that is given the request and the connection, and writes what it likes, or nothing,
or half of something. When it returns, the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Behaviour = Callable[["Received", "Connection"], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """A request, as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Connection:
    """The client's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def client_is_gone(self) -> None:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


class BadServer:
    """See above.

    Args:
        tls: its certificate; ``None`` for a server without TLS.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.received: list[Received] = []
        self.gone = asyncio.Event()
        """Set when a client has left a behaviour that waits for that."""
        self.connections = 0
        self._behaviours: list[Behaviour] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> BadServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def will(self, *behaviours: Behaviour) -> None:
        """What it does with the next requests, one after another; the last one again and again."""
        self._behaviours = list(behaviours)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            # Swallowed, because asyncio would report a handler that was cancelled when the server was closed.
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                request = await _read(reader)
                self.received.append(request)
                behaviour = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
                await behaviour(request, Connection(reader, writer))
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    # -- behaviours that tell the server something

    def hang(self, before: bytes = b"") -> Behaviour:
        """Send ``before``, then nothing more, until the client leaves."""

        async def behave(_: Received, connection: Connection) -> None:
            await connection.send(before)
            await connection.client_is_gone()
            self.gone.set()

        return behave

    def drip(self, before: bytes, drop: bytes, pause: float = 0.005) -> Behaviour:
        """Send ``before``, then ``drop`` again and again with pauses, until the client leaves."""

        async def behave(_: Received, connection: Connection) -> None:
            await connection.send(before)
            leaving = asyncio.create_task(connection.client_is_gone())
            try:
                while not leaving.done():
                    with contextlib.suppress(ConnectionError):
                        await connection.send(drop)
                    await asyncio.wait([leaving], timeout=pause)
            finally:
                leaving.cancel()
            self.gone.set()

        return behave

    def flood(self, before: bytes, wave: bytes) -> Behaviour:
        """Send ``before``, then ``wave`` without end."""
        return self.drip(before, wave, 0)


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return Received(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


# -- behaviours ---------------------------------------------------------------------------------------------------


def head(status: int = 200, headers: Mapping[str, str] | None = None, reason: str = "Whatever") -> bytes:
    """A status line and headers."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def raw(data: bytes) -> Behaviour:
    """Send exactly this, and close."""

    async def behave(_: Received, connection: Connection) -> None:
        await connection.send(data)

    return behave


def respond(
    status: int = 200,
    body: Any = b"",
    *,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
    reason: str = "Whatever",
) -> Behaviour:
    """A whole answer; what is not bytes is written as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"content-type": content_type} if content_type else {}
    return raw(
        head(status, {**kind, "content-length": str(len(content)), "connection": "close", **(headers or {})}, reason)
        + content
    )


def cut_before_headers() -> Behaviour:
    return raw(b"")


def cut_in_headers() -> Behaviour:
    return raw(b"HTTP/1.1 200 OK\r\ncontent-type: appl")


def cut_in_body() -> Behaviour:
    return raw(head(200, {"content-type": "application/json", "content-length": "1000"}) + b'{"choices": [')


def echo_key(status: int, shape: Callable[[str], Any], **options: Any) -> Behaviour:
    """Answer with the key that came, in whatever ``shape`` makes of it."""

    async def behave(request: Received, connection: Connection) -> None:
        key = request.headers.get("authorization") or request.headers["x-api-key"]
        await respond(status, shape(key), **options)(request, connection)

    return behave


SSE_HEAD = head(200, {"content-type": "text/event-stream", "connection": "close"})


def event(data: Any, name: str = "") -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def events(*items: bytes) -> Behaviour:
    """A stream of these events, and then its end."""
    return raw(SSE_HEAD + b"".join(items))


def chunked(*items: bytes, end: bool = True) -> Behaviour:
    """A stream in HTTP chunks; without the last one if it is to be cut."""

    async def behave(_: Received, connection: Connection) -> None:
        await connection.send(head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}))
        for item in items:
            await connection.send(f"{len(item):x}\r\n".encode() + item + b"\r\n")
        if end:
            await connection.send(b"0\r\n\r\n")

    return behave


# -- good answers -------------------------------------------------------------------------------------------------


def openai_answer(text: str | None = "Hello", **changes: Any) -> dict[str, Any]:
    """A good answer in OpenAI's dialect; ``changes`` are of the message."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "some-model-2026",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **changes}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
    }


def anthropic_answer(*blocks: Any, stop_reason: str = "end_turn") -> dict[str, Any]:
    """A good answer in Anthropic's dialect."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-some-2026",
        "content": list(blocks) or [{"type": "text", "text": "Hello"}],
        "stop_reason": stop_reason,
        "usage": {"input_tokens": 12, "output_tokens": 5},
    }


def openai_chunk(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
    """A chunk of a streamed answer in OpenAI's dialect."""
    return event(
        {
            "object": "chat.completion.chunk",
            "model": "some-model-2026",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        }
    )


OPENAI_USAGE = event({"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}})
OPENAI_DONE = event("[DONE]")


def openai_stream(texts: Iterable[str] = ("Hel", "lo")) -> list[bytes]:
    """The events of a good stream in OpenAI's dialect."""
    pieces = [openai_chunk({"content": text}) for text in texts]
    return [openai_chunk({"role": "assistant"}), *pieces, openai_chunk({}, "stop"), OPENAI_USAGE, OPENAI_DONE]


def anthropic_event(kind: str, **fields: Any) -> bytes:
    """An event of a streamed answer in Anthropic's dialect."""
    return event({"type": kind, **fields}, kind)


ANTHROPIC_START = anthropic_event(
    "message_start", message={"model": "claude-some-2026", "usage": {"input_tokens": 12, "output_tokens": 1}}
)
ANTHROPIC_STOP = anthropic_event("message_stop")


def anthropic_end(stop_reason: str = "end_turn") -> bytes:
    return anthropic_event("message_delta", delta={"stop_reason": stop_reason}, usage={"output_tokens": 5})


def anthropic_stream(texts: Iterable[str] = ("Hel", "lo")) -> list[bytes]:
    """The events of a good stream in Anthropic's dialect."""
    return [
        ANTHROPIC_START,
        anthropic_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        anthropic_event("ping"),
        *(
            anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
            for text in texts
        ),
        anthropic_event("content_block_stop", index=0),
        anthropic_end(),
        ANTHROPIC_STOP,
    ]
