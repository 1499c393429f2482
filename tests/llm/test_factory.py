from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.llm.router_kit import HELLO
from xml_pipeline import llm
from xml_pipeline.config.llm import LLMConfig
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.llm import LLMRouter, Strategy, configure_router, get_router, make_router
from xml_pipeline.runtime import Runtime, use_runtime

KEY = "sk-0123456789abcdefghij"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def runtime():
    with use_runtime(Runtime()) as runtime:
        yield runtime


def test_a_section_becomes_a_router(monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    router = make_router(
        {
            "strategy": "least-loaded",
            "model": "grok-4",
            "retries": 1,
            "retry_base_delay": 0.5,
            "retry_max_delay": 7.0,
            "timeout": 9.0,
            "completion_allowance": 5,
            "backends": [
                {"provider": "xai", "api_key": KEY, "priority": 3, "rate_limit_tpm": 5, "max_concurrent": 2},
                {"provider": "anthropic", "api_key_env": "A_KEY", "rate_limit_rpm": 11},
                {"provider": "openai", "name": "fast", "api_key": KEY, "models": ["gpt-4o"]},
                {"provider": "ollama", "supported_models": ["llama3"]},
                {"provider": "openai-compatible", "name": "vllm", "base_url": "http://localhost:8000/v1"},
                {"provider": "scripted", "script": [{"text": "Hi"}]},
            ],
        }
    )
    assert [backend.name for backend in router.backends] == ["xai", "anthropic", "fast", "ollama", "vllm", "scripted"]
    assert (router.strategy, router.timeout, router.default_model) == (Strategy.LEAST_LOADED, 9.0, "grok-4")
    assert (router._policy.retries, router._policy.base_delay, router._policy.max_delay) == (1, 0.5, 7.0)
    assert router._accounts._allowance == 5
    xai, anthropic, fast, ollama = router.backends[:4]
    assert (xai.priority, xai.rate_limit_tpm, xai.max_concurrent) == (3, 5, 2)
    assert anthropic.rate_limit_rpm == 11
    assert [fast.serves("gpt-4o"), fast.serves("gpt-4")] == [True, False]
    assert [ollama.serves("llama3"), ollama.serves("mistral")] == [True, False]
    assert KEY not in repr(router) + repr(router.backends) + repr(router.statistics())


def test_the_defaults_are_those_of_the_reference():
    router = make_router(LLMConfig())
    assert router._accounts._allowance == LLMRouter()._accounts._allowance == 1_024
    assert router.strategy is Strategy.FAILOVER
    assert router.timeout == 120.0
    assert (router._policy.retries, router._policy.base_delay, router._policy.max_delay) == (3, 1.0, 60.0)
    assert router.backends == ()


def test_everything_that_is_wrong_is_told_at_once_and_no_key_with_it(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    config = {
        "backends": [
            {"provider": "xai"},
            {"provider": "scripted"},
            {"provider": "openai", "api_key_env": "NO_SUCH_KEY"},
            {"provider": "anthropic", "api_key": KEY},
            {"provider": "scripted", "name": "third", "script": [{"text": 7}]},
        ]
    }
    with pytest.raises(ConfigurationError) as caught:
        make_router(config)
    lines = str(caught.value).splitlines()
    places = ["llm.backends[0]", "llm.backends[2]", "llm.backends[4].script[0].text"]
    assert [line.split(":")[0] for line in lines] == places
    assert "the backend 'xai' cannot be used: API key required for xai" in lines[0]
    assert "NO_SUCH_KEY" in lines[1]
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"strategy": "failovr"}, "llm.strategy: .*did you mean 'failover'"),
        ({"strateg": "failover"}, "strateg"),
        ({"retries": -1}, "retries"),
        ({"backends": [{"provider": "opnai"}]}, "provider"),
        ({"backends": [{"provider": "scripted"}, {"provider": "scripted"}]}, "scripted"),
        ([], "llm must be a mapping"),
        (None, "llm must be a mapping"),
        ({1: 2}, "llm must be a mapping"),
    ],
)
def test_a_wrong_section_is_refused(config, text):
    with pytest.raises(ConfigurationError, match=text):
        make_router(config)


async def test_the_configured_router_is_the_current_one_from_then_on():
    before = get_router()
    router = configure_router({"backends": [{"provider": "scripted", "script": [{"text": "Hi"}]}]})
    assert get_router() is router is not before
    assert (await llm.complete("any", HELLO)).content == "Hi"
    with pytest.raises(ConfigurationError):
        configure_router({"backends": [{"provider": "xai"}]})
    assert get_router() is router
    with use_runtime(Runtime()):
        assert get_router() is not router


def test_a_router_without_http_imports_no_http_library():
    code = (
        "import sys; from xml_pipeline.llm import configure_router\n"
        "configure_router({'backends': [{'provider': 'scripted', 'script': []}]})\n"
        "print(sorted({'httpx', 'pydantic_ai', 'anthropic', 'openai'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# -- the public names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", llm.__all__)
def test_every_public_name_is_there(name):
    assert getattr(llm, name) is getattr(llm, name)
    assert name in dir(llm)


def test_every_public_name_has_one_home():
    assert sorted(llm._HOME) == sorted(llm.__all__)
    assert llm.LLMRouter is LLMRouter
    with pytest.raises(AttributeError, match="no attribute 'Router'"):
        _ = llm.Router


def test_importing_the_package_imports_next_to_nothing():
    code = "import sys, xml_pipeline.llm; print([name for name in sys.modules if name.startswith('xml_pipeline.llm.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


async def test_a_script_that_repeats_begins_again():
    once, again = (
        make_router({"retries": 0, "backends": [{"provider": "scripted", "script": [{"text": "Hi"}], **more}]})
        for more in ({}, {"repeat": True})
    )
    for router in (once, again):
        assert (await router.complete("m", HELLO)).content == "Hi"
    assert (await again.complete("m", HELLO)).content == "Hi"
    with pytest.raises(llm.ScriptExhausted):
        await once.complete("m", HELLO)


def test_the_settings_of_a_server_reach_its_backend():
    backends = make_router(
        {
            "backends": [
                {"provider": "anthropic", "api_key": KEY, "max_tokens": 77, "stream_timeout": 5.0, "trust_env": True},
                {"provider": "xai", "api_key": KEY},
            ]
        }
    ).backends
    assert [backend._http.stream_timeout for backend in backends] == [5.0, 60.0]
    assert [backend._http._trust_env for backend in backends] == [True, False]
    request = llm.LLMRequest(HELLO, "claude-sonnet-5")
    assert backends[0]._dialect.encode(request, stream=False)["max_tokens"] == 77


@pytest.mark.parametrize("setting", [{"repeat": True}, {"max_tokens": 5}])
def test_settings_of_other_providers_are_refused(setting):
    with pytest.raises(ConfigurationError, match="is only for the provider"):
        make_router({"backends": [{"provider": "openai", "api_key": KEY, **setting}]})
