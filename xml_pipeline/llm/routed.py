"""`RoutedBackend`: one backend of a router, with its limits and its figures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from xml_pipeline.llm.backend import Backend
from xml_pipeline.llm.clock import Clock
from xml_pipeline.llm.errors import BackendError
from xml_pipeline.llm.rate_limit import Limiter, Permit

__all__ = ["BackendStatistics", "RoutedBackend"]

# A provider that asks to be left alone for a year is asked again after an hour: it may have been a mistake, and one
# refused call an hour harms nobody.
_LONGEST_REST: Final = 3600.0


@dataclass(frozen=True, slots=True)
class BackendStatistics:
    """What one backend of a router is doing.

    Args:
        name: the backend's.
        provider: whose models it calls.
        active: calls that run.
        waiting: calls that wait for a place, for tokens or for requests.
        max_concurrent: how many may run at a time.
        tokens_available: that may be used at once; negative while more is owed than there is.
        requests_available: that may be made at once; ``None`` for any number.
        calls: made so far.
        failures: calls that failed, or whose time was up.
        resting: seconds for which it asked to be left alone; 0.0 if it did not.
    """

    name: str
    provider: str
    active: int
    waiting: int
    max_concurrent: int
    tokens_available: int
    requests_available: int | None
    calls: int
    failures: int
    resting: float

    @property
    def load(self) -> float:
        """How much of what may run at a time does: 0.0 to 1.0."""
        return self.active / self.max_concurrent


class RoutedBackend:
    """A backend in its place among the others.

    Args:
        backend: what is called.
        place: counted from 0, in the order in which backends were added.
        clock: the time.
    """

    def __init__(self, backend: Backend, place: int, clock: Clock) -> None:
        self.backend = backend
        self.name = backend.name
        self.priority = backend.priority
        self.place = place
        self.limiter = Limiter(backend.rate_limit_tpm, backend.rate_limit_rpm, backend.max_concurrent, clock)
        self.last_turn = 0
        """When it was last chosen: the number of the choice."""
        self.calls = 0
        self.failures = 0
        self._clock = clock

    @property
    def rests_until(self) -> float:
        """Until when it asked to be left alone; in the past if it did not."""
        return self.limiter.rests_until

    def take_over(self, before: RoutedBackend) -> None:
        """Go on counting where ``before`` is, and together with it. The limits are those of this one, for both."""
        backend, self.limiter = self.backend, before.limiter
        self.limiter.resize(backend.rate_limit_tpm, backend.rate_limit_rpm, backend.max_concurrent)

    def is_same_as(self, other: RoutedBackend) -> bool:
        """Whether both are the same service's, and what is asked of one counts for the other: they have one name and
        provider, and one address, if they have any. A key may be replaced by another of the same account."""
        mine, theirs = self.backend, other.backend
        return all(getattr(mine, of, None) == getattr(theirs, of, None) for of in ("name", "provider", "base_url"))

    @property
    def demand(self) -> float:
        """Calls running and waiting, in relation to those that may run."""
        return (self.limiter.active + self.limiter.waiting) / self.limiter.max_concurrent

    async def begin(self, tokens: int) -> Permit | None:
        """Wait until a call may begin, and count it.

        Args:
            tokens: what it is thought to use.

        Returns:
            ``None`` if the backend has meanwhile refused others, and asked to be left alone.
        """
        permit = await self.limiter.acquire(tokens)
        if self.rests_until > self._clock.time():
            permit.undo()
            return None
        self.calls += 1
        return permit

    def failed(self, error: Exception) -> BackendError:
        """Count a failure.

        Returns:
            ``error``, or what stands for it if it is none of those that backends may raise. Its text is then left out:
            nobody knows what is in it.
        """
        self.failures += 1
        if not isinstance(error, BackendError):
            wrapped = BackendError(f"the backend {self.name!r} raised {type(error).__name__}")
            wrapped.__cause__ = error
            return wrapped
        rest = getattr(error, "retry_after", None)
        if rest:
            until = self._clock.time() + min(rest, _LONGEST_REST)
            self.limiter.rests_until = max(self.limiter.rests_until, until)
        return error

    def statistics(self) -> BackendStatistics:
        """The figures of this moment."""
        limiter = self.limiter
        return BackendStatistics(
            name=self.name,
            provider=self.backend.provider,
            active=limiter.active,
            waiting=limiter.waiting,
            max_concurrent=limiter.max_concurrent,
            tokens_available=math.floor(limiter.tokens.level),
            requests_available=None if limiter.requests is None else math.floor(limiter.requests.level),
            calls=self.calls,
            failures=self.failures,
            resting=max(0.0, self.rests_until - self._clock.time()),
        )
