"""An organism at the edge of the mesh, against what stands there without one.

One embedded server; an organism, a plain mesh agent of ours, and a plain nats-py pair with the same headers and the
same validation; all in one process and one event loop, taking turns.

* ``a mesh call to a listener``: from a mesh object through the pump to a handler and back, as JSON; to the same call of
  a plain mesh agent, and of the nats-py pair.
* ``a listener's call to a mesh agent``: a request of the pump whose target is a plain mesh agent; to calling that agent
  directly.
* ``a key's change to a handler``: from the put to the handler's turn, one at a time; to a loop over ``kv.watch``.
* ``a durable message to a handler``: from publishing to the handler's turn, one at a time, acknowledged.

Answers are compared with what was to come. Times are by the clock on the wall, with one at a time; processor times are
those of this process, without the server's.

The target is about the time of a call. Processor time, many at a time, has none: two messages of the pump cost about as
much of it as all of a plain call, client and host, so that it says how large these two are, and little of the bridge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

from benchmarks.bridge.stage import Stage, organism, until_known
from benchmarks.measure import Baselines, Case, Row, Sample, Stopwatch, Target, run_rounds
from benchmarks.mesh import models
from benchmarks.mesh.ours import Ours
from benchmarks.mesh.raw import Raw
from benchmarks.size import Size
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.mesh import AgentMesh

__all__ = ["rows"]

_AGENT: Final = "agent"
_RAW: Final = "raw"
_AT_ONCE: Final = 100
_SHORT: Final = 3
_TEXT: Final = "what is measured"


@dataclass
class Ask:
    """A request."""

    message: str
    number: int


@dataclass
class Told:
    """An answer."""

    reply: str


@dataclass
class Changed:
    """A key's value."""

    number: int


@dataclass
class Ordered:
    """What is published."""

    number: int


Do = Callable[[int], Awaitable[None]]
"""Does something once, the number says which time."""


class _Stage(Stage):
    """A server, an organism, a plain agent with its caller, and a nats-py pair."""

    def __init__(self) -> None:
        super().__init__()
        self._came: asyncio.Queue[int] = asyncio.Queue()

    async def fill(self, url: str, closing: AsyncExitStack) -> None:
        """See `Stage`."""
        self.agent = await Ours.connect(url)
        closing.push_async_callback(self.agent.close)
        self.raw = await Raw.connect(url)
        closing.push_async_callback(self.raw.close)
        self.caller = await closing.enter_async_context(AgentMesh(url))
        self.pump = _organism(url)
        self.pump.register("it", self._answer, Ask, output_class=Told)
        self.pump.register("changed", self._arrived, Changed)
        self.pump.register("ordered", self._arrived, Ordered)
        await closing.enter_async_context(self.pump)
        await until_known(self.caller, "bench.it")

    @staticmethod
    async def _answer(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Told(f"{ask.message} {ask.number}"))

    async def _arrived(self, payload: Changed | Ordered, metadata: HandlerMetadata) -> None:
        self._came.put_nowait(payload.number)

    # -- what is timed

    async def call_listener(self, number: int) -> None:
        """A mesh object asks the listener."""
        ask = models.Ask(message=_TEXT, number=number)
        _check(ask, await self.caller.call("bench.it", ask, result_type=models.Told))

    async def call_agent(self, number: int) -> None:
        """A mesh object asks the plain agent."""
        ask = models.Ask(message=_TEXT, number=number)
        _check(ask, await self.agent.call(ask))

    async def call_raw(self, number: int) -> None:
        """The nats-py pair."""
        ask = models.Ask(message=_TEXT, number=number)
        _check(ask, await self.raw.call(ask))

    async def call_out(self, number: int) -> None:
        """The pump asks the plain agent."""
        told = await self.pump.request("agent", Ask(_TEXT, number))
        if told != Told(f"{_TEXT} {number}"):
            raise AssertionError(f"a wrong answer: {told!r:.200}")

    async def change(self, number: int) -> None:
        """A key changes, and a handler has it."""
        await self.caller.kv.put("bench.changed", f'{{"number":{number}}}')
        await self._until(number)

    async def order(self, number: int) -> None:
        """A message is stored, and a handler has it."""
        await self.caller.parts.jetstream.publish("bench.orders", f'{{"number":{number}}}'.encode())
        await self._until(number)

    async def _until(self, number: int) -> None:
        while await self._came.get() != number:  # of an earlier measurement
            pass

    async def watched(self, count: int) -> Sample:
        """Changes of a key, each until a plain loop has it."""
        values: AsyncGenerator[models.Told, None]
        async with aclosing(self.agent.watch("bench.watched")) as values:
            start = perf_counter()
            for number in range(count):
                value = models.Told(reply=f"{_TEXT} {number}")
                await self.agent.put("bench.watched", value)
                while await anext(values) != value:
                    pass
            return Sample((perf_counter() - start) / count * 1e6)

    # -- how it is timed

    def timing(self, do: Do, count: int) -> Callable[[], Sample]:
        """One at a time, by the clock on the wall."""

        async def measure() -> Sample:
            start = perf_counter()
            for number in range(count):
                await do(number)
            return Sample((perf_counter() - start) / count * 1e6)

        return self.in_loop(measure)

    def costing(self, do: Do, count: int) -> Callable[[], Sample]:
        """Many at a time, in processor time."""

        async def some(first: int) -> None:
            for number in range(first, count, _AT_ONCE):
                await do(number)

        async def measure() -> Sample:
            watch = Stopwatch()
            await asyncio.gather(*(some(first) for first in range(_AT_ONCE)))
            return watch.sample(count)

        return self.in_loop(measure)

    def watching(self, count: int) -> Callable[[], Sample]:
        """`watched`."""
        return self.in_loop(lambda: self.watched(count))


def _check(ask: models.Ask, told: models.Told) -> None:
    if told != models.answer_to(ask):
        raise AssertionError(f"a wrong answer: {told!r:.200}")


def _organism(url: str) -> StreamPump:
    mesh: dict[str, Any] = {
        "expose": [{"listener": "it", "as": "bench.it", "max_concurrency": 2 * _AT_ONCE}],
        "agents": [{"name": "bench.ours", "as": "agent", "payload_class": Ask, "output_class": Told}],
        "kv": [{"watch": "bench.changed", "to": "changed", "payload_class": Changed, "resume": "bench"}],
        "subjects": [{"subscribe": "bench.orders", "to": "ordered", "payload_class": Ordered, "durable": "bench"}],
    }
    return organism(url, "bench", **mesh)


def rows(size: Size) -> list[Row]:
    """All of it."""
    with _Stage() as stage:
        return run_rounds(*_cases(stage, size), 1 + _SHORT * (size.rounds - 1))


def _cases(stage: _Stage, size: Size) -> tuple[list[Case], Baselines]:
    few = max(2, size.conversations // 16)
    many = max(_AT_ONCE, size.conversations // 4)
    baselines: Baselines = {
        "agent in turn": stage.timing(stage.call_agent, few),
        "raw in turn": stage.timing(stage.call_raw, few),
        "agent at once": stage.costing(stage.call_agent, many),
        "raw at once": stage.costing(stage.call_raw, many),
        "loop": stage.watching(few),
    }
    in_turn, at_once = {_AGENT: "agent in turn", _RAW: "raw in turn"}, {_AGENT: "agent at once", _RAW: "raw at once"}
    together = f"{_AT_ONCE} at a time: processor time"
    target = Target(1.6, _AGENT)

    def case(what: str, measure: Callable[[], Sample], against: dict[str, str], goal: Target | None = None) -> Case:
        return Case("bridge", what, measure, against, goal)

    return [
        case("a mesh call to a listener, one at a time", stage.timing(stage.call_listener, few), in_turn, target),
        case(f"a mesh call to a listener, {together}", stage.costing(stage.call_listener, many), at_once),
        case("a listener's call to a mesh agent, one at a time", stage.timing(stage.call_out, few), in_turn),
        case(f"a listener's call to a mesh agent, {together}", stage.costing(stage.call_out, many), at_once),
        case("a key's change to a handler", stage.timing(stage.change, few), {_AGENT: "loop"}),
        case("a durable message to a handler", stage.timing(stage.order, few), {}),
    ], baselines
