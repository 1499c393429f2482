"""`Agent`: one agent as it was registered: what was said about it, its handler, and the contract made of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.contract import AgentContract
from xml_pipeline.mesh.shapes import Handler, read_handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.mesh.spec import AgentSpec

__all__ = ["Agent"]


@dataclass(frozen=True)
class Agent:
    """One agent of this mesh object.

    Args:
        spec: what its author said.
        handler: what its handler's signature says.
        contract: what others are told.
    """

    spec: AgentSpec
    handler: Handler
    contract: AgentContract

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @classmethod
    def of(cls, spec: AgentSpec, function: Callable[..., Any]) -> Agent:
        """Make it.

        Raises:
            TypeError: the function cannot be a handler; see `read_handler`.
        """
        handler = read_handler(function)
        shape = handler.shape
        returned = handler.output.json_schema() if handler.output is not None else None
        contract = AgentContract(
            name=spec.name,
            description=spec.description or handler.doc,
            version=spec.version,
            tags=list(spec.tags),
            invocable=shape.invocable,
            streaming=shape.streaming,
            input_schema=handler.input.json_schema() if handler.input is not None else None,
            output_schema=None if shape.streaming else returned,
            chunk_schema=returned if shape.streaming else None,
        )
        return cls(spec, handler, contract)
