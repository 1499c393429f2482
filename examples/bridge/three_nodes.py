"""The same pipeline spread over three processes: ``python examples/bridge/three_nodes.py``.

It starts a server and the nodes of ``extract.yaml``, ``count.yaml`` and ``report.yaml``, in any order, each with
``xml-pipeline run``; then it kills one of them, goes on without it, and starts it again.
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
import random
import sys
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path

from documents import put_documents, summary, until

from xml_pipeline.mesh import AgentMesh

FOLDER = Path(__file__).parent
STAGES = ["extract", "count", "report"]


async def start(stage: str, url: str) -> Process:
    print(f"start {stage}", flush=True)
    command = ["-m", "xml_pipeline.cli", "run", str(FOLDER / f"{stage}.yaml"), "--mesh", url]
    return await asyncio.create_subprocess_exec(sys.executable, *command, stdin=DEVNULL)


async def main() -> None:
    async with AgentMesh.local() as mesh:
        names = random.sample(STAGES, len(STAGES))  # any order will do
        nodes = {names[0]: await start(names[0], mesh.url)}
        try:
            await put_documents(mesh, range(1, 6))
            for name in names[1:]:
                nodes[name] = await start(name, mesh.url)
            await until(mesh, "report", 5)

            print("kill count", flush=True)
            nodes["count"].kill()
            await nodes["count"].wait()
            await put_documents(mesh, range(6, 11))
            await until(mesh, "extracted", 10)  # nobody counts them
            nodes["count"] = await start("count", mesh.url)
            reports = await until(mesh, "report", 10)
        finally:
            for node in nodes.values():
                if node.returncode is None:
                    node.terminate()  # it finishes what it is at, and leaves
            codes = [await node.wait() for node in nodes.values()]
    print(f"{summary(reports)}; the nodes ended with {codes}")


if __name__ == "__main__":
    asyncio.run(main())
