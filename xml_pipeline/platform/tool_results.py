"""What a model is told of the calls it asked for.

An answer is told as JSON, in the form that the schema of a tool with that class has: models write their arguments so,
and are made to read results so; and no text inside can pass for something around it. The only key is the class's name::

    {"Forecast": {"city": "Oslo", "celsius": 3}}

An error is told in the same way, whether a peer failed, the call was refused, or the model's arguments do not fit::

    {"error": {"code": "timeout", "message": "The message was not processed in time.", "retry_allowed": true}}
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from third_party.xmlable import XError, codec_of
from xml_pipeline.platform.history import xml_text

if TYPE_CHECKING:
    from xml_pipeline.message_bus.join import JoinResult

__all__ = ["error_text", "result_text"]


def result_text(result: JoinResult) -> str:
    """How a call ended."""
    error = result.error
    if error is not None:
        return error_text(error.code, error.message, retry_allowed=error.retry_allowed)
    payload = result.payload
    try:
        codec = codec_of(type(payload))
        return _json({codec.name: codec.to_json(payload)})
    except XError:
        return xml_text(payload)  # a class without a JSON form


def error_text(code: str, message: str, *, retry_allowed: bool = True) -> str:
    """Why a call has no answer.

    Args:
        code: one of the codes of `SystemError`.
        message: what is wrong, in a sentence.
        retry_allowed: whether the same call, or a mended one, may succeed.
    """
    return _json({"error": {"code": code, "message": message, "retry_allowed": retry_allowed}})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
