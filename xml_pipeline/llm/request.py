"""What is asked of a model, and what comes back: the records that router and backends share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["MAX_RESPONSE_CONTENT", "LLMChunk", "LLMRequest", "LLMResponse", "Tool", "ToolCall"]

MAX_RESPONSE_CONTENT: Final = 1_048_576
"""Characters of an answer's text; what is longer is cut, and its ``finish_reason`` is ``length``."""

_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that the model may ask for.

    Args:
        name: ``[A-Za-z0-9_-]{1,64}``, which every provider accepts.
        description: told to the model.
        parameters: JSON Schema of an object, its arguments.

    Raises:
        ValueError: the name is another one.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _TOOL_NAME.fullmatch(self.name):
            raise ValueError(f"a tool's name has 1 to 64 of the characters A-Z a-z 0-9 _ -, unlike {self.name!r:.80}")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool.

    Args:
        id: the provider's; the message that brings the result names it.
        name: the tool's.
        arguments: the JSON object that the model wrote; empty when it could not be read, and then `fault` says why.
        fault: why the arguments could not be read; empty when they could.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True, slots=True)
class LLMRequest:
    """One call of a model.

    Args:
        messages: mappings with ``role`` (``system``, ``user``, ``assistant``, ``tool``) and ``content`` (text). An
            assistant's message may have ``tool_calls``, a sequence of `ToolCall`; a tool's message has
            ``tool_call_id``.
        model: the model's name.
        temperature: default 0.7; ``None`` for the provider's default. Models that refuse one are sent none.
        max_tokens: of the answer; ``None`` for the provider's default.
        tools: what the model may ask for; ``None`` for nothing.
        stream: the answer is wanted piece by piece.
    """

    messages: Sequence[Mapping[str, Any]]
    model: str
    temperature: float | None = 0.7
    max_tokens: int | None = None
    tools: Sequence[Tool] | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True)
class LLMResponse:
    """A model's answer.

    Args:
        content: its text, at most `MAX_RESPONSE_CONTENT` characters; empty when it only asks for tools.
        model: the model that answered, as the provider names it.
        usage: ``prompt_tokens``, ``completion_tokens`` and ``total_tokens``; and ``estimated``, 1, when the provider
            did not say, and they are counted as a quarter of the characters.
        finish_reason: ``stop``, ``length``, ``tool_calls`` or what else the provider says.
        raw: the provider's own document; ``None`` when the answer was streamed.
        tool_calls: what it asks for.
    """

    content: str
    model: str
    usage: Mapping[str, int]
    finish_reason: str
    raw: Any = field(default=None, repr=False)
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class LLMChunk:
    """A piece of a streamed answer; the last one carries the whole as ``response``.

    Args:
        text: the text that is new in this piece.
        response: on the last piece: everything put together, with usage and tool calls.
    """

    text: str = ""
    response: LLMResponse | None = None
