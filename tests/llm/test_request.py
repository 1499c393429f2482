from __future__ import annotations

from typing import Any

import pytest

from xml_pipeline.llm.errors import RequestRefused
from xml_pipeline.llm.request import LLMRequest, Tool, ToolCall
from xml_pipeline.llm.turns import Turn, check_request, turns_of

USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize("name", ["search", "a", "x" * 64, "tool_1-b"])
def test_names_that_a_tool_may_have(name):
    assert Tool(name, "", {}).name == name


@pytest.mark.parametrize("name", ["", "a.b", "a b", "x" * 65, "é", "a\n", None, 7])
def test_names_that_a_tool_may_not_have(name):
    with pytest.raises(ValueError, match="a tool's name has 1 to 64 of the characters"):
        Tool(name, "", {})


def test_the_messages_of_a_request():
    call = ToolCall("c1", "search", {"q": 1})
    request = LLMRequest(
        [
            {"role": "system", "content": "Be brief"},
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "found", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Here", "tool_calls": None, "name": "ignored"},
        ],
        "m",
    )
    assert turns_of(request) == [
        Turn("system", "Be brief"),
        Turn("user", "Hi"),
        Turn("assistant", "", (call,)),
        Turn("tool", "found", (), "c1"),
        Turn("assistant", "Here"),
    ]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model": ""}, "model must be a name"),
        ({"model": None}, "model must be a name"),
        ({"temperature": "hot"}, "temperature must be a number, not a str"),
        ({"temperature": True}, "temperature must be a number, not a bool"),
        ({"temperature": float("nan")}, "temperature must be a number, not a float"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1"),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number of at least 1"),
        ({"messages": []}, "messages must not be empty"),
        ({"messages": "Hi"}, "messages must be a list, not a str"),
        ({"messages": None}, "messages must be a list, not a NoneType"),
        ({"messages": ["Hi"]}, "messages[0] must be a mapping, not a str"),
        ({"messages": [USER, {"content": "Hi"}]}, "messages[1]: role must be one of system, user, assistant, tool"),
        ({"messages": [{"role": "boss"}]}, "messages[0]: role must be one of system, user, assistant, tool"),
        ({"messages": [{"role": ["user"]}]}, "messages[0]: role must be one of system, user, assistant, tool"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0]: content must be a text, not a int"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0]: content must be a text, not a list"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0]: tool_call_id must name the call"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0]: tool_calls must be a list"),
        ({"messages": [{"role": "assistant", "tool_calls": "x"}]}, "messages[0]: tool_calls must be a list"),
        ({"messages": [{**USER, "tool_calls": [ToolCall("", "a")]}]}, "messages[0]: only an assistant has tool_calls"),
        ({"tools": ["search"]}, "tools[0] must be a Tool with a mapping of parameters"),
        ({"tools": [Tool("a", "", [])]}, "tools[0] must be a Tool with a mapping of parameters"),
    ],
)
def test_what_is_wrong_with_a_request(changes: dict[str, Any], fault: str):
    request = LLMRequest(**{"messages": [USER], "model": "m", **changes})
    assert check_request(request).startswith(fault)
    with pytest.raises(RequestRefused) as caught:
        turns_of(request)
    assert str(caught.value).startswith(f"the request is wrong: {fault}")
    assert not caught.value.retry_allowed and caught.value.status_code == 0


def test_a_request_that_is_right():
    assert check_request(LLMRequest([USER], "m")) == ""
    assert check_request(LLMRequest((USER,), "m", temperature=None, max_tokens=1, tools=[Tool("a", "", {})])) == ""
