"""What the tests of running pumps share: payloads, small handlers, and ways to wait for things instead of for time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from xml_pipeline.message_bus.message_state import HandlerResponse
from xml_pipeline.message_bus.stream_pump import StreamPump

GUARD = 10.0
"""Seconds after which a test that hangs is ended. Never a measure of anything."""


@dataclass
class Ask:
    text: str = ""


@dataclass
class Reply:
    text: str = ""


@dataclass
class Other:
    number: int = 0


async def echo(payload, metadata):
    return HandlerResponse.respond(Reply(payload.text))


async def silent(payload, metadata):
    return None


class Gate:
    """A handler that tells when it begins, waits to be let go, and counts how many of it run at once."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self.running = 0
        self.most = 0
        self._open = asyncio.Event()
        self._changed = asyncio.Event()

    async def __call__(self, payload: Ask, metadata: Any) -> HandlerResponse | None:
        self.begun.append(payload.text)
        self.running += 1
        self.most = max(self.most, self.running)
        self._changed.set()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(payload.text)
            raise
        finally:
            self.running -= 1
            self._changed.set()
        self.ended.append(payload.text)
        return HandlerResponse.respond(Reply(payload.text)) if self.answer else None

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def until_begun(self, count: int) -> None:
        await self.until(lambda: len(self.begun) >= count)

    def open(self) -> None:
        self._open.set()


async def quiesce(turns: int = 50) -> None:
    """Let everything that can run now run, to see what does *not* happen."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Let others run until something holds that no future stands for, such as a count in the statistics."""
    async with guard():
        while not condition():  # noqa: ASYNC110, it waits for a turn of the loop, not for a time
            await asyncio.sleep(0)


@asynccontextmanager
async def guard(seconds: float = GUARD):
    """End a test that hangs; never a measure of anything."""
    async with asyncio.timeout(seconds):
        yield


@asynccontextmanager
async def running(pump: StreamPump, shutdown: float = 5.0):
    """A pump that runs, and is stopped at the end; its boot message has been handled."""
    async with guard():
        await pump.__aenter__()
        try:
            await pump.wait_idle()
            yield pump
        finally:
            await pump.shutdown(shutdown)
