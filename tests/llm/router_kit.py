"""What the router's tests need: time that they turn themselves, and backends that do as they are told."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from xml_pipeline.llm.backend import ModelBackend
from xml_pipeline.llm.clock import Clock
from xml_pipeline.llm.request import LLMChunk, LLMRequest, LLMResponse
from xml_pipeline.llm.router import LLMRouter

__all__ = [
    "HELLO",
    "GatedBackend",
    "ManualClock",
    "StubBackend",
    "answer",
    "drive",
    "make_test_router",
    "settle",
]

T = TypeVar("T")

HELLO = [{"role": "user", "content": "Hello"}]


class ManualTimer:
    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualClock(Clock):
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._timers: list[tuple[float, int, ManualTimer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(self.now + delay, callback)
        heapq.heappush(self._timers, (timer.when, next(self._numbers), timer))
        return timer

    async def sleep(self, delay: float) -> None:
        self.slept.append(delay)
        future = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: future.done() or future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()

    @property
    def next_timer(self) -> float | None:
        while self._timers and self._timers[0][2].is_cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due on the way happen."""
        end = self.now + seconds
        while (due := self.next_timer) is not None and due <= end:
            self.now = max(self.now, due)
            heapq.heappop(self._timers)[2].callback()
        self.now = end


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(100):
        await asyncio.sleep(0)


async def drive(clock: ManualClock, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; time jumps whenever nothing else can happen."""
    task = asyncio.create_task(work)
    try:
        while True:
            await settle()
            if task.done():
                return task.result()
            due = clock.next_timer
            assert due is not None, "nothing will ever happen"
            clock.advance(due - clock.now)
    finally:
        task.cancel()


def answer(text: str = "Hi", prompt: int = 10, completion: int = 5) -> LLMResponse:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return LLMResponse(text, "m", usage, "stop")


class StubBackend(ModelBackend):
    """Does what it is told, call by call; the last of it again and again."""

    def __init__(self, *steps: LLMResponse | BaseException, **options: Any) -> None:
        super().__init__("stub", **{"rate_limit_tpm": 1_000_000, **options})
        self.steps = list(steps) or [answer()]
        self.calls = 0
        self.closed = 0

    async def complete(self, request: LLMRequest) -> LLMResponse:
        step = self.steps[min(self.calls, len(self.steps) - 1)]
        self.calls += 1
        if isinstance(step, BaseException):
            raise step
        return step

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]:
        response = await self.complete(request)
        for word in response.content.split():
            yield LLMChunk(word)
        yield LLMChunk(response=response)

    async def close(self) -> None:
        self.closed += 1


class GatedBackend(StubBackend):
    """Answers when the gate is opened."""

    def __init__(self, *steps: LLMResponse | BaseException, **options: Any) -> None:
        super().__init__(*steps, **options)
        self.gate = asyncio.Event()
        self.running = 0
        self.most = 0
        self.cancelled = 0
        self.running_when_closed = -1

    async def close(self) -> None:
        self.running_when_closed = self.running
        await super().close()

    async def complete(self, request: LLMRequest) -> LLMResponse:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return await super().complete(request)


def make_test_router(clock: Clock, *backends: Any, **options: Any) -> LLMRouter:
    """A router whose delays are not spread."""
    return LLMRouter(backends, clock=clock, random=lambda: 0.5, **options)


async def collect(chunks: AsyncIterator[T]) -> list[T]:
    return [chunk async for chunk in chunks]


async def outcomes(*work: Awaitable[T]) -> list[T | BaseException]:
    return await asyncio.gather(*work, return_exceptions=True)
