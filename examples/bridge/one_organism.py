"""A pipeline whose stages are listeners of one organism: ``python examples/bridge/one_organism.py``.

It starts a server, runs the organism of ``pipeline.yaml``, and puts documents while it does; then it stops the
organism, puts more, and starts it again: it goes on where it was.
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
from pathlib import Path

from documents import put_documents, summary, until

from xml_pipeline import StreamPump, bootstrap
from xml_pipeline.mesh import AgentMesh

FILE = Path(__file__).with_name("pipeline.yaml")


async def start(url: str) -> StreamPump:
    """The organism on the server that is here, in the place of one of its own."""
    return await bootstrap(FILE, mesh_url=url)


async def main() -> None:
    async with AgentMesh.local() as mesh:
        print("start the organism")
        async with await start(mesh.url) as pump:
            await put_documents(mesh, range(1, 6))
            await until(mesh, "report", 5)
            await pump.wait_idle()
            print(f"nothing failed: {not pump.dead_letters.list()}")
        print("it is stopped")
        await put_documents(mesh, range(6, 11))
        print("start it again")
        async with await start(mesh.url) as pump:
            reports = await until(mesh, "report", 10)
            await pump.wait_idle()
            handed_on = pump.statistics().outcomes["forwarded"]
    print(f"{summary(reports)}; the second time, the stages had {handed_on} to do")


if __name__ == "__main__":
    asyncio.run(main())
