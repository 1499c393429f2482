"""A payload against the schema of its class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.steps.envelope_validation import schema_errors
from xml_pipeline.message_bus.steps.step import step

if TYPE_CHECKING:
    from typing import Any

    from lxml.etree import XMLSchema

    from third_party.xmlable import Codec
    from xml_pipeline.message_bus.message_state import MessageState
    from xml_pipeline.message_bus.steps.step import AsyncStep

__all__ = ["make_xsd_validation", "validate_payload", "xsd_validation_step"]


def validate_payload(state: MessageState, codec: Codec[Any]) -> MessageState:
    """Check ``payload_tree`` against the schema of ``codec``.

    Raises:
        ValidationError: there is no ``payload_tree``, or ``XSD validation failed``: one line per error, at most ten.
    """
    _validate(state, codec.schema)
    return state


def make_xsd_validation(schema: XMLSchema) -> AsyncStep:
    """A step that checks ``payload_tree`` against a given schema, for pipelines of one's own."""

    def validate_xsd(state: MessageState) -> MessageState:
        _validate(state, schema)
        return state

    return step(validate_xsd)


def _validate_by_metadata(state: MessageState) -> MessageState:
    schema = state.metadata.get("schema")
    if schema is None:
        raise ValidationError('no schema in metadata["schema"]')
    _validate(state, schema)
    return state


def _validate(state: MessageState, schema: XMLSchema) -> None:
    payload = state.payload_tree
    if payload is None:
        raise ValidationError("no payload_tree")
    if not schema.validate(payload):
        raise ValidationError(f"XSD validation failed\n{schema_errors(schema, payload)}")


xsd_validation_step = step(_validate_by_metadata, "xsd_validation_step")
