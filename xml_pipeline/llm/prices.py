"""What model calls cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Final

from xml_pipeline.runtime import current_runtime

__all__ = ["PRICES", "PRICES_AS_OF", "Price", "Prices", "estimate_cost", "get_prices"]


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens.

    Args:
        prompt: of what is asked.
        completion: of what is answered.

    Raises:
        ValueError: a price is negative or no number.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        for value in (self.prompt, self.completion):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"a price must be a number of dollars per million tokens, not {value!r:.80}")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What a call cost, in US dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1_000_000


PRICES_AS_OF: Final = date(2026, 11, 21)
"""When `PRICES` was looked up. Prices change: put in your own where sums matter."""

# List prices for plain text: without what providers take off for caching and batches, and without what some add for
# long prompts. A name stands for the variants whose names go on behind it; one with another price has its own row.
PRICES: Final[Mapping[str, Price]] = MappingProxyType(
    {
        "claude-3-haiku": Price(0.25, 1.25),
        "claude-3-opus": Price(15.0, 75.0),
        "claude-3-sonnet": Price(3.0, 15.0),
        "claude-3-5-haiku": Price(0.8, 4.0),
        "claude-3-5-sonnet": Price(3.0, 15.0),
        "claude-3-7-sonnet": Price(3.0, 15.0),
        "claude-haiku-4-5": Price(1.0, 5.0),
        "claude-haiku-5-5": Price(0.1, 0.5),
        "claude-opus-4": Price(15.0, 75.0),
        "claude-opus-4-5": Price(5.0, 25.0),
        "claude-opus-4-6": Price(5.0, 25.0),
        "claude-opus-4-7": Price(5.0, 25.0),
        "claude-opus-4-8": Price(5.0, 25.0),
        "claude-opus-5": Price(5.0, 25.0),
        "claude-opus-5-5": Price(4.0, 20.0),
        "claude-sonnet-4": Price(3.0, 15.0),
        "claude-sonnet-5": Price(2.0, 10.0),
        "gpt-3.5-turbo": Price(0.5, 1.5),
        "gpt-4": Price(30.0, 60.0),
        "gpt-4-turbo": Price(10.0, 30.0),
        "gpt-4.1": Price(2.0, 8.0),
        "gpt-4.1-mini": Price(0.4, 1.6),
        "gpt-4.1-nano": Price(0.1, 0.4),
        "gpt-4o": Price(2.5, 10.0),
        "gpt-4o-2024-05-13": Price(5.0, 15.0),
        "gpt-4o-mini": Price(0.15, 0.6),
        "gpt-5": Price(1.25, 10.0),
        "gpt-5-mini": Price(0.25, 2.0),
        "gpt-5-nano": Price(0.05, 0.4),
        "gpt-5-pro": Price(15.0, 120.0),
        "gpt-5.1": Price(1.25, 10.0),
        "gpt-5.1-codex-mini": Price(0.25, 2.0),
        "gpt-5.2": Price(1.75, 14.0),
        "gpt-5.2-pro": Price(21.0, 168.0),
        "gpt-5.3": Price(1.75, 14.0),
        "gpt-5.4": Price(2.5, 15.0),
        "gpt-5.4-mini": Price(0.75, 4.5),
        "gpt-5.4-nano": Price(0.2, 1.25),
        "gpt-5.4-pro": Price(30.0, 180.0),
        "gpt-5.5": Price(5.0, 30.0),
        "gpt-5.5-pro": Price(30.0, 180.0),
        "gpt-5.6-luna": Price(0.2, 1.2),
        "gpt-5.6-sol": Price(4.0, 20.0),
        "gpt-5.6-terra": Price(2.0, 12.0),
        "gpt-6-astra": Price(10.0, 50.0),
        "gpt-6-luna": Price(0.1, 0.5),
        "gpt-6-sol": Price(2.0, 10.0),
        "gpt-6.1-sol": Price(2.0, 10.0),
        "gpt-6.1-terra": Price(1.0, 5.0),
        "grok-3": Price(3.0, 15.0),
        "grok-3-fast": Price(5.0, 25.0),
        "grok-3-mini": Price(0.3, 0.5),
        "grok-4": Price(3.0, 15.0),
        "grok-4-fast": Price(0.2, 0.5),
        "grok-4-1-fast": Price(0.2, 0.5),
        "grok-4.1": Price(3.0, 15.0),
        "grok-4.1-fast": Price(0.2, 0.5),
        "grok-4.20": Price(1.25, 2.5),
        "grok-4.3": Price(1.25, 2.5),
        "grok-4.5": Price(2.0, 6.0),
        "grok-4.6": Price(2.0, 6.0),
        "grok-4.7": Price(2.0, 6.0),
        "grok-code-fast": Price(0.2, 1.5),
        "o1": Price(15.0, 60.0),
        "o1-mini": Price(1.1, 4.4),
        "o1-pro": Price(150.0, 600.0),
        "o3": Price(2.0, 8.0),
        "o3-deep-research": Price(10.0, 40.0),
        "o3-mini": Price(1.1, 4.4),
        "o3-pro": Price(20.0, 80.0),
        "o4-mini": Price(1.1, 4.4),
        "o4-mini-deep-research": Price(2.0, 8.0),
    }
)

_BOUNDARIES: Final = frozenset({"", "-", ":", "@", "/"})


class Prices:
    """What the models of one pump cost.

    Args:
        table: prices by the beginning of a model's name; default: `PRICES`.
    """

    def __init__(self, table: Mapping[str, Price] = PRICES) -> None:
        self._table: dict[str, Price] = {}
        self.replace(table)

    @property
    def table(self) -> Mapping[str, Price]:
        """The prices as they are now."""
        return MappingProxyType(self._table)

    def add(self, model: str, prompt: float, completion: float) -> None:
        """Add a price, or replace one.

        Args:
            model: how the model's name begins; case does not matter.
            prompt: US dollars per million tokens that are asked.
            completion: US dollars per million tokens that are answered.

        Raises:
            ValueError: the name is empty; a price is negative or no number.
        """
        self._table[_key(model)] = Price(prompt, completion)

    def replace(self, table: Mapping[str, Price]) -> None:
        """Put other prices in the place of all there are.

        Args:
            table: prices by the beginning of a model's name.

        Raises:
            ValueError: a name is empty.
            TypeError: a price is no `Price`.
        """
        wrong = next((price for price in table.values() if not isinstance(price, Price)), None)
        if wrong is not None:
            raise TypeError(f"the prices must be Price objects, not {type(wrong).__name__}")
        self._table = {_key(model): price for model, price in table.items()}

    def find(self, model: str) -> Price | None:
        """The price of ``model``: that of the longest name which it begins with; ``None`` if there is none.

        A name ends where the model's does, or at ``-``, ``:``, ``@`` or ``/``: ``gpt-4o`` is the price of
        ``gpt-4o-2024-08-06``, ``gpt-5`` says nothing about ``gpt-5.5``.
        """
        name = model.lower()
        found = [key for key in self._table if name.startswith(key) and name[len(key) : len(key) + 1] in _BOUNDARIES]
        return self._table[max(found, key=len)] if found else None

    def estimate(self, model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
        """What a call cost, in US dollars; ``None`` if the price of ``model`` is not known."""
        price = self.find(model)
        return None if price is None else price.of(prompt_tokens, completion_tokens)


def get_prices() -> Prices:
    """The prices of the current runtime."""
    return current_runtime().get(Prices)


def estimate_cost(model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    """What a call cost, by the prices of the current runtime.

    Args:
        model: its name.
        prompt_tokens: what was asked.
        completion_tokens: what was answered.

    Returns:
        US dollars; ``None`` if the model's price is not known.
    """
    return get_prices().estimate(model, prompt_tokens, completion_tokens)


def _key(model: str) -> str:
    if not isinstance(model, str) or not model.strip():
        raise ValueError("a price needs the name of a model, or the beginning of one")
    return model.strip().lower()
