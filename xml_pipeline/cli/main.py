"""The entry point of ``xml-pipeline`` and ``xp``: turns every failure into one line and an exit code.

The verbs, and the library that reads the command line, are imported inside `main`: Ctrl-C meanwhile ends the command as
it does later, without a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from xml_pipeline.cli.console import complain, prepare
from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.hangups import hold_hangups

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows the program's name; default: ``sys.argv[1:]``.

    Returns:
        The exit code, see `Exit`.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["run"]:
        hold_hangups()
    try:
        prepare()
        return _run(words)
    except CommandFailed as failed:
        complain(*failed.lines)
        return failed.code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:
        if os.environ.get("XML_PIPELINE_TRACEBACK"):
            raise
        complain(f"error: {_named(error)} (set XML_PIPELINE_TRACEBACK=1 to see where)")
        return Exit.FAILED


def _run(words: list[str]) -> int:
    import typer

    from xml_pipeline.cli.commands import app

    # Not exported by typer, and taken from another package by its older versions.
    usage_error: Any = typer.BadParameter.__mro__[1]
    try:
        code = app(args=words, prog_name="xml-pipeline", standalone_mode=False)
    except usage_error as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            complain(error.format_message())
        else:
            complain(f"error: {_sentence(error.format_message())} (see: {_command(error, words)} --help)")
        return Exit.USAGE
    except typer.Abort:
        return Exit.INTERRUPTED
    return code if isinstance(code, int) else Exit.OK


def __getattr__(name: str) -> Any:
    if name == "app":
        from xml_pipeline.cli.commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _command(error: Any, words: list[str]) -> str:
    context = getattr(error, "ctx", None)
    if context is not None:
        return str(context.command_path)
    # The parser of options does not say whose option it was.
    from xml_pipeline.cli.commands import app

    verbs = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    return f"xml-pipeline {words[0]}" if words and words[0] in verbs else "xml-pipeline"


def _named(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
