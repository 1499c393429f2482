"""Finding an organism's file, and reading it: for every verb in the same way, so that `check` refuses what `run` cannot
load."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xml_pipeline.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from xml_pipeline.config import Problem
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["DEFAULT_FILES", "Inspected", "find_file", "inspect_file", "load_organism"]

DEFAULT_FILES: Final = ("organism.yaml", "config/organism.yaml")


@dataclass(frozen=True, slots=True)
class Inspected:
    """An organism's file, looked through.

    Args:
        file: its name.
        pump: with all its listeners, not started; ``None`` when there are problems.
        problems: what must be mended.
        warnings: what may be meant as it is.
    """

    file: str
    pump: StreamPump | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def find_file(file: str | None) -> str:
    """The file that was named, or the first default that exists.

    Raises:
        CommandFailed: none was named, and there is no default.
    """
    if file is not None:
        return file
    for default in DEFAULT_FILES:
        if Path(default).is_file():
            return default
    raise CommandFailed(
        f"error: there is neither {DEFAULT_FILES[0]} nor {DEFAULT_FILES[1]} here; "
        "name the file, or make an organism with: xml-pipeline new NAME",
        code=Exit.INVALID,
    )


def inspect_file(file: str | None) -> Inspected:
    """Read an organism's file, import what it names, and register its listeners on a pump that is not started.

    Variables of ``.env`` beside it are put into the environment, where handlers find them too.

    Raises:
        CommandFailed: no file was named, and there is no default.
    """
    from xml_pipeline.config import InvalidConfiguration, Problem, load_report, place_problems
    from xml_pipeline.errors import ConfigurationError
    from xml_pipeline.message_bus.stream_pump import StreamPump

    path = find_file(file)
    # Importing runs the organism's modules; what they print must not get into what this command prints.
    with contextlib.redirect_stdout(sys.stderr):
        report = load_report(path, export_environment=True)
    if report.config is None:
        return Inspected(path, None, report.problems, report.warnings)
    try:
        pump = StreamPump(report.config, path)
        pump.register_all()
    except InvalidConfiguration as error:
        return Inspected(path, None, place_problems(path, error.problems), report.warnings)
    except (ConfigurationError, TypeError) as error:
        return Inspected(path, None, (Problem(str(error), file=path),), report.warnings)
    return Inspected(path, pump, (), report.warnings)


def load_organism(file: str | None) -> tuple[str, StreamPump]:
    """The organism's file, and its pump, not started.

    Raises:
        CommandFailed: there is something wrong with it; all of it, a line each.
    """
    found = inspect_file(file)
    if found.pump is None:
        raise CommandFailed(*map(str, found.problems), code=Exit.INVALID)
    return found.file, found.pump
