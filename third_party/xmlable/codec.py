"""`Codec`: everything a class can do once it is mapped to XML."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from lxml import etree
from lxml.etree import _Element, _ElementTree

from .compile import Compiled, compiled
from .errors import XError, unreadable, unwritable
from .example import example_of, template_of
from .jsonschema import json_schema_of
from .kind import Kind
from .names import checked
from .parsing import parsed, plain
from .record import Record
from .schema import schema_of

__all__ = ["Codec"]

T = TypeVar("T")


class Codec(Generic[T]):
    """The XML, XSD and JSON forms of one class. Made by `codec_of`; safe to share between threads.

    Attributes:
        cls: the class.
        name: the name of its element: the class's name, in exactly its case.
    """

    cls: type[T]
    name: str

    def __init__(self, record: Record) -> None:
        self.cls = record.cls
        self.name = checked(record.cls.__name__, of="its element")
        self._record = record
        self._is_resolved = False

    def resolve(self) -> None:
        """Look through the class and all classes it uses.

        Raises:
            XError: a type is not supported, or two names collide; `Unresolved`: perhaps later.
        """
        if self._is_resolved:
            return
        names = {self.name}
        for kind in self._kinds():
            names.add(checked(kind.name, of=f"{kind.expected} as an item"))
            if isinstance(kind, Record):
                names |= kind.by_element.keys()
        # Libxml2's XSD part still has the names of XML 1.0's 4th edition, which knows fewer letters than its parser.
        if not all(map(str.isascii, names)):
            try:
                etree.XMLSchema(schema_of(self._record, self.name))
            except etree.XMLSchemaParseError as error:
                raise XError(f"a name has letters that XML Schema does not know: {error}").at(self.name) from None
        self._is_resolved = True

    def encode(self, obj: T) -> str:
        """Return the element as text, in no namespace, in the form of W3C Exclusive XML Canonicalization.

        Raises:
            EncodeError: ``obj`` is not of this class, or holds a value that XML cannot carry.
        """
        return self._compiled().encode(obj)

    def encode_payload(self, obj: T) -> str:
        """Return the element with ``xmlns=""``: its canonical form inside a parent that has a default namespace.

        Raises:
            EncodeError: as `encode`.
        """
        return self._compiled().encode_payload(obj)

    def decode(self, element: _Element) -> T:
        """Return the instance that an `lxml.etree` element describes (for `lxml.objectify` see `parse_element`).

        Elements are found by name, and absent ones take their field's default. Attributes, comments, processing
        instructions and text between elements carry nothing here and are passed over; `schema` is stricter.

        Raises:
            DecodeError: an element is missing, unknown, doubled or in a namespace, a text has the wrong form, or the
                class's own validation refused the values.
        """
        instance: T = self._compiled().decode(element)
        return instance

    def decode_text(self, text: str | bytes) -> T:
        """Parse one XML document with the hardened parser, and decode it.

        Raises:
            DecodeError: not well-formed, with a DOCTYPE, or as `decode`.
        """
        return self.decode(parsed(text))

    def decode_any(self, element: _Element) -> T:
        """Return the instance that an lxml or objectify element describes, whatever the element is called.

        Raises:
            DecodeError: as `decode`, except for the root's name.
        """
        self._compiled()
        try:
            instance: T = self._record.read(plain(element))
        except XError as error:
            error.at(self.name)
            raise
        return instance

    def to_json(self, obj: T) -> Any:
        """Return the value in terms of `dict`, `list`, `str`, `int`, `float`, `bool` and ``None``.

        Raises:
            EncodeError: ``obj`` is not of this class, or holds a value of a wrong type.
        """
        try:
            return self._record.to_json(obj)
        except XError as error:
            error.at(self.name)
            raise
        except (AttributeError, RecursionError) as error:
            raise unwritable(error).at(self.name) from error

    def from_json(self, data: Any) -> T:
        """Return the instance that ``data``, as `json.loads` returns it, describes. Types are taken strictly.

        Raises:
            DecodeError: a key is missing or unknown, or a value has the wrong type; the text has the path.
        """
        try:
            instance: T = self._record.from_json(data)
        except XError as error:
            error.at(self.name)
            raise
        except RecursionError as error:
            raise unreadable(error).at(self.name) from error
        return instance

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema (draft 2020-12) of what `from_json` reads."""
        self._compiled()
        return json_schema_of(self._record)

    def xsd(
        self,
        name: str = "",
        namespaces: Mapping[str, str] | None = None,
        imports: Mapping[str, str] | None = None,
    ) -> _ElementTree:
        """Return the complete XML Schema.

        Args:
            name: the name of the global element; default the class's.
            namespaces: prefixes to declare, with their namespaces.
            imports: namespaces to import, with their schema locations.
        """
        self._compiled()
        return schema_of(self._record, name or self.name, namespaces, imports)

    @functools.cached_property
    def schema(self) -> etree.XMLSchema:
        """The compiled schema."""
        return etree.XMLSchema(self.xsd())

    def example(self) -> str:
        """Return an example element as indented text, valid against `schema`, with all optional elements present."""
        self._compiled()
        return example_of(self._record)

    def template(self, schema_name: str = "") -> _ElementTree:
        """Return a document with all elements, and comments in place of their texts.

        Args:
            schema_name: the schema document, without ``.xsd``, that it refers to; default: the class's name.
        """
        self._compiled()
        return template_of(self._record, schema_name or self.name)

    def dependencies(self) -> frozenset[type]:
        """Return the classes that values of this one may contain, without itself."""
        self._compiled()
        return frozenset(kind.cls for kind in self._kinds() if isinstance(kind, Record)) - {self.cls}

    @functools.cached_property
    def _functions(self) -> Compiled:
        self.resolve()
        return compiled(self._record)

    def _kinds(self) -> Iterator[Kind]:
        """Walk over all kinds that occur in the class."""
        seen: set[int] = set()
        waiting: list[Kind] = [self._record]
        while waiting:
            kind = waiting.pop()
            if id(kind) not in seen:
                seen.add(id(kind))
                yield kind
                waiting.extend(kind.parts())

    def _compiled(self) -> Compiled:
        functions = self._functions
        # On the instance a call finds the compiled function itself, without the frame of the method above.
        vars(self).update(encode=functions.encode, encode_payload=functions.encode_payload, decode=functions.decode)
        return functions

    def __repr__(self) -> str:
        return f"<Codec of {self.cls.__qualname__}>"
