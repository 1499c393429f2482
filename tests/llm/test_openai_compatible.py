from __future__ import annotations

import json
from typing import Any

import pytest

from xml_pipeline.llm.errors import MalformedResponse, ProviderError, RateLimitError, RequestRefused
from xml_pipeline.llm.http_backend import HttpBackend
from xml_pipeline.llm.openai_compatible import OpenAICompatibleBackend
from xml_pipeline.llm.request import MAX_RESPONSE_CONTENT, LLMRequest, Tool, ToolCall

from .bad_server import (
    OPENAI_DONE,
    OPENAI_USAGE,
    BadServer,
    Behaviour,
    chunked,
    event,
    events,
    openai_answer,
    openai_chunk,
    openai_stream,
    respond,
)
from .dialects import KEY, OPENAI, streamed

SEARCH = Tool("search", "Finds things", {"type": "object", "properties": {"q": {"type": "string"}}})
CALL = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q": "ä"}'}}


async def sent(server: BadServer, request: LLMRequest, provider: str = "xai", **options: Any) -> Any:
    """What a server is sent."""
    server.will(respond(200, openai_answer()))
    key = {} if provider in ("ollama", "openai-compatible") else {"api_key": KEY}
    backend = OpenAICompatibleBackend(provider, **{"base_url": server.url, **key, **options})
    await backend.complete(request)
    await backend.close()
    return server.received[-1]


async def answered(server: BadServer, behaviour: Behaviour) -> Any:
    """What an answer is read as."""
    server.will(behaviour)
    backend = OPENAI.backend(server)
    try:
        return await backend.complete(OPENAI.request())
    finally:
        await backend.close()


@pytest.fixture
async def backend(server: BadServer) -> Any:
    backend = OPENAI.backend(server)
    yield backend
    await backend.close()


# -- writing


async def test_a_request(server):
    received = await sent(server, LLMRequest([{"role": "user", "content": "Grüße"}], "grok-3"))
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["accept-encoding"] == "identity"
    assert received.document == {
        "model": "grok-3",
        "messages": [{"role": "user", "content": "Grüße"}],
        "temperature": 0.7,
    }


async def test_a_conversation_with_tools(server):
    request = LLMRequest(
        [
            {"role": "system", "content": "One"},
            {"role": "system", "content": "Two"},
            {"role": "user", "content": "Find ä"},
            {"role": "assistant", "content": "", "tool_calls": [ToolCall("c1", "search", {"q": "ä"})]},
            {"role": "tool", "content": "nothing", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Sorry", "tool_calls": []},
        ],
        "grok-3",
        temperature=None,
        max_tokens=100,
        tools=[SEARCH],
    )
    assert (await sent(server, request)).document == {
        "model": "grok-3",
        "messages": [
            {"role": "system", "content": "One"},
            {"role": "system", "content": "Two"},
            {"role": "user", "content": "Find ä"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "nothing", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Sorry"},
        ],
        "max_tokens": 100,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "search",
                    "description": "Finds things",
                    "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
                },
            }
        ],
    }


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", "gpt-4o", {"temperature": 0.7, "max_completion_tokens": 9}),
        ("openai", "o3-mini", {"max_completion_tokens": 9}),
        ("xai", "grok-4", {"temperature": 0.7, "max_tokens": 9}),
        ("ollama", "llama3:8b", {"temperature": 0.7, "max_tokens": 9}),
    ],
)
async def test_fields_that_differ_between_providers(server, provider, model, expected):
    request = LLMRequest([{"role": "user", "content": "Hi"}], model, max_tokens=9)
    document = (await sent(server, request, provider)).document
    assert {key: document[key] for key in document if key not in ("model", "messages")} == expected


async def test_without_a_key_none_is_sent(server):
    assert "authorization" not in (await sent(server, OPENAI.request(), "openai-compatible")).headers


async def test_half_a_character_is_replaced_when_it_is_sent(server):
    received = await sent(server, OPENAI.request("half \ud83d!"))
    assert received.document["messages"][0]["content"] == "half ?!"


@pytest.mark.parametrize("parameters", [{"x": object()}, {"x": float("nan")}, {"x": {1, 2}}])
async def test_what_cannot_be_written(server, backend, parameters):
    with pytest.raises(RequestRefused, match=r"^xai: the request cannot be written as JSON: "):
        await backend.complete(OPENAI.request(tools=[Tool("a", "", parameters)]))
    assert server.connections == 0


async def test_a_wrong_request_is_not_sent(server, backend):
    with pytest.raises(RequestRefused, match="messages must not be empty"):
        await backend.complete(LLMRequest([], "grok-3"))
    assert server.connections == 0


# -- reading


async def test_an_answer(server):
    document = openai_answer("Hello ✓")
    response = await answered(server, respond(200, document))
    assert response.content == "Hello ✓"
    assert response.model == "some-model-2026"
    assert response.usage == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    assert response.finish_reason == "stop"
    assert response.tool_calls == ()
    assert response.raw == document


async def test_what_may_be_missing(server):
    response = await answered(server, respond(200, {"choices": [{"message": {}}]}, content_type=""))
    assert (response.content, response.model, response.finish_reason) == ("", "grok-3", "stop")


async def test_an_answer_with_tool_calls(server):
    calls = [
        CALL,
        {"id": None, "function": {"name": "stop", "arguments": ""}},
        {"id": "c3", "function": {"name": "search", "arguments": {"q": 1}}},
        {"id": "c4", "function": {"name": "search", "arguments": '{"q": '}},
        {"id": "c5", "function": {"name": "search", "arguments": "[1]"}},
        {"id": "c6", "function": {"name": "search", "arguments": '{"q": "\\ud83d"}'}},
        {"id": "c7", "function": {"name": "search", "arguments": '{"q": ' + "[" * 200 + "]" * 200 + "}"}},
        {"id": "c8", "function": {"name": "search", "arguments": '{"q": ' + "[" * 5000 + "]" * 5000 + "}"}},
    ]
    response = await answered(server, respond(200, openai_answer(None, tool_calls=calls)))
    first, nameless, third, *faulty = response.tool_calls
    assert response.content == "" and response.finish_reason == "tool_calls"
    assert first == ToolCall("c1", "search", {"q": "ä"})
    assert nameless.id.startswith("call_") and (nameless.name, nameless.arguments, nameless.fault) == ("stop", {}, "")
    assert third == ToolCall("c3", "search", {"q": 1})
    assert [(call.arguments, call.fault) for call in faulty] == [
        ({}, "the arguments are no JSON"),
        ({}, "the arguments are a list, not an object"),
        ({}, "the arguments have half a character (a lone surrogate)"),
        ({}, "the arguments are nested deeper than 100 levels"),
        ({}, "the arguments are no JSON"),
    ]


async def test_a_refusal_is_what_the_model_says(server):
    response = await answered(server, respond(200, openai_answer(None, refusal="I will not")))
    assert response.content == "I will not"


@pytest.mark.parametrize("length", [MAX_RESPONSE_CONTENT - 1, MAX_RESPONSE_CONTENT, MAX_RESPONSE_CONTENT + 1])
async def test_a_long_text_is_cut(server, length):
    response = await answered(server, respond(200, openai_answer("é" * length)))
    assert len(response.content) == min(length, MAX_RESPONSE_CONTENT)
    assert response.finish_reason == ("length" if length > MAX_RESPONSE_CONTENT else "stop")


async def test_half_a_character_is_replaced_when_it_comes(server):
    body = json.dumps(openai_answer("@@")).replace("@@", "\\ud83d! \\ud83d\\udc0d").encode()
    assert (await answered(server, respond(200, body))).content == "\N{REPLACEMENT CHARACTER}! \N{SNAKE}"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, (3, 4, None)),
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4, None)),
        # xAI counts reasoning in the total only
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}, (32, 103, None)),
        ({"prompt_tokens": 3, "total_tokens": 7}, (3, 4, None)),
        ({"prompt_tokens": 3.0, "completion_tokens": 4, "total_tokens": 1}, (3, 4, None)),
        ({"completion_tokens": 4}, (1, 4, 1)),
        ({"prompt_tokens": 3}, (3, 2, 1)),
        ({}, (1, 2, 1)),
        (None, (1, 2, 1)),
    ],
)
async def test_usage(server, usage, expected):
    """The request has 2 characters, the answer 5; without a word from the provider it is a quarter of that."""
    response = await answered(server, respond(200, {**openai_answer("Hello"), "usage": usage}))
    prompt, completion, estimated = expected
    assert response.usage == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **({"estimated": estimated} if estimated else {}),
    }


def but(**changes: Any) -> dict[str, Any]:
    return {**openai_answer(), **changes}


def with_choice(choice: Any) -> dict[str, Any]:
    return but(choices=[choice])


def with_message(**changes: Any) -> dict[str, Any]:
    return openai_answer(**changes)


def with_call(call: Any) -> dict[str, Any]:
    return openai_answer(tool_calls=[call])


WRONG_SHAPES = [
    (b"", "the body is no JSON"),
    (b"{", "the body is no JSON"),
    (b"\xff\xfe{}", "the body is no JSON"),
    (b'{"choices": NaN}', "the body is no JSON"),
    (b"[" * 100_000, "the body is no JSON"),
    (b"9" * 10_000, "the body is no JSON"),
    (b"null", "the body is missing or null"),
    (b"[]", "the body is a list, not an object"),
    (b'"text"', "the body is a text, not an object"),
    (b"true", "the body is a boolean, not an object"),
    (b"7", "the body is a number, not an object"),
    ({}, "choices is missing or null"),
    (but(choices=None), "choices is missing or null"),
    (but(choices={}), "choices is an object, not a list"),
    (but(choices=[]), "choices is empty"),
    (with_choice(None), r"choices\[0\] is missing or null"),
    (with_choice("x"), r"choices\[0\] is a text, not an object"),
    (with_choice({}), r"choices\[0\].message is missing or null"),
    (with_choice({"message": []}), r"choices\[0\].message is a list, not an object"),
    (with_choice({"message": {}, "finish_reason": 1}), r"choices\[0\].finish_reason is a number, not a text"),
    (with_message(text=7), r"choices\[0\].message.content is a number, not a text"),
    (with_message(text=[{"text": "x"}]), r"choices\[0\].message.content is a list, not a text"),
    (with_message(text=None, refusal={}), r"choices\[0\].message.refusal is an object, not a text"),
    (with_message(tool_calls={}), "tool_calls is an object, not a list"),
    (with_call(None), r"tool_calls\[0\] is missing or null"),
    (with_call({}), r"tool_calls\[0\].function is missing or null"),
    (with_call({"function": {"arguments": "{}"}}), r"tool_calls\[0\].function.name is missing or null"),
    (with_call({"function": {"name": "", "arguments": "{}"}}), r"tool_calls\[0\].function.name is empty"),
    (with_call({"function": {"name": "a", "arguments": 7}}), r"tool_calls\[0\].function.arguments is a number"),
    (with_call({"function": {"name": "a"}, "id": 7}), r"tool_calls\[0\].id is a number, not a text"),
    (but(model=7), "model is a number, not a text"),
    (but(usage=[]), "usage is a list, not an object"),
    (but(usage={"prompt_tokens": "7"}), "usage.prompt_tokens is a text, not a whole number"),
    (but(usage={"prompt_tokens": 1.5}), "usage.prompt_tokens is a number, not a whole number"),
    (but(usage={"completion_tokens": True}), "usage.completion_tokens is a boolean, not a whole number"),
    (but(usage={"completion_tokens": -1}), "usage.completion_tokens is no possible number of tokens"),
    (but(usage={"total_tokens": 10**15}), "usage.total_tokens is no possible number of tokens"),
]


@pytest.mark.parametrize(("body", "fault"), WRONG_SHAPES)
async def test_wrong_shapes(server, body, fault):
    with pytest.raises(MalformedResponse, match=f"^Malformed response of xai: {fault}") as caught:
        await answered(server, respond(200, body))
    assert caught.value.retry_allowed


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"message": "no such model", "code": 404}, RequestRefused, 404),
        ({"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}, RequestRefused, 400),
        ({"message": "no such model", "code": 429}, RateLimitError, None),
        ({"message": "no such model", "code": "rate_limit_exceeded"}, RateLimitError, None),
        ({"message": "no such model", "code": 502}, ProviderError, 502),
        ({"message": "no such model", "code": 200}, ProviderError, 500),
        ({"message": "no such model", "code": []}, ProviderError, 500),
        ("no such model", ProviderError, 500),
    ],
)
async def test_an_error_that_says_ok(server, error, kind, status):
    """Some servers in between answer errors with status 200."""
    with pytest.raises(kind, match=r"^xai: the provider reports an error: no such model$") as caught:
        await answered(server, respond(200, {"error": error}))
    assert getattr(caught.value, "status_code", None) == status


# -- streaming


async def test_a_stream(server, backend):
    server.will(chunked(*openai_stream()))
    texts, response = await streamed(backend, OPENAI.request(stream=True))
    assert texts == ["Hel", "lo"]
    assert response.content == "Hello"
    assert response.model == "some-model-2026"
    assert response.usage == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    assert response.finish_reason == "stop"
    assert response.raw is None
    document = server.received[-1].document
    assert document["stream"] is True and document["stream_options"] == {"include_usage": True}


async def test_a_stream_without_usage(server, backend):
    server.will(events(openai_chunk({"content": "Hello"}), openai_chunk({}, "length"), OPENAI_DONE))
    _, response = await streamed(backend, OPENAI.request())
    assert response.usage == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "estimated": 1}
    assert response.finish_reason == "length"


async def test_usage_in_every_chunk_is_not_added_up(server, backend):
    """As xAI sends it: each is the sum so far."""
    pieces = [
        event({"choices": [{"delta": {"content": "a"}}], "usage": {"prompt_tokens": 3, "completion_tokens": number}})
        for number in (1, 2, 3)
    ]
    server.will(events(*pieces, openai_chunk({}, "stop"), OPENAI_DONE))
    _, response = await streamed(backend, OPENAI.request())
    assert response.usage == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


async def test_a_stream_without_its_last_line(server, backend):
    """Some servers leave it out; the reason says that the answer is complete."""
    server.will(chunked(*openai_stream()[:-1]))
    assert (await streamed(backend, OPENAI.request()))[1].content == "Hello"


async def test_what_comes_after_the_last_line_is_not_waited_for(server: BadServer, backend):
    server.will(server.hang(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(openai_stream())))
    assert (await streamed(backend, OPENAI.request()))[1].content == "Hello"
    await server.gone.wait()


def tool_delta(**fields: Any) -> bytes:
    return openai_chunk({"tool_calls": [fields]})


async def test_tool_calls_in_pieces(server, backend):
    server.will(
        events(
            openai_chunk({"role": "assistant", "content": None}),
            tool_delta(index=0, id="c1", type="function", function={"name": "search", "arguments": ""}),
            tool_delta(index=0, function={"arguments": '{"q": '}),
            tool_delta(index=1, id="c2", function={"name": "stop", "arguments": "{"}),
            tool_delta(index=0, function={"arguments": '"ä"}'}),
            tool_delta(index=1, function={"arguments": None}),
            openai_chunk({}, "tool_calls"),
            OPENAI_USAGE,
            OPENAI_DONE,
        )
    )
    texts, response = await streamed(backend, OPENAI.request(tools=[SEARCH]))
    assert texts == [] and response.content == ""
    assert response.finish_reason == "tool_calls"
    assert response.tool_calls == (
        ToolCall("c1", "search", {"q": "ä"}),
        ToolCall("c2", "stop", {}, "the arguments are no JSON"),
    )


async def test_tool_calls_as_local_servers_send_them(server, backend):
    """Whole, without an index or an id, with arguments that are an object, and with the wrong reason."""
    server.will(
        events(
            tool_delta(id="c1", function={"name": "search", "arguments": {"q": 1}}),
            tool_delta(id="c2", function={"name": "search", "arguments": '{"q": 2}'}),
            openai_chunk({}, "stop"),
            OPENAI_DONE,
        )
    )
    _, response = await streamed(backend, OPENAI.request())
    assert response.tool_calls == (ToolCall("c1", "search", {"q": 1}), ToolCall("c2", "search", {"q": 2}))
    assert response.finish_reason == "tool_calls"
    server.will(events(tool_delta(function={"name": "search", "arguments": "{}"}), OPENAI_DONE))
    _, response = await streamed(backend, OPENAI.request())
    assert [(call.name, call.id.startswith("call_")) for call in response.tool_calls] == [("search", True)]


async def test_only_the_first_choice_counts(server, backend):
    other = event({"choices": [{"index": 1, "delta": {"content": "no"}}]})
    server.will(events(openai_chunk({"content": "yes"}), other, openai_chunk({}, "stop"), OPENAI_DONE))
    assert (await streamed(backend, OPENAI.request()))[1].content == "yes"


async def test_a_long_stream_is_cut(server, backend):
    piece = openai_chunk({"content": "é" * 400_000})
    server.will(events(piece, piece, piece, openai_chunk({}, "stop"), OPENAI_USAGE, OPENAI_DONE))
    texts, response = await streamed(backend, OPENAI.request())
    assert len(response.content) == sum(map(len, texts)) == MAX_RESPONSE_CONTENT
    assert response.finish_reason == "length"
    assert response.usage["completion_tokens"] == 5


@pytest.mark.parametrize(
    ("items", "fault"),
    [
        ([event("{")], "an event is no JSON"),
        ([event("[1]")], "an event is a list, not an object"),
        ([event("null")], "an event is missing or null"),
        ([event({})], "choices is missing or null"),
        ([event({"choices": {}})], "choices is an object, not a list"),
        ([event({"choices": ["x"]})], r"choices\[0\] is a text, not an object"),
        ([event({"choices": [{"delta": "x"}]})], "delta is a text, not an object"),
        ([event({"choices": [{"finish_reason": 7}]})], "finish_reason is a number, not a text"),
        ([event({"choices": [], "model": 7})], "model is a number, not a text"),
        ([event({"choices": [], "usage": 7})], "usage is a number, not an object"),
        ([openai_chunk({"content": 7})], "delta.content is a number, not a text"),
        ([openai_chunk({"tool_calls": {}})], "delta.tool_calls is an object, not a list"),
        ([openai_chunk({"tool_calls": ["x"]})], r"delta.tool_calls\[\] is a text, not an object"),
        ([tool_delta(index="0")], r"delta.tool_calls\[\].index is a text, not a whole number"),
        ([tool_delta(index=-1)], r"delta.tool_calls\[\].index is no possible number"),
        ([tool_delta(index=0, function="x")], r"delta.tool_calls\[\].function is a text, not an object"),
        ([tool_delta(index=0, function={"arguments": 7})], r"delta.tool_calls\[\].function.arguments is a number"),
        ([tool_delta(index=0, id="c1", function={}), OPENAI_DONE], "tool call 0 has no name"),
        ([tool_delta(index=i, id="c") for i in range(300)], "its tool calls are too many, or too long"),
        (
            [tool_delta(index=0, id="c", function={"arguments": "x" * 400_000})] * 3,
            "its tool calls are too many, or too long",
        ),
        ([OPENAI_DONE], "it has no answer in it"),
        ([OPENAI_USAGE, OPENAI_DONE], "it has no answer in it"),
    ],
)
async def test_malformed_streams(server, backend, items, fault):
    server.will(events(*items))
    with pytest.raises(MalformedResponse, match=f"^Malformed stream of xai: {fault}"):
        await streamed(backend, OPENAI.request())


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (event({"error": {"message": "too much", "code": 429}}), RateLimitError),
        (event({"error": {"message": "too much", "type": "server_error"}}), ProviderError),
        (event({"message": "too much"}, "error"), ProviderError),
        (event({"error": "too much"}), ProviderError),
    ],
)
async def test_an_error_in_the_middle_of_a_stream(server, backend: HttpBackend, item, kind):
    server.will(events(openai_chunk({"content": "Hel"}), item, OPENAI_DONE))
    with pytest.raises(kind, match=r"^xai: the provider reports an error: too much$"):
        await streamed(backend, OPENAI.request())
