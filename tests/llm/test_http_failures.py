"""What a server can do to a call, in both dialects, and what becomes of the call."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from xml_pipeline.llm import http
from xml_pipeline.llm.errors import (
    BackendError,
    MalformedResponse,
    ProviderError,
    RateLimitError,
    RequestRefused,
)
from xml_pipeline.llm.http_backend import HttpBackend

from .bad_server import (
    SSE_HEAD,
    BadServer,
    Behaviour,
    Connection,
    Received,
    chunked,
    cut_before_headers,
    cut_in_body,
    cut_in_headers,
    event,
    events,
    head,
    raw,
    respond,
)
from .dialects import BOTH, Dialect, streamed

JSON_HEAD = head(200, {"content-type": "application/json"})


@pytest.fixture(params=BOTH, ids=str)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


@pytest.fixture
async def backend(dialect: Dialect, server: BadServer) -> AsyncIterator[HttpBackend]:
    backend = dialect.backend(server)
    yield backend
    await backend.close()


@pytest.fixture
async def hasty(dialect: Dialect, server: BadServer) -> AsyncIterator[HttpBackend]:
    """A backend that gives an answer a fraction of a second."""
    backend = dialect.backend(server, timeout=0.15)
    yield backend
    await backend.close()


@pytest.fixture
async def nervous(dialect: Dialect, server: BadServer) -> AsyncIterator[HttpBackend]:
    """A backend that bears no silence."""
    backend = dialect.backend(server, stream_timeout=0.3)
    yield backend
    await backend.close()


async def failures(backend: HttpBackend, dialect: Dialect) -> list[BackendError]:
    """The errors of a whole answer and of a stream, with the same behaviour."""
    errors: list[BackendError] = []
    for call in (backend.complete(dialect.request()), streamed(backend, dialect.request())):
        with pytest.raises(BackendError) as caught:
            await call
        errors.append(caught.value)
    return errors


def told(message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": "some_error", "message": message}}


# -- statuses


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("", None)])
async def test_429(server, backend, dialect, header, seconds):
    server.will(respond(429, told("slow down"), headers={"retry-after": header} if header else {}))
    for error in await failures(backend, dialect):
        assert type(error) is RateLimitError
        assert str(error) == f"{backend.name}: HTTP 429: slow down"
        assert error.retry_after == seconds
        assert error.retry_allowed


async def test_429_with_a_date(server, backend, dialect):
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    server.will(respond(429, told("slow down"), headers={"retry-after": date}))
    for error in await failures(backend, dialect):
        assert isinstance(error, RateLimitError)
        assert error.retry_after is not None and 500 < error.retry_after <= 600


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529, 599, 408, 409, 425])
async def test_statuses_that_may_pass(server, backend, dialect, status):
    server.will(respond(status, told("overloaded"), headers={"retry-after": "3"}))
    for error in await failures(backend, dialect):
        assert type(error) is ProviderError
        assert (error.status_code, error.retry_after) == (status, 3.0)
        assert str(error) == f"{backend.name}: HTTP {status}: overloaded"
        assert error.retry_allowed


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 418, 422, 451])
async def test_statuses_that_do_not_pass(server, backend, dialect, status):
    server.will(respond(status, told("no such model"), headers={"retry-after": "3"}))
    for error in await failures(backend, dialect):
        assert type(error) is RequestRefused
        assert error.status_code == status
        assert str(error) == f"{backend.name}: HTTP {status}: no such model"
        assert not error.retry_allowed


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(server, backend, dialect, status):
    elsewhere = respond(status, b"", headers={"location": f"{server.url}/elsewhere"})
    server.will(elsewhere, respond(200, dialect.answer("Hello")))
    with pytest.raises(RequestRefused, match=f"HTTP {status}: redirects are not followed") as caught:
        await backend.complete(dialect.request())
    assert caught.value.status_code == status
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [201, 202, 204, 206])
async def test_other_kinds_of_success(server, backend, dialect, status):
    body = b"" if status == 204 else dialect.answer("Hello")
    server.will(respond(status, body))
    for error in await failures(backend, dialect):
        assert type(error) is MalformedResponse
        assert str(error) == f"Malformed response of {backend.name}: HTTP {status} instead of 200"


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b'{"error": {"message": "why"}}', "application/json", "why"),
        (b'{"error": "why"}', "application/json", "why"),
        (b'{"message": "why"}', "application/json", "why"),
        (b'{"detail": "why"}', "application/json", "why"),
        (b'"why"', "application/json", "why"),
        (b'{"error": {"error": {"message": "why"}}}', "application/json", "why"),
        (b'{"error": {"code": 7}, "message": "why"}', "application/json", "why"),
        (b'{"error": {"message": "a\\nlong\\u0007 text"}}', "application/json", "a long\ufffd text"),
        (b'{"error": {"message": "' + b"x" * 5000 + b'"}}', "application/json", "x" * 297 + "..."),
        (b"why", "text/plain", "why"),
        (b"why", "text/plain; charset=utf-8", "why"),
        (b"\xff\x00", "text/plain", "\ufffd\ufffd"),
        (b"<html><h1>Bad Gateway</h1></html>", "text/html", ""),
        (b"{", "application/json", ""),
        (b"[]", "application/json", ""),
        (b"null", "application/json", ""),
        (b'{"error": 7}', "application/json", ""),
        (b"", "application/json", ""),
        (b"", "", ""),
    ],
)
async def test_what_the_server_says_about_an_error(server, backend, dialect, body, content_type, said):
    server.will(respond(500, body, content_type=content_type))
    for error in await failures(backend, dialect):
        assert str(error) == f"{backend.name}: HTTP 500" + (f": {said}" if said else "")


# -- connections


async def test_nobody_is_there(dialect):
    async with BadServer() as server:
        backend = dialect.backend(server)
    for error in await failures(backend, dialect):
        assert type(error) is ProviderError
        assert str(error).startswith(f"{backend.name}: cannot connect")
        assert (error.status_code, error.retry_allowed) == (0, True)
    await backend.close()


@pytest.mark.parametrize(
    "behaviour",
    [
        cut_before_headers(),
        cut_in_headers(),
        cut_in_body(),
        raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 200_000),
        raw(head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}) + b"zz\r\n"),
        raw(head(500, {"content-type": "application/json", "content-length": "100"}) + b"{"),
    ],
)
async def test_connections_that_break(server, backend, dialect, behaviour):
    server.will(behaviour)
    with pytest.raises(ProviderError, match="the connection broke") as caught:
        await backend.complete(dialect.request())
    assert (caught.value.status_code, caught.value.retry_allowed) == (0, True)


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
@pytest.mark.parametrize("framing", [lambda items: events(*items), lambda items: chunked(*items, end=False)])
async def test_a_stream_that_is_cut(server, backend, dialect, kept, framing):
    """With and without a framing that shows it."""
    server.will(framing(dialect.stream()[:kept]))
    with pytest.raises(ProviderError, match=r"the connection broke|the stream was cut before the answer was complete"):
        await streamed(backend, dialect.request())


async def test_a_stream_that_is_cut_inside_of_an_event(server, backend, dialect):
    items = dialect.stream()
    server.will(events(*items[:3], items[3][:-1]))
    with pytest.raises(ProviderError, match="the stream was cut before the answer was complete"):
        await streamed(backend, dialect.request())


async def test_the_next_call_works_after_each_failure(server, backend, dialect):
    for bad in (cut_before_headers(), cut_in_body(), respond(500), respond(200, b"{")):
        server.will(bad, respond(200, dialect.answer("Hello")))
        with pytest.raises(BackendError):
            await backend.complete(dialect.request())
        assert (await backend.complete(dialect.request())).content == "Hello"


# -- time


def slow(server: BadServer, how: str) -> Behaviour:
    return {
        "no headers": server.hang(),
        "half the headers": server.hang(b"HTTP/1.1 200 OK\r\ncontent-ty"),
        "dripping headers": server.drip(b"HTTP/1.1 200 OK\r\nx: ", b"x"),
        "no body": server.hang(JSON_HEAD),
        "dripping body": server.drip(JSON_HEAD, b" "),
        "an error without a body": server.hang(head(500, {"content-type": "application/json"})),
        "a dripping error": server.drip(head(429, {"content-type": "application/json"}), b" "),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "no headers",
        "half the headers",
        "dripping headers",
        "no body",
        "dripping body",
        "an error without a body",
        "a dripping error",
    ],
)
async def test_an_answer_that_takes_too_long(server: BadServer, hasty, dialect, how):
    server.will(slow(server, how))
    with pytest.raises(ProviderError) as caught:
        await hasty.complete(dialect.request())
    assert str(caught.value) == f"{hasty.name}: the answer is not complete within 0.15 s"
    assert caught.value.status_code == 0
    if server.received:  # which may be none, on a machine that is busy
        await server.gone.wait()  # and the connection is closed


@pytest.mark.parametrize("how", ["no headers", "no body", "an error without a body"])
async def test_a_stream_that_is_silent(server: BadServer, nervous, dialect, how):
    server.will(server.hang(SSE_HEAD) if how == "no body" else slow(server, how))
    with pytest.raises(ProviderError) as caught:
        await streamed(nervous, dialect.request())
    assert str(caught.value) == f"{nervous.name}: nothing came for 0.3 s"
    if server.received:
        await server.gone.wait()


@pytest.mark.parametrize("drop", [b":\n", b"\n", b"x", event({"type": "ping", "choices": []})])
async def test_a_stream_that_never_ends(server: BadServer, hasty, dialect, drop):
    """Something comes all the time, and never an end."""
    server.will(server.drip(SSE_HEAD, drop))
    with pytest.raises(ProviderError) as caught:
        await streamed(hasty, dialect.request())
    assert str(caught.value) == f"{hasty.name}: the answer is not complete within 0.15 s"
    if server.received:
        await server.gone.wait()


async def test_a_stream_that_falls_silent_in_the_middle(server: BadServer, nervous, dialect):
    server.will(server.hang(SSE_HEAD + b"".join(dialect.stream()[:-2])))
    chunks = nervous.stream(dialect.request())
    assert [(await anext(chunks)).text, (await anext(chunks)).text] == ["Hel", "lo"]
    with pytest.raises(ProviderError, match=r"nothing came for 0.3 s"):
        await anext(chunks)
    await server.gone.wait()


async def test_the_time_that_the_reader_takes_does_not_count(server: BadServer, dialect):
    """A slow consumer is no slow server."""
    server.will(events(*dialect.stream()))
    backend = dialect.backend(server, timeout=5.0, stream_timeout=5.0)
    loop = asyncio.get_running_loop()
    real = loop.time
    late = 0.0
    texts = []
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(loop, "time", lambda: real() + late)
        async for chunk in backend.stream(dialect.request()):
            texts.append(chunk.text)
            late += 3600.0
    assert texts == ["Hel", "lo", ""]
    await backend.close()


# -- leaving


async def test_leaving_a_stream_closes_the_connection(server: BadServer, backend, dialect):
    server.will(server.hang(SSE_HEAD + b"".join(dialect.stream()[:-2])))
    async with aclosing(backend.stream(dialect.request())) as chunks:
        async for chunk in chunks:
            assert chunk.text == "Hel"
            break
    await server.gone.wait()


async def test_breaking_out_of_the_loop_closes_the_connection_too(server: BadServer, backend, dialect):
    server.will(server.hang(SSE_HEAD + b"".join(dialect.stream()[:-2])))
    async for chunk in backend.stream(dialect.request()):
        assert chunk.text == "Hel"
        break
    gc.collect()
    await server.gone.wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_a_call_closes_the_connection(server: BadServer, backend, dialect, stream):
    at_work = asyncio.Event()

    async def behave(request: Received, connection: Connection) -> None:
        at_work.set()
        await server.hang(SSE_HEAD if stream else JSON_HEAD)(request, connection)

    server.will(behave)
    request = dialect.request()
    task = asyncio.create_task(streamed(backend, request) if stream else backend.complete(request))
    await at_work.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.gone.wait()
    server.will(respond(200, dialect.answer("Hello")))
    assert (await backend.complete(request)).content == "Hello"


@pytest.mark.parametrize("stream", [False, True])
async def test_closing_the_backend_ends_what_is_under_way(server: BadServer, backend, dialect, stream):
    at_work = asyncio.Event()

    async def behave(request: Received, connection: Connection) -> None:
        at_work.set()
        await server.hang(SSE_HEAD if stream else JSON_HEAD)(request, connection)

    server.will(behave)
    request = dialect.request()
    task = asyncio.create_task(streamed(backend, request) if stream else backend.complete(request))
    await at_work.wait()
    await backend.close()
    with pytest.raises(RequestRefused, match="the backend was closed during the call"):
        await task
    await server.gone.wait()


# -- size


@pytest.mark.parametrize("status", [200, 500])
async def test_a_body_without_end(server: BadServer, backend, dialect, status):
    """It is read up to a limit, and the connection is closed."""
    server.will(server.flood(head(status, {"content-type": "application/json"}), b" " * 65_536))
    with pytest.raises(BackendError) as caught:
        await backend.complete(dialect.request())
    expected = (
        f"Malformed response of {backend.name}: it is larger than {http.MAX_RESPONSE_BODY:,} bytes"
        if status == 200
        else f"{backend.name}: HTTP 500"
    )
    assert str(caught.value) == expected
    await server.gone.wait()


async def test_a_body_as_large_as_is_allowed(server: BadServer, backend, dialect, monkeypatch):
    body = respond(200, dialect.answer("x" * 5000))
    server.will(body)
    await backend.complete(dialect.request())
    monkeypatch.setattr(http, "MAX_RESPONSE_BODY", 5000)
    with pytest.raises(MalformedResponse, match="it is larger than 5,000 bytes"):
        await backend.complete(dialect.request())


@pytest.mark.parametrize("wave", [b"x" * 65_536, b"data: x\n" * 8192])
async def test_an_event_without_end(server: BadServer, backend, dialect, wave):
    server.will(server.flood(SSE_HEAD, wave))
    with pytest.raises(MalformedResponse, match="an event is larger than"):
        await streamed(backend, dialect.request())
    await server.gone.wait()


async def test_a_stream_of_events_without_end(server: BadServer, backend, dialect, monkeypatch):
    monkeypatch.setattr(http, "_MAX_STREAM", 1_000_000)
    server.will(server.flood(SSE_HEAD, dialect.text_event("x" * 1000) * 10))
    with pytest.raises(MalformedResponse, match="the stream is longer than 1,000,000 bytes"):
        await streamed(backend, dialect.request())
    await server.gone.wait()


# -- kinds


@pytest.mark.parametrize(
    "content_type", ["text/html", "text/plain", "text/event-stream", "application/xml", "x" * 5000]
)
async def test_an_answer_of_another_kind(server, backend, dialect, content_type):
    server.will(respond(200, dialect.answer("Hello"), content_type=content_type))
    with pytest.raises(MalformedResponse, match=r"^Malformed response of .*: its content type is .*, not json$") as got:
        await backend.complete(dialect.request())
    assert len(str(got.value)) < 200


@pytest.mark.parametrize("content_type", ["application/json; charset=x", "APPLICATION/JSON", "application/x+json", ""])
async def test_answers_that_are_json(server, backend, dialect, content_type):
    server.will(respond(200, dialect.answer("Hello"), content_type=content_type))
    assert (await backend.complete(dialect.request())).content == "Hello"


@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
async def test_a_stream_of_another_kind(server, backend, dialect, content_type):
    server.will(respond(200, dialect.answer("Hello"), content_type=content_type))
    with pytest.raises(MalformedResponse, match=r"its content type is .*, not text/event-stream"):
        await streamed(backend, dialect.request())


async def test_a_stream_of_another_kind_is_not_kept_open(server: BadServer, backend, dialect):
    server.will(server.hang(head(200, {"content-type": "text/html"})))
    with pytest.raises(MalformedResponse, match="its content type is"):
        await streamed(backend, dialect.request())
    await server.gone.wait()


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "gzip, identity"])
async def test_a_compressed_answer_is_not_unpacked(server, backend, dialect, encoding):
    """A few bytes could become gigabytes; it was not asked for."""
    server.will(respond(200, b"\x1f\x8b\x08", headers={"content-encoding": encoding}))
    with pytest.raises(MalformedResponse, match="it is compressed, which was not asked for"):
        await backend.complete(dialect.request())


async def test_it_may_say_that_it_is_not_compressed(server, backend, dialect):
    server.will(respond(200, dialect.answer("Hello"), headers={"content-encoding": "identity"}))
    assert (await backend.complete(dialect.request())).content == "Hello"


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine that nobody has signed, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(signed.public_bytes(Encoding.PEM) + private)
    return path


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "hTTps"])
async def test_a_certificate_that_is_not_trusted(dialect, certificate, monkeypatch, scheme):
    """Nothing is sent there, least of all the key; it can be trusted through the environment."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with BadServer(tls) as server:
        server.will(respond(200, dialect.answer("Hello")))
        url = f"{scheme}://localhost:{server.port}/v1"
        backend = dialect.backend(server, base_url=url)
        for error in await failures(backend, dialect):
            assert type(error) is ProviderError
            assert "cannot connect" in str(error) and "CERTIFICATE_VERIFY_FAILED" in str(error)
        await backend.close()
        assert server.received == []
        trusting = dialect.backend(server, base_url=url, trust_env=True)
        assert (await trusting.complete(dialect.request())).content == "Hello"
        await trusting.close()


# -- many


async def test_cookies_are_not_kept(server, backend, dialect):
    server.will(respond(200, dialect.answer("Hello"), headers={"set-cookie": "a=b; Path=/"}))
    await backend.complete(dialect.request())
    await backend.complete(dialect.request())
    assert all("cookie" not in received.headers for received in server.received)


async def test_proxies_of_the_environment_are_not_used(server, backend, dialect, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.will(respond(200, dialect.answer("Hello")))
    assert (await backend.complete(dialect.request())).content == "Hello"
    trusting = dialect.backend(server, trust_env=True)
    with pytest.raises(ProviderError, match="cannot connect"):
        await trusting.complete(dialect.request())
    await trusting.close()


async def test_many_calls_at_once(server, backend, dialect):
    """More than the HTTP library's pool holds by default, and none waits for another; each gets its own answer."""
    all_here = asyncio.Event()

    async def echo(request: Received, connection: Connection) -> None:
        if len(server.received) == 150:
            all_here.set()
        await all_here.wait()
        content = request.document["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        await respond(200, dialect.answer(text.upper()))(request, connection)

    server.will(echo)
    texts = [f"call {number}" for number in range(150)]
    answers = await asyncio.gather(*(backend.complete(dialect.request(text)) for text in texts))
    assert [answer.content for answer in answers] == [text.upper() for text in texts]


def test_one_backend_in_two_event_loops(dialect):
    """Connections belong to a loop; a backend does not."""
    backends: list[HttpBackend] = []

    async def call() -> str:
        async with BadServer() as server:
            server.will(respond(200, dialect.answer("Hello")))
            if not backends:
                backends.append(dialect.backend(server))
            backends[0]._http.base_url = server.url
            answer = await backends[0].complete(dialect.request())
            await backends[0]._http._clients[asyncio.get_running_loop()].aclose()
            return answer.content

    assert [asyncio.run(call()), asyncio.run(call())] == ["Hello", "Hello"]
