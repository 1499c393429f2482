"""Model calls: a router, and the backends that it spreads calls over.

::

    router = configure_router({"backends": [{"provider": "anthropic", "api_key_env": "ANTHROPIC_API_KEY"}]})
    response = await complete("claude-sonnet-5", [{"role": "user", "content": "Hello"}])

Agents need none of this: they ask through `xml_pipeline.platform`, or are declared without a handler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from xml_pipeline.llm.anthropic import AnthropicBackend
    from xml_pipeline.llm.backend import Backend
    from xml_pipeline.llm.errors import (
        BackendError,
        MalformedResponse,
        ProviderError,
        RateLimitError,
        RealCallsForbidden,
        RequestRefused,
        ScriptExhausted,
    )
    from xml_pipeline.llm.factory import configure_router, make_backend, make_router
    from xml_pipeline.llm.openai_compatible import OpenAICompatibleBackend
    from xml_pipeline.llm.prices import Price, Prices, estimate_cost, get_prices
    from xml_pipeline.llm.pydantic_ai import PydanticAIBackend
    from xml_pipeline.llm.real_calls import forbid_real_calls
    from xml_pipeline.llm.request import LLMChunk, LLMRequest, LLMResponse, Tool, ToolCall
    from xml_pipeline.llm.router import LLMRouter, complete, get_router
    from xml_pipeline.llm.script import Step, script_from
    from xml_pipeline.llm.scripted import ScriptedBackend
    from xml_pipeline.llm.strategy import Strategy
    from xml_pipeline.llm.usage import UsageEvent, UsageTracker, get_usage_tracker, reset_usage_tracker

__all__ = [
    "AnthropicBackend",
    "Backend",
    "BackendError",
    "LLMChunk",
    "LLMRequest",
    "LLMResponse",
    "LLMRouter",
    "MalformedResponse",
    "OpenAICompatibleBackend",
    "Price",
    "Prices",
    "ProviderError",
    "PydanticAIBackend",
    "RateLimitError",
    "RealCallsForbidden",
    "RequestRefused",
    "ScriptExhausted",
    "ScriptedBackend",
    "Step",
    "Strategy",
    "Tool",
    "ToolCall",
    "UsageEvent",
    "UsageTracker",
    "complete",
    "configure_router",
    "estimate_cost",
    "forbid_real_calls",
    "get_prices",
    "get_router",
    "get_usage_tracker",
    "make_backend",
    "make_router",
    "reset_usage_tracker",
    "script_from",
]

_MODULES: Final = {
    "anthropic": ("AnthropicBackend",),
    "backend": ("Backend",),
    "errors": (
        "BackendError",
        "MalformedResponse",
        "ProviderError",
        "RateLimitError",
        "RealCallsForbidden",
        "RequestRefused",
        "ScriptExhausted",
    ),
    "factory": ("configure_router", "make_backend", "make_router"),
    "openai_compatible": ("OpenAICompatibleBackend",),
    "prices": ("Price", "Prices", "estimate_cost", "get_prices"),
    "pydantic_ai": ("PydanticAIBackend",),
    "real_calls": ("forbid_real_calls",),
    "request": ("LLMChunk", "LLMRequest", "LLMResponse", "Tool", "ToolCall"),
    "router": ("LLMRouter", "complete", "get_router"),
    "script": ("Step", "script_from"),
    "scripted": ("ScriptedBackend",),
    "strategy": ("Strategy",),
    "usage": ("UsageEvent", "UsageTracker", "get_usage_tracker", "reset_usage_tracker"),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: organisms that call no model load none of this."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
