"""The keys of model backends, as an organism file gives them: found in its environment, or worth a warning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xml_pipeline.config.interpolation import Interpolated
from xml_pipeline.config.llm import KEYED_PROVIDERS
from xml_pipeline.config.model import OrganismConfig
from xml_pipeline.config.problems import KeyPath, Problem

__all__ = ["find_keys", "key_warnings"]


def find_keys(config: OrganismConfig, environment: Mapping[str, str]) -> None:
    """Let every backend find its key in the environment that its file was read with."""
    for backend in config.llm_config.backends:
        backend.find_key(environment)


def key_warnings(raw: Any, environment: Mapping[str, str]) -> list[Problem]:
    """What is worth a warning; calls will fail, or a secret is where it should not be.

    Names of variables are not quoted: what is written there by mistake is the key itself.

    Args:
        raw: the data of the file, variables replaced.
        environment: the variables.
    """
    llm = raw.get("llm") if isinstance(raw, dict) else None
    backends = llm.get("backends") if isinstance(llm, dict) else None
    warnings: list[Problem] = []
    for index, backend in enumerate(backends if isinstance(backends, list) else []):
        if isinstance(backend, dict):
            warnings += _warnings(backend, ("llm", "backends", index), environment)
    return warnings


def _warnings(backend: Mapping[str, Any], path: KeyPath, environment: Mapping[str, str]) -> list[Problem]:
    key, variable = backend.get("api_key"), backend.get("api_key_env")
    if isinstance(key, Interpolated):
        empty = "the variable is empty: calls to this backend will fail for want of a key"
        return [] if key else [Problem(empty, (*path, "api_key"))]
    if isinstance(key, str):
        readable = "whoever reads this file has the key; use ${VARIABLE} here, or api_key_env"
        return [Problem(readable, (*path, "api_key"))]
    if key is not None:
        return []
    if isinstance(variable, str) and variable:
        if not (variable.isidentifier() and variable.isascii()):
            return []
        unset = "this environment variable is not set: calls to this backend will fail for want of a key"
        return [] if environment.get(variable) else [Problem(unset, (*path, "api_key_env"))]
    provider = backend.get("provider")
    if isinstance(provider, str) and provider in KEYED_PROVIDERS:
        return [Problem(f"has no api_key_env, and {provider} refuses calls without a key", path)]
    return []
