"""Agents without Python as an organism's file describes them: loaded, run, and reloaded."""

from __future__ import annotations

import itertools
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.message_bus.helpers import PATIENCE
from tests.platform.model_agent_kit import contents, system_text, tool_names
from xml_pipeline import StreamPump
from xml_pipeline.config import ConfigLoader
from xml_pipeline.errors import HandlerError, HopLimitError
from xml_pipeline.llm import LLMRequest, LLMResponse, LLMRouter, ScriptedBackend
from xml_pipeline.message_bus.stream_pump import bootstrap, reset_stream_pump
from xml_pipeline.platform import ModelAgent
from xml_pipeline.primitives import TextInput, TextOutput

HANDLERS = """
from __future__ import annotations

import asyncio
from dataclasses import dataclass

from xml_pipeline import HandlerResponse

@dataclass
class City:
    name: str

@dataclass
class Forecast:
    city: str
    celsius: int

@dataclass
class Report:
    title: str
    lines: list[str]

async def weather(payload, metadata):
    return HandlerResponse.respond(Forecast(payload.name, 3))
"""

ORGANISM = """
organism: {name: weather service}
llm:
  model: small
  timeout: 90
  backends:
    - provider: scripted
      script:
        - tool: tools_weather
          arguments: {name: Oslo}
        - text: It is three degrees in Oslo.
listeners:
  - name: agent
    description: Tells the weather.
    agent: true
    prompt: You tell the weather.
    peers: [tools.weather]
  - name: tools.weather
    description: The weather of one city.
    payload_class: MODULE.City
    handler: MODULE.weather
"""

_numbers = itertools.count()


class File:
    """An organism's file, with a module of handlers beside it."""

    def __init__(self, directory: Path) -> None:
        self.module = f"model_agent_handlers_{next(_numbers)}"
        (directory / f"{self.module}.py").write_text(HANDLERS, encoding="utf-8")
        self.path = directory / "organism.yaml"

    def write(self, *changes: tuple[str, str]) -> str:
        text = ORGANISM
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.path.write_text(text.replace("MODULE", self.module), encoding="utf-8")
        return str(self.path)

    def cls(self, name: str) -> Any:
        return getattr(sys.modules[self.module], name)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[File]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    organism = File(tmp_path)
    yield organism
    sys.modules.pop(organism.module, None)


def backend_of(pump: StreamPump) -> ScriptedBackend:
    (backend,) = pump.runtime.get(LLMRouter).backends
    assert isinstance(backend, ScriptedBackend)
    return backend


async def test_an_organism_with_an_agent_without_python_runs(file: File) -> None:
    pump = await bootstrap(file.write())
    try:
        async with pump:
            answer = await pump.request("agent", TextInput("How warm is it in Oslo?"), timeout=PATIENCE)
    finally:
        reset_stream_pump(pump)
    assert answer == TextOutput("It is three degrees in Oslo.")
    first, second = backend_of(pump).requests
    assert first.model == "small"
    assert contents("system", first)[0] == "You tell the weather."
    assert first.messages[-1]["content"] == "How warm is it in Oslo?"
    assert tool_names(first) == ["tools_weather"]
    assert contents("tool", second) == ['{"Forecast": {"city": "Oslo", "celsius": 3}}']


def test_its_listener_is_like_any_other_but_for_its_handler_and_time(file: File) -> None:
    pump = StreamPump(ConfigLoader.load(file.write()))
    pump.register_all()
    listener = pump.listeners["agent"]
    assert isinstance(listener.handler, ModelAgent)
    assert (listener.timeout, listener.output_class, listener.payload_classes) == (90.0, TextOutput, (TextInput,))
    assert (listener.prompt, listener.model, listener.peers) == ("You tell the weather.", "", ["tools.weather"])
    assert pump.listeners["tools.weather"].timeout == 30.0


async def test_every_key_reaches_the_model_call(file: File) -> None:
    keys = """peers: [tools.weather]
    model: large
    temperature: 0.5
    max_tokens: 50
    max_model_calls: 1
    concurrency: 1"""
    pump = await StreamPump.from_yaml(file.write(("peers: [tools.weather]", keys)))
    async with pump:
        with pytest.raises(HopLimitError):
            await pump.request("agent", TextInput("?"), timeout=PATIENCE)
    (request,) = backend_of(pump).requests
    assert (request.model, request.temperature, request.max_tokens) == ("large", 0.5, 50)


async def test_an_output_class_is_answered_by_a_tool(file: File) -> None:
    path = file.write(
        ("prompt: You", "output_class: MODULE.Report\n    payload_class: MODULE.City\n    prompt: You"),
        ("- text: It is three degrees in Oslo.", "- {tool: respond, arguments: {title: Oslo, lines: ['3', cold]}}"),
    )
    pump = await StreamPump.from_yaml(path)
    async with pump:
        answer = await pump.request("agent", file.cls("City")("Oslo"), timeout=PATIENCE)
    assert answer == file.cls("Report")("Oslo", ["3", "cold"])


async def test_its_own_timeout_is_the_deadline_of_its_model_calls(file: File) -> None:
    """A retry that would come too late is not waited for."""
    path = file.write(
        ("prompt: You", "timeout: 30\n    prompt: You"),
        ("  timeout: 90\n", "  timeout: 90\n  retries: 3\n  retry_base_delay: 60\n"),
        ("        - tool: tools_weather\n          arguments: {name: Oslo}\n", "        - error: provider\n"),
    )
    pump = await StreamPump.from_yaml(path)
    async with pump:
        with pytest.raises(HandlerError) as caught:
            await pump.request("agent", TextInput("?"), timeout=PATIENCE)
    assert "the time left is too short to wait" in caught.value.detail
    assert "scripted: the provider failed" in caught.value.detail


async def test_a_reload_takes_effect_at_the_next_frame(file: File) -> None:
    pump = await StreamPump.from_yaml(file.write())
    async with pump:
        await pump.request("agent", TextInput("?"), timeout=PATIENCE)
        new = (("You tell the weather.", "You tell it in verse."), ("peers: [tools.weather]", "peers: []"))
        event = pump.reload_config(file.write(*new))
        assert event.success and event.updated_listeners == ["agent"]
        backend = backend_of(pump)
        pump.runtime.put(LLMRouter([ScriptedBackend(["in verse"])], default_model="m"))
        assert await pump.request("agent", TextInput("?"), timeout=PATIENCE) == TextOutput("in verse")
        (request,) = backend_of(pump).requests
    assert contents("system", request)[0] == "You tell it in verse."
    assert request.tools is None
    assert "You tell the weather." in system_text(backend.requests[-1])


async def test_how_much_history_the_model_is_told_is_a_key_and_reloaded(file: File) -> None:
    texts = (
        "        - tool: tools_weather\n          arguments: {name: Oslo}\n",
        "        - text: Hello.\n        - text: Hm.\n",
    )
    forgetful = ("prompt: You", "max_history_chars: 0\n    prompt: You")
    thread = str(uuid.uuid4())

    async def ask(question: str) -> str:
        await pump.request("agent", TextInput(question), thread_id=thread, timeout=PATIENCE)
        return str(backend_of(pump).requests[-1].messages)

    pump = await StreamPump.from_yaml(file.write(texts, forgetful))
    async with pump:
        await ask("The first question")
        assert "The first question" not in await ask("The second")
        event = pump.reload_config(file.write(texts))
        assert event.success and event.updated_listeners == ["agent"]
        assert "The first question" in await ask("The third")


async def test_what_calls_reserve_for_answers_is_a_key_and_reloaded(file: File) -> None:
    """Calls that run at the time have reserved what they have."""
    seen: list[int] = []

    class Watched(ScriptedBackend):
        async def complete(self, request: LLMRequest) -> LLMResponse:
            budgets = pump.engine.budgets
            seen.extend(budget.reserved for budget in budgets.known.values())
            return await super().complete(request)

    async def ask() -> int:
        (routed,) = pump.runtime.get(LLMRouter)._routed
        routed.backend = Watched(["Hello."])
        await pump.request("agent", TextInput("?"), timeout=PATIENCE)
        return seen.pop()

    pump = await StreamPump.from_yaml(file.write())
    async with pump:
        by_default = await ask()
        event = pump.reload_config(file.write(("timeout: 90", "timeout: 90\n  completion_allowance: 24")))
        assert event.success, event.error
        assert by_default - await ask() == 1_000


async def test_a_reload_with_another_model_leaves_no_listener_behind(file: File) -> None:
    pump = await StreamPump.from_yaml(file.write())
    async with pump:
        script = "        - {text: another}\n"
        changed = ("        - tool: tools_weather\n", f"{script}        - tool: tools_weather\n")
        event = pump.reload_config(file.write(changed, ("model: small", "model: big"), ("timeout: 90", "timeout: 60")))
        assert event.success, event.error
        assert pump.listeners["agent"].timeout == 60.0
        assert await pump.request("agent", TextInput("?"), timeout=PATIENCE) == TextOutput("another")
        assert backend_of(pump).requests[-1].model == "big"
