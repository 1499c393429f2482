"""Starting the supervisor in the background, and waiting until it says how that went."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xml_pipeline.cli.exits import CommandFailed

if TYPE_CHECKING:
    from xml_pipeline.cli.mesh.supervisor import Order, Report

__all__ = ["launch"]

_PATIENCE: Final = 60.0
"""Seconds for a start. The server alone may take 20, and one before it that was killed about as long to end."""
_MOST_BYTES: Final = 65_536


def launch(order: Order, log: Path) -> Report:
    """Start it, in a session of its own, so that it outlives this command and its terminal.

    Args:
        order: what it is to start.
        log: a file that gets what it prints.

    Returns:
        Its report.

    Raises:
        CommandFailed: it ended, or went on for too long, without one.
    """
    told, status = os.pipe()
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("__main__.py")), order.text(), str(status)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(status,),
                start_new_session=True,
            )
        os.close(status)
        try:
            return _report(told, log)
        except BaseException:  # Ctrl-C too: nothing of what was not wanted stays
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            raise
    finally:
        os.close(told)


def _report(told: int, log: Path) -> Report:
    from xml_pipeline.cli.mesh.supervisor import Report

    text = b""
    deadline = time.monotonic() + _PATIENCE
    while not text.endswith(b"\n") and len(text) < _MOST_BYTES:
        if not select.select([told], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise CommandFailed(f"error: the mesh was not up after {_PATIENCE:g} s; see {log}")
        part = os.read(told, _MOST_BYTES)
        if not part:
            raise CommandFailed(f"error: the process that was to look after the mesh has ended; see {log}")
        text += part
    return Report.read(text.decode())
