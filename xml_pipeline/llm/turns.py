"""The messages of a request, checked and in one form, for the dialects to write in theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xml_pipeline.llm.errors import RequestRefused
from xml_pipeline.llm.request import LLMRequest, Tool, ToolCall

__all__ = ["Turn", "check_request", "turns_of"]

_ROLES: Final = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message.

    Args:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: its text; may be empty.
        tool_calls: what an assistant asked for.
        tool_call_id: which of them a tool answers.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


def turns_of(request: LLMRequest) -> list[Turn]:
    """The messages of ``request``, in order.

    Raises:
        RequestRefused: the request is not what `LLMRequest` says; nothing was sent.
    """
    fault = check_request(request)
    if fault:
        raise RequestRefused(f"the request is wrong: {fault}")
    return [_turn(message) for message in request.messages]


def check_request(request: LLMRequest) -> str:
    """What is wrong with ``request``; empty when nothing is."""
    return next(_faults(request), "")


def _faults(request: LLMRequest) -> Iterator[str]:
    if not isinstance(request.model, str) or not request.model:
        yield "model must be a name"
    if request.temperature is not None and not _is_number(request.temperature):
        yield f"temperature must be a number, not {_kind(request.temperature)}"
    if request.max_tokens is not None and (not _is_whole(request.max_tokens) or request.max_tokens < 1):
        yield "max_tokens must be a whole number of at least 1"
    if not _is_list(request.messages):
        yield f"messages must be a list, not {_kind(request.messages)}"
        return
    if not request.messages:
        yield "messages must not be empty"
    for number, message in enumerate(request.messages):
        yield from _message_faults(message, f"messages[{number}]")
    for number, tool in enumerate(request.tools or ()):
        if not isinstance(tool, Tool) or not isinstance(tool.parameters, Mapping):
            yield f"tools[{number}] must be a Tool with a mapping of parameters"


def _message_faults(message: Any, where: str) -> Iterator[str]:
    if not isinstance(message, Mapping):
        yield f"{where} must be a mapping, not {_kind(message)}"
        return
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        yield f"{where}: role must be one of {', '.join(_ROLES)}"
    if content is not None and not isinstance(content, str):
        yield f"{where}: content must be a text, not {_kind(content)}"
    calls = message.get("tool_calls") or ()
    if not _is_list(calls) or not all(isinstance(call, ToolCall) for call in calls):
        yield f"{where}: tool_calls must be a list of ToolCall"
    elif calls and role != "assistant":
        yield f"{where}: only an assistant has tool_calls"
    if role == "tool" and (not isinstance(message.get("tool_call_id"), str) or not message["tool_call_id"]):
        yield f"{where}: tool_call_id must name the call that is answered"


def _turn(message: Mapping[str, Any]) -> Turn:
    return Turn(
        message["role"],
        message.get("content") or "",
        tuple(message.get("tool_calls") or ()),
        message.get("tool_call_id") or "",
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
