"""What the tests of agents without Python share: a pump with such an agent, its peers, and a model with a script."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.message_bus.helpers import PATIENCE, Audit, audited, reached
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.llm import LLMRequest, LLMResponse, LLMRouter, ScriptedBackend, ToolCall
from xml_pipeline.message_bus.events import AgentStateEvent, PumpEvent
from xml_pipeline.message_bus.join import Joins
from xml_pipeline.platform import ModelAgent
from xml_pipeline.platform.dialogue import Dialogues
from xml_pipeline.primitives import TextInput

PROMPT = "You know the weather. SECRET-PROMPT"


@dataclass
class City:
    name: str


@dataclass
class Forecast:
    city: str
    celsius: int = 3


@dataclass
class Report:
    """What is wanted in the end."""

    title: str
    lines: list[str]


async def weather(payload: City, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(Forecast(payload.name))


def call(tool: str, /, **arguments: Any) -> ToolCall:
    """The model calls a tool."""
    return ToolCall("", tool, arguments)


def said(content: str = "", *calls: ToolCall, reason: str = "stop", tokens: tuple[int, int] = (10, 5)) -> LLMResponse:
    """All that a model may say, at once."""
    prompt_tokens, completion_tokens = tokens
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return LLMResponse(content, "m", usage, reason, None, calls)


class Organism:
    """A pump with the tool ``weather``, an agent without Python, and a model that says what the script has."""

    def __init__(self, *script: Any, default_model: str = "m", **limits: Any) -> None:
        self.pump = StreamPump(**limits)
        self.backend = ScriptedBackend(script)
        self.router = LLMRouter([self.backend], retries=0, default_model=default_model)
        self.pump.runtime.put(self.router)
        self.pump.register("weather", weather, City, description="Tells the weather of a city.")
        self._turns: Counter[str] = Counter()
        self._waiters: list[tuple[str, int, asyncio.Event]] = []
        self.pump.subscribe_events(self._note)

    def _note(self, told: PumpEvent) -> None:
        if isinstance(told, AgentStateEvent) and told.state != "processing":
            self._turns[told.agent_name] += 1
        for name, count, event in self._waiters:
            if self._turns[name] >= count:
                event.set()

    async def turns(self, count: int, name: str = "agent") -> None:
        """Wait until an agent has ended so many turns, in all."""
        event = asyncio.Event()
        self._waiters.append((name, count, event))
        if self._turns[name] < count:
            await reached(event)

    def agent(
        self, name: str = "agent", payload_class: Any = TextInput, *, handler: Any = None, **options: Any
    ) -> ModelAgent:
        """Register an agent without Python."""
        handler = handler or ModelAgent(prompt=PROMPT)
        self.pump.register(name, handler, payload_class, agent=True, **{"peers": ["weather"], **options})
        return handler

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Audit]:
        """Run it; when it has ended, nothing may be left of any dialogue."""
        try:
            async with audited(self.pump, **options) as audit:
                yield audit
        finally:
            await self.router.close()
        assert len(self.pump.runtime.get(Dialogues)) == 0
        assert len(self.pump.runtime.get(Joins)) == 0

    async def ask(self, text: Any = "How warm is it?", to: str = "agent", **options: Any) -> Any:
        payload = TextInput(text) if isinstance(text, str) else text
        return await self.pump.request(to, payload, timeout=PATIENCE, **options)

    async def answer(self, text: Any = "How warm is it?", **options: Any) -> Any:
        """Run it for one request."""
        async with self.running():
            return await self.ask(text, **options)

    @property
    def requests(self) -> list[LLMRequest]:
        return self.backend.requests

    @property
    def last(self) -> LLMRequest:
        return self.requests[-1]


def roles(request: LLMRequest) -> list[str]:
    """Who says what, the system left out."""
    return [message["role"] for message in request.messages if message["role"] != "system"]


def contents(role: str, request: LLMRequest) -> list[str]:
    return [message["content"] for message in request.messages if message["role"] == role]


def system_text(request: LLMRequest) -> str:
    return "\n".join(contents("system", request))


def tool_names(request: LLMRequest) -> list[str]:
    return [tool.name for tool in request.tools or ()]


class ModelGate:
    """A step of a script: tells when the model was asked, and answers when it is opened."""

    def __init__(self, answer: Any = "fine") -> None:
        self.asked = asyncio.Event()
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        self._answer = answer

    async def __call__(self, request: LLMRequest) -> Any:
        self.asked.set()
        try:
            await self.opened.wait()
        finally:
            self.ended.set()
        return self._answer
