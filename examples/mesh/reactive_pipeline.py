"""A pipeline of three programs that never call each other: each reacts to what the one before has stored.

    raw --extract--> extracted --count--> counted --report--> report

Run it: ``python examples/mesh/reactive_pipeline.py``. It starts a server and the three stages, as processes, in any
order; then it kills one of them, goes on without it, and starts it again.
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
import random
import signal
import sys
from asyncio.subprocess import Process

from pydantic import BaseModel

from xml_pipeline.mesh import AgentMesh, AgentSpec

AT_ONCE = 10  # documents that a stage works at in parallel
SECONDS = 0.3  # that each of them takes


class Document(BaseModel):
    id: str
    text: str
    words: int = 0


def extract(document: Document) -> Document:
    return document.model_copy(update={"text": " ".join(document.text.split())})


def count(document: Document) -> Document:
    return document.model_copy(update={"words": len(document.text.split())})


def report(document: Document) -> Document:
    return document.model_copy(update={"text": f"{document.id} has {document.words} words"})


STAGES = {"extract": ("raw", "extracted", extract), "count": ("extracted", "counted", count)}
STAGES["report"] = ("counted", "report", report)


# -- a stage: `python reactive_pipeline.py count nats://...`


def serve(name: str, url: str) -> None:
    """One stage, until it is told to stop."""
    before, after, work = STAGES[name]
    mesh = AgentMesh(url)

    async def follow() -> None:
        # The server remembers under the name in `resume` what was handled. Loops of one name share the documents.
        async for value in mesh.kv.watch(f"pipeline.*.{before}", resume=name):
            document = Document.model_validate_json(value)
            print(f"  {name:>7}: {document.id}", flush=True)
            await asyncio.sleep(SECONDS)  # hard work
            await mesh.kv.put(f"pipeline.{document.id}.{after}", work(document))

    @mesh.agent(AgentSpec(name=f"pipeline.{name}"))
    async def stage() -> None:
        """Handles documents as they come."""
        await asyncio.gather(*(follow() for _ in range(AT_ONCE)))

    mesh.run()


# -- the other end: it puts documents in, and reads reports


async def start(name: str, url: str) -> Process:
    print(f"start {name}")
    return await asyncio.create_subprocess_exec(sys.executable, __file__, name, url)


async def put_documents(mesh: AgentMesh, numbers: range) -> None:
    print(f"put documents {numbers[0]} to {numbers[-1]}")
    documents = [Document(id=f"document-{number}", text="  word " * number) for number in numbers]
    await asyncio.gather(*(mesh.kv.put(f"pipeline.{one.id}.raw", one) for one in documents))


async def until(mesh: AgentMesh, state: str, how_many: int) -> dict[str, Document]:
    """Wait until so many documents have come this far."""
    found: dict[str, Document] = {}
    async for value in mesh.kv.watch(f"pipeline.*.{state}"):
        document = Document.model_validate_json(value)
        found[document.id] = document
        if len(found) == how_many:
            break
    return found


async def main() -> None:
    async with AgentMesh.local() as mesh:
        names = random.sample(list(STAGES), len(STAGES))  # any order will do
        stages = {names[0]: await start(names[0], mesh.url)}
        await put_documents(mesh, range(1, 6))
        for name in names[1:]:
            stages[name] = await start(name, mesh.url)
        await until(mesh, "report", 5)

        print("kill count")
        stages["count"].send_signal(signal.SIGKILL)
        await stages["count"].wait()
        await put_documents(mesh, range(6, 11))
        await until(mesh, "extracted", 10)  # nobody counts them
        stages["count"] = await start("count", mesh.url)
        reports = await until(mesh, "report", 10)

        for stage in stages.values():
            stage.terminate()  # it finishes what it is at, and leaves
        codes = [await stage.wait() for stage in stages.values()]
    right = sum(one.text == f"{one.id} has {one.id.split('-')[1]} words" for one in reports.values())
    print(f"summary: {len(reports)} of 10 documents reported, {right} correctly; the stages ended with {codes}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1], sys.argv[2])
    else:
        asyncio.run(main())
