"""The steps of a script, and how they are written in YAML."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from xml_pipeline.config.problems import Hints, InvalidConfiguration, KeyPath, Problem
from xml_pipeline.llm.errors import BackendError, MalformedResponse, ProviderError, RateLimitError, RequestRefused
from xml_pipeline.llm.request import LLMRequest, LLMResponse, ToolCall

__all__ = ["Answer", "Step", "script_from", "step_of"]

Answer = (
    str
    | ToolCall
    | Sequence[ToolCall]
    | LLMResponse
    | BackendError
    | Callable[[LLMRequest], "Answer | Step | Awaitable[Answer | Step]"]
)
"""What can stand in a script in place of a `Step`."""

_KEYS: Final = ("text", "tool", "arguments", "tools", "error", "retry_after", "when", "usage")
_USAGE: Final = ("prompt_tokens", "completion_tokens")
_ERRORS: Final[dict[str, Callable[[float | None], BackendError]]] = {
    "rate_limit": lambda after: RateLimitError("scripted: too many requests", after),
    "provider": lambda after: ProviderError("scripted: the provider failed", 503, after),
    "refused": lambda after: RequestRefused("scripted: the request is refused", 400),
    "malformed": lambda after: MalformedResponse("Malformed response: scripted"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step of a script: what a model says to one request.

    Args:
        text: what it says.
        tool_calls: what it asks for; those without an id are given one.
        error: what is raised instead.
        answer: what finds the answer when the request is there.
        response: the whole answer, as it is.
        when: only for a request whose last message has this text in it; empty for any.
        usage: tokens of request and answer; ``None`` for a quarter of the characters.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    error: BackendError | None = None
    answer: Callable[[LLMRequest], Any] | None = None
    response: LLMResponse | None = None
    when: str = ""
    usage: tuple[int | None, int | None] = (None, None)


def step_of(value: Any) -> Step:
    """``value`` as a step.

    Args:
        value: see `ScriptedBackend`.

    Raises:
        TypeError: it is nothing that a step can be made of.
    """
    if isinstance(value, Step):
        return value
    if isinstance(value, str):
        return Step(text=value)
    if isinstance(value, ToolCall):
        return Step(tool_calls=(value,))
    if isinstance(value, LLMResponse):
        return Step(response=value)
    if isinstance(value, BackendError):
        return Step(error=value)
    if isinstance(value, list | tuple) and value and all(isinstance(each, ToolCall) for each in value):
        return Step(tool_calls=tuple(value))
    if callable(value) and not isinstance(value, type):
        return Step(answer=value)
    raise TypeError(
        "a step of a script is a text, a ToolCall or a list of them, an LLMResponse, a BackendError, a function of the "
        f"request, or a Step, not a {type(value).__name__}"
    )


def script_from(entries: Any) -> list[Step]:
    """The script that stands in YAML.

    ::

        script:
          - text: Hello
          - tool: search
            arguments: {q: trains}
          - text: Let me see                             # text and tools in one answer
            tools:
              - {tool: search, arguments: {q: trains}}
              - {tool: search, arguments: {q: buses}}
          - {error: rate_limit, retry_after: 2}          # or provider, refused, malformed
          - {when: weather, text: It rains}              # for a request whose last message has this text in it
            usage: {prompt_tokens: 10, completion_tokens: 3}

    Args:
        entries: the list, as YAML or JSON has it; a step may also be just a text.

    Raises:
        InvalidConfiguration: everything that is wrong with it, with places that begin with ``script``.
    """
    if not isinstance(entries, list | tuple):
        raise InvalidConfiguration([Problem("must be a list of steps", ("script",))])
    hints = Hints()
    problems = [
        problem for number, entry in enumerate(entries) for problem in _problems(entry, ("script", number), hints)
    ]
    if problems:
        raise InvalidConfiguration(problems)
    return [_step(entry) for entry in entries]


def _step(entry: Any) -> Step:
    if isinstance(entry, str):
        return Step(text=entry)
    after = entry.get("retry_after")
    usage = entry.get("usage") or {}
    return Step(
        text=entry.get("text", ""),
        tool_calls=tuple(
            ToolCall("", tool["tool"], tool.get("arguments") or {})
            for tool in ([entry] if "tool" in entry else entry.get("tools", ()))
        ),
        error=_ERRORS[entry["error"]](None if after is None else float(after)) if "error" in entry else None,
        when=entry.get("when", ""),
        usage=cast("tuple[int | None, int | None]", tuple(usage.get(key) for key in _USAGE)),
    )


# -- what is wrong ------------------------------------------------------------------------------------------------


def _problems(entry: Any, path: KeyPath, hints: Hints) -> Iterator[Problem]:
    if isinstance(entry, str):
        return
    if not isinstance(entry, Mapping):
        yield Problem("must be a text, or a mapping with text, tool, tools or error", path)
        return
    for key in entry:
        if key not in _KEYS:
            yield Problem(f"unknown key{hints.did_you_mean(str(key), _KEYS, 'script')}", (*path, str(key)), at_key=True)
    if not any(key in entry for key in ("text", "tool", "tools", "error")):
        yield Problem("says nothing: give text, tool, tools or error", path)
    for key in ("text", "when"):
        if key in entry and not isinstance(entry[key], str):
            yield Problem("must be a text", (*path, key))
    if entry.get("when") == "":
        yield Problem("must not be empty; leave it out for any request", (*path, "when"))
    yield from _error_problems(entry, path, hints)
    yield from _all_tool_problems(entry, path, hints)
    if "usage" in entry:
        yield from _usage_problems(entry["usage"], (*path, "usage"), hints)


def _error_problems(entry: Mapping[str, Any], path: KeyPath, hints: Hints) -> Iterator[Problem]:
    error = entry.get("error")
    if "error" in entry:
        if not isinstance(error, str) or error not in _ERRORS:
            near = hints.did_you_mean(error, _ERRORS, "error") if isinstance(error, str) else ""
            yield Problem(f"must be one of {', '.join(_ERRORS)}{near}", (*path, "error"))
        for key in ("text", "tool", "tools", "usage"):
            if key in entry:
                yield Problem("an error has no answer beside it", (*path, key), at_key=True)
    if "retry_after" in entry:
        if error not in ("rate_limit", "provider"):
            yield Problem("is for the errors rate_limit and provider", (*path, "retry_after"), at_key=True)
        after = entry["retry_after"]
        if isinstance(after, bool) or not isinstance(after, int | float) or not 0 <= after < float("inf"):
            yield Problem("must be a number of seconds, 0 or more", (*path, "retry_after"))


def _all_tool_problems(entry: Mapping[str, Any], path: KeyPath, hints: Hints) -> Iterator[Problem]:
    if "tool" in entry:
        yield from _tool_problems(entry, path)
        if "tools" in entry:
            yield Problem("give tool or tools, not both", (*path, "tools"), at_key=True)
        return
    if "arguments" in entry:
        yield Problem("are for a tool, and none is named", (*path, "arguments"), at_key=True)
    if "tools" not in entry:
        return
    tools = entry["tools"]
    if not isinstance(tools, list | tuple) or not tools:
        yield Problem("must be a list of mappings with tool and arguments", (*path, "tools"))
        return
    for number, tool in enumerate(tools):
        where = (*path, "tools", number)
        if not isinstance(tool, Mapping):
            yield Problem("must be a mapping with tool and arguments", where)
            continue
        for key in tool:
            if key not in ("tool", "arguments"):
                near = hints.did_you_mean(str(key), ("tool", "arguments"), "tool")
                yield Problem(f"unknown key{near}", (*where, str(key)), at_key=True)
        yield from _tool_problems(tool, where)


def _tool_problems(tool: Mapping[str, Any], path: KeyPath) -> Iterator[Problem]:
    if not isinstance(tool.get("tool"), str) or not tool["tool"]:
        yield Problem("must be the name of a tool", (*path, "tool"))
    arguments = tool.get("arguments")
    if arguments is not None and not _is_json_object(arguments):
        yield Problem("must be a mapping that JSON can carry", (*path, "arguments"))


def _is_json_object(value: Any) -> bool:
    try:
        return isinstance(value, dict) and json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        return False


def _usage_problems(usage: Any, path: KeyPath, hints: Hints) -> Iterator[Problem]:
    if not isinstance(usage, Mapping):
        yield Problem("must be a mapping with prompt_tokens and completion_tokens", path)
        return
    for key, value in usage.items():
        if key not in _USAGE:
            near = hints.did_you_mean(str(key), _USAGE, "usage")
            yield Problem(f"unknown key{near}", (*path, str(key)), at_key=True)
        elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
            yield Problem("must be a whole number, 0 or more", (*path, str(key)))
