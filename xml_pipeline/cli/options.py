"""Options and arguments that several verbs have."""

from __future__ import annotations

import math
from typing import Annotated

import typer

__all__ = ["FileArgument", "FileOption", "JsonFlag", "LogLevel", "MeshOption", "seconds"]

_FILE_HELP = "The organism's file. Default: organism.yaml, else config/organism.yaml."
_LEVELS = ("debug", "info", "warning", "error", "critical")


def seconds(value: str | float) -> float:
    """A number of seconds, 0 or more."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise typer.BadParameter(f"{value!r} is not a number of seconds; write e.g. 30 or 0.5")
    return number


def _level(value: str) -> str:
    if value.lower() not in _LEVELS:
        raise typer.BadParameter(f"{value!r} is no level; choose from {', '.join(_LEVELS)}")
    return value.lower()


def _address(value: str) -> str:
    if not value.strip():
        raise typer.BadParameter("an address must not be empty")
    return value


FileArgument = Annotated[str | None, typer.Argument(metavar="FILE", help=_FILE_HELP, show_default=False)]
FileOption = Annotated[str | None, typer.Option("--file", "-f", metavar="FILE", help=_FILE_HELP, show_default=False)]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
LogLevel = Annotated[
    str, typer.Option("--log-level", metavar="LEVEL", parser=_level, help=f"Logs on stderr: {', '.join(_LEVELS)}.")
]
MeshOption = Annotated[
    str | None,
    typer.Option(
        "--mesh",
        metavar="URL",
        parser=_address,
        help="The mesh's server, in the place of 'mesh: url' in the file.",
        show_default=False,
    ),
]
