"""What a flooded agent does to somebody else's latency.

One agent runs five handlers at once, each takes a tenth of a second, so that 10,000 messages keep it busy for minutes.
Beside it, another listener is asked at a steady pace, and the time until its answer is taken:

idle
    nobody else is there;
all admitted
    the agent's 10,000 messages are inside the pump (with queue limits that allow it), five are being handled;
default limits
    1,000 messages are inside, and 9,000 callers of `inject` wait for room.

Each round measures the three in turn, each with a pump of its own. The flood itself, which costs whoever sends it
10,000 injections, is over when the latency is taken; what is measured is the 10,000 messages' effect on the pump, not
their sender's on the loop. Latencies are the wall's. Afterwards the flood is cancelled, and every message must have its
outcome.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from benchmarks.drive import run_async
from benchmarks.measure import Row, Sample, Spread, Target
from benchmarks.messages import FIRST, SMALL, Ping, Pong, text_for
from benchmarks.size import Size
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import PumpStopped

__all__ = ["rows"]


@dataclass(frozen=True, slots=True)
class _Scene:
    """A pump, and what floods it."""

    flood: int
    limits: dict[str, Any]


def rows(size: Size) -> list[Row]:
    """Measure all three in rounds; percentiles of each, and their ratios within a round."""
    wide = {"max_queue": 2 * size.flood, "max_queue_per_listener": size.flood}
    scenes = {
        "idle": _Scene(0, {}),
        "flooded, all admitted": _Scene(size.flood, wide),
        "flooded, default limits": _Scene(size.flood, {}),
    }
    found: dict[str, list[Sample]] = {name: [] for name in scenes}
    for _ in range(size.rounds):
        for name, scene in scenes.items():
            gc.collect()
            found[name].append(run_async(_measuring(scene, size)))
    idle = found["idle"]
    return [_row(name, share, samples, idle) for name, samples in found.items() for share in ("p50", "p99")]


def _row(name: str, share: str, samples: list[Sample], idle: list[Sample]) -> Row:
    values = [sample.details[share] for sample in samples]
    case, spread = f"latency of another listener, {name}, {share}", Spread.of(values)
    if samples is idle:
        return Row("fairness", case, spread)
    ratio = Spread.of(value / each.details[share] for value, each in zip(values, idle, strict=True))
    target = Target(3.0, "ours") if share == "p99" else None
    return Row("fairness", case, spread, ratios={"ours": ratio}, target=target, note=_note(samples))


def _note(samples: list[Sample]) -> str:
    medians = [statistics.median(sample.details[name] for sample in samples) for name in ("handled", "waiting")]
    handled, waiting = medians
    return f"x ours: over idle; of the flood {handled:,.0f} were handled meanwhile, {waiting:,.0f} waited at the door"


def _measuring(scene: _Scene, size: Size) -> Callable[[], Any]:
    return lambda: _measure(scene, size)


async def _measure(scene: _Scene, size: Size) -> Sample:
    pump, text = StreamPump(**scene.limits), text_for(SMALL)
    handled = 0

    async def slow(ping: Ping, metadata: HandlerMetadata) -> None:
        nonlocal handled
        await asyncio.sleep(size.agent_seconds)
        handled += 1

    async def quick(ping: Ping, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Pong(ping.text, ping.n))

    pump.register("agent", slow, Ping, agent=True)
    pump.register("other", quick, Ping)
    await pump.start()
    running = asyncio.create_task(pump.run())
    flood = [asyncio.create_task(_send(pump, Ping(text, FIRST + number))) for number in range(scene.flood)]
    try:
        await _ask(pump, text, min(50, size.probes), 0.0)
        latencies = sorted(await _ask(pump, text, size.probes, size.probe_pause))
        waits = sum(not task.done() for task in flood)
        handled_meanwhile = handled
    finally:
        report = await pump.shutdown(0.0)
        sent = await asyncio.gather(*flood)
        await running
    _check(pump, sum(sent), scene, size, report.outcomes)
    shares = {f"p{share}": latencies[len(latencies) * share // 100] * 1e6 for share in (50, 99)}
    return Sample(shares["p99"], 0.0, shares | {"handled": handled_meanwhile, "waiting": waits})


async def _send(pump: StreamPump, ping: Ping) -> bool:
    """Whether it was admitted before the pump stopped."""
    try:
        await pump.inject("agent", ping)
    except PumpStopped:
        return False
    return True


async def _ask(pump: StreamPump, text: str, count: int, pause: float) -> list[float]:
    latencies = []
    for number in range(FIRST, FIRST + count):
        start = perf_counter()
        pong = await pump.request("other", Ping(text, number))
        latencies.append(perf_counter() - start)
        if pong != Pong(text, number):
            raise AssertionError(f"a wrong answer: {pong!r}")
        await asyncio.sleep(pause)
    return latencies


def _check(pump: StreamPump, sent: int, scene: _Scene, size: Size, outcomes: dict[str, int]) -> None:
    asked = min(50, size.probes) + size.probes
    now, boot = pump.statistics(), 1
    expected = sent + 2 * asked + boot
    if now.accepted != expected or sum(outcomes.values()) != expected or now.in_flight:
        raise AssertionError(f"{now.accepted} messages accepted, {outcomes}, {now.in_flight} in flight; not {expected}")
    if scene.limits and sent != scene.flood:
        raise AssertionError(f"{sent} messages of the flood were admitted, not {scene.flood}")
