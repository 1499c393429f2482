"""Waiting for a connection that was lost: what is to go out waits for it, as long as it may.

A handler that waits costs memory, and there may be very many before a deadline passes. So only so many may wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from xml_pipeline.mesh import ConnectionLost, MeshTimeout, Overloaded

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh

__all__ = ["MOST_WAITING", "until_connected"]

MOST_WAITING: Final = 1_000
"""Calls, puts and publications of one organism that may wait for the connection."""


async def until_connected(mesh: AgentMesh, deadline: float) -> None:
    """Return when there is a connection, at once if there is one.

    Args:
        mesh: whose.
        deadline: in the loop's time.

    Raises:
        MeshTimeout: there is none by then.
        Overloaded: too many wait for it already.
    """
    if mesh.is_connected:
        return
    if mesh.parts.link.waiting >= MOST_WAITING:
        raise Overloaded("There is no connection to the mesh, and too much waits for it.")
    try:
        await mesh.parts.link.wait_up(max(0.0, deadline - asyncio.get_running_loop().time()))
    except ConnectionLost as error:
        raise MeshTimeout(message="There was no connection to the mesh in time.") from error
