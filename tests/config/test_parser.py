from __future__ import annotations

from typing import Any

import pytest

from xml_pipeline.config import BackendConfig, InvalidConfiguration, LLMConfig, PeerTableConfig, Rate
from xml_pipeline.config.parser import parse_document, parse_listener
from xml_pipeline.config.problems import Hints

LISTENER = {"name": "a", "payload_class": "app.A", "handler": "app.handle", "description": "Does a."}


def problems(raw: Any, **options: Any) -> list[str]:
    parsed = parse_document(raw, hints=Hints(), **options)
    assert (parsed.config is None) == bool(parsed.problems)
    return [str(problem) for problem in parsed.problems]


def test_keys_of_the_file_become_fields_of_the_configuration() -> None:
    raw = {
        "organism": {"name": "test", "port": 9000, "description": "A test.", "version": "2"},
        "thread_scheduling": "depth-first",
        "max_hops": 5,
        "timeout": 7,
        "rate": "60/min",
        "backend": {"type": "memory"},
        "import_roots": ["app", "lib.x"],
        "listeners": [
            {
                **LISTENER,
                "payload_class": ["app.A", "app:B"],
                "agent": True,
                "peers": ["b", "system.todo"],
                "broadcast": "group",
                "prompt": "Be brief.",
                "model": "grok-4",
                "timeout_seconds": 2.5,
                "concurrency": 3,
                "rate": "10/s",
                "ordered": False,
                "joins": True,
                "cpu_bound": False,
                "output_class": "app.Out",
                "repair": "lenient",
                "handler_sha256": "AB" * 32,
            },
            {**LISTENER, "name": "b"},
            {**LISTENER, "name": "c", "timeout": 1},
        ],
    }
    config = parse_document(raw, hints=Hints()).config
    assert config is not None
    assert (config.name, config.port, config.description, config.version) == ("test", 9000, "A test.", "2")
    assert (config.thread_scheduling, config.max_hops, config.timeout) == ("depth-first", 5, 7.0)
    assert config.rate == Rate(1.0)
    assert config.import_roots == ["app", "lib.x"]
    assert config.listeners[0].model_dump() == {
        "name": "a",
        "payload_class_path": ("app.A", "app:B"),
        "handler_path": "app.handle",
        "description": "Does a.",
        "is_agent": True,
        "peers": ["b", "system.todo"],
        "broadcast": "group",
        "prompt": "Be brief.",
        "model": "grok-4",
        "temperature": None,
        "max_tokens": None,
        "max_model_calls": 25,
        "max_history_chars": 100_000,
        "timeout": 2.5,
        "concurrency": 3,
        "rate": {"per_second": 10.0, "burst": 10},
        "ordered": False,
        "joins": True,
        "cpu_bound": False,
        "output_class_path": "app.Out",
        "repair": "lenient",
        "handler_sha256": "ab" * 32,
        "payload_class": None,
        "handler": None,
        "output_class": None,
    }
    assert config.listeners[1].payload_class_path == "app.A"
    assert [config.timeout_of(listener) for listener in config.listeners] == [2.5, 7.0, 1.0]


def test_a_blank_list_of_peers_is_an_empty_one() -> None:
    raw = {"organism": {"name": "test"}, "listeners": [{**LISTENER, "peers": None}, {**LISTENER, "name": "b"}]}
    config = parse_document(raw, hints=Hints()).config
    assert config is not None
    assert [listener.peers for listener in config.listeners] == [[], None]


@pytest.mark.parametrize("raw", [None, [], "text", 5, True])
def test_a_document_is_a_mapping(raw: Any) -> None:
    assert problems(raw)[0].startswith("must be a mapping of keys to values, not ")


def test_the_other_sections_become_fields_of_the_configuration() -> None:
    raw = {
        "organism": {"name": "test", "max_tokens_per_thread": 500},
        "llm": {"model": "m", "timeout": 9, "backends": [{"provider": "ollama", "supported_models": ["m"]}]},
        "peer_tables": [{"name": "t", "entries": [{"listener": "a", "peers": None}]}],
        "listeners": [
            LISTENER,
            {"name": "b", "description": "d", "agent": True, "prompt": "p", "peers": []},
            {"name": "c", "description": "d", "agent": True, "prompt": "p", "peers": [], "timeout": 3},
        ],
    }
    config = parse_document(raw, hints=Hints()).config
    assert config is not None
    assert config.max_tokens_per_thread == 500
    assert config.llm_config == LLMConfig(
        model="m", timeout=9, backends=[BackendConfig(provider="ollama", models=["m"])]
    )
    assert config.peer_tables == [PeerTableConfig(name="t", peers={"a": []})]
    assert [config.timeout_of(listener) for listener in config.listeners] == [30.0, 9.0, 3.0]
    assert config.listeners[1].payload_class_path == "xml_pipeline.primitives.text.TextInput"


def test_built_in_names_can_be_told() -> None:
    raw = {"organism": {"name": "test"}, "listeners": [{**LISTENER, "peers": ["system.mine"]}]}
    assert problems(raw, builtin_names=frozenset({"system.mine"})) == []
    assert problems(raw, builtin_names=frozenset()) == [
        "listeners[0].peers[0]: no listener or group is called 'system.mine'"
    ]


def test_a_peer_with_a_wrong_name_is_not_its_callers_fault() -> None:
    raw = {"organism": {"name": "test"}, "listeners": [{**LISTENER, "peers": ["b"]}, {**LISTENER, "name": "b "}]}
    assert problems(raw) == ["listeners[1].name: a name must not begin or end with white space: 'b '"]


def test_one_agent_without_a_handler_can_be_parsed() -> None:
    raw = {"name": "a", "description": "d", "agent": True, "prompt": "p"}
    assert parse_listener(raw, hints=Hints()).timeout == 120.0
    assert parse_listener(raw, hints=Hints()).is_model_agent
    with pytest.raises(InvalidConfiguration, match=r"^prompt: is missing"):
        parse_listener({**raw, "prompt": ""}, hints=Hints())
    with pytest.raises(InvalidConfiguration, match=r"^payload_class: is missing.*\nhandler: is missing"):
        parse_listener({**raw, "agent": False}, hints=Hints())


def test_one_listener_can_be_parsed() -> None:
    listener = parse_listener({**LISTENER, "timeout": 4}, hints=Hints())
    assert (listener.name, listener.timeout, listener.handler) == ("a", 4.0, None)
    with pytest.raises(InvalidConfiguration) as caught:
        parse_listener({**LISTENER, "peerz": [], "handler": "a..b"}, hints=Hints())
    assert sorted(str(caught.value).splitlines()) == [
        "handler: an import path must not have consecutive dots: 'a..b'",
        "peerz: unknown key, did you mean 'peers'?",
    ]
    with pytest.raises(InvalidConfiguration, match="must be a mapping"):
        parse_listener([], hints=Hints())
