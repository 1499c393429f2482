"""The ``openagentmesh`` package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from openagentmesh import AgentMesh, AgentSpec

from benchmarks.mesh.models import SLOW, Ask, Chunk, Told, answer_to, chunk_of

__all__ = ["Theirs"]


class Theirs:
    """A pair of its ``AgentMesh``."""

    def __init__(self, host: AgentMesh, caller: AgentMesh, closing: AsyncExitStack) -> None:
        self._host = host
        self._caller = caller
        self._closing = closing

    @classmethod
    async def connect(cls, url: str) -> Theirs:
        """Connect both, and serve."""
        host, caller = AgentMesh(url), AgentMesh(url)
        _serve(host)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(host)
            await stack.enter_async_context(caller)
            return cls(host, caller, stack.pop_all())

    async def call(self, ask: Ask) -> Told:
        return Told.model_validate(await self._caller.call("bench.theirs", ask))

    async def call_slow(self, ask: Ask) -> Told:
        return Told.model_validate(await self._caller.call("bench.theirs-slow", ask))

    async def stream(self, ask: Ask) -> int:
        count = 0
        async for found in self._caller.stream("bench.theirs-chunks", ask):
            chunk = Chunk.model_validate(found)
            if chunk != chunk_of(ask, count):
                raise AssertionError(f"a wrong chunk: {chunk!r:.200}")
            count += 1
        return count

    async def put(self, key: str, value: Told) -> None:
        assert self._caller.kv is not None  # it is connected
        await self._caller.kv.put(key, value.model_dump_json())

    async def watch(self, pattern: str) -> AsyncGenerator[Told, None]:
        assert self._host.kv is not None  # it is connected
        async for value in self._host.kv.watch(pattern):
            yield Told.model_validate_json(value)

    async def close(self) -> None:
        await self._closing.aclose()


def _serve(mesh: AgentMesh) -> None:
    @mesh.agent(AgentSpec(name="bench.theirs", description="Answers."))
    async def answer(ask: Ask) -> Told:
        return answer_to(ask)

    @mesh.agent(AgentSpec(name="bench.theirs-slow", description="Answers late."))
    async def answer_slowly(ask: Ask) -> Told:
        await asyncio.sleep(SLOW)
        return answer_to(ask)

    @mesh.agent(AgentSpec(name="bench.theirs-chunks", description="Streams."))
    async def chunks(ask: Ask) -> Chunk:
        for number in range(ask.number):
            yield chunk_of(ask, number)
