"""`Outward`: the part of an entry whose listener's messages leave the organism: as calls, as values, on subjects.

It brings nothing in. So there is nothing to begin and nothing to finish: it can be used as long as there is a mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from xml_pipeline.bridge.waiting import UnderWay
from xml_pipeline.errors import RoutingError

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["Outward"]


class Outward:
    """See `Part`. Whoever handles the listener's messages has one, and asks it for the mesh.

    Args:
        target: where its messages go, for errors.
        lending: what to enter while the mesh is waited for, so that others may use the slot.

    Attributes:
        listeners: what it adds to the routing table; set by whoever makes the listener.
        lending: see above.
        under_way: to be entered around each message.
    """

    def __init__(self, target: str, lending: Callable[[], AbstractContextManager[None]]) -> None:
        self.listeners: Sequence[Listener] = ()
        self.lending = lending
        self.under_way = UnderWay()
        self._target = target
        self._mesh: AgentMesh | None = None

    @property
    def mesh(self) -> AgentMesh:
        """Where messages go.

        Raises:
            RoutingError: the organism is not on the mesh.
        """
        if self._mesh is None:
            raise RoutingError("the mesh is not open", step="mesh", target=self._target)
        return self._mesh

    async def start(self, mesh: AgentMesh) -> None:
        """From now on it can be called."""
        self.open(mesh)

    def open(self, mesh: AgentMesh) -> None:
        """`start`, for whoever cannot wait."""
        self._mesh = mesh

    async def refresh(self) -> None:
        """Nothing of it depends on other listeners."""

    async def stop(self, timeout: float) -> None:
        """It brings nothing in; it can be called as long as there is a mesh."""
