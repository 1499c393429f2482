"""The example organism in ``examples/research``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xml_pipeline.config import load_report
from xml_pipeline.message_bus.budget_registry import ThreadBudgetRegistry
from xml_pipeline.message_bus.todo_registry import TodoRegistry
from xml_pipeline.testing import TestPump

ROOT = Path(__file__).resolve().parents[1]
ORGANISM = ROOT / "examples" / "research" / "organism.yaml"

SAID = "The moon raises the tides, and the sun helps."
REMARKS = [
    "1 of 4 sources could not be read",
    "the reviewer says: good",
    "there is no translation: The budget of the conversation is exhausted.",
]


@pytest.fixture
def research():
    """The module with its classes, imported as the loader does it."""
    path = list(sys.path)
    report = load_report(ORGANISM)
    assert (report.problems, report.warnings) == ((), ())
    yield sys.modules["research"]
    sys.path[:] = path


async def test_an_article_is_written_with_what_there_is(research):
    async with TestPump(ORGANISM) as pump:
        article = await pump.ask("editor", research.Assignment("tides"))
        assert article == research.Article(SAID, "", REMARKS)
        failures = {failure.listener: str(failure.exception) for failure in pump.forget_failures()}
        assert failures.pop("library") == "the library has no 'lost scroll'"
        assert list(failures) in ([], ["translator"])  # whose budget is used up
        await pump.until_idle()
        (conversation,) = (each for each in pump.conversations if "editor" in each.path)
        pairs = {(message.from_id, message.to_id) for message in conversation.messages}
        # Each part took part: buffer, sequence, tool of the agent without Python, todo.
        assert {
            ("system.buffer", "library"),
            ("system.sequence", "notes.clean"),
            ("system.sequence", "notes.outline"),
            ("writer", "facts.check"),
            ("system.todo", "editor"),
            ("reviewer", "editor"),
        } <= pairs
        runtime = pump.runtime
        assert not runtime.get(TodoRegistry).active
        assert not runtime.get(ThreadBudgetRegistry).get_all_usage()
        assert not research.edit._works


def test_it_runs_with_one_command():
    shown = subprocess.run(
        [sys.executable, str(ORGANISM.parent / "run.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert shown.stderr == ""
    assert shown.stdout.splitlines()[-4:] == [SAID, *(f"- {remark}" for remark in REMARKS)]
