"""A host of agents as a process of its own, to be killed, stopped and continued by tests."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import AsyncIterator

from tests.cli.forked import ROOT, Forked, Zygote
from tests.mesh.commands import Output

__all__ = ["NAMES", "RELEASE", "Hosting", "hosting"]

PROGRAM = """
    import asyncio, sys
    from collections.abc import AsyncIterator
    from dataclasses import replace
    from xml_pipeline.mesh import AgentMesh, AgentSpec

    mesh = AgentMesh(sys.argv[1])
    mesh._options = replace(mesh._options, lease=float(sys.argv[2]))
    released = asyncio.Event()

    @mesh.agent(AgentSpec(name="a.slow"))
    async def slow(seconds: float) -> str:
        print("begun", flush=True)
        if seconds:
            await asyncio.wait([asyncio.ensure_future(released.wait())], timeout=seconds)
        return mesh.instance_id

    @mesh.agent(AgentSpec(name="a.chunks"))
    async def chunks(size: int) -> AsyncIterator[str]:
        chunk = "x" * size
        while True:
            yield chunk

    @mesh.agent(AgentSpec(name="a.one"))
    async def one(x: int) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(60)

    async def main():
        async with mesh:
            await mesh.parts.link.subscribe("test.release", lambda message: released.set())
            await mesh.parts.link.flush()
            print(mesh.instance_id, flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""

RELEASE = "test.release"  # published to, it ends what the slow agent does
NAMES = ("a.slow", "a.chunks", "a.one")


class Hosting:
    """The process, and the instance id of its mesh object."""

    def __init__(self, process: Forked, instance_id: str, output: Output) -> None:
        self.process = process
        self.instance_id = instance_id
        self._output = output

    async def begun(self) -> None:
        """Wait until its slow agent has begun with a request."""
        assert await self._output.reader.readline() == b"begun\n"


@contextlib.asynccontextmanager
async def hosting(zygote: Zygote, url: str, lease: float = 4.0) -> AsyncIterator[Hosting]:
    """Run it until the end of the block; it is killed then, if it still runs."""
    output = Output()
    process = zygote.start(ROOT, [url, str(lease)], {}, None, output.writer, 2, textwrap.dedent(PROGRAM))
    await output.open()
    try:
        yield Hosting(process, (await output.reader.readline()).decode().strip(), output)
    finally:
        process.kill()
        await process.ended()
        output.close()
