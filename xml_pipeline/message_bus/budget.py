"""The token budget of one conversation: the records, without the registry that keeps them.

What a conversation may use is divided in three::

    |<---- used ---->|<-- reserved -->|<---- available ---->|
    0                                                   max_tokens

*Used* are the tokens of the model calls that were made, *reserved* those that the calls under way are expected to take.
A call that takes more than was reserved for it is counted in full, so that ``used`` is always what was really spent;
only then can it exceed ``max_tokens``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from xml_pipeline.errors import BudgetExhausted

__all__ = [
    "DEFAULT_WARNING_THRESHOLDS",
    "BudgetExhaustedError",
    "BudgetThresholdCrossed",
    "ThreadBudget",
    "whole_number",
]

DEFAULT_WARNING_THRESHOLDS: Final[Mapping[int, str]] = MappingProxyType({75: "warning", 90: "critical", 95: "final"})
"""Percent of the budget, and the severity of having used so much."""


class BudgetExhaustedError(BudgetExhausted):
    """A budget has no room for what was asked for.

    Its text says how much was used, and is for whoever made the call. What other handlers are told of it is the
    sentence that all errors of its code share, ``public_message``.

    Args:
        thread_id: the thread that the call was to be made for.
        used: tokens used.
        max_tokens: tokens that may be used.
        reserved: tokens that are set aside for calls under way.
        requested: tokens that were asked for.
    """

    def __init__(self, thread_id: str, used: int, max_tokens: int, *, reserved: int = 0, requested: int = 0) -> None:
        super().__init__("", step="budget")
        self.thread_id = thread_id
        self.used = used
        self.max_tokens = max_tokens
        self.reserved = reserved
        self.requested = requested
        aside = f" and {reserved:,} are reserved" if reserved else ""
        asked = f"; {requested:,} more were asked for" if requested else ""
        self.detail = f"budget exhausted: thread {thread_id} has used {used:,} of {max_tokens:,} tokens{aside}{asked}"

    def __str__(self) -> str:
        return self.detail

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.thread_id, self.used, self.max_tokens), self.__dict__


@dataclass(frozen=True, slots=True)
class BudgetThresholdCrossed:
    """A budget has been used to a certain part for the first time.

    Args:
        threshold_percent: which part, in percent.
        severity: ``warning``, ``critical`` or ``final``.
        percent_used: percent used now; more than 100 when a call took more than was reserved for it.
        tokens_used: tokens used now.
        tokens_remaining: tokens left; never negative.
        max_tokens: tokens that may be used.
    """

    threshold_percent: int
    severity: str
    percent_used: float
    tokens_used: int
    tokens_remaining: int
    max_tokens: int


@dataclass(slots=True)
class ThreadBudget:
    """What one conversation may use, and has used; see the module's drawing.

    Args:
        max_tokens: tokens that may be used; 0 for none.
        prompt_tokens: tokens sent to models.
        completion_tokens: tokens that came from models.
        request_count: model calls counted.
        triggered_thresholds: percentages that `check_thresholds` has told of.
        reserved: tokens set aside for calls under way.

    Raises:
        TypeError: a number is not an int.
        ValueError: a number is negative.
    """

    max_tokens: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    request_count: int = 0
    triggered_thresholds: set[int] = field(default_factory=set)
    reserved: int = 0

    def __post_init__(self) -> None:
        for name in ("max_tokens", "prompt_tokens", "completion_tokens", "request_count", "reserved"):
            whole_number(name, getattr(self, name))

    @property
    def total_tokens(self) -> int:
        """Tokens used, both ways."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def remaining(self) -> int:
        """Tokens not used yet, reserved ones among them; never negative."""
        return max(self.max_tokens - self.total_tokens, 0)

    @property
    def available(self) -> int:
        """Tokens neither used nor reserved; never negative."""
        return max(self.max_tokens - self.total_tokens - self.reserved, 0)

    @property
    def is_exhausted(self) -> bool:
        """Whether all of it is used."""
        return self.total_tokens >= self.max_tokens

    @property
    def percent_used(self) -> float:
        """Used part in percent; 0.0 for a budget of nothing, of which there is no part."""
        return self.total_tokens / self.max_tokens * 100 if self.max_tokens > 0 else 0.0

    def can_consume(self, tokens: int) -> bool:
        """Whether so many tokens fit in beside what is used and what is reserved."""
        return self.total_tokens + self.reserved + tokens <= self.max_tokens

    def consume(self, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """Count one model call that was made, whether or not it fits in.

        Raises:
            TypeError: a number is not an int.
            ValueError: a number is negative.
        """
        whole_number("prompt_tokens", prompt_tokens)
        whole_number("completion_tokens", completion_tokens)
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.request_count += 1

    def check_thresholds(self, thresholds: Mapping[int, str] | None = None) -> list[BudgetThresholdCrossed]:
        """The thresholds reached since the last call, lowest first; each is told of once.

        Args:
            thresholds: severity by percentage; default: `DEFAULT_WARNING_THRESHOLDS`.
        """
        if self.max_tokens <= 0:
            return []
        found = sorted((DEFAULT_WARNING_THRESHOLDS if thresholds is None else thresholds).items())
        used = self.total_tokens
        crossed = [
            BudgetThresholdCrossed(percent, severity, self.percent_used, used, self.remaining, self.max_tokens)
            for percent, severity in found
            # Multiplied out, because the quotient is rounded.
            if percent not in self.triggered_thresholds and used * 100 >= percent * self.max_tokens
        ]
        self.triggered_thresholds.update(each.threshold_percent for each in crossed)
        return crossed

    def reset(self) -> None:
        """Forget what was used; what is reserved stays reserved, because those calls are still under way."""
        self.prompt_tokens = self.completion_tokens = self.request_count = 0
        self.triggered_thresholds.clear()

    def usage(self) -> dict[str, int]:
        """``prompt_tokens``, ``completion_tokens``, ``total_tokens``, ``remaining``, ``max_tokens``,
        ``request_count``."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "remaining": self.remaining,
            "max_tokens": self.max_tokens,
            "request_count": self.request_count,
        }


def whole_number(name: str, value: object) -> int:
    """``value``, if it is a number of things: an int from 0.

    Raises:
        TypeError: it is not an int; ``True`` is none.
        ValueError: it is negative.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r:.80}")
    if value < 0:
        raise ValueError(f"{name} must not be negative: {value}")
    return value
