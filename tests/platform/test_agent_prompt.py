"""`xml_pipeline.platform.agent_prompt`: prompts as values, and those of a routing table."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime

import pytest

from tests.message_bus.helpers import Ask, echo
from xml_pipeline.message_bus.listener import Listener, make_listener
from xml_pipeline.message_bus.routing import RoutingTable
from xml_pipeline.message_bus.usage import update_usage
from xml_pipeline.platform.agent_prompt import AgentPrompt, PromptsOfTable, prompt_of


def agent(name: str, prompt: str = "", *, is_agent: bool = True, model: str = "", peers: tuple[str, ...] = ()):
    return make_listener(name, echo, Ask, agent=is_agent, prompt=prompt, model=model, peers=list(peers))


def test_a_prompt_knows_its_hash_and_its_time() -> None:
    before = datetime.now(UTC)
    prompt = AgentPrompt.create("a", "Be kind.", "schemas", model="m")
    assert (prompt.agent_name, prompt.system_prompt, prompt.peer_schemas, prompt.model) == (
        "a",
        "Be kind.",
        "schemas",
        "m",
    )
    assert prompt.prompt_hash == hashlib.sha256(b"Be kind.").hexdigest()[:16]
    made = datetime.fromisoformat(prompt.created_at)
    assert made.tzinfo is not None
    assert before <= made <= datetime.now(UTC)


def test_the_hash_is_of_the_system_prompt_alone() -> None:
    assert AgentPrompt.create("a", "x", "1").prompt_hash == AgentPrompt.create("b", "x", "2", model="m").prompt_hash
    assert AgentPrompt.create("a", "x").prompt_hash != AgentPrompt.create("a", "y").prompt_hash
    assert AgentPrompt.create("a", "\ud800").prompt_hash  # a lone surrogate


def test_the_full_prompt_is_both_parts() -> None:
    assert AgentPrompt.create("a", "P", "S").full_prompt == "P\n\nS"
    assert AgentPrompt.create("a", "P").full_prompt == "P"


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        AgentPrompt.create("a", "P").system_prompt = "Q"  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [None, b"P", 1])
def test_only_text_is_a_prompt(wrong: object) -> None:
    with pytest.raises(TypeError, match="system_prompt must be a string"):
        AgentPrompt.create("a", wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="agent_name must be a string"):
        AgentPrompt.create(wrong, "P")  # type: ignore[arg-type]


# -- of listeners


def table_of(*listeners: Listener) -> RoutingTable:
    table = RoutingTable(listeners)
    update_usage(table)
    return table


def test_only_agents_with_a_prompt_have_one() -> None:
    assert prompt_of(agent("a")) is None
    assert prompt_of(agent("tool", "ignored", is_agent=False)) is None
    prompts = PromptsOfTable(table_of(agent("a", "A", model="m"), agent("b"), agent("t", "T", is_agent=False)))
    assert list(prompts) == ["a"]
    assert len(prompts) == 1
    assert "b" not in prompts
    assert prompts.get("t") is None
    assert prompts.get("unknown") is None
    assert (prompts["a"].system_prompt, prompts["a"].model, prompts["a"].peer_schemas) == ("A", "m", "")


def test_peer_schemas_are_the_usage_instructions_and_written_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = agent("a", "A", peers=("b",)), agent("b", "B", peers=("a",))
    prompts = PromptsOfTable(table_of(one, two))
    written: list[str] = []
    original = Listener.usage_instructions.fget
    assert original is not None
    monkeypatch.setattr(
        Listener, "usage_instructions", property(lambda self: (written.append(self.name), original(self))[1])
    )
    assert "a" in dict.fromkeys(prompts)
    assert written == []
    prompt = prompts["a"]
    assert written == ["a"]
    assert prompts["a"] is prompt
    assert written == ["a"]
    assert prompt.peer_schemas == one.usage_instructions
    assert "## b" in prompt.peer_schemas
