from __future__ import annotations

import asyncio
import contextvars

import pytest

from xml_pipeline.llm.errors import BackendError, RealCallsForbidden
from xml_pipeline.llm.http_backend import HttpBackend
from xml_pipeline.llm.openai_compatible import OpenAICompatibleBackend
from xml_pipeline.llm.real_calls import (
    FORBID_REAL_CALLS,
    check_real_call,
    forbid_real_calls,
    is_loopback,
    real_calls_forbidden,
)
from xml_pipeline.llm.request import LLMRequest
from xml_pipeline.llm.scripted import ScriptedBackend

from .bad_server import BadServer, events, respond
from .dialects import BOTH, KEY, streamed

HERE = "http://127.0.0.1:8000/v1"
AWAY = "https://api.x.ai/v1"


def allowed(url: str) -> bool:
    try:
        check_real_call("xai", url)
    except RealCallsForbidden:
        return False
    return True


def test_calls_are_allowed_without_a_block():
    assert not real_calls_forbidden()
    assert allowed(AWAY) and allowed(HERE) and allowed("")


def test_a_block_forbids_them():
    with forbid_real_calls():
        assert real_calls_forbidden()
        assert not allowed(AWAY) and not allowed(HERE) and not allowed("")
    assert allowed(AWAY)


def test_a_block_ends_with_an_exception_too():
    with pytest.raises(KeyError), forbid_real_calls():
        raise KeyError
    assert not real_calls_forbidden()


def test_this_machine_can_be_allowed():
    with forbid_real_calls(allow_loopback=True):
        assert not allowed(AWAY) and not allowed("")
        assert allowed(HERE)


def test_the_innermost_block_decides_about_this_machine_and_none_allows_more():
    with forbid_real_calls():
        with forbid_real_calls(allow_loopback=True):
            assert allowed(HERE) and not allowed(AWAY)
            with forbid_real_calls():
                assert not allowed(HERE)
        assert not allowed(HERE) and not allowed(AWAY)


@pytest.mark.parametrize("value", ["1", "true", "yes", "x", " 1 "])
def test_the_environment_forbids_them(monkeypatch, value):
    monkeypatch.setenv(FORBID_REAL_CALLS, value)
    assert not allowed(AWAY) and not allowed(HERE)
    with forbid_real_calls(allow_loopback=True):
        assert allowed(HERE) and not allowed(AWAY)


@pytest.mark.parametrize("value", ["", "0", "false", "No", "OFF", " "])
def test_the_environment_does_not_forbid_them(monkeypatch, value):
    monkeypatch.setenv(FORBID_REAL_CALLS, value)
    assert allowed(AWAY)


async def test_tasks_started_inside_are_covered_and_others_are_not():
    inside, outside = asyncio.Event(), asyncio.Event()

    async def ask(go: asyncio.Event) -> bool:
        await go.wait()
        return allowed(AWAY)

    before = asyncio.create_task(ask(outside))
    with forbid_real_calls():
        started = asyncio.create_task(ask(inside))
    inside.set()
    outside.set()
    assert await before
    assert not await started


def test_a_block_may_be_left_in_another_context():
    """As a fixture's may: it must not fail."""
    block = forbid_real_calls()
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert not real_calls_forbidden()


@pytest.mark.parametrize(
    ("url", "here"),
    [
        (HERE, True),
        ("http://localhost:11434", True),
        ("http://LOCALHOST/", True),
        ("http://models.localhost/", True),
        ("http://127.9.9.9/", True),
        ("http://[::1]:80/", True),
        ("http://[::ffff:127.0.0.1]/", True),
        ("http://localhost.evil.example/", False),
        ("http://127.0.0.1.evil.example/", False),
        ("http://127.0.0.1@evil.example/", False),
        ("http://0.0.0.0/", False),
        ("http://10.0.0.1/", False),
        ("http://[fe80::1]/", False),
        ("http://[", False),
        ("", False),
        (AWAY, False),
    ],
)
def test_what_this_machine_is(url, here):
    assert is_loopback(url) is here


# -- in backends


async def refused(backend: HttpBackend, request: LLMRequest) -> list[BackendError]:
    errors = []
    for call in (backend.complete(request), streamed(backend, request)):
        with pytest.raises(RealCallsForbidden) as caught:
            await call
        errors.append(caught.value)
    return errors


@pytest.mark.parametrize("dialect", BOTH, ids=str)
async def test_a_backend_sends_nothing(server: BadServer, dialect, monkeypatch):
    server.will(respond(200, dialect.answer("Hello")))
    backend = dialect.backend(server)
    with forbid_real_calls():
        for error in await refused(backend, dialect.request()):
            assert "forbidden by forbid_real_calls()" in str(error)
            assert not error.retry_allowed
    monkeypatch.setenv(FORBID_REAL_CALLS, "1")
    for error in await refused(backend, dialect.request()):
        assert f"forbidden by {FORBID_REAL_CALLS}" in str(error)
    assert server.connections == 0
    await backend.close()


@pytest.mark.parametrize("dialect", BOTH, ids=str)
async def test_a_backend_reaches_this_machine_if_that_is_allowed(server: BadServer, dialect):
    server.will(respond(200, dialect.answer("Hello")), events(*dialect.stream()))
    backend = dialect.backend(server)
    with forbid_real_calls(allow_loopback=True):
        assert (await backend.complete(dialect.request())).content == "Hello"
        assert (await streamed(backend, dialect.request()))[1].content == "Hello"
    await backend.close()


async def test_through_a_proxy_of_the_environment_nothing_is_this_machine(server: BadServer):
    backend = OpenAICompatibleBackend("xai", base_url=server.url, api_key=KEY, trust_env=True)
    with forbid_real_calls(allow_loopback=True):
        await refused(backend, LLMRequest([{"role": "user", "content": "Hi"}], "grok-3"))
    assert server.connections == 0
    await backend.close()


async def test_a_scripted_backend_goes_on(monkeypatch):
    monkeypatch.setenv(FORBID_REAL_CALLS, "1")
    with forbid_real_calls():
        response = await ScriptedBackend(["Hello"]).complete(LLMRequest([{"role": "user", "content": "Hi"}], "any"))
    assert response.content == "Hello"
