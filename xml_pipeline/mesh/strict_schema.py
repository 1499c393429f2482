"""The part of JSON Schema that strict tools of OpenAI's APIs know, and any schema said in it as far as that goes.

There, every object lists its properties, requires all of them, and permits no others; what may be left out is ``null``
instead. A choice is an ``anyOf``, and not at the top; a reference has nothing beside it; every value has a type.

========================================== ============================================================================
In a schema                                in a strict one
========================================== ============================================================================
limits, formats, titles, defaults          left out: the agent checks its input anyway
a property that may be left out            a required one that may be ``null``; see `without_fillers`
``oneOf``; an ``allOf`` of one             ``anyOf``; what it has
``const``                                  an ``enum`` of one
``$ref`` with a description beside it      an ``anyOf`` of one, with the description
a tuple                                    an array of anything that the tuple has somewhere
keys besides those that are listed         not permitted
no key listed, any value, two ``allOf``    cannot be said: `ValueError`
========================================== ============================================================================
"""

from __future__ import annotations

import copy
import json
from typing import Any

__all__ = ["referred", "strict_schema", "without_fillers"]

Schema = dict[str, Any]

_NULL: Schema = {"type": "null"}
_DEFINITIONS = "#/$defs/"
_DEEPEST = 100


def referred(schema: Schema, root: Schema) -> Schema:
    """What a reference refers to.

    Args:
        schema: with a ``$ref``.
        root: the whole schema that it is in.

    Raises:
        ValueError: there is no such thing in it, or there are references in a circle.
    """
    seen: set[str] = set()
    while "$ref" in schema:
        reference = schema["$ref"]
        if not isinstance(reference, str) or reference in seen:
            raise ValueError(f"the reference {reference!r} of the schema leads nowhere")
        seen.add(reference)
        found: Any = root
        for part in reference.removeprefix("#").split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        if not reference.startswith("#") or not isinstance(found, dict):
            raise ValueError(f"the reference {reference!r} of the schema leads nowhere")
        schema = found
    return schema


def strict_schema(schema: Schema) -> Schema:
    """The same in the strict part; the given one is left alone.

    Args:
        schema: of an object.

    Raises:
        ValueError: it cannot be said there; the text says where and what.
    """
    try:
        return _Strict(schema).whole()
    except (TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(f"the schema of the input makes no sense: {error}") from error


class _Strict:
    def __init__(self, root: Schema) -> None:
        self._root = root

    def whole(self) -> Schema:
        found = self._node(self._root, "the input")
        if definitions := self._root.get("$defs"):
            found["$defs"] = {name: self._node(node, name) for name, node in definitions.items()}
        return found

    def _node(self, node: Any, where: str) -> Schema:
        if not isinstance(node, dict) or not node:
            raise _cannot(where, "takes any value")
        described = {"description": node["description"]} if isinstance(node.get("description"), str) else {}
        if "$ref" in node:
            referred(node, self._root)
            reference = {"$ref": node["$ref"]}
            return {"anyOf": [reference], **described} if described else reference
        for word in ("anyOf", "oneOf"):
            if word in node:
                return {"anyOf": [self._node(choice, where) for choice in node[word]], **described}
        if "allOf" in node:
            return self._all_of(node, where, described)
        return {**self._plain(node, where), **described}

    def _all_of(self, node: Schema, where: str, described: Schema) -> Schema:
        """One is how a description is put beside a reference by those who may not."""
        if len(node["allOf"]) != 1:
            raise _cannot(where, "must be several things at once")
        return self._node({**node["allOf"][0], **described}, where)

    def _plain(self, node: Schema, where: str) -> Schema:
        values = [node["const"]] if "const" in node else node.get("enum")
        kind = node.get("type") or _kind_of(values)
        if values is not None:
            return {**({"type": kind} if kind else {}), "enum": copy.deepcopy(values)}
        if kind == "object":
            return self._object(node, where)
        if kind == "array":
            return {"type": "array", "items": self._items(node, where)}
        if isinstance(kind, list) and {"object", "array"} & {*kind}:
            return {"anyOf": [self._node({**node, "type": one}, where) for one in kind]}
        if not kind:
            raise _cannot(where, "takes any value")
        return {"type": copy.copy(kind)}

    def _object(self, node: Schema, where: str) -> Schema:
        properties = node.get("properties", {})
        open_ended = node.get("additionalProperties", "properties" not in node) or node.get("patternProperties")
        if not properties and open_ended:
            raise _cannot(where, "has keys of any name")
        required = node.get("required", [])
        found = {}
        for name, member in properties.items():
            strict = self._node(member, f"{where}.{name}")
            found[name] = strict if name in required else self._or_null(strict)
        return {"type": "object", "properties": found, "required": sorted(found), "additionalProperties": False}

    def _items(self, node: Schema, where: str) -> Schema:
        members = [*node.get("prefixItems", [])]
        if isinstance(node.get("items"), dict) and (node["items"] or not members):
            members.append(node["items"])
        if not members:
            raise _cannot(f"{where}[]", "takes any value")
        strict = [self._node(member, f"{where}[]") for member in members]
        different = list({json.dumps(one, sort_keys=True): one for one in strict}.values())
        return different[0] if len(different) == 1 else {"anyOf": different}

    def _or_null(self, node: Schema) -> Schema:
        """The same, or ``null``."""
        if _takes_null(node, self._root):
            return node
        kind = node.get("type")
        if "anyOf" in node:
            return {**node, "anyOf": [*node["anyOf"], _NULL]}
        if "$ref" in node or kind is None:
            return {"anyOf": [node, dict(_NULL)]}
        found = {**node, "type": [*(kind if isinstance(kind, list) else [kind]), "null"]}
        if "enum" in node:
            found["enum"] = [*node["enum"], None]
        return found


def _cannot(where: str, what: str) -> ValueError:
    return ValueError(f"{where} {what}, which cannot be said in a strict tool; make one that is not strict")


def _kind_of(values: list[Any] | None) -> Any:
    """The type that these values have in common; ``None`` for none, or for several."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    kinds = sorted({names.get(type(value), "") for value in values or ()})
    if not kinds or "" in kinds:
        return None
    return kinds[0] if len(kinds) == 1 else kinds


def _takes_null(node: Any, root: Schema, depth: int = 0) -> bool:
    if not isinstance(node, dict) or depth > _DEEPEST:
        return False
    if not node:
        return True  # anything
    if "$ref" in node:
        return _takes_null(referred(node, root), root, depth + 1)
    for word in ("anyOf", "oneOf"):
        if word in node:
            return any(_takes_null(choice, root, depth + 1) for choice in node[word])
    if "allOf" in node:
        return all(_takes_null(part, root, depth + 1) for part in node["allOf"])
    if "const" in node or "enum" in node:
        return None in node.get("enum", [node.get("const", 0)])
    kind = node.get("type")
    return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)


# -- and back


def without_fillers(value: Any, schema: Schema, root: Schema) -> Any:
    """The value without each ``null`` that only says that a property was left out.

    Args:
        value: what a model gave.
        schema: what it is of.
        root: the whole schema that this is in, for its references.

    Returns:
        A copy, where there is something to leave out. What does not fit the schema stays as it is, for the agent to
        say so.
    """
    try:
        return _cleaned(value, schema, root, 0)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return value  # a schema that makes no sense


def _cleaned(value: Any, schema: Schema, root: Schema, depth: int) -> Any:
    if not isinstance(value, dict | list) or depth > _DEEPEST:
        return value
    node = referred(schema, root)
    choices = node.get("anyOf") or node.get("oneOf") or node.get("allOf")
    if choices:
        fitting = [choice for choice in choices if _fits(value, choice, root)]
        return _cleaned(value, fitting[0], root, depth + 1) if fitting else value
    if isinstance(value, list):
        members = _members(node, len(value))
        return [_cleaned(one, member, root, depth + 1) for one, member in zip(value, members, strict=True)]
    properties, required = node.get("properties", {}), node.get("required", [])
    others = node.get("additionalProperties")
    found = {}
    for name, member in value.items():
        about = properties.get(name, others if isinstance(others, dict) else {})
        if member is None and name in properties and name not in required and not _takes_null(about, root):
            continue
        found[name] = _cleaned(member, about, root, depth + 1)
    return found


def _members(node: Schema, count: int) -> list[Schema]:
    first = node.get("prefixItems", [])[:count]
    rest = node.get("items")
    return [*first, *([rest if isinstance(rest, dict) else {}] * (count - len(first)))]


def _fits(value: Any, schema: Schema, root: Schema) -> bool:
    """Whether a choice may be what this value is of, as far as its kind, its keys, and its constants tell."""
    node = referred(schema, root)
    kind = node.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    if isinstance(value, list):
        return kind is None or "array" in kinds
    if isinstance(value, dict):
        properties = node.get("properties", {})
        if kind is not None and "object" not in kinds:
            return False
        if node.get("additionalProperties") in (None, False) and properties and value.keys() - properties.keys():
            return False
        if any(name not in value for name in node.get("required", [])):
            return False
        return all(_may_be(value[name], member) for name, member in properties.items() if name in value)
    return True


def _may_be(value: Any, member: Any) -> bool:
    if not isinstance(member, dict):
        return True
    if "const" in member:
        return bool(value == member["const"])
    return value in member["enum"] if isinstance(member.get("enum"), list) else True
