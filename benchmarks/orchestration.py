"""Sequences and buffers against the same calls made by hand, and how long it takes to cancel many calls.

Sequences have ten steps, each a listener of its own. By hand, an agent makes the same ten calls one after another:

``pump.sequence``
    against a request to that agent;
asked for by an agent
    the payload goes into the request, and the result out of the answer, as XML text; against the same.

Buffers have 1,000 items, 50 under way at a time. By hand, 1,000 requests are made, 50 under way at a time:

``pump.map``
    in one conversation;
asked for by an agent
    the items are written as XML text by the agent, validated as a whole by the buffer, and come back in one text, of
    which the agent reads how many were answered.

What is cancelled is a conversation of 1,000 open calls, as many of them inside their handlers as may run at once. The
time, by the clock on the wall, ends when no handler runs and nothing is open any more.

Handlers do next to nothing, and never suspend; but those that are cancelled, which wait for something that never comes.
Each run is checked: by its answers, and by the pump's books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from benchmarks.books import Books
from benchmarks.drive import run_async
from benchmarks.measure import Baselines, Case, Sample, Stopwatch, Target
from benchmarks.messages import FIRST, SMALL, Ping, Pong, text_for
from benchmarks.size import Size
from third_party.xmlable import codec_of
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import ConversationCancelled
from xml_pipeline.primitives.buffer import BufferComplete, BufferStart
from xml_pipeline.primitives.sequence import SequenceComplete, SequenceStart
from xml_pipeline.strict_xml import parse_strict

__all__ = ["Load", "baselines", "cases", "measured"]

_STEPS = [f"step-{number}" for number in range(1, 11)]
_PARALLEL = 50
_CHILDREN = 1_000

Ask = Callable[[StreamPump, str, int], Awaitable[None]]
"""Does something once, with a pump, a text of the usual size and a number of its own; raises if the answer is wrong."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured.

    Args:
        ask: does it once.
        count: how often.
        in_flight: how many at a time.
        outcomes: how many messages end how, each time it is done.
        shared: over how many its cost is shared out.
    """

    ask: Ask
    count: int
    in_flight: int
    outcomes: Mapping[str, int]
    shared: int = 1


def cases(size: Size) -> list[Case]:
    """All of them."""
    by_hand, all_by_hand = Target(1.3, "by hand"), "1,000 requests" if _items(size) == 1_000 else "requests"
    found = [
        Case(
            "orchestration",
            f"a step of a sequence of ten, {what}, {in_flight} in flight",
            measured(Load(ask, size.conversations // 10 or 1, in_flight, outcomes, len(_STEPS))),
            {"by hand": f"ten calls, {in_flight} in flight"},
            by_hand,
            note="by hand: an agent that makes ten calls",
        )
        for in_flight in (1, 20)
        for what, ask, outcomes in (
            ("pump.sequence", _sequence, _OF_A_SEQUENCE),
            ("asked for by an agent", _sequence_of_agent, _OF_A_SEQUENCE_OF_AN_AGENT),
        )
    ]
    found += [
        Case(
            "orchestration",
            f"an item of a buffer of {_items(size):,}, {what}",
            measured(_buffer(ask, size, **more)),
            {"by hand": "requests"},
            by_hand,
            note=f"by hand: {all_by_hand}",
        )
        for what, ask, more in (
            ("pump.map", _map, {}),
            ("asked for by an agent", _buffer_of_agent, {"forwarded": 1, "answered": 1}),
        )
    ]
    cancelling = Case(
        "orchestration",
        f"cancelling {_children(size):,} open calls",
        lambda: run_async(lambda: _cancel(_children(size))),
        {},
        Target(100.0),
        "ms",
    )
    return [*found, cancelling]


def baselines(size: Size) -> Baselines:
    """The same by hand."""
    one_by_one = {
        f"ten calls, {in_flight} in flight": measured(
            Load(_ten_calls, size.conversations // 10 or 1, in_flight, _OF_A_SEQUENCE, len(_STEPS))
        )
        for in_flight in (1, 20)
    }
    requests = Load(_request, _items(size) * _repetitions(size), _PARALLEL, {"answered": 1, "handled": 1})
    return {**one_by_one, "requests": measured(requests)}


def _items(size: Size) -> int:
    return min(1_000, 4 * size.conversations)


def _children(size: Size) -> int:
    return min(_CHILDREN, 4 * size.conversations)


def _repetitions(size: Size) -> int:
    return max(1, size.conversations // 1_000)


_OF_A_SEQUENCE = {"forwarded": 10, "answered": 11, "handled": 1}
_OF_A_SEQUENCE_OF_AN_AGENT = {"forwarded": 11, "answered": 12, "handled": 1}


def _buffer(ask: Callable[[int], Ask], size: Size, forwarded: int = 0, answered: int = 0) -> Load:
    """A buffer sends the next item for each result that comes in, until all are sent."""
    items = _items(size)
    outcomes = {
        "forwarded": 1 + items - _PARALLEL + forwarded,
        "answered": items + 1 + answered,
        "handled": _PARALLEL,
    }
    return Load(ask(items), _repetitions(size), 1, outcomes, items)


# -- what is asked


async def _sequence(pump: StreamPump, text: str, number: int) -> None:
    _check(await pump.sequence(_STEPS, Ping(text, number)), Ping(text, number + len(_STEPS)))


async def _sequence_of_agent(pump: StreamPump, text: str, number: int) -> None:
    _check(await pump.request("delegating", Ping(text, number)), Ping(text, number + len(_STEPS)))


async def _ten_calls(pump: StreamPump, text: str, number: int) -> None:
    _check(await pump.request("calling", Ping(text, number)), Ping(text, number + len(_STEPS)))


async def _request(pump: StreamPump, text: str, number: int) -> None:
    _check(await pump.request("step-1", Ping(text, number)), Ping(text, number + 1))


def _map(items: int) -> Ask:
    async def ask(pump: StreamPump, text: str, number: int) -> None:
        pings = [Ping(text, FIRST + each) for each in range(items)]
        answers = await pump.map("step-1", pings, max_parallel=_PARALLEL)
        _check(answers, [Ping(text, ping.n + 1) for ping in pings])

    return ask


def _buffer_of_agent(items: int) -> Ask:
    async def ask(pump: StreamPump, text: str, number: int) -> None:
        _check(await pump.request("collecting", Pong(text, items)), Pong(text, items))

    return ask


def _check(answer: object, expected: object) -> None:
    if answer != expected:
        raise AssertionError(f"a wrong answer: {answer!r:.200}")


# -- who answers


async def _step(ping: Ping, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(Ping(ping.text, ping.n + 1))


async def _calling(ping: Ping, metadata: HandlerMetadata) -> HandlerResponse:
    """Makes ten calls; the tag says how many were made."""
    made = int(metadata.tag or 0)
    if made == len(_STEPS):
        return HandlerResponse.respond(ping)
    return HandlerResponse(ping, _STEPS[made], tag=str(made + 1))


async def _delegating(payload: Ping | SequenceComplete, metadata: HandlerMetadata) -> HandlerResponse:
    """Has a sequence make the ten calls."""
    if isinstance(payload, SequenceComplete):
        return HandlerResponse.respond(codec_of(Ping).decode(parse_strict(payload.final_result.encode())))
    return HandlerResponse(SequenceStart(",".join(_STEPS), codec_of(Ping).encode(payload)), "system.sequence")


class _Collecting:
    """Has a buffer make as many calls as it is told to."""

    def __init__(self) -> None:
        self._text = ""

    async def __call__(self, payload: Pong | BufferComplete, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(payload, BufferComplete):
            return HandlerResponse.respond(Pong(self._text, payload.successful))
        self._text, encode = payload.text, codec_of(Ping).encode
        items = "".join([encode(Ping(payload.text, FIRST + each)) for each in range(payload.n)])
        return HandlerResponse(BufferStart("step-1", items, max_parallel=_PARALLEL), "system.buffer")


def _populate(pump: StreamPump) -> None:
    for name in _STEPS:
        pump.register(name, _step, Ping)
    pump.register("calling", _calling, Ping, agent=True, peers=_STEPS)
    pump.register("delegating", _delegating, Ping, agent=True, peers=[*_STEPS, "system.sequence"])
    pump.register("collecting", _Collecting(), Pong, agent=True, peers=["step-1", "system.buffer"])


# -- measuring


def measured(load: Load) -> Callable[[], Sample]:
    """Measures microseconds per step or item."""
    return lambda: run_async(lambda: _run(load))


async def _run(load: Load) -> Sample:
    pump, text = StreamPump(), text_for(SMALL)
    _populate(pump)
    async with pump:
        await _ask_all(pump, text, Load(load.ask, min(load.count, 2 * load.in_flight), load.in_flight, {}))
        books = Books(pump)
        watch = Stopwatch()
        await _ask_all(pump, text, load)
        sample = watch.sample(load.count * load.shared)
        books.check({outcome: each * load.count for outcome, each in load.outcomes.items()})
    return sample


async def _ask_all(pump: StreamPump, text: str, load: Load) -> None:
    async def some(numbers: range) -> None:
        for number in numbers:
            await load.ask(pump, text, number)

    end, step = FIRST + load.count, load.in_flight
    await asyncio.gather(*(some(range(begin, end, step)) for begin in range(FIRST, FIRST + step)))
    await pump.wait_idle()


async def _cancel(children: int) -> Sample:
    pump, text = StreamPump(), text_for(SMALL)
    full = asyncio.Event()
    inside = 0

    async def never(ping: Ping, metadata: HandlerMetadata) -> None:
        nonlocal inside
        inside += 1
        try:
            if inside == min(pump.config.max_concurrent_handlers, children):
                full.set()
            await asyncio.Event().wait()
        finally:
            inside -= 1

    pump.register("never", never, Ping)
    async with pump:
        await pump.wait_idle()
        books = Books(pump)
        thread = pump.engine.registry.ids.next()
        pings: Any = [Ping(text, FIRST + number) for number in range(children)]
        waiting = asyncio.create_task(pump.map("never", pings, max_parallel=children, thread_id=thread))
        await full.wait()
        await _until(lambda: pump.statistics().waiting + inside == children)  # the others are still on their way
        start = perf_counter()
        pump.cancel(thread)
        with suppress(ConversationCancelled):
            await waiting
        await _until(lambda: not (inside or pump.statistics().running))
        elapsed = (perf_counter() - start) * 1e3
        books.check({"forwarded": 1, "cancelled": children})
    return Sample(elapsed, elapsed)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110, it waits for a turn of the loop
        await asyncio.sleep(0)
