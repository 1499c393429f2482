"""The entry point of ``xml-pipeline`` and ``xp``: puts the verbs together, and turns every failure into one line and an
exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from xml_pipeline.cli import check, new, run, schema, send, version
from xml_pipeline.cli.console import complain, prepare
from xml_pipeline.cli.exits import CommandFailed, Exit

__all__ = ["app", "main"]

_UsageError: Final[Any] = typer.BadParameter.__mro__[1]
"""Not exported by typer, and taken from another package by its older versions."""

app = typer.Typer(
    name="xml-pipeline",
    help="Build, check and run organisms: systems of agents and tools joined by a message pump.",
    epilog="Begin with: xml-pipeline new demo && cd demo && xml-pipeline check",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        version.version()
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version, and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options before the verb."""


app.command(short_help="Write a working organism.")(new.new)
app.command(short_help="Say what is wrong with an organism's file.")(check.check)
app.command(short_help="Run an organism until it is told to stop.")(run.run)
app.command(short_help="Send one message, and show the conversation.")(send.send)
app.add_typer(schema.app, name="schema", short_help="Write a schema: XSD, or JSON Schema.")
app.command(short_help="Show versions and installed extras.")(version.version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows the program's name; default: ``sys.argv[1:]``.

    Returns:
        The exit code, see `Exit`.
    """
    prepare()
    try:
        code = app(args=arguments, prog_name="xml-pipeline", standalone_mode=False)
    except CommandFailed as failed:
        complain(*failed.lines)
        return failed.code
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
            complain(error.format_message())
            return Exit.USAGE
        complain(f"error: {_sentence(error.format_message())} (see: {_command(error)} --help)")
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except Exception as error:
        if os.environ.get("XML_PIPELINE_TRACEBACK"):
            raise
        complain(f"error: {_named(error)} (set XML_PIPELINE_TRACEBACK=1 to see where)")
        return Exit.FAILED
    return code if isinstance(code, int) else Exit.OK


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _command(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return "xml-pipeline" if context is None else str(context.command_path)


def _named(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
