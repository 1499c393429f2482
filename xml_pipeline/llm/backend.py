"""`Backend`: what the router asks of something that can call models; and what all of ours have in common."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Protocol, TypedDict, runtime_checkable

from xml_pipeline.llm.request import LLMChunk, LLMRequest, LLMResponse

__all__ = ["Backend", "BackendOptions", "ModelBackend", "begins", "seconds", "whole_number"]


@runtime_checkable
class Backend(Protocol):
    """Something that can call models.

    ``complete`` and ``stream`` raise `BackendError`, of the kind that says what to do about it, and nothing else. They
    can be cancelled.
    """

    name: str
    """Tells the backends of one router apart."""
    provider: str
    """Whose models these are: ``xai``, ``anthropic`` ..."""
    priority: int
    """Lower ones are tried first."""
    rate_limit_tpm: int
    """Tokens per minute."""
    rate_limit_rpm: int | None
    """Requests per minute; ``None`` for any number."""
    max_concurrent: int
    """Calls at the same time."""

    def serves(self, model: str) -> bool:
        """Whether ``model`` can be asked for here."""
        ...

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """The whole answer."""
        ...

    def stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]:
        """The answer piece by piece; the last piece carries the whole as ``response``."""
        ...

    async def close(self) -> None:
        """Give back what is held open. Twice is allowed."""
        ...


class BackendOptions(TypedDict, total=False):
    """What can be said of every backend; see `ModelBackend`."""

    name: str
    models: Sequence[str]
    priority: int
    rate_limit_tpm: int
    rate_limit_rpm: int | None
    max_concurrent: int


class ModelBackend:
    """The part that all of our backends share: their settings, and which models they serve.

    Args:
        provider: whose models these are.
        prefixes: how the names of the provider's models begin; empty for any name.
        name: tells the backends of one router apart; default: the provider.
        models: the models that are served, by their exact names, whatever ``prefixes`` says; empty leaves it to
            ``prefixes``.
        priority: lower ones are tried first; default 1.
        rate_limit_tpm: tokens per minute; default 100,000.
        rate_limit_rpm: requests per minute; default ``None``, any number.
        max_concurrent: calls at the same time; default 20.

    Raises:
        ValueError: a setting has the wrong type, or is too small.
    """

    def __init__(
        self,
        provider: str,
        prefixes: Sequence[str] = (),
        *,
        name: str = "",
        models: Sequence[str] = (),
        priority: int = 1,
        rate_limit_tpm: int = 100_000,
        rate_limit_rpm: int | None = None,
        max_concurrent: int = 20,
    ) -> None:
        self.provider = provider
        self.name = name or provider
        self.models = _names(models)
        self.priority = whole_number("priority", priority)
        self.rate_limit_tpm = whole_number("rate_limit_tpm", rate_limit_tpm, 1)
        self.rate_limit_rpm = None if rate_limit_rpm is None else whole_number("rate_limit_rpm", rate_limit_rpm, 1)
        self.max_concurrent = whole_number("max_concurrent", max_concurrent, 1)
        self._prefixes = tuple(prefixes)

    def serves(self, model: str) -> bool:
        """Whether ``model`` can be asked for here: by the list of models if there is one, else by how it begins."""
        if self.models:
            return model in self.models
        if not self._prefixes:
            return bool(model)
        return any(begins(model, prefix) for prefix in self._prefixes)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def begins(model: str, prefix: str) -> bool:
    """Whether ``model`` is called ``prefix``, or ``prefix`` and something more.

    A word goes on with a letter and a number with a digit, and are then other ones: ``o1-mini`` begins with ``o1``,
    ``o10`` and ``o1x`` do not; ``demo1-model`` least of all.

    Args:
        model: a model's name; case does not matter.
        prefix: in lower case.
    """
    name = model.lower()
    if not name.startswith(prefix):
        return False
    following = name[len(prefix) : len(prefix) + 1]
    return not (following.isalpha() or (following.isdigit() and prefix[-1:].isdigit()))


def whole_number(setting: str, value: Any, least: int | None = None) -> int:
    """``value`` if it is a whole number, and of at least ``least``.

    Raises:
        ValueError: it is not; the text names the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{setting} must be a whole number{bound}, not {value!r:.80}")
    return int(value)


def seconds(setting: str, value: Any) -> float:
    """``value`` if it is a number of seconds above 0.

    Raises:
        ValueError: it is not; the text names the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{setting} must be a number of seconds above 0, not {value!r:.80}")
    return float(value)


def _names(models: Iterable[str]) -> tuple[str, ...]:
    names = (models,) if isinstance(models, str) else tuple(models)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"models must be a list of names, not of {name!r:.80}")
    return names
