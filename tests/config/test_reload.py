from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from xml_pipeline.config import ListenerConfig, LLMConfig, OrganismConfig, PeerTableConfig, ReloadDiff, diff


@dataclass
class One:
    pass


@dataclass
class Two:
    pass


async def first(payload: Any, metadata: Any) -> None:
    return None


async def second(payload: Any, metadata: Any) -> None:
    return None


class Handler:
    async def run(self, payload: Any, metadata: Any) -> None:
        return None

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared by its own idea of equality")

    __hash__ = None  # type: ignore[assignment]


def listener(name: str = "a", **changes: Any) -> ListenerConfig:
    arguments: dict[str, Any] = {"payload_class_path": "app.One", "handler_path": "app.first", "description": "d"}
    return ListenerConfig(name=name, **{**arguments, **changes})


def organism(*listeners: ListenerConfig, **changes: Any) -> OrganismConfig:
    return OrganismConfig(**{"name": "test", "listeners": list(listeners), **changes})


def test_nothing_changed() -> None:
    found = diff(organism(listener(), listener("b")), organism(listener("b"), listener()))
    assert found == ReloadDiff()
    assert not found


def test_listeners_are_added_and_removed_in_order() -> None:
    old = organism(listener("a"), listener("b"), listener("c"))
    new = organism(listener("d"), listener("b"), listener("e"))
    found = diff(old, new)
    assert found
    assert (found.added, found.removed, found.updated) == (("d", "e"), ("a", "c"), ())


def test_a_name_in_another_case_is_another_name() -> None:
    found = diff(organism(listener("a")), organism(listener("A")))
    assert (found.added, found.removed) == (("A",), ("a",))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"handler_path": "app.second"}, "handler"),
        ({"payload_class_path": "app.Two"}, "payload_class"),
        ({"payload_class_path": ("app.One", "app.Two")}, "payload_class"),
        ({"output_class_path": "app.Two"}, "output_class"),
        ({"description": "other"}, "description"),
        ({"is_agent": True}, "is_agent"),
        ({"peers": []}, "peers"),
        ({"peers": ["b"]}, "peers"),
        ({"broadcast": "group"}, "broadcast"),
        ({"prompt": "p"}, "prompt"),
        ({"timeout": 5}, "timeout"),
        ({"concurrency": 5}, "concurrency"),
        ({"rate": "5/s"}, "rate"),
        ({"ordered": False}, "ordered"),
        ({"joins": True}, "joins"),
        ({"repair": "lenient"}, "repair"),
        ({"handler_sha256": "0" * 64}, "handler_sha256"),
    ],
)
def test_every_field_of_a_listener_counts(change: dict[str, Any], field: str) -> None:
    found = diff(organism(listener(), listener("b")), organism(listener(**change), listener("b")))
    assert found.updated == ("a",)
    assert dict(found.changes) == {"a": (field,)}
    assert (found.added, found.removed, found.settings) == ((), (), ())


def test_the_order_of_peers_does_not_count() -> None:
    assert not diff(organism(listener(peers=["a", "b"])), organism(listener(peers=["b", "a", "b"])))


def test_objects_count_where_both_sides_have_them() -> None:
    ready = organism(listener(handler=first, payload_class=One, output_class=One))
    assert not diff(ready, organism(listener(handler=first, payload_class=One, output_class=One)))
    assert not diff(ready, organism(listener()))
    found = diff(ready, organism(listener(handler=second, payload_class=(One, Two), output_class=Two)))
    assert found.changes["a"] == ("handler", "payload_class", "output_class")


def test_handlers_are_compared_by_identity() -> None:
    one, two = Handler(), Handler()
    assert not diff(organism(listener(handler=one.run)), organism(listener(handler=one.run)))
    assert diff(organism(listener(handler=one.run)), organism(listener(handler=two.run)))


def test_settings_are_told() -> None:
    found = diff(organism(), organism(max_hops=5, port=80, version="2"))
    assert found
    assert sorted(found.settings) == ["max_hops", "port", "version"]


def test_a_new_timeout_of_the_organism_changes_listeners_without_their_own() -> None:
    listeners = (listener("a"), listener("b", timeout=30.0))
    found = diff(organism(*listeners), organism(*listeners, timeout=5))
    assert found.updated == ("a",)
    assert found.settings == ("timeout",)


def test_the_result_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        diff(organism(), organism()).changes["a"] = ()  # type: ignore[index]


def model_agent(**changes: Any) -> ListenerConfig:
    return ListenerConfig(name="a", is_agent=True, prompt="p", **changes)


LLM: dict[str, Any] = {"model": "m", "backends": [{"provider": "xai", "api_key": "one"}]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": "n"}, "model"),
        ({"temperature": 0.0}, "temperature"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"max_model_calls": 5}, "max_model_calls"),
        ({"max_history_chars": 0}, "max_history_chars"),
        ({"timeout": 5}, "timeout"),
        ({"prompt": "q"}, "prompt"),
    ],
)
def test_every_field_of_an_agent_without_a_handler_counts(change: dict[str, Any], field: str) -> None:
    new = organism(ListenerConfig(**{"name": "a", "is_agent": True, "prompt": "p", **change}), llm_config=LLM)
    assert dict(diff(organism(model_agent(), llm_config=LLM), new).changes) == {"a": (field,)}


def test_an_agent_may_be_given_a_handler() -> None:
    with_handler = listener(is_agent=True, prompt="p", description="")
    found = diff(organism(model_agent(), llm_config=LLM), organism(with_handler, llm_config=LLM))
    assert sorted(found.changes["a"]) == ["handler", "output_class", "payload_class", "timeout"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"llm_config": {**LLM, "retries": 5}}, "llm_config"),
        ({"llm_config": {**LLM, "backends": [{"provider": "xai", "api_key": "two"}]}}, "llm_config"),
        ({"llm_config": {**LLM, "backends": [{"provider": "xai", "api_key": "one", "models": ["m"]}]}}, "llm_config"),
        ({"peer_tables": [PeerTableConfig(name="t", peers={"a": []})]}, "peer_tables"),
        ({"max_tokens_per_thread": 5}, "max_tokens_per_thread"),
    ],
)
def test_every_section_counts(change: dict[str, Any], field: str) -> None:
    old: dict[str, Any] = {"llm_config": LLM, "peer_tables": [PeerTableConfig(name="t")]}
    assert not diff(organism(**old), organism(**old))
    assert diff(organism(**old), organism(**{**old, **change})).settings == (field,)


def test_a_new_time_limit_of_model_calls_changes_agents_without_their_own() -> None:
    found = diff(
        organism(model_agent(), listener("b"), llm_config=LLM),
        organism(model_agent(), listener("b"), llm_config={**LLM, "timeout": 5}),
    )
    assert dict(found.changes) == {"a": ("timeout",)}
    assert found.settings == ("llm_config",)


def test_a_key_that_was_changed_in_the_environment_counts_and_is_not_told() -> None:
    configs = []
    for key in ("sk-one", "sk-two"):
        config = LLMConfig(backends=[{"provider": "xai", "api_key_env": "KEY"}])  # type: ignore[list-item]
        config.backends[0].find_key({"KEY": key})
        configs.append(organism(llm_config=config))
    found = diff(*configs)
    assert found.settings == ("llm_config",)
    assert "sk-" not in repr(found)
