"""What can go wrong in a model call.

::

    BackendError                 a model call failed; root of the others
    ├── RateLimitError           429: too many requests or tokens; may say when to come back
    ├── ProviderError            5xx, 529, a cut connection, a timeout: the provider's fault, and may pass
    ├── RequestRefused           4xx: the request or the key is wrong; trying again does not help
    ├── MalformedResponse        the provider's answer is not what its protocol says
    ├── RealCallsForbidden       a test forbids calls that leave the process
    └── ScriptExhausted          a scripted backend has no answer for this request

None of them carries a key or a header: their texts may be logged. What a server says in its refusal is part of the
text, without the key, on one line, and cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml_pipeline.llm.request import LLMRequest

__all__ = [
    "BackendError",
    "MalformedResponse",
    "ProviderError",
    "RateLimitError",
    "RealCallsForbidden",
    "RequestRefused",
    "ScriptExhausted",
]


class BackendError(Exception):
    """A model call failed.

    Args:
        message: what happened.
        retry_allowed: whether the same call may succeed later, or at another backend.
    """

    def __init__(self, message: str, *, retry_allowed: bool = False) -> None:
        super().__init__(message)
        self.retry_allowed = retry_allowed


class RateLimitError(BackendError):
    """The provider refuses more for now (HTTP 429).

    Args:
        message: what happened.
        retry_after: seconds until it says it will take more; ``None`` if it does not say.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_allowed=True)
        self.retry_after = retry_after


class ProviderError(BackendError):
    """The provider failed: HTTP 5xx, 408, 409 or 425, a connection that broke, or no answer in time.

    Args:
        message: what happened.
        status_code: HTTP status; 0 when there was none.
        retry_after: seconds until it says it will be back; ``None`` if it does not say.
    """

    def __init__(self, message: str, status_code: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message, retry_allowed=True)
        self.status_code = status_code
        self.retry_after = retry_after


class RequestRefused(BackendError):
    """The provider refuses this request (any other HTTP 4xx): wrong key, unknown model, wrong arguments; or it cannot
    be sent at all.

    Args:
        message: what happened.
        status_code: HTTP status; 0 when nothing was sent.
    """

    def __init__(self, message: str, status_code: int = 0) -> None:
        super().__init__(message)
        self.status_code = status_code


class MalformedResponse(BackendError):
    """The provider's answer is no JSON, or has not the shape its protocol prescribes. Its text begins ``Malformed``."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_allowed=True)


class RealCallsForbidden(BackendError):
    """Calls that leave the process are forbidden, see `xml_pipeline.llm.forbid_real_calls`."""


class ScriptExhausted(BackendError):
    """A scripted backend was asked more than its script says.

    Args:
        message: what happened, with the end of the request.
        request: the request that has no answer.
    """

    def __init__(self, message: str, request: LLMRequest | None = None) -> None:
        super().__init__(message)
        self.request = request
