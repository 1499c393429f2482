"""``xml-pipeline mesh up``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xml_pipeline.cli.console import complain, print_json, say
from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.options import JsonFlag

if TYPE_CHECKING:
    from xml_pipeline.cli.mesh.state import StateFolder
    from xml_pipeline.cli.mesh.supervisor import Order, Report

__all__ = ["up"]


def up(
    port: Annotated[
        int, typer.Option("--port", "-p", metavar="PORT", min=0, max=65535, help="On this machine; 0 for any.")
    ] = 4222,
    foreground: Annotated[bool, typer.Option("--foreground", "-f", help="Stay here until Ctrl-C.")] = False,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="DIR", help="Where its files are kept. Default: below ~/.local/state."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an .oam-url that says something else.")] = False,
    json: JsonFlag = False,
) -> int:
    """Start a mesh on this machine: a nats-server, and a monitor that takes dead agents out of the catalog.

    It goes on in the background until `xml-pipeline mesh down`, listens on this machine only, and keeps its files for
    the next time. It writes .oam-url into the current directory: commands in it and below find the mesh by that.

    \b
    Examples:
      xml-pipeline mesh up
      xml-pipeline mesh up --port 0 --store ./mesh-data
      xml-pipeline mesh up --foreground
    """
    from xml_pipeline.cli.mesh.state import StateFolder
    from xml_pipeline.cli.mesh.supervisor import Order

    if os.name != "posix":
        raise CommandFailed("error: this needs a POSIX system; start a nats-server with JetStream, and use its --url")
    state = StateFolder()
    state.make()
    state.must_be_down()
    here = _current_directory()
    order = Order(port, str(here / store) if store else "", str(here), force, str(state.path))
    return _in_foreground(order, json=json) if foreground else _in_background(order, state, json=json)


def _current_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise CommandFailed("error: the current directory is not there any more") from None


def _in_background(order: Order, state: StateFolder, *, json: bool) -> int:
    from xml_pipeline.cli.mesh.launch import launch

    report = launch(order, state.log)
    if report.record is None:
        raise CommandFailed(*report.errors, code=Exit(report.code))
    _show(report, json=json, log=str(state.log))
    return Exit.OK


def _in_foreground(order: Order, *, json: bool) -> int:
    import asyncio

    from xml_pipeline.cli.mesh.output import log_to_stderr
    from xml_pipeline.cli.mesh.supervisor import Supervisor

    log_to_stderr()
    asyncio.run(Supervisor(order).run(lambda report: _show(report, json=json)))
    return Exit.OK


def _show(report: Report, *, json: bool, log: str = "") -> None:
    record = report.record
    assert record is not None  # it is up
    complain(*(f"note: {note}" for note in report.notes))
    if json:
        print_json(_facts(report, log))
        return
    say(f"the mesh is up at {record.url}", style="bold")
    say(f"  process    {record.supervisor.pid}")
    say(f"  files      {record.store}")
    if log:
        say(f"  log        {log}")
    if record.pointer:
        say(f"  found by   {record.pointer}")
    say(f"  stop it    {'xml-pipeline mesh down' if log else 'Ctrl-C'}")


def _facts(report: Report, log: str) -> dict[str, Any]:
    record = report.record
    assert record is not None  # it is up
    return {
        "url": record.url,
        "pid": record.supervisor.pid,
        "server_pid": record.server.pid if record.server is not None else None,
        "store": record.store,
        "log": log or None,
        "pointer": record.pointer or None,
    }
