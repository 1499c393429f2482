"""A runtime for systems of cooperating agents and tools."""

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
