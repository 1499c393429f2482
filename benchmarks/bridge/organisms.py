"""Organisms that call each other over the mesh: with envelopes, signed and not, against JSON.

Two organisms of one listener each, every one with a connection of its own to one embedded server, all in one process
and one event loop. What is counted is a call from one organism's pump to the other's listener and back: the caller's
conversation, the request, the callee's conversation with everything that a message from outside goes through, the
answer, and the caller's conversation again. Payloads are a text and a number; the answer is one text, and is compared
with what was to come.

``json`` is the same call in JSON, of a class with the same fields and another name, for which reason it does not go as
an envelope; nobody signs. What is signed is signed and verified at both ends, request and answer, and the request's id
is taken on the server.

Times are by the clock on the wall, with one call at a time; processor times are those of this process, of both
organisms together, and not the server's.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from benchmarks.bridge.stage import Stage, organism, until_known
from benchmarks.measure import Baselines, Case, Row, Sample, Stopwatch, Target, run_rounds
from benchmarks.messages import LARGE, SMALL, text_for
from benchmarks.size import Size
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.crypto import Identity

__all__ = ["rows"]

_JSON: Final = "json"
_WAYS: Final = {"in envelopes": ("plain", Target(1.3, _JSON)), "in signed envelopes": ("signed", None)}
_AT_ONCE: Final = 50
_TIMEOUT: Final = 60.0


@dataclass
class Ask:
    """What is asked."""

    message: str
    number: int


@dataclass
class Question:
    """The same in another name."""

    message: str
    number: int


@dataclass
class Told:
    """What is answered."""

    reply: str


async def _answer(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(Told(f"{ask.message} {ask.number}"))


class _Stage(Stage):
    """A server and four organisms, two of which sign."""

    def __init__(self) -> None:
        super().__init__()
        self._callers: dict[str, tuple[StreamPump, str, type]] = {}

    async def fill(self, url: str, closing: AsyncExitStack) -> None:
        """See `Stage`."""
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory()))
        keys = {name: _key(directory, name) for name in ("asking", "answering")}
        trust = [{"organism": name, "key": key.get_public_key_base64()} for name, key in keys.items()]
        for way, signed in (("plain", False), ("signed", True)):
            names = [f"{name}-{way}" for name in keys] if not signed else list(keys)
            answering, asking = (
                organism(
                    url,
                    name,
                    keys[name].path if signed else "",
                    trust=trust if signed else [],
                    **({"expose": [{"listener": "it"}]} if index else {"agents": _agents(names[1])}),
                )
                for index, name in reversed(list(enumerate(names)))
            )
            answering.register("it", _answer, Ask, output_class=Told)
            await closing.enter_async_context(answering)
            await closing.enter_async_context(asking)
            bridge: Any = asking.attachments[0]
            await until_known(bridge.mesh, f"{names[1]}.it")
            self._callers[way] = (asking, "envelope", Ask)
            if not signed:
                self._callers[_JSON] = (asking, "json", Question)

    def measuring(self, way: str, length: int, count: int, at_once: int, by_wall: bool) -> Callable[[], Sample]:
        """Measures ``count`` calls."""
        pump, target, cls = self._callers[way]
        text = text_for(length)

        async def call(numbers: itertools.count[int]) -> None:
            while (number := next(numbers)) < count:
                told = await pump.request(target, cls(text, number), timeout=_TIMEOUT)
                if told != Told(f"{text} {number}"):
                    raise AssertionError(f"a wrong answer: {told!r:.200}")

        async def measure() -> Sample:
            numbers = itertools.count()
            start, watch = perf_counter(), Stopwatch()
            await asyncio.gather(*(call(numbers) for _ in range(at_once)))
            wall = (perf_counter() - start) / count * 1e6
            return Sample(wall) if by_wall else watch.sample(count)

        return self.in_loop(measure)


def _key(directory: Path, name: str) -> Identity:
    identity = Identity.generate()
    identity.save(directory / f"{name}.key")
    return Identity.load(directory / f"{name}.key")


def _agents(callee: str) -> list[dict[str, Any]]:
    shared = {"name": f"{callee}.it", "output_class": Told}
    return [
        {**shared, "as": "envelope", "payload_class": Ask},
        {**shared, "as": "json", "payload_class": Question},
    ]


def rows(size: Size) -> list[Row]:
    """All of it."""
    with _Stage() as stage:
        return run_rounds(*_cases(stage, size), size.rounds)


def _cases(stage: _Stage, size: Size) -> tuple[list[Case], Baselines]:
    count = max(_AT_ONCE, size.conversations // 8)
    cases, baselines = [], {}
    for label, length in {"300 bytes": SMALL, "2 kB": LARGE}.items():
        for what, at_once, by_wall in (
            (f"a call of {label}, one at a time", 1, True),
            (f"a call of {label}, {_AT_ONCE} at a time: processor time", _AT_ONCE, False),
        ):
            baselines[what] = stage.measuring(_JSON, length, count, at_once, by_wall)
            for how, (way, target) in _WAYS.items():
                measure = stage.measuring(way, length, count, at_once, by_wall)
                cases.append(Case("bridge", f"{what}, {how}", measure, {_JSON: what}, target))
    return cases, baselines
