"""Names, defaults and re-exports that users' programs rely on."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys

import pytest

import xml_pipeline
from xml_pipeline.config import OrganismConfig
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.message_bus import stream_pump
from xml_pipeline.message_bus.stream_pump import StreamPump

from .pump_kit import Ask, Other, echo

EVENTS = [
    "PumpEvent",
    "MessageReceivedEvent",
    "MessageSentEvent",
    "AgentStateEvent",
    "ThreadEvent",
    "ReloadEvent",
    "OutcomeEvent",
]


# -- exports


def test_the_root_package_exports_exactly_what_is_documented():
    documented = {"__version__", "HandlerMetadata", "HandlerResponse", "StreamPump", "bootstrap", *EVENTS}
    assert set(xml_pipeline.__all__) == documented
    assert all(hasattr(xml_pipeline, name) for name in documented)


@pytest.mark.parametrize("name", sorted(set(xml_pipeline.__all__) - {"__version__"}))
def test_re_exports_are_the_same_objects(name):
    home = importlib.import_module(getattr(xml_pipeline, name).__module__)
    assert getattr(home, name) is getattr(xml_pipeline, name) or name == "bootstrap"
    if hasattr(stream_pump, name):
        assert getattr(stream_pump, name) is getattr(xml_pipeline, name)


@pytest.mark.parametrize("name", EVENTS)
def test_event_classes_of_the_facade(name):
    events = importlib.import_module("xml_pipeline.message_bus.events")
    assert getattr(stream_pump, name) is getattr(events, name)


def _modules():
    for package in (xml_pipeline, importlib.import_module("third_party.xmlable")):
        yield package.__name__
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not info.name.endswith("__main__"):
                yield info.name


@pytest.mark.parametrize("name", sorted(_modules()))
def test_all_is_true(name):
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert len(set(exported)) == len(exported), "a name twice"
    assert [each for each in exported if not hasattr(module, each)] == []


def test_importing_needs_no_particular_directory(tmp_path):
    """Package data is found through the package, not through the working directory."""
    root = os.path.dirname(os.path.dirname(xml_pipeline.__file__))
    code = "import xml_pipeline, xml_pipeline.envelope as e; e.envelope_schema(); print(xml_pipeline.__version__)"
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (xml_pipeline.__version__, "")


# -- the public verbs

SIGNATURES = {
    "register": "name handler payload_class *description agent peers broadcast prompt timeout concurrency rate ordered "
    "cpu_bound output_class repair joins model",
    "register_generic_listener": "name handler description",
    "request": "target payload *from_id thread_id timeout routing_table",
    "stream": "target payload *from_id thread_id timeout routing_table",
    "wait": "thread timeout",
    "cancel": "thread",
    "shutdown": "timeout",
    "reload_config": "config_path",
    "subscribe_events": "callback",
    "unsubscribe_events": "callback",
    "register_dispatch_hook": "hook",
    "unregister_dispatch_hook": "hook",
    "unregister_listener": "name",
    "build_pipeline": "source",
}


@pytest.mark.parametrize(("verb", "arguments"), SIGNATURES.items(), ids=list(SIGNATURES))
def test_names_of_arguments(verb, arguments):
    positional, _, keyword = arguments.partition("*")
    parameters = list(inspect.signature(getattr(StreamPump, verb)).parameters.values())[1:]
    assert [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY] == positional.split()
    assert {each.name for each in parameters if each.kind is each.KEYWORD_ONLY} == set(keyword.split())


@pytest.mark.parametrize(
    "verb", ["start", "run", "shutdown", "inject", "inject_nowait", "request", "wait", "from_yaml"]
)
def test_verbs_that_are_awaited(verb):
    assert inspect.iscoroutinefunction(getattr(StreamPump, verb))


def test_stream_is_an_async_generator():
    assert inspect.isasyncgenfunction(StreamPump.stream)


@pytest.mark.parametrize(
    "name",
    [
        "dead_letters",
        "config",
        "config_path",
        "identity",
        "listeners",
        "routing_table",
        "agent_semaphores",
        "queue",
        "dispatch_hooks",
    ],
)
def test_views_are_read_only(name):
    pump = StreamPump()
    assert isinstance(getattr(StreamPump, name), property)
    with pytest.raises(AttributeError):
        setattr(pump, name, None)


def test_the_tables_cannot_be_changed_from_outside():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    with pytest.raises(TypeError):
        pump.listeners["other"] = pump.listeners["tool"]
    with pytest.raises(TypeError):
        pump.routing_table["x"] = []


# -- registration


def test_defaults_of_a_pump():
    pump = StreamPump()
    assert (pump.config.name, pump.config.port, pump.config_path, pump.identity) == ("organism", 8765, "", None)


def test_keywords_and_a_configuration():
    assert StreamPump(name="mine", port=1234).config.port == 1234
    pump = StreamPump(OrganismConfig(name="given", max_hops=7), max_turns=9)
    assert (pump.config.name, pump.config.limits.max_hops, pump.config.limits.max_turns) == ("given", 7, 9)


@pytest.mark.parametrize(
    "keywords", [{"nonsense": 1}, {"port": 0}, {"port": 70000}, {"identity_path": "x"}, {"llm_config": {"a": 1}}]
)
def test_keywords_that_cannot_be(keywords):
    with pytest.raises(ConfigurationError):
        StreamPump(**keywords)


def test_register_returns_the_listener():
    pump = StreamPump()
    listener = pump.register("my-tool", echo, Ask, description="echoes")
    assert listener.root_tag == "my-tool.ask"
    assert pump.listeners["my-tool"] is listener
    assert pump.routing_table["my-tool.ask"] == [listener]
    assert (listener.timeout, listener.description, listener.is_agent) == (30.0, "echoes", False)


def test_an_agent_has_a_semaphore_and_keeps_its_peers():
    pump = StreamPump()
    listener = pump.register("agent", echo, Ask, agent=True, peers=["a", "b"])
    assert listener.peers == ["a", "b"]
    assert pump.agent_semaphores["agent"]._value == 5


def test_several_payload_classes_are_one_route_each():
    pump = StreamPump()
    listener = pump.register("tool", echo, (Ask, Other))
    assert pump.routing_table["tool.ask"] == pump.routing_table["tool.other"] == [listener]


def test_the_decorator_returns_the_handler():
    pump = StreamPump()

    @pump.listener("tool", Ask, timeout=3)
    async def tool(payload, metadata):
        return None

    assert inspect.iscoroutinefunction(tool)
    assert pump.listeners["tool"].timeout == 3


@pytest.mark.parametrize("name", ["tool", "TOOL", "Tool"])
def test_a_name_can_be_taken_once(name):
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    with pytest.raises(ConfigurationError, match="tool"):
        pump.register(name, echo, Other)
    assert len(pump.listeners) == 1


@pytest.mark.parametrize(
    "name", ["", " ", "system", "system.x", "System.X", "external", "mesh:x", "a\x00b", " padded "]
)
def test_names_nobody_may_have(name):
    with pytest.raises(ConfigurationError):
        StreamPump().register(name, echo, Ask)


def test_a_plain_function_and_a_plain_class_are_type_errors():
    pump = StreamPump()
    with pytest.raises(TypeError):
        pump.register("tool", lambda payload, metadata: None, Ask)
    with pytest.raises(TypeError):
        pump.register("tool", echo, int)
    with pytest.raises(TypeError):
        pump.register("tool", echo, Ask, peers="other")


async def test_inject_without_a_payload_is_a_type_error():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    with pytest.raises(TypeError, match="payload"):
        await pump.inject("tool")
    with pytest.raises(TypeError):
        await pump.inject(42, Ask())
    with pytest.raises(TypeError):
        await pump.inject("tool", 42)
    assert pump.statistics().accepted == 0


async def test_the_pump_of_a_handler_and_two_pumps_at_once():
    first, second = StreamPump(name="one"), StreamPump(name="two")
    first.register("tool", echo, Ask)
    assert "tool" not in second.listeners
    assert first.runtime is not second.runtime
