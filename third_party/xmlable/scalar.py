"""`Scalar`: a value that is the text of its element, described by a row of functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lxml import etree
from lxml.etree import _Element

from .errors import DecodeError, EncodeError, mismatch
from .kind import Kind
from .text import escape, text_of

if TYPE_CHECKING:
    from .jsonschema import Definitions
    from .schema import SchemaBuilder

__all__ = ["Scalar"]

XS = "{http://www.w3.org/2001/XMLSchema}"


class Scalar(Kind):
    """A value that is the text of its element.

    Args:
        name: the element name as an item, such as ``Int``.
        python: the type; values of a subclass are accepted too unless ``exact``, and come back as ``python``.
        expected: the type in words, for messages.
        xsd: the XSD type, such as ``xs:integer``.
        text: value to text, not escaped. Raises `EncodeError`.
        value: text to value; the text comes with its white space. Raises `DecodeError`.
        example: the text of an example.
        exact: refuse values of a subclass.
        also: further types whose values can be written, such as `int` for `float`.
        unless: subclasses of these that are something else, such as `datetime` among the `date`.
        pattern: restrict the XSD type by this regular expression.
        free: the text may hold any character, and must be escaped.
        json: type names of the JSON form, if it is not the text as a string.
        json_value: JSON form to value, if it is not the text as a string.
        json_schema: JSON Schema, in addition to the type.
        json_pattern: a regular expression for the whole JSON form, of what every dialect knows. It is stricter than
            the XML form where white space around a value is none of it.
    """

    def __init__(
        self,
        name: str,
        python: type,
        *,
        expected: str,
        xsd: str,
        text: Callable[[Any], str],
        value: Callable[[str], Any],
        example: str,
        exact: bool = False,
        also: tuple[type, ...] = (),
        unless: tuple[type, ...] = (),
        pattern: str = "",
        free: bool = False,
        json: Callable[[Any], Any] | None = None,
        json_value: Callable[[Any], Any] | None = None,
        json_schema: Mapping[str, Any] | None = None,
        json_pattern: str = "",
    ) -> None:
        self.name = name
        self.python = python
        self.expected = expected
        self.xsd = xsd
        self.text = text
        self.value = value
        self.example = example
        self.exact = exact
        self.also = also
        self.unless = unless
        self.pattern = pattern
        self.free = free
        self._json = json
        self._json_value = json_value
        self._json_form = re.compile(json_pattern, re.ASCII) if json_pattern else None
        said = {"pattern": f"^(?:{json_pattern})$"} if json_pattern else {}
        self._json_schema = {"type": "string", **(json_schema or {}), **said}
        self.json_types = frozenset({self._json_schema["type"]})

    def accepts(self, value: Any) -> bool:
        return self.is_exactly(value) or (isinstance(value, self.also) and not isinstance(value, self.unless))

    def is_exactly(self, value: Any) -> bool:
        if self.exact:
            return type(value) is self.python
        return isinstance(value, self.python) and not isinstance(value, self.unless)

    def _refused(self, value: Any) -> EncodeError:
        hint = f"; convert it with {self.python.__name__}()" if isinstance(value, self.python) and self.exact else ""
        return mismatch(EncodeError, value, self.expected + hint)

    def write(self, value: Any) -> str:
        if not self.accepts(value):
            raise self._refused(value)
        text = self.text(value)
        return escape(text) if self.free else text

    def read(self, element: _Element) -> Any:
        return self.value(text_of(element))

    def to_json(self, value: Any) -> Any:
        if not self.accepts(value):
            raise self._refused(value)
        return (self._json or self.text)(value)

    def from_json(self, data: Any) -> Any:
        if self._json_value is not None:
            return self._json_value(data)
        if type(data) is not str:
            raise mismatch(DecodeError, data, f"{self.expected}, as a string")
        value = self.value(data)
        if self._json_form is not None and self._json_form.fullmatch(data) is None:
            raise mismatch(DecodeError, data, f"{self.expected}, without white space around it")
        return value

    def declare(self, element: _Element, schema: SchemaBuilder) -> None:
        if not self.pattern:
            element.set("type", self.xsd)
            return
        simple = etree.SubElement(element, f"{XS}simpleType")
        restriction = etree.SubElement(simple, f"{XS}restriction", base=self.xsd)
        etree.SubElement(restriction, f"{XS}pattern", value=self.pattern)

    def json_schema(self, definitions: Definitions) -> dict[str, Any]:
        return dict(self._json_schema)

    def fill(self, element: _Element, inside: tuple[type, ...]) -> None:
        element.text = self.example
