"""Against that library's own models for tests, which call nobody."""

from __future__ import annotations

import asyncio
import builtins
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")

from pydantic_ai import exceptions as theirs
from pydantic_ai import messages as messages_of
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.usage import RequestUsage

from xml_pipeline.llm.backend import Backend
from xml_pipeline.llm.errors import (
    BackendError,
    MalformedResponse,
    ProviderError,
    RateLimitError,
    RealCallsForbidden,
    RequestRefused,
)
from xml_pipeline.llm.pydantic_ai import PydanticAIBackend
from xml_pipeline.llm.real_calls import forbid_real_calls
from xml_pipeline.llm.request import MAX_RESPONSE_CONTENT, LLMRequest, LLMResponse, Tool, ToolCall

KEY = "sk-Zq7Vt93-kLm_w0PxYb84TnRd"
SEARCH = Tool("search", "Finds things", {"type": "object", "properties": {"q": {"type": "string"}}})


def ask(text: str = "Hi", **options: Any) -> LLMRequest:
    return LLMRequest(**{"messages": [{"role": "user", "content": text}], "model": "any", **options})


def answering(*parts: Any, model_name: str = "mine", **fields: Any) -> PydanticAIBackend:
    """A backend whose model gives this answer."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(list(parts), **fields)

    return PydanticAIBackend(FunctionModel(answer, model_name=model_name))


def failing(error: Exception) -> PydanticAIBackend:
    """A backend whose model raises, also when it streams."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        raise error

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        yield "Hel"
        raise error

    return PydanticAIBackend(FunctionModel(answer, stream_function=stream))


async def streamed(backend: PydanticAIBackend, request: LLMRequest) -> tuple[list[str], LLMResponse]:
    chunks = [chunk async for chunk in backend.stream(request)]
    assert [chunk.response for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].response is not None
    return [chunk.text for chunk in chunks[:-1]], chunks[-1].response


# -- writing


async def test_a_conversation_with_tools():
    seen: list[tuple[list[ModelMessage], AgentInfo]] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append((messages, info))
        return ModelResponse([TextPart("ok")])

    request = ask(
        messages=[
            {"role": "system", "content": "One"},
            {"role": "system", "content": "Two"},
            {"role": "user", "content": "Find ä"},
            {"role": "assistant", "content": "Let me see", "tool_calls": [ToolCall("c1", "search", {"q": "ä"})]},
            {"role": "tool", "content": "nothing", "tool_call_id": "c1"},
            {"role": "tool", "content": "odd", "tool_call_id": "c9"},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": "Sorry"},
        ],
        tools=[SEARCH],
        temperature=0.3,
        max_tokens=9,
    )
    await PydanticAIBackend(FunctionModel(answer)).complete(request)
    ((messages, info),) = seen
    assert [[(part.part_kind, getattr(part, "content", None)) for part in message.parts] for message in messages] == [
        [("system-prompt", "One"), ("system-prompt", "Two"), ("user-prompt", "Find ä")],
        [("text", "Let me see"), ("tool-call", None)],
        [("tool-return", "nothing"), ("tool-return", "odd"), ("user-prompt", "And?")],
        [("text", "Sorry")],
    ]
    call, result = messages[1].parts[1], messages[2].parts[0]
    assert isinstance(call, ToolCallPart) and isinstance(result, messages_of.ToolReturnPart)
    assert (call.tool_name, call.args, call.tool_call_id) == ("search", {"q": "ä"}, "c1")
    assert (result.tool_name, result.tool_call_id) == ("search", "c1")
    (tool,) = info.function_tools
    assert (tool.name, tool.description, tool.parameters_json_schema) == (
        "search",
        "Finds things",
        {"type": "object", "properties": {"q": {"type": "string"}}},
    )
    assert info.model_settings == {"temperature": 0.3, "max_tokens": 9}
    await PydanticAIBackend(FunctionModel(answer)).complete(ask(temperature=None))
    assert not seen[-1][1].model_settings


async def test_a_wrong_request_is_refused():
    with pytest.raises(RequestRefused, match="messages must not be empty"):
        await PydanticAIBackend(TestModel()).complete(ask(messages=[]))


# -- reading


async def test_an_answer():
    backend = answering(
        ThinkingPart("hm"),
        TextPart("Hel"),
        TextPart("lo"),
        usage=RequestUsage(input_tokens=12, output_tokens=5),
        model_name="their-name",
        finish_reason="length",
    )
    assert isinstance(backend, Backend)
    response = await backend.complete(ask())
    assert response.content == "Hello"
    assert response.model == "their-name"
    assert response.usage == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    assert response.finish_reason == "length"
    assert isinstance(response.raw, ModelResponse)


async def test_tool_calls():
    response = await answering(
        ToolCallPart("search", {"q": "ä"}, "c1"),
        ToolCallPart("search", '{"q": 1}', "c2"),
        ToolCallPart("search", '{"q": ', "c3"),
        ToolCallPart("stop", None, "c4"),
        finish_reason="tool_call",
    ).complete(ask(tools=[SEARCH, Tool("stop", "", {})]))
    assert response.tool_calls == (
        ToolCall("c1", "search", {"q": "ä"}),
        ToolCall("c2", "search", {"q": 1}),
        ToolCall("c3", "search", {}, "the arguments are no JSON"),
        ToolCall("c4", "stop", {}),
    )
    assert response.finish_reason == "tool_calls"


async def test_their_test_model_calls_tools_and_then_answers():
    backend = PydanticAIBackend(TestModel())
    first = await backend.complete(ask(tools=[SEARCH]))
    assert [call.name for call in first.tool_calls] == ["search"] and first.finish_reason == "tool_calls"
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": first.tool_calls},
        {"role": "tool", "content": "found", "tool_call_id": first.tool_calls[0].id},
    ]
    second = await backend.complete(ask(messages=history, tools=[SEARCH]))
    assert second.content == '{"search":"found"}' and second.tool_calls == ()
    assert second.usage["total_tokens"] > 0 and "estimated" not in second.usage


async def test_usage_that_is_not_told_is_estimated(monkeypatch):
    backend = PydanticAIBackend(TestModel(custom_output_text="Hello"))

    async def request(*args: Any, **options: Any) -> ModelResponse:
        return ModelResponse([TextPart("Hello")])

    monkeypatch.setattr(TestModel, "request", request)
    usage = (await backend.complete(ask())).usage
    assert usage == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated": 1}


async def test_a_long_text_is_cut():
    response = await answering(TextPart("x" * (MAX_RESPONSE_CONTENT + 1))).complete(ask())
    assert len(response.content) == MAX_RESPONSE_CONTENT and response.finish_reason == "length"


# -- streaming


async def test_a_stream():
    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        for text in ("Hel", "lo", ", dear"):
            yield text

    texts, response = await streamed(PydanticAIBackend(FunctionModel(stream_function=stream)), ask())
    assert "".join(texts) == response.content == "Hello, dear"
    assert len(texts) == 3
    assert response.finish_reason == "stop" and response.usage["total_tokens"] > 0


async def test_a_stream_with_tool_calls():
    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[dict[int, DeltaToolCall]]:
        yield {0: DeltaToolCall("search", '{"q": ', tool_call_id="c1")}
        yield {0: DeltaToolCall(json_args='"ä"}')}

    backend = PydanticAIBackend(FunctionModel(stream_function=stream))
    texts, response = await streamed(backend, ask(tools=[SEARCH]))
    assert texts == []
    assert response.tool_calls == (ToolCall("c1", "search", {"q": "ä"}),)
    assert response.finish_reason == "tool_calls"


async def test_leaving_a_stream_ends_it():
    left = asyncio.Event()

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        try:
            yield "Hel"
            await asyncio.Event().wait()
        finally:
            left.set()

    backend = PydanticAIBackend(FunctionModel(stream_function=stream))
    async with aclosing(backend.stream(ask())) as chunks:
        async for chunk in chunks:
            assert chunk.text == "Hel"
            break
    await left.wait()


@pytest.mark.parametrize(("reason", "complete"), [("stop", True), (None, False)])
async def test_a_stream_that_just_ends_was_cut(reason, complete):
    class Cut(_Real):
        @asynccontextmanager
        async def request_stream(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
            async with TestModel(custom_output_text="Hello").request_stream(*args, **options) as stream:
                stream.finish_reason = reason
                yield stream

    backend = PydanticAIBackend(Cut())
    if complete:
        assert (await streamed(backend, ask()))[1].content == "Hello"
        return
    with pytest.raises(ProviderError, match="the stream was cut before the answer was complete"):
        await streamed(backend, ask())


# -- failing


def http_error(kind: Any, status: int, **fields: Any) -> Exception:
    body = {"message": f"bad key {KEY}"}
    return theirs.ModelHTTPError.for_category(kind, status_code=status, model_name="m", body=body, **fields)


FAILURES = [
    (http_error(theirs.ModelRateLimitError, 429, headers={"retry-after": "7"}), RateLimitError, {"retry_after": 7.0}),
    (theirs.ModelRateLimitError("m", KEY, retry_after=2.0), RateLimitError, {"retry_after": 2.0}),
    (theirs.ModelHTTPError(429, "m", KEY), RateLimitError, {"retry_after": None}),
    (http_error(theirs.ModelQuotaExceededError, 429), RequestRefused, {"status_code": 429}),
    (http_error(theirs.ModelAuthenticationError, 401), RequestRefused, {"status_code": 401}),
    (http_error(theirs.ModelNotFoundError, 404), RequestRefused, {"status_code": 404}),
    (theirs.ModelRequestRejectedError("m", KEY), RequestRefused, {"status_code": 0}),
    (theirs.ModelHTTPError(400, "m", KEY), RequestRefused, {"status_code": 400}),
    (theirs.ModelHTTPError(408, "m", KEY), ProviderError, {"status_code": 408}),
    (http_error(theirs.ModelServerError, 500), ProviderError, {"status_code": 500}),
    (
        http_error(theirs.ModelOverloadedError, 529, retry_after=3.0),
        ProviderError,
        {"status_code": 529, "retry_after": 3.0},
    ),
    (theirs.ModelConnectionError("m", KEY), ProviderError, {"status_code": 0}),
    (theirs.ModelTimeoutError("m", KEY), ProviderError, {"status_code": 0}),
    (theirs.ModelAPIError("m", KEY), ProviderError, {"status_code": 0}),
    (theirs.ContentFilterError(KEY), RequestRefused, {"status_code": 0}),
    (theirs.UnexpectedModelBehavior(KEY), MalformedResponse, {}),
    (ValueError(KEY), ProviderError, {"status_code": 0}),
    (OSError(KEY), ProviderError, {"status_code": 0}),
]


@pytest.mark.parametrize(("error", "kind", "told"), FAILURES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("stream", [False, True])
async def test_failures(error, kind: type[BackendError], told, stream):
    """Their texts and bodies may repeat a key that we do not know; ours tell the kind and the status."""
    backend = failing(error)
    with pytest.raises(BackendError) as caught:
        await (streamed(backend, ask()) if stream else backend.complete(ask()))
    assert type(caught.value) is kind
    assert {name: getattr(caught.value, name) for name in told} == told
    assert type(error).__name__ in str(caught.value)
    assert str(caught.value).startswith("Malformed" if kind is MalformedResponse else "pydantic-ai: ")
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert KEY not in "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))


@pytest.mark.parametrize("stream", [False, True])
async def test_what_they_say_about_wrong_use_is_told(stream):
    backend = failing(theirs.UserError("No such\nsetting"))
    with pytest.raises(RequestRefused, match=r"^pydantic-ai: No such setting$"):
        await (streamed(backend, ask()) if stream else backend.complete(ask()))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_takes_too_long(stream):
    at_work, left = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        at_work.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        await wait()
        raise AssertionError

    async def pieces(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        yield "Hel"
        await wait()

    model = FunctionModel(answer, stream_function=pieces)
    backend = PydanticAIBackend(model, stream_timeout=0.1) if stream else PydanticAIBackend(model, timeout=0.1)
    expected = "nothing came for 0.1 s" if stream else "the answer is not complete within 0.1 s"
    with pytest.raises(ProviderError, match=expected):
        await (streamed(backend, ask()) if stream else backend.complete(ask()))
    if at_work.is_set():  # which it may not be, on a machine that is busy
        await left.wait()


async def test_a_call_can_be_cancelled():
    at_work = asyncio.Event()

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        at_work.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(PydanticAIBackend(FunctionModel(answer)).complete(ask()))
    await at_work.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- which model


def test_which_models_are_served():
    named = PydanticAIBackend("google:gemini-2.5-flash")
    assert named.serves("google:gemini-2.5-flash") and named.serves("gemini-2.5-flash")
    assert not named.serves("google:gemini-2.5-pro")
    any_model = PydanticAIBackend()
    assert any_model.serves("google:gemini-2.5-flash") and not any_model.serves("gemini-2.5-flash")
    given = PydanticAIBackend(TestModel(model_name="mine"))
    assert given.serves("mine") and given.serves("test:mine") and not given.serves("test")
    listed = PydanticAIBackend(TestModel(), models=["a"], name="other")
    assert listed.serves("a") and not listed.serves("test")
    assert (listed.name, listed.provider, repr(listed)) == ("other", "pydantic-ai", "<PydanticAIBackend 'other'>")


async def test_a_model_by_its_name():
    backend = PydanticAIBackend(models=["test"])
    response = await backend.complete(ask(model="test"))
    assert response.content == "success (no tool calls)"
    assert (await PydanticAIBackend("test").complete(ask(model="whatever"))).content == response.content
    await backend.close()
    await backend.close()


@pytest.mark.parametrize("name", ["nobody:knows", "nonsense", "openai:gpt-4o"])
async def test_a_model_that_cannot_be_made(name, monkeypatch):
    """An unknown provider, no provider, a library or a key that is missing."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    backend = PydanticAIBackend()
    for _ in range(2):
        with pytest.raises(RequestRefused, match=r"^pydantic-ai: ") as caught:
            await backend.complete(ask(model=name))
        assert caught.value.__context__ is None
        with pytest.raises(RequestRefused):
            await streamed(backend, ask(model=name))
    await backend.close()


async def test_real_calls_can_be_forbidden():
    with forbid_real_calls(allow_loopback=True):
        assert (await PydanticAIBackend(TestModel()).complete(ask())).content
        assert (await PydanticAIBackend("test").complete(ask())).content
        assert (await PydanticAIBackend(WrapperModel(TestModel())).complete(ask())).content
        for backend in (PydanticAIBackend("openai:gpt-4o"), PydanticAIBackend(_Real()), PydanticAIBackend(_Real(""))):
            with pytest.raises(RealCallsForbidden):
                await backend.complete(ask())
            with pytest.raises(RealCallsForbidden):
                await streamed(backend, ask())
        assert (await PydanticAIBackend(_Real("http://localhost:8000")).complete(ask())).content == "real"
    with forbid_real_calls(), pytest.raises(RealCallsForbidden):
        await PydanticAIBackend(_Real("http://localhost:8000")).complete(ask())


class _Real(Model):
    """Stands for a model that calls somebody."""

    def __init__(self, url: str | None = "https://api.example/v1") -> None:
        super().__init__()
        self.url = url

    @property
    def base_url(self) -> str | None:
        return self.url

    @property
    def model_name(self) -> str:
        return "real"

    @property
    def system(self) -> str:
        return "somebody"

    async def request(self, *args: Any, **options: Any) -> ModelResponse:
        return ModelResponse([TextPart("real")])


def test_without_the_library_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("pydantic_ai"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'xml-pipeline\[pydantic-ai\]'"):
        PydanticAIBackend()


@pytest.mark.parametrize("setting", ["timeout", "stream_timeout"])
def test_settings_that_are_refused(setting):
    with pytest.raises(ValueError, match=f"^{setting} must be a number of seconds"):
        PydanticAIBackend(**{setting: 0})
