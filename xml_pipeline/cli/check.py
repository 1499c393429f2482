"""``xml-pipeline check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xml_pipeline.cli.console import complain, counted, print_json, say
from xml_pipeline.cli.exits import Exit
from xml_pipeline.cli.options import FileArgument, JsonFlag
from xml_pipeline.cli.organism_file import Inspected, inspect_file

if TYPE_CHECKING:
    from xml_pipeline.config import Problem
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["check"]


def check(file: FileArgument = None, json: JsonFlag = False) -> int:
    """Say everything that is wrong with an organism's file, each with file, line and column.

    It reads the file as run does: variables are filled in, classes and handlers are imported, and so the organism's
    modules are executed. Exit code 0 if it can run, 3 if not.

    \b
    Examples:
      xml-pipeline check
      xml-pipeline check config/organism.yaml
      xml-pipeline check --json | jq '.problems[].text'
    """
    found = inspect_file(file)
    if json:
        print_json(_data(found))
    else:
        _tell(found)
    return Exit.OK if found.pump is not None else Exit.INVALID


def _tell(found: Inspected) -> None:
    complain(*map(str, found.problems))
    complain(*(f"{_placed(warning)}warning: {warning.text}" for warning in found.warnings))
    if found.pump is None:
        complain(f"{found.file}: {counted(len(found.problems), 'problem')}, {counted(len(found.warnings), 'warning')}")
        return
    warned = f", {counted(len(found.warnings), 'warning')}" if found.warnings else ""
    say(f"{found.file}: organism {found.pump.config.name!r} is good{warned}: {_summary(found.pump)}")


def _placed(problem: Problem) -> str:
    return str(problem)[: -len(problem.text)]


def _summary(pump: StreamPump) -> str:
    listeners = pump.listeners.values()
    agents = sum(listener.is_agent for listener in listeners)
    groups = {listener.group for listener in listeners if listener.group}
    parts = [counted(len(listeners), "listener"), counted(agents, "agent")]
    return ", ".join(parts + ([counted(len(groups), "broadcast group")] if groups else []))


def _data(found: Inspected) -> dict[str, Any]:
    pump = found.pump
    return {
        "file": found.file,
        "ok": pump is not None,
        "problems": [_problem(problem) for problem in found.problems],
        "warnings": [_problem(problem) for problem in found.warnings],
        "organism": None if pump is None else pump.config.name,
        "listeners": [] if pump is None else [_listener(name, pump) for name in pump.listeners],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    from xml_pipeline.config.problems import format_path

    return {
        "file": problem.file,
        "line": problem.line or None,
        "column": problem.column or None,
        "path": format_path(problem.path),
        "text": problem.text,
    }


def _listener(name: str, pump: StreamPump) -> dict[str, Any]:
    listener = pump.listeners[name]
    return {
        "name": name,
        "description": listener.description,
        "agent": listener.is_agent,
        "payload_classes": list(listener.codecs),
        "peers": listener.peers,
        "group": listener.group or None,
    }
