"""The one timer for all calls with a time limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from xml_pipeline.errors import DeadlineExceeded, PipelineError
from xml_pipeline.message_bus.conversation import FrameState
from xml_pipeline.message_bus.expiries import Expiries
from xml_pipeline.message_bus.thread_registry import Frame, ThreadRegistry

from .pump_kit import guard


class Scene:
    """Frames, and which of them were ended, in order."""

    def __init__(self) -> None:
        self.registry = ThreadRegistry()
        self.expiries = Expiries(self._expire)
        self.ended: list[Frame] = []
        self.errors: list[PipelineError] = []
        self._changed = asyncio.Event()
        self.raises: set[Frame] = set()

    def _expire(self, frame: Frame, error: PipelineError) -> None:
        self.registry.close(frame, FrameState.CANCELLED)
        self.ended.append(frame)
        self.errors.append(error)
        self._changed.set()
        if frame in self.raises:
            raise RuntimeError("on purpose")

    def frame(self, seconds: float) -> Frame:
        frame = self.registry.open_root(self.registry.begin("external"), "tool")
        self.expiries.limit(frame, asyncio.get_running_loop().time() + seconds)
        return frame

    async def until_ended(self, count: int) -> None:
        async with guard():
            while len(self.ended) < count:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def scene() -> Any:
    scene = Scene()
    yield scene
    scene.expiries.close()


async def test_calls_end_in_the_order_of_their_limits(scene: Scene) -> None:
    frames = {seconds: scene.frame(seconds) for seconds in (0.03, 0.01, 0.05, 0.02, 0.04)}
    await scene.until_ended(5)
    assert scene.ended == [frames[seconds] for seconds in sorted(frames)]
    assert all(isinstance(error, DeadlineExceeded) and error.target == "tool" for error in scene.errors)
    assert scene.expiries.open_calls == len(scene.expiries) == 0


async def test_a_limit_in_the_past_is_now(scene: Scene) -> None:
    frame = scene.frame(-1.0)
    assert scene.ended == []  # never while it is being made
    await scene.until_ended(1)
    assert scene.ended == [frame]


async def test_a_call_that_has_ended_is_left_alone(scene: Scene) -> None:
    early, late = scene.frame(0.01), scene.frame(0.02)
    scene.registry.close(early, FrameState.ENDED)
    assert scene.expiries.open_calls == 1
    await scene.until_ended(1)
    assert scene.ended == [late]
    assert early.expiry is None


async def test_an_earlier_limit_that_comes_later_is_kept(scene: Scene) -> None:
    scene.frame(3_600.0)
    soon = scene.frame(0.01)
    await scene.until_ended(1)
    assert scene.ended == [soon]
    assert scene.expiries.open_calls == 1


async def test_calls_that_begin_while_others_end_have_their_time(scene: Scene) -> None:
    scene.frame(0.01)
    await scene.until_ended(1)
    second = scene.frame(0.01)
    await scene.until_ended(2)
    assert scene.ended[1] is second


async def test_one_that_cannot_be_ended_does_not_keep_the_others(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    at = loop.time() + 0.01
    frames = [scene.frame(0.0) for _ in range(3)]
    for frame in frames:
        scene.expiries.limit(frame, at)
    scene.raises = {frames[0], frames[1]}
    with caplog.at_level(logging.ERROR):
        await scene.until_ended(3)
    assert {*scene.ended} == {*frames}
    assert [record.getMessage() for record in caplog.records] == ["cancelling the call of 'tool' failed"] * 2


async def test_calls_that_have_ended_are_forgotten(scene: Scene) -> None:
    """However many calls there are, the books are no larger than what is open, but for a few."""
    kept = [scene.frame(3_600.0) for _ in range(100)]
    most = 0
    for _ in range(5_000):
        scene.registry.close(scene.frame(3_600.0), FrameState.ENDED)
        most = max(most, len(scene.expiries))
    assert most <= 2 * len(kept) + 70
    assert scene.expiries.open_calls == len(kept)


async def test_closing_stops_the_clock(scene: Scene) -> None:
    scene.frame(0.0)
    scene.expiries.close()
    for _ in range(20):
        await asyncio.sleep(0)
    assert scene.ended == []
    assert len(scene.expiries) == 0


def test_closing_needs_no_loop() -> None:
    """A pump may be closed that never ran."""
    Expiries(lambda frame, error: None).close()


def test_there_is_one_timer_at_a_time() -> None:
    """Counted by a loop of its own."""
    with asyncio.Runner(loop_factory=_CountingLoop) as runner:
        most = runner.run(_many_calls())
    assert most == 1


class _CountingLoop(asyncio.SelectorEventLoop):
    """Knows the timers of `Expiries` that have neither fired nor been cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[asyncio.TimerHandle] = []

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        if getattr(callback, "__self__", None).__class__ is Expiries:
            self.timers.append(handle)
        return handle

    def live(self) -> Iterator[asyncio.TimerHandle]:
        return (handle for handle in self.timers if not handle.cancelled() and handle.when() > self.time())


async def _many_calls() -> int:
    scene, loop, most = Scene(), asyncio.get_running_loop(), 0
    assert isinstance(loop, _CountingLoop)
    for number in range(200):
        scene.frame(3_600.0 - number)
        most = max(most, sum(1 for _ in loop.live()))
    scene.expiries.close()
    assert not list(loop.live())
    return most
