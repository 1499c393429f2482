"""A key is in no text: whatever a server does, and however it repeats what it was sent."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from xml_pipeline.llm.errors import BackendError, RealCallsForbidden
from xml_pipeline.llm.http_backend import HttpBackend
from xml_pipeline.llm.real_calls import forbid_real_calls

from .bad_server import (
    SSE_HEAD,
    BadServer,
    Behaviour,
    Connection,
    Received,
    cut_before_headers,
    cut_in_body,
    cut_in_headers,
    event,
    head,
    raw,
    respond,
)
from .dialects import BOTH, KEY, Dialect, streamed

OTHER_FORMS = (KEY.lower(), KEY.upper(), base64.b64encode(KEY.encode()).decode(), KEY[:12], KEY[-12:])


@pytest.fixture(params=BOTH, ids=str)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


@pytest.fixture
async def backend(dialect: Dialect, server: BadServer) -> AsyncIterator[HttpBackend]:
    backend = dialect.backend(server, timeout=0.3, stream_timeout=0.2)
    yield backend
    await backend.close()


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection", "asyncio", "xml_pipeline"):
        caplog.set_level(logging.DEBUG, logger=name)


def keyless(text: str) -> bool:
    return not any(form in text for form in (KEY, *OTHER_FORMS))


def chain(error: BaseException | None) -> list[BaseException]:
    """The error, and every one behind it, whether it would be shown or not."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def told(error: BaseException) -> str:
    """What an error says: its text, arguments, attributes, notes, and the traceback."""
    texts = [str(error), repr(error), repr(error.args), repr(vars(error)), *getattr(error, "__notes__", [])]
    return "\n".join([*texts, *traceback.format_exception(error)])


def variables(error: BaseException) -> str:
    """The local variables of our code, as tools that keep them with a traceback show them."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in shown.stack if "xml_pipeline/llm" in frame.filename]
    assert ours
    return "\n".join(value for frame in ours for value in (frame.locals or {}).values())


def sayings(key: str) -> dict[str, Any]:
    """Ways to repeat a key."""
    return {
        "openai": {"error": {"message": f"Incorrect API key provided: {key}", "type": "invalid_request_error"}},
        "anthropic": {"type": "error", "error": {"type": "authentication_error", "message": f"invalid {key}"}},
        "a text": {"error": f"bad key {key}"},
        "the headers": {"detail": json.dumps({"authorization": f"Bearer {key}", "x-api-key": key})},
        "a part": {"message": f"keys like {key[:12]}...{key[-12:]} are old"},
        "another case": {"message": f"{key.upper()} {key.lower()}"},
        "base64": {"message": base64.b64encode(key.encode()).decode()},
        "escaped": json.dumps({"message": key}).replace(key, "".join(f"\\u{ord(char):04x}" for char in key)).encode(),
        "at a cut": {"message": "x" * 290 + key},
        "later": {"message": "x" * 5000 + key},
    }


def repeating(shape: Callable[[str], Any], status: int, **options: Any) -> Behaviour:
    """A server that repeats the key it was sent."""

    async def behave(request: Received, connection: Connection) -> None:
        key = (request.headers.get("authorization") or request.headers["x-api-key"]).removeprefix("Bearer ")
        assert key == KEY
        for name in ("reason", "headers"):
            if name in options and callable(options[name]):
                options[name] = options[name](key)
        await respond(status, shape(key), **options)(request, connection)

    return behave


async def errors_of(backend: HttpBackend, dialect: Dialect) -> list[BackendError]:
    errors: list[BackendError] = []
    for call in (backend.complete(dialect.request()), streamed(backend, dialect.request())):
        with pytest.raises(BackendError) as caught:
            await call
        errors.append(caught.value)
    return errors


def check(errors: list[BackendError], caplog: pytest.LogCaptureFixture, *, with_variables: bool = True) -> None:
    for error in errors:
        assert len(chain(error)) == 1, "the library's own exception, which holds the request, is behind ours"
        assert keyless(told(error))
        if with_variables:
            assert KEY not in variables(error)
    assert caplog.records
    assert keyless(caplog.text)
    assert all(keyless(repr(vars(record))) for record in caplog.records)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 529, 302])
@pytest.mark.parametrize("how", sayings(KEY))
async def test_a_server_that_repeats_the_key(server, backend, dialect, caplog, how, status):
    server.will(repeating(lambda key: sayings(key)[how], status))
    # An escaped key is recognised when the JSON is read, and is then in the variables of the code that reads it.
    check(await errors_of(backend, dialect), caplog, with_variables=how != "escaped" or status != 200)


@pytest.mark.parametrize("content_type", ["text/plain", "text/html", "", "application/json"])
async def test_a_server_that_repeats_the_request(server, backend, dialect, caplog, content_type):
    def all_of_it(key: str) -> bytes:
        return f"POST / HTTP/1.1\r\nauthorization: Bearer {key}\r\nx-api-key: {key}\r\n".encode()

    server.will(repeating(all_of_it, 400, content_type=content_type))
    check(await errors_of(backend, dialect), caplog)


@pytest.mark.parametrize("status", [200, 401])
async def test_a_server_that_repeats_the_key_outside_of_the_body(server, backend, dialect, caplog, status):
    """In the status line, in headers: what the HTTP library logs."""
    server.will(
        repeating(
            lambda key: b"{",
            status,
            reason=lambda key: f"Bad {key}",
            headers=lambda key: {"x-key": key, "retry-after": key, "location": f"http://elsewhere/?{key}"},
        )
    )
    check(await errors_of(backend, dialect), caplog)
    assert "***" in caplog.text


async def test_a_server_that_repeats_the_key_as_the_kind_of_its_answer(server, backend, dialect, caplog):
    server.will(repeating(lambda key: b"{}", 200, headers=lambda key: {"content-type": f"text/{key}"}, content_type=""))
    check(await errors_of(backend, dialect), caplog)


async def test_a_server_that_repeats_the_key_where_no_header_is(server, backend, dialect, caplog):
    """The HTTP library quotes the line that it cannot read."""
    server.will(raw(f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode()))
    check(await errors_of(backend, dialect), caplog)


@pytest.mark.parametrize(
    "data",
    [
        {"error": {"message": f"bad {KEY}"}},
        {"type": "error", "error": {"type": "authentication_error", "message": f"bad {KEY}"}},
        f"{{{KEY}",
        {"type": KEY, "choices": KEY},
        {"type": "message_start", "message": KEY, "choices": [{"delta": KEY}]},
    ],
)
async def test_a_stream_that_repeats_the_key(server, backend, dialect, caplog, data):
    server.will(raw(SSE_HEAD + event(data)))
    with pytest.raises(BackendError) as caught:
        await streamed(backend, dialect.request())
    check([caught.value], caplog)


@pytest.mark.parametrize(
    "behaviour",
    [
        cut_before_headers(),
        cut_in_headers(),
        cut_in_body(),
        respond(200, b"{"),
        respond(200, {}),
        respond(200, b"", content_type="text/html"),
        respond(302, b"", headers={"location": "/"}),
        respond(401, {"error": {"message": "who are you?"}}),
        respond(429, b"", headers={"retry-after": "7"}),
        respond(503, b""),
        raw(b"garbage\r\n\r\n"),
        raw(head(200, {"content-type": "application/json", "content-encoding": "gzip"})),
    ],
)
async def test_every_failure(server, backend, dialect, caplog, behaviour):
    server.will(behaviour)
    check(await errors_of(backend, dialect), caplog)


async def test_failures_without_an_answer(server, backend, dialect, caplog):
    server.will(server.hang())
    errors = await errors_of(backend, dialect)
    async with BadServer() as gone:
        absent = dialect.backend(gone)
    errors += await errors_of(absent, dialect)
    with forbid_real_calls():
        for error in await errors_of(backend, dialect):
            assert isinstance(error, RealCallsForbidden)
            errors.append(error)
    errors += await errors_of(backend, dataclasses.replace(dialect, model=""))  # a request that is wrong
    await backend.close()
    errors += await errors_of(backend, dialect)
    await absent.close()
    check(errors, caplog)


async def test_a_cancelled_call(server: BadServer, backend, dialect, caplog):
    at_work = asyncio.Event()

    async def behave(request: Received, connection: Connection) -> None:
        at_work.set()
        await server.hang()(request, connection)

    server.will(behave)
    task = asyncio.create_task(backend.complete(dialect.request()))
    await at_work.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert keyless("".join(traceback.format_exception(caught.value)))
    assert keyless(caplog.text)


async def test_an_answer_that_repeats_the_key(server, backend, dialect, caplog):
    """It would go into messages, histories and events."""
    server.will(respond(200, dialect.answer(f"Your key is {KEY}.")))
    response = await backend.complete(dialect.request())
    assert response.content == "Your key is ***."
    assert keyless(json.dumps(response.raw))
    chunks = [piece.replace(b"Hel", f"Your key is {KEY}".encode()) for piece in dialect.stream()]
    server.will(raw(SSE_HEAD + b"".join(chunks)))
    texts, response = await streamed(backend, dialect.request())
    assert texts == ["Your key is ***", "lo"]
    assert response.content == "Your key is ***lo"
    assert keyless(caplog.text)


async def test_the_backend_itself(server, backend, dialect):
    server.will(respond(200, dialect.answer("Hello")))
    await backend.complete(dialect.request())
    assert repr(backend) == f"<{type(backend).__name__} '{backend.name}'>"
    told = [repr(backend), str(backend), repr(vars(backend)), repr(vars(backend._http)), repr(vars(backend._dialect))]
    client = next(iter(backend._http._clients.values()))
    assert keyless("\n".join([*told, repr(vars(client)), repr(client.headers)]))
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        backend._http._secret.__reduce__()


async def test_the_log_is_as_it_was_when_the_backend_is_closed(server, backend, dialect):
    def filters() -> int:
        parts = ("connection", "http11", "http2", "proxy", "socks")
        names = ("httpx", *(f"httpcore.{part}" for part in parts))
        return sum(len(logging.getLogger(name).filters) for name in names)

    before = filters()
    server.will(respond(200, dialect.answer("Hello")))
    await backend.complete(dialect.request())
    await backend.complete(dialect.request())
    assert filters() == before + 6
    await backend.close()
    assert filters() == before


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "nonsense"},
        {"timeout": -1},
        {"max_concurrent": 0},
        {"api_key_env": "SOME_KEY", "environment": {"SOME_KEY": KEY}},
        {"api_key": KEY + " two words"},
        {"models": [7]},
    ],
)
def test_a_backend_that_cannot_be_made(dialect, options):
    with pytest.raises(ValueError) as caught:
        dialect.make(**{"base_url": "http://127.0.0.1/v1", "api_key": KEY, **options})
    assert keyless("".join(traceback.format_exception(caught.value)))
