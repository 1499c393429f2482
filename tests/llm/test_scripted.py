from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.config.problems import InvalidConfiguration
from xml_pipeline.llm.backend import Backend
from xml_pipeline.llm.errors import (
    BackendError,
    MalformedResponse,
    ProviderError,
    RateLimitError,
    RequestRefused,
    ScriptExhausted,
)
from xml_pipeline.llm.request import MAX_RESPONSE_CONTENT, LLMRequest, LLMResponse, ToolCall
from xml_pipeline.llm.script import Step, script_from
from xml_pipeline.llm.scripted import ScriptedBackend


def ask(text: str = "Hi", **options: Any) -> LLMRequest:
    return LLMRequest(**{"messages": [{"role": "user", "content": text}], "model": "some-model", **options})


async def texts(backend: ScriptedBackend, *questions: str) -> list[str]:
    return [(await backend.complete(ask(question))).content for question in questions]


# -- playing


async def test_a_script_is_played_in_order():
    backend = ScriptedBackend(["one", "two"])
    assert await texts(backend, "a", "b") == ["one", "two"]
    assert [request.messages[0]["content"] for request in backend.requests] == ["a", "b"]
    assert backend.calls == 2 and backend.left == ()


async def test_what_was_asked_is_remembered_as_it_was():
    backend = ScriptedBackend(["one", "two"])
    messages = [{"role": "user", "content": "a"}]
    for text in ("b", "c"):
        await backend.complete(ask(messages=messages))
        messages.append({"role": "user", "content": text})
    assert [len(request.messages) for request in backend.requests] == [1, 2]


async def test_an_answer_is_like_a_models():
    backend = ScriptedBackend(["Hello"])
    assert isinstance(backend, Backend)
    assert await backend.complete(ask("a" * 9)) == LLMResponse(
        "Hello",
        "some-model",
        {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "estimated": 1},
        "stop",
    )


async def test_every_kind_of_step():
    async def later(request: LLMRequest) -> str:
        return f"later {request.messages[-1]['content']}"

    whole = LLMResponse("whole", "m", {"total_tokens": 1}, "odd")
    backend = ScriptedBackend(
        [
            ToolCall("", "search", {"q": 1}),
            [ToolCall("mine", "search"), ToolCall("", "stop")],
            whole,
            lambda request: f"asked {request.messages[-1]['content']}",
            later,
            lambda request: ToolCall("", "search"),
            lambda request: whole,
            Step(text="with text", tool_calls=(ToolCall("", "search"),), usage=(10, 3)),
        ]
    )
    answers = [await backend.complete(ask()) for _ in range(8)]
    assert [answer.content for answer in answers] == ["", "", "whole", "asked Hi", "later Hi", "", "whole", "with text"]
    ids = [[call.id for call in answer.tool_calls] for answer in answers]
    assert ids == [["call_1"], ["mine", "call_2"], [], [], [], ["call_3"], [], ["call_4"]]
    assert answers[0].tool_calls[0].arguments == {"q": 1}
    assert [answer.finish_reason for answer in answers[:3]] == ["tool_calls", "tool_calls", "odd"]
    assert answers[2] is whole and answers[6] is whole
    assert answers[7].usage == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}


async def test_a_part_of_the_usage():
    backend = ScriptedBackend([Step(text="Hello", usage=(10, None))])
    usage = (await backend.complete(ask())).usage
    assert usage == {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "estimated": 1}


@pytest.mark.parametrize(
    "error", [RateLimitError("later", 2.0), ProviderError("down", 503, 1.0), MalformedResponse("Malformed")]
)
async def test_errors_are_raised(error: BackendError):
    backend = ScriptedBackend([error, lambda request: error, error])
    seen = []
    for _ in range(3):
        with pytest.raises(type(error)) as caught:
            await backend.complete(ask())
        assert str(caught.value) == str(error) and vars(caught.value) == vars(error)
        seen.append(caught.value)
    assert len({id(each) for each in (*seen, error)}) == 4, "each is an error of its own"
    assert error.__traceback__ is None


async def test_an_error_with_a_constructor_of_its_own():
    class Odd(BackendError):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} {two}")

    with pytest.raises(Odd, match=r"^1 2$"):
        await ScriptedBackend([Odd(1, 2)]).complete(ask())


async def test_what_a_function_raises():
    def fail(request: LLMRequest) -> str:
        raise AssertionError("the test is wrong")

    with pytest.raises(AssertionError, match="the test is wrong"):
        await ScriptedBackend([fail]).complete(ask())
    with pytest.raises(TypeError, match="returned another function"):
        await ScriptedBackend([lambda request: lambda again: "x"]).complete(ask())
    with pytest.raises(TypeError, match="not a int"):
        await ScriptedBackend([lambda request: 7]).complete(ask())


@pytest.mark.parametrize("step", [7, None, b"bytes", {"text": "x"}, [], [7], ValueError("x"), str])
def test_what_is_no_step(step):
    with pytest.raises(TypeError, match=r"^a step of a script is a text, "):
        ScriptedBackend([step])


async def test_a_wrong_request_is_refused_as_by_a_real_one():
    backend = ScriptedBackend(["Hello"])
    with pytest.raises(RequestRefused, match="messages must not be empty"):
        await backend.complete(ask(messages=[]))
    assert len(backend.left) == 1 and backend.calls == 1


async def test_a_long_text_is_cut():
    response = await ScriptedBackend(["x" * (MAX_RESPONSE_CONTENT + 1)]).complete(ask())
    assert len(response.content) == MAX_RESPONSE_CONTENT and response.finish_reason == "length"


# -- matching


async def test_what_fits_comes_first():
    script = [Step(text="any"), Step(text="rain", when="weather"), Step(text="snow", when="weather"), Step(text="last")]
    backend = ScriptedBackend(script)
    questions = ("the weather?", "time?", "weather", "more weather")
    assert await texts(backend, *questions) == ["rain", "any", "snow", "last"]


async def test_only_the_last_message_counts():
    backend = ScriptedBackend([Step(text="rain", when="weather"), Step(text="done", when="result: 7")])
    messages = [
        {"role": "user", "content": "weather"},
        {"role": "assistant", "content": None, "tool_calls": [ToolCall("c", "search")]},
        {"role": "tool", "tool_call_id": "c", "content": "result: 7"},
    ]
    assert (await backend.complete(ask(messages=messages))).content == "done"
    with pytest.raises(ScriptExhausted):
        await backend.complete(ask(messages=[*messages, {"role": "user", "content": None}]))


async def test_an_exhausted_script_says_what_was_asked():
    backend = ScriptedBackend(["one", Step(text="two", when="weather")], name="clerk")
    await backend.complete(ask())
    request = ask("What time\nis it?" + "x" * 500)
    with pytest.raises(ScriptExhausted) as caught:
        await backend.complete(request)
    assert caught.value.request is request
    assert not caught.value.retry_allowed
    assert str(caught.value) == (
        "clerk: the script has no step for this request, of model 'some-model', which ends with user: "
        f"'What time is it?{'x' * 184}'; 1 of 2 steps are played, the others wait for 'weather'"
    )
    with pytest.raises(ScriptExhausted, match=r"0 of 0 steps are played$"):
        await ScriptedBackend().complete(ask())


async def test_a_script_that_repeats():
    backend = ScriptedBackend(["one", "two", Step(text="rain", when="weather")], repeat=True)
    questions = ["a", "b", "c", "weather", "weather", "d", "weather", "e"]
    assert await texts(backend, *questions) == ["one", "two", "one", "rain", "rain", "two", "rain", "one"]


async def test_a_script_that_repeats_may_have_nothing_that_fits():
    backend = ScriptedBackend([Step(text="rain", when="weather")], repeat=True)
    assert await texts(backend, "weather", "weather") == ["rain", "rain"]
    with pytest.raises(ScriptExhausted):
        await backend.complete(ask("time?"))


async def test_parallel_calls_take_different_steps():
    release = asyncio.Event()

    async def wait(request: LLMRequest) -> str:
        await release.wait()
        return "late"

    backend = ScriptedBackend([wait, *map(str, range(99))])
    calls = [asyncio.create_task(backend.complete(ask())) for _ in range(100)]
    await asyncio.sleep(0)
    release.set()
    answers = [response.content for response in await asyncio.gather(*calls)]
    assert answers == ["late", *map(str, range(99))]


@given(st.lists(st.sampled_from(["", "a", "b"]), max_size=12), st.lists(st.sampled_from(["a", "b", "c"]), max_size=12))
def test_every_step_is_played_once_at_most(whens, questions):
    async def play() -> None:
        backend = ScriptedBackend([Step(text=f"{number}:{when}", when=when) for number, when in enumerate(whens)])
        played = []
        for question in questions:
            fitting = [step for step in backend.left if step.when in question]
            try:
                played.append((await backend.complete(ask(question))).content)
            except ScriptExhausted:
                assert not fitting
            else:
                assert played[-1] in [step.text for step in fitting]
        assert len(set(played)) == len(played) == len(whens) - len(backend.left)

    asyncio.run(play())


# -- streaming, and the rest


async def test_an_answer_comes_word_by_word():
    backend = ScriptedBackend(["  Hello,  dear\nworld ", ToolCall("", "search")])
    chunks = [chunk async for chunk in backend.stream(ask())]
    assert [chunk.text for chunk in chunks] == ["  ", "Hello,  ", "dear\n", "world ", ""]
    assert chunks[-1].response is not None and chunks[-1].response.content == "  Hello,  dear\nworld "
    (only,) = [chunk async for chunk in backend.stream(ask())]
    assert only.response is not None and only.response.tool_calls[0].name == "search"
    with pytest.raises(ScriptExhausted):
        await anext(backend.stream(ask()))


async def test_the_rest():
    backend = ScriptedBackend(["x"], name="clerk", models=["a"], max_concurrent=3)
    assert (backend.name, backend.provider, backend.max_concurrent) == ("clerk", "scripted", 3)
    assert backend.serves("a") and not backend.serves("b") and ScriptedBackend().serves("anything")
    await backend.close()
    await backend.close()
    assert repr(backend) == "<ScriptedBackend 'clerk'>"


async def test_not_every_request_is_remembered_for_ever():
    backend = ScriptedBackend(["x"], repeat=True)
    for number in range(10_001):
        await backend.complete(ask(str(number)))
    assert backend.calls == 10_001
    assert len(backend.requests) == 10_000 and backend.requests[-1].messages[0]["content"] == "10000"


# -- in YAML


async def test_a_script_from_yaml():
    steps = script_from(
        [
            "Hello",
            {"text": "Hi"},
            {"tool": "search", "arguments": {"q": "trains", "n": [1, None]}},
            {"tool": "stop", "arguments": None},
            {"text": "Let me see", "tools": [{"tool": "search", "arguments": {"q": 1}}, {"tool": "stop"}]},
            {"when": "weather", "text": "It rains", "usage": {"prompt_tokens": 10, "completion_tokens": 3}},
            {"text": "", "usage": {"completion_tokens": 3}},
        ]
    )
    backend = ScriptedBackend(steps)
    answers = [await backend.complete(ask(text)) for text in ("a", "b", "c", "d", "e", "weather", "f")]
    assert [answer.content for answer in answers] == ["Hello", "Hi", "", "", "Let me see", "It rains", ""]
    assert [[(call.name, call.arguments) for call in answer.tool_calls] for answer in answers[2:5]] == [
        [("search", {"q": "trains", "n": [1, None]})],
        [("stop", {})],
        [("search", {"q": 1}), ("stop", {})],
    ]
    assert answers[5].usage == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    assert answers[6].usage["completion_tokens"] == 3 and answers[6].usage["estimated"] == 1


@pytest.mark.parametrize(
    ("entry", "kind", "told"),
    [
        ({"error": "rate_limit"}, RateLimitError, {"retry_after": None}),
        ({"error": "rate_limit", "retry_after": 2}, RateLimitError, {"retry_after": 2.0}),
        ({"error": "provider", "retry_after": 0.5}, ProviderError, {"retry_after": 0.5, "status_code": 503}),
        ({"error": "refused"}, RequestRefused, {"status_code": 400}),
        ({"error": "malformed", "when": "Hi"}, MalformedResponse, {}),
    ],
)
async def test_errors_from_yaml(entry, kind, told):
    with pytest.raises(kind) as caught:
        await ScriptedBackend(script_from([entry])).complete(ask())
    assert {name: getattr(caught.value, name) for name in told} == told


@pytest.mark.parametrize(
    ("entries", "problems"),
    [
        ("Hello", ["script: must be a list of steps"]),
        (None, ["script: must be a list of steps"]),
        ({"text": "x"}, ["script: must be a list of steps"]),
        ([7], ["script[0]: must be a text, or a mapping with text, tool, tools or error"]),
        ([{}], ["script[0]: says nothing: give text, tool, tools or error"]),
        ([{"when": "x"}], ["script[0]: says nothing: give text, tool, tools or error"]),
        (["ok", {"text": "x", "tex": 1}], ["script[1].tex: unknown key, did you mean 'text'?"]),
        ([{"text": "x", 7: 1}], ["script[0]['7']: unknown key"]),
        ([{"text": 7}], ["script[0].text: must be a text"]),
        ([{"text": None}], ["script[0].text: must be a text"]),
        ([{"text": "x", "when": 7}], ["script[0].when: must be a text"]),
        ([{"text": "x", "when": ""}], ["script[0].when: must not be empty; leave it out for any request"]),
        ([{"tool": ""}], ["script[0].tool: must be the name of a tool"]),
        ([{"tool": 7}], ["script[0].tool: must be the name of a tool"]),
        ([{"tool": "a", "arguments": [1]}], ["script[0].arguments: must be a mapping that JSON can carry"]),
        ([{"tool": "a", "arguments": {"x": {1}}}], ["script[0].arguments: must be a mapping that JSON can carry"]),
        ([{"tool": "a", "arguments": {1: 2}}], ["script[0].arguments: must be a mapping that JSON can carry"]),
        ([{"tool": "a", "tools": []}], ["script[0].tools: give tool or tools, not both"]),
        ([{"text": "x", "arguments": {}}], ["script[0].arguments: are for a tool, and none is named"]),
        ([{"tools": []}], ["script[0].tools: must be a list of mappings with tool and arguments"]),
        ([{"tools": ["a"]}], ["script[0].tools[0]: must be a mapping with tool and arguments"]),
        ([{"tools": [{"arguments": {}}]}], ["script[0].tools[0].tool: must be the name of a tool"]),
        ([{"tools": [{"tool": "a", "arg": {}}]}], ["script[0].tools[0].arg: unknown key"]),
        (
            [{"error": "rate_limits"}],
            ["script[0].error: must be one of rate_limit, provider, refused, malformed, did you mean 'rate_limit'?"],
        ),
        ([{"error": 429}], ["script[0].error: must be one of rate_limit, provider, refused, malformed"]),
        ([{"error": "refused", "text": "x"}], ["script[0].text: an error has no answer beside it"]),
        ([{"error": "refused", "usage": {}}], ["script[0].usage: an error has no answer beside it"]),
        (
            [{"error": "refused", "retry_after": 1}],
            ["script[0].retry_after: is for the errors rate_limit and provider"],
        ),
        ([{"text": "x", "retry_after": 1}], ["script[0].retry_after: is for the errors rate_limit and provider"]),
        (
            [{"error": "provider", "retry_after": -1}],
            ["script[0].retry_after: must be a number of seconds, 0 or more"],
        ),
        (
            [{"error": "provider", "retry_after": True}],
            ["script[0].retry_after: must be a number of seconds, 0 or more"],
        ),
        ([{"text": "x", "usage": 7}], ["script[0].usage: must be a mapping with prompt_tokens and completion_tokens"]),
        (
            [{"text": "x", "usage": {"tokens": 7}}],
            ["script[0].usage.tokens: unknown key, did you mean 'prompt_tokens'?"],
        ),
        (
            [{"text": "x", "usage": {"prompt_tokens": -1}}],
            ["script[0].usage.prompt_tokens: must be a whole number, 0 or more"],
        ),
        (
            [{"text": "x", "usage": {"prompt_tokens": 1.5}}],
            ["script[0].usage.prompt_tokens: must be a whole number, 0 or more"],
        ),
        (
            [{"text": 7}, 8, {"tool": 9}],
            [
                "script[0].text: must be a text",
                "script[1]: must be a text, or a mapping with text, tool, tools or error",
                "script[2].tool: must be the name of a tool",
            ],
        ),
    ],
)
def test_scripts_that_are_wrong(entries, problems):
    """All of it is told at once, with its place."""
    with pytest.raises(InvalidConfiguration) as caught:
        script_from(entries)
    assert str(caught.value).splitlines() == problems
