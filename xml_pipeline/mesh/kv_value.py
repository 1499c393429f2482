"""What stands under a key: text, bytes or a model; and which keys a pattern means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from xml_pipeline.mesh.errors import InvalidReply, KVInvalidKey

if TYPE_CHECKING:
    from xml_pipeline.mesh.kv_entry import KVEntry

__all__ = ["Value", "bytes_of", "check_pattern", "model_of", "text_of"]

M = TypeVar("M", bound=BaseModel)

Value = str | bytes | BaseModel

_TOKEN = r"(?:[-/_=A-Za-z0-9]+|\*)"
_PATTERN = re.compile(rf"(?:{_TOKEN}\.)*(?:{_TOKEN}|>)")
_LONGEST_PATTERN = 900


def check_pattern(pattern: str) -> str:
    """The pattern, if it is one: a key of which a segment may be ``*``, and the last also ``>``.

    Raises:
        KVInvalidKey: it is not.
    """
    if not isinstance(pattern, str) or len(pattern) > _LONGEST_PATTERN or not _PATTERN.fullmatch(pattern):
        shown = str(pattern)[:100]
        raise KVInvalidKey(
            f"{shown!r} is not a pattern of keys: segments joined by single dots, each of letters, digits and '-/_=' "
            "or '*', the last also '>'",
            key=shown,
        )
    return pattern


def bytes_of(value: Value) -> bytes:
    """The bytes that are stored: text as UTF-8, a model as JSON.

    Raises:
        TypeError: it is something else.
        ValueError: it is a text that has no UTF-8 (a lone surrogate), or a model that has no JSON.
    """
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, BaseModel):
        return value.model_dump_json().encode()
    raise TypeError(f"a value is a str, bytes or a pydantic model, not {type(value).__name__}")


def text_of(entry: KVEntry[bytes]) -> str:
    """The value as text.

    Raises:
        InvalidReply: it is not UTF-8.
    """
    try:
        return entry.value.decode()
    except UnicodeDecodeError as error:
        raise InvalidReply(
            f"The value of {entry.key} is not text: {error}. Read it as bytes, with `entry` or `watch_entries`.",
            details={"key": entry.key, "revision": entry.revision},
        ) from error


def model_of(entry: KVEntry[bytes], model: type[M]) -> M:
    """The value as a model.

    Raises:
        InvalidReply: it is not one; ``details["errors"]`` lists why.
    """
    try:
        return model.model_validate_json(entry.value)
    except ValidationError as error:
        raise InvalidReply(
            f"The value of {entry.key} is not a {model.__name__}: {error}",
            details={
                "key": entry.key,
                "revision": entry.revision,
                "errors": error.errors(include_url=False, include_context=False, include_input=False),
            },
        ) from error
