"""Which backend is tried when, and when no more: decided without waiting.

========================================  ==================================  =========================
error                                     the same backend again              another backend
========================================  ==================================  =========================
`RateLimitError`, `ProviderError`         after a delay                       at once
`MalformedResponse`                       after a delay                       at once
`RequestRefused` 401, 403, 404            no                                  at once
`RequestRefused`, else                    no                                  no
`RealCallsForbidden`                      no                                  no
any other                                 if ``retry_allowed``, after a delay if ``retry_allowed``, at once
========================================  ==================================  =========================

The delay is what the provider said (``Retry-After``); that binds all calls, not only this one. If it said nothing, it
grows with each failure of the backend in this call.
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from xml_pipeline.config.problems import one_line, quoted
from xml_pipeline.llm.backend import seconds, whole_number
from xml_pipeline.llm.clock import Clock
from xml_pipeline.llm.errors import BackendError, RateLimitError, RealCallsForbidden, RequestRefused
from xml_pipeline.llm.routed import RoutedBackend
from xml_pipeline.llm.strategy import Strategy, preference

__all__ = ["Attempts", "RetryPolicy"]

logger = logging.getLogger(__name__)

# Wrong key, no right to this model, no such model: true of one account, and maybe not of the next.
_TRUE_HERE_ONLY: Final = frozenset({401, 403, 404})
_JITTER: Final = 0.25
_MOST_DOUBLINGS: Final = 60
_MOST_TOLD: Final = 10


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after how long, a call is tried again.

    Args:
        retries: attempts after the first one; default 3.
        base_delay: seconds before the first retry at the same backend, twice as long for each further one; default 1.0.
        max_delay: seconds that it grows to at most; default 60.0.
        random: numbers from 0 to 1, which spread the delays by a quarter up and down.

    Raises:
        ValueError: a number is out of range.
    """

    retries: int = 3
    base_delay: float = 1.0
    max_delay: float = 60.0
    random: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        whole_number("retries", self.retries, 0)
        for name, value in (("retry_base_delay", self.base_delay), ("retry_max_delay", self.max_delay)):
            if value != 0 or isinstance(value, bool):
                seconds(name, value)

    def delay(self, failures: int) -> float:
        """Seconds before the next attempt at a backend that failed so many times in this call."""
        grown = min(self.base_delay * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self.max_delay)
        return min(grown * (1 + _JITTER * (2 * self.random() - 1)), self.max_delay)


class Attempts:
    """The attempts of one call.

    Args:
        model: what is asked for.
        candidates: the backends that serve it; at least one.
        strategy: which of them is preferred.
        policy: how often and when.
        clock: the time.
        turns: numbers the choices of all calls.
    """

    def __init__(
        self,
        model: str,
        candidates: Sequence[RoutedBackend],
        strategy: Strategy,
        policy: RetryPolicy,
        clock: Clock,
        turns: Iterator[int],
    ) -> None:
        self._model = quoted(model)
        self._policy = policy
        self._clock = clock
        self._turns = turns
        self._preference = preference(strategy)
        self._failures: dict[RoutedBackend, int] = dict.fromkeys(candidates, 0)
        self._earliest: dict[RoutedBackend, float] = dict.fromkeys(candidates, -math.inf)
        self._made = 0
        self._told: deque[str] = deque(maxlen=_MOST_TOLD)
        self._last: BackendError | None = None
        self._is_final = False

    def next(self, time_left: float) -> tuple[RoutedBackend, float]:
        """The backend to be tried next, and in how many seconds.

        Args:
            time_left: seconds until the call's deadline.

        Raises:
            BackendError: there is no further attempt, or none in time.
        """
        if self._is_final or not self._earliest or self._made > self._policy.retries:
            raise self._failure()
        backend, wait = self._choose()
        if wait >= time_left:
            raise self._too_late(backend, wait)
        backend.last_turn = next(self._turns)
        return backend, wait

    def failed(self, backend: RoutedBackend, error: BackendError) -> None:
        """An attempt failed.

        Args:
            backend: where.
            error: how.
        """
        self._made += 1
        self._told.append(f"{self._made}. {backend.name}: {_told(error)}")
        self._last = error
        self._failures[backend] += 1
        self._is_final = not _may_go_on(error)
        if not error.retry_allowed:
            del self._earliest[backend]
        elif not getattr(error, "retry_after", None):
            self._earliest[backend] = self._clock.time() + self._policy.delay(self._failures[backend])
        text = "model %s at %s: attempt %d of %d failed: %s"
        logger.warning(text, self._model, backend.name, self._made, self._policy.retries + 1, _told(error))

    def timed_out(self, after: float, doing: str) -> BackendError:
        """The error of a call whose time is up.

        Args:
            after: seconds.
            doing: what was going on.
        """
        return _chained(self._text(f"no answer within {after:g} s; it was {doing}"), self._last)

    def forget(self) -> None:
        """The call is over. Its last error leads, by its traceback, to the call, which leads here."""
        self._last = None

    def _choose(self) -> tuple[RoutedBackend, float]:
        """The preferred one of those that can be tried now and were tried least; else the one that can be soonest."""
        now = self._clock.time()
        waits = {each: max(earliest, each.rests_until) - now for each, earliest in self._earliest.items()}
        free = [each for each, wait in waits.items() if wait <= 0]
        if free:
            return min(free, key=lambda each: (self._failures[each], *self._preference(each))), 0.0
        soonest = min(waits, key=lambda each: (waits[each], *self._preference(each)))
        return soonest, waits[soonest]

    def _failure(self) -> BackendError:
        last = self._last
        assert last is not None  # there is a first attempt, and it failed
        if self._made == 1 and not last.retry_allowed:
            return last  # it says all there is to say, and by its class
        return _chained(self._text("all attempts failed"), last, retry_allowed=last.retry_allowed)

    def _too_late(self, backend: RoutedBackend, wait: float) -> BackendError:
        text = self._text(f"the time left is too short to wait {wait:.1f} s for {backend.name!r}")
        return _chained(text, self._last or RateLimitError(f"{backend.name!r} asked to be left alone", wait))

    def _text(self, what: str) -> str:
        told = list(self._told)
        if self._made > len(told):
            told.insert(0, "...")
        return f"model {self._model}: {what}" + (f" ({'; '.join(told)})" if told else "")


def _chained(text: str, cause: BaseException | None, *, retry_allowed: bool = True) -> BackendError:
    error = BackendError(text, retry_allowed=retry_allowed)
    error.__cause__ = cause
    return error


def _may_go_on(error: BackendError) -> bool:
    """Whether there may be another attempt, at whatever backend."""
    if isinstance(error, RealCallsForbidden):
        return False
    if isinstance(error, RequestRefused):
        return error.status_code in _TRUE_HERE_ONLY
    return error.retry_allowed


def _told(error: BackendError) -> str:
    return f"{type(error).__name__}: {one_line(str(error))}"
