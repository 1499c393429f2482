"""The envelope against its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xml_pipeline.envelope import envelope_schema, message_schema
from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.steps.step import step

if TYPE_CHECKING:
    from typing import Any

    from lxml.etree import XMLSchema, _Element

    from xml_pipeline.message_bus.message_state import MessageState

__all__ = ["envelope_validation_step", "schema_errors", "validate_envelope"]

_MAX_LINES: Final = 10
_MAX_LINE: Final = 300


def validate_envelope(state: MessageState) -> MessageState:
    """Check root name and structure of the envelope; payloads are only counted, unless their class is known already.

    Raises:
        ValidationError: there is no tree, or it is an ``invalid envelope``: one line per schema error, at most ten.
    """
    tree = state.envelope_tree
    if tree is None:
        raise ValidationError("no envelope_tree")
    codec = state.codec
    if codec is not None and state.wire is state.own and message_schema(codec).validate(tree):
        # Written by ourselves, for a class that is known: its payload is checked in the same pass.
        state.envelope_is_valid = True
        state.valid_under = codec
        return state
    schema = envelope_schema()
    if not schema.validate(tree):
        raise ValidationError(f"invalid envelope\n{schema_errors(schema, tree)}")
    state.envelope_is_valid = True
    return state


def schema_errors(schema: XMLSchema, element: _Element) -> str:
    """What a schema says against an element it has refused, for the operator.

    Args:
        schema: the schema, which has just been used on ``element``.
        element: the refused element.

    Returns:
        One line per error, at most ten of at most 300 characters.
    """
    log: Any = schema.error_log  # the stubs do not know that it can be iterated
    entries: list[str] = [entry.message for entry in log if entry.message]
    lines = [message[:_MAX_LINE] for message in entries[:_MAX_LINES]] or [f"{element.tag!r} is not accepted"]
    if len(entries) > _MAX_LINES:
        lines.append(f"... and {len(entries) - _MAX_LINES} more")
    return "\n".join(lines)


envelope_validation_step = step(validate_envelope, "envelope_validation_step")
