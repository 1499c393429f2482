"""What a mesh leaves behind whose process was killed: a server that is about to end, a record, a ``.oam-url``."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xml_pipeline.cli.exits import CommandFailed

if TYPE_CHECKING:
    from xml_pipeline.cli.mesh.state import Record, StateFolder

__all__ = ["clear_remains", "server_ended"]

_GUARD: Final = 8.0
"""Seconds in which the server's guard, which has noticed, stops the server; see `xml_pipeline.mesh.server_guard`."""
_KILL: Final = 5.0
_LOOK: Final = 0.02


async def server_ended(record: Record) -> None:
    """Wait for the end of the server for as long as `clear_remains` does, but let others go on meanwhile."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _GUARD
    while record.server is not None and record.server.is_alive and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK)  # nobody tells: it is not our child


def clear_remains(record: Record, state: StateFolder) -> str:
    """Wait for the end of the server, or bring it about; remove the record, and the ``.oam-url`` if it is unchanged.

    Args:
        record: of a supervisor that has ended.
        state: where it is.

    Returns:
        What was done, in one line.

    Raises:
        CommandFailed: the server does not end.
    """
    from xml_pipeline.mesh.pointer import remove_pointer

    server = record.server
    if server is not None and not server.wait(_GUARD):
        server.signal(signal.SIGKILL)
        if not server.wait(_KILL):
            raise CommandFailed(f"error: the nats-server of a mesh before, process {server.pid}, does not end")
    if record.pointer:
        remove_pointer(Path(record.pointer), record.url)
    state.forget()
    return f"the mesh at {record.url or 'an unknown port'} had ended without being told to; what it left was removed"
