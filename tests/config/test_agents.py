from __future__ import annotations

from typing import Any

import pytest

from xml_pipeline.config import (
    ConfigLoader,
    Importer,
    InvalidConfiguration,
    ListenerConfig,
    LLMConfig,
    OrganismConfig,
)
from xml_pipeline.config.agents import DEFAULT_CLASSES, AgentFacts, ModelFacts, check_agent, check_models
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.message_bus.reload import configured_listener
from xml_pipeline.platform import ModelAgent
from xml_pipeline.primitives.text import TextInput, TextOutput

from .conftest import LISTENER, Organism

LLM = "llm: {model: m, backends: [{provider: ollama}]}\n"
AGENT = """organism: {name: test}
listeners:
- name: writer
  agent: true
  description: Writes.
  peers: []
"""


def agent(organism: Organism, *lines: str, llm: str = LLM) -> list[str]:
    """The problems of an agent without a handler, with ``lines`` added; the first is line 7, its keys column 3."""
    text = "".join(f"  {line}\n" for line in lines)
    return organism.problems(f"{AGENT}{text}{llm}")


def test_an_agent_needs_no_python(organism: Organism) -> None:
    report = organism.report(f"{AGENT}  prompt: You write.\n{LLM}")
    assert report.problems == ()
    assert report.warnings == ()
    assert report.config is not None
    (writer,) = report.config.listeners
    assert writer.is_model_agent
    assert (writer.handler, writer.handler_path, writer.prompt) == (None, "", "You write.")
    assert (writer.payload_class, writer.payload_class_path) == (TextInput, DEFAULT_CLASSES["payload_class"])
    assert (writer.output_class, writer.output_class_path) == (TextOutput, DEFAULT_CLASSES["output_class"])
    assert (writer.model, writer.temperature, writer.max_tokens, writer.max_model_calls) == ("", None, None, 25)
    assert writer.max_history_chars == 100_000


def test_it_says_how_to_call_the_model(organism: Organism) -> None:
    keys = """  prompt: You write.
  model: grok-4
  temperature: 0
  max_tokens: 500
  max_model_calls: 3
  max_history_chars: ${CHARS:-0}
  timeout: 7
  payload_class: [handlers.Greeting, handlers.Order]
  output_class: handlers.Answer
"""
    config = organism.report(f"{AGENT}{keys}{LLM}").config
    assert config is not None
    (writer,) = config.listeners
    assert (writer.model, writer.temperature, writer.max_tokens, writer.max_model_calls) == ("grok-4", 0.0, 500, 3)
    assert writer.max_history_chars == 0
    assert [cls.__name__ for cls in writer.payload_classes] == ["Greeting", "Order"]
    assert writer.output_class is not None
    assert writer.output_class.__name__ == "Answer"
    assert config.timeout_of(writer) == 7.0


def test_its_time_limit_is_that_of_the_model_call(organism: Organism) -> None:
    for llm, expected in ((LLM, 120.0), (LLM.replace("model: m", "model: m, timeout: 45"), 45.0)):
        config = organism.report(f"timeout: 5\n{AGENT}  prompt: Write.\n{llm}").config
        assert config is not None
        assert config.timeout_of(config.listeners[0]) == expected


def test_our_own_classes_need_no_import_root(organism: Organism) -> None:
    assert agent(organism, "prompt: p", llm=f"import_roots: [app]\n{LLM}") == []
    assert agent(organism, "prompt: p", "output_class: handlers.Answer", llm=f"import_roots: [app]\n{LLM}") == [
        "8:17 listeners[0].output_class: 'handlers.Answer' is outside of the allowed import roots (app)"
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ["3:3 listeners[0].prompt: is missing: an agent without a handler needs a prompt that says who it is and "
         "what it does"]),
        (["prompt: ' '"], ["7:11 listeners[0].prompt: is missing: an agent without a handler needs a prompt that says "
         "who it is and what it does"]),
        (["prompt: 5"], ["7:11 listeners[0].prompt: must be text, not 5"]),
        (["prompt: ${P}"], ["7:11 listeners[0].prompt: the environment variable P is not set"]),
        (["prompt: p", "handler_sha256: ''"], ["8:19 listeners[0].handler_sha256: there is no handler whose source "
         "could be compared"]),
        (["prompt: p", "handler:"], ["8:3 listeners[0].handler: is blank, must be text"]),
        (["prompt: p", "payload_class:"], ["8:3 listeners[0].payload_class: must be an import path, or a list of "
         "import paths"]),
        (["prompt: p", "payload_class: handlers.NotAPayload"], ["8:18 listeners[0].payload_class: NotAPayload is not "
         "a dataclass or pydantic model"]),
        (["prompt: p", "temperature: 3"], ["8:16 listeners[0].temperature: must be at most 2, not 3"]),
        (["prompt: p", "temperature: -0.1"], ["8:16 listeners[0].temperature: must be at least 0, not -0.1"]),
        (["prompt: p", "temperature: .nan"], ["8:16 listeners[0].temperature: must be a finite number"]),
        (["prompt: p", "max_tokens: 0"], ["8:15 listeners[0].max_tokens: must be at least 1, not 0"]),
        (["prompt: p", "max_history_chars: -1"], [
            "8:22 listeners[0].max_history_chars: must be at least 0, not -1"
        ]),
        (["prompt: p", "max_model_calls: 0"], ["8:20 listeners[0].max_model_calls: must be at least 1, not 0"]),
        (["prompt: p", "model: 5"], ["8:10 listeners[0].model: must be text, not 5"]),
    ],
)  # fmt: skip
def test_what_it_lacks_is_told_with_its_place(organism: Organism, lines: list[str], expected: list[str]) -> None:
    assert agent(organism, *lines) == expected


NO_BACKENDS = (
    "listeners[0]: an agent without a handler calls a model, but there are no backends: describe one under "
    "'llm.backends'"
)
NO_MODEL = "listeners[0].model: is missing: name the agent's model here, or one for all of them under 'llm'"


@pytest.mark.parametrize(
    ("llm", "expected"),
    [
        ("", [f"3:3 {NO_MODEL}", f"3:3 {NO_BACKENDS}"]),
        ("llm: {model: m}\n", [f"3:3 {NO_BACKENDS}"]),
        ("llm: {model: m, backends: []}\n", [f"3:3 {NO_BACKENDS}"]),
        ("llm: {backends: [{provider: ollama}]}\n", [f"3:3 {NO_MODEL}"]),
        ("llm: {model: '', backends: [{provider: ollama}]}\n", [f"3:3 {NO_MODEL}"]),
        ("llm: {modle: m}\n", ["8:7 llm.modle: unknown key, did you mean 'model'?"]),
        ("llm: {model: 5, backends: 5}\n", ["8:14 llm.model: must be text, not 5",
         "8:27 llm.backends: must be a list, not 5"]),
        ("llm: 5\n", ["8:6 llm: must be a mapping of keys to values, not 5"]),
        ("llm:\n", ["8:1 llm: is blank, must be a mapping of keys to values"]),
    ],
)  # fmt: skip
def test_it_needs_a_model_and_a_backend(organism: Organism, llm: str, expected: list[str]) -> None:
    assert agent(organism, "prompt: p", llm=llm) == expected


def test_a_missing_backend_is_told_once(organism: Organism) -> None:
    other = "- {name: other, agent: true, description: d, peers: [], prompt: p}\n"
    found = organism.problems(f"{AGENT}  prompt: p\n{other}llm: {{model: m}}\n")
    assert found == [f"3:3 {NO_BACKENDS}"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["model: m"], ["7:10 listeners[0].model: only an agent has a model: remove it, or add 'agent: true'"]),
        (["agent: true", "peers: []", "model: m"], []),
        (["agent: true", "peers: []", "temperature: 1"], ["9:16 listeners[0].temperature: is only for agents without "
         "a handler: a handler makes its model calls itself"]),
        (["max_tokens: 5", "max_model_calls: 5"], [
            "7:15 listeners[0].max_tokens: is only for agents without a handler: a handler makes its model calls "
            "itself",
            "8:20 listeners[0].max_model_calls: is only for agents without a handler: a handler makes its model calls "
            "itself",
        ]),
        (["agent: true", "peers: []", "max_history_chars: 0"], [
            "9:22 listeners[0].max_history_chars: is only for agents without a handler: a handler makes its model "
            "calls itself"
        ]),
        (["agent: yes", "model: m"], ["7:10 listeners[0].agent: must be true or false, not the text 'yes'; in YAML 1.2 "
         "only true and false are booleans"]),
    ],
)  # fmt: skip
def test_what_a_listener_with_a_handler_may_say(organism: Organism, lines: list[str], expected: list[str]) -> None:
    assert organism.listener(*lines) == expected


def test_a_listener_that_is_no_agent_needs_a_handler(organism: Organism) -> None:
    text = LISTENER.replace("  handler: handlers.greet\n", "")
    (problem,) = organism.problems(text)
    assert problem.startswith("3:3 listeners[0].handler: is missing: the import path of an async function")
    assert organism.problems(f"{text}  agent: ${{AGENT}}\n  prompt: p\n{LLM}", AGENT="true") == []
    (problem,) = organism.problems(f"{text}  agent: ${{AGENT}}\n  prompt: p\n{LLM}", AGENT="false")
    assert "handler: is missing" in problem


# -- in Python -------------------------------------------------------------------------------------------------------


def config(**changes: Any) -> ListenerConfig:
    return ListenerConfig(**{"name": "writer", "is_agent": True, "prompt": "You write.", **changes})


def refused(make: Any, **arguments: Any) -> list[str]:
    with pytest.raises(InvalidConfiguration) as caught:
        make(**arguments)
    return str(caught.value).splitlines()


async def handle(payload: Any, metadata: Any) -> None:
    return None


def test_programs_may_describe_one() -> None:
    writer = config()
    assert writer.is_model_agent
    assert writer.payload_class_path == DEFAULT_CLASSES["payload_class"]
    assert writer.output_class_path == DEFAULT_CLASSES["output_class"]
    assert ListenerConfig(**writer.model_dump()) == writer
    assert config(payload_class_path="a.B", output_class=TextInput).payload_class_path == "a.B"
    assert config(payload_class=TextOutput, output_class=TextInput).output_class_path == ""
    for other in (
        config(handler=handle, payload_class=TextInput),
        config(handler_path="a.b", payload_class_path="a.B"),
    ):
        assert not other.is_model_agent
        assert other.output_class_path == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prompt": ""}, ["prompt: is missing: an agent without a handler needs a prompt that says who it is and what "
         "it does"]),
        ({"is_agent": False}, ["a listener needs payload_class or payload_class_path"]),
        ({"is_agent": False, "payload_class_path": "a.B"}, ["a listener needs handler or handler_path"]),
        ({"handler_sha256": "0" * 64}, ["handler_sha256: there is no handler whose source could be compared"]),
        ({"handler_path": "a.b", "payload_class_path": "a.B", "temperature": 1, "max_model_calls": 3}, [
            "temperature: is only for agents without a handler: a handler makes its model calls itself",
            "max_model_calls: is only for agents without a handler: a handler makes its model calls itself",
        ]),
        ({"handler_path": "a.b", "payload_class_path": "a.B", "is_agent": False, "model": "m"}, [
            "model: only an agent has a model: remove it, or add 'agent: true'"
        ]),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused(changes: dict[str, Any], expected: list[str]) -> None:
    assert refused(config, **changes) == expected


def test_a_model_may_be_named_for_an_agent_with_a_handler() -> None:
    assert config(handler=handle, payload_class=TextInput, model="m", max_model_calls=25).model == "m"


def test_an_organism_must_have_what_its_agents_call() -> None:
    llm: Any = {"model": "m", "backends": [{"provider": "ollama"}]}
    organism = OrganismConfig(name="o", listeners=[config()], llm_config=llm)
    assert organism.timeout_of(organism.listeners[0]) == 120.0
    assert organism.timeout_of(config(timeout=30.0)) == 30.0
    assert organism.timeout_of(config(handler=handle, payload_class=TextInput)) == 30.0
    assert refused(OrganismConfig, name="o", listeners=[config()]) == [NO_MODEL, NO_BACKENDS]
    assert refused(OrganismConfig, name="o", listeners=[config(model="m")], llm_config=LLMConfig()) == [NO_BACKENDS]


def test_its_classes_are_imported_for_programs_too() -> None:
    writer = config()
    ConfigLoader._resolve_imports(writer)
    assert (writer.payload_class, writer.output_class, writer.handler) == (TextInput, TextOutput, None)
    other = config(payload_class_path=DEFAULT_CLASSES["payload_class"])
    from xml_pipeline.config.entries import resolve_listener

    resolve_listener(other, Importer(["app"]))
    assert other.payload_class is TextInput


# -- the rules by themselves -----------------------------------------------------------------------------------------


def test_what_is_not_known_is_left_alone() -> None:
    unknown = AgentFacts(("x",), is_agent=None, has_handler=False, prompt="", given={"model"})
    assert check_agent(unknown) == []
    assert check_models([unknown], ModelFacts(False, False)) == []
    agent_facts = AgentFacts(("x",), is_agent=True, has_handler=False, prompt=None)
    assert check_agent(agent_facts) == []
    assert check_models([agent_facts], ModelFacts(None, None)) == []
    assert len(check_models([agent_facts], ModelFacts(False, False))) == 2


def test_organisms_without_such_agents_need_no_backends() -> None:
    assert check_models([AgentFacts(("x",), is_agent=True), AgentFacts(("y",))], ModelFacts(False, False)) == []


# -- how it becomes a listener ---------------------------------------------------------------------------------------


def test_its_handler_is_the_built_in_model_call() -> None:
    writer = config(model="m", peers=[], temperature=0.5, max_tokens=100, max_model_calls=3, max_history_chars=7)
    with pytest.raises(ConfigurationError, match="not imported"):
        configured_listener(writer, 5.0)
    ConfigLoader._resolve_imports(writer)
    listener = configured_listener(writer, 5.0)
    made = listener.handler
    assert isinstance(made, ModelAgent)
    assert (made.prompt, made.model, made.temperature) == ("You write.", "m", 0.5)
    assert (made.max_tokens, made.max_model_calls, made.max_history_chars) == (100, 3, 7)
    assert (listener.model, listener.prompt, listener.timeout) == ("m", "You write.", 5.0)
    assert (listener.payload_classes, listener.output_class) == ((TextInput,), TextOutput)
    other = configured_listener(config(handler=handle, payload_class=TextInput), 5.0)
    assert (other.handler, other.model) == (handle, "")
