"""JSON Schema (2020-12) of the JSON form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .record import Record

__all__ = ["Definitions", "json_schema_of"]


class Definitions:
    """Collects the schemas of nested classes under ``$defs``."""

    def __init__(self) -> None:
        self.schemas: dict[str, dict[str, Any]] = {}
        self._names: dict[type, str] = {}

    def reference(self, record: Record) -> dict[str, Any]:
        """Return a reference to the class's schema; make the schema on first sight."""
        name = self._names.get(record.cls)
        if name is None:
            name = record.root
            while name in self.schemas:
                name += "_"
            self._names[record.cls] = name
            self.schemas[name] = {}  # reserves the name, and the place, before the class is looked into
            self.schemas[name].update(record.object_schema(self))
        return {"$ref": f"#/$defs/{name}"}


def json_schema_of(record: Record) -> dict[str, Any]:
    """Return the JSON Schema of a class, self-contained."""
    definitions = Definitions()
    schema = record.object_schema(definitions)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**head, **schema, **({"$defs": definitions.schemas} if definitions.schemas else {})}
