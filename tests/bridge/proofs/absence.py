"""The server is gone for a while, killed or stopped, while an organism does everything that it can do on the mesh.

A server that was killed is gone for everybody at once. One that was stopped (SIGSTOP) looks like a network that carries
nothing any more: the connections are there, and only time shows that nobody answers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.bridge.proofs import home
from tests.bridge.proofs.outside import Outside, outside
from tests.mesh.kit import until_names
from tests.mesh.proofs.figures import Figure, count, seconds, spread
from tests.mesh.proofs.roles import resident
from xml_pipeline.bridge.kv_watched import AT_A_TIME
from xml_pipeline.bridge.waiting import MOST_UNDER_WAY
from xml_pipeline.errors import NoAnswer, PipelineError
from xml_pipeline.mesh import AgentMesh, EmbeddedServer, Monitor
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["prove", "prove_flood"]

_RATE = 20.0
"""Calls of each agent, puts and publications, each, per second."""
_TURNS = 4
"""Conversations inside, at a time."""
_ALWAYS = 100
"""Messages that a pump may have at hand at any time."""
_MEGABYTES = 40.0
"""By which memory may grow while a server is away for half a minute."""
_IN_FLIGHT = 64
"""Durable messages at a time, as the file does not say."""
_LONGEST = 60.0
_WHAT = {
    "far": "calls of a known agent",
    "found": "calls of a found agent",
    "store": "puts",
    "news": "publications",
}


class End(NamedTuple):
    """How one thing ended.

    Args:
        made: when, in seconds of the monotonic clock.
        ended: when.
        code: of the error; empty for none.
    """

    made: float
    ended: float
    code: str

    @property
    def took(self) -> float:
        """Seconds."""
        return self.ended - self.made


class Turns:
    """Conversations inside; of very many, so that little is kept of each."""

    def __init__(self) -> None:
        self.failed = 0
        self._ended = array("d")
        self._took = array("d")

    async def note(self, conversation: Awaitable[Any]) -> None:
        """Have one, and note how long it took."""
        made = time.monotonic()
        try:
            await conversation
        except PipelineError:
            self.failed += 1
        now = time.monotonic()
        self._ended.append(now)
        self._took.append(now - made)

    def times(self, since: float, until: float) -> array[float]:
        """How long those took that ended in a span of time."""
        return self._took[bisect_left(self._ended, since) : bisect_left(self._ended, until)]


class Span:
    """A span of time, from its making on, and what this process did in it."""

    def __init__(self) -> None:
        self.began = self.ended = time.monotonic()
        self._worked = time.process_time()
        self.worked = 0.0

    def end(self) -> None:
        """It is over."""
        self.ended = time.monotonic()
        self.worked = time.process_time() - self._worked

    def rates(self, turns: Turns) -> tuple[float, float]:
        """Conversations per second, and per second that this process had of a processor: others may want it, too."""
        number = len(turns.times(self.began, self.ended))
        return number / (self.ended - self.began), number / self.worked


class Peak:
    """The most there was of what may grow, since it was cleared.

    Args:
        pump: of which.
    """

    def __init__(self, pump: StreamPump) -> None:
        self._pump = pump
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._resident = resident()
        self.grown = self.in_flight = self.waiting = 0

    async def look(self, stopping: asyncio.Event) -> None:
        """Look at it all the time."""
        while not stopping.is_set():
            now = self._pump.statistics()
            self.grown = max(self.grown, resident() - self._resident)
            self.in_flight = max(self.in_flight, now.in_flight)
            self.waiting = max(self.waiting, now.waiting + now.queued)
            await asyncio.sleep(0.05)

    def figures(self, most: float) -> list[Figure]:
        """As figures; ``most`` messages may be in the pump."""
        return [
            count("MB by which memory grew meanwhile", self.grown / 1e6, most=_MEGABYTES),
            count("most messages in the pump meanwhile", self.in_flight, most=int(most)),
            count("most that waited for a handler meanwhile", self.waiting, most=_ALWAYS),
        ]


class Load:
    """What the organism does all the time; an asynchronous context manager.

    Args:
        pump: the organism.
    """

    def __init__(self, pump: StreamPump) -> None:
        self.turns = Turns()
        self.peak = Peak(pump)
        self.ends: dict[str, list[End]] = {kind: [] for kind in _WHAT}
        self.untyped: list[BaseException] = []
        self._pump = pump
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> Load:
        (found,) = self._pump.listeners["outside.found"].payload_classes
        self._begin(self._send("far", lambda number: self._request("asker", home.Need(number))))
        self._begin(self._send("found", lambda number: self._request("outside.found", found(number=number))))
        self._begin(self._send("store", lambda number: self._request("store", home.Out(number))))
        self._begin(self._send("news", lambda number: self._request("news", home.Out(number))))
        for _ in range(_TURNS):
            self._begin(self._turn())
        self._begin(self.peak.look(self._stopping))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _request(self, target: str, payload: Any) -> Awaitable[Any]:
        return self._pump.request(target, payload, timeout=None)

    async def _turn(self) -> None:
        """A conversation inside, again and again."""
        number = 0
        while not self._stopping.is_set():
            number += 1
            await self.turns.note(self._request("local", home.Turn(number)))

    async def _send(self, kind: str, make: Callable[[int], Awaitable[Any]]) -> None:
        """Something that goes out, so many times a second, whether or not the one before has ended."""
        number = 0
        while not self._stopping.is_set():
            number += 1
            self._begin(self._note(kind, make(number)))
            await asyncio.sleep(1 / _RATE)

    async def _note(self, kind: str, what: Awaitable[Any]) -> None:
        made, code = time.monotonic(), ""
        try:
            answer = await what
        except PipelineError as error:
            answers_nothing = kind in ("store", "news") and isinstance(error, NoAnswer) and error.step != "mesh"
            code = "" if answers_nothing else error.code
        except Exception as error:
            self.untyped.append(error)
            return
        else:
            code = answer.code if isinstance(answer, SystemError) else ""
        self.ends[kind].append(End(made, time.monotonic(), code))

    async def first_since(self, kind: str, since: float) -> float:
        """Wait until something of this kind has gone well that ended later than a moment; when that was."""
        while True:
            for end in reversed(self.ends[kind]):
                if end.ended >= since and not end.code:
                    return end.ended
            await asyncio.sleep(0.01)


# -- the server


async def _take_away(server: EmbeddedServer, stopped: bool) -> None:
    if stopped:
        os.kill(server.pid, signal.SIGSTOP)
        return
    server.kill()
    await server.wait()


async def _bring_back(server: EmbeddedServer, stopped: bool) -> None:
    if stopped:
        os.kill(server.pid, signal.SIGCONT)
        return
    await server.stop()
    await server.start()


@asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[EmbeddedServer]:
    """One that keeps its files."""
    server = EmbeddedServer(folder / "nats")
    await server.start()
    try:
        yield server
    finally:
        if server.is_running:
            os.kill(server.pid, signal.SIGCONT)
        await server.stop()


async def _organism(folder: Path, url: str, patience: float) -> StreamPump:
    (folder / "organism.yaml").write_text(home.organism(patience))
    for seen in home.SEEN.values():
        seen.clear()
    return await StreamPump.from_yaml(folder / "organism.yaml", mesh_url=url)


# -- everything at once


async def prove(
    folder: Path, away: float, around: float, patience: float = 3.0, *, stopped: bool = False
) -> list[Figure]:
    """Do everything, with the server away in the middle.

    Args:
        folder: for files.
        away: seconds that the server is away.
        around: seconds that are measured before and after.
        patience: seconds that a call to the mesh, a put and a publication may take.
        stopped: whether the server is stopped, and not killed.
    """
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(_running(folder))
        await stack.enter_async_context(Monitor.of(server.url, server.system_url))
        others = await stack.enter_async_context(outside(server.url))
        mesh = await stack.enter_async_context(AgentMesh(server.url))
        await until_names(mesh, "outside.far", "outside.found")
        pump = await stack.enter_async_context(await _organism(folder, server.url, patience))
        async with Load(pump) as load:
            await _all_since(time.monotonic(), load, others)
            await asyncio.sleep(around)  # what is remembered of conversations fills up
            before = await _measured(around)
            await _take_away(server, stopped)
            load.peak.clear()
            gone = await _measured(away)
            peak = load.peak.figures(most=_ALWAYS + len(_WHAT) * _RATE * (patience + 1.0) * 2)
            await _bring_back(server, stopped)
            back = time.monotonic()
            again = await _all_since(back, load, others)
            after = await _measured(around)
            await others.settle()
        lost = await _lost(others)
    return [
        count("messages with an untyped end", len(load.untyped), exactly=0, note=str(load.untyped[:2] or "")),
        *_speeds(load.turns, before, gone, after),
        *(figure for kind in _WHAT for figure in _outward(kind, load.ends[kind], gone, patience, stopped)),
        *peak,
        *(seconds(f"until, when it was back, {kind}", at - back, most=2.0) for kind, at in again.items()),
        *lost,
    ]


async def _measured(duration: float) -> Span:
    span = Span()
    await asyncio.sleep(duration)
    span.end()
    return span


async def _all_since(since: float, load: Load, others: Outside) -> dict[str, float]:
    """When each thing has been done for the first time since a moment."""
    waits = {
        "a call came in": others.first_since("called", since),
        "a call of a known agent was answered": load.first_since("far", since),
        "a call of a found agent was answered": load.first_since("found", since),
        "a key was put, and seen": others.first_since("put", since),
        "something was published, and heard": others.first_since("news", since),
        "an event was heard": others.first_since("event", since),
        "a new change of a key was handled": _handled("change", since, others),
        "a new durable message was handled": _handled("task", since, others),
    }
    async with asyncio.timeout(_LONGEST):
        return dict(zip(waits, await asyncio.gather(*waits.values()), strict=True))


async def _handled(kind: str, since: float, others: Outside) -> float:
    """Wait until something that was confirmed later than a moment was handled."""
    while True:
        confirmed = others.confirmed[kind]
        for number in reversed(confirmed):
            if confirmed[number] < since:
                break
            if number in home.SEEN[kind]:
                return time.monotonic()
        await asyncio.sleep(0.01)


async def _lost(others: Outside) -> list[Figure]:
    """What was confirmed, and is not handled; it has some time to be."""
    figures = []
    for kind, what, at_a_time in (("change", "changes of keys", AT_A_TIME), ("task", "durable messages", _IN_FLIGHT)):
        confirmed, seen, until = others.confirmed[kind], home.SEEN[kind], time.monotonic() + _LONGEST
        while confirmed.keys() - seen.keys() and time.monotonic() < until:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.05)
        missed = sorted(confirmed.keys() - seen.keys())
        figures += [
            count(f"{what} that the server has confirmed", len(confirmed), least=1),
            count(f"{what} lost", len(missed), exactly=0, note=" ".join(map(str, missed[:9]))),
            count(f"{what} handled again", seen.total() - len(seen), most=at_a_time),
        ]
    return figures


def _speeds(turns: Turns, before: Span, gone: Span, after: Span) -> list[Figure]:
    (was, own), (then, own_then), (now, own_now) = (span.rates(turns) for span in (before, gone, after))
    each = "per second, and {:,.0f} per second of a processor"
    return [
        count("conversations inside that failed", turns.failed, exactly=0),
        Figure("conversations inside before", was, note=each.format(own)),
        Figure("conversations inside meanwhile", then, note=each.format(own_then)),
        Figure("conversations inside afterwards", now, note=each.format(own_now)),
        Figure("those meanwhile, for each before", then / was, least=0.8, is_time=True),
        # Others may want the processor, too.
        Figure("those afterwards, for each before, of a processor's second", own_now / own, least=0.6, is_time=True),
        spread("a conversation inside, meanwhile", turns.times(gone.began, gone.ended), most=1.0),
    ]


def _outward(kind: str, ends: list[End], gone: Span, patience: float, stopped: bool) -> list[Figure]:
    """Of what was to go out while the server was away: what was under way, and what was begun."""
    under_way = [end for end in ends if end.made < gone.began <= end.ended]
    begun = [end for end in ends if gone.began <= end.made < gone.ended]
    hopeless = [end for end in begun if end.made + patience < gone.ended]
    expired = [end for end in hopeless if end.code == "timeout"]
    early = [end for end in expired if end.took < patience - 0.1]
    # A connection to a server that was stopped still takes something, and is given up some time.
    usual = {"timeout", *(("no-answer", *([""] if kind == "news" else ())) if stopped else ())}
    other = [end for end in hopeless if end.code not in usual]
    unlucky = [end for end in begun if end.code == "routing" and end.took < patience - 0.5]
    what = _WHAT[kind]
    return [
        count(f"{what} under way when it went", len(under_way), note=_codes(under_way)),
        count(f"{what} begun meanwhile", len(begun), note=_codes(begun)),
        count(f"{what} whose time was over meanwhile", len(hopeless), least=1, note=_codes(hopeless)),
        count("of these, those that ended otherwise", len(other), exactly=0, note=_codes(other)),
        count("of these, those that ended before their deadline", len(early), exactly=0),
        spread("until these ended", [end.took for end in expired], most=patience + 0.5),
        count(f"{what} that found nobody when it was back", len(unlucky), exactly=0, is_time=True),
    ]


def _codes(ends: list[End]) -> str:
    return ", ".join(f"{number} {code}" for code, number in Counter(end.code or "well" for end in ends).most_common())


# -- much too much


async def prove_flood(folder: Path, away: float, around: float, patience: float = 30.0) -> list[Figure]:
    """Have every conversation inside publish something, as fast as they go, with the server away in the middle.

    Args:
        folder: for files.
        away: seconds that the server is away.
        around: seconds that are measured before and after.
        patience: seconds that a publication may take.
    """
    turns, stopping = Turns(), asyncio.Event()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(_running(folder))
        pump = await stack.enter_async_context(await _organism(folder, server.url, patience))
        peak = Peak(pump)

        async def publish() -> None:
            number = 0
            while not stopping.is_set():
                number += 1
                await turns.note(pump.request("herald", home.Turn(number)))

        working = [asyncio.create_task(publish()) for _ in range(_TURNS)]
        working.append(asyncio.create_task(peak.look(stopping)))
        await asyncio.sleep(around)
        before = await _measured(around)
        await _take_away(server, stopped=False)
        was = pump.statistics()
        peak.clear()
        gone = await _measured(away)
        grown = peak.figures(most=_ALWAYS + MOST_UNDER_WAY)
        await _bring_back(server, stopped=False)
        back = time.monotonic()
        while pump.statistics().in_flight > _ALWAYS:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)
        relieved = time.monotonic() - back
        after = await _measured(around)
        stopping.set()
        await asyncio.gather(*working)
        now = pump.statistics()
    outcomes = Counter(now.outcomes) - Counter(was.outcomes)
    unaccounted = now.accepted - sum(now.outcomes.values()) - now.in_flight
    ends = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
    return [
        *_speeds(turns, before, gone, after),
        *grown,
        count("messages without an outcome", unaccounted, exactly=0, note=ends),
        seconds("until, when it was back, nothing waited any more", relieved, most=2.0),
    ]
