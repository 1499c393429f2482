from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from xml_pipeline.config import InvalidConfiguration, Limits, ListenerConfig, LLMConfig, OrganismConfig, Rate


@dataclass
class Greeting:
    name: str = ""


@dataclass
class Farewell:
    name: str = ""


async def handle(payload: Greeting, metadata: Any) -> None:
    return None


def listener(**changes: Any) -> ListenerConfig:
    arguments: dict[str, Any] = {
        "name": "greeter",
        "payload_class_path": "app.Greeting",
        "handler_path": "app.greet",
        "description": "Greets people.",
    }
    return ListenerConfig(**{**arguments, **changes})


def refused(make: Any, **arguments: Any) -> list[str]:
    with pytest.raises(InvalidConfiguration) as caught:
        make(**arguments)
    return str(caught.value).splitlines()


def test_a_listener_has_the_documented_fields_and_defaults() -> None:
    config = listener()
    assert config.model_dump() == {
        "name": "greeter",
        "payload_class_path": "app.Greeting",
        "handler_path": "app.greet",
        "description": "Greets people.",
        "is_agent": False,
        "peers": None,
        "broadcast": False,
        "prompt": "",
        "model": "",
        "temperature": None,
        "max_tokens": None,
        "max_model_calls": 25,
        "max_history_chars": 100_000,
        "timeout": 30.0,
        "concurrency": None,
        "rate": None,
        "ordered": True,
        "joins": False,
        "cpu_bound": False,
        "output_class_path": "",
        "repair": "strict",
        "handler_sha256": "",
        "payload_class": None,
        "handler": None,
        "output_class": None,
    }
    assert config.payload_class_paths == ("app.Greeting",)
    assert config.payload_classes == ()


def test_classes_and_handler_may_be_given_ready() -> None:
    config = ListenerConfig(
        name="greeter", payload_class=(Greeting, Farewell), handler=handle, output_class=Greeting, description="Greets."
    )
    assert config.payload_class == (Greeting, Farewell)
    assert config.payload_classes == (Greeting, Farewell)
    assert config.payload_class_paths == ()
    assert config.handler is handle
    assert config.output_class is Greeting
    assert ListenerConfig(name="x", payload_class=Greeting, handler=handle).payload_classes == (Greeting,)
    assert listener(payload_class=[Greeting]).payload_class is Greeting


def test_ready_objects_are_not_in_the_repr() -> None:
    text = repr(listener(payload_class=Greeting, handler=handle))
    assert "app.greet" in text
    assert "payload_class=" not in text
    assert "handler=" not in text


def test_several_paths_are_a_tuple_and_one_is_itself() -> None:
    assert listener(payload_class_path=["a.B", "a.C"]).payload_class_path == ("a.B", "a.C")
    assert listener(payload_class_path=["a.B"]).payload_class_path == "a.B"


def test_not_saying_peers_differs_from_having_none() -> None:
    assert listener().peers is None
    assert listener(peers=[]).peers == []
    assert listener(peers=("a", "b")).peers == ["a", "b"]


def test_rates_may_be_written_as_text() -> None:
    assert listener(rate="10/s").rate == Rate(10.0)
    assert listener(rate=Rate(1.0, 5)).rate == Rate(1.0, 5)


def test_paths_of_local_functions_are_fine_beside_the_objects() -> None:
    config = listener(handler=handle, handler_path="tests.test_x.test.<locals>.handle")
    assert config.handler_path.endswith("<locals>.handle")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nmae": "x"}, "nmae: unknown key, did you mean 'name'?"),
        ({"name": ""}, "name: a name must not be empty"),
        ({"name": " x"}, "name: a name must not begin or end with white space: ' x'"),
        ({"name": "a\x00"}, "name: a name must not contain the character U+0000"),
        ({"name": 5}, "name: must be text, not 5"),
        ({"description": None}, "description: is blank, must be text"),
        ({"description": "bell \x07"}, "description: the character U+0007 cannot be written in XML"),
        ({"is_agent": 1}, "is_agent: must be true or false, not 1"),
        ({"peers": "calc"}, "peers: must be a list of names"),
        ({"peers": [1]}, "peers: must be a list of names"),
        ({"broadcast": 1}, "broadcast: must be true, false or the name of a group"),
        ({"broadcast": ""}, "broadcast: a name must not be empty"),
        ({"timeout": 0}, "timeout: must be greater than 0, not 0"),
        ({"concurrency": 0}, "concurrency: must be at least 1, not 0"),
        ({"rate": "10/x"}, "rate: must be a number per second, or like '10/s', '100/min', '5/h', not '10/x'"),
        ({"cpu_bound": True}, "cpu_bound: not supported in this version"),
        ({"repair": "loose"}, "repair: must be 'strict' or 'lenient', not the text 'loose'"),
        (
            {"handler_sha256": "abc"},
            "handler_sha256: must be 64 hexadecimal digits, the SHA-256 of the handler's source file",
        ),
        ({"payload_class_path": 5}, "payload_class_path: must be an import path, or several of them"),
        ({"payload_class_path": ""}, "a listener needs payload_class or payload_class_path"),
        ({"handler_path": ""}, "a listener needs handler or handler_path"),
        ({"payload_class": Greeting()}, "payload_class: must be a class, or several of them"),
        ({"payload_class": ()}, "payload_class: must be a class, or several of them"),
        ({"handler": 5}, "handler: must be a function, not 5"),
        ({"output_class": "x"}, "output_class: must be a class, not the text 'x'"),
        ({"trusted": True}, "trusted: not supported, and out of scope for good"),
    ],
)
def test_a_wrong_argument_of_a_listener_is_refused(changes: dict[str, Any], problem: str) -> None:
    assert refused(listener, **changes) == [problem]


def test_all_wrong_arguments_are_told_at_once() -> None:
    assert len(refused(listener, name="", timeout=0, cpu_bound=True)) == 3


def test_system_listeners_can_be_described() -> None:
    assert listener(name="system.boot").name == "system.boot"


def test_assignment_is_checked() -> None:
    config = listener()
    config.handler = handle
    assert config.handler is handle
    with pytest.raises(InvalidConfiguration, match="timeout: must be greater than 0, not -1"):
        config.timeout = -1
    assert config.timeout == 30.0


def test_an_organism_has_the_documented_fields_and_defaults() -> None:
    config = OrganismConfig(name="organism")
    limits = Limits().model_dump()
    assert config.model_dump() == {
        **limits,
        "name": "organism",
        "listeners": [],
        "port": 8765,
        "identity_path": "",
        "llm_config": LLMConfig().model_dump(),
        "peer_tables": [],
        "mesh": None,
        "description": "",
        "version": "0.1.0",
        "import_roots": None,
    }


def test_an_organism_has_its_limits() -> None:
    config = OrganismConfig(name="organism", max_hops=3, rate=Rate.parse("10/s"))
    assert config.max_hops == 3
    assert config.limits == Limits.of(max_hops=3, rate="10/s")


def test_some_limits_can_be_replaced() -> None:
    config = OrganismConfig(name="organism", max_hops=3, max_turns=4, listeners=[listener()])
    changed = config.with_limits(max_hops=5, rate="10/s")
    assert (changed.max_hops, changed.max_turns, changed.rate) == (5, 4, Rate(10.0))
    assert (config.max_hops, config.rate) == (3, None)
    changed.listeners.clear()
    assert len(config.listeners) == 1
    assert refused(config.with_limits, max_hosp=5) == ["max_hosp: unknown key, did you mean 'max_hops'?"]


def test_a_listener_without_a_timeout_of_its_own_has_that_of_the_organism() -> None:
    config = OrganismConfig(name="organism", timeout=5, listeners=[listener(), listener(name="slow", timeout=30.0)])
    assert [config.timeout_of(one) for one in config.listeners] == [5.0, 30.0]


def test_two_organisms_do_not_share_lists() -> None:
    one, two = OrganismConfig(name="a"), OrganismConfig(name="b")
    one.listeners.append(listener())
    assert two.listeners == []


@pytest.mark.parametrize("port", [1, 80, 65535])
def test_ports_are_in_range(port: int) -> None:
    assert OrganismConfig(name="organism", port=port).port == port


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"port": 0}, "port: Invalid port 0: ports are 1 to 65535"),
        ({"port": 65536}, "port: Invalid port 65536: ports are 1 to 65535"),
        ({"port": -1}, "port: Invalid port -1: ports are 1 to 65535"),
        ({"port": True}, "port: must be a whole number, not true"),
        ({"port": "80"}, "port: must be a whole number, not the text '80'"),
        ({"name": ""}, "name: a name must not be empty"),
        ({"identity_path": 5}, "identity_path: must be text, not 5"),
        ({"llm_config": {"backend": []}}, "llm_config.backend: unknown key, did you mean 'backends'?"),
        ({"llm_config": 5}, "llm_config: must be a mapping of keys to values, not 5"),
        ({"llm_config": None}, "llm_config: is blank, must be a mapping of keys to values"),
        ({"max_tokens_per_thread": 0}, "max_tokens_per_thread: must be at least 1, not 0"),
        ({"peer_tables": [{"peers": {}}]}, "peer_tables[0].name: is missing"),
        ({"peer_table_configs": []}, "peer_table_configs: is called 'peer_tables' now"),
        ({"process_pool_enabled": True}, "process_pool_enabled: not supported in this version"),
        ({"oob_enabled": True}, "oob_enabled: not supported, and out of scope for good"),
        ({"max_hosp": 5}, "max_hosp: unknown key, did you mean 'max_hops'?"),
        ({"max_hops": 0}, "max_hops: must be at least 1, not 0"),
        ({"import_roots": ["a:b"]}, "import_roots[0]: an import path consists of dotted Python identifiers: 'a:b'"),
        ({"import_roots": "app"}, "import_roots: must be a list, not the text 'app'"),
        ({"listeners": [5]}, "listeners[0]: must be a mapping of keys to values, not 5"),
    ],
)
def test_a_wrong_argument_of_an_organism_is_refused(changes: dict[str, Any], problem: str) -> None:
    assert refused(OrganismConfig, **{"name": "organism", **changes}) == [problem]


def test_a_name_is_needed() -> None:
    assert refused(OrganismConfig) == ["name: is missing"]


def test_rules_between_listeners_hold_in_programs_too() -> None:
    assert refused(OrganismConfig, name="organism", listeners=[listener(), listener(name="Greeter")]) == [
        "listeners[1].name: the name 'Greeter' is taken by listeners[0], 'greeter' but for case"
    ]
    assert "reserved" in refused(OrganismConfig, name="organism", listeners=[listener(name="system.x")])[0]


def test_peers_of_a_program_may_be_registered_later() -> None:
    assert OrganismConfig(name="organism", listeners=[listener(peers=["later"])]).listeners[0].peers == ["later"]


def test_listeners_may_be_given_as_mappings() -> None:
    entry = {"name": "x", "payload_class_path": "a.B", "handler_path": "a.h"}
    assert OrganismConfig(name="organism", listeners=[entry]).listeners[0].name == "x"  # type: ignore[list-item]
    assert refused(OrganismConfig, name="organism", listeners=[{**entry, "hander": "x"}]) == [
        "listeners[0].hander: unknown key, did you mean 'handler'?"
    ]
