"""`Agent`: one agent as it was registered: what was said about it, its handler, and the contract made of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.conditions import check_condition
from xml_pipeline.mesh.contract import AgentContract
from xml_pipeline.mesh.shapes import Handler, read_handler
from xml_pipeline.mesh.sources import check_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xml_pipeline.mesh.conditions import Condition, KVCondition, SubjectCondition
    from xml_pipeline.mesh.sources import Source
    from xml_pipeline.mesh.spec import AgentSpec

__all__ = ["Agent"]


@dataclass(frozen=True)
class Agent:
    """One agent of this mesh object.

    Args:
        spec: what its author said.
        handler: what its handler's signature says.
        contract: what others are told.
        sources: what calls its handler, beside those who ask.
        condition: when it serves; ``None`` for always.
    """

    spec: AgentSpec
    handler: Handler
    contract: AgentContract
    sources: tuple[Source, ...] = ()
    condition: KVCondition | SubjectCondition | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @classmethod
    def of(
        cls,
        spec: AgentSpec,
        function: Callable[..., Any],
        *,
        sources: Iterable[Source] | None = None,
        active_when: Condition | None = None,
        mcp: bool | None = None,
    ) -> Agent:
        """Make it. What the arguments are: see `AgentMesh.agent`.

        Raises:
            TypeError: the function cannot be a handler, see `read_handler`, or not with these sources, see
                `check_sources`, or the condition is none.
        """
        handler = read_handler(function)
        found = check_sources(sources, handler)
        condition = check_condition(active_when)
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
            mcp=mcp,
        )
        return cls(spec, handler, contract, found, condition)
