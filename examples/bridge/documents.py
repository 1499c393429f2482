"""The other end of the pipeline: it puts documents in, and waits for reports. All that it uses is a mesh object."""

from __future__ import annotations

import json
from contextlib import aclosing

from xml_pipeline.mesh import AgentMesh

__all__ = ["put_documents", "summary", "until"]


async def put_documents(mesh: AgentMesh, numbers: range) -> None:
    """Put documents: the one of number 5 has five words."""
    print(f"put documents {numbers[0]} to {numbers[-1]}", flush=True)  # noqa: T201
    for number in numbers:
        await mesh.kv.put(f"pipeline.document-{number}.raw", json.dumps({"text": "  word " * number}))


async def until(mesh: AgentMesh, state: str, how_many: int) -> dict[str, str]:
    """Wait until so many documents have come this far; their values."""
    found: dict[str, str] = {}
    async with aclosing(mesh.kv.watch_entries(f"pipeline.*.{state}")) as entries:
        async for entry in entries:
            found[entry.key.split(".")[1]] = entry.value.decode()
            if len(found) == how_many:
                break
    return found


def summary(reports: dict[str, str]) -> str:
    """How many reports there are, and how many of them are right."""
    right = sum(
        json.loads(report) == {"id": name, "text": f"{name} has {name.rpartition('-')[2]} words"}
        for name, report in reports.items()
    )
    return f"summary: {len(reports)} documents reported, {right} correctly"
