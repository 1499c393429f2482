"""An agent's contract as a tool that a model can be given, and the arguments it gives as a payload for the agent.

What the providers demand of a tool, and what is done about it:

* A name of 1 to 64 letters, digits, ``_`` and ``-``: the dots of an agent's name become ``_``.
* Arguments are an object, said with ``"type": "object"`` at the top, with no reference and no choice there. A reference
  at the top, as a recursive model has one, is replaced by what it refers to. Any other input (a number, a list, one of
  several models) becomes the one property ``value`` of an object; `payload_of` takes it out again.
* OpenAI's strict tools know a part of JSON Schema only: see `strict_schema`.
* Anthropic's keys, at the top, have 1 to 64 letters, digits, ``_``, ``.`` and ``-``. Others cannot be renamed behind
  the agent's back, so an agent that has them is no tool there.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any, Literal

from xml_pipeline.mesh.strict_schema import referred, strict_schema, without_fillers

__all__ = ["anthropic_tool", "openai_tool", "payload_of", "tool_schema"]

_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ANTHROPIC_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# What may not stand at the top, next to the type; pydantic and others write it there for all that is no plain object.
_NOT_AT_THE_TOP = ("$ref", "anyOf", "oneOf", "allOf", "not", "enum", "const")
_VALUE = "value"

Schema = dict[str, Any]


def tool_schema(name: str, description: str, input_schema: Schema | None, output_schema: Schema | None) -> Schema:
    """Name, description and input schema.

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
    returned = ", ".join(_properties(_at_the_top(output_schema or {})))
    return {
        "name": tool_name,
        "description": f"{description}\nReturns: {returned}." if returned else description,
        "input_schema": _arguments(input_schema),
    }


def _properties(schema: Schema) -> Schema:
    found = schema.get("properties", {})
    if not isinstance(found, dict):
        raise ValueError(f"the properties of a schema are an object, not {type(found).__name__}")
    return found


def _at_the_top(schema: Schema) -> Schema:
    """The schema, with what it refers to in the place of a reference at its top."""
    if "$ref" not in schema:
        return schema
    rest = {word: value for word, value in schema.items() if word != "$ref"}
    return {**referred(schema, schema), **rest}


def _is_object(schema: Schema) -> bool:
    return schema.get("type") == "object" and not any(word in schema for word in _NOT_AT_THE_TOP)


def _arguments(schema: Schema | None) -> Schema:
    if not schema:
        return {"type": "object", "properties": {}}
    found = copy.deepcopy(_at_the_top(schema))
    if _is_object(found):
        _properties(found)
        return found
    value = copy.deepcopy(schema)
    wrapped: Schema = {"type": "object", "properties": {_VALUE: value}, "required": [_VALUE]}
    if definitions := value.pop("$defs", None):
        wrapped["$defs"] = definitions
    return wrapped


def openai_tool(schema: Schema, api: Literal["chat", "responses"], strict: bool) -> Schema:
    """The same in one of OpenAI's formats.

    Args:
        schema: from `tool_schema`.
        api: nested for ``chat``, flat for ``responses``.
        strict: in the part of JSON Schema that strict tools know.

    Raises:
        ValueError: ``strict``, and the input cannot be said in that part.
    """
    function: Schema = {
        "name": schema["name"],
        "description": schema["description"],
        "parameters": strict_schema(schema["input_schema"]) if strict else schema["input_schema"],
    }
    if strict:
        function["strict"] = True
    if api == "chat":
        return {"type": "function", "function": function}
    # Here a tool is strict unless it says that it is not.
    return {"type": "function", **function, "strict": strict}


def anthropic_tool(schema: Schema) -> Schema:
    """The same in Anthropic's format.

    Args:
        schema: from `tool_schema`.

    Raises:
        ValueError: a property has a name that is not taken there.
    """
    wrong = [key for key in _properties(schema["input_schema"]) if not _ANTHROPIC_KEY.fullmatch(key)]
    if wrong:
        raise ValueError(
            f"{schema['name']!r} cannot be a tool of Anthropic's API: {wrong[0]!r} is no name for a property there "
            "(1 to 64 letters, digits, '_', '.' and '-')"
        )
    return schema


def payload_of(arguments: dict[str, Any] | str, input_schema: Schema | None) -> Any:
    """What the agent is to be called with, of the arguments that a model gave to its tool.

    Args:
        arguments: as the provider hands them out: an object, or its JSON.
        input_schema: that of the contract.

    Returns:
        The payload: the arguments, or the value that they stand for; without the ``null`` that a strict tool makes a
        model give for what it would leave out, where the agent takes no ``null``.

    Raises:
        ValueError: the arguments are no JSON object, or the one that is needed is missing.
    """
    found = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    if not isinstance(found, dict):
        raise ValueError(f"the arguments of a tool are an object, not {type(found).__name__}")
    if not input_schema:
        return found
    top = _at_the_top(input_schema)
    if _is_object(top):
        return without_fillers(found, top, input_schema)
    if _VALUE not in found:
        raise ValueError(f"the arguments of this tool must have {_VALUE!r}")
    return without_fillers(found[_VALUE], input_schema, input_schema)
