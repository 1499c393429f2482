"""`Kind`: everything the codec knows about one annotation.

A class is compiled once into a tree of kinds, one for each type that occurs in it. To teach the codec a new type means
to write one more subclass, in one file, and to name it in `build`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lxml.etree import _Element

if TYPE_CHECKING:
    from .jsonschema import Definitions
    from .schema import SchemaBuilder

__all__ = ["Endless", "Kind"]


class Endless(Exception):
    """An example would have to contain itself."""


class Kind(ABC):
    """How values of one type are written, read and described.

    Attributes:
        name: the element name of a value that has no field to be named after: list items, union alternatives.
        expected: the type in words, for messages.
        hashable: whether values can be members of a set and keys of a dict.
        json_types: the JSON types (``string``, ``object``, ...) that `to_json` returns. Where those of a union's
            alternatives do not overlap, the union needs no tag in JSON.
    """

    name: str
    expected: str
    hashable: bool = True
    json_types: frozenset[str] = frozenset({"string"})

    def parts(self) -> Iterable[Kind]:
        """Return the kinds this one is made of."""
        return ()

    @abstractmethod
    def accepts(self, value: Any) -> bool:
        """Whether ``value``, looked at from outside, is of this kind. Unions choose by it."""

    def is_exactly(self, value: Any) -> bool:
        """Whether ``value`` is of this kind and comes back with the very same type."""
        return self.accepts(value)

    @abstractmethod
    def write(self, value: Any) -> str:
        """Return the canonical content (what stands between the tags); `EncodeError` if ``value`` has none."""

    @abstractmethod
    def read(self, element: _Element) -> Any:
        """Return the value that ``element`` contains; `DecodeError` if it contains none."""

    @abstractmethod
    def to_json(self, value: Any) -> Any:
        """Return the JSON form; `EncodeError` if ``value`` has none."""

    @abstractmethod
    def from_json(self, data: Any) -> Any:
        """Return the value of a JSON form; `DecodeError` if it is none."""

    @abstractmethod
    def declare(self, element: _Element, schema: SchemaBuilder) -> None:
        """Give ``element``, an ``xs:element`` that has a name only, its type."""

    @abstractmethod
    def json_schema(self, definitions: Definitions) -> dict[str, Any]:
        """Return the JSON Schema of the JSON form."""

    @abstractmethod
    def fill(self, element: _Element, inside: tuple[type, ...]) -> None:
        """Give the empty ``element`` a sensible example content; `Endless` if it would contain itself.

        Args:
            element: the element to fill.
            inside: the classes whose example is being written, outermost first.
        """
