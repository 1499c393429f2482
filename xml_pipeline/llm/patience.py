"""How long a stream may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from xml_pipeline.llm.errors import ProviderError

__all__ = ["Patience"]


class Patience:
    """How long may be waited for a server: in all, and for what comes next. What the caller does in between does not
    count.

    Args:
        source: the backend's name.
        total: seconds in all.
        silence: seconds for one wait.
    """

    def __init__(self, source: str, total: float, silence: float) -> None:
        self._source = source
        self._total = total
        self._silence = silence
        self._waited = 0.0
        self._last = False

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Wait inside of this block; it raises ``TimeoutError`` when patience is at an end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        left = self._total - self._waited
        self._last = left <= self._silence
        try:
            async with asyncio.timeout(min(self._silence, left)):
                yield
        finally:
            self._waited += loop.time() - began

    def failure(self) -> ProviderError:
        """The error for the wait that took too long."""
        if self._last:
            return ProviderError(f"{self._source}: the answer is not complete within {self._total:g} s")
        return ProviderError(f"{self._source}: nothing came for {self._silence:g} s")
