"""Many processes that change one key."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.mesh.proofs.family import family
from tests.mesh.proofs.figures import Figure, count, seconds
from xml_pipeline.mesh import AgentMesh, EmbeddedServer

__all__ = ["prove"]

_KEY = "shared.count"


async def prove(folder: Path, writers: int, times: int, kills: int = 0) -> list[Figure]:
    """Let them add one, again and again.

    Args:
        folder: for the server's files.
        writers: processes.
        times: how often each adds one.
        kills: how often the server is killed and started again meanwhile.
    """
    loop = asyncio.get_running_loop()
    server = EmbeddedServer(folder)
    await server.start()
    try:
        async with AgentMesh(server.url) as mesh:
            await mesh.kv.put(_KEY, "0")
            began = loop.time()
            async with family("increment", server.url, writers, key=_KEY, times=times) as writing:
                await writing.lines("in")
                for kill in range(kills):
                    await _until_at_least(mesh, writers * times * (kill + 1) // (kills + 1))
                    server.kill()
                    await server.wait()
                    await server.stop()
                    await server.start()
                codes = await writing.ended(range(writers))
            took = loop.time() - began
            await mesh.parts.link.wait_up(20.0)
            value = int(await mesh.kv.get(_KEY))
    finally:
        await server.stop()
    return [
        count("the key afterwards", value, exactly=writers * times, note=f"{kills} kills of the server"),
        count("writers that failed", sum(map(bool, codes)), exactly=0),
        seconds("it took", took),
    ]


async def _until_at_least(mesh: AgentMesh, number: int) -> None:
    await mesh.parts.link.wait_up(60.0)
    async for value in mesh.kv.watch(_KEY):
        if int(value) >= number:
            return
