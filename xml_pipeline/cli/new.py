"""``xml-pipeline new``."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import typer

from xml_pipeline.cli.console import say
from xml_pipeline.cli.exits import CommandFailed, Exit

__all__ = ["new"]

_FILES: Final = ("organism.yaml", "handlers.py", "test_organism.py", "pytest.ini", "README.md")
_GREETING: Final = """'{"name": "Ada"}'"""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise typer.BadParameter(
            f"{name!r} cannot be the name of an organism; begin with a letter, and use letters, digits, - and _ only"
        )
    return name


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", parser=_checked, help="Of the organism, and its directory.")],
    directory: Annotated[
        str, typer.Option("--directory", "-d", metavar="DIR", help="Where its directory is made.")
    ] = ".",
    force: Annotated[bool, typer.Option("--force", help="Overwrite its files, if they exist.")] = False,
) -> int:
    """Write a working organism: its file, its handlers, a test, and a README that says how to go on.

    \b
    Examples:
      xml-pipeline new demo
      cd demo
      xml-pipeline check
      xml-pipeline send greeter '{"name": "Ada"}'
    """
    target = Path(directory) / name
    if not force:
        _refuse_existing(target)
    template = resources.files("xml_pipeline.cli") / "template"
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in _FILES:
            text = (template / f"{file}.txt").read_text(encoding="utf-8")
            (target / file).write_text(text.replace("@NAME@", name), encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandFailed(f"error: {target} cannot be written: {reason}") from None
    say(f"wrote {target}: {', '.join(_FILES)}")
    say(f"next: cd {target} && xml-pipeline check && xml-pipeline send greeter {_GREETING}")
    return Exit.OK


def _refuse_existing(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise CommandFailed(f"error: {target} exists, and is no directory; choose another name")
    existing = [file for file in _FILES if (target / file).exists()]
    if existing:
        raise CommandFailed(f"error: {target} has {', '.join(existing)} already; --force overwrites")
