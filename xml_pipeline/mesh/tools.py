"""An agent's contract as a tool that a model can be given."""

from __future__ import annotations

import copy
import re
from typing import Any, Literal

__all__ = ["openai_tool", "tool_schema"]

_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What strict tools may not say about a value.
_NOT_STRICT = (
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "default",
    "title",
)


def tool_schema(
    name: str, description: str, input_schema: dict[str, Any] | None, output_schema: dict[str, Any] | None
) -> dict[str, Any]:
    """Name, description and input schema, as the Anthropic format has them.

    Args:
        name: of the agent; its dots become ``_``.
        description: what it does; the names of what it returns are added.
        input_schema: JSON Schema of its input; ``None`` for an object without properties.
        output_schema: JSON Schema of what it returns.

    Raises:
        ValueError: no tool can have this name.
    """
    tool_name = name.replace(".", "_")
    if not _TOOL_NAME.fullmatch(tool_name):
        raise ValueError(f"{tool_name!r}, from the agent {name!r}, is too long for the name of a tool (64)")
    returned = ", ".join((output_schema or {}).get("properties", {}))
    return {
        "name": tool_name,
        "description": f"{description}\nReturns: {returned}." if returned else description,
        "input_schema": copy.deepcopy(input_schema) if input_schema else {"type": "object", "properties": {}},
    }


def openai_tool(schema: dict[str, Any], api: Literal["chat", "responses"], strict: bool) -> dict[str, Any]:
    """The same in one of OpenAI's formats.

    Args:
        schema: from `tool_schema`.
        api: nested for ``chat``, flat for ``responses``.
        strict: in the subset that strict tools allow: everything required, nothing else permitted, no limits.
    """
    parameters = copy.deepcopy(schema["input_schema"])
    function = {
        "name": schema["name"],
        "description": schema["description"],
        "parameters": _strict(parameters) if strict else parameters,
    }
    if strict:
        function["strict"] = True
    if api == "chat":
        return {"type": "function", "function": function}
    return {"type": "function", **function}


def _strict(node: dict[str, Any]) -> dict[str, Any]:
    for word in _NOT_STRICT:
        node.pop(word, None)
    for definition in node.get("$defs", {}).values():
        _strict(definition)
    for choice in node.get("anyOf", []):
        _strict(choice)
    if isinstance(items := node.get("items"), dict):
        _strict(items)
    if node.get("type") == "object" and "properties" in node:
        _strict_object(node)
    elif node.get("type") == "object":
        node.update(additionalProperties=False, properties={}, required=[])
    return node


def _strict_object(node: dict[str, Any]) -> None:
    properties: dict[str, dict[str, Any]] = node["properties"]
    required = node.get("required", [])
    for name, member in properties.items():
        _strict(member)
        kind = member.get("type")
        if name not in required and isinstance(kind, str) and kind != "null":
            member["type"] = [kind, "null"]
    node.update(additionalProperties=False, required=sorted(properties))
