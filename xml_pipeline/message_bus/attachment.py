"""`Attachment`: something that joins a pump to the world outside, and lives as long as the pump runs.

It is opened when the pump starts, and left before the pump drains, so that what came in through it is finished and
answered; it is closed when nothing runs any more that could need it. Its listeners come and go with the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from xml_pipeline.config import OrganismConfig
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["Attachment", "Change"]


class Change(Protocol):
    """What another configuration means for an attachment; nothing has happened yet."""

    @property
    def listeners(self) -> Sequence[Listener]:
        """The listeners that it has under the new configuration; those that did not change are the same objects."""
        ...

    def apply(self) -> None:
        """Put it into effect. The routing table has its listeners by now. Must not fail, and must not wait."""
        ...


class Attachment(Protocol):
    """What `StreamPump.attach` takes."""

    def plan(self, config: OrganismConfig) -> Change:
        """What this configuration means; the pump's first one included.

        Raises:
            ConfigurationError: it cannot be put into effect.
        """
        ...

    async def open(self) -> None:
        """The pump starts; its first change has been applied.

        Raises:
            Exception: it cannot; the pump does not start then.
        """
        ...

    async def quiesce(self, timeout: float) -> None:
        """Take nothing new in, and finish what came in. The pump still runs.

        Args:
            timeout: seconds for that; then what is left is given up.
        """
        ...

    async def close(self) -> None:
        """Nothing runs any more: let go of everything."""
        ...
