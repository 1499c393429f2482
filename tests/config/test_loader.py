from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xml_pipeline.config import ConfigLoader, InvalidConfiguration, Rate, load_report
from xml_pipeline.config.keys import key_warnings
from xml_pipeline.errors import ConfigurationError

from .conftest import LISTENER, Organism

REAL = """# An organism of three.
organism:
  name: hello
  port: 8765
max_concurrent_handlers: 10
timeout: 20
listeners:
  - name: greeter
    payload_class: handlers.Greeting
    handler: handlers.greet
    description: >-
      Greets people, politely.
    agent: true
    peers: [shouter, "system.todo"]
    prompt: |
      You greet.

      Be brief.
  - name: shouter
    payload_class: [handlers.Greeting, handlers:Order]
    handler: handlers:stream
    description: 'Shouts: ''hey'''
    rate: 100/min
    output_class: handlers.Answer
  - name: calls
    payload_class: handlers.Answer
    handler: handlers.calls
    description: ${WHAT:-Calls.}
    timeout_seconds: ${PATIENCE:-2.5}
    ordered: ${ORDERED:-false}
"""


def test_a_good_file_is_loaded_with_its_imports(organism: Organism) -> None:
    report = organism.report(REAL, WHAT="Called.")
    assert report.problems == ()
    assert report.warnings == ()
    assert report.ok
    config = report.config
    assert config is not None
    greeter, shouter, calls = config.listeners
    assert [listener.name for listener in config.listeners] == ["greeter", "shouter", "calls"]
    assert greeter.description == "Greets people, politely."
    assert greeter.prompt == "You greet.\n\nBe brief.\n"
    assert greeter.timeout == 20.0
    assert getattr(greeter.handler, "__name__", "") == "greet"
    assert [cls.__name__ for cls in shouter.payload_classes] == ["Greeting", "Order"]
    assert shouter.output_class is not None
    assert shouter.output_class.__name__ == "Answer"
    assert shouter.rate == Rate(100 / 60)
    assert (calls.description, calls.timeout, calls.ordered) == ("Called.", 2.5, False)


def test_load_gives_the_configuration_or_raises_with_every_problem(organism: Organism) -> None:
    organism.file.write_text(REAL)
    assert ConfigLoader.load(organism.file, environment={}).name == "hello"
    assert ConfigLoader.load(str(organism.file)).name == "hello"
    organism.file.write_text(REAL.replace("port", "prot").replace("peers:", "peerz:"))
    with pytest.raises(ConfigurationError) as caught:
        ConfigLoader.load(organism.file)
    assert str(caught.value).splitlines() == [
        f"{organism.file}:4:3 organism.prot: unknown key, did you mean 'port'?",
        f"{organism.file}:14:5 listeners[0].peerz: unknown key, did you mean 'peers'?",
    ]
    assert isinstance(caught.value, InvalidConfiguration)
    assert [problem.line for problem in caught.value.problems] == [4, 14]
    assert {problem.file for problem in caught.value.problems} == {str(organism.file)}


def test_everything_is_told_at_once_in_the_order_of_the_file(organism: Organism) -> None:
    text = """max_concurent_handlers: 5
max_hops: true
organism: {name: test, port: 70000}
gateways: {key: "${NOT_SET}"}
listeners:
- name: greeter
  payload_class: handlers.Greeting
  handler: handlers.gret
  description: Greets.
  peers: [shoutr]
- name: Greeter
  payload_class: [handlers.Greeting, handlrs.Order]
  handler: handlers.sync
  prompt: ${WHO}
  agent: yes
  timeout: 1
  timeout: 2
- 5
- name: shouter
  agent: true
  rate: 10/x
  description:
"""
    assert organism.problems(text) == [
        "1:1 max_concurent_handlers: unknown key, did you mean 'max_concurrent_handlers'?",
        "2:11 max_hops: must be a whole number, not true",
        "3:30 organism.port: Invalid port 70000: ports are 1 to 65535",
        "4:1 gateways: not supported in this version",
        "8:12 listeners[0].handler: module 'handlers' has no attribute 'gret', did you mean 'greet'?",
        "10:11 listeners[0].peers[0]: no listener or group is called 'shoutr', did you mean 'shouter'?",
        "11:3 listeners[1].description: is missing: say in a sentence what the listener is for, "
        "its callers and agents read it",
        "11:9 listeners[1].name: the name 'Greeter' is taken by listeners[0], 'greeter' but for case",
        "12:38 listeners[1].payload_class[1]: there is no module 'handlrs', did you mean 'handlers'?",
        "13:12 listeners[1].handler: the handler must be async: write 'async def sync'",
        "14:11 listeners[1].prompt: the environment variable WHO is not set",
        "15:10 listeners[1].agent: must be true or false, not the text 'yes'; "
        "in YAML 1.2 only true and false are booleans",
        "17:3 listeners[1].timeout: the key is given twice, first in line 16",
        "18:3 listeners[2]: must be a mapping of keys to values, not 5",
        "19:3 listeners[3].prompt: is missing: an agent without a handler needs a prompt that says who it is and "
        "what it does",
        "19:3 listeners[3].model: is missing: name the agent's model here, or one for all of them under 'llm'",
        "19:3 listeners[3]: an agent without a handler calls a model, but there are no backends: describe one under "
        "'llm.backends'",
        "21:9 listeners[3].rate: must be a number per second, or like '10/s', '100/min', '5/h', not '10/x'",
        "22:3 listeners[3].description: is blank, must be text",
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("names: x", "7:3 listeners[0].names: unknown key, did you mean 'name'?"),
        ("trusted: true", "7:3 listeners[0].trusted: not supported, and out of scope for good"),
        ("cpu_bound: true", "7:14 listeners[0].cpu_bound: not supported in this version"),
        ("agent: no", None),
        ("agent: 1", "7:10 listeners[0].agent: must be true or false, not 1"),
        ("peers: x", "7:10 listeners[0].peers: must be a list, not the text 'x'"),
        ("peers: [5]", "7:11 listeners[0].peers[0]: must be text, not 5"),
        ("peers: [' x']", "7:11 listeners[0].peers[0]: a name must not begin or end with white space: ' x'"),
        ("peers: [x]", "7:11 listeners[0].peers[0]: no listener or group is called 'x'"),
        ("broadcast: true", "7:14 listeners[0].broadcast: true needs a dotted name, e.g. 'group.member'; "
         "or name the group"),
        ("broadcast: 5", "7:14 listeners[0].broadcast: must be true, false or the name of a group"),
        ("broadcast: ''", "7:14 listeners[0].broadcast: a name must not be empty"),
        ("prompt: 5", "7:11 listeners[0].prompt: must be text, not 5"),
        ('prompt: "\\a"', "7:11 listeners[0].prompt: the character U+0007 cannot be written in XML"),
        ("timeout: 0", "7:12 listeners[0].timeout: must be greater than 0, not 0"),
        ("timeout: 12:30", "7:12 listeners[0].timeout: must be a number, not the text '12:30'"),
        ("timeout_seconds: .inf", "7:20 listeners[0].timeout_seconds: must be a finite number"),
        ("timeout: '5'", "7:12 listeners[0].timeout: must be a number, not the text '5'"),
        ("concurrency: 0", "7:16 listeners[0].concurrency: must be at least 1, not 0"),
        ("concurrency: 1.0", "7:16 listeners[0].concurrency: must be a whole number, not 1"),
        ("ordered: off", None),
        ("repair: lenien", "7:11 listeners[0].repair: must be 'strict' or 'lenient', not the text 'lenien', "
         "did you mean 'lenient'?"),
        ("handler_sha256: 12", "7:19 listeners[0].handler_sha256: must be text, not 12"),
        ("output_class: handlers.Nope", "7:17 listeners[0].output_class: module 'handlers' has no attribute 'Nope'"),
        ("output_class: a..b", "7:17 listeners[0].output_class: an import path must not have consecutive dots: 'a..b'"),
        ("output_class: []", "7:17 listeners[0].output_class: must be text, not a list"),
        ("name: again", "7:3 listeners[0].name: the key is given twice, first in line 3"),
        ("prompt: &x y", "7:11 listeners[0].prompt: anchors are not supported ('x')"),
        ("prompt: !!str y", "7:11 listeners[0].prompt: tags are not supported ('tag:yaml.org,2002:str')"),
        ("prompt: ${NOPE:?say who}", "7:11 listeners[0].prompt: the environment variable NOPE is needed: say who"),
        ("prompt: ${", "7:11 listeners[0].prompt: '${' without '}'; write '$$' for a dollar sign"),
    ],
)  # fmt: skip
def test_a_wrong_key_of_a_listener_is_told_with_its_place(organism: Organism, line: str, problem: str | None) -> None:
    found = organism.listener(line)
    if problem is None:
        assert "in YAML 1.2 only true and false are booleans" in found[0]
    else:
        assert found == [problem]


def test_both_spellings_of_a_timeout_are_one_too_many(organism: Organism) -> None:
    assert organism.listener("timeout: 1", "timeout_seconds: 1") == [
        "3:3 listeners[0]: has both 'timeout' and 'timeout_seconds', which mean the same"
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("handlers.greet", "handlers.number", "5:12 listeners[0].handler: the handler must be an async function, "
         "not a value of type int"),
        ("handlers.greet", "handlers.Calls", "5:12 listeners[0].handler: the handler is the class Calls; "
         "an instance of it, or an async function, is needed"),
        ("handlers.greet", "handlers", "5:12 listeners[0].handler: 'handlers' names no attribute of a module; "
         "write 'module.name'"),
        ("handlers.greet", "../x", "5:12 listeners[0].handler: an import path must not have consecutive dots: '../x'"),
        ("handlers.greet", "/a/b", "5:12 listeners[0].handler: an import path consists of dotted Python identifiers: "
         "'/a/b'"),
        ("handlers.greet", "handlers.__doc__", "5:12 listeners[0].handler: Dunder names are not allowed in an import "
         "path: 'handlers.__doc__'"),
        ("handlers.greet", "5", "5:12 listeners[0].handler: must be text, not 5"),
        ("handlers.greet", "", "5:3 listeners[0].handler: is blank, must be text"),
        ("handlers.Greeting", "handlers.NotAPayload", "4:18 listeners[0].payload_class: NotAPayload is not a dataclass "
         "or pydantic model"),
        ("handlers.Greeting", "handlers.greet", "4:18 listeners[0].payload_class: a payload class must be a class, "
         "not a value of type function"),
        ("handlers.Greeting", "[]", "4:18 listeners[0].payload_class: must name at least one class"),
        ("handlers.Greeting", "[handlers.Order, 5]", "4:18 listeners[0].payload_class: must be an import path, "
         "or a list of import paths"),
        ("handlers.Greeting", "[handlers.Order, handlers.Order]", "4:18 listeners[0].payload_class: lists "
         "'handlers.Order' twice"),
        ("Greets people.", "''", "6:16 listeners[0].description: must not be empty"),
        ("Greets people.", "' '", "6:16 listeners[0].description: must not be empty"),
        ("Greets people.", "", "6:3 listeners[0].description: is blank, must be text"),
        ("name: greeter", "name: ' x'", "3:9 listeners[0].name: a name must not begin or end with white space: ' x'"),
        ("name: greeter", "name: 5", "3:9 listeners[0].name: must be text, not 5"),
        ("name: greeter", "name: system.x", "3:9 listeners[0].name: the name 'system' and names that begin with "
         "'system.' are reserved: 'system.x'"),
        ("name: greeter", "naem: greeter", None),
        ("{name: test}", "{name: test, port: 0}", "1:30 organism.port: Invalid port 0: ports are 1 to 65535"),
        ("{name: test}", "{name: test, port: 1.5}", "1:30 organism.port: must be a whole number, not 1.5"),
        ("{name: test}", "{name: test, identity: 5}", "1:34 organism.identity: must be text, not 5"),
        ("{name: test}", "{name: test, tls: {cert: \"${X}\"}}", "1:24 organism.tls: not supported in this version"),
        ("{name: test}", "{name: test, max_tokens_per_thread: 0}", "1:47 organism.max_tokens_per_thread: "
         "must be at least 1, not 0"),
        ("  payload_class: handlers.Greeting\n", "", "3:3 listeners[0].payload_class: is missing: the import path of a "
         "dataclass or pydantic model, or a list of them"),
        ("  handler: handlers.greet\n", "", "3:3 listeners[0].handler: is missing: the import path of an async "
         "function; an agent whose prompt goes to a model ('agent: true') needs none"),
        ("{name: test}", "{}", "1:11 organism.name: is missing"),
        ("{name: test}", "", "1:1 organism: is blank, must be a mapping of keys to values"),
        ("{name: test}", "test", "1:11 organism: must be a mapping of keys to values, not the text 'test'"),
        ("organism: {name: test}\n", "", "1:1 organism: is missing: an organism has at least a name"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_place(organism: Organism, old: str, new: str, problem: str | None) -> None:
    found = organism.problems(LISTENER.replace(old, new, 1))
    if problem is None:
        assert found == [
            "3:3 listeners[0].naem: unknown key, did you mean 'name'?",
            "3:3 listeners[0].name: is missing",
        ]
    else:
        assert found == [problem]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        *((f"{key}: {{a: 1}}", f"1:1 {key}: not supported in this version")
          for key in ("process_pool", "meta", "gateways")),
        *((f"{key}: {{a: '${{X}}'}}", f"1:1 {key}: not supported, and out of scope for good")
          for key in ("oob", "auth", "network", "tools", "shell", "compiler")),
        ("llm:", "1:1 llm: is blank, must be a mapping of keys to values"),
        ("llm: []", "1:6 llm: must be a mapping of keys to values, not a list"),
        ("llm_backends: []", "1:1 llm_backends: not supported: describe them under 'llm', as its 'backends'"),
        ("peer_tables: {a: 1}", "1:14 peer_tables: must be a list, not a mapping"),
        ("peer_tables: [5]", "1:15 peer_tables[0]: must be a mapping of keys to values, not 5"),
        ("max_tokens_per_thread: {a: 1}", "1:24 max_tokens_per_thread: must be a whole number, not a mapping"),
        ("agents: []", "1:1 agents: not supported: describe agents under 'listeners', with 'agent: true'"),
        ("server: {}", "1:1 server: not supported, and out of scope for good: there is no HTTP server for messages"),
        ("backend: {type: redis}", "1:17 backend.type: not supported in this version"),
        ("backend: {type: manager}", "1:17 backend.type: not supported in this version"),
        ("backend: {type: disk}", "1:17 backend.type: unknown backend, 'memory' is the only one"),
        ("backend: {redis_url: x}", "1:11 backend.redis_url: not supported in this version"),
        ("backend: {typ: memory}", "1:11 backend.typ: unknown key, did you mean 'type'?"),
        ("import_roots: app", "1:15 import_roots: must be a list, not the text 'app'"),
        ("import_roots: [a/b]", "1:16 import_roots[0]: an import path consists of dotted Python identifiers: 'a/b'"),
        ("thread_scheduling: deepest", "1:20 thread_scheduling: must be 'breadth-first' or 'depth-first', "
         "not the text 'deepest'"),
        ("'a b': 1", "1:1 ['a b']: unknown key"),
        ("1: x", "1:1 ['1']: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_key_at_the_top_is_told_with_its_place(organism: Organism, line: str, problem: str) -> None:
    assert organism.problems(f"{line}\n{LISTENER}") == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "organism: {name: test, max_queue: 5}\nlisteners: []\n",
            "1:24 organism.max_queue: unknown key here; 'max_queue' belongs at the top level of the file, "
            "or in an entry of 'mesh.expose'",
        ),
        (
            "organism: {name: test}\nport: 8000\nlisteners: []\n",
            "2:1 port: unknown key here; 'port' belongs under 'organism'",
        ),
        (
            "organism: {name: test, timeout: 5}\nlisteners: []\n",
            "1:24 organism.timeout: unknown key here; 'timeout' belongs at the top level of the file, "
            "or in an entry of 'listeners'",
        ),
    ],
)
def test_a_key_of_another_section_is_told_where_it_belongs(organism: Organism, text: str, problem: str) -> None:
    assert organism.problems(text) == [problem]


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("backends: []", "under 'llm'"),
        ("provider: xai", "in an entry of 'llm.backends'"),
        ("parent: x", "in an entry of 'peer_tables'"),
        ("listener: x", "in one of a peer table's 'entries', or in an entry of 'mesh.expose'"),
        ("model: m", "in an entry of 'listeners', or under 'llm'"),
        ("name: x", "under 'organism', or in an entry of 'listeners'"),
    ],
)
def test_a_key_of_a_section_that_is_at_the_top_is_told_where_it_belongs(
    organism: Organism, line: str, place: str
) -> None:
    key = line.partition(":")[0]
    assert organism.problems(f"{line}\n{LISTENER}") == [f"1:1 {key}: unknown key here; {key!r} belongs {place}"]


@pytest.mark.parametrize(
    ("top", "within", "expected"),
    [("", "", 100_000), ("7", "", 7), ("", "7", 7), ("7", "7", 7), ("", "'${TOKENS}'", 9), ("", "null", 100_000)],
)
def test_the_token_budget_may_stand_in_two_places(organism: Organism, top: str, within: str, expected: int) -> None:
    inside = f"name: test, max_tokens_per_thread: {within}" if within else "name: test"
    outside = f"max_tokens_per_thread: {top}\n" if top else ""
    config = organism.report(outside + LISTENER.replace("name: test", inside), TOKENS="9").config
    assert config is not None
    assert config.max_tokens_per_thread == config.limits.max_tokens_per_thread == expected


def test_two_token_budgets_are_one_too_many(organism: Organism) -> None:
    text = "max_tokens_per_thread: 100000\n" + LISTENER.replace("name: test", "name: test, max_tokens_per_thread: 5")
    assert organism.problems(text) == [
        "2:47 organism.max_tokens_per_thread: is 5, but max_tokens_per_thread at the top level is 100,000; keep one"
    ]


def test_a_class_that_would_pass_for_the_pumps_own_is_refused(organism: Organism) -> None:
    source = "from dataclasses import dataclass\n@dataclass\nclass message:\n    a: int = 0\n"
    organism.module("own", source + "@dataclass\nclass SystemError:\n    a: int = 0\n")
    for name in ("message", "SystemError"):
        assert organism.problems(LISTENER.replace("handlers.Greeting", f"own.{name}")) == [
            f"4:18 listeners[0].payload_class: a payload class cannot be called {name!r}"
        ]
    real = "xml_pipeline.message_bus.message_state.SystemError"
    assert organism.problems(LISTENER.replace("handlers.Greeting", f"[handlers.Greeting, {real}]")) == []


def test_a_module_that_fails_is_told_once_and_executed_once(
    organism: Organism, capsys: pytest.CaptureFixture[str]
) -> None:
    (organism.directory / "failing_module.py").write_text("print('executed')\nraise RuntimeError('no database')\n")
    listeners = "".join(
        f"- {{name: {name}, payload_class: failing_module.A, handler: failing_module.a, description: x}}\n"
        for name in ("one", "two")
    )
    (problem,) = organism.problems(f"organism: {{name: test}}\nlisteners:\n{listeners}")
    assert "listeners[0].payload_class: importing 'failing_module' failed: RuntimeError: no database" in problem
    assert capsys.readouterr().out == "executed\n"


@pytest.mark.parametrize("text", ["organism: {name: test}\nlisteners: {a: b}\n", "organism: *nobody\n"])
def test_listeners_that_cannot_be_read_are_not_called_none(organism: Organism, text: str) -> None:
    report = organism.report(text)
    assert report.problems
    assert report.warnings == ()


def test_a_peer_that_is_listed_twice_is_worth_a_warning(organism: Organism) -> None:
    report = organism.report(f"{LISTENER}  peers: [system.todo, system.boot, system.todo]\n")
    assert report.config is not None
    assert [warning.text for warning in report.warnings] == ["'system.todo' is listed twice"]


def test_paths_outside_of_the_allowed_packages_are_not_imported(organism: Organism) -> None:
    assert organism.problems(f"import_roots: [handlers]\n{LISTENER}") == []
    assert organism.problems(f"import_roots: [app]\n{LISTENER}") == [
        "5:18 listeners[0].payload_class: 'handlers.Greeting' is outside of the allowed import roots (app)",
        "6:12 listeners[0].handler: 'handlers.greet' is outside of the allowed import roots (app)",
    ]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "2:1 listeners: is blank, write [] for none"),
        ("{}", "2:12 listeners: must be a list, not a mapping"),
        ("[[]]", "2:13 listeners[0]: must be a mapping of keys to values, not a list"),
        ("[null]", "2:13 listeners[0]: must be a mapping of keys to values, not blank"),
    ],
)
def test_wrong_listeners_are_told(organism: Organism, value: str, problem: str) -> None:
    assert organism.problems(f"organism: {{name: test}}\nlisteners: {value}\n") == [problem]


@pytest.mark.parametrize("text", ["organism: {name: test}\n", "organism: {name: test}\nlisteners: []\n"])
def test_an_organism_without_listeners_is_worth_a_warning(organism: Organism, text: str) -> None:
    report = organism.report(text)
    assert report.config is not None
    assert report.config.listeners == []
    (warning,) = report.warnings
    assert warning.text == "the organism has no listeners"


def test_an_agent_that_does_not_say_its_peers_is_worth_a_warning(organism: Organism) -> None:
    assert organism.listener("agent: true", "peers:") == []
    assert organism.report(f"{LISTENER}  agent: true\n  peers:\n").warnings == ()
    (warning,) = organism.report(f"{LISTENER}  agent: true\n").warnings
    assert str(warning).startswith(f"{organism.file}:3:3 listeners[0]: an agent without 'peers' reaches nobody")


def test_members_of_a_group_accept_one_class_however_it_is_written(organism: Organism) -> None:
    organism.module("again", "from handlers import Greeting\n")
    member = "- {{name: {0}, payload_class: {1}, handler: handlers.greet, description: d, broadcast: true}}\n"
    text = "organism: {name: test}\nlisteners:\n" + member.format("g.a", "handlers.Greeting")
    assert organism.problems(text + member.format("g.b", "again.Greeting")) == []
    assert organism.problems(text + member.format("g.b", "handlers.Order")) == [
        "4:98 listeners[1].broadcast: all listeners of the group 'g' must accept the same payload class, "
        "unlike listeners[0]"
    ]


def test_the_source_of_a_handler_is_compared_with_its_hash(organism: Organism) -> None:
    right = hashlib.sha256((organism.directory / "handlers.py").read_bytes()).hexdigest()
    assert organism.listener(f"handler_sha256: '{right}'") == []
    assert organism.listener("handler_sha256: ''") == []
    assert organism.listener(f"handler_sha256: '{'0' * 64}'") == [
        f"5:12 listeners[0].handler: Handler integrity check failed: handlers.py has SHA-256 {right}"
    ]


def test_variables_are_put_in_and_whole_ones_may_be_numbers(organism: Organism) -> None:
    text = """organism: {name: "${NAME}", port: "${PORT:-9000}"}
max_hops: ${HOPS}
listeners:
- name: a.${NAME}
  payload_class: handlers.${CLASS}
  handler: handlers.greet
  description: Costs $$5, or ${NAME}.
  concurrency: ${NONE}
"""
    assert organism.problems(text, NAME="123", HOPS="7", CLASS="Order", NONE="null") == []
    config = organism.report(text, NAME="123", HOPS="7", CLASS="Order", NONE="null").config
    assert config is not None
    assert (config.name, config.port, config.max_hops) == ("123", 9000, 7)
    listener = config.listeners[0]
    assert (listener.name, listener.payload_class_path, listener.concurrency) == ("a.123", "handlers.Order", None)
    assert listener.description == "Costs $5, or 123."
    assert type(config.name) is str
    assert type(listener.prompt) is str


def test_secrets_are_not_quoted(organism: Organism) -> None:
    found = organism.listener(
        "timeout: ${S}", "rate: ${S}", "agent: ${S}", "repair: ${S}", "concurrency: a${S}", S="pa55"
    )
    assert len(found) == 5
    assert "pa55" not in "".join(found)


def test_a_variable_cannot_change_the_structure(organism: Organism) -> None:
    config = organism.report(LISTENER.replace("Greets people.", "${D}"), D="x\n  agent: true").config
    assert config is not None
    assert config.listeners[0].description == "x\n  agent: true"
    assert not config.listeners[0].is_agent


def test_a_file_of_variables_beside_the_organism_is_read(organism: Organism, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_PROCESS", "process")
    monkeypatch.delenv("FROM_FILE", raising=False)
    (organism.directory / ".env").write_text("FROM_FILE=file\nFROM_PROCESS=file\n")
    organism.file.write_text(LISTENER.replace("Greets people.", "${FROM_FILE} ${FROM_PROCESS}"))
    assert ConfigLoader.load(organism.file).listeners[0].description == "file process"
    assert "FROM_FILE" not in os.environ
    monkeypatch.setenv("FROM_FILE", "")  # so that it is put back afterwards
    monkeypatch.delenv("FROM_FILE")
    assert load_report(organism.file, export_environment=True).ok
    assert os.environ["FROM_FILE"] == "file"
    (organism.directory / ".env").write_bytes(b"\xff")
    (problem,) = load_report(organism.file).problems
    assert str(problem).startswith(f"{organism.directory.resolve() / '.env'}: is not UTF-8 text")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nothing.yaml", "there is no such file"),
        (".", "is a directory; name the organism file in it"),
        ("handlers.py/x.yaml", "cannot be read: Not a directory"),
        ("a\x00b", "is not the name of a file"),
        ("\ud800", None),
        ("pipe", "cannot be read: not a regular file"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(
    organism: Organism, monkeypatch: pytest.MonkeyPatch, path: str, text: str | None
) -> None:
    monkeypatch.chdir(organism.directory)
    os.mkfifo("pipe")
    (problem,) = load_report(path).problems
    assert "\n" not in str(problem)
    if text is not None:
        assert str(problem) == f"{path if path.isprintable() else repr(path)}: {text}"
    with pytest.raises(InvalidConfiguration):
        ConfigLoader.load(path)


def test_an_unreadable_file_is_told(organism: Organism, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    organism.file.write_text(REAL)
    monkeypatch.setattr("xml_pipeline.config.loader._open_regular", refuse)
    (problem,) = load_report(organism.file).problems
    assert str(problem) == f"{organism.file}: cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "1:1: the file is empty"),
        (b"# nothing\n", "1:1: the file is empty"),
        (b"a: 1\n---\nb: 2\n", "2:1: a second document begins here; a file holds one"),
        (b"organism: [\n", "2:1: not valid YAML: did not find expected node content while parsing a flow node"),
        (b"\xff\xfe", "1:1: the file is not UTF-8 text"),
        (b"text", "1:1: must be a mapping of keys to values, not the text 'text'"),
        (b"- a", "1:1: must be a mapping of keys to values, not a list"),
        (b"#" * 1_048_577, "1:1: the file is larger than 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_no_organism_is_told(organism: Organism, data: bytes, problem: str) -> None:
    assert organism.problems(data) == [problem]


def test_what_is_wrong_as_yaml_is_not_told_again_as_a_value(organism: Organism) -> None:
    assert organism.listener("concurrency: &x 5", "timeout: *x", "agent: !!int 5") == [
        "7:16 listeners[0].concurrency: anchors are not supported ('x')",
        "8:12 listeners[0].timeout: aliases are not supported ('x'), write the value out",
        "9:10 listeners[0].agent: tags are not supported ('tag:yaml.org,2002:int')",
    ]


def test_modules_are_left_alone_on_demand(organism: Organism) -> None:
    organism.module("crash_on_import", "1 / 0\n")
    organism.file.write_text(LISTENER.replace("handlers.greet", "crash_on_import.x"))
    report = load_report(organism.file, resolve_imports=False)
    assert report.config is not None
    assert report.config.listeners[0].handler is None
    assert report.config.listeners[0].handler_path == "crash_on_import.x"
    assert "ZeroDivisionError: division by zero (crash_on_import.py, line 1)" in str(
        load_report(organism.file).problems
    )


def test_modules_of_a_second_organism_are_not_confused_with_those_of_the_first(
    organism: Organism, tmp_path: Path
) -> None:
    assert organism.problems(LISTENER) == []
    (tmp_path / "second").mkdir()
    second = Organism(tmp_path / "second")
    found = second.problems(LISTENER)
    assert len(found) == 2
    assert all("was already loaded from" in problem for problem in found)


def test_text_can_be_loaded_without_a_file() -> None:
    config = ConfigLoader.loads("organism: {name: '${N}'}\nlisteners: []\n", environment={"N": "x"})
    assert config.name == "x"
    with pytest.raises(InvalidConfiguration, match=r"^text:1:1 organisms: unknown key, did you mean 'organism'\?"):
        ConfigLoader.loads("organisms: {}", file="text")
    assert ConfigLoader.loads(b"organism: {name: '${HOME:-x}'}").name


def test_the_loader_offers_the_report_too(organism: Organism) -> None:
    organism.file.write_text(LISTENER)
    assert ConfigLoader.load_report(organism.file, builtin_names=["system.x"]).ok


def test_plain_data_is_parsed_without_imports() -> None:
    config = ConfigLoader._parse({"organism": {"name": "test", "port": 80}, "listeners": []})
    assert (config.name, config.port) == ("test", 80)
    for port in (0, 65536, -1):
        with pytest.raises(ValueError, match=f"organism.port: Invalid port {port}"):
            ConfigLoader._parse({"organism": {"name": "test", "port": port}})
    with pytest.raises(InvalidConfiguration, match="must be a mapping"):
        ConfigLoader._parse([])  # type: ignore[arg-type]
    with pytest.raises(InvalidConfiguration):
        ConfigLoader._parse({1: 2})  # type: ignore[dict-item]


def test_one_listener_is_parsed_and_resolved(organism: Organism, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(organism.directory)
    raw: dict[str, Any] = {
        "name": "a",
        "payload_class": "handlers.Greeting",
        "handler": "handlers.greet",
        "description": "d",
    }
    listener = ConfigLoader._parse_listener(raw)
    assert listener.handler is None
    ConfigLoader._resolve_imports(listener)
    assert listener.handler is not None
    assert listener.payload_class is not None


@pytest.mark.parametrize("path", ["handlers", "a.b.c", "a.b:c"])
def test_import_paths_are_validated(path: str) -> None:
    ConfigLoader._validate_import_path(path, "handler")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a..b", "handler: .*consecutive dots"),
        ("a.__class__", "handler: .*Dunder"),
        ("a b", "handler: .*dotted Python identifiers"),
        ("", "handler: .*must not be empty"),
        (None, "handler: .*must be text"),
    ],
)
def test_wrong_import_paths_are_refused(path: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ConfigLoader._validate_import_path(path, "handler")


def test_ports_are_validated() -> None:
    ConfigLoader._validate_port(1, "organism.port")
    ConfigLoader._validate_port(65535, "organism.port")
    for port in (0, 65536, -5, True, "80", None):
        with pytest.raises(ValueError, match=f"organism.port: Invalid port {port}"):
            ConfigLoader._validate_port(port, "organism.port")  # type: ignore[arg-type]


def test_every_prefix_of_a_file_is_loaded_or_refused(organism: Organism) -> None:
    loaded = []
    for length in range(len(REAL)):
        report = organism.report(REAL[:length])
        assert (report.config is None) == bool(report.problems)
        if report.config is not None:
            loaded.append(len(report.config.listeners))
    assert max(loaded) == 3
    assert loaded == sorted(loaded)


def test_a_file_that_was_cut_after_a_key_is_refused(organism: Organism) -> None:
    for key in ("listeners:", "organism:", "    description:", "    handler:"):
        cut = REAL[: REAL.index(f"{key}") + len(key)]
        assert organism.problems(cut), key


WORDS = st.sampled_from(
    [
        *("organism", "name", "port", "listeners", "handler", "payload_class", "description", "agent", "peers"),
        *("broadcast", "rate", "timeout", "backend", "type", "import_roots", "handlers.greet", "handlers.Greeting"),
        *("llm", "backends", "provider", "scripted", "api_key", "api_key_env", "script", "model", "prompt", "xai"),
        *("peer_tables", "entries", "listener", "parent", "temperature", "max_tokens_per_thread", "supported_models"),
        *("true", "no", "5", "-1", "1e9", ".nan", "${X}", "$$", "${", "~", "''", "system.x", "a.b", "é", "&a", "*a"),
        *("- ", ": ", "\n", "\n  ", "\n- ", "\n    ", "[", "]", "{", "}", ", ", "!!x ", "|", ">", "# ", "<<: ", "? "),
        *('"', "'", "\t", "---\n", "%YAML 1.2\n"),
    ]
)


@given(st.lists(WORDS, max_size=40).map("".join) | st.text(max_size=60))
@settings(deadline=None)  # a busy machine is not a failure
def test_no_text_makes_the_loader_raise_anything_else(text: str) -> None:
    try:
        ConfigLoader.loads(text, file="organism.yaml", environment={})
    except ConfigurationError as error:
        assert str(error)
        assert all(line.startswith("organism.yaml:") for line in str(error).split("\n"))


@given(st.integers(0, len(REAL)), st.integers(0, 30), WORDS | st.text(max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_no_damage_to_a_file_makes_the_loader_raise(organism: Organism, at: int, length: int, put: str) -> None:
    organism.file.write_bytes((REAL[:at] + put + REAL[at + length :]).encode("utf-8", "surrogatepass"))
    report = load_report(organism.file, environment={})
    assert (report.config is None) == bool(report.problems)
    for problem in report.problems:
        assert 1 <= problem.line <= REAL.count("\n") + 4
        assert "\n" not in str(problem)


plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.integers(0, 3), inner, max_size=4),
    max_leaves=15,
)


some_data = st.lists(
    plain_data
    | st.dictionaries(
        st.sampled_from(["name", "provider", "api_key", "script", "parent", "entries", "listener", "peers", "agent"]),
        plain_data | st.lists(st.dictionaries(st.sampled_from(["listener", "peers"]), plain_data)),
    ),
    max_size=3,
)


@given(
    st.fixed_dictionaries(
        {"organism": plain_data, "listeners": some_data},
        optional={
            "llm": plain_data | st.fixed_dictionaries({"backends": plain_data | some_data}),
            "peer_tables": some_data,
        },
    )
    | plain_data
)
@settings(deadline=None)  # a busy machine is not a failure
def test_no_data_makes_the_parser_raise(data: Any) -> None:
    assert all(warning.text for warning in key_warnings(data, os.environ))
    try:
        ConfigLoader._parse(data)
    except InvalidConfiguration as error:
        assert error.problems


def test_five_thousand_listeners_are_loaded_quickly(organism: Organism) -> None:
    entry = (
        "- {{name: agent.{0}, payload_class: handlers.Greeting, handler: handlers.greet, description: number {0},\n"
        "   agent: true, peers: [agent.{1}, system.todo]}}\n"
    )
    text = "organism: {name: big}\nlisteners:\n" + "".join(
        entry.format(number, (number + 1) % 5000) for number in range(5000)
    )
    begin = time.process_time()
    report = organism.report(text)
    assert time.process_time() - begin < 3.0
    assert report.config is not None
    assert len(report.config.listeners) == 5000


def test_thousands_of_mistakes_are_told_quickly(organism: Organism) -> None:
    entry = "- {{name: agent.{0}, payload_class: handlers.Greetin, handler: h{0}.greet, desc: d, peers: [agnet.{0}]}}\n"
    text = "organism: {name: big}\nlisteners:\n" + "".join(entry.format(number) for number in range(3000))
    begin = time.process_time()
    report = organism.report(text)
    assert time.process_time() - begin < 5.0
    assert len(report.problems) == 5 * 3000
    assert len(str(InvalidConfiguration(report.problems)).splitlines()) == 101
