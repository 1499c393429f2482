"""`Choice`: enumerations and literals, a fixed table between values and texts."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lxml import etree
from lxml.etree import _Element

from .basics import BOOL, INT, STR, integer_of
from .errors import DecodeError, EncodeError, XError, mismatch
from .kind import Kind
from .scalar import XS
from .text import collapse, text_of

if TYPE_CHECKING:
    from .jsonschema import Definitions
    from .schema import SchemaBuilder

__all__ = ["Choice", "of_enum", "of_literal"]

_PLAIN = {str: STR, int: INT, bool: BOOL}
_JSON_TYPE = {str: "string", int: "integer", bool: "boolean"}


class Choice(Kind):
    """One of a few values.

    Args:
        name: the element name as an item: the name of the enumeration, or ``Literal``.
        table: each value with its JSON form (a `str`, `int` or `bool`), whose text is also the XML form.

    Raises:
        XError: two values have the same text, such as ``1`` and ``"1"``; a text has a character XML cannot carry.
    """

    def __init__(self, name: str, table: Iterable[tuple[Any, Any]]) -> None:
        self.name = name
        self._forms = {_key(value): form for value, form in table}
        self._values = {_key(form): value for (_, value), form in self._forms.items()}
        self._texts = {_PLAIN[type(form)].text(form): value for (_, value), form in self._forms.items()}
        try:
            self._written = {key: _PLAIN[type(form)].write(form) for key, form in self._forms.items()}
        except EncodeError as error:
            raise XError(f"a value of {name} cannot be written: {error}") from None
        if len(self._texts) < len(self._forms):
            raise XError(f"two values of {name} have the same text: {', '.join(map(repr, self._forms.values()))}")
        self.is_integer = all(type(form) is int for form in self._forms.values())
        self.is_token = all(text == collapse(text) for text in self._texts)
        self.expected = "one of " + ", ".join(map(repr, self._forms.values()))
        self.json_types = frozenset(_JSON_TYPE[type(form)] for form in self._forms.values())

    def accepts(self, value: Any) -> bool:
        try:
            return _key(value) in self._forms
        except TypeError:  # not hashable, hence none of ours
            return False

    def write(self, value: Any) -> str:
        if not self.accepts(value):
            raise mismatch(EncodeError, value, self.expected)
        return self._written[_key(value)]

    def read(self, element: _Element) -> Any:
        text = text_of(element)
        if text in self._texts:
            return self._texts[text]
        try:
            if self.is_integer:
                return self._values[_key(integer_of(text))]
            return self._texts[collapse(text) if self.is_token else text]
        except (KeyError, DecodeError):
            raise mismatch(DecodeError, text, self.expected) from None

    def to_json(self, value: Any) -> Any:
        if not self.accepts(value):
            raise mismatch(EncodeError, value, self.expected)
        return self._forms[_key(value)]

    def from_json(self, data: Any) -> Any:
        if type(data) is float and data.is_integer():
            data = int(data)  # to JSON Schema, 3.0 and 3 are the same number
        try:
            return self._values[_key(data)]
        except (KeyError, TypeError):
            raise mismatch(DecodeError, data, self.expected) from None

    def declare(self, element: _Element, schema: SchemaBuilder) -> None:
        base = "xs:integer" if self.is_integer else "xs:token" if self.is_token else "xs:string"
        simple = etree.SubElement(element, f"{XS}simpleType")
        restriction = etree.SubElement(simple, f"{XS}restriction", base=base)
        for text in self._texts:
            etree.SubElement(restriction, f"{XS}enumeration", value=text)

    def json_schema(self, definitions: Definitions) -> dict[str, Any]:
        return {"enum": list(self._forms.values())}

    def fill(self, element: _Element, inside: tuple[type, ...]) -> None:
        element.text = next(iter(self._texts))


def _key(value: Any) -> tuple[type, Any]:
    """Tell ``1`` from ``True``, which are equal to Python."""
    return type(value), value


def of_enum(cls: type[enum.Enum]) -> Choice:
    """Return the kind of an enumeration.

    Members are written by value where all values are strings, or all are integers; by name otherwise.

    Raises:
        XError: for a `enum.Flag`, whose values combine; for an enumeration without members; for a value that
            contains a character XML cannot carry.
    """
    if issubclass(cls, enum.Flag):
        raise XError(f"{cls.__name__} is a Flag, whose values combine; declare the field as set[...] of an Enum")
    members = list(cls)
    if not members:
        raise XError(f"the enumeration {cls.__name__} has no members")
    values = [_plain(member.value) for member in members]
    by_value = all(type(value) is str for value in values) or all(type(value) is int for value in values)
    return Choice(cls.__name__, zip(members, values if by_value else [member.name for member in members], strict=True))


def of_literal(values: tuple[Any, ...]) -> Choice:
    """Return the kind of ``Literal[values]``: strings, integers, booleans and members of enumerations.

    Raises:
        XError: for bytes; for values that would have the same text, such as ``1`` and ``"1"``.
    """
    table = []
    for value in values:
        form = _plain(of_enum(type(value)).to_json(value) if isinstance(value, enum.Enum) else value)
        if type(form) not in _PLAIN:
            raise XError(f"Literal[{value!r}] is not supported; use strings, integers, booleans or an Enum")
        table.append((value, form))
    return Choice("Literal", table)


def _plain(value: Any) -> Any:
    """Turn a subclass of `str` or `int` (but not `bool`) into the plain value."""
    if isinstance(value, str):
        return str.__str__(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value
