"""The small organisms whose conversations are measured. Their handlers do next to nothing, and never suspend."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.drive import Tally
from benchmarks.messages import Ping, Pong
from xml_pipeline import HandlerMetadata, HandlerResponse

__all__ = ["CHAIN", "FAN_OUT", "PAIR", "SINK", "Handler", "Organism", "Registers"]

Handler = Callable[[Any, HandlerMetadata], Awaitable[Any]]


class Registers(Protocol):
    """What listeners are registered with: the pump, or the naive shape."""

    def register(self, name: str, handler: Handler, payload_class: type, /) -> object:
        """Register a listener."""


@dataclass(frozen=True, slots=True)
class Organism:
    """Listeners, and what a conversation through them comes to.

    Args:
        entry: the listener that a conversation begins with.
        populate: registers the listeners.
        outcomes: how many messages of one conversation end how, by the name of the outcome.
        marks: how often a conversation marks the tally.
    """

    entry: str
    populate: Callable[[Registers, Tally], None]
    outcomes: Mapping[str, int]
    marks: int = 1

    @property
    def messages(self) -> int:
        """The messages of one conversation."""
        return sum(self.outcomes.values())


def _end(tally: Tally) -> Handler:
    async def end(payload: Ping | Pong, metadata: HandlerMetadata) -> None:
        tally.mark(payload.n)

    return end


def _pair(pump: Registers, tally: Tally) -> None:
    async def call(ping: Ping, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(Pong(ping.text, ping.n), "b")

    pump.register("a", call, Ping)
    pump.register("b", _end(tally), Pong)


def _sink(pump: Registers, tally: Tally) -> None:
    pump.register("a", _end(tally), Ping)


def _fan_out(pump: Registers, tally: Tally) -> None:
    async def call(ping: Ping, metadata: HandlerMetadata) -> list[HandlerResponse]:
        return [HandlerResponse(Pong(ping.text, ping.n), "b") for _ in range(3)]

    pump.register("a", call, Ping)
    pump.register("b", _end(tally), Pong)


_LINKS = ["a", *(f"link-{number}" for number in range(2, 11))]


def _chain(pump: Registers, tally: Tally) -> None:
    for name, following in itertools.pairwise(_LINKS):
        pump.register(name, _link(following), Ping)
    pump.register(_LINKS[-1], _end(tally), Ping)


def _link(following: str) -> Handler:
    async def call(ping: Ping, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(Ping(ping.text, ping.n), following)

    return call


PAIR = Organism("a", _pair, {"forwarded": 1, "handled": 1})
"""``a`` calls ``b``, and ``b`` ends it: the load that the promises are about."""
SINK = Organism("a", _sink, {"handled": 3}, marks=3)
"""One envelope with three payloads."""
FAN_OUT = Organism("a", _fan_out, {"forwarded": 1, "handled": 3}, marks=3)
"""``a`` calls ``b`` three times."""
CHAIN = Organism("a", _chain, {"forwarded": 9, "handled": 1})
"""Ten listeners, each calling the next."""
