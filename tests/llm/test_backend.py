"""What all backends have in common, and what is known of the providers."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from xml_pipeline.llm.anthropic import AnthropicBackend
from xml_pipeline.llm.backend import Backend, begins
from xml_pipeline.llm.openai_compatible import OpenAICompatibleBackend
from xml_pipeline.llm.scripted import ScriptedBackend
from xml_pipeline.llm.temperature import takes_temperature

KEY = "sk-Zq7Vt93-kLm_w0PxYb84TnRd"


def backend(provider: str, **options: Any) -> Any:
    if provider == "anthropic":
        return AnthropicBackend(**{"api_key": KEY, **options})
    if provider in ("ollama", "openai-compatible"):
        return OpenAICompatibleBackend(provider, **options)
    return OpenAICompatibleBackend(provider, **{"api_key": KEY, **options})


@pytest.mark.parametrize(
    ("provider", "model", "served"),
    [
        ("xai", "grok-3-mini-beta", True),
        ("xai", "grok-4", True),
        ("xai", "Grok-4", True),
        ("xai", "not-grok-4", False),
        ("xai", "grokking", False),
        ("anthropic", "claude-sonnet-4-5", True),
        ("anthropic", "anthropic/claude-3", True),
        ("anthropic", "anthropic.claude-v2", True),
        ("anthropic", "my-claude", False),
        ("openai", "gpt-4o", True),
        ("openai", "gpt-6", True),
        ("openai", "chatgpt-4o-latest", True),
        ("openai", "o1", True),
        ("openai", "o3-mini", True),
        ("openai", "o4-mini", True),
        ("openai", "demo1-model", False),
        ("openai", "o10", False),
        ("openai", "o1x", False),
        ("openai", "my-gpt", False),
        ("openai", "x9-o1", False),
        ("xai", "new-grok", False),
        ("openai", "grok-4", False),
        ("openai", "", False),
        ("ollama", "anything:8b", True),
        ("ollama", "", False),
    ],
)
def test_which_models_are_a_providers(provider, model, served):
    assert backend(provider).serves(model) is served


@pytest.mark.parametrize("provider", ["xai", "anthropic", "openai", "ollama"])
def test_a_list_of_models_wins(provider):
    listed = backend(provider, models=["mine", "o1"])
    assert listed.serves("mine") and listed.serves("o1")
    assert not listed.serves("o1-mini") and not listed.serves("grok-4") and not listed.serves("Mine")


def test_any_other_server():
    other = OpenAICompatibleBackend("openai-compatible", base_url="http://models.example:8000/v1/")
    assert other.serves("llama") and other.base_url == "http://models.example:8000/v1"
    with pytest.raises(ValueError, match="base_url is required for openai-compatible"):
        OpenAICompatibleBackend("openai-compatible")


@pytest.mark.parametrize(
    ("provider", "url"),
    [
        ("xai", "https://api.x.ai/v1"),
        ("openai", "https://api.openai.com/v1"),
        ("anthropic", "https://api.anthropic.com/v1"),
        ("ollama", "http://localhost:11434/v1"),
    ],
)
def test_where_the_providers_are(provider, url):
    assert backend(provider).base_url == url
    assert backend(provider, base_url="").base_url == url
    assert backend(provider, base_url="http://proxy.example/v1/").base_url == "http://proxy.example/v1"


def test_where_ollama_is():
    assert backend("ollama", base_url="http://gpu:11434").base_url == "http://gpu:11434/v1"
    assert backend("ollama", base_url="http://gpu:11434/v1/").base_url == "http://gpu:11434/v1"


@pytest.mark.parametrize(
    "url",
    [
        "api.x.ai/v1",
        "ftp://api.x.ai",
        "https://",
        "https:///v1",
        "https://host:port/v1",
        "https://host:99999/v1",
        "https://host:0/v1",
        "https://[::1",
        "https://ho st/v1",
        "https://host/v1\r\nx: y",
        "https://hóst/v1",
        f"https://{KEY}@host/v1",
        f"https://user:{KEY}@host/v1",
        f"https://host/v1?key={KEY}",
        f"https://host/v1#{KEY}",
    ],
)
def test_what_is_no_base_url(url):
    with pytest.raises(ValueError, match=r"^base_url must ") as caught:
        backend("xai", base_url=url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("provider", ["xai", "openai", "anthropic"])
def test_keys_that_are_required(provider, monkeypatch):
    make = AnthropicBackend if provider == "anthropic" else lambda **o: OpenAICompatibleBackend(provider, **o)
    for key in (None, "", " "):
        with pytest.raises(ValueError, match=f"^API key required for {provider}: "):
            make(api_key=key)
    with pytest.raises(ValueError, match=f"^API key required for {provider}: the environment variable NO_SUCH_KEY"):
        make(api_key_env="NO_SUCH_KEY", environment={})
    make(api_key_env="THE_KEY", environment={"THE_KEY": KEY})
    monkeypatch.setenv("THE_KEY", KEY)
    make(api_key_env="THE_KEY")


def test_keys_that_are_not_required():
    OpenAICompatibleBackend("ollama")
    OpenAICompatibleBackend("openai-compatible", base_url="http://localhost:8000/v1")


def test_settings_and_their_defaults():
    default = backend("xai")
    assert isinstance(default, Backend)
    assert (default.name, default.provider, default.priority) == ("xai", "xai", 1)
    assert (default.rate_limit_tpm, default.rate_limit_rpm, default.max_concurrent) == (100_000, None, 20)
    limits = {"priority": -1, "rate_limit_tpm": 5, "rate_limit_rpm": 6, "max_concurrent": 7, "timeout": 3}
    other = backend("xai", name="fast", models="grok-4", **limits)
    assert (other.name, other.provider, other.priority) == ("fast", "xai", -1)
    assert (other.rate_limit_tpm, other.rate_limit_rpm, other.max_concurrent) == (5, 6, 7)
    assert other.models == ("grok-4",)


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("priority", ["1", 1.5, None, True]),
        ("rate_limit_tpm", [0, -1, "1", True, None]),
        ("rate_limit_rpm", [0, -1, "1", True]),
        ("max_concurrent", [0, -1, 1.0, True, None]),
        ("timeout", [0, -1, "1", float("inf"), float("nan"), True, None]),
        ("stream_timeout", [0, -1, "1", float("inf"), float("nan"), True, None]),
        ("models", [[""], [7], [None]]),
    ],
)
def test_settings_that_are_refused(setting, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{setting} must be "):
            backend("xai", **{setting: value})


def test_providers_that_are_not_known():
    with pytest.raises(ValueError, match=r"^provider must be one of openai, xai, ollama, openai-compatible, not 'x'$"):
        OpenAICompatibleBackend("x")


@pytest.mark.parametrize("max_tokens", [0, -1, "1", None])
def test_anthropics_limit_must_be_one(max_tokens):
    with pytest.raises(ValueError, match=r"^max_tokens must be a whole number"):
        AnthropicBackend(api_key=KEY, max_tokens=max_tokens)


def test_without_the_http_library_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "httpx":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'xml-pipeline\[llm\]'"):
        backend("xai")
    ScriptedBackend()


async def test_closing_twice_and_using_it_afterwards():
    from xml_pipeline.llm.errors import RequestRefused
    from xml_pipeline.llm.request import LLMRequest

    closed = backend("xai", base_url="http://127.0.0.1:9/v1")
    await closed.close()
    await closed.close()
    request = LLMRequest([{"role": "user", "content": "Hi"}], "grok-3")
    with pytest.raises(RequestRefused, match=r"^xai: the backend is closed$"):
        await closed.complete(request)
    with pytest.raises(RequestRefused, match=r"^xai: the backend is closed$"):
        await anext(closed.stream(request))


def test_how_names_begin():
    assert begins("gpt-4", "gpt") and begins("gpt", "gpt") and begins("gpt4", "gpt")
    assert not begins("gpts", "gpt") and not begins("", "gpt")


@pytest.mark.parametrize(
    ("provider", "model", "takes"),
    [
        ("openai", "gpt-4o", True),
        ("openai", "gpt-4.1-mini", True),
        ("openai", "gpt-3.5-turbo", True),
        ("openai", "gpt-5.2", True),
        ("openai", "gpt-5.2-chat-latest", False),
        ("openai", "gpt-5-chat-latest", True),
        ("openai", "gpt-5-mini", False),
        ("openai", "gpt-5.5", False),
        ("openai", "gpt-7", False),
        ("openai", "o3-mini", False),
        ("anthropic", "claude-3-5-haiku-latest", True),
        ("anthropic", "claude-sonnet-4-5", True),
        ("anthropic", "anthropic.claude-2", True),
        ("anthropic", "anthropic/claude-sonnet-4", True),
        ("anthropic", "claude-opus-4-1", True),
        ("anthropic", "claude-opus-4-7", False),
        ("anthropic", "claude-opus-5-5", False),
        ("xai", "grok-4", True),
        ("ollama", "o1", True),
        ("openai-compatible", "gpt-7", True),
    ],
)
def test_models_that_take_a_temperature(provider, model, takes):
    assert takes_temperature(provider, model) is takes
