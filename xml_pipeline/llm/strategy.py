"""Which of several backends gets a call."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from xml_pipeline.llm.routed import RoutedBackend

__all__ = ["Strategy", "preference"]


class Strategy(Enum):
    """How calls are spread over the backends that serve a model."""

    FAILOVER = "failover"
    """The one with the lowest ``priority``; the others when it fails."""
    ROUND_ROBIN = "round-robin"
    """The one whose last call is longest ago."""
    LEAST_LOADED = "least-loaded"
    """The one with the fewest calls running and waiting, in relation to ``max_concurrent``."""

    @classmethod
    def of(cls, value: Strategy | str) -> Strategy:
        """The strategy called ``value``; case does not matter, and ``_`` may stand for ``-``.

        Raises:
            ValueError: there is none of this name.
        """
        if isinstance(value, cls):
            return value
        name = value.lower().replace("_", "-") if isinstance(value, str) else ""
        known = [each.value for each in cls]
        if name in known:
            return cls(name)
        near = difflib.get_close_matches(name[:40], known, n=1)
        hint = f", did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
        raise ValueError(f"there is no strategy {value!r:.80}{hint}")


_KEYS: Final[dict[Strategy, Callable[[RoutedBackend], tuple[float, ...]]]] = {
    Strategy.FAILOVER: lambda each: (each.priority, each.place),
    Strategy.ROUND_ROBIN: lambda each: (each.last_turn, each.place),
    Strategy.LEAST_LOADED: lambda each: (each.demand, each.priority, each.place),
}


def preference(strategy: Strategy) -> Callable[[RoutedBackend], tuple[float, ...]]:
    """What backends are to be sorted by, so that the first one gets the call."""
    return _KEYS[strategy]
