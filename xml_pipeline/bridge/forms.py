"""Payloads as JSON, as mesh agents take and give them.

A payload is the object of its fields, with three exceptions, which make every agent of the mesh one that a listener can
be, and the other way round: a class without fields is no body at all; a class `Value` with the one field ``value``
stands for the bare value, which may be a number, a list or anything else, and where there is no body is its default or
``None``, if it has or may be that; and of several classes, a value is of the first that takes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

from lxml import etree
from pydantic_core import from_json, to_json

from third_party.xmlable import Codec, XError, codec_of
from xml_pipeline.bridge.classes import without_absent
from xml_pipeline.envelope import ENVELOPE_NAMESPACE
from xml_pipeline.errors import ValidationError
from xml_pipeline.mesh import AgentContract
from xml_pipeline.strict_xml import parse_strict

__all__ = ["ENVELOPE_KEY", "XSD_KEY", "JsonForm", "envelope_names", "json_of"]

XSD_KEY: Final = "x-xml-schema"
"""Where the JSON Schema of a contract holds the XML Schema of the same values."""
ENVELOPE_KEY: Final = "x-xml-envelope"
"""Where it says that the same values are taken in an envelope, too: the envelope's namespace."""
_DEFINITIONS: Final = "$defs"
_ELEMENT: Final = "{http://www.w3.org/2001/XMLSchema}element"
_WHOLE: Final = re.compile(r"-?[0-9]{1,4000}", re.ASCII)
"""A whole number; Python reads none of more than 4,300 digits."""


class JsonForm:
    """The JSON of a listener's payload classes.

    Args:
        codecs: of the classes, in order.
    """

    def __init__(self, codecs: Sequence[Codec[Any]]) -> None:
        self._codecs = list(codecs)
        self._empty = [codec for codec in self._codecs if not _names(codec)]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say, so that a message has no body."""
        return len(self._empty) == len(self._codecs)

    def schema(self) -> dict[str, Any] | None:
        """The JSON Schema, with the XML Schema under `XSD_KEY`; ``None`` where there is nothing to say."""
        if self.is_empty:
            return None
        if len(self._codecs) == 1:
            return _schema(self._codecs[0])
        return {"anyOf": [_schema(codec) for codec in self._codecs]}

    @property
    def names(self) -> str:
        """The classes, for a message."""
        return " or ".join(codec.name for codec in self._codecs)

    def read(self, body: bytes, values: Mapping[str, str] = MappingProxyType({})) -> Any:
        """The payload in a body.

        Args:
            body: JSON, or nothing.
            values: of fields that the body does not have, e.g. from the subject it came on.

        Raises:
            ValidationError: it is not JSON, or of none of the classes.
        """
        if not body and not values:
            return self._of_nothing()
        try:
            data = from_json(body or b"{}", allow_inf_nan=False)
        except ValueError as error:
            raise ValidationError(f"the payload is not JSON: {error}", step="mesh") from error
        return self.of(self._filled(data, values) if values and isinstance(data, dict) else data)

    def _of_nothing(self) -> Any:
        """The payload that no body at all stands for: a class without fields, a bare value's default, or ``None``."""
        if self._empty:
            return self._empty[0].from_json({})
        for codec in self._codecs:
            for data in ({}, {"value": None}) if _is_value(codec) else ():
                with suppress(XError):
                    return codec.from_json(data)
        raise ValidationError("the request has no payload", step="mesh")

    def _filled(self, data: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
        """With what is not said in it, as far as a class has such fields."""
        known = {name: schema for codec in self._codecs for name, schema in _properties(codec).items()}
        missing = {name: value for name, value in values.items() if name not in data and name in known}
        return {**data, **{name: _as_said(value, known[name]) for name, value in missing.items()}}

    def of(self, data: Any) -> Any:
        """The payload that JSON which was read already stands for.

        Raises:
            ValidationError: it is of none of the classes.
        """
        faults = []
        for codec in self._codecs:
            try:
                return codec.from_json({"value": data} if _is_value(codec) else data)
            except XError as error:
                faults.append(str(error))
        raise ValidationError("; ".join(faults), step="mesh")

    def write(self, payload: Any) -> bytes:
        """The body for a payload of one of the classes.

        Raises:
            ValidationError: it holds what JSON cannot carry.
        """
        return b"" if not _names(codec_of(type(payload))) else json_of(payload)


def json_of(payload: Any) -> bytes:
    """An answer as JSON.

    Raises:
        ValidationError: it is no payload, or holds what JSON cannot carry.
    """
    if isinstance(payload, etree._Element):
        raise ValidationError(f"<{payload.tag}> is of no class that is known here", step="mesh")
    try:
        codec: Codec[Any] = codec_of(type(payload))
        data = codec.to_json(payload)
    except XError as error:
        raise ValidationError(str(error), step="mesh") from error
    data = without_absent(payload, data)
    if _is_value(codec):
        data = data["value"]
    return to_json(data)


def envelope_names(contract: AgentContract) -> frozenset[str]:
    """The classes that an agent takes in envelopes; none, if it takes no envelopes or does not say which."""
    schema = contract.input_schema or {}
    alternatives = schema.get("anyOf", ()) if ENVELOPE_KEY not in schema else (schema,)
    if not isinstance(alternatives, Sequence):
        return frozenset()
    return frozenset(
        name
        for each in alternatives
        if isinstance(each, dict) and each.get(ENVELOPE_KEY) == ENVELOPE_NAMESPACE
        for name in _elements_of(each.get(XSD_KEY))
    )


def _elements_of(xsd: Any) -> list[str]:
    """The elements that a schema is about, of whatever somebody has put into a contract."""
    try:
        root = parse_strict(xsd.encode())
    except (AttributeError, UnicodeError, ValidationError):
        return []
    return [element.get("name", "") for element in root.iterchildren(_ELEMENT)]


def _schema(codec: Codec[Any]) -> dict[str, Any]:
    schema = codec.json_schema()
    if _is_value(codec):
        inner = schema["properties"]["value"]
        schema = {**inner, **({_DEFINITIONS: schema[_DEFINITIONS]} if _DEFINITIONS in schema else {})}
    return {**schema, XSD_KEY: etree.tostring(codec.xsd(), encoding="unicode"), ENVELOPE_KEY: ENVELOPE_NAMESPACE}


def _properties(codec: Codec[Any]) -> dict[str, Any]:
    """The members of its objects; those of a recursive class are in a definition."""
    schema = codec.json_schema()
    while "$ref" in schema:
        schema = {**schema[_DEFINITIONS][schema["$ref"].rpartition("/")[2]], _DEFINITIONS: schema[_DEFINITIONS]}
    return dict(schema.get("properties", {}))


def _names(codec: Codec[Any]) -> list[str]:
    return list(_properties(codec))


def _as_said(value: str, schema: dict[str, Any]) -> Any:
    """Part of a key as the field wants it: a text, or a whole number where that, and no text, fits. Never raises."""
    kinds = schema.get("anyOf", [schema])
    is_text = any(each.get("type") == "string" or value in each.get("enum", ()) for each in kinds)
    if is_text or _WHOLE.fullmatch(value) is None:
        return value
    number = int(value)
    is_number = any(each.get("type") in ("integer", "number") or number in each.get("enum", ()) for each in kinds)
    return number if is_number else value


def _is_value(codec: Codec[Any]) -> bool:
    return codec.name == "Value" and _names(codec) == ["value"]
