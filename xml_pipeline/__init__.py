"""A runtime for systems of cooperating agents and tools."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xml_pipeline.message_bus.message_state import HandlerMetadata, HandlerResponse
    from xml_pipeline.message_bus.stream_pump import (
        AgentStateEvent,
        MessageReceivedEvent,
        MessageSentEvent,
        OutcomeEvent,
        PumpEvent,
        ReloadEvent,
        StreamPump,
        ThreadEvent,
        bootstrap,
    )

__version__ = "0.5.0"

__all__ = [
    "AgentStateEvent",
    "HandlerMetadata",
    "HandlerResponse",
    "MessageReceivedEvent",
    "MessageSentEvent",
    "OutcomeEvent",
    "PumpEvent",
    "ReloadEvent",
    "StreamPump",
    "ThreadEvent",
    "__version__",
    "bootstrap",
]

_STATE = "xml_pipeline.message_bus.message_state"
_PUMP = "xml_pipeline.message_bus.stream_pump"


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line answers ``--help`` without the engine."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_STATE if name in ("HandlerMetadata", "HandlerResponse") else _PUMP)
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
