"""A plain NATS client with the same headers and the same validation, as one would write it by hand."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.kv import KeyValue

from benchmarks.mesh.models import SLOW, Ask, Chunk, Told, answer_to, chunk_of

__all__ = ["Raw"]

_CALLS = "bench.raw.calls"
_SLOW = "bench.raw.slow"
_CHUNKS = "bench.raw.chunks."
_BUCKET = "mesh-context"
_TIMEOUT = 30.0
_DEADLINE = "30000"


@dataclass(slots=True)
class _Stream:
    """What has come of one stream."""

    ask: Ask
    ended: asyncio.Future[None]
    came: int = 0


class Raw:
    """Two clients."""

    def __init__(self, host: Client, caller: Client) -> None:
        self._host = host
        self._caller = caller
        self._host_id, self._caller_id = uuid.uuid4().hex, uuid.uuid4().hex
        self._inbox = f"_INBOX.{uuid.uuid4().hex}"
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: dict[str, _Stream] = {}
        self._stored: KeyValue | None = None
        self._watched: KeyValue | None = None

    @classmethod
    async def connect(cls, url: str) -> Raw:
        """Connect both, and serve."""
        raw = cls(await nats.connect(url), await nats.connect(url))
        await raw._host.subscribe(_CALLS, "q.bench", raw._answer)
        await raw._host.subscribe(_SLOW, "q.bench", raw._begin)
        await raw._caller.subscribe(_CHUNKS + "*", cb=raw._take)
        for client in (raw._host, raw._caller):
            await client.flush()  # this may overtake the subscriptions,
            await client.flush()  # and this does not
        raw._stored = await raw._caller.jetstream().key_value(_BUCKET)
        raw._watched = await raw._host.jetstream().key_value(_BUCKET)
        return raw

    # -- the caller

    async def call(self, ask: Ask) -> Told:
        return await self._ask(_CALLS, ask)

    async def call_slow(self, ask: Ask) -> Told:
        return await self._ask(_SLOW, ask)

    async def _ask(self, subject: str, ask: Ask) -> Told:
        headers = {
            "X-Mesh-Request-Id": uuid.uuid4().hex,
            "X-Mesh-Instance-Id": self._caller_id,
            "X-Mesh-Deadline": _DEADLINE,
            "X-Mesh-Accept": f"{self._inbox}.1f",
        }
        body = ask.model_dump_json().encode()
        message = await self._caller.request(subject, body, timeout=_TIMEOUT, headers=headers)
        if message.headers is None or message.headers.get("X-Mesh-Status") != "ok":
            raise AssertionError(f"an error: {message.data!r:.200}")
        return Told.model_validate_json(message.data)

    async def stream(self, ask: Ask) -> int:
        request_id = uuid.uuid4().hex
        stream = self._streams[request_id] = _Stream(ask, asyncio.get_running_loop().create_future())
        try:
            await self._publish(_CHUNKS + request_id, request_id, ask)
            await stream.ended
        finally:
            del self._streams[request_id]
        return stream.came

    async def _take(self, message: Msg) -> None:
        stream, headers = self._streams[message.subject[len(_CHUNKS) :]], message.headers or {}
        if headers.get("X-Mesh-Stream-Seq") != str(stream.came):
            stream.ended.set_exception(AssertionError(f"chunk {stream.came} is missing: {headers}"))
        elif headers.get("X-Mesh-Stream-End") == "true":
            stream.ended.set_result(None)
        elif Chunk.model_validate_json(message.data) == chunk_of(stream.ask, stream.came):
            stream.came += 1
        else:
            stream.ended.set_exception(AssertionError(f"a wrong chunk: {message.data!r:.200}"))

    # -- the host

    async def _answer(self, message: Msg) -> None:
        ask = Ask.model_validate_json(message.data)
        await self._reply(message, answer_to(ask))

    async def _begin(self, message: Msg) -> None:
        task = asyncio.create_task(self._answer_slowly(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_slowly(self, message: Msg) -> None:
        ask = Ask.model_validate_json(message.data)
        await asyncio.sleep(SLOW)
        await self._reply(message, answer_to(ask))

    async def _reply(self, message: Msg, told: Told) -> None:
        headers = {
            "X-Mesh-Status": "ok",
            "X-Mesh-Source": "bench.raw",
            "X-Mesh-Request-Id": (message.headers or {}).get("X-Mesh-Request-Id", ""),
            "X-Mesh-Instance-Id": self._host_id,
        }
        await self._host.publish(message.reply, told.model_dump_json().encode(), headers=headers)

    async def _publish(self, subject: str, request_id: str, ask: Ask) -> None:
        for number in range(ask.number):
            headers = self._frame(number, "false", request_id)
            await self._host.publish(subject, chunk_of(ask, number).model_dump_json().encode(), headers=headers)
        await self._host.publish(subject, b"", headers=self._frame(ask.number, "true", request_id))

    def _frame(self, number: int, end: str, request_id: str) -> dict[str, str]:
        return {
            "X-Mesh-Stream-Seq": str(number),
            "X-Mesh-Stream-End": end,
            "X-Mesh-Request-Id": request_id,
            "X-Mesh-Instance-Id": self._host_id,
        }

    # -- keys and values

    async def put(self, key: str, value: Told) -> None:
        assert self._stored is not None  # it is connected
        await self._stored.put(key, value.model_dump_json().encode())

    async def watch(self, pattern: str) -> AsyncGenerator[Told, None]:
        assert self._watched is not None  # it is connected
        watcher = await self._watched.watch(pattern)
        try:
            async for entry in watcher:
                if entry is not None and entry.value:
                    yield Told.model_validate_json(entry.value)
        finally:
            await watcher.stop()

    async def close(self) -> None:
        await self._caller.close()
        await self._host.close()
