"""An organism and a program of the ``openagentmesh`` package call each other.

Run it: ``python examples/bridge/with_openagentmesh.py``; it needs ``pip install openagentmesh``. It starts a server,
the organism of ``desk.yaml``, and ``words.py`` in a process of its own. That has an agent, which the organism calls,
and a publisher, which it listens to; and it calls the organism.
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from xml_pipeline import bootstrap
from xml_pipeline.mesh import AgentMesh

FOLDER = Path(__file__).parent


async def main() -> None:
    # What fails here fails on purpose, and is shown as the answer that it becomes.
    logging.getLogger("xml_pipeline").setLevel(logging.CRITICAL)
    async with AgentMesh.local() as mesh:
        async with await bootstrap(FOLDER / "desk.yaml", mesh_url=mesh.url) as pump:
            print("start words.py", flush=True)
            peer = await asyncio.create_subprocess_exec(sys.executable, str(FOLDER / "words.py"), mesh.url)
            code = await peer.wait()
            await pump.wait_idle()
            outcomes = pump.statistics().outcomes
        left = await mesh.catalog()
    answered, failed = outcomes["answered"], outcomes["failed"]
    print(f"summary: {answered} answers, {failed} failure; words.py ended with {code}; {len(left)} agents are left")


if __name__ == "__main__":
    asyncio.run(main())
