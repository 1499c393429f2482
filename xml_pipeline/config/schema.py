"""The JSON Schema of ``organism.yaml``, for editors."""

from __future__ import annotations

from typing import Any, Final

from xml_pipeline.config.document import OrganismDocument

__all__ = ["organism_json_schema"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def organism_json_schema() -> dict[str, Any]:
    """The schema of the file format, JSON Schema 2020-12: keys, types, ranges, defaults, descriptions.

    It says what each key may hold. Rules between listeners, import paths and variables are for ``xml-pipeline check``.

    Returns:
        Plain data, ready for ``json.dumps``; a new copy at every call.
    """
    schema = OrganismDocument.model_json_schema(mode="validation")
    schema.pop("title", None)
    return {
        "$schema": _DIALECT,
        "title": "organism.yaml",
        **{key: value for key, value in schema.items() if key != "$defs"},
        "$defs": schema.get("$defs", {}),
    }
