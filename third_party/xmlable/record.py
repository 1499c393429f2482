"""`Record`: a dataclass or pydantic model."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lxml import etree
from lxml.etree import _Element

from .compile import compiled
from .construct import construct
from .errors import DecodeError, EncodeError, Unresolved, XError, did_you_mean, mismatch, show
from .fields import NO_DEFAULT, Field, is_model
from .kind import Endless, Kind
from .names import is_xml_name, pascal
from .scalar import XS
from .text import children

if TYPE_CHECKING:
    from .jsonschema import Definitions
    from .schema import SchemaBuilder

__all__ = ["Record"]


class Record(Kind):
    """A class with fields.

    `write` and `read` are compiled at first use, since only then all classes that annotations name need to exist.

    Args:
        cls: the dataclass or pydantic model.
        fields: makes its fields; raises `NameError` until all annotations can be resolved.
    """

    json_types = frozenset({"object"})

    def __init__(self, cls: type, fields: Callable[[], tuple[Field, ...]]) -> None:
        self.cls = cls
        # The name of a pydantic model such as `Page[int]` is no XML name; as a type and as an item it is `PageInt`.
        self.name = pascal(re.sub(r"\W+", "_", cls.__name__))
        self.root = cls.__name__ if is_xml_name(cls.__name__) else self.name
        self.expected = cls.__name__
        self.hashable = cls.__hash__ is not None
        self.is_model = is_model(cls)
        self._fields_of = fields

    @functools.cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields that are written, in declaration order.

        Raises:
            XError: a type is not supported, two names collide; `Unresolved`: perhaps later.
        """
        try:
            return self._fields_of()
        except XError as error:
            error.at(self.cls.__name__)
            raise
        except NameError as error:
            raise Unresolved(f"an annotation cannot be resolved: {error}").at(self.cls.__name__) from error

    @functools.cached_property
    def by_element(self) -> dict[str, Field]:
        """The fields by element name."""
        return {field.element: field for field in self.fields}

    def parts(self) -> Iterable[Kind]:
        return [field.kind for field in self.fields]

    def accepts(self, value: Any) -> bool:
        return type(value) is self.cls

    def write(self, value: Any) -> str:
        self.compile()
        return self.write(value)

    def read(self, element: _Element) -> Any:
        self.compile()
        return self.read(element)

    def compile(self) -> None:
        """Replace `write` and `read` by compiled ones. They are put on the instance, where a call finds them first."""
        functions = compiled(self)
        vars(self).update(write=functions.write, read=functions.read)

    def read_loosely(self, element: _Element) -> Any:
        """Read in whatever way the compiled reader's one expectation (all fields, in order) was not met."""
        found: dict[str, Any] = {}
        for child in children(element):
            field = self.by_element.get(str(child.tag))
            if field is None:
                raise DecodeError(_unknown(str(child.tag), self.by_element))
            if field.key in found:
                raise DecodeError(f"found the element <{field.element}> twice").at(f".{field.name}")
            try:
                found[field.key] = field.kind.read(child)
            except XError as error:
                error.at(f".{field.name}")
                raise
        for field in self.fields:
            if field.required and field.key not in found:
                raise DecodeError(f"the element <{field.element}> is missing").at(f".{field.name}")
        return construct(self.cls, found)

    def to_json(self, value: Any) -> dict[str, Any]:
        self.check(value)
        form: dict[str, Any] = {}
        for field in self.fields:
            content = getattr(value, field.name)
            if content is None and field.absent_is_none:
                form[field.name] = None
                continue
            try:
                form[field.name] = field.kind.to_json(content)
            except XError as error:
                error.at(f".{field.name}")
                raise
        return form

    def from_json(self, data: Any) -> Any:
        if type(data) is not dict:
            raise mismatch(DecodeError, data, f"an object for {self.cls.__name__}")
        names = [field.name for field in self.fields]
        for key in data:
            if key not in names:
                raise DecodeError(f"the key {key!r} is unknown{did_you_mean(str(key), names)}")
        found: dict[str, Any] = {}
        for field in self.fields:
            if field.name not in data:
                if field.required:
                    raise DecodeError(f"the key {field.name!r} is missing").at(f".{field.name}")
            elif data[field.name] is None and field.absent_is_none:
                found[field.key] = None
            else:
                try:
                    found[field.key] = field.kind.from_json(data[field.name])
                except XError as error:
                    error.at(f".{field.name}")
                    raise
        return construct(self.cls, found)

    def check(self, value: Any) -> None:
        """Raise `EncodeError` unless ``value`` is of exactly this class, and holds nothing that would be lost."""
        if type(value) is not self.cls:
            hint = ""
            if isinstance(value, self.cls):
                hint = "; a subclass would come back as its base: declare the field as a union of the classes"
            raise EncodeError(f"found {show(value)}, expected {self.expected}{hint}")
        extra = getattr(value, "__pydantic_extra__", None) if self.is_model else None
        if extra:
            raise EncodeError(f"extra fields have no XML form: {', '.join(extra)}")

    def declare(self, element: _Element, schema: SchemaBuilder) -> None:
        element.set("type", schema.type_of(self))

    def declare_fields(self, sequence: _Element, schema: SchemaBuilder) -> None:
        """Declare one element for each field in ``sequence``."""
        for field in self.fields:
            element = etree.SubElement(sequence, f"{XS}element", name=field.element)
            if not field.required:
                element.set("minOccurs", "0")
            if field.description:
                note = etree.SubElement(element, f"{XS}annotation")
                etree.SubElement(note, f"{XS}documentation").text = field.description
            field.kind.declare(element, schema)

    def json_schema(self, definitions: Definitions) -> dict[str, Any]:
        return definitions.reference(self)

    def object_schema(self, definitions: Definitions) -> dict[str, Any]:
        """Return the JSON Schema of the class, written out."""
        properties = {field.name: self._property(field, definitions) for field in self.fields}
        schema: dict[str, Any] = {"title": self.cls.__name__, "type": "object"}
        description = inspect.cleandoc(self.cls.__doc__ or "")
        if description and not description.startswith(f"{self.cls.__name__}("):  # the one that dataclass makes up
            schema["description"] = description
        schema["properties"] = properties
        required = [field.name for field in self.fields if field.required]
        if required:
            schema["required"] = required
        schema["additionalProperties"] = False
        return schema

    def _property(self, field: Field, definitions: Definitions) -> dict[str, Any]:
        schema = field.kind.json_schema(definitions)
        if field.absent_is_none:
            schema = {"anyOf": [schema, {"type": "null"}]}
        if field.default is None and field.absent_is_none:
            schema["default"] = None
        elif field.default is not NO_DEFAULT:
            with contextlib.suppress(EncodeError):  # a default of another type than declared: not ours to judge here
                schema["default"] = field.kind.to_json(field.default)
        if field.description:
            schema["description"] = field.description
        return schema

    def fill(self, element: _Element, inside: tuple[type, ...]) -> None:
        if self.cls in inside:
            raise Endless
        for field in self.fields:
            child = _shown(field)
            if child is not None:
                element.append(child)
                continue
            child = etree.SubElement(element, field.element)
            try:
                field.kind.fill(child, (*inside, self.cls))
            except Endless:
                if field.required:
                    raise
                element.remove(child)


def _shown(field: Field) -> _Element | None:
    """Return the element with the field's own example value, if it has one that can be written and shows something."""
    if field.example is NO_DEFAULT:
        return None
    try:
        content = field.kind.write(field.example)
    except EncodeError:
        return None
    return etree.fromstring(f"<{field.element}>{content}</{field.element}>") if content else None


def _unknown(tag: str, known: dict[str, Field]) -> str:
    if tag.startswith("{"):
        return f'the element <{tag}> is in a namespace, expected none; put xmlns="" on the payload\'s root'
    return f"the element <{tag}> is unknown{did_you_mean(tag, known)}"
