"""``xml-pipeline run``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from xml_pipeline.cli.exits import CommandFailed
from xml_pipeline.cli.options import FileArgument, LogLevel, MeshOption, seconds
from xml_pipeline.cli.succession import hand_over, is_successor

__all__ = ["run"]


def run(
    file: FileArgument = None,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="When the file changes, reload it; when a .py changes, drain and start anew."),
    ] = False,
    first: Annotated[
        tuple[str, str] | None,
        typer.Option("--send", metavar="LISTENER MESSAGE", help="Send this first, and show the conversation."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option("--timeout", "-t", metavar="SECONDS", parser=seconds, help="Seconds to finish what was accepted."),
    ] = 30.0,
    mesh: MeshOption = None,
    log_level: LogLevel = "warning",
) -> int:
    """Run the organism until it is told to stop.

    SIGTERM or Ctrl-C: refuse new messages, finish what was accepted, for at most --timeout seconds, report, and exit: 0
    when all was finished, 1 otherwise, with the listeners that were still at work. A second signal exits at once (130).
    SIGHUP: read the file again; all of it takes effect, or nothing.

    \b
    Examples:
      xml-pipeline run
      xml-pipeline run config/organism.yaml --reload
      xml-pipeline run --mesh nats://host:4222
      xml-pipeline run --send greeter '{"name": "Ada"}'
    """
    from xml_pipeline.cli.conversation import Message
    from xml_pipeline.cli.logs import log_to_stderr
    from xml_pipeline.cli.loop import run_coroutine
    from xml_pipeline.cli.organism_file import load_organism
    from xml_pipeline.cli.payloads import read_message, read_payload
    from xml_pipeline.cli.server import Server
    from xml_pipeline.cli.waiting import Waiting

    started = time.time()
    log_to_stderr(log_level)
    try:
        path, pump = load_organism(file)
        message = None
        if first is not None:
            target, text = first
            message = Message(target, read_payload(pump, target, read_message(text)))
    except CommandFailed as failed:
        if not (reload and is_successor()):
            raise
        waiting = Waiting(file, started, failed)
        code = run_coroutine(waiting.wait())
        hand_over(lambda: waiting.is_told)
        return code
    server = Server(path, timeout=timeout, first=message, watch_since=started if reload else None, mesh_url=mesh)

    def restart() -> None:
        if server.is_to_restart:
            hand_over(lambda: not server.is_to_restart)

    code = run_coroutine(server.serve(), quick=True, instead=restart)
    restart()
    return code
