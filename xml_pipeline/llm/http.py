"""The HTTP of a model call: one POST, and its answer, whole or as a stream of events.

What it sees to, whatever a server does:

- A call ends within its ``timeout``, also when a byte comes every second; a stream ends when nothing comes for
  ``stream_timeout``.
- An answer takes a bounded amount of memory: bodies are read up to a limit, and are not decompressed (they are asked
  for as they are, and a few bytes could become gigabytes).
- Redirects are not followed, cookies are not kept, and proxies of the environment are used only when that is asked for.
- The key is in no error, and in no exception behind one: what the HTTP library raises holds the whole request, so our
  errors are raised after its handlers, not inside of them. Hence the functions that *return* an error.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from xml_pipeline.config.problems import one_line
from xml_pipeline.llm.errors import BackendError, MalformedResponse, ProviderError, RequestRefused
from xml_pipeline.llm.log_guard import LogGuard
from xml_pipeline.llm.patience import Patience
from xml_pipeline.llm.real_calls import check_real_call
from xml_pipeline.llm.refusals import failure_of
from xml_pipeline.llm.secret import Secret
from xml_pipeline.llm.sse import ServerSentEvent, SseParser

if TYPE_CHECKING:
    import httpx

__all__ = ["MAX_RESPONSE_BODY", "HttpCaller", "checked_base_url", "require_httpx"]

MAX_RESPONSE_BODY: Final = 16 * 1_048_576
"""Bytes of an answer. A text of `MAX_RESPONSE_CONTENT` characters has 6 MiB when all of them are escaped."""
_MAX_ERROR_BODY: Final = 65_536
_MAX_STREAM: Final = 1024 * 1_048_576
"""Bytes of a stream, of which none are kept. Every few characters come in an event of some hundred bytes."""
_HEADERS: Final = ("content-type", "content-encoding", "retry-after", "retry-after-ms", "date")
"""Those of an answer that are looked at."""
_CONNECT_TIMEOUT: Final = 10.0
"""Seconds to connect; a host that does not answer by then is down, and another backend may be tried."""


def require_httpx() -> None:
    """See that the HTTP library is there.

    Raises:
        ImportError: it is not; the text says how to install it.
    """
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise ImportError("model calls over HTTP need httpx: pip install 'xml-pipeline[llm]'") from None


def checked_base_url(base_url: str) -> str:
    """``base_url`` without a slash at its end.

    Raises:
        ValueError: it is no URL that paths can be put behind, or it holds a password or a key.
    """
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = None
    if not usable or not base_url.isascii() or any(char.isspace() for char in base_url):
        raise ValueError("base_url must be like https://host/v1 or http://localhost:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("base_url must have no user, password, query or fragment; a key is given as api_key")
    return base_url.rstrip("/")


# Neither shows what came: a server may repeat the key there, and tracebacks may be kept with their local variables.


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    """``None`` if it is larger than allowed."""


@dataclass(frozen=True, slots=True)
class _Stream:
    headers: Mapping[str, str] = field(repr=False)
    chunks: AsyncGenerator[bytes, None] = field(repr=False)


class HttpCaller:
    """Makes the calls of one backend.

    Args:
        source: the backend's name, for the texts of errors.
        base_url: what paths are put behind.
        secret: the API key.
        sign: the headers that carry a key.
        headers: further headers.
        timeout: seconds that a call may take in all; when streaming, that it may wait for the server in all.
        stream_timeout: seconds that a stream may be silent.
        trust_env: use the proxies and certificates that environment variables name.
    """

    def __init__(
        self,
        source: str,
        base_url: str,
        secret: Secret,
        *,
        sign: Callable[[str], Mapping[str, str]],
        headers: Mapping[str, str],
        timeout: float,
        stream_timeout: float,
        trust_env: bool,
    ) -> None:
        require_httpx()
        self.base_url = base_url
        self.timeout = timeout
        self.stream_timeout = stream_timeout
        self._source = source
        self._secret = secret
        self._sign = sign
        self._headers = dict(headers)
        self._trust_env = trust_env
        self._guard = LogGuard(secret)
        self._tls = _tls(base_url, trust_env)
        # Connections belong to the event loop that opened them.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
        self._closed = False

    async def post(self, path: str, document: Mapping[str, Any]) -> bytes:
        """Send ``document``, and return the body of the answer.

        Raises:
            BackendError: anything but an answer with status 200 and JSON in it, read to its end.
        """
        content = self._prepare(document)
        answer = await self._fetch(path, content)
        if isinstance(answer, BackendError):
            raise answer
        if answer.status != 200:
            raise failure_of(self._source, answer.status, answer.headers, answer.body, self._secret)
        if answer.body is None:
            raise self._malformed(f"it is larger than {MAX_RESPONSE_BODY:,} bytes")
        self._check_type(answer.headers, "json")
        return answer.body

    async def events(self, path: str, document: Mapping[str, Any]) -> AsyncGenerator[ServerSentEvent, None]:
        """Send ``document``, and yield the events of the answer. Close it, and the connection is closed.

        Raises:
            BackendError: as `post`; also when the connection breaks, or is silent for too long, in the middle.
        """
        content = self._prepare(document)
        patience = Patience(self._source, self.timeout, self.stream_timeout)
        parser = SseParser()
        received = 0
        async with AsyncExitStack() as stack:
            stream = await self._open(path, content, patience, stack)
            if isinstance(stream, BackendError):
                raise stream
            self._check_type(stream.headers, "text/event-stream")
            while (chunk := await self._pull(stream.chunks, patience)) is not None:
                if isinstance(chunk, BackendError):
                    raise chunk
                received += len(chunk)
                if received > _MAX_STREAM:
                    raise self._malformed(f"the stream is longer than {_MAX_STREAM:,} bytes")
                for event in parser.feed(chunk):
                    yield ServerSentEvent(event.event, self._secret.mask(event.data))

    async def close(self) -> None:
        """Close the connections; calls that are under way fail. Twice is allowed."""
        self._closed = True
        client = self._clients.pop(asyncio.get_running_loop(), None)
        self._clients.clear()
        self._guard.remove()
        if client is not None:
            await client.aclose()

    # -- sending ------------------------------------------------------------------------------------------------

    def _prepare(self, document: Mapping[str, Any]) -> bytes:
        # Through a proxy of the environment, not even localhost is this machine.
        check_real_call(self._source, "" if self._trust_env else self.base_url)
        if self._closed:
            raise RequestRefused(f"{self._source}: the backend is closed")
        content = _written(document)
        if isinstance(content, str):
            raise RequestRefused(f"{self._source}: the request cannot be written as JSON: {content}")
        return content

    def _client(self) -> httpx.AsyncClient:
        import httpx

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = httpx.AsyncClient(
                verify=self._tls,
                # Everything else is limited by `timeout`, which this one must not anticipate.
                timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT if self.timeout > _CONNECT_TIMEOUT else None),
                # The router bounds how many calls run; a pool that bounds them again would only make them wait unseen.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                trust_env=self._trust_env,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
            self._clients[loop] = client
            self._guard.install()
        return client

    def _request(self, client: httpx.AsyncClient, path: str, content: bytes) -> httpx.Request:
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "user-agent": "xml-pipeline",
            **self._headers,
        }
        return client.build_request("POST", self.base_url + path, content=content, headers=headers)

    def _signed(self, request: httpx.Request) -> httpx.Request:
        """Put the key in, at the last moment: before that, no variable of ours holds it."""
        if self._secret:
            request.headers.update(self._sign(self._secret.reveal()))
        return request

    # -- receiving ----------------------------------------------------------------------------------------------

    async def _fetch(self, path: str, content: bytes) -> _Answer | BackendError:
        import httpx

        try:
            async with asyncio.timeout(self.timeout), AsyncExitStack() as stack:
                client = self._client()
                response = await client.send(self._request(client, path, content), auth=self._signed, stream=True)
                stack.push_async_callback(response.aclose)
                return await self._read(response)
        except TimeoutError:
            return ProviderError(f"{self._source}: the answer is not complete within {self.timeout:g} s")
        except (httpx.HTTPError, httpx.StreamError, OSError, RuntimeError) as exc:
            return self._broken(exc)

    async def _open(
        self, path: str, content: bytes, patience: Patience, stack: AsyncExitStack
    ) -> _Stream | BackendError:
        """The answer, of which nothing but the headers is read; its connection is closed by ``stack``."""
        import httpx

        try:
            async with patience.waiting():
                client = self._client()
                response = await client.send(self._request(client, path, content), auth=self._signed, stream=True)
                stack.push_async_callback(response.aclose)
                if response.status_code == 200:
                    chunks = await stack.enter_async_context(aclosing(_raw(response)))
                    return _Stream(self._masked(response.headers), chunks)
                answer = await self._read(response)
        except TimeoutError:
            return patience.failure()
        except (httpx.HTTPError, httpx.StreamError, OSError, RuntimeError) as exc:
            return self._broken(exc)
        return failure_of(self._source, answer.status, answer.headers, answer.body, self._secret)

    async def _pull(self, chunks: AsyncIterator[bytes], patience: Patience) -> bytes | BackendError | None:
        """The next bytes; ``None`` at the end."""
        import httpx

        try:
            async with patience.waiting():
                return await anext(chunks, None)
        except TimeoutError:
            return patience.failure()
        except (httpx.HTTPError, httpx.StreamError, OSError, RuntimeError) as exc:
            return self._broken(exc)

    async def _read(self, response: httpx.Response) -> _Answer:
        most = MAX_RESPONSE_BODY if response.status_code == 200 else _MAX_ERROR_BODY
        headers = self._masked(response.headers)
        body = bytearray()
        async with aclosing(_raw(response)) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > most:
                    return _Answer(response.status_code, headers, None)
        return _Answer(response.status_code, headers, self._secret.mask_bytes(bytes(body)))

    def _masked(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: self._secret.mask(headers.get(name, "")) for name in _HEADERS}

    def _check_type(self, headers: Mapping[str, str], expected: str) -> None:
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise self._malformed("it is compressed, which was not asked for")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and expected not in kind:
            raise self._malformed(f"its content type is {one_line(self._secret.scrub(kind))!r:.80}, not {expected}")

    # -- failing ------------------------------------------------------------------------------------------------

    def _malformed(self, text: str) -> MalformedResponse:
        return MalformedResponse(f"Malformed response of {self._source}: {text}")

    def _broken(self, exc: Exception) -> BackendError:
        """What the HTTP library raised, as an error of ours that does not refer to it."""
        import httpx

        if self._closed:
            return RequestRefused(f"{self._source}: the backend was closed during the call")
        detail = self._secret.scrub(one_line(str(exc)))
        if isinstance(exc, httpx.ConnectTimeout):
            what = f"cannot connect within {_CONNECT_TIMEOUT:g} s"
        elif isinstance(exc, httpx.ConnectError | httpx.ProxyError):
            what = "cannot connect"
        elif isinstance(exc, httpx.TransportError):
            what = "the connection broke"
        else:
            what = type(exc).__name__
        return ProviderError(f"{self._source}: {what}" + (f": {detail}" if detail else ""))


def _tls(base_url: str, trust_env: bool) -> ssl.SSLContext | bool:
    """The certificates that are trusted. Reading them blocks for some hundredths of a second: better now than in the
    first call. Without TLS, which no answer can switch to as redirects are not followed, there is nothing to verify."""
    import httpx

    if urlsplit(base_url).scheme == "http":
        return False
    return httpx.create_ssl_context(verify=True, trust_env=trust_env)


def _raw(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """What comes, as it comes: neither decompressed nor joined."""
    return cast("AsyncGenerator[bytes, None]", response.aiter_raw())


def _written(document: Mapping[str, Any]) -> bytes | str:
    """``document`` as JSON; or, as a text, why it cannot be written."""
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError) as exc:
        return one_line(str(exc))
