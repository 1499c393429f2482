"""The verbs, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from xml_pipeline.cli import check, keygen, mesh, new, run, schema, send, tail, version

__all__ = ["app"]

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
app.command(short_help="Show what happens inside organisms on a mesh.")(tail.tail)
app.add_typer(schema.app, name="schema", short_help="Write a schema: XSD, or JSON Schema.")
app.add_typer(mesh.app, name="mesh", short_help="Start a mesh, and use its agents, keys and values.")
app.command(short_help="Make an identity: a private and a public key.")(keygen.keygen)
app.command(short_help="Show versions and installed extras.")(version.version)
