"""What is left of finished conversations, in a process of its own.

Pairs of listeners, 20 conversations in flight, default limits. Every tenth conversation registers a todo watcher that
never gets what it waits for, and every thousandth a generic listener, which is unregistered at its end. After each of
the given numbers of conversations: the resident memory, as the system reports it, with nothing collected or trimmed
before; and the frames, conversations, watchers, listeners and slots of history that are still there.

Then a second pump, which remembers conversations for a short time only, is left alone until it has forgotten them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter

from benchmarks.books import Books
from benchmarks.drive import Tally, through
from benchmarks.measure import Row, Spread, Target
from benchmarks.messages import SMALL, Ping, Pong, text_for
from benchmarks.size import Size
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.memory import ContextBuffer
from xml_pipeline.message_bus.todo_registry import TodoRegistry

__all__ = ["Left", "forget", "measure", "rows", "run"]

_MEGABYTE = 1_048_576
_BATCH = 1_000
_IDLE_TTL = 1.0
"""Seconds for which the second pump remembers a conversation."""
_PROMPT = 2.0
"""Seconds within which it must have forgotten the last one: the time above, and the same again for a busy machine."""
_PATIENCE = 30.0
"""Seconds after which something that should be gone is said to have stayed."""


@dataclass(frozen=True, slots=True)
class Left:
    """What is there after so many conversations. ``rss`` is in bytes, the others are counts."""

    conversations: int
    rss: int
    frames: int
    open_conversations: int
    retained: int
    watchers: int
    listeners: int
    slots: int
    history_bytes: int


def resident_bytes() -> int:
    """The resident memory of this process.

    Raises:
        RuntimeError: the system does not tell, and psutil, which knows how to ask, is not installed.
    """
    with suppress(OSError):
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    try:
        psutil = import_module("psutil")  # part of the extra "bench"
    except ImportError:
        raise RuntimeError("on this system the memory benchmark needs psutil: pip install psutil") from None
    return int(psutil.Process().memory_info().rss)


class _Organism:
    """The pair of listeners, with things that must not outlive their conversation."""

    def __init__(self, pump: StreamPump) -> None:
        self.tally = Tally()
        self._pump = pump
        self._todos = pump.runtime.get(TodoRegistry)
        self._watchers: deque[str] = deque(maxlen=_BATCH)
        self._text = text_for(SMALL)
        pump.register("a", self._call, Ping)
        pump.register("b", self._end, Pong)

    async def _call(self, ping: Ping, metadata: HandlerMetadata) -> HandlerResponse:
        if ping.n % 10 == 0:
            self._watchers.append(self._todos.register(metadata.conversation_id, "a", "Never"))
        if ping.n % _BATCH == 0:
            self._pump.register_generic_listener(f"guest-{metadata.conversation_id}", self._end)
        return HandlerResponse(Pong(ping.text, ping.n), "b")

    async def _end(self, pong: Pong, metadata: HandlerMetadata) -> None:
        if pong.n % _BATCH == 0:
            self._pump.unregister_listener(f"guest-{metadata.conversation_id}")
        self.tally.mark(pong.n)

    @property
    def watchers(self) -> int:
        """How many of the latest watchers are still there."""
        return sum(self._todos.get(watcher) is not None for watcher in self._watchers)

    async def run(self, conversations: int) -> None:
        """Run conversations, in batches, and check each batch."""
        while conversations:
            batch = min(conversations, _BATCH)
            books = Books(self._pump)
            await through(self._send, self.tally, self._pump.wait_idle, batch, 20)
            books.check({"forwarded": batch, "handled": batch})
            conversations -= batch

    async def _send(self, number: int) -> None:
        await self._pump.inject("a", Ping(self._text, number))


class _Watch:
    """Looks at what is left of a pump's conversations; the pump's own, which it began with, does not count."""

    def __init__(self, pump: StreamPump, organism: _Organism) -> None:
        self._pump = pump
        self._organism = organism
        self._history = pump.runtime.get(ContextBuffer)
        self._own_slots = 0
        self._own_slots = self.look(0).slots

    def look(self, conversations: int) -> Left:
        """Now."""
        now, history = self._pump.statistics(), self._history.get_stats()
        return Left(
            conversations,
            resident_bytes(),
            now.open_frames,
            now.open_conversations,
            now.retained_conversations,
            self._organism.watchers,
            len(self._pump.listeners),
            history["total_slots"] - self._own_slots,
            history["total_bytes"],
        )


async def measure(numbers: Sequence[int]) -> list[Left]:
    """What is left before the first conversation, and after so many of them."""
    pump = StreamPump()
    organism = _Organism(pump)
    async with pump:
        await pump.wait_idle()
        watch = _Watch(pump, organism)
        found = [watch.look(0)]
        for number in numbers:
            await organism.run(number - found[-1].conversations)
            found.append(watch.look(number))
    return found


async def forget(conversations: int) -> tuple[float, Left]:
    """Seconds from the last conversation's end until nothing of any is remembered, and what is left then."""
    pump = StreamPump(thread_idle_ttl=_IDLE_TTL)
    organism = _Organism(pump)
    async with pump:
        await pump.wait_idle()
        watch = _Watch(pump, organism)
        await organism.run(conversations)
        ended = perf_counter()
        while (left := watch.look(conversations)).retained or left.slots:
            if perf_counter() - ended > _PATIENCE:
                break
            await asyncio.sleep(0.01)
        return perf_counter() - ended, left


def rows(size: Size) -> list[Row]:
    """Measure in a process of its own."""
    numbers = [str(number) for number in size.memory]
    command = [sys.executable, "-m", "benchmarks.memory", str(size.retention), *numbers]
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=root, env=environment)
    found = json.loads(done.stdout)
    return _rows([Left(**each) for each in found["left"]], found["seconds"], Left(**found["forgotten"]))


def _rows(found: list[Left], seconds: float, forgotten: Left) -> list[Row]:
    before, first, last = found[0], found[1], found[-1]
    table = [_row(f"RSS after {each.conversations:,} conversations", each.rss / _MEGABYTE, "MB") for each in found]
    growth = (last.rss - first.rss) / _MEGABYTE
    span = f"from {first.conversations:,} to {last.conversations:,} conversations"
    table.append(_row(f"growth {span}", growth, "MB", Target(10.0)))
    stayed = {
        "open frames": last.frames - before.frames,
        "open conversations": last.open_conversations - before.open_conversations,
        "todo watchers": last.watchers - before.watchers,
        "listeners made in conversations": last.listeners - before.listeners,
    }
    table += [_row(f"{name} left", count, "", Target(0)) for name, count in stayed.items()]
    table.append(
        _row(
            "remembered conversations",
            last.retained,
            "",
            Target(StreamPump().config.max_threads),
            f"{last.slots:,} slots, {last.history_bytes:,} bytes",
        )
    )
    kept = f"remembered for {_IDLE_TTL:g} s: gone after"
    table.append(_row(kept, seconds, "s", Target(_PROMPT), f"of {forgotten.conversations:,} conversations"))
    still = forgotten.slots + forgotten.retained
    table.append(_row("slots of history, and conversations, left then", still, "", Target(0)))
    return table


def _row(case: str, value: float, unit: str, target: Target | None = None, note: str = "") -> Row:
    return Row("memory", case, Spread(value, value, value), unit, target=target, note=note)


def run(arguments: list[str]) -> str:
    """What the process prints: JSON. The arguments are the number of conversations to forget, then `measure`'s."""
    retention, *numbers = map(int, arguments)
    left = asyncio.run(measure(numbers))
    seconds, forgotten = asyncio.run(forget(retention))
    return json.dumps({"left": [asdict(each) for each in left], "seconds": seconds, "forgotten": asdict(forgotten)})


if __name__ == "__main__":
    print(run(sys.argv[1:]))
