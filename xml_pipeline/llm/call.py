"""`Call`: one call of a model on its way through the router."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xml_pipeline.llm.deadline import Deadline
from xml_pipeline.llm.estimate import prompt_tokens
from xml_pipeline.llm.request import LLMRequest
from xml_pipeline.llm.retry import Attempts
from xml_pipeline.llm.routed import RoutedBackend
from xml_pipeline.llm.turns import check_request

if TYPE_CHECKING:
    from xml_pipeline.llm.spending import Expense

__all__ = ["Call", "Caller", "least_tokens"]

_LEAST_PROMPT = 100


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a model is called.

    Args:
        agent_id: the listener that asks; ``None`` if nobody says.
        thread_id: its thread; ``None`` for calls that no budget pays.
        metadata: for subscribers to usage events.

    Raises:
        ValueError: one of them has the wrong type.
    """

    agent_id: str | None
    thread_id: str | None
    metadata: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        for name, value in (("agent_id", self.agent_id), ("thread_id", self.thread_id)):
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name} must be a text or None, not a {type(value).__name__}")
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            raise ValueError(f"metadata must be a mapping or None, not a {type(self.metadata).__name__}")


@dataclass(eq=False, slots=True)
class Call:
    """One call.

    Args:
        request: what is asked.
        caller: on whose behalf.
        tokens: what it is thought to use, its answer included only if ``max_tokens`` says how long that may be.
        deadline: until when.
        attempts: at which backends.
        conversation_id: whose budget pays; ``None`` for none.
        expense: what is reserved there.
        doing: what it is doing, for the text of an error.
        asked: the backend that is answering; ``None`` while there is none.
        is_settled: what it used is written down.
    """

    request: LLMRequest
    caller: Caller
    tokens: int
    deadline: Deadline
    attempts: Attempts
    conversation_id: str | None = None
    expense: Expense | None = None
    doing: str = "not begun yet"
    asked: RoutedBackend | None = None
    is_settled: bool = False


def least_tokens(request: LLMRequest) -> int:
    """What ``request`` is thought to use at least: a quarter of its characters, but 100, and ``max_tokens``.

    Raises:
        ValueError: the request is wrong; the text says where.
    """
    fault = check_request(request)
    if fault:
        raise ValueError(fault)
    try:
        prompt = prompt_tokens(request)
    except (ValueError, RecursionError):
        raise ValueError("tools and tool_calls must be such that JSON can be made of them") from None
    return max(_LEAST_PROMPT, prompt) + (request.max_tokens or 0)
