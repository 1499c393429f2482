"""How many tokens something is, where nobody says: a quarter of the characters.

A provider that sends no usage would otherwise cost nothing in every budget. What is estimated is marked as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from xml_pipeline.llm.request import LLMRequest, ToolCall

__all__ = ["completion_tokens", "prompt_tokens", "tokens", "usage_of"]


def tokens(characters: int) -> int:
    """A quarter of ``characters``, rounded up."""
    return -(-characters // 4)


def prompt_tokens(request: LLMRequest) -> int:
    """About how many tokens ``request`` is: its messages and tools."""
    total = sum(len(tool.name) + len(tool.description) + _written(tool.parameters) for tool in request.tools or ())
    for message in request.messages:
        total += len(message.get("content") or "") + _calls(message.get("tool_calls") or ())
    return tokens(total)


def completion_tokens(content: str, tool_calls: Iterable[ToolCall] = ()) -> int:
    """About how many tokens an answer is."""
    return tokens(len(content) + _calls(tool_calls))


def usage_of(prompt: int | None, completion: int | None, request: LLMRequest, answer: int) -> dict[str, int]:
    """The usage of a call.

    Args:
        prompt: tokens of the request, as the provider says; ``None`` if it does not.
        completion: tokens of the answer; likewise.
        request: what was asked.
        answer: tokens of the answer, estimated.

    Returns:
        ``prompt_tokens``, ``completion_tokens``, ``total_tokens``; and ``estimated``, 1, if any of it is.
    """
    said = prompt is not None and completion is not None
    first = prompt_tokens(request) if prompt is None else prompt
    second = answer if completion is None else completion
    usage = {"prompt_tokens": first, "completion_tokens": second, "total_tokens": first + second}
    return usage if said else {**usage, "estimated": 1}


def _calls(tool_calls: Iterable[ToolCall]) -> int:
    return sum(len(call.name) + _written(call.arguments) for call in tool_calls)


def _written(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, default=str))
