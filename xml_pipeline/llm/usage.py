"""How many tokens were used: by whom, in which conversation, of which model, and at what cost.

`UsageTracker` adds up, and tells its subscribers of every call; what they do with it (bills, dashboards) is their own.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TypedDict

from xml_pipeline.llm.prices import estimate_cost
from xml_pipeline.runtime import current_runtime

__all__ = [
    "AgentUsage",
    "UsageEvent",
    "UsageTotals",
    "UsageTracker",
    "get_usage_tracker",
    "reset_usage_tracker",
]

logger = logging.getLogger(__name__)

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One call of a model.

    Args:
        thread_id: the conversation; ``None`` outside of one.
        agent_id: who asked; ``None`` if nobody said.
        model: the model that was asked for.
        provider: whose it is.
        prompt_tokens: what was asked.
        completion_tokens: what was answered.
        latency_ms: milliseconds from asking the backend to the end of its answer, waiting and failures not counted.
        estimated_cost: US dollars; ``None`` if the model's price is not known.
        metadata: what the caller gave along; ``estimated`` is true if the provider did not say how many tokens.
        timestamp: when the answer was there, in UTC.
    """

    thread_id: str | None
    agent_id: str | None
    model: str
    provider: str
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    estimated_cost: float | None
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def total_tokens(self) -> int:
        """Asked and answered."""
        return self.prompt_tokens + self.completion_tokens


class UsageTotals(TypedDict):
    """Sums over calls."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    request_count: int
    avg_latency_ms: float
    """Milliseconds; 0.0 without calls."""
    total_cost: float
    """US dollars, of the calls whose price is known."""
    unpriced_count: int
    """Calls of models whose price is not known."""


@dataclass(frozen=True, slots=True)
class AgentUsage:
    """What one agent used at one router.

    Args:
        prompt_tokens: what it asked.
        completion_tokens: what it was answered.
        request_count: its calls.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    request_count: int = 0

    @property
    def total_tokens(self) -> int:
        """Asked and answered."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, prompt_tokens: int, completion_tokens: int) -> AgentUsage:
        """The same after one more call."""
        return AgentUsage(
            self.prompt_tokens + prompt_tokens, self.completion_tokens + completion_tokens, self.request_count + 1
        )


class _Sum:
    """Adds up events."""

    __slots__ = ("completion", "cost", "latency", "prompt", "requests", "unpriced")

    def __init__(self) -> None:
        self.prompt = self.completion = self.requests = self.unpriced = 0
        self.latency = self.cost = 0.0

    def add(self, event: UsageEvent) -> None:
        self.prompt += event.prompt_tokens
        self.completion += event.completion_tokens
        self.requests += 1
        self.latency += event.latency_ms
        if event.estimated_cost is None:
            self.unpriced += 1
        else:
            self.cost += event.estimated_cost

    def totals(self) -> UsageTotals:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "request_count": self.requests,
            "avg_latency_ms": self.latency / self.requests if self.requests else 0.0,
            "total_cost": self.cost,
            "unpriced_count": self.unpriced,
        }


class _Sums:
    """Sums by name. The name that was used longest ago is forgotten beyond ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sums: OrderedDict[str, _Sum] = OrderedDict()

    def add(self, name: str | None, event: UsageEvent) -> None:
        if not name:
            return
        self._sums.setdefault(name, _Sum()).add(event)
        self._sums.move_to_end(name)
        if len(self._sums) > self._most:
            self._sums.popitem(last=False)

    def totals(self, name: str) -> UsageTotals:
        return (self._sums.get(name) or _Sum()).totals()

    def all_totals(self) -> dict[str, UsageTotals]:
        return {name: each.totals() for name, each in self._sums.items()}

    def clear(self) -> None:
        self._sums.clear()


class UsageTracker:
    """Adds up what the model calls of one pump used.

    Args:
        max_names: agents, models and threads that are remembered, of each; beyond it those that were not heard of for
            longest are forgotten, but stay in the sum of all. Default 10,000.
    """

    def __init__(self, max_names: int = 10_000) -> None:
        self._all = _Sum()
        self._agents = _Sums(max_names)
        self._models = _Sums(max_names)
        self._threads = _Sums(max_names)
        self._subscribers: list[Callable[[UsageEvent], object]] = []

    def subscribe(self, callback: Callable[[UsageEvent], object]) -> None:
        """Call ``callback`` with every event from now on. It must not wait; what it raises is logged."""
        self._subscribers.append(callback)

    def unsubscribe(self, callback: Callable[[UsageEvent], object]) -> None:
        """Stop calling ``callback``; nothing happens if it is not called anyway."""
        if callback in self._subscribers:
            self._subscribers.remove(callback)

    def record(
        self,
        thread_id: str | None,
        agent_id: str | None,
        model: str,
        provider: str,
        prompt_tokens: int,
        completion_tokens: int,
        latency_ms: float,
        metadata: Mapping[str, Any] | None = None,
    ) -> UsageEvent:
        """Count one call.

        Args:
            thread_id: the conversation; ``None`` outside of one.
            agent_id: who asked; ``None`` if nobody said.
            model: the model that was asked for.
            provider: whose it is.
            prompt_tokens: what was asked.
            completion_tokens: what was answered.
            latency_ms: milliseconds.
            metadata: for subscribers.

        Returns:
            What subscribers were told.

        Raises:
            ValueError: a number is negative, or none.
        """
        for name, value in (("prompt_tokens", prompt_tokens), ("completion_tokens", completion_tokens)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a whole number of at least 0, not {value!r:.80}")
        if not 0 <= latency_ms < math.inf:
            raise ValueError(f"latency_ms must be a number of at least 0, not {latency_ms!r:.80}")
        event = UsageEvent(
            thread_id,
            agent_id,
            model,
            provider,
            prompt_tokens,
            completion_tokens,
            float(latency_ms),
            estimate_cost(model, prompt_tokens, completion_tokens),
            MappingProxyType(dict(metadata)) if metadata else _NOTHING,
        )
        self._all.add(event)
        self._agents.add(agent_id, event)
        self._models.add(model, event)
        self._threads.add(thread_id, event)
        self._tell(event)
        return event

    def get_totals(self) -> UsageTotals:
        """The sums over all calls."""
        return self._all.totals()

    def get_agent_totals(self, agent_id: str) -> UsageTotals:
        """The sums over an agent's calls; zeros if there were none."""
        return self._agents.totals(agent_id)

    def get_model_totals(self, model: str) -> UsageTotals:
        """The sums over a model's calls; zeros if there were none."""
        return self._models.totals(model)

    def get_thread_totals(self, thread_id: str) -> UsageTotals:
        """The sums over a conversation's calls; zeros if there were none."""
        return self._threads.totals(thread_id)

    def get_all_agent_totals(self) -> dict[str, UsageTotals]:
        """The sums by agent."""
        return self._agents.all_totals()

    def get_all_model_totals(self) -> dict[str, UsageTotals]:
        """The sums by model."""
        return self._models.all_totals()

    def get_all_thread_totals(self) -> dict[str, UsageTotals]:
        """The sums by conversation."""
        return self._threads.all_totals()

    def reset(self) -> None:
        """Begin again at zero. Subscribers stay."""
        self._all = _Sum()
        for sums in (self._agents, self._models, self._threads):
            sums.clear()

    def _tell(self, event: UsageEvent) -> None:
        for callback in tuple(self._subscribers):
            try:
                callback(event)
            except Exception:
                logger.exception("a subscriber to usage events failed")


def get_usage_tracker() -> UsageTracker:
    """The usage tracker of the current runtime."""
    return current_runtime().get(UsageTracker)


def reset_usage_tracker() -> None:
    """Forget the current runtime's usage tracker, its subscribers included; the next use makes a new one."""
    current_runtime().discard(UsageTracker)
