"""Payload classes made from the contracts of agents, for those who have not written any.

A schema becomes a dataclass whose values are the schema's, as far as XML can carry them:

===================================  ==================================================
JSON Schema                          Python
===================================  ==================================================
an object with properties            a dataclass; a property that need not be there, and has no default, is ``None``
string, number, integer, boolean     ``str float int bool``
``enum``, ``const``                  ``Literal``
an array                             a list
an object of equal values            a dict
``null`` among others                ``None`` among others
several of them                      a union
anything but an object, at the top   `Value`, a class with that as its one field
nothing                              a class without fields
===================================  ==================================================

Formats, patterns and bounds are not looked at: the agent checks them. What cannot be said in this way (a recursive
schema, a property that is no Python name, anything at all) is refused, and the agent is not offered.
"""

from __future__ import annotations

import dataclasses
import functools
import keyword
import operator
import re
import unicodedata
from typing import Any, Final, Literal, Union

from third_party.xmlable import XError, codec_of
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.mesh import AgentContract

__all__ = ["MeshReply", "class_of", "classes_of", "without_absent"]

_SCALARS: Final[dict[str, Any]] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}
_ABSENT: Final = "__absent__"
_DEEPEST: Final = 32
_MOST_FIELDS: Final = 1_000
_MOST_STEPS: Final = 20_000


@dataclasses.dataclass
class MeshReply:
    """The answer of an agent that does not say what it answers.

    Args:
        json: the answer as it came.
    """

    json: str


def classes_of(contract: AgentContract) -> tuple[type, type | None]:
    """The classes of what an agent takes, and of what it gives; ``None`` where it does not say that.

    Raises:
        ConfigurationError: its schemas say what no payload class can.
    """
    base = _camel(contract.name.rpartition(".")[2])
    takes = class_of(contract.input_schema, f"{base}Input")
    given = contract.chunk_schema if contract.streaming else contract.output_schema
    return takes, None if given is None else class_of(given, f"{base}Output")


def class_of(schema: dict[str, Any] | None, name: str) -> type:
    """The class of a schema.

    Args:
        schema: JSON Schema; ``None`` for no payload at all.
        name: of the class, where the schema has no title that can be one.

    Raises:
        ConfigurationError: the schema says what no payload class can.
    """
    maker = _Maker(schema or {})
    if schema is None:
        cls = dataclasses.make_dataclass(name, [])
    else:
        found = maker.annotation(schema, name, 0)
        cls = found if dataclasses.is_dataclass(found) else _value_of(found)  # type: ignore[assignment]
    try:
        codec_of(cls).json_schema()
    except XError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    return cls


def _value_of(annotation: Any) -> type:
    return dataclasses.make_dataclass("Value", [("value", annotation)])


class _Maker:
    """Makes classes of one document.

    Args:
        document: with its definitions.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._made: dict[str, Any] = {}
        self._making: list[str] = []
        self._fields = 0
        self._steps = 0

    def annotation(self, schema: Any, name: str, depth: int) -> Any:
        """The type of a schema; ``name`` is for the class that it may need."""
        if depth > _DEEPEST:
            raise ConfigurationError(f"{name}: the schema is nested too deeply")
        self._steps += 1
        if self._steps > _MOST_STEPS:  # a list of types multiplies what is below it
            raise ConfigurationError(f"{name[:80]}: the schema says too much")
        if not isinstance(schema, dict):
            raise ConfigurationError(f"{name}: the schema allows anything, or nothing")
        if "$ref" in schema:
            return self._referred(schema["$ref"], depth)
        if "const" in schema:
            return self._literal([schema["const"]], name)
        if "enum" in schema:
            return self._literal(schema["enum"], name)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self._several(schema[key], key, name, depth)
        kind = schema.get("type")
        if isinstance(kind, list) and kind:
            return _union([self.annotation({**schema, "type": one}, name, depth + 1) for one in kind])
        if kind == "array":
            return self._list(schema, name, depth)
        if kind == "object" or "properties" in schema:
            return self._object(schema, name, depth)
        if isinstance(kind, str) and kind in _SCALARS:
            return _SCALARS[kind]
        raise ConfigurationError(f"{name}: the schema allows anything")

    def _referred(self, reference: Any, depth: int) -> Any:
        prefix, _, key = str(reference).rpartition("/")
        definitions = self._document.get(prefix.removeprefix("#/"))
        if not prefix.startswith("#/") or not isinstance(definitions, dict) or key not in definitions:
            raise ConfigurationError(f"the schema refers to {str(reference)[:80]!r}, which is not in it")
        if key in self._making:
            raise ConfigurationError(f"{key[:80]!r} contains itself")
        if key not in self._made:
            self._making.append(key)
            self._made[key] = self.annotation(definitions[key], _camel(key), depth + 1)
            self._making.pop()
        return self._made[key]

    @staticmethod
    def _literal(values: Any, name: str) -> Any:
        some = [value for value in values if value is not None] if isinstance(values, list) else []
        if not some or not all(isinstance(value, str | int | bool) for value in some):
            raise ConfigurationError(f"{name}: a choice must be one of texts, whole numbers or booleans")
        literal: Any = Literal[tuple(some)]
        return literal if len(some) == len(values) else Union[literal, None]  # noqa: UP007  # made at run time

    def _several(self, schemas: Any, key: str, name: str, depth: int) -> Any:
        if not isinstance(schemas, list) or not schemas or (key == "allOf" and len(schemas) > 1):
            raise ConfigurationError(f"{name}: {key} of this kind cannot be said in a class")
        made = [
            self.annotation(schema, name if len(schemas) == 1 else f"{name}{index + 1}", depth + 1)
            for index, schema in enumerate(schemas)
        ]
        return _union(made)

    def _list(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        if "items" not in schema or "prefixItems" in schema:
            raise ConfigurationError(f"{name}: an array must say what is in it, the same for all")
        return list[self.annotation(schema["items"], f"{name}Item", depth + 1)]  # type: ignore[misc]

    def _object(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        properties = schema.get("properties")
        if not properties:
            values = schema.get("additionalProperties")
            if isinstance(values, dict) and values:
                return dict[str, self.annotation(values, f"{name}Value", depth + 1)]  # type: ignore[misc]
            if values is False or (depth == 0 and properties == {}):
                return dataclasses.make_dataclass(_title(schema, name), [])
            raise ConfigurationError(f"{name}: the schema allows any object")
        if not isinstance(properties, dict):
            raise ConfigurationError(f"{name}: its properties are no object")
        required = schema.get("required")
        needed = {key for key in required if isinstance(key, str)} if isinstance(required, list) else set()
        cls_name = _title(schema, name)
        fields = [
            self._field(key, each, key in needed, f"{cls_name}{_camel(str(key))}", depth)
            for key, each in properties.items()
        ]
        absent = frozenset(key for key, each in properties.items() if key not in needed and not _has_default(each))
        return dataclasses.make_dataclass(cls_name, fields, kw_only=True, namespace={_ABSENT: absent})

    def _field(self, key: Any, schema: Any, needed: bool, name: str, depth: int) -> tuple[str, Any, Any]:
        self._fields += 1
        if self._fields > _MOST_FIELDS:
            raise ConfigurationError(f"{name}: the schema has too many properties")
        if not isinstance(key, str) or not _is_field_name(key):
            raise ConfigurationError(f"the property {str(key)[:80]!r} is not one that a Python field can have as name")
        annotation = self.annotation(schema, name, depth + 1)
        if needed:
            return key, annotation, dataclasses.field()
        if _has_default(schema):
            return key, annotation, _default(schema["default"], annotation)
        optional: Any = Union[annotation, None]  # noqa: UP007  # made at run time
        return key, optional, dataclasses.field(default=None)


def _is_field_name(key: str) -> bool:
    """Whether Python takes it as it is: it normalises names in source text (the language's reference, section 2.3)."""
    return (
        key.isidentifier()
        and not keyword.iskeyword(key)
        and not key.startswith("_")
        and unicodedata.normalize("NFKC", key) == key
    )


def without_absent(payload: Any, data: Any) -> Any:
    """What is written of a payload, without the properties that are ``None`` because they are not there.

    Args:
        payload: of a class made here, or of any other, which is left alone.
        data: the payload as `json.dumps` takes it.
    """
    if type(data) is not dict and type(data) is not list:
        return data  # nothing can be absent in it
    if isinstance(payload, list) and isinstance(data, list):
        return [without_absent(one, each) for one, each in zip(payload, data, strict=True)]
    if isinstance(payload, dict) and isinstance(data, dict):
        return {key: without_absent(payload.get(key), each) for key, each in data.items()}
    if not dataclasses.is_dataclass(payload) or not isinstance(data, dict):
        return data
    absent: frozenset[str] = getattr(payload, _ABSENT, frozenset())
    return {
        key: without_absent(getattr(payload, key, None), each)
        for key, each in data.items()
        if each is not None or key not in absent
    }


def _has_default(schema: Any) -> bool:
    return isinstance(schema, dict) and "default" in schema


def _default(value: Any, annotation: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        if isinstance(value, int) and not isinstance(value, bool) and annotation is float:
            value = float(value)
        return dataclasses.field(default=value)
    if value == []:
        return dataclasses.field(default_factory=list)
    if value == {}:
        return dataclasses.field(default_factory=dict)
    return dataclasses.field()  # it is said each time


def _union(types: list[Any]) -> Any:
    return functools.reduce(operator.or_, types)


def _title(schema: dict[str, Any], name: str) -> str:
    title = schema.get("title")
    return title if isinstance(title, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", title) else name


def _camel(text: str) -> str:
    words = re.findall(r"[A-Za-z0-9]+", text)
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return joined if joined[:1].isalpha() else f"Agent{joined}"
