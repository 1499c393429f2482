from __future__ import annotations

from typing import Any

import pytest

from xml_pipeline.config.agents import ModelFacts
from xml_pipeline.config.entries import Entry
from xml_pipeline.config.facts import agent_facts, backend_names, listener_facts, model_facts, table_facts
from xml_pipeline.config.interpolation import interpolate
from xml_pipeline.config.peer_tables import EntryFacts
from xml_pipeline.config.problems import KeyPath, Problem


def entry(raw: dict[str, Any], *faulty: KeyPath) -> Entry:
    return Entry(1, raw, None, {("listeners", 1, *path) for path in faulty})


@pytest.mark.parametrize(
    ("raw", "faulty", "peers"),
    [
        ({}, [], None),
        ({"peers": None}, [], ()),
        ({"peers": []}, [], ()),
        ({"peers": ["a", "b"]}, [], ("a", "b")),
        ({"peers": ["a", " b", 5]}, [("peers", 1), ("peers", 2)], ("a", None, None)),
        ({"peers": "a"}, [("peers",)], (None,)),
    ],
)
def test_peers_that_cannot_be_read_may_be_anybody(raw: Any, faulty: list[KeyPath], peers: Any) -> None:
    assert listener_facts(entry(raw, *faulty)).peers == peers


@pytest.mark.parametrize(
    ("agent", "is_agent"), [(True, True), (False, False), ("yes", None), (1, None), (None, None), ("${A}", True)]
)
def test_a_listener_is_an_agent_or_not_or_it_is_not_known(agent: Any, is_agent: bool | None) -> None:
    raw, _ = interpolate({"agent": agent}, {"A": "true"})
    assert listener_facts(entry(raw)).is_agent is is_agent
    assert agent_facts(entry(raw)).is_agent is is_agent
    assert listener_facts(entry({})).is_agent is False


def test_a_name_that_is_wrong_is_not_known() -> None:
    assert listener_facts(entry({"name": "a"})).name == "a"
    assert listener_facts(entry({"name": " a"}, ("name",))).name is None
    assert listener_facts(entry({"name": 5})).name is None


def test_what_is_said_about_model_calls_is_known() -> None:
    facts = agent_facts(entry({"agent": True, "prompt": "p", "model": "m", "temperature": None, "name": "x"}))
    assert (facts.path, facts.prompt, facts.given) == (("listeners", 1), "p", {"model", "temperature"})
    assert facts.is_model_agent
    assert not agent_facts(entry({"agent": True, "handler": None})).is_model_agent
    assert agent_facts(entry({"prompt": 5}, ("prompt",))).prompt is None


@pytest.mark.parametrize(
    ("raw", "facts"),
    [
        ({}, ModelFacts(False, False)),
        ({"backends": [{}], "model": "m"}, ModelFacts(True, True)),
        ({"backends": [], "model": ""}, ModelFacts(False, False)),
        ({"backends": 5, "model": 5}, ModelFacts(None, None)),
        (5, ModelFacts(None, None)),
        (None, ModelFacts(None, None)),
    ],
)
def test_what_there_is_of_models(raw: Any, facts: ModelFacts) -> None:
    assert model_facts(raw, []) == facts


def test_a_misspelt_key_may_have_been_any_other() -> None:
    assert model_facts({"backnds": []}, [Problem("x", ("llm", "backnds"), at_key=True)]) == ModelFacts(None, None)
    assert model_facts({}, [Problem("x", ("lmm", "a"), at_key=True)]) == ModelFacts(False, False)
    assert model_facts({}, [Problem("x", ("llm", "retries"))]) == ModelFacts(False, False)


def test_backends_are_called_by_their_names_or_providers() -> None:
    raw = {"backends": [{"provider": "xai"}, {"provider": "xai", "name": "b"}, 5, {}, {"name": 5}, {"provider": "x"}]}
    wrong = [Problem("x", ("llm", "backends", 5, "provider"))]
    assert backend_names(raw, wrong) == ["xai", "b", None, None, None, None]
    assert backend_names({"backends": 5}, []) == []
    assert backend_names(5, []) == []


def test_tables_are_known_as_far_as_they_can_be_read() -> None:
    raw = [
        {"name": "t", "parent": None, "entries": [{"listener": "a", "peers": ["b"]}]},
        {"name": 5, "parent": "t", "entries": [5, {"listener": " a", "peers": None}]},
        {"name": "u", "entries": 5},
        7,
    ]
    problems = [Problem("x", ("peer_tables", 1, "entries", 1, "listener")), Problem("x", ("llm",))]
    one, two, three, four = table_facts(raw, problems)
    at = ("peer_tables", 0, "entries", 0)
    assert one.entries == (EntryFacts("a", ("b",), (*at, "listener"), (*at, "peers")),)
    assert (one.name, one.parent, one.is_whole) == ("t", None, True)
    assert (two.name, two.parent, two.is_whole) == (None, "t", False)
    assert [(each.listener, each.peers) for each in two.entries] == [(None, ())]
    assert (three.name, three.entries, three.is_whole) == ("u", (), False)
    assert (four.index, four.name, four.is_whole) == (3, None, False)
    assert table_facts(5, []) == []
    assert table_facts(None, []) == []
