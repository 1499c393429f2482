"""What is measured, how often, and what was promised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter

from benchmarks.measure import Baselines, Case, Row, Sample, Stopwatch, Target, run_rounds
from benchmarks.mesh.models import Ask, Told, answer_to
from benchmarks.mesh.peer import Peer
from benchmarks.mesh.stage import OPENAGENTMESH, OURS, RAW, Measurement, Stage
from benchmarks.size import Size

__all__ = ["rows"]

_SHORT = 3
"""So many times as many rounds as usual, after the first, of so much less each: what disturbs one does not disturb the
others."""
_IN_FLIGHT = 100
_SLOW_CALLS = 20
_KEYS = 10
_FLUSHING = 4
"""A part of the usual number of chunks is enough for the one that waits for the server after each."""

Round = Callable[[Peer, int], Awaitable[None]]
"""Does something so many times."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One thing to measure.

    Args:
        what: in the table.
        do: does it.
        count: how often in one measurement.
        target: of its time or rate against the plain client.
        as_rate: whether that is a rate.
        rate_target: of its rate against ``openagentmesh``.
    """

    what: str
    do: Round
    count: int
    target: Target | None = None
    as_rate: bool = False
    rate_target: Target | None = None


def rows(size: Size) -> list[Row]:
    """All of it."""
    with Stage() as stage:
        found = run_rounds(*_cases(stage, size), 1 + _SHORT * (size.rounds - 1))
        return found + run_rounds(*_slow_cases(stage), size.rounds)


def _kinds(size: Size) -> list[_Kind]:
    calls = max(2, size.conversations // 12)
    at_once = max(_IN_FLIGHT, calls // _IN_FLIGHT * 2 * _IN_FLIGHT)
    return [
        _Kind("a call, one at a time", _call_in_turn, calls, Target(1.25, RAW)),
        _Kind(
            f"a call, {_IN_FLIGHT} at a time", _call_at_once, at_once, Target(0.75, RAW, at_least=True), as_rate=True
        ),
        _Kind(
            "a chunk of a stream",
            _stream,
            max(8, size.conversations // 2),
            Target(0.5, RAW, at_least=True),
            as_rate=True,
            rate_target=Target(4.0, OPENAGENTMESH, at_least=True),
        ),
        _Kind("a put", _put_in_turn, calls),
        _Kind("a change, from the put to the watch", _change_in_turn, calls),
    ]


def _cases(stage: Stage, size: Size) -> tuple[list[Case], Baselines]:
    cases, baselines = [], {}
    others = [name for name in stage.peers if name != OURS]

    def add(what: str, measurement: Measurement, unit: str, target: Target | None, against: list[str]) -> None:
        for name in others:
            baselines[f"{what}: {name}"] = stage.measuring(name, measurement)
        columns = {name: f"{what}: {name}" for name in against}
        cases.append(Case("mesh", what, stage.measuring(OURS, measurement), columns, target, unit))

    for kind in _kinds(size):
        if kind.as_rate:
            add(kind.what, _rate(kind), "/s", kind.target, [RAW] if kind.rate_target else others)
            if kind.rate_target is not None and OPENAGENTMESH in others:
                less = _Kind(kind.what, kind.do, max(8, kind.count // _FLUSHING))
                add(f"{kind.what}, against another mesh", _rate(less), "/s", kind.rate_target, [OPENAGENTMESH])
        else:
            add(kind.what, _time(kind), "us", kind.target, others)
        add(f"{kind.what}: processor time", _processor_time(kind), "us", None, [RAW])
    return cases, baselines


def _slow_cases(stage: Stage) -> tuple[list[Case], Baselines]:
    what = f"{_SLOW_CALLS} calls of 50 ms at once"
    others = {name: stage.measuring(name, _slow_calls) for name in stage.peers if name != OURS}
    columns = {name: name for name in others}
    return [Case("mesh", what, stage.measuring(OURS, _slow_calls), columns, Target(100.0), "ms")], others


# -- how it is timed


def _time(kind: _Kind) -> Measurement:
    async def measure(peer: Peer) -> Sample:
        start = perf_counter()
        await kind.do(peer, kind.count)
        return Sample((perf_counter() - start) / kind.count * 1e6)

    return measure


def _rate(kind: _Kind) -> Measurement:
    async def measure(peer: Peer) -> Sample:
        start = perf_counter()
        await kind.do(peer, kind.count)
        return Sample(kind.count / (perf_counter() - start))

    return measure


def _processor_time(kind: _Kind) -> Measurement:
    async def measure(peer: Peer) -> Sample:
        watch = Stopwatch()
        await kind.do(peer, kind.count)
        return watch.sample(kind.count)

    return measure


async def _slow_calls(peer: Peer) -> Sample:
    asks = [Ask(message="slow", number=number) for number in range(_SLOW_CALLS)]
    start = perf_counter()
    answers = await asyncio.gather(*(peer.call_slow(ask) for ask in asks))
    elapsed = (perf_counter() - start) * 1e3
    for ask, told in zip(asks, answers, strict=True):
        _check(ask, told)
    return Sample(elapsed)


# -- what is timed


def _check(ask: Ask, told: Told) -> None:
    if told != answer_to(ask):
        raise AssertionError(f"a wrong answer: {told!r:.200}")


async def _call(peer: Peer, number: int) -> None:
    ask = Ask(message="what is measured", number=number)
    _check(ask, await peer.call(ask))


async def _call_in_turn(peer: Peer, count: int) -> None:
    for number in range(count):
        await _call(peer, number)


async def _call_at_once(peer: Peer, count: int) -> None:
    await asyncio.gather(*(_call_in_turn(peer, count // _IN_FLIGHT) for _ in range(_IN_FLIGHT)))


async def _stream(peer: Peer, count: int) -> None:
    came = await peer.stream(Ask(message="what is measured", number=count))
    if came != count:
        raise AssertionError(f"{came} chunks of {count} came")


async def _put_in_turn(peer: Peer, count: int) -> None:
    for number in range(count):
        await peer.put(f"bench.{number % _KEYS}", Told(reply=f"what is measured {number}"))


async def _change_in_turn(peer: Peer, count: int) -> None:
    """The first change also waits for the watch, which is part of what is measured, and is shared by all of them."""
    async with aclosing(peer.watch("bench.watched")) as values:
        for number in range(count):
            value = Told(reply=f"what is measured {number}")
            await peer.put("bench.watched", value)
            while await anext(values) != value:  # of an earlier measurement
                pass
