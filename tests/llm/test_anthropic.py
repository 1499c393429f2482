from __future__ import annotations

from typing import Any

import pytest

from xml_pipeline.llm.anthropic import AnthropicBackend
from xml_pipeline.llm.errors import BackendError, MalformedResponse, ProviderError, RateLimitError, RequestRefused
from xml_pipeline.llm.request import MAX_RESPONSE_CONTENT, LLMRequest, Tool, ToolCall

from .bad_server import (
    ANTHROPIC_START,
    ANTHROPIC_STOP,
    BadServer,
    Behaviour,
    anthropic_answer,
    anthropic_end,
    anthropic_event,
    anthropic_stream,
    event,
    events,
    respond,
)
from .dialects import ANTHROPIC, KEY, streamed

SEARCH = Tool("search", "Finds things", {"type": "object", "properties": {"q": {"type": "string"}}})


async def sent(server: BadServer, request: LLMRequest, **options: Any) -> Any:
    """What a server is sent."""
    server.will(respond(200, anthropic_answer()))
    backend = ANTHROPIC.backend(server, **options)
    await backend.complete(request)
    await backend.close()
    return server.received[-1]


async def answered(server: BadServer, behaviour: Behaviour) -> Any:
    """What an answer is read as."""
    server.will(behaviour)
    backend = ANTHROPIC.backend(server)
    try:
        return await backend.complete(ANTHROPIC.request())
    finally:
        await backend.close()


@pytest.fixture
async def backend(server: BadServer) -> Any:
    backend = ANTHROPIC.backend(server)
    yield backend
    await backend.close()


# -- writing


async def test_a_request(server):
    received = await sent(server, LLMRequest([{"role": "user", "content": "Grüße"}], "claude-sonnet-4-5"))
    assert (received.method, received.path) == ("POST", "/v1/messages")
    assert received.headers["x-api-key"] == KEY
    assert received.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in received.headers
    assert received.document == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Grüße"}]}],
        "temperature": 0.7,
    }


async def test_all_system_messages_are_sent(server):
    """D61: the prompt and the peers' schemas come as two."""
    request = LLMRequest(
        [
            {"role": "system", "content": "You are a clerk."},
            {"role": "system", "content": "Your peers: <xs:schema/>"},
            {"role": "system", "content": ""},
            {"role": "user", "content": "Hi"},
            {"role": "system", "content": "Be brief."},
        ],
        "claude-sonnet-4-5",
    )
    document = (await sent(server, request)).document
    assert document["system"] == "You are a clerk.\n\nYour peers: <xs:schema/>\n\nBe brief."
    assert document["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]


async def test_a_conversation_with_tools(server):
    request = LLMRequest(
        [
            {"role": "user", "content": "Find"},
            {"role": "user", "content": "ä and ö"},
            {
                "role": "assistant",
                "content": "Let me see",
                "tool_calls": [ToolCall("c1", "search", {"q": "ä"}), ToolCall("functions.x:0", "search", {"q": "ö"})],
            },
            {"role": "tool", "content": "nothing", "tool_call_id": "c1"},
            {"role": "user", "content": "And?"},
            {"role": "tool", "content": "", "tool_call_id": "functions.x:0"},
            {"role": "assistant", "content": "", "tool_calls": [ToolCall("c3", "stop")]},
            {"role": "tool", "content": "ok", "tool_call_id": "c3"},
            {"role": "assistant", "content": ""},
        ],
        "claude-sonnet-4-5",
        temperature=None,
        max_tokens=100,
        tools=[SEARCH],
    )
    assert (await sent(server, request)).document == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 100,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Find"}, {"type": "text", "text": "ä and ö"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see"},
                    {"type": "tool_use", "id": "c1", "name": "search", "input": {"q": "ä"}},
                    {"type": "tool_use", "id": "functions_x_0", "name": "search", "input": {"q": "ö"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "nothing"},
                    {"type": "tool_result", "tool_use_id": "functions_x_0", "content": ""},
                    {"type": "text", "text": "And?"},
                ],
            },
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c3", "name": "stop", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c3", "content": "ok"}]},
        ],
        "tools": [
            {
                "name": "search",
                "description": "Finds things",
                "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}},
            }
        ],
    }


async def test_another_limit(server):
    assert (await sent(server, ANTHROPIC.request(), max_tokens=9)).document["max_tokens"] == 9


async def test_models_that_take_no_temperature(server):
    request = LLMRequest([{"role": "user", "content": "Hi"}], "claude-opus-4-7", temperature=0.1)
    assert "temperature" not in (await sent(server, request)).document


@pytest.mark.parametrize("messages", [[{"role": "system", "content": "x"}], [{"role": "user", "content": ""}]])
async def test_nothing_but_system_messages(server, backend: AnthropicBackend, messages):
    with pytest.raises(RequestRefused, match="nothing in it but system messages"):
        await backend.complete(LLMRequest(messages, "claude-sonnet-4-5"))
    assert server.connections == 0


# -- reading


async def test_an_answer(server):
    document = anthropic_answer(
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "text", "text": "Hel"},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "text", "text": "lo ✓"},
    )
    response = await answered(server, respond(200, document))
    assert response.content == "Hello ✓"
    assert response.model == "claude-some-2026"
    assert response.usage == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    assert response.finish_reason == "stop"
    assert response.tool_calls == ()
    assert response.raw == document


async def test_an_answer_with_tool_calls(server):
    blocks = [
        {"type": "text", "text": "Let me see"},
        {"type": "tool_use", "id": "t1", "name": "search", "input": {"q": "ä"}},
        {"type": "tool_use", "id": "t2", "name": "stop", "input": {}},
    ]
    response = await answered(server, respond(200, anthropic_answer(*blocks, stop_reason="tool_use")))
    assert response.content == "Let me see"
    assert response.tool_calls == (ToolCall("t1", "search", {"q": "ä"}), ToolCall("t2", "stop", {}))
    assert response.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("stop_reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "refusal"),
        (None, "stop"),
    ],
)
async def test_why_it_ended(server, stop_reason, expected):
    document = {**anthropic_answer(), "stop_reason": stop_reason}
    assert (await answered(server, respond(200, document))).finish_reason == expected


async def test_a_long_text_is_cut(server):
    blocks = [{"type": "text", "text": "é" * 600_000}] * 2
    response = await answered(server, respond(200, anthropic_answer(*blocks)))
    assert len(response.content) == MAX_RESPONSE_CONTENT
    assert response.finish_reason == "length"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4, None)),
        (
            {
                "input_tokens": 3,
                "output_tokens": 4,
                "cache_creation_input_tokens": 10,
                "cache_read_input_tokens": 100,
                "service_tier": "standard",
            },
            (113, 4, None),
        ),
        ({"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": None}, (3, 4, None)),
        ({"output_tokens": 4}, (1, 4, 1)),
        ({"input_tokens": 3}, (3, 2, 1)),
        (None, (1, 2, 1)),
    ],
)
async def test_usage(server, usage, expected):
    response = await answered(server, respond(200, {**anthropic_answer(), "usage": usage}))
    prompt, completion, estimated = expected
    assert response.usage == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **({"estimated": estimated} if estimated else {}),
    }


def but(**changes: Any) -> dict[str, Any]:
    return {**anthropic_answer(), **changes}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "the body is no JSON"),
        (b"<html>", "the body is no JSON"),
        (b"[]", "the body is a list, not an object"),
        ({}, "content is missing or null"),
        (but(content=None), "content is missing or null"),
        (but(content="Hello"), "content is a text, not a list"),
        (but(content=["Hello"]), r"content\[0\] is a text, not an object"),
        (but(content=[{}]), r"content\[0\].type is missing or null"),
        (but(content=[{"type": 7}]), r"content\[0\].type is a number, not a text"),
        (but(content=[{"type": "text"}]), r"content\[0\].text is missing or null"),
        (but(content=[{"type": "text", "text": 7}]), r"content\[0\].text is a number, not a text"),
        (but(content=[{"type": "tool_use", "id": "t", "input": {}}]), r"content\[0\].name is missing or null"),
        (but(content=[{"type": "tool_use", "id": "t", "name": "", "input": {}}]), r"content\[0\].name is empty"),
        (but(content=[{"type": "tool_use", "name": "a", "input": {}}]), r"content\[0\].id is missing or null"),
        (but(content=[{"type": "tool_use", "id": "t", "name": "a"}]), r"content\[0\].input is missing or null"),
        (but(content=[{"type": "tool_use", "id": "t", "name": "a", "input": "{}"}]), r"content\[0\].input is a text"),
        (but(model=7), "model is a number, not a text"),
        (but(stop_reason=7), "stop_reason is a number, not a text"),
        (but(usage=7), "usage is a number, not an object"),
        (but(usage={"input_tokens": "7"}), "usage.input_tokens is a text, not a whole number"),
        (but(usage={"output_tokens": -7}), "usage.output_tokens is no possible number of tokens"),
        (but(usage={"input_tokens": 7, "cache_read_input_tokens": []}), "usage.cache_read_input_tokens is a list"),
    ],
)
async def test_wrong_shapes(server, body, fault):
    with pytest.raises(MalformedResponse, match=f"^Malformed response of anthropic: {fault}"):
        await answered(server, respond(200, body))


# -- streaming


async def test_a_stream(server, backend):
    server.will(events(*anthropic_stream()))
    texts, response = await streamed(backend, ANTHROPIC.request(stream=True))
    assert texts == ["Hel", "lo"]
    assert response.content == "Hello"
    assert response.model == "claude-some-2026"
    assert response.usage == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    assert response.finish_reason == "stop"
    assert response.raw is None
    assert server.received[-1].document["stream"] is True


def block_start(index: int, **block: Any) -> bytes:
    return anthropic_event("content_block_start", index=index, content_block=block)


def block_delta(index: int, **delta: Any) -> bytes:
    return anthropic_event("content_block_delta", index=index, delta=delta)


async def test_tool_calls_in_pieces(server, backend):
    server.will(
        events(
            ANTHROPIC_START,
            block_start(0, type="thinking", thinking=""),
            block_delta(0, type="thinking_delta", thinking="hm"),
            block_delta(0, type="signature_delta", signature="x"),
            anthropic_event("content_block_stop", index=0),
            block_start(1, type="text", text="Let "),
            block_delta(1, type="text_delta", text="me see"),
            block_start(2, type="tool_use", id="t1", name="search", input={}),
            block_delta(2, type="input_json_delta", partial_json=""),
            block_delta(2, type="input_json_delta", partial_json='{"q": '),
            block_start(3, type="server_tool_use", id="s1", name="web_search", input={}),
            block_delta(3, type="input_json_delta", partial_json='{"query": "not ours"}'),
            block_delta(2, type="input_json_delta", partial_json='"ä"}'),
            block_start(4, type="tool_use", id="t2", name="stop", input={}),
            block_start(5, type="tool_use", id="t3", name="search", input={}),
            block_delta(5, type="input_json_delta", partial_json='{"q": "cu'),
            anthropic_event("something_new", whatever=1),
            anthropic_end("tool_use"),
            ANTHROPIC_STOP,
        )
    )
    texts, response = await streamed(backend, ANTHROPIC.request(tools=[SEARCH]))
    assert texts == ["Let ", "me see"] and response.content == "Let me see"
    assert response.finish_reason == "tool_calls"
    assert response.tool_calls == (
        ToolCall("t1", "search", {"q": "ä"}),
        ToolCall("t2", "stop", {}),
        ToolCall("t3", "search", {}, "the arguments are no JSON"),
    )


async def test_usage_of_a_stream(server, backend):
    """What is said later is the sum, and wins."""
    start = anthropic_event("message_start", message={"usage": {"input_tokens": 2, "cache_read_input_tokens": 8}})
    end = anthropic_event("message_delta", delta={}, usage={"output_tokens": 6})
    server.will(events(start, block_start(0, type="text", text="Hello"), end, ANTHROPIC_STOP))
    _, response = await streamed(backend, ANTHROPIC.request())
    assert response.usage == {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}
    assert response.model == "claude-sonnet-4-5"  # as asked for, since nothing else is said
    server.will(
        events(anthropic_event("message_start", message={}), block_start(0, type="text", text="Hello"), ANTHROPIC_STOP)
    )
    _, response = await streamed(backend, ANTHROPIC.request())
    assert response.usage == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated": 1}


async def test_a_long_stream_is_cut(server, backend):
    piece = block_delta(0, type="text_delta", text="é" * 400_000)
    server.will(events(ANTHROPIC_START, piece, piece, piece, anthropic_end(), ANTHROPIC_STOP))
    texts, response = await streamed(backend, ANTHROPIC.request())
    assert len(response.content) == sum(map(len, texts)) == MAX_RESPONSE_CONTENT
    assert response.finish_reason == "length"


@pytest.mark.parametrize(
    ("items", "fault"),
    [
        ([event("{")], "an event is no JSON"),
        ([event("[]")], "an event is a list, not an object"),
        ([event({})], "an event's type is missing or null"),
        ([anthropic_event("message_start")], "message is missing or null"),
        ([anthropic_event("message_start", message={"model": 7})], "message.model is a number, not a text"),
        ([anthropic_event("message_start", message={"usage": 7})], "usage is a number, not an object"),
        ([anthropic_event("content_block_start", index=0)], "content_block is missing or null"),
        ([block_start(0)], "content_block.type is missing or null"),
        ([block_start(0, type="tool_use", name="a")], "content_block.id is missing or null"),
        ([block_start(0, type="tool_use", id="a")], "content_block.name is missing or null"),
        ([block_start(None, type="tool_use", id="a", name="b")], "index is missing or null"),
        ([block_start("0", type="tool_use", id="a", name="b")], "index is a text, not a whole number"),
        ([anthropic_event("content_block_delta", index=0)], "delta is missing or null"),
        ([block_delta(0)], "delta.type is missing or null"),
        ([block_delta(0, type="text_delta")], "delta.text is missing or null"),
        (
            [
                block_start(0, type="tool_use", id="a", name="b"),
                block_delta(0, type="input_json_delta", partial_json={}),
            ],
            "delta.partial_json is an object, not a text",
        ),
        ([anthropic_event("message_delta")], "delta is missing or null"),
        ([anthropic_event("message_delta", delta={"stop_reason": 7})], "delta.stop_reason is a number, not a text"),
        ([ANTHROPIC_STOP], "it has no answer in it"),
        (
            [ANTHROPIC_START, block_start(0, type="tool_use", id="a", name=""), ANTHROPIC_STOP],
            "tool call 0 has no name",
        ),
    ],
)
async def test_malformed_streams(server, backend, items, fault):
    server.will(events(*items))
    with pytest.raises(MalformedResponse, match=f"^Malformed stream of anthropic: {fault}"):
        await streamed(backend, ANTHROPIC.request())


ERRORS = [
    ("overloaded_error", ProviderError, 529),
    ("api_error", ProviderError, 500),
    ("timeout_error", ProviderError, 504),
    ("something_new", ProviderError, 500),
    ("rate_limit_error", RateLimitError, None),
    ("invalid_request_error", RequestRefused, 400),
    ("authentication_error", RequestRefused, 401),
    ("request_too_large", RequestRefused, 413),
]


@pytest.mark.parametrize(("name", "kind", "status"), ERRORS)
async def test_an_error_in_the_middle_of_a_stream(server, backend, name, kind: type[BackendError], status):
    error = anthropic_event("error", error={"type": name, "message": "too much"})
    server.will(events(ANTHROPIC_START, block_start(0, type="text", text="Hel"), error))
    with pytest.raises(kind, match=r"^anthropic: the provider reports an error: too much$") as caught:
        await streamed(backend, ANTHROPIC.request())
    assert getattr(caught.value, "status_code", None) == status


@pytest.mark.parametrize(("name", "kind", "status"), ERRORS)
async def test_an_error_that_says_ok(server, name, kind: type[BackendError], status):
    with pytest.raises(kind, match=r"^anthropic: the provider reports an error: too much$") as caught:
        await answered(server, respond(200, {"type": "error", "error": {"type": name, "message": "too much"}}))
    assert getattr(caught.value, "status_code", None) == status


@pytest.mark.parametrize("error", [None, 7, [], {}, {"message": 7}])
async def test_an_error_that_says_nothing(server, error):
    with pytest.raises(ProviderError, match=r"^anthropic: the provider reports an error$"):
        await answered(server, respond(200, {"type": "error", "error": error}))
