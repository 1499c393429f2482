"""Agents without Python whose models are behind a real HTTP server, in both dialects."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.llm.bad_server import BadServer, anthropic_answer, echo_key, openai_answer, respond
from tests.llm.dialects import ANTHROPIC, BOTH, KEY, Dialect
from tests.message_bus.helpers import reached
from tests.platform.model_agent_kit import Forecast, Organism, Report
from xml_pipeline.errors import ConversationCancelled, HandlerError
from xml_pipeline.llm import LLMRouter
from xml_pipeline.llm.real_calls import FORBID_REAL_CALLS
from xml_pipeline.primitives import TextInput, TextOutput


@pytest.fixture(params=BOTH, ids=str)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return request.param


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BadServer]:
    monkeypatch.delenv(FORBID_REAL_CALLS, raising=False)  # the server is our own
    async with BadServer() as server:
        yield server


def organism_at(server: BadServer, dialect: Dialect) -> Organism:
    organism = Organism()
    organism.router = LLMRouter([dialect.backend(server)], retries=0, default_model=dialect.model)
    organism.pump.runtime.put(organism.router)
    return organism


def calls(dialect: Dialect, *asked: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """An answer with tool calls, each of an id, a name and arguments."""
    if dialect is ANTHROPIC:
        blocks = [{"type": "tool_use", "id": i, "name": name, "input": arguments} for i, name, arguments in asked]
        return anthropic_answer(*blocks, stop_reason="tool_use")
    functions = [
        {"id": i, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for i, name, arguments in asked
    ]
    return openai_answer(None, tool_calls=functions)


def results_of(dialect: Dialect, document: dict[str, Any]) -> list[tuple[str, str]]:
    """The results that a request carries: of which call, and what."""
    messages = document["messages"]
    if dialect is ANTHROPIC:
        blocks = [block for block in messages[-1]["content"] if block["type"] == "tool_result"]
        return [(block["tool_use_id"], block["content"]) for block in blocks]
    return [(each["tool_call_id"], each["content"]) for each in messages if each["role"] == "tool"]


async def test_calls_and_results_cross_the_wire(server: BadServer, dialect: Dialect) -> None:
    asked = [("a", "weather", {"name": "Oslo"}), ("b", "weather", {}), ("c", "weather", {"name": "Rome"})]
    server.will(respond(200, calls(dialect, *asked)), respond(200, dialect.answer("Three in both.")))
    organism = organism_at(server, dialect)
    organism.agent()
    assert await organism.answer() == TextOutput("Three in both.")
    first, second = (received.document for received in server.received)
    assert len(first["tools"]) == 1
    results = results_of(dialect, second)
    assert [each for each, _ in results] == ["a", "b", "c"]
    assert [next(iter(json.loads(text))) for _, text in results] == ["Forecast", "error", "Forecast"]
    assert len(second["messages"]) == len(first["messages"]) + (2 if dialect is ANTHROPIC else 4)


async def test_an_answer_by_class_crosses_the_wire(server: BadServer, dialect: Dialect) -> None:
    server.will(
        respond(200, dialect.answer("In plain text.")),
        respond(200, calls(dialect, ("a", "respond", {"title": "Cold", "lines": ["3"]}))),
    )
    organism = organism_at(server, dialect)
    organism.agent(output_class=Report, payload_class=(Forecast, TextInput))
    assert await organism.answer(Forecast("Oslo")) == Report("Cold", ["3"])


async def test_a_key_is_in_no_error_and_no_log(
    server: BadServer, dialect: Dialect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.will(echo_key(401, lambda key: {"error": {"type": "auth", "message": f"wrong key {key}"}}))
    organism = organism_at(server, dialect)
    organism.agent()
    with pytest.raises(HandlerError) as caught:
        await organism.answer()
    assert "401" in caught.value.detail and "wrong key" in caught.value.detail
    assert KEY not in caught.value.detail
    assert KEY not in caplog.text


async def test_cancelling_the_conversation_closes_the_connection(server: BadServer, dialect: Dialect) -> None:
    entered = asyncio.Event()
    hang = server.hang()

    async def behave(request: Any, connection: Any) -> None:
        entered.set()
        await hang(request, connection)

    server.will(behave)
    organism = organism_at(server, dialect)
    organism.agent()
    async with organism.running():
        thread = await organism.pump.inject("agent", TextInput("?"))
        await reached(entered)
        organism.pump.cancel(thread)
        await reached(server.gone)
        with pytest.raises(ConversationCancelled):
            await organism.pump.wait(thread)
