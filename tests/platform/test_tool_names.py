"""`xml_pipeline.platform.tool_names`: names that providers take, different ones, and always the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.platform.tool_names import RESPOND, ToolKey, ToolNames, tool_name_like

VALID = re.compile(r"[A-Za-z0-9_-]{1,64}")
LISTENERS = st.text(min_size=1, max_size=80) | st.sampled_from(
    ["a.b", "a b", "a_b", "A_b", "respond", "Respond", "peer", "_", "-", "ж", "é", "e\u0301", "x" * 64, "x" * 65]
)
KEYS = st.builds(ToolKey, LISTENERS, st.sampled_from(["", "", "Ask", "ask", "b"]))


def name_of(listener: str, element: str = "") -> str:
    return ToolNames().of([ToolKey(listener, element)])[ToolKey(listener, element)]


@pytest.mark.parametrize(
    ("listener", "element", "name"),
    [
        ("calculator", "", "calculator"),
        ("Web-Search_2", "", "Web-Search_2"),
        ("_", "", "_"),
        ("_x-", "", "_x-"),
        ("x" * 64, "", "x" * 64),
        ("tools.web search", "", "tools_web_search"),
        (" padded. ", "", "padded"),
        ("café", "", "cafe"),
        ("ﬁle", "", "file"),
        ("system.todo", "TodoUntil", "system_todo_TodoUntil"),
    ],
)
def test_a_readable_name_stays_readable(listener: str, element: str, name: str) -> None:
    assert name_of(listener, element) == name


@pytest.mark.parametrize(
    ("listener", "name"),
    [
        ("журнал", r"peer_[0-9a-f]{8}"),
        ("tools.журнал", r"tools_[0-9a-f]{8}"),
        ("€", r"peer_[0-9a-f]{8}"),
        ("\ud800", r"peer_[0-9a-f]{8}"),
        ("respond", r"respond_[0-9a-f]{8}"),
        ("x" * 65, r"x{55}_[0-9a-f]{8}"),
    ],
)
def test_what_a_name_loses_a_hash_stands_for(listener: str, name: str) -> None:
    assert re.fullmatch(name, name_of(listener))


def test_of_two_that_would_be_the_same_both_get_a_hash_and_a_plain_one_none() -> None:
    first, second, plain = (ToolKey(name) for name in ("a.b", "a b", "a_b"))
    names = ToolNames().of([first, second])
    assert all(re.fullmatch("a_b_[0-9a-f]{8}", name) for name in names.values())
    assert ToolNames().of([second, first]) == names
    assert ToolNames().of([first, second, plain]) == {**names, plain: "a_b"}


@given(st.lists(KEYS, max_size=12), st.lists(KEYS, max_size=12))
def test_names_are_valid_different_and_kept(some: list[ToolKey], more: list[ToolKey]) -> None:
    names = ToolNames()
    first = names.of(some)
    second = names.of([*more, *some])
    every = {**first, **second}
    assert list(first) == list(dict.fromkeys(some))
    assert {key: second[key] for key in first} == first
    assert all(VALID.fullmatch(name) for name in every.values())
    assert len({name.lower() for name in every.values()}) == len(every)
    assert RESPOND not in {name.lower() for name in every.values()}


@given(st.lists(LISTENERS, max_size=12, unique=True), st.randoms())
def test_names_do_not_depend_on_the_order_of_peers(listeners: list[str], random: object) -> None:
    keys = [ToolKey(listener) for listener in {each.lower(): each for each in listeners}.values()]
    shuffled = list(keys)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ToolNames().of(keys) == ToolNames().of(shuffled)


@pytest.mark.parametrize(
    ("said", "told"),
    [("ok-1_x", "ok-1_x"), ("a.b c", "a_b_c"), ("", "_"), ("ж", "_"), ("x" * 65, "x" * 64), ("<tool>", "_tool_")],
)
def test_what_a_model_called_can_be_told_to_a_model(said: str, told: str) -> None:
    assert tool_name_like(said) == told
