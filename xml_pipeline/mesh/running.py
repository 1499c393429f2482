"""Running a mesh object as a program: until SIGTERM or SIGINT, then draining."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml_pipeline.mesh.mesh import AgentMesh

__all__ = ["serve_until_told"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def serve_until_told(mesh: AgentMesh) -> None:
    """Serve until the first SIGINT or SIGTERM, then finish what runs and leave; a second one ends the process.

    Args:
        mesh: not entered yet.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell() -> None:
        told.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)  # the next one does what it does by default

    # Not in a thread other than the main one, and not on every system: there, Ctrl-C cancels.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        for number in _SIGNALS:
            loop.add_signal_handler(number, tell)
    try:
        async with mesh:
            await told.wait()
    finally:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
