"""Ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing

from benchmarks.mesh.models import SLOW, Ask, Chunk, Told, answer_to, chunk_of
from xml_pipeline.mesh import AgentMesh, AgentSpec

__all__ = ["Ours"]


class Ours:
    """A pair of `AgentMesh`."""

    def __init__(self, host: AgentMesh, caller: AgentMesh, closing: AsyncExitStack) -> None:
        self._host = host
        self._caller = caller
        self._closing = closing

    @classmethod
    async def connect(cls, url: str) -> Ours:
        """Connect both, and serve."""
        host, caller = AgentMesh(url), AgentMesh(url)
        _serve(host)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(host)
            await stack.enter_async_context(caller)
            return cls(host, caller, stack.pop_all())

    async def call(self, ask: Ask) -> Told:
        told: Told = await self._caller.call("bench.ours", ask, result_type=Told)
        return told

    async def call_slow(self, ask: Ask) -> Told:
        told: Told = await self._caller.call("bench.ours-slow", ask, result_type=Told)
        return told

    async def stream(self, ask: Ask) -> int:
        count = 0
        async for chunk in self._caller.stream("bench.ours-chunks", ask, result_type=Chunk):
            if chunk != chunk_of(ask, count):
                raise AssertionError(f"a wrong chunk: {chunk!r:.200}")
            count += 1
        return count

    async def put(self, key: str, value: Told) -> None:
        await self._caller.kv.put_model(key, value)

    async def watch(self, pattern: str) -> AsyncGenerator[Told, None]:
        async with aclosing(self._host.kv.watch(pattern)) as values:
            async for value in values:
                yield Told.model_validate_json(value)

    async def close(self) -> None:
        await self._closing.aclose()


def _serve(mesh: AgentMesh) -> None:
    @mesh.agent(AgentSpec(name="bench.ours"))
    async def answer(ask: Ask) -> Told:
        return answer_to(ask)

    @mesh.agent(AgentSpec(name="bench.ours-slow"))
    async def answer_slowly(ask: Ask) -> Told:
        await asyncio.sleep(SLOW)
        return answer_to(ask)

    @mesh.agent(AgentSpec(name="bench.ours-chunks"))
    async def chunks(ask: Ask) -> AsyncIterator[Chunk]:
        for number in range(ask.number):
            yield chunk_of(ask, number)
