"""Both dialects, for tests of what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xml_pipeline.llm.anthropic import AnthropicBackend
from xml_pipeline.llm.http_backend import HttpBackend
from xml_pipeline.llm.openai_compatible import OpenAICompatibleBackend
from xml_pipeline.llm.request import LLMChunk, LLMRequest, LLMResponse

from .bad_server import (
    BadServer,
    anthropic_answer,
    anthropic_event,
    anthropic_stream,
    openai_answer,
    openai_chunk,
    openai_stream,
)

KEY = "sk-Zq7Vt93-kLm_w0PxYb84TnRd"
"""Not a key of anybody."""


@dataclass(frozen=True)
class Dialect:
    name: str
    model: str
    make: Callable[..., HttpBackend]
    answer: Callable[[str], dict[str, Any]]
    stream: Callable[[], list[bytes]]
    text_event: Callable[[str], bytes]

    def backend(self, server: BadServer, **options: Any) -> HttpBackend:
        return self.make(**{"base_url": server.url, "api_key": KEY, "timeout": 20.0, **options})

    def request(self, text: str = "Hi", **options: Any) -> LLMRequest:
        return LLMRequest(**{"messages": [{"role": "user", "content": text}], "model": self.model, **options})

    def __str__(self) -> str:
        return self.name


OPENAI = Dialect(
    "openai",
    "grok-3",
    lambda **options: OpenAICompatibleBackend("xai", **options),
    openai_answer,
    openai_stream,
    lambda text: openai_chunk({"content": text}),
)
ANTHROPIC = Dialect(
    "anthropic",
    "claude-sonnet-4-5",
    lambda **options: AnthropicBackend(**options),
    lambda text: anthropic_answer({"type": "text", "text": text}),
    anthropic_stream,
    lambda text: anthropic_event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}),
)
BOTH = (OPENAI, ANTHROPIC)


async def streamed(backend: HttpBackend, request: LLMRequest) -> tuple[list[str], LLMResponse]:
    """The texts of a stream, and the answer that its last piece carries."""
    chunks: list[LLMChunk] = [chunk async for chunk in backend.stream(request)]
    assert [chunk.response for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].response is not None
    return [chunk.text for chunk in chunks[:-1]], chunks[-1].response
