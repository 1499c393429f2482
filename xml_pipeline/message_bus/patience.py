"""How long whoever asks is willing to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from xml_pipeline.errors import ConversationCancelled, DeadlineExceeded, PipelineError

__all__ = ["Patience"]


class Patience:
    """A timeout around waiting for an answer; at its end, or when the waiting is cancelled, the conversation is too.

    Args:
        seconds: how long; ``None`` for as long as it takes.
        detail: for the `DeadlineExceeded` that is raised then.

    Raises:
        TypeError: ``seconds`` is no number.
        ValueError: it is below 0, or no number of seconds at all.
    """

    def __init__(self, seconds: float | None, detail: str) -> None:
        if seconds is not None:
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                raise TypeError(f"the timeout must be a number of seconds or None, not {seconds!r}")
            if not seconds >= 0:  # NaN would be taken for "never"
                raise ValueError(f"the timeout must be a number of seconds from 0, not {seconds!r}")
        self._timeout = asyncio.timeout(seconds)
        self._detail = detail
        self.on_failure: Callable[[PipelineError], object] = lambda error: None
        """Cancels the conversation, once there is one."""

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(self, kind: Any, exc: BaseException | None, trace: Any) -> bool | None:
        try:
            await self._timeout.__aexit__(kind, exc, trace)
        except TimeoutError:
            error = DeadlineExceeded(self._detail, step="request")
            self.on_failure(error)
            raise error from None
        if isinstance(exc, asyncio.CancelledError):
            self.on_failure(ConversationCancelled("whoever asked was cancelled", step="request"))
        return None
