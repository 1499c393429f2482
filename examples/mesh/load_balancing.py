"""Three processes serve the same agent, and share its requests; one of them leaves, and nobody notices.

Run it: ``python examples/mesh/load_balancing.py``. It starts a server and the three replicas.
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter

from xml_pipeline.mesh import AgentMesh, AgentSpec

CALLS = 60
AT_ONCE = 12
SECONDS = 0.05  # that each call takes


# -- a replica


def serve(url: str) -> None:
    """One replica, until it is told to stop. Nothing says that there are others: the name is the same, that is all."""
    mesh = AgentMesh(url)

    @mesh.agent(AgentSpec(name="math.square", max_concurrency=AT_ONCE))
    async def square(number: int) -> dict[str, int]:
        """Squares a number, slowly."""
        await asyncio.sleep(SECONDS)
        return {"square": number * number, "by": os.getpid()}

    mesh.run()


# -- the caller


async def call_all(mesh: AgentMesh) -> tuple[Counter[int], int]:
    """Call it many times, some at once. Returns how many calls each replica answered, and how many went wrong."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def call(number: int) -> int:
        async with turns:
            answer = await mesh.call("math.square", number)
            return answer["by"] if answer["square"] == number * number else 0

    answers = await asyncio.gather(*(call(number) for number in range(CALLS)), return_exceptions=True)
    answered = Counter(answer for answer in answers if isinstance(answer, int) and answer)
    return answered, CALLS - answered.total()


async def until_served_by(mesh: AgentMesh, how_many: int) -> None:
    """Wait until so many replicas answer."""
    async for change in mesh.catalog_changes():
        if change.name == "math.square":
            break
    seen: set[int] = set()
    while len(seen) < how_many:
        seen.add((await mesh.call("math.square", 1))["by"])


def show(answered: Counter[int], wrong: int) -> None:
    for pid, count in sorted(answered.items()):
        print(f"  replica {pid}: {count:>3} {'#' * count}")
    print(f"  {answered.total()} answered, {wrong} went wrong")


async def main() -> None:
    async with AgentMesh.local() as mesh:
        print("start three replicas")
        replicas = [await asyncio.create_subprocess_exec(sys.executable, __file__, mesh.url) for _ in range(3)]
        await until_served_by(mesh, 3)

        print(f"{CALLS} calls")
        before, wrong_before = await call_all(mesh)
        show(before, wrong_before)

        print(f"{CALLS} calls more, and the first replica is told to leave meanwhile")
        # It finishes what it is at, answers it, and leaves.
        asyncio.get_running_loop().call_later(2 * SECONDS, replicas[0].terminate)
        during, wrong_during = await call_all(mesh)
        show(during, wrong_during)

        for replica in replicas[1:]:
            replica.terminate()
        codes = [await replica.wait() for replica in replicas]
    wrong = wrong_before + wrong_during
    print(f"summary: {2 * CALLS} calls, {wrong} went wrong, shared by {len(before)}; the replicas ended with {codes}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1])
    else:
        asyncio.run(main())
