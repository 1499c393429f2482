from __future__ import annotations

import copy
import json
import pickle
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from xml_pipeline.config import BackendConfig, InvalidConfiguration, LLMConfig, OrganismConfig
from xml_pipeline.config.llm import name_problems
from xml_pipeline.message_bus.stream_pump import StreamPump

from .conftest import LISTENER, Organism

KEY = "sk-very-secret-51"


def refused(make: Any, **arguments: Any) -> list[str]:
    with pytest.raises(InvalidConfiguration) as caught:
        make(**arguments)
    return str(caught.value).splitlines()


def section(text: str) -> str:
    """An organism file with ``text`` as its ``llm`` section, whose first line is line 2."""
    lines = "".join(f"  {line}\n" for line in text.splitlines())
    return f"llm:\n{lines}{LISTENER}"


def test_a_section_has_the_documented_defaults() -> None:
    assert LLMConfig().model_dump() == {
        "strategy": "failover",
        "model": "",
        "retries": 3,
        "retry_base_delay": 1.0,
        "retry_max_delay": 60.0,
        "timeout": 120.0,
        "completion_allowance": 1_024,
        "backends": [],
    }


def test_a_backend_has_the_documented_defaults() -> None:
    assert BackendConfig(provider="xai").model_dump() == {
        "provider": "xai",
        "name": "xai",
        "api_key": None,
        "api_key_env": "",
        "base_url": "",
        "priority": 1,
        "rate_limit_tpm": 100_000,
        "rate_limit_rpm": None,
        "max_concurrent": 20,
        "timeout": 120.0,
        "stream_timeout": 60.0,
        "max_tokens": None,
        "trust_env": False,
        "models": [],
        "repeat": False,
        "script": [],
    }


def test_the_section_of_a_file_becomes_the_configuration(organism: Organism) -> None:
    text = """strategy: round-robin
model: grok-4
retries: ${RETRIES}
retry_base_delay: 0
retry_max_delay: 2.5
timeout: 60
completion_allowance: 0
backends:
  - {provider: xai, api_key: "${KEY}", priority: 0, rate_limit_tpm: 5, rate_limit_rpm: 6, max_concurrent: 7, timeout: 8}
  - {name: local, provider: openai-compatible, base_url: "http://localhost:${PORT}/v1", supported_models: [a, b]}
  - {provider: scripted, script: [{text: hello}, {tool: x, arguments: {n: 1}}], models: [c]}
"""
    report = organism.report(section(text), KEY=KEY, RETRIES="0", PORT="8000")
    assert report.problems == ()
    assert report.warnings == ()
    assert report.config is not None
    assert report.config.llm_config == LLMConfig(
        strategy="round-robin",
        model="grok-4",
        retries=0,
        retry_base_delay=0,
        retry_max_delay=2.5,
        timeout=60,
        completion_allowance=0,
        backends=[
            BackendConfig(
                provider="xai",
                api_key=SecretStr(KEY),
                priority=0,
                rate_limit_tpm=5,
                rate_limit_rpm=6,
                max_concurrent=7,
                timeout=8,
            ),
            BackendConfig(
                name="local", provider="openai-compatible", base_url="http://localhost:8000/v1", models=["a", "b"]
            ),
            BackendConfig(
                provider="scripted",
                script=[{"text": "hello"}, {"tool": "x", "arguments": {"n": 1}}],
                models=["c"],
            ),
        ],
    )


def test_an_organism_without_the_section_has_no_backends(organism: Organism) -> None:
    for text in (LISTENER, f"llm: {{}}\n{LISTENER}"):
        config = organism.report(text).config
        assert config is not None
        assert config.llm_config == LLMConfig()


def test_an_organism_takes_the_model_or_a_mapping() -> None:
    config = LLMConfig(backends=[BackendConfig(provider="ollama", models=["m"])])
    assert OrganismConfig(name="a", llm_config=config).llm_config is config
    mapping: Any = {"backends": [{"provider": "ollama", "supported_models": ["m"]}]}
    assert OrganismConfig(name="a", llm_config=mapping).llm_config == config
    copied: Any = copy.deepcopy(config).model_dump()
    assert OrganismConfig(name="a", llm_config=copied).llm_config == config


def test_two_organisms_do_not_share_their_backends() -> None:
    one, two = OrganismConfig(name="a"), OrganismConfig(name="b")
    one.llm_config.backends.append(BackendConfig(provider="ollama"))
    assert two.llm_config.backends == []


def test_a_configuration_does_not_change() -> None:
    assert refused(setattr_, target=LLMConfig(), name="retries", value=5) == ["retries: cannot be changed"]
    assert refused(setattr_, target=BackendConfig(provider="xai"), name="priority", value=5) == [
        "priority: cannot be changed"
    ]


def setattr_(target: Any, name: str, value: Any) -> None:
    setattr(target, name, value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("strategy: failovr", "2:13 llm.strategy: must be 'failover', 'round-robin' or 'least-loaded', not the text "
         "'failovr', did you mean 'failover'?"),
        ("strategies: x", "2:3 llm.strategies: unknown key, did you mean 'strategy'?"),
        ("api_key: x", "2:3 llm.api_key: unknown key here; 'api_key' belongs in an entry of 'llm.backends'"),
        ("retries: -1", "2:12 llm.retries: must be at least 0, not -1"),
        ("retries: many", "2:12 llm.retries: must be a whole number, not the text 'many'"),
        ("retry_base_delay: -1", "2:21 llm.retry_base_delay: must be at least 0, not -1"),
        ("timeout: 0", "2:12 llm.timeout: must be greater than 0, not 0"),
        ("timeout: .nan", "2:12 llm.timeout: must be a finite number"),
        ("model: 5", "2:10 llm.model: must be text, not 5"),
        ("backends:", "2:3 llm.backends: is blank, must be a list"),
        ("backends: {}", "2:13 llm.backends: must be a list, not a mapping"),
        ("backends: [{name: a}]", "2:14 llm.backends[0].provider: is missing: whose protocol it speaks, e.g. openai, "
         "or openai-compatible for a server of your own"),
    ],
)  # fmt: skip
def test_a_wrong_key_of_the_section_is_told_with_its_place(organism: Organism, line: str, problem: str) -> None:
    assert organism.problems(section(line)) == [problem]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("provider: opnai", "2:25 llm.backends[0].provider: must be 'xai', 'anthropic', 'openai', 'ollama', "
         "'openai-compatible', 'pydantic-ai' or 'scripted', not the text 'opnai', did you mean 'openai'?"),
        ("provider: xai, prio: 1", "2:30 llm.backends[0].prio: unknown key, did you mean 'priority'?"),
        ("provider: xai, strategy: x", "2:30 llm.backends[0].strategy: unknown key here; 'strategy' belongs under "
         "'llm'"),
        ("provider: xai, name: ''", "2:36 llm.backends[0].name: a name must not be empty"),
        ("provider: xai, priority: 1.5", "2:40 llm.backends[0].priority: must be a whole number, not 1.5"),
        ("provider: xai, rate_limit_tpm: 0", "2:46 llm.backends[0].rate_limit_tpm: must be at least 1, not 0"),
        ("provider: xai, rate_limit_rpm: 0", "2:46 llm.backends[0].rate_limit_rpm: must be at least 1, not 0"),
        ("provider: xai, max_concurrent: true", "2:46 llm.backends[0].max_concurrent: must be a whole number, "
         "not true"),
        ("provider: xai, timeout: -1", "2:39 llm.backends[0].timeout: must be greater than 0, not -1"),
        ("provider: xai, models: grok-4", "2:38 llm.backends[0].models: must be a list, not the text 'grok-4'"),
        ("provider: xai, models: [' ']", "2:39 llm.backends[0].models[0]: must not be empty"),
        ("provider: xai, supported_models: [5]", "2:49 llm.backends[0].supported_models[0]: must be text, not 5"),
        ("provider: xai, models: [a], supported_models: [b]", "2:14 llm.backends[0]: has both 'models' and "
         "'supported_models', which mean the same"),
        ("provider: xai, api_key_env: A, api_key: x", "2:14 llm.backends[0]: has both 'api_key' and 'api_key_env'; "
         "keep one"),
        ("provider: openai-compatible", "2:14 llm.backends[0].base_url: is missing: an 'openai-compatible' backend "
         "needs its server's address, e.g. http://localhost:8000/v1"),
        ("provider: xai, script: [{a: 1}]", "2:38 llm.backends[0].script: is only for the provider 'scripted'"),
        ("provider: scripted, script: {a: 1}", "2:43 llm.backends[0].script: must be a list, not a mapping"),
        ("provider: scripted, script: [x]", "2:44 llm.backends[0].script[0]: must be a mapping of keys to values, "
         "not the text 'x'"),
        ("provider: xai}, {provider: xai", "2:31 llm.backends[1].name: the name 'xai' is taken by backends[0]; a "
         "backend without a name is called like its provider"),
        ("provider: xai}, {provider: ollama, name: xai", "2:56 llm.backends[1].name: the name 'xai' is taken by "
         "backends[0]; a backend without a name is called like its provider"),
    ],
)  # fmt: skip
def test_a_wrong_backend_is_told_with_its_place(organism: Organism, keys: str, problem: str) -> None:
    assert organism.problems(section(f"backends: [{{{keys}}}]")) == [problem]


def test_a_mistake_in_one_backend_does_not_hide_those_of_others(organism: Organism) -> None:
    keys = "{provider: x}, {provider: xai, priority: x}, {provider: xai, api_key: x, api_key_env: X}, {provider: x}"
    found = organism.problems(section(f"backends: [{keys}]"))
    assert [problem.partition(": ")[0].partition(" ")[2] for problem in found] == [
        "llm.backends[0].provider",
        "llm.backends[1].priority",
        "llm.backends[2]",
        "llm.backends[2].name",
        "llm.backends[3].provider",
    ]


def test_programs_are_held_to_the_same_rules() -> None:
    assert refused(BackendConfig, provider="xai", prio=1) == ["prio: unknown key, did you mean 'priority'?"]
    assert refused(BackendConfig, provider="xai", script=[{}]) == ["script: is only for the provider 'scripted'"]
    assert refused(BackendConfig, provider="xai", name=None) == ["name: is blank, must be text"]
    assert refused(BackendConfig) == [
        "provider: is missing: whose protocol it speaks, e.g. openai, or openai-compatible for a server of your own"
    ]
    assert refused(LLMConfig, backends=[{"provider": "xai"}, {"provider": "xai", "models": 5}, 5]) == [
        "backends[1].models: must be a list, not 5",
        "backends[2]: must be a mapping of keys to values, not 5",
    ]
    assert refused(LLMConfig, backends=[{"provider": "xai"}, BackendConfig(provider="ollama", name="xai")]) == [
        "backends[1].name: the name 'xai' is taken by backends[0]; a backend without a name is called like its provider"
    ]


@pytest.mark.parametrize(
    "address", ["http://localhost", "https://api.x.ai/v1", "http://[::1]:8000/", "http://10.0.0.1:80/a/b", ""]
)
def test_addresses_of_servers(address: str) -> None:
    assert BackendConfig(provider="openai", base_url=address).base_url == address


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("localhost:8000", "must be the address of a server"),
        ("ftp://host/", "must be the address of a server"),
        ("http://", "must be the address of a server"),
        ("http://host:99999/", "must be the address of a server"),
        ("http://host:port/", "must be the address of a server"),
        ("http://[::1/", "must be the address of a server"),
        ("http://host /v1", "must be the address of a server"),
        ("http://host/\x00", "must be the address of a server"),
        (" http://host", "must be the address of a server"),
        ("http://user:pa55@host/", "must not hold a user or password"),
        ("http://host/?key=pa55", "must not have a query or fragment"),
        ("http://host/#pa55", "must not have a query or fragment"),
        (5, "must be text, not 5"),
    ],
)
def test_what_is_no_address_is_refused_and_not_quoted(address: Any, words: str) -> None:
    (problem,) = refused(BackendConfig, provider="openai", base_url=address)
    assert problem.startswith(f"base_url: {words}")
    assert "pa55" not in problem


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_is_in_no_text() -> None:
    backend = BackendConfig(provider="xai", api_key=SecretStr(KEY))
    config = OrganismConfig(name="a", llm_config=LLMConfig(backends=[backend]))
    assert backend.api_key == SecretStr(KEY)
    texts = [
        *(f"{part!r} {part} {part.model_dump()}" for part in (backend, config.llm_config, config)),
        *(part.model_dump_json() for part in (backend, config.llm_config)),
        json.dumps(backend.model_dump(mode="json")),
    ]
    assert not any(KEY in text for text in texts)
    assert backend != BackendConfig(provider="xai", api_key=SecretStr("another"))


def test_a_configuration_can_be_copied_and_pickled_with_its_key() -> None:
    backend = BackendConfig(provider="xai", api_key_env="A_KEY")
    backend.find_key({"A_KEY": KEY})
    for same in (copy.deepcopy(backend), backend.model_copy(), pickle.loads(pickle.dumps(backend))):
        found = same.key()
        assert found is not None
        assert found.get_secret_value() == KEY


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"api_key": 5151}, "api_key: must be text"),
        ({"api_key": [KEY]}, "api_key: must be text"),
        ({"api_key": KEY.encode()}, "api_key: must be text"),
        ({"api_key": f"{KEY}\n"}, "api_key: must be one line without white space around it"),
        ({"api_key": f"{KEY}\r\nX-Header: 1"}, "api_key: must be one line without white space around it"),
        ({"api_key": ""}, "api_key: must not be empty"),
        ({"api_key_env": KEY}, "api_key_env: must be the name of an environment variable (letters, digits, "
         "underscores), not the key itself"),
        ({"api_key_env": SecretStr(KEY)}, "api_key_env: must be text, not a SecretStr"),
        ({"api_key": KEY, "api_key_env": "A_KEY"}, "has both 'api_key' and 'api_key_env'; keep one"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_refused_and_not_quoted(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        OrganismConfig(name="a", llm_config={"backends": [{"provider": "xai", **arguments}]})  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.removeprefix("llm_config.backends[0]").lstrip(".: ") == problem
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(caught.value.__context__)
    assert KEY not in told
    assert "5151" not in told


@given(st.text(min_size=8).filter(lambda text: not text.isspace()), st.sampled_from(["api_key", "api_key_env"]))
def test_no_text_of_a_problem_has_a_key(key: str, field: str) -> None:
    secret = f"<{key}>"
    try:
        config = LLMConfig(backends=[{"provider": "xai", "priority": "x", field: secret}])  # type: ignore[list-item]
    except InvalidConfiguration as error:
        assert secret not in str(error).replace("priority: must be a whole number, not the text 'x'", "")
        assert secret not in repr(error.__context__)
    else:  # pragma: no cover
        raise AssertionError(config)


def test_a_key_is_the_one_given_or_that_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "of the process")
    given_key = BackendConfig(provider="xai", api_key=KEY).key()  # type: ignore[arg-type]
    assert given_key is not None
    assert given_key.get_secret_value() == KEY
    backend = BackendConfig(provider="xai", api_key_env="A_KEY")
    assert backend.key() == SecretStr("of the process")
    backend.find_key({"A_KEY": "of the file"})
    assert backend.key() == SecretStr("of the file")
    backend.find_key({"A_KEY": ""})
    assert backend.key() == SecretStr("of the process")
    monkeypatch.setenv("A_KEY", "")
    assert backend.key() is None
    monkeypatch.delenv("A_KEY")
    assert backend.key() is None
    assert BackendConfig(provider="xai").key() is None


def test_a_file_gives_keys_from_its_environment(organism: Organism, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    text = section("backends: [{provider: xai, api_key_env: A_KEY}, {provider: openai, api_key: '${A_KEY}'}]")
    config = organism.report(text, A_KEY=KEY).config
    assert config is not None
    assert [backend.key() for backend in config.llm_config.backends] == [SecretStr(KEY), SecretStr(KEY)]
    assert KEY not in repr(config)
    assert type(config.llm_config.backends[1].key().get_secret_value()) is str  # type: ignore[union-attr]


def test_names_that_are_not_known_are_left_alone() -> None:
    assert name_problems([None, "a", None, "b"]) == []
    assert [problem.path for problem in name_problems(["a", None, "a", "a"])] == [
        ("backends", 2, "name"),
        ("backends", 3, "name"),
    ]


def test_a_reload_tells_no_key(organism: Organism) -> None:
    good = section(f"backends: [{{provider: xai, api_key: {KEY}}}]")
    config = organism.report(good).config
    assert config is not None
    pump = StreamPump(config, str(organism.file))
    pump.register_all()
    events = []
    for text in (good.replace(KEY, f"{KEY}2"), good.replace("xai", "xia"), good.replace(KEY, f"[{KEY}]")):
        organism.file.write_text(text)
        events.append(pump.reload_config())
    assert [event.success for event in events] == [True, False, False]
    assert KEY not in repr(events)
    assert [backend.key() for backend in pump.config.llm_config.backends] == [SecretStr(f"{KEY}2")]
