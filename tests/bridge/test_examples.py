"""The recipes in ``examples/bridge``, run as real processes."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "examples" / "bridge"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)  # with it a line is written in two pieces, and another process's in between
STAGES = ("extract", "count", "report")


async def run(name):
    """What it prints, and its summary; it must end by itself, and well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(RECIPES / name),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    try:
        shown, told = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, told) == (0, b""), told.decode()
    lines = shown.decode().splitlines()
    assert lines[-1].startswith("summary: ")
    return lines, lines[-1]


def worked(lines):
    return sorted(found[1] for line in lines if (found := re.fullmatch(r" +(\w+: document-\d+)", line)))


def each_stage_once(numbers):
    return sorted(f"{stage}: document-{number}" for stage in STAGES for number in numbers)


async def test_one_organism():
    lines, summary = await run("one_organism.py")
    assert summary == "summary: 10 documents reported, 10 correctly; the second time, the stages had 15 to do"
    assert "nothing failed: True" in lines
    again = lines.index("start it again")
    assert worked(lines[:again]) == each_stage_once(range(1, 6))
    assert worked(lines[again:]) == each_stage_once(range(6, 11))


async def test_three_nodes():
    lines, summary = await run("three_nodes.py")
    assert summary == "summary: 10 documents reported, 10 correctly; the nodes ended with [0, 0, 0]"
    assert worked(lines) == each_stage_once(range(1, 11))
    killed = lines.index("kill count")
    assert worked(line for line in lines[killed:] if "count:" in line) == sorted(
        f"count: document-{number}" for number in range(6, 11)
    )
    assert sum(line.startswith("start ") for line in lines) == 4


async def test_with_openagentmesh():
    pytest.importorskip("openagentmesh")
    lines, summary = await run("with_openagentmesh.py")
    assert "  the organism was told: 1" in lines
    assert [line for line in lines if line.startswith(("found", "asked"))] == [
        "found desk.clerk: Answers a question by having its subject spelled.",
        "asked about 'mesh', and was told: It is spelled m-e-s-h.",
        "asked about '4 you', and was told: Sorry: handler.",
        "asked wrongly, and was told: invalid_input",
    ]
    assert summary == "summary: 3 answers, 1 failure; words.py ended with 0; 0 agents are left"


RUN_BY_OTHERS = {"stages.py", "documents.py", "desk.py", "words.py"}


@pytest.mark.parametrize("name", sorted({path.name for path in RECIPES.glob("*.py")} - RUN_BY_OTHERS))
def test_every_recipe_is_listed_and_tested(name):
    command = f"`python examples/bridge/{name}`"
    for page in (RECIPES / "README.md", RECIPES.parent / "README.md"):
        assert command in page.read_text(encoding="utf-8")
    assert f'run("{name}")' in Path(__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_file_is_right(path, monkeypatch):
    from xml_pipeline.config import load_report

    monkeypatch.setattr(sys, "path", list(sys.path))
    report = load_report(path)
    assert (report.problems, report.warnings) == ((), ())
    for name in RUN_BY_OTHERS:
        sys.modules.pop(name.removesuffix(".py"), None)
