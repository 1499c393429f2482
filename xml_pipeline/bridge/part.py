"""What each entry of the ``mesh`` section becomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["Part"]


class Part(Protocol):
    """One entry, as long as it is in the configuration.

    It is made before anything happens, started when there is a mesh, and stopped when the entry is gone or the pump
    stops. One that is not started yet may be stopped too.
    """

    @property
    def listeners(self) -> Sequence[Listener]:
        """What it adds to the routing table."""
        ...

    async def start(self, mesh: AgentMesh) -> None:
        """Begin. What can fail for a while, such as an agent that is not there yet, is not a failure.

        Raises:
            MeshError: it cannot be done now; it may be called again.
        """
        ...

    async def refresh(self) -> None:
        """The organism's listeners may have changed."""
        ...

    async def stop(self, timeout: float) -> None:
        """Take nothing new in, and finish what was taken; the pump still runs.

        Args:
            timeout: seconds for that; what is left then is given up, and nothing that must not be lost is acknowledged.
        """
        ...
