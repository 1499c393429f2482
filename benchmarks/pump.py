"""Conversations through the real pump, with its default limits, in the event loop of the standard library."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from benchmarks.books import Books
from benchmarks.drive import LoopFactory, Send, Tally, per_message, run_async, through, uvloop_factory
from benchmarks.measure import Baselines, Case, Sample, Stopwatch, Target
from benchmarks.messages import FIRST, LARGE, SMALL, Ping, Pong, envelope_of, text_for
from benchmarks.organisms import CHAIN, FAN_OUT, PAIR, SINK, Organism
from benchmarks.size import Size
from benchmarks.watchers import EventCounter, HookCounter
from third_party.xmlable import codec_of
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.envelope import build_envelope, envelope_to_bytes

__all__ = ["Load", "baselines", "cases", "measured"]

FLOORS = {"floor": "plain", "tuned": "tuned"}
LARGE_FLOORS = {"floor": "plain, large", "tuned": "tuned, large"}


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent.

    Args:
        organism: who handles it.
        in_flight: conversations at a time.
        envelope_bytes: size of an external envelope.
        as_bytes: finished envelopes are injected, not payloads.
        watched: with a subscriber to all events.
        hooked: with a dispatch hook.
        loop_factory: makes the event loop; ``None`` for the standard library's.
    """

    organism: Organism = PAIR
    in_flight: int = 20
    envelope_bytes: int = SMALL
    as_bytes: bool = False
    watched: bool = False
    hooked: bool = False
    loop_factory: LoopFactory | None = None


def measured(load: Load, size: Size) -> Callable[[], Sample]:
    """Measures microseconds per message."""
    return lambda: run_async(lambda: _run(load, size), load.loop_factory)


async def _run(load: Load, size: Size) -> Sample:
    organism, tally = load.organism, Tally(load.organism.marks)
    pump = StreamPump()
    organism.populate(pump, tally)
    events, hook = EventCounter(), HookCounter()
    if load.watched:
        pump.subscribe_events(events)
    if load.hooked:
        pump.register_dispatch_hook(hook)
    async with pump:
        send = _sender(pump, load, size.conversations)

        async def idle() -> None:
            await pump.wait_idle()
            if load.hooked:
                await pump.engine.dispatcher.turns.wait_until_at_rest()  # a hook is acknowledged to after the outcome
            if load.watched:
                await pump.engine.events.flush()

        await through(send, tally, idle, min(size.warm_up, size.conversations), load.in_flight)
        send = _sender(pump, load, size.conversations)
        books = Books(pump)
        events.reset()
        sample = await through(send, tally, idle, size.conversations, load.in_flight)
        books.check({outcome: each * size.conversations for outcome, each in organism.outcomes.items()})
        messages = organism.messages * size.conversations
        details = {}
        if load.watched:
            details["events per message"] = events.check(pump, messages) / messages
    if load.hooked:
        hook.check(at_least=messages)
    return per_message(sample, organism.messages, **details)


def _sender(pump: StreamPump, load: Load, conversations: int) -> Send:
    text, entry = text_for(load.envelope_bytes), load.organism.entry
    if not load.as_bytes:
        return lambda number: pump.inject(entry, Ping(text, number))
    payloads = load.organism.outcomes["handled"] if load.organism is SINK else 1
    numbers = range(FIRST, FIRST + conversations)
    envelopes = [_envelope(Ping(text, number), entry, payloads) for number in numbers]

    async def send(number: int) -> None:
        raw, thread = envelopes[number - FIRST]
        await pump.inject(raw, thread, "external")

    return send


def _envelope(payload: Ping, to: str, payloads: int) -> tuple[bytes, str]:
    if payloads == 1:
        return envelope_of(payload, to)
    thread, text = str(uuid.uuid4()), codec_of(Ping).encode(payload).encode()
    envelope = build_envelope(text, "external", thread, to)
    for _ in range(payloads - 1):
        envelope.append(build_envelope(text, "external", thread, to)[1])
    return envelope_to_bytes(envelope, declaration=False), thread


def round_trips(in_flight: int, size: Size) -> Callable[[], Sample]:
    """Measures ``await pump.request(...)``: two messages each, the question and the answer."""
    return lambda: run_async(lambda: _round_trips(in_flight, size))


async def _round_trips(in_flight: int, size: Size) -> Sample:
    async def answer(ping: Ping, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Pong(ping.text, ping.n))

    pump, text = StreamPump(), text_for(SMALL)
    pump.register("a", answer, Ping)

    async def ask(numbers: range, latencies: list[float]) -> None:
        for number in numbers:
            start = perf_counter()
            pong = await pump.request("a", Ping(text, number))
            latencies.append(perf_counter() - start)
            if pong != Pong(text, number):
                raise AssertionError(f"a wrong answer: {pong!r}")

    async def ask_all(count: int) -> list[float]:
        latencies: list[float] = []
        askers = (ask(range(first, count, in_flight), latencies) for first in range(in_flight))
        await asyncio.gather(*askers)
        return latencies

    async with pump:
        await ask_all(size.warm_up)
        await pump.wait_idle()
        books = Books(pump)
        watch = Stopwatch()
        latencies = sorted(await ask_all(size.conversations))
        await pump.wait_idle()
        sample = watch.sample(size.conversations)
        books.check({"answered": size.conversations, "handled": size.conversations})
    percentiles = {f"p{share} us": latencies[len(latencies) * share // 100] * 1e6 for share in (50, 99)}
    return per_message(sample, 2, **percentiles)


def baselines(size: Size) -> Baselines:
    """The pump under its usual load, for what is compared with it."""
    return {"pump": measured(Load(), size)}


def cases(size: Size) -> list[Case]:
    """All loads."""
    found = [
        _case("pair, 1 in flight", Load(in_flight=1), size, Target(2.0, "floor")),
        _case("pair, 20 in flight", Load(), size, Target(1.0, "floor")),
        _case("pair, 100 in flight", Load(in_flight=100), size),
        _case("pair, 20 in flight, 2 kB", Load(envelope_bytes=LARGE), size),
        _case("pair, 20 in flight, injected as bytes", Load(as_bytes=True), size),
        _case("chain of ten, 20 in flight", Load(CHAIN), size),
        _case("fan-out: a handler calls three, 20 in flight", Load(FAN_OUT), size),
        _case("fan-out: three payloads in an envelope, 20 in flight", Load(SINK, as_bytes=True), size),
        Case("pump", "round trip, 1 in flight", round_trips(1, size), FLOORS),
        Case("pump", "round trip, 20 in flight", round_trips(20, size), FLOORS),
        _case("pair, 20 in flight, with an event subscriber", Load(watched=True), size),
        _case("pair, 20 in flight, with a dispatch hook", Load(hooked=True), size),
    ]
    uvloop = uvloop_factory()
    if uvloop is not None:
        found.append(_case("pair, 1 in flight, uvloop", Load(in_flight=1, loop_factory=uvloop), size))
        found.append(_case("pair, 20 in flight, uvloop", Load(loop_factory=uvloop), size))
    return found


def _case(name: str, load: Load, size: Size, target: Target | None = None) -> Case:
    against: dict[str, Any] = dict(LARGE_FLOORS if load.envelope_bytes == LARGE else FLOORS)
    if load.watched or load.hooked or load.as_bytes or (load.loop_factory and load.in_flight == 20):
        against["ours"] = "pump"
    return Case("pump", name, measured(load, size), against, target)
