"""Documents through three stages, each a node of its own, each killed at random moments and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

from tests.mesh.proofs.figures import Figure, count, seconds
from xml_pipeline.bridge.kv_watched import AT_A_TIME
from xml_pipeline.mesh import AgentMesh, EmbeddedServer

__all__ = ["prove"]

_STAGES = {
    "extract": ("doc.{id}.raw", "doc.{id}.words", "Document", "Extracted"),
    "count": ("doc.{id}.words", "doc.{id}.count", "Extracted", "Counted"),
    "summarise": ("doc.{id}.count", "doc.{id}.summary", "Counted", "Summary"),
}
_ROOT = Path(__file__).parents[3]
_MODULE = "tests.bridge.proofs.stages"


class Node:
    """One stage's process.

    Args:
        folder: for its file and its log.
        stage: which.
        url: of the server.
    """

    def __init__(self, folder: Path, stage: str, url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{stage}.yaml"
        self._log = folder / "begun.log"
        self._errors = folder / f"{stage}.err"
        self._process: asyncio.subprocess.Process | None = None
        watch, put, takes, gives = _STAGES[stage]
        self._file.write_text(
            f"organism: {{name: {stage}}}\n"
            "listeners:\n"
            f"- {{name: stage, description: d, payload_class: {_MODULE}.{takes}, handler: {_MODULE}.{stage}}}\n"
            f"mesh:\n  url: {url}\n  kv:\n"
            f'  - {{watch: "{watch}", to: stage, payload_class: {_MODULE}.{takes}, resume: {stage}}}\n'
            f'  - {{put: "{put}", listener: out, payload_class: {_MODULE}.{gives}}}\n'
        )

    async def start(self) -> None:
        """Start it."""
        environment = {**os.environ, "BRIDGE_PROOF_LOG": str(self._log), "PYTHONPATH": str(_ROOT)}
        with self._errors.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "xml_pipeline.cli", "run", str(self._file)),
                env=environment,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
            )

    async def kill(self) -> None:
        """Kill it, and see it gone."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


async def prove(folder: Path, documents: int, kills: int) -> list[Figure]:
    """Run it.

    Args:
        folder: for files.
        documents: how many.
        kills: how often each stage is killed.
    """
    chance = random.Random(5)
    began = time.monotonic()
    async with EmbeddedServer() as server, AgentMesh(server.url) as mesh:
        nodes = [Node(folder, stage, server.url) for stage in _STAGES]
        try:
            finished = asyncio.create_task(_all_summarised(mesh, documents))
            putting = asyncio.create_task(_put(mesh, documents))
            await asyncio.gather(*(_live(node, chance, finished, kills, documents, folder) for node in nodes))
            await putting
            summaries = await finished
        finally:
            await asyncio.gather(*(node.kill() for node in nodes), return_exceptions=True)
    took = time.monotonic() - began
    return [
        count("documents without a summary", documents - len(summaries), 0),
        count("summaries that are wrong", sum(text != "3 words" for text in summaries.values()), 0),
        *_repeated(folder, documents, kills),
        seconds("all of it", took, note=f"{documents / took:.0f} documents a second through three stages"),
    ]


async def _put(mesh: AgentMesh, documents: int) -> None:
    for number in range(documents):
        await mesh.kv.put(f"doc.{number}.raw", '{"text": "one two three"}')


async def _live(
    node: Node, chance: random.Random, finished: asyncio.Task[dict[str, str]], kills: int, documents: int, folder: Path
) -> None:
    """Start it when it comes to that, kill it so often, and leave it running."""
    await asyncio.sleep(chance.random() * 2)  # any order
    await node.start()
    for number in range(kills):
        await _until_begun(folder, documents * 3 * (number + chance.random()) / (kills + 1), finished)
        await node.kill()
        await asyncio.sleep(chance.random())
        await node.start()
    await asyncio.wait([finished])


async def _until_begun(folder: Path, lines: float, finished: asyncio.Task[dict[str, str]]) -> None:
    """Until so much was begun by all stages together, so that kills fall into the work."""
    log = folder / "begun.log"
    while not finished.done():
        with contextlib.suppress(FileNotFoundError):
            if log.read_bytes().count(b"\n") >= lines:
                return
        await asyncio.wait([finished], timeout=0.05)


async def _all_summarised(mesh: AgentMesh, documents: int) -> dict[str, str]:
    import json

    found: dict[str, str] = {}
    async with contextlib.aclosing(mesh.kv.watch_entries("doc.*.summary")) as changes:
        async for change in changes:
            found[change.key] = json.loads(change.value)["text"]
            if len(found) == documents:
                return found
    return found


def _repeated(folder: Path, documents: int, kills: int) -> list[Figure]:
    begun = Counter((folder / "begun.log").read_text(encoding="utf-8").splitlines())
    figures = []
    for place, stage in enumerate(_STAGES, 1):
        times = {line: times for line, times in begun.items() if line.startswith(stage + " ")}
        again = sum(times.values()) - len(times)
        figures.append(count(f"{stage}: documents never begun", documents - len(times), 0))
        # What a stage before does again is a new change for this one, too.
        most = place * kills * AT_A_TIME
        figures.append(count(f"{stage}: begun again", again, most=most, note=f"{kills} kills of each stage"))
    return figures
