"""What a provider's error means: statuses and error documents, as errors of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from xml_pipeline.config.problems import one_line
from xml_pipeline.llm.errors import BackendError, MalformedResponse, ProviderError, RateLimitError, RequestRefused
from xml_pipeline.llm.retry_after import retry_after
from xml_pipeline.llm.secret import Secret
from xml_pipeline.llm.shape import UNREADABLE, read_json

__all__ = ["error_for", "failure_of", "failure_told", "words"]

_MAY_PASS: Final = frozenset({408, 409, 425})
"""Request Timeout, Conflict (a lock that is held), Too Early: 4xx by number, but the same request may succeed."""
_LONGEST: Final = 300
"""Characters of what a server says about an error."""
_NO_HEADERS: Final[Mapping[str, str]] = {}

_STATUS_OF: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Errors that are told in a stream have a name and no status; these are the statuses that they have elsewhere."""


def failure_of(
    source: str, status: int, headers: Mapping[str, str], body: bytes | None, secret: Secret
) -> BackendError:
    """The error for an HTTP status other than 200.

    Args:
        source: the backend's name.
        status: of the answer.
        headers: of the answer.
        body: of the answer, as far as it was read; ``None`` if it is too large.
        secret: what must not be in the text.
    """
    said = words(body, secret, headers.get("content-type", ""))
    text = f"{source}: HTTP {status}" + (f": {said}" if said else "")
    if 300 <= status < 400:
        return RequestRefused(f"{source}: HTTP {status}: redirects are not followed; is base_url right?", status)
    if 200 <= status < 300:
        return MalformedResponse(f"Malformed response of {source}: HTTP {status} instead of 200")
    return error_for(text, status, retry_after(headers))


def failure_told(source: str, error: Any, secret: Secret) -> BackendError:
    """The error for an error document inside of an answer with status 200, or inside of a stream.

    Args:
        source: the backend's name.
        error: the value of the document's ``error``: an object with ``message``, ``type``, ``code``; or a text.
        secret: what must not be in the text.
    """
    said = _shown(_message(error) or "", secret)
    text = f"{source}: the provider reports an error" + (f": {said}" if said else "")
    return error_for(text, _status_told(error), None)


def words(body: bytes | None, secret: Secret, content_type: str = "text/plain") -> str:
    """What an error's body says, for a human: its message, on one line, cut, and without the key.

    Args:
        body: JSON, as all providers send; or text. Other types, such as the HTML of a proxy, say nothing.
        secret: what must not be shown.
        content_type: of the body.
    """
    if not body:
        return ""
    document = read_json(body)
    if document is not UNREADABLE:
        return _shown(_message(document) or "", secret)
    if not content_type.startswith("text/plain"):
        return ""
    return _shown(body[: 4 * _LONGEST].decode("utf-8", "replace"), secret)


def error_for(text: str, status: int, wait: float | None) -> BackendError:
    """The error for an HTTP status of 400 or more.

    Args:
        text: what happened.
        status: the status.
        wait: seconds after which the provider will take more, if it says so.
    """
    if status == 429:
        return RateLimitError(text, wait)
    if 400 <= status < 500 and status not in _MAY_PASS:
        return RequestRefused(text, status)
    return ProviderError(text, status, wait)


def _status_told(error: Any) -> int:
    if not isinstance(error, dict):
        return 500
    for key in ("code", "status", "type"):
        value = error.get(key)
        if isinstance(value, str) and value in _STATUS_OF:
            return _STATUS_OF[value]
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return 500


def _message(document: Any, depth: int = 0) -> str | None:
    """``error.message``, ``error``, ``message`` or ``detail``, whichever is a text."""
    if isinstance(document, str):
        return document
    if not isinstance(document, dict) or depth > 2:
        return None
    found = (_message(document.get(key), depth + 1) for key in ("error", "message", "detail"))
    return next((text for text in found if text), None)


def _shown(text: str, secret: Secret) -> str:
    shown = one_line(secret.scrub(one_line(text)))
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."
