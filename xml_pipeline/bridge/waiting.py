"""What goes out waits: for its answer, and for a connection that was lost, as long as it may.

A handler that waits costs memory, and as it has lent its slot, there may be very many before a deadline passes: without
a connection, or while the server has one and does nothing. So each listener has a bound of its own, lest one that is
flooded takes the room of the others, and what waits for the connection has one in all.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Final

from xml_pipeline.mesh import ConnectionLost, MeshTimeout, Overloaded

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh

__all__ = ["MOST_UNDER_WAY", "MOST_WAITING", "UnderWay", "until_connected"]

MOST_UNDER_WAY: Final = 2_000
"""Calls of one agent, puts or publications of one entry, that may be under way at a time."""
MOST_WAITING: Final = 5_000
"""Calls, puts and publications of one organism that may wait for the connection."""


class UnderWay:
    """How much of one listener is under way; a context manager around each, that lets no more in than may be.

    Entering it raises `Overloaded` where so much is under way already.

    Attributes:
        number: how much is.
    """

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> None:
        if self.number >= MOST_UNDER_WAY:
            raise Overloaded("So much of this is under way already as may be.")
        self.number += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.number -= 1


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
