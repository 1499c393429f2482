"""Errors of one side as errors of the other.

=====================================  ==================  ==============================
on the mesh                            in the pump         from the pump to the mesh
=====================================  ==================  ==============================
``invalid_input payload_too_large``    `ValidationError`   ``invalid_input``
``not_found not_available``            `RoutingError`      ``handler_error``
``invocation_mismatch``
``connection_denied``
``timeout``                            `DeadlineExceeded`  ``timeout``
``overloaded``                         `Overloaded`        ``overloaded``
``cancelled``                          `Cancelled`         ``cancelled``
``agent_died connection_failed``       `NoAnswer`          ``no-answer``
anything else                          `HandlerError`      ``handler_error``
``budget hops``                        those               ``budget hops``
=====================================  ==================  ==============================

What an agent says in its error is for the operator: it is the ``detail``, which no handler sees. What a listener's
error is about stays here in the same way: the mesh gets its code and the public sentence.
"""

from __future__ import annotations

from typing import Final

from xml_pipeline.errors import (
    BudgetExhausted,
    ConversationCancelled,
    DeadlineExceeded,
    HandlerError,
    HopLimitError,
    NoAnswer,
    Overloaded,
    PipelineError,
    RoutingError,
    ValidationError,
)
from xml_pipeline.mesh import CallCancelled, InvalidInput, MeshError, MeshTimeout
from xml_pipeline.mesh import HandlerError as AgentFailed
from xml_pipeline.mesh import Overloaded as AgentOverloaded

__all__ = ["to_mesh", "to_pump"]

_TO_PUMP: Final[dict[str, type[PipelineError]]] = {
    "invalid_input": ValidationError,
    "payload_too_large": ValidationError,
    "not_found": RoutingError,
    "not_available": RoutingError,
    "invocation_mismatch": RoutingError,
    "connection_denied": RoutingError,
    "timeout": DeadlineExceeded,
    "overloaded": Overloaded,
    "cancelled": ConversationCancelled,
    "agent_died": NoAnswer,
    "connection_failed": NoAnswer,
    "no-answer": NoAnswer,
    "budget": BudgetExhausted,
    "hops": HopLimitError,
}
_TO_MESH: Final[dict[str, type[MeshError]]] = {
    "validation": InvalidInput,
    "timeout": MeshTimeout,
    "overloaded": AgentOverloaded,
    "cancelled": CallCancelled,
}
_KEPT: Final = frozenset({"no-answer", "budget", "hops"})


def to_pump(error: MeshError, target: str, kind: str = "agent") -> PipelineError:
    """What a failed call to an agent is for the listener that made it; a put and a publication likewise.

    Args:
        error: as the mesh raised it.
        target: who was called, or what was sent to.
        kind: what that is.
    """
    cls = _TO_PUMP.get(error.code, HandlerError)
    return cls(f"the {kind} {target!r} of the mesh: {error.code}: {error.message}", step="mesh", target=target)


def to_mesh(error: PipelineError) -> MeshError:
    """What a failed message is for whoever sent it over the mesh."""
    if error.code in _KEPT:
        return MeshError(error.code, str(error))
    cls = _TO_MESH.get(error.code, AgentFailed)
    return cls(message=str(error)) if cls is not AgentFailed else AgentFailed()
