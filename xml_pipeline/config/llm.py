"""The ``llm`` section: which model backends there are, and how calls are spread over them.

A key is kept as a `pydantic.SecretStr` and is in no text: not in a representation, a problem, or a dump. This room only
checks what is said; what is done with it is in `xml_pipeline.llm`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import AliasChoices, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from xml_pipeline.config.base import ConfigModel, StrictModel
from xml_pipeline.config.fields import (
    Address,
    Count,
    CountOrNone,
    CountOrZero,
    Flag,
    Name,
    Retention,
    Seconds,
    Secret,
    Text,
    VariableName,
    Whole,
    WrittenText,
)
from xml_pipeline.config.problems import InvalidConfiguration, Problem, quoted

__all__ = [
    "KEYED_PROVIDERS",
    "BackendConfig",
    "BackendFields",
    "LLMBackendSection",
    "LLMConfig",
    "LLMFields",
    "LLMSection",
    "name_problems",
]

KEYED_PROVIDERS: Final = frozenset({"xai", "anthropic", "openai"})
"""The providers that refuse calls without a key."""


class BackendFields(StrictModel):
    """The fields of one backend; `BackendConfig` and the file format have them under the same names."""

    provider: Literal["xai", "anthropic", "openai", "ollama", "openai-compatible", "pydantic-ai", "scripted"] = Field(
        description="Whose protocol it speaks; 'scripted' answers from 'script' and calls nobody."
    )
    name: Name = Field(default="", description="Its name, unlike every other backend's; the provider if absent.")
    api_key: Secret = Field(default=None, description="The key. Better: ${VARIABLE}, or api_key_env.")
    api_key_env: VariableName = Field(default="", description="The environment variable that holds the key.")
    base_url: Address = Field(
        default="", description="Address of its server, without a key; the provider's own if absent."
    )
    priority: Whole = Field(default=1, description="Which is tried first with 'failover': the lowest.")
    rate_limit_tpm: Count = Field(default=100_000, description="Tokens per minute that it may be asked for.")
    rate_limit_rpm: CountOrNone = Field(
        default=None, description="Requests per minute that it may be asked; null for no limit."
    )
    max_concurrent: Count = Field(default=20, description="Calls at a time.")
    timeout: Seconds = Field(default=120.0, description="How long one attempt may take, in seconds.")
    stream_timeout: Seconds = Field(default=60.0, description="How long a streamed answer may be silent, in seconds.")
    max_tokens: CountOrNone = Field(
        default=None, description="Tokens of an answer that nobody limits; 'anthropic' only, which needs a limit."
    )
    trust_env: Flag = Field(default=False, description="Use the proxy that environment variables name.")
    models: list[WrittenText] = Field(
        default=[], description="The models that it serves; those the provider is known for if empty."
    )
    repeat: Flag = Field(default=False, description="A 'scripted' back end begins its script again at the end.")
    script: list[dict[str, Any]] = Field(default=[], description="What a 'scripted' backend answers, in order.")

    @model_validator(mode="after")
    def _fits_its_provider(self) -> BackendFields:
        problems = []
        if self.api_key is not None and self.api_key_env:
            problems.append(Problem("has both 'api_key' and 'api_key_env'; keep one"))
        if self.provider == "openai-compatible" and not self.base_url:
            problems.append(
                Problem(
                    "is missing: an 'openai-compatible' backend needs its server's address, "
                    "e.g. http://localhost:8000/v1",
                    ("base_url",),
                )
            )
        for key, wanted in (("script", "scripted"), ("repeat", "scripted"), ("max_tokens", "anthropic")):
            if getattr(self, key) and self.provider != wanted:
                problems.append(Problem(f"is only for the provider '{wanted}'", (key,)))
        if problems:
            raise InvalidConfiguration(problems)
        return self


class LLMFields(StrictModel):
    """The fields of the section beside its backends; `LLMConfig` and the file format have them."""

    strategy: Literal["failover", "round-robin", "least-loaded"] = Field(
        default="failover",
        description="Which backend gets a call: the first by priority, and the next if it fails (failover), each in "
        "turn (round-robin), or the one with the fewest calls running (least-loaded).",
    )
    model: Text = Field(default="", description="The model of agents that do not name theirs.")
    retries: CountOrZero = Field(default=3, description="Attempts after the first one that failed.")
    retry_base_delay: Retention = Field(
        default=1.0, description="How long the first retry waits, in seconds; each further one twice as long."
    )
    retry_max_delay: Retention = Field(default=60.0, description="How long a retry waits at most, in seconds.")
    timeout: Seconds = Field(
        default=120.0, description="How long a call may take with all its attempts and delays, in seconds."
    )
    completion_allowance: CountOrZero = Field(
        default=1_024,
        description="Tokens that a call reserves of its conversation's budget for an answer whose length it does not "
        "limit; calls at the same time may overrun a budget by all their answers with 0.",
    )


_NO_SCRIPT: Final[dict[str, Any]] = {"script": {"maxItems": 0}}
_KINDS: Final[list[dict[str, Any]]] = [
    {
        "description": "A server that speaks OpenAI's protocol.",
        "required": ["base_url"],
        "properties": {"provider": {"const": "openai-compatible"}, **_NO_SCRIPT},
    },
    {"description": "Answers that are written down.", "properties": {"provider": {"const": "scripted"}}},
    {
        "description": "A service.",
        "properties": {"provider": {"enum": ["xai", "anthropic", "openai", "ollama", "pydantic-ai"]}, **_NO_SCRIPT},
    },
]


class LLMBackendSection(BackendFields):
    """One entry of ``llm.backends``."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema.update(anyOf=copy.deepcopy(_KINDS)))

    supported_models: list[WrittenText] | None = Field(default=None, description="The same as models.")

    @model_validator(mode="after")
    def _one_list_of_models(self) -> LLMBackendSection:
        if self.models and self.supported_models is not None:
            raise ValueError("has both 'models' and 'supported_models', which mean the same")
        return self

    def config(self) -> BackendConfig:
        """The configuration that it describes."""
        values = {name: getattr(self, name) for name in BackendFields.model_fields if name in self.model_fields_set}
        if self.supported_models is not None:
            values["models"] = self.supported_models
        return BackendConfig(**values)


class LLMSection(LLMFields):
    """The ``llm`` section."""

    backends: list[LLMBackendSection] = Field(default=[], description="The backends; without any, there are no calls.")


class BackendConfig(BackendFields, ConfigModel):
    """One model backend, immutable.

    Args:
        provider: ``"xai"``, ``"anthropic"``, ``"openai"``, ``"ollama"``, ``"openai-compatible"`` (any other server that
            speaks OpenAI's protocol; needs `base_url`), ``"pydantic-ai"``, or ``"scripted"`` (answers from `script`).
        name: unique among the backends; default: the provider.
        api_key: the key, as text or as a `pydantic.SecretStr`; or
        api_key_env: the name of the environment variable that holds it. See `key`.
        base_url: address of its server; empty, the default, for the provider's own.
        priority: the lowest is tried first; default 1.
        rate_limit_tpm: tokens per minute; 100,000.
        rate_limit_rpm: requests per minute; ``None``, the default, for no limit.
        max_concurrent: calls at a time; 20.
        timeout: seconds for one attempt; 120.0.
        stream_timeout: seconds that a streamed answer may be silent; 60.0.
        max_tokens: tokens of an answer whose length the call does not limit; for ``"anthropic"``; ``None``, the
            default, for what `AnthropicBackend` takes.
        trust_env: use the proxy that environment variables name; default ``False``.
        repeat: a scripted backend begins its script again at the end; default ``False``.
        models: the models that it serves; empty, the default, for those the provider is known for. May be called
            ``supported_models`` too.
        script: what a scripted backend answers, in order: mappings, see `xml_pipeline.llm`.

    Raises:
        InvalidConfiguration: an argument is unknown, missing, or wrong; it never shows a key.
    """

    model_config = ConfigDict(frozen=True)

    models: list[WrittenText] = Field(default=[], validation_alias=AliasChoices("models", "supported_models"))
    _found_key: SecretStr | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _is_called_like_its_provider(cls, values: Any) -> Any:
        if isinstance(values, dict) and "name" not in values and isinstance(values.get("provider"), str):
            return {**values, "name": values["provider"]}
        return values

    def key(self) -> SecretStr | None:
        """The key: the one given, else that of its environment variable; ``None`` if there is none, or it is empty.

        The variable is one of those that its organism file was read with, ``.env`` included; else the process's.
        """
        found = self.api_key or self._found_key or SecretStr(os.environ.get(self.api_key_env, ""))
        return found if found.get_secret_value() else None

    def find_key(self, environment: Mapping[str, str]) -> None:
        """Keep the key that ``api_key_env`` names, if ``environment`` has it. For the loader, which reads ``.env``."""
        value = environment.get(self.api_key_env) if self.api_key_env else None
        self._found_key = SecretStr(value) if value else None


class LLMConfig(LLMFields, ConfigModel):
    """The model backends of an organism, immutable.

    Args:
        strategy: ``"failover"`` (default), ``"round-robin"`` or ``"least-loaded"``.
        model: the model of agents that do not name theirs.
        retries: attempts after the first one; 3.
        retry_base_delay: seconds before the first retry, doubled for each further one; 1.0.
        retry_max_delay: seconds before any retry, at most; 60.0.
        timeout: seconds for a call with all its attempts and delays; 120.0.
        completion_allowance: tokens that a call reserves for an answer whose length it does not limit; 1,024.
        backends: `BackendConfig` objects, or mappings with the same names.

    Raises:
        InvalidConfiguration: an argument is unknown, missing, or wrong; two backends have one name.
    """

    model_config = ConfigDict(frozen=True)

    backends: list[BackendConfig] = Field(default=[])

    @model_validator(mode="after")
    def _names_differ(self) -> LLMConfig:
        problems = name_problems([backend.name for backend in self.backends])
        if problems:
            raise InvalidConfiguration(problems)
        return self

    @classmethod
    def of(cls, section: LLMSection) -> LLMConfig:
        """The configuration that a section of the file describes."""
        values = {name: getattr(section, name) for name in LLMFields.model_fields}
        return cls(**values, backends=[backend.config() for backend in section.backends])


def name_problems(names: Sequence[str | None]) -> list[Problem]:
    """What is wrong with the names of backends, with paths that begin at the section.

    Args:
        names: of all backends, in order; ``None`` for one that is not known.
    """
    first: dict[str, int] = {}
    return [
        Problem(
            f"the name {quoted(name)} is taken by backends[{other}]; a backend without a name is called like its "
            "provider",
            ("backends", index, "name"),
        )
        for index, name in enumerate(names)
        if name is not None and (other := first.setdefault(name, index)) != index
    ]
