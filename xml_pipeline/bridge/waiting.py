"""Waiting for a connection that was lost: what is to go out waits for it, as long as it may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xml_pipeline.mesh import ConnectionLost, MeshTimeout

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh

__all__ = ["until_connected"]


async def until_connected(mesh: AgentMesh, deadline: float) -> None:
    """Return when there is a connection, at once if there is one.

    Args:
        mesh: whose.
        deadline: in the loop's time.

    Raises:
        MeshTimeout: there is none by then.
    """
    if mesh.is_connected:
        return
    try:
        await mesh.parts.link.wait_up(max(0.0, deadline - asyncio.get_running_loop().time()))
    except ConnectionLost as error:
        raise MeshTimeout("There was no connection to the mesh in time.") from error
