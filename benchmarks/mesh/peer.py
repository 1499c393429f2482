"""What is measured of each of the three."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from benchmarks.mesh.models import Ask, Told

__all__ = ["Peer"]


class Peer(Protocol):
    """A host and a caller, connected."""

    async def call(self, ask: Ask) -> Told:
        """Ask the agent that answers at once."""
        ...

    async def call_slow(self, ask: Ask) -> Told:
        """Ask the agent that waits."""
        ...

    async def stream(self, ask: Ask) -> int:
        """Have as many chunks sent as the request says, and check each. Returns how many came."""
        ...

    async def put(self, key: str, value: Told) -> None:
        """Store."""
        ...

    def watch(self, pattern: str) -> AsyncGenerator[Told, None]:
        """What is stored under the keys, beginning with what is there."""
        ...

    async def close(self) -> None:
        """Disconnect both."""
        ...
