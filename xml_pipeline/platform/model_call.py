"""`call_model`: a model call on behalf of an agent, through the router of its pump."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xml_pipeline.errors import BudgetExhausted

if TYPE_CHECKING:
    from xml_pipeline.llm import LLMResponse, Tool

__all__ = ["call_model"]


async def call_model(
    agent_name: str,
    thread_id: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    model: str = "",
    temperature: float | None = None,
    max_tokens: int | None = None,
    tools: Sequence[Tool] | None = None,
    metadata: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> LLMResponse:
    """Ask a model; the conversation of the thread pays.

    Args:
        agent_name: for whom.
        thread_id: the frame that asks.
        messages: see `LLMRequest`.
        model: its name; empty for the router's default.
        temperature: ``None`` for the provider's default.
        max_tokens: of the answer; ``None`` for the provider's default.
        tools: what the model may ask for.
        metadata: kept with the usage of this call.
        timeout: seconds with all attempts; default: the router's.

    Returns:
        The whole answer.

    Raises:
        BudgetExhausted: the conversation has no budget left for this call; no model was called.
        RuntimeError: there is no such model, or the call failed, which is then its cause. The text carries no key.
    """
    # Late, because it is of no use to organisms that call no model, and brings an HTTP client.
    from xml_pipeline.llm import get_router

    router = get_router()
    model = model or router.default_model
    if not model:
        raise RuntimeError(
            f"there is no model for agent {agent_name!r}: give one to this call, to its listener, or as llm.model to "
            "all agents"
        )
    try:
        return await router.complete(
            model,
            messages,
            temperature=temperature,
            max_tokens=max_tokens,
            tools=tools,
            agent_id=agent_name,
            thread_id=thread_id,
            metadata=metadata,
            timeout=timeout,
        )
    except BudgetExhausted:
        raise
    except Exception as exc:
        raise RuntimeError(f"the model call of agent {agent_name!r} failed: {_told(exc)}") from exc


def _told(exc: Exception) -> str:
    """What may be told of a failure. The router's own errors, a `ValueError` among them, have no keys in their texts;
    of others one cannot know."""
    known = isinstance(exc, ValueError) or type(exc).__module__.startswith("xml_pipeline.")
    return f"{type(exc).__name__}: {exc}" if known else type(exc).__name__
