"""The recipes in ``examples/mesh``, run as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from xml_pipeline.mesh import AgentMesh

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "examples" / "mesh"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


IMPATIENT = """
import runpy, sys
from xml_pipeline.mesh.kv_cursor import Cursor

Cursor.__init__.__defaults__ = (2.0,)
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a recipe whose changes are given to somebody else after two seconds without a sign of life, instead of ten."""


async def start(name: str, *arguments: str, program: str = "") -> asyncio.subprocess.Process:
    command = [sys.executable, *(["-c", program] if program else []), str(RECIPES / name), *arguments]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=ENVIRONMENT)


async def run(name: str) -> tuple[list[str], str]:
    """What it prints, and its summary; it must end by itself, and well."""
    process = await start(name)
    try:
        shown, told = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, told.decode()
    assert b"Traceback" not in told, told.decode()
    lines = shown.decode().splitlines()
    assert lines[-1].startswith("summary: ")
    return lines, lines[-1]


async def test_provider_and_consumer():
    lines, summary = await run("provider_and_consumer.py")
    assert lines[:-1] == [
        "found text.summarizer: Keeps the first sentence.",
        "found text.speller: Says a text letter by letter.",
        "it takes text",
        "call: 'The mesh carries calls.', 41 characters less",
        "stream: m e s h",
        "error: invalid_input: The payload is not valid. text: String should have at least 1 character",
    ]
    assert summary.endswith("the consumer ended with 0, the provider with 0; 0 agents are left")


async def test_load_balancing():
    lines, summary = await run("load_balancing.py")
    assert summary == "summary: 120 calls, 0 went wrong, shared by 3; the replicas ended with [0, 0, 0]"
    shares = [int(found[1]) for line in lines if (found := re.match(r"  replica \d+: +(\d+) #", line))]
    assert sum(shares) == 120
    assert len(shares) >= 5
    assert max(shares[:3]) < 60, "one took all of them"


async def test_reactive_pipeline():
    lines, summary = await run("reactive_pipeline.py")
    expected = "summary: 10 of 10 documents reported, 10 correctly; the stages ended with [0, 0, 0]"
    assert summary == expected
    handled = [found[0] for line in lines if (found := re.fullmatch(r" +(\w+: document-\d+)", line))]
    stages = [line.strip() for line in handled]
    assert sorted(stages) == sorted(
        f"{name}: document-{n}" for name in ("extract", "count", "report") for n in range(1, 11)
    )
    killed = lines.index("kill count")
    counted = [number for number, line in enumerate(lines) if line.strip().startswith("count:")]
    assert len([number for number in counted if number > killed]) == 5


async def test_a_stage_that_is_killed_at_its_work_does_it_again(server):
    """What it had in hand is given to its successor when the server has waited long enough for a sign of life."""
    async with AgentMesh(server.url) as mesh:
        count = await start("reactive_pipeline.py", "count", server.url, program=IMPATIENT)
        stages = [count]
        try:
            for number in range(10):
                document = {"id": f"d-{number}", "text": "x " * number}
                await mesh.kv.put(f"pipeline.d-{number}.extracted", json.dumps(document))
            assert count.stdout is not None
            await count.stdout.readline()  # it has one in hand
            count.send_signal(signal.SIGKILL)
            stages.append(await start("reactive_pipeline.py", "count", server.url, program=IMPATIENT))
            done = {}
            async with aclosing(mesh.kv.watch("pipeline.*.counted")) as values:
                async for value in values:
                    document = json.loads(value)
                    done[document["id"]] = document["words"]
                    if len(done) == 10:
                        break
            assert done == {f"d-{number}": number for number in range(10)}
        finally:
            for stage in stages:
                if stage.returncode is None and stage is not count:
                    stage.terminate()
            codes = [(await stage.communicate(), stage.returncode)[1] for stage in stages]
        assert codes == [-signal.SIGKILL, 0]


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.py")))
def test_every_recipe_is_listed_and_tested(name):
    command = f"`python examples/mesh/{name}`"
    for page in (RECIPES / "README.md", RECIPES.parent / "README.md"):
        assert command in page.read_text(encoding="utf-8")
    assert f'run("{name}")' in Path(__file__).read_text(encoding="utf-8")
