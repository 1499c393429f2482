"""`Registry`: the contracts of all agents, one key each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xml_pipeline.mesh.contract import AgentContract
from xml_pipeline.mesh.errors import MeshError, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xml_pipeline.mesh.bucket import Bucket

__all__ = ["Registry"]

_AT_ONCE = 64


class Registry:
    """The contracts.

    Args:
        bucket: `bucket.REGISTRY`.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def put(self, contracts: Iterable[AgentContract]) -> None:
        """Store contracts; one that is there under the same name is replaced."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def put_one(contract: AgentContract) -> None:
            async with turns:
                await self._bucket.put(contract.name, contract.to_registry_json().encode())

        await asyncio.gather(*(put_one(contract) for contract in contracts))

    async def get(self, name: str) -> AgentContract:
        """The contract of an agent.

        Raises:
            NotFound: there is none.
            InvalidReply: what is there is no contract.
        """
        entry = await self._bucket.get(name)
        if entry is None:
            raise NotFound(f"There is no agent '{name}'.", agent=name)
        return AgentContract.from_registry_json(name, entry.value)

    async def get_all(self, names: Iterable[str]) -> list[AgentContract]:
        """The contracts of those of the agents that have one that can be read, in the order of their names given."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def get_one(name: str) -> AgentContract | None:
            async with turns:
                try:
                    return await self.get(name)
                except MeshError as error:
                    if error.code in ("not_found", "invalid_reply"):
                        return None
                    raise

        found = await asyncio.gather(*(get_one(name) for name in names))
        return [contract for contract in found if contract is not None]

    async def remove(self, names: Iterable[str]) -> None:
        """Delete contracts."""
        await asyncio.gather(*(self._bucket.delete(name) for name in names))
