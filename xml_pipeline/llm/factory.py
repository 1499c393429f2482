"""Backends and routers from configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from xml_pipeline.config.llm import BackendConfig, LLMConfig
from xml_pipeline.config.problems import InvalidConfiguration, Problem, one_line, quoted
from xml_pipeline.llm.anthropic import AnthropicBackend
from xml_pipeline.llm.backend import Backend, BackendOptions
from xml_pipeline.llm.http_backend import HttpOptions
from xml_pipeline.llm.openai_compatible import OpenAICompatibleBackend
from xml_pipeline.llm.pydantic_ai import PydanticAIBackend
from xml_pipeline.llm.router import LLMRouter
from xml_pipeline.llm.script import script_from
from xml_pipeline.llm.scripted import ScriptedBackend
from xml_pipeline.llm.spending import OnThreshold
from xml_pipeline.runtime import current_runtime

__all__ = ["configure_router", "make_backend", "make_router"]


def make_backend(config: BackendConfig) -> Backend:
    """The backend that an entry of ``llm.backends`` describes.

    Args:
        config: the entry.

    Raises:
        ValueError: a key is missing, or a setting is wrong.
        ImportError: the library that the provider needs is not installed.
    """
    options: BackendOptions = {
        "name": config.name,
        "models": config.models,
        "priority": config.priority,
        "rate_limit_tpm": config.rate_limit_tpm,
        "rate_limit_rpm": config.rate_limit_rpm,
        "max_concurrent": config.max_concurrent,
    }
    if config.provider == "scripted":
        return ScriptedBackend(script_from(config.script), repeat=config.repeat, **options)
    if config.provider == "pydantic-ai":
        return PydanticAIBackend(timeout=config.timeout, stream_timeout=config.stream_timeout, **options)
    here = {
        "base_url": config.base_url,
        "timeout": config.timeout,
        "stream_timeout": config.stream_timeout,
        "trust_env": config.trust_env,
    }
    http = cast("HttpOptions", {**options, **here})  # which a type checker does not find out by itself
    key = config.key()
    if key is not None:
        http["api_key"] = key.get_secret_value()
    elif config.api_key_env:
        http["api_key_env"] = config.api_key_env  # which is not there, and is told so
    if config.provider == "anthropic":
        limit = {} if config.max_tokens is None else {"max_tokens": config.max_tokens}
        return AnthropicBackend(**limit, **http)
    return OpenAICompatibleBackend(config.provider, **http)


def make_router(config: LLMConfig | Mapping[str, Any], *, on_threshold: OnThreshold | None = None) -> LLMRouter:
    """The router that the ``llm`` section describes, with its backends.

    Args:
        config: the section; a mapping has the keys of `LLMConfig`.
        on_threshold: as for `LLMRouter`.

    Raises:
        ConfigurationError: a key is unknown, a value wrong, an API key or a library missing. It says at which backend,
            for all of them at once, and shows no key.
    """
    settings = config if isinstance(config, LLMConfig) else _settings(config)
    return LLMRouter(
        _backends(settings),
        strategy=settings.strategy,
        retries=settings.retries,
        retry_base_delay=settings.retry_base_delay,
        retry_max_delay=settings.retry_max_delay,
        timeout=settings.timeout,
        default_model=settings.model,
        completion_allowance=settings.completion_allowance,
        on_threshold=on_threshold,
    )


def configure_router(config: LLMConfig | Mapping[str, Any]) -> LLMRouter:
    """Make a router, and let it be the current runtime's.

    The one before it is not closed: calls that run there come to their end. Close it with ``await router.close()``. To
    hold the limits over both together meanwhile, see `LLMRouter.take_over`.

    Args:
        config: as for `make_router`.

    Returns:
        What `get_router` returns from now on.

    Raises:
        ConfigurationError: as for `make_router`; the router before it stays.
    """
    router = make_router(config)
    current_runtime().put(router, LLMRouter)
    return router


def _settings(config: Mapping[str, Any]) -> LLMConfig:
    if not isinstance(config, Mapping) or not all(isinstance(key, str) for key in config):
        raise InvalidConfiguration(f"llm must be a mapping of keys to values, not a {type(config).__name__}")
    try:
        return LLMConfig(**config)
    except InvalidConfiguration as error:
        raise InvalidConfiguration(problem.under(("llm",)) for problem in error.problems) from None


def _backends(settings: LLMConfig) -> list[Backend]:
    backends, problems = [], []
    for index, entry in enumerate(settings.backends):
        try:
            backends.append(make_backend(entry))
        except InvalidConfiguration as error:
            problems += [problem.under(("llm", "backends", index)) for problem in error.problems]
        except (ValueError, TypeError, ImportError) as error:
            text = f"the backend {quoted(entry.name)} cannot be used: {one_line(str(error))}"
            problems.append(Problem(text, ("llm", "backends", index)))
    if problems:
        raise InvalidConfiguration(problems)
    return backends
