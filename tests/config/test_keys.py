from __future__ import annotations

import os

import pytest

from xml_pipeline.config.keys import key_warnings

from .conftest import LISTENER, Organism

KEY = "sk-very-secret-51"


def warnings(organism: Organism, keys: str, **environment: str) -> list[str]:
    """The warnings about one backend, which is good otherwise; it stands in line 2."""
    report = organism.report(f"llm: {{backends: [\n{{{keys}}}]}}\n{LISTENER}", **environment)
    assert report.problems == ()
    texts = [str(warning).removeprefix(f"{organism.file}:") for warning in report.warnings]
    assert not any(KEY in text for text in texts)
    return texts


UNSET = "this environment variable is not set: calls to this backend will fail for want of a key"


@pytest.mark.parametrize("environment", [{}, {"A_KEY": ""}, {"a_key": KEY}])
def test_a_variable_that_is_not_set_is_worth_a_warning(organism: Organism, environment: dict[str, str]) -> None:
    assert warnings(organism, "provider: xai, api_key_env: A_KEY", **environment) == [
        f"2:30 llm.backends[0].api_key_env: {UNSET}"
    ]


@pytest.mark.parametrize(
    "keys",
    [
        "provider: xai, api_key_env: A_KEY",
        "provider: xai, api_key: '${A_KEY}'",
        "provider: xai, api_key: '${NO_KEY:-from-the-file}'",
        "provider: xai, api_key: 'prefix-${A_KEY}'",
        "provider: ollama",
        "provider: openai-compatible, base_url: http://localhost",
        "provider: pydantic-ai",
        "provider: scripted",
    ],
)
def test_a_key_from_the_environment_or_none_where_none_is_needed_is_fine(organism: Organism, keys: str) -> None:
    assert warnings(organism, keys, A_KEY=KEY) == []


def test_a_key_in_the_file_is_worth_a_warning_that_does_not_quote_it(organism: Organism) -> None:
    for key in (KEY, f"'{KEY}$$5'", f"${KEY}"):
        assert warnings(organism, f"provider: ollama, api_key: {key}") == [
            "2:29 llm.backends[0].api_key: whoever reads this file has the key; use ${VARIABLE} here, or api_key_env"
        ]


def test_a_variable_that_is_empty_is_worth_a_warning(organism: Organism) -> None:
    assert warnings(organism, "provider: xai, api_key: '${A_KEY:-}'") == [
        "2:26 llm.backends[0].api_key: the variable is empty: calls to this backend will fail for want of a key"
    ]


@pytest.mark.parametrize("keys", ["", ", api_key_env: ''", ", api_key: "])
def test_a_service_without_a_key_is_worth_a_warning(organism: Organism, keys: str) -> None:
    assert warnings(organism, f"provider: anthropic{keys}") == [
        "2:1 llm.backends[0]: has no api_key_env, and anthropic refuses calls without a key"
    ]


@pytest.mark.parametrize(
    "llm",
    [
        "5",
        "[]",
        "{backends: 5}",
        "{backends: [5, {api_key: 5}, {provider: []}]}",
        "{backends: [{provider: xai, api_key: 5}]}",
        "{backends: [{provider: xai, api_key_env: sk-5}]}",
    ],
)
def test_what_is_wrong_in_itself_is_not_warned_about(organism: Organism, llm: str) -> None:
    report = organism.report(f"llm: {llm}\n{LISTENER}")
    assert report.problems
    assert report.warnings == ()


@pytest.mark.parametrize("name", ["\ud800", "a\0", "a=b"])
def test_what_is_no_name_is_not_looked_up(name: str) -> None:
    raw = {"llm": {"backends": [{"provider": "xai", "api_key_env": name}]}}
    assert key_warnings(raw, os.environ) == []  # which raises for what the system's encoding does not have
