"""From a validated payload element to the object that a handler is given."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from third_party.xmlable import codec_of
from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.steps.step import step

if TYPE_CHECKING:
    from typing import Any

    from third_party.xmlable import Codec
    from xml_pipeline.message_bus.message_state import MessageState
    from xml_pipeline.message_bus.steps.step import AsyncStep

__all__ = ["deserialization_step", "deserialize", "make_deserialization"]


def deserialize(state: MessageState, codec: Codec[Any]) -> MessageState:
    """Decode ``payload_tree`` into ``payload``.

    Args:
        state: a state whose ``payload_tree`` is valid under ``codec.schema``.
        codec: how its class is read.

    Raises:
        ValidationError: there is no ``payload_tree``, or ``Deserialization failed``.
    """
    payload = state.payload_tree
    if payload is None:
        raise ValidationError("no payload_tree")
    try:
        state.payload = codec.decode(payload)
    except (Exception, asyncio.CancelledError, GeneratorExit, SystemExit) as error:
        # Anything: a class's own __post_init__ or validator may raise what it likes, and the message is at fault.
        raise ValidationError(f"Deserialization failed: {type(error).__name__}: {error}") from None
    return state


def make_deserialization(cls: type[Any]) -> AsyncStep:
    """A step that decodes ``payload_tree`` as an instance of ``cls``, for pipelines of one's own.

    Args:
        cls: a payload class: a dataclass or a pydantic model.
    """
    codec = codec_of(cls)

    def deserialize_payload(state: MessageState) -> MessageState:
        return deserialize(state, codec)

    return step(deserialize_payload)


def _deserialize_by_metadata(state: MessageState) -> MessageState:
    cls = state.metadata.get("payload_class")
    if cls is None:
        raise ValidationError('no class in metadata["payload_class"]')
    return deserialize(state, codec_of(cls))


deserialization_step = step(_deserialize_by_metadata, "deserialization_step")
