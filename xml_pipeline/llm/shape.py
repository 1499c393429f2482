"""Reads a provider's JSON, and says where it is not what the protocol prescribes.

Values are never quoted: they may be of any size, and may repeat what was sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from xml_pipeline.llm.errors import MalformedResponse
from xml_pipeline.llm.request import MAX_RESPONSE_CONTENT, ToolCall

__all__ = ["UNREADABLE", "Shape", "arguments_of", "cut", "read_json", "tool_call", "well_formed"]

UNREADABLE: Final = object()
"""What `read_json` returns for what is no JSON."""

_MOST_TOKENS: Final = 10**12
"""More than this is no count of tokens, and would ruin every sum."""
_DEEPEST: Final = 100
"""Levels of a tool's arguments; as many as XML elements may have (`max_element_depth`)."""


def read_json(data: bytes | str) -> Any:
    """``data`` as JSON; `UNREADABLE` if it is none, or nested too deep, or has numbers that JSON does not know.

    It does not raise: the library's exception holds the whole text.
    """
    try:
        return json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return UNREADABLE


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


class Shape:
    """Reads the documents of one provider.

    Args:
        source: whose documents these are, for the texts.
        what: what they are.
    """

    __slots__ = ("_source", "_what")

    def __init__(self, source: str, what: str = "response") -> None:
        self._source = source
        self._what = what

    def fail(self, text: str) -> NoReturn:
        """Raise `MalformedResponse`."""
        raise MalformedResponse(f"Malformed {self._what} of {self._source}: {text}")

    def json(self, data: bytes | str, where: str = "the body") -> Mapping[str, Any]:
        """``data`` as a JSON object."""
        document = read_json(data)
        if document is UNREADABLE:
            self.fail(f"{where} is no JSON")
        return self.mapping(document, where)

    def mapping(self, value: Any, where: str) -> Mapping[str, Any]:
        """``value`` if it is an object."""
        if not isinstance(value, dict):
            self._wrong(value, where, "an object")
        return value

    def sequence(self, value: Any, where: str) -> list[Any]:
        """``value`` if it is a list."""
        if not isinstance(value, list):
            self._wrong(value, where, "a list")
        return value

    def text(self, value: Any, where: str) -> str:
        """``value`` if it is a text; lone surrogates, which no text can carry, are replaced."""
        if not isinstance(value, str):
            self._wrong(value, where, "a text")
        return well_formed(value)

    def text_or_nothing(self, value: Any, where: str) -> str:
        """``value`` if it is a text, an empty one if it is null or missing."""
        return "" if value is None else self.text(value, where)

    def count(self, value: Any, where: str) -> int | None:
        """``value`` if it is a number of tokens; ``None`` if it is null or missing."""
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong(value, where, "a whole number")
        if not 0 <= value <= _MOST_TOKENS:
            self.fail(f"{where} is no possible number of tokens")
        return int(value)

    def _wrong(self, value: Any, where: str, expected: str) -> NoReturn:
        self.fail(f"{where} is {_kind(value)}" if value is None else f"{where} is {_kind(value)}, not {expected}")


def _kind(value: Any) -> str:
    if value is None:
        return "missing or null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


def well_formed(text: str) -> str:
    """``text`` with U+FFFD for every lone surrogate: half a character, which JSON can write and UTF-8 cannot."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def cut(text: str) -> tuple[str, bool]:
    """The first `MAX_RESPONSE_CONTENT` characters, and whether there were more."""
    return text[:MAX_RESPONSE_CONTENT], len(text) > MAX_RESPONSE_CONTENT


def arguments_of(call_id: str, name: str, written: str) -> ToolCall:
    """A tool call whose arguments a model wrote as JSON; what cannot be read is the model's fault and is told to it.

    Args:
        call_id: the provider's id.
        name: the tool's.
        written: the JSON; empty for no arguments.
    """
    arguments = read_json(written) if written.strip() else {}
    if arguments is UNREADABLE:
        return ToolCall(call_id, name, {}, "the arguments are no JSON")
    if not isinstance(arguments, dict):
        return ToolCall(call_id, name, {}, f"the arguments are {_kind(arguments)}, not an object")
    return tool_call(call_id, name, arguments)


def tool_call(call_id: str, name: str, arguments: dict[str, Any]) -> ToolCall:
    """A tool call, if its arguments are such that they can be handed on; else one with a fault."""
    fault = _unusable(arguments)
    return ToolCall(call_id, name, {}, fault) if fault else ToolCall(call_id, name, arguments)


def _unusable(arguments: Any) -> str:
    """Why JSON that can be read cannot be used; empty when it can."""
    level: list[Any] = [arguments]
    for _ in range(_DEEPEST):
        texts = [value for value in level if isinstance(value, str)]
        if any(well_formed(text) != text for text in texts):
            return "the arguments have half a character (a lone surrogate)"
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in ([*value, *value.values()] if isinstance(value, dict) else value)
        ]
        if not level:
            return ""
    return f"the arguments are nested deeper than {_DEEPEST} levels"
