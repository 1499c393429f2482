"""`StreamedAnswer`: one attempt at an answer that comes piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator

from xml_pipeline.llm.accounts import Used, used_by
from xml_pipeline.llm.clock import Clock
from xml_pipeline.llm.errors import BackendError, MalformedResponse
from xml_pipeline.llm.estimate import prompt_tokens, tokens
from xml_pipeline.llm.rate_limit import Permit
from xml_pipeline.llm.request import LLMChunk, LLMRequest, LLMResponse
from xml_pipeline.llm.routed import RoutedBackend

__all__ = ["StreamedAnswer"]


class StreamedAnswer:
    """Reads one backend's answer.

    Args:
        routed: the backend.
        permit: to call it; settled or refunded by `close` at the latest.
        request: what is asked.
        clock: the time.
    """

    def __init__(self, routed: RoutedBackend, permit: Permit, request: LLMRequest, clock: Clock) -> None:
        self.routed = routed
        self._permit = permit
        self._request = request
        self._clock = clock
        self._began = clock.time()
        self._chunks: AsyncIterator[LLMChunk] | None = None
        self._characters = 0
        self._response: LLMResponse | None = None

    async def read(self) -> LLMChunk:
        """The next piece that has something in it; the last one has the whole answer.

        Raises:
            BackendError: the backend failed.
        """
        try:
            if self._chunks is None:
                self._chunks = aiter(self.routed.backend.stream(self._request))
            while True:
                chunk = await self._next(self._chunks)
                if chunk.response is not None or chunk.text:
                    break
        except BackendError as error:
            self.routed.failed(error)
            raise
        except Exception as error:
            raise self.routed.failed(error) from error
        self._characters += len(chunk.text)
        if chunk.response is not None:
            self._response = chunk.response
            self._permit.settle(used_by(self._request, chunk.response).total)
        return chunk

    async def _next(self, chunks: AsyncIterator[LLMChunk]) -> LLMChunk:
        try:
            chunk = await anext(chunks)
        except StopAsyncIteration:
            raise MalformedResponse(f"Malformed stream of {self.routed.name!r}: it ended without an answer") from None
        if not isinstance(chunk, LLMChunk):
            raise BackendError(f"the backend {self.routed.name!r} streams a {type(chunk).__name__}, not an LLMChunk")
        return chunk

    @property
    def latency_ms(self) -> float:
        """Milliseconds since it was asked for."""
        return (self._clock.time() - self._began) * 1000

    def used(self) -> Used | None:
        """What it used. Of an answer that was left in the middle, the pieces that came count, because the provider
        counts them, too; ``None`` if nothing came."""
        if self._response is not None:
            return used_by(self._request, self._response)
        if self._characters:
            return Used(prompt_tokens(self._request), tokens(self._characters), is_estimated=True)
        return None

    async def close(self) -> None:
        """Read no further. The backend closes its connection."""
        used = self.used()
        if used is None:
            self._permit.refund()
        else:
            self._permit.settle(used.total)
        aclose = getattr(self._chunks, "aclose", None)
        if aclose is not None:
            try:
                await aclose()
            except Exception as error:  # the answer is there, or is not wanted any more
                self.routed.failed(error)
