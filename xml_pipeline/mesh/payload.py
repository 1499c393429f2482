"""Values and the bytes they travel as.

The rules of the wire: ``None`` is a body of no bytes, ``bytes`` go as they are, everything else is JSON. An answer of
``None`` is ``{}``, and a body of no bytes is read as ``{}``, for that is what peers expect.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json, to_json

__all__ = ["decode", "encode", "json_safe"]

_EMPTY_ANSWER: bytes = b"{}"
_DEEPEST = 64
_LONGEST_TEXT = 4096
_MOST_MEMBERS = 1000


def encode(payload: Any) -> bytes:
    """The body of a request.

    Args:
        payload: ``None``, bytes, a pydantic model, or anything that can be put into JSON.

    Raises:
        TypeError: it cannot be put into JSON.
    """
    if payload is None:
        return b""
    if isinstance(payload, bytes):
        return payload
    try:
        if isinstance(payload, BaseModel):
            return payload.__pydantic_serializer__.to_json(payload)
        return to_json(payload, inf_nan_mode="null")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise TypeError(f"a payload of type {type(payload).__name__} cannot be put into JSON: {error}") from error


def decode(body: bytes) -> Any:
    """The value of a body of JSON; of an empty body, ``{}``.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    return from_json(body) if body else {}


def json_safe(value: Any, depth: int = 0) -> Any:
    """The nearest value that can be written as JSON: text is cut, what cannot be written becomes its ``repr``.

    Args:
        value: anything, also what a peer sent or an exception object.
        depth: how deep it lies in the value asked about.
    """
    if value is None or isinstance(value, bool | int):
        return value if value is None or isinstance(value, bool) or abs(value) < 1 << 1024 else repr(type(value))
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= _DEEPEST:
        return "..."
    if isinstance(value, dict):
        members = list(value.items())[:_MOST_MEMBERS]
        return {_cut(str(key)): json_safe(member, depth + 1) for key, member in members}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_safe(member, depth + 1) for member in list(value)[:_MOST_MEMBERS]]
    if isinstance(value, bytes | bytearray):
        return _cut(bytes(value[:_LONGEST_TEXT]).decode("utf-8", "replace"))
    return _described(value)


def _cut(text: str) -> str:
    text = text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."
    # A lone surrogate is a str that is no text: nothing can encode it.
    return text.encode("utf-8", "replace").decode("utf-8")


def _described(value: Any) -> str:
    try:
        return _cut(str(value) if isinstance(value, BaseException) else repr(value))
    except Exception:  # a repr of somebody else's class may do anything
        return f"<{type(value).__name__}>"
