"""`xml_pipeline.platform.prompt_registry`: versions of prompts, and who sees which."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.message_bus.helpers import PATIENCE, Ask, Gate, Recorder, Reply, echo, reached
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump, bootstrap
from xml_pipeline.platform import AgentPrompt, PromptRegistry, get_prompt_registry
from xml_pipeline.runtime import Runtime, use_runtime


@pytest.fixture
def registry() -> PromptRegistry:
    return PromptRegistry()


def made(name: str, text: str = "P") -> AgentPrompt:
    return AgentPrompt.create(name, text)


# -- the documented interface


def test_registering_and_reading(registry: PromptRegistry) -> None:
    prompt = registry.register("a", "Be kind.", "schemas", model="m")
    assert registry.get("a") is registry.get_required("a") is prompt
    assert (prompt.system_prompt, prompt.peer_schemas, prompt.model) == ("Be kind.", "schemas", "m")
    assert registry.has("a")
    assert registry.list_agents() == ["a"]
    assert registry.get_stats() == {"agent_count": 1, "frozen": False, "agents": ["a"], "version": 0}


def test_the_unknown(registry: PromptRegistry) -> None:
    assert registry.get("a") is None
    assert not registry.has("a")
    with pytest.raises(KeyError, match="'a'"):
        registry.get_required("a")
    assert registry.list_agents() == []
    assert registry.peer_schemas("a", "t") == ""


def test_an_empty_prompt_is_a_prompt(registry: PromptRegistry) -> None:
    registry.register("a", "")
    assert registry.has("a")


def test_an_agent_has_one_prompt(registry: PromptRegistry) -> None:
    registry.register("a", "first")
    with pytest.raises(RuntimeError, match="'a' has a prompt already"):
        registry.register("a", "second")
    registry.swap([made("b")])
    with pytest.raises(RuntimeError, match="'b' has a prompt already"):
        registry.register("b", "another")
    assert registry.get_required("b").system_prompt == "P"


def test_frozen_is_for_register_only(registry: PromptRegistry) -> None:
    registry.freeze()
    with pytest.raises(RuntimeError, match="frozen"):
        registry.register("a", "P")
    assert not registry.has("a")
    assert registry.swap([made("a")]) == 1
    assert registry.has("a")
    assert registry.get_stats()["frozen"]
    registry.clear()
    assert registry.list_agents() == []
    registry.register("b", "P")


# -- versions


def test_a_swap_replaces_all(registry: PromptRegistry) -> None:
    registry.register("old", "P")
    assert registry.swap([made("a"), made("b")]) == 1
    assert registry.list_agents() == ["a", "b"]
    assert registry.swap({"c": made("c")}) == 2
    assert registry.list_agents() == ["c"]
    assert registry.get_stats()["version"] == 2


def test_a_swap_may_keep_what_was_registered(registry: PromptRegistry) -> None:
    registry.register("mine", "P")
    registry.register("a", "by hand")
    registry.swap([made("a", "of the pump")], keep_registered=True)
    assert registry.list_agents() == ["a", "mine"]
    assert registry.get_required("a").system_prompt == "of the pump"
    registry.swap([], keep_registered=True)
    assert registry.get_required("a").system_prompt == "by hand"


def test_a_prompt_taken_before_a_swap_stays_what_it_was(registry: PromptRegistry) -> None:
    registry.swap([made("a", "one")])
    before = registry.get_required("a")
    registry.swap([made("a", "two")])
    assert before.system_prompt == "one"
    assert registry.get_required("a").system_prompt == "two"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [([made("a"), "b"], TypeError), ([made("b"), made("b")], ValueError), ((made("c"), None), TypeError)],
)
def test_a_swap_is_all_or_nothing(registry: PromptRegistry, wrong: Any, error: type[Exception]) -> None:
    registry.swap([made("a", "one")])
    with pytest.raises(error):
        registry.swap(wrong)
    assert registry.get_stats() == {"agent_count": 1, "frozen": False, "agents": ["a"], "version": 1}


class Prompts(RuleBasedStateMachine):
    """Against two dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = PromptRegistry()
        self.swapped: dict[str, str] = {}
        self.registered: dict[str, str] = {}
        self.frozen = False
        self.version = 0

    names = st.sampled_from("abc")

    @rule(name=names, text=st.text(max_size=3))
    def register(self, name: str, text: str) -> None:
        if self.frozen or name in self.swapped or name in self.registered:
            with pytest.raises(RuntimeError):
                self.registry.register(name, text)
        else:
            assert self.registry.register(name, text).system_prompt == text
            self.registered[name] = text

    @rule(prompts=st.dictionaries(names, st.text(max_size=3)), keep=st.booleans())
    def swap(self, prompts: dict[str, str], keep: bool) -> None:
        self.version += 1
        new = [AgentPrompt.create(*pair) for pair in prompts.items()]
        assert self.registry.swap(new, keep_registered=keep) == self.version
        self.swapped = prompts
        if not keep:
            self.registered = {}

    @rule()
    def freeze(self) -> None:
        self.registry.freeze()
        self.frozen = True

    @rule()
    def clear(self) -> None:
        self.registry.clear()
        self.swapped, self.registered, self.frozen = {}, {}, False
        self.version += 1

    @invariant()
    def the_same_is_seen(self) -> None:
        expected = {**self.registered, **self.swapped}
        stats = self.registry.get_stats()
        assert {name: self.registry.get_required(name).system_prompt for name in stats["agents"]} == expected
        assert (stats["agent_count"], stats["frozen"], stats["version"]) == (len(expected), self.frozen, self.version)


TestPrompts = Prompts.TestCase


# -- of a pump


def test_the_prompts_are_those_of_the_listeners() -> None:
    pump = StreamPump()
    prompts = pump.engine.prompts
    assert pump.runtime.get(PromptRegistry) is prompts
    pump.register("b", echo, Ask, description="the second")
    pump.register("a", echo, Ask, agent=True, prompt="Be A.", peers=["b"])
    assert prompts.list_agents() == ["a"]
    first = prompts.get_required("a")
    assert first.system_prompt == "Be A."
    assert "the second" in first.peer_schemas
    assert first.peer_schemas == pump.listeners["a"].usage_instructions
    version = prompts.get_stats()["version"]
    pump.unregister_listener("b")
    assert prompts.get_stats()["version"] == version + 1
    assert "(not registered)" in prompts.get_required("a").peer_schemas
    assert "the second" in first.peer_schemas
    pump.unregister_listener("a")
    assert prompts.list_agents() == []


def test_a_prompt_registered_by_the_program_outlives_changes_of_the_table() -> None:
    pump = StreamPump()
    pump.engine.prompts.register("a", "by hand")
    pump.register("a", echo, Ask, agent=True)
    assert pump.engine.prompts.get_required("a").system_prompt == "by hand"


def test_two_pumps_do_not_share_prompts() -> None:
    """A second one in the process must start, too."""
    one, two = StreamPump(), StreamPump()
    for pump, prompt in ((one, "one"), (two, "two")):
        pump.register("a", echo, Ask, agent=True, prompt=prompt)
        pump.engine.prompts.freeze()
    with use_runtime(one.runtime):
        assert get_prompt_registry().get_required("a").system_prompt == "one"
    with use_runtime(two.runtime):
        assert get_prompt_registry().get_required("a").system_prompt == "two"
    with use_runtime(Runtime()):
        assert get_prompt_registry().list_agents() == []


ORGANISM = """\
organism: {name: demo}
listeners:
  - name: teller
    description: tells
    payload_class: prompts_of_test.Ask
    handler: prompts_of_test.handle
    agent: true
    prompt: FIRST
    peers: []
"""
HANDLERS = """\
from dataclasses import dataclass

@dataclass
class Ask:
    text: str = ""

async def handle(payload, metadata):
    return None
"""


async def test_a_reload_swaps_prompts_and_a_broken_file_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "prompts_of_test.py").write_text(HANDLERS, encoding="utf-8")
    path = tmp_path / "organism.yaml"
    path.write_text(ORGANISM, encoding="utf-8")
    pump = await bootstrap(str(path))
    prompts = pump.engine.prompts
    try:
        prompts.freeze()
        first = prompts.get_required("teller")
        path.write_text("organism: {name: demo", encoding="utf-8")
        assert not pump.reload_config().success
        assert prompts.get_required("teller") is first
        path.write_text(
            ORGANISM.replace("FIRST", "SECOND")
            + ORGANISM.partition("listeners:\n")[2].replace("teller", "newcomer").replace("FIRST", "NEW"),
            encoding="utf-8",
        )
        assert pump.reload_config().success
        assert prompts.list_agents() == ["teller", "newcomer"]
        assert prompts.get_required("teller").system_prompt == "SECOND"
        assert prompts.get_required("newcomer").system_prompt == "NEW"
        assert first.system_prompt == "FIRST"
    finally:
        await pump.shutdown(0.0)


async def test_a_running_handler_sees_its_own_prompt_and_no_other() -> None:
    seen: dict[str, Any] = {}

    async def look(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        prompts = get_prompt_registry()

        async def later() -> bool:
            return prompts.has("other")

        seen.update(
            own=prompts.get("me"),
            other=prompts.get("other"),
            has=(prompts.has("me"), prompts.has("other")),
            names=prompts.list_agents(),
            stats=prompts.get_stats()["agents"],
            schemas=prompts.peer_schemas("other", metadata.thread_id),
            in_a_task=await asyncio.create_task(later()),
        )
        with pytest.raises(KeyError):
            prompts.get_required("other")
        return HandlerResponse.respond(Reply(""))

    pump = StreamPump()
    pump.register("me", look, Ask, agent=True, prompt="mine")
    pump.register("other", echo, Ask, agent=True, prompt="secret", peers=["me"])
    async with pump:
        await pump.request("me", Ask(), timeout=PATIENCE)
    assert seen.pop("own").system_prompt == "mine"
    assert seen == {
        "other": None,
        "has": (True, False),
        "names": ["me"],
        "stats": ["me"],
        "schemas": "",
        "in_a_task": False,
    }
    assert pump.engine.prompts.list_agents() == ["me", "other"]
    assert pump.engine.prompts.get_required("other").system_prompt == "secret"


async def test_a_tools_handler_sees_no_prompt() -> None:
    seen: list[Any] = []

    def look(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        prompts = get_prompt_registry()
        seen.extend([prompts.get("tool"), prompts.get("agent"), prompts.list_agents()])
        return HandlerResponse.respond(Reply(""))

    pump = StreamPump()
    pump.register("tool", Recorder(look), Ask)
    pump.register("agent", echo, Ask, agent=True, prompt="secret")
    async with pump:
        await pump.request("tool", Ask(), timeout=PATIENCE)
    assert seen == [None, None, []]


async def test_an_open_frame_of_a_removed_agent_keeps_its_prompt() -> None:
    gate = Gate()
    seen: list[AgentPrompt | None] = []

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        await gate(payload, metadata)
        seen.extend([get_prompt_registry().get("agent"), get_prompt_registry().get("other")])
        return HandlerResponse.respond(Reply(""))

    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, prompt="P")
    pump.register("other", echo, Ask, agent=True, prompt="Q")
    async with pump:
        thread = await pump.inject("agent", Ask())
        await reached(gate.entered)
        pump.unregister_listener("agent")
        gate.opened.set()
        await pump.wait(thread, timeout=PATIENCE)
    assert [prompt and prompt.system_prompt for prompt in seen] == ["P", None]


async def test_peer_schemas_follow_the_conversations_peer_table() -> None:
    """At the moment of asking: a peer that was revoked while the handler ran is not offered to the model any more."""
    seen: dict[str, str] = {}

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        schemas = get_prompt_registry().peer_schemas("agent", metadata.thread_id)
        assert schemas == metadata.usage_instructions
        seen[payload.text] = schemas
        pump.modify_peer_table("narrow", "agent", revoke=["two"])
        seen[payload.text + ", later"] = get_prompt_registry().peer_schemas("agent", metadata.thread_id)
        return HandlerResponse.respond(Reply(""))

    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, prompt="P", peers=["one", "two", "three"])
    for name in ("one", "two", "three"):
        pump.register(name, echo, Ask)
    pump.register_peer_table("narrow", {"agent": ["two", "three"]})
    async with pump:
        await pump.request("agent", Ask("narrow"), timeout=PATIENCE, routing_table="narrow")
        await pump.request("agent", Ask("wide"), timeout=PATIENCE)
    offered = {when: [name for name in ("one", "two", "three") if f"## {name}" in text] for when, text in seen.items()}
    assert offered == {
        "narrow": ["two", "three"],
        "narrow, later": ["three"],
        "wide": ["one", "two", "three"],
        "wide, later": ["one", "two", "three"],
    }
