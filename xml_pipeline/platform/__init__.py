"""What the platform does for agents: it keeps their prompts, calls models on their behalf, and is the handler of those
that have none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xml_pipeline.platform.agent_prompt import AgentPrompt
from xml_pipeline.platform.llm_api import complete, messages_for, platform_complete
from xml_pipeline.platform.prompt_registry import PromptRegistry, get_prompt_registry

if TYPE_CHECKING:
    from xml_pipeline.platform.model_agent import ModelAgent

__all__ = [
    "AgentPrompt",
    "ModelAgent",
    "PromptRegistry",
    "complete",
    "get_prompt_registry",
    "messages_for",
    "platform_complete",
]


def __getattr__(name: str) -> Any:
    """Import `ModelAgent` when it is first used: organisms that call no model do not load it."""
    if name != "ModelAgent":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from xml_pipeline.platform.model_agent import ModelAgent

    return ModelAgent
