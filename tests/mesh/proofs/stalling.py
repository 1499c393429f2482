"""A stream that is much larger than what may wait on the way, and a consumer that stands still, or leaves."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from tests.mesh.proofs.family import family
from tests.mesh.proofs.figures import Figure, count, seconds
from tests.mesh.proofs.roles import resident
from xml_pipeline.mesh import AgentMesh, EmbeddedServer

__all__ = ["prove"]

_NAME = "a.chunks"
_SIZE = 500_000
_MOST_ON_THE_WAY = 40_000_000
_MOST_MEMORY = 150_000_000
_BEFORE = 3


async def prove(chunks: int, wait: float, *, whole_process: bool = False) -> list[Figure]:
    """Take some chunks, stand still, and take the others; then leave another stream early.

    Args:
        chunks: how many there are, of half a megabyte each.
        wait: seconds to stand still, once the producer does.
        whole_process: whether nothing else of the consumer's process runs meanwhile, from the beginning.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer())
        mesh = await stack.enter_async_context(AgentMesh(server.url))
        hosts = await stack.enter_async_context(family("serve", server.url, 1, agents={_NAME: "chunks"}))
        await hosts.lines("in")

        async def state() -> dict[str, Any]:
            return await mesh.call(f"{_NAME}-state", timeout=60.0)  # type: ignore[no-any-return]

        before, ours = (await state())["resident"], resident()
        stream = mesh.stream(_NAME, [chunks, _SIZE], timeout=60.0)
        found = [(await anext(stream))["n"] for _ in range(_BEFORE)]
        began = loop.time()
        if whole_process:
            time.sleep(wait)  # noqa: ASYNC251  # that is what is measured
        at_first = await _standing(state)
        await asyncio.sleep(0 if whole_process else wait)
        stood = await state()
        highest, highest_here = stood["resident"], resident()
        waited = loop.time() - began
        async for chunk in stream:
            found.append(chunk["n"])
            if len(found) % 50 == 0:
                highest_here = max(highest_here, resident())
                highest = max(highest, (await state())["resident"])
        losses = (await state())["losses"] + mesh.parts.link.losses
        leaver = mesh.stream(_NAME, [chunks, _SIZE], timeout=60.0)
        await anext(leaver)
        began = loop.time()
        await leaver.aclose()
        while (last := await state())["running"]:  # noqa: ASYNC110  # each look is a request
            await asyncio.sleep(0.001)
        stopped = loop.time() - began
        return [
            count("bytes of the stream", chunks * _SIZE),
            seconds("the consumer stood still for", waited),
            count("chunks that were lost, doubled or out of order", int(found != list(range(chunks))), exactly=0),
            count("chunks that the producer sent while the consumer stood", stood["sent"] - at_first, exactly=0),
            count("bytes on the way then", (stood["sent"] - _BEFORE) * _SIZE, most=_MOST_ON_THE_WAY),
            count("bytes of memory more in the producer's process", highest - before, most=_MOST_MEMORY),
            count("bytes of memory more in the consumer's process", highest_here - ours, most=_MOST_MEMORY),
            count("connections lost", losses, exactly=0),
            count("chunks sent for a consumer that left after the first", last["sent"], most=chunks - 1),
            seconds("until its producer had stopped", stopped),
        ]


async def _standing(state: Any) -> int:
    """How many chunks were sent, as soon as the producer must wait for the consumer, or has sent them all."""
    while not (now := await state())["waiting"] and now["running"]:
        pass
    return int(now["sent"])
