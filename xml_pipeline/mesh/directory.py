"""`Directory`: what is known of an agent that is to be used: our own first, then the catalog, then the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import MeshError, NotAvailable, NotFound
from xml_pipeline.mesh.preflight import Verb, mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.catalog import Catalog
    from xml_pipeline.mesh.contract import AgentContract
    from xml_pipeline.mesh.registry import Registry

__all__ = ["Directory"]


class Directory:
    """Looks agents up.

    Args:
        own: the agents of this mesh object, by name; read whenever it is asked.
        catalog: what others offer.
        registry: their contracts.
    """

    def __init__(self, own: Mapping[str, Agent], catalog: Catalog, registry: Registry) -> None:
        self._own = own
        self._catalog = catalog
        self._registry = registry

    def check(self, verb: Verb, name: str) -> None:
        """Refuse what is known to go wrong; an agent that is not known passes.

        Raises:
            InvocationMismatch: the agent is not used in this way.
        """
        own = self._own.get(name)
        known = own.contract if own is not None else self._catalog.entry(name)
        if known is not None and (wrong := mismatch(verb, name, known.invocable, known.streaming)) is not None:
            raise wrong

    def absent(self, name: str, request_id: str = "") -> MeshError:
        """The error for an agent that nobody serves at the moment."""
        if name in self._own or self._catalog.entry(name) is not None:
            return NotAvailable(
                f"Agent '{name}' is in the catalog, but nobody serves it now.", agent=name, request_id=request_id
            )
        return NotFound(f"There is no agent '{name}'.", agent=name, request_id=request_id)

    def may_return(self, name: str) -> bool:
        """Whether an agent that is not there was there a moment ago."""
        return self._catalog.may_return(name)

    async def must_exist(self, name: str) -> None:
        """Refuse a name that nobody has.

        Raises:
            NotFound: neither the catalog nor the registry knows it.
        """
        if name not in self._own and self._catalog.entry(name) is None:
            await self._registry.get(name)

    async def contract(self, name: str) -> AgentContract:
        """The agent's contract.

        Raises:
            NotFound: there is no such agent.
            InvalidReply: its contract cannot be read.
        """
        own = self._own.get(name)
        return own.contract if own is not None else await self._registry.get(name)
