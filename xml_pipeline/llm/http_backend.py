"""`HttpBackend`: a backend that speaks a `Dialect` over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol, Unpack

from xml_pipeline.llm.backend import BackendOptions, ModelBackend, seconds
from xml_pipeline.llm.http import HttpCaller, checked_base_url
from xml_pipeline.llm.providers import Provider
from xml_pipeline.llm.request import LLMChunk, LLMRequest, LLMResponse
from xml_pipeline.llm.secret import Secret, read_key
from xml_pipeline.llm.sse import ServerSentEvent

__all__ = ["AnswerReader", "Dialect", "DialectMaker", "HttpBackend", "HttpOptions"]

_TIMEOUT: Final = 120.0
_STREAM_TIMEOUT: Final = 60.0


class AnswerReader(Protocol):
    """Puts a streamed answer together."""

    done: bool
    """The provider has said that this was all."""

    def feed(self, event: ServerSentEvent) -> str:
        """Take an event; the text that is new in it."""
        ...

    def finish(self) -> LLMResponse:
        """The whole answer; raises `ProviderError` if the stream ended before it did."""
        ...


class Dialect(Protocol):
    """How a request is written, and an answer read."""

    path: str
    """Behind the base URL."""
    headers: Mapping[str, str]
    """What every request carries."""

    def sign(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key."""
        ...

    def encode(self, request: LLMRequest, *, stream: bool) -> dict[str, Any]:
        """The request's JSON."""
        ...

    def decode(self, request: LLMRequest, body: bytes) -> LLMResponse:
        """The answer that a body holds."""
        ...

    def reader(self, request: LLMRequest) -> AnswerReader:
        """For a streamed answer."""
        ...


class HttpOptions(BackendOptions, total=False):
    """What can be said of every backend that speaks HTTP; see `HttpBackend`."""

    api_key: str | None
    api_key_env: str | None
    base_url: str | None
    timeout: float
    stream_timeout: float
    trust_env: bool
    environment: Mapping[str, str] | None


DialectMaker = Callable[[str, Secret], Dialect]
"""Given the backend's name and key, how it speaks."""


class HttpBackend(ModelBackend):
    """A provider's server.

    Args:
        provider: who it is, and what is known of it.
        make_dialect: makes what it speaks.
        api_key: the key.
        api_key_env: the environment variable that holds the key.
        base_url: another server than the provider's own, up to and including ``/v1``.
        timeout: seconds that a call may take in all, default 120; when streaming, that it may wait for the server in
            all.
        stream_timeout: seconds that a stream may be silent, default 60.
        trust_env: use the proxies and certificates that environment variables name; default no.
        environment: the variables for ``api_key_env``; default: those of the process.
        **options: as for `ModelBackend`.

    Raises:
        ValueError: the key is missing, or a setting is wrong.
        ImportError: the HTTP library is not installed.
    """

    def __init__(
        self,
        provider: Provider,
        make_dialect: DialectMaker,
        *,
        api_key: str | None = None,
        api_key_env: str | None = None,
        base_url: str | None = None,
        timeout: float = _TIMEOUT,
        stream_timeout: float = _STREAM_TIMEOUT,
        trust_env: bool = False,
        environment: Mapping[str, str] | None = None,
        **options: Unpack[BackendOptions],
    ) -> None:
        super().__init__(provider.name, provider.prefixes, **options)
        secret = read_key(provider.name, api_key, api_key_env, required=provider.needs_key, environment=environment)
        self._dialect = make_dialect(self.name, secret)
        self._http = HttpCaller(
            self.name,
            checked_base_url(provider.url(base_url)),
            secret,
            sign=self._dialect.sign,
            headers=self._dialect.headers,
            timeout=seconds("timeout", timeout),
            stream_timeout=seconds("stream_timeout", stream_timeout),
            trust_env=trust_env,
        )

    @property
    def base_url(self) -> str:
        """What paths are put behind."""
        return self._http.base_url

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """The whole answer.

        Raises:
            BackendError: of the kind that says what to do about it.
        """
        document = self._dialect.encode(request, stream=False)
        body = await self._http.post(self._dialect.path, document)
        return self._dialect.decode(request, body)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """The answer piece by piece; the last piece carries the whole. Leave the loop, and the connection is closed.

        Raises:
            BackendError: of the kind that says what to do about it; also in the middle.
        """
        document = self._dialect.encode(request, stream=True)
        reader = self._dialect.reader(request)
        async with aclosing(self._http.events(self._dialect.path, document)) as events:
            async for event in events:
                text = reader.feed(event)
                if text:
                    yield LLMChunk(text)
                if reader.done:
                    break
        yield LLMChunk(response=reader.finish())

    async def close(self) -> None:
        """Close the connections; calls that are under way fail. Twice is allowed."""
        await self._http.close()
