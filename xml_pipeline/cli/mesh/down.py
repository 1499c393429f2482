"""``xml-pipeline mesh down``."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from xml_pipeline.cli.console import print_json, say
from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.options import JsonFlag, seconds

if TYPE_CHECKING:
    from xml_pipeline.cli.mesh.state import Record, StateFolder

__all__ = ["down"]

_KILL = 5.0


def down(
    timeout: Annotated[
        float,
        typer.Option("--timeout", "-t", metavar="SECONDS", parser=seconds, help="Seconds to end by itself."),
    ] = 15.0,
    json: JsonFlag = False,
) -> int:
    """Stop the mesh that `mesh up` has started; its files are kept.

    It is told to end, and killed if it does not. The .oam-url it wrote is removed, if nobody has changed it. After a
    crash, this removes what was left.

    \b
    Examples:
      xml-pipeline mesh down
      xml-pipeline mesh down --timeout 60
    """
    from xml_pipeline.cli.mesh.state import StateFolder

    state = StateFolder()
    record = state.record()
    if record is None:
        raise CommandFailed("error: no mesh is up; to start one: xml-pipeline mesh up")
    how = _stop(record, state, timeout)
    if json:
        print_json({"url": record.url, "pid": record.supervisor.pid, "ended": how})
    else:
        words = {"told": "was stopped", "killed": "had to be killed", "gone": "had ended already; what it left is gone"}
        say(f"the mesh at {record.url or 'an unknown port'} (process {record.supervisor.pid}) {words[how]}")
    return Exit.OK


def _stop(record: Record, state: StateFolder, timeout: float) -> str:
    """Returns how it ended: ``told``, ``killed``, or ``gone`` before."""
    from xml_pipeline.cli.mesh.remains import clear_remains

    process = record.supervisor
    try:
        how = "told" if process.signal(signal.SIGTERM) else "gone"
        if not process.wait(timeout):
            process.signal(signal.SIGKILL)
            how = "killed"
            if not process.wait(_KILL):
                raise CommandFailed(f"error: process {process.pid} does not end, not even killed")
    except PermissionError:
        raise CommandFailed(f"error: process {process.pid} belongs to another user") from None
    left = state.record()
    if left is not None and left.supervisor == process:  # it did not come to removing it
        clear_remains(left, state)
    return how
