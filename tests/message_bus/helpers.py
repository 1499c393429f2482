"""What the tests of the running pump share: payloads, handlers that remember, and an audit of every message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.message_bus.events import OutcomeEvent, PumpEvent, ThreadEvent

PATIENCE = 8.0
"""Seconds after which a test gives up waiting. Nothing is supposed to take that long; a busy machine may."""


@dataclass
class Ask:
    text: str = ""


@dataclass
class Reply:
    text: str = ""


@dataclass
class Note:
    text: str = ""


@dataclass
class Count:
    number: int


class Recorder:
    """A handler that keeps what it is given, and returns what ``decide`` says, or nothing."""

    def __init__(self, decide: Callable[[Any, HandlerMetadata], Any] | None = None) -> None:
        self.seen: list[tuple[Any, HandlerMetadata]] = []
        self._decide = decide
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    async def __call__(self, payload: Any, metadata: HandlerMetadata) -> Any:
        self.seen.append((payload, metadata))
        for count, waiter in self._waiters:
            if len(self.seen) >= count and not waiter.done():
                waiter.set_result(None)
        return None if self._decide is None else self._decide(payload, metadata)

    async def called(self, times: int = 1) -> None:
        """Wait until it has been called so often."""
        if len(self.seen) < times:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((times, waiter))
            async with asyncio.timeout(PATIENCE):
                await waiter

    @property
    def payloads(self) -> list[Any]:
        return [payload for payload, _ in self.seen]

    @property
    def metadata(self) -> list[HandlerMetadata]:
        return [metadata for _, metadata in self.seen]


class Gate:
    """A handler that says when it has been entered, and answers once it is opened."""

    def __init__(self, answer: Any = None) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._answer = answer

    async def __call__(self, payload: Any, metadata: HandlerMetadata) -> Any:
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return None if self._answer is None else HandlerResponse.respond(self._answer)


async def reached(event: asyncio.Event) -> None:
    """Wait for an event, for as long as a test may."""
    async with asyncio.timeout(PATIENCE):
        await event.wait()


async def read_all(answers: AsyncIterable[Any], into: list[Any]) -> None:
    """Put every answer of a stream into a list that outlives the stream's error."""
    async for answer in answers:
        into.append(answer)  # noqa: PERF401 - what came before the error must be kept


async def echo(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
    """Answer with the same text."""
    return HandlerResponse.respond(Reply(payload.text))


async def crash(payload: Any, metadata: HandlerMetadata) -> None:
    raise RuntimeError("the secret of the handler")


def calls(to: str, *, payload: type = Ask, tag: str = "", expect_answer: bool = False) -> Recorder:
    """An agent or tool that calls ``to`` with what it is asked, and answers with the text of what comes back."""

    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return HandlerResponse(payload(message.text), to, tag=tag, expect_answer=expect_answer)
        return HandlerResponse.respond(Reply(text_of(message)))

    return Recorder(decide)


def text_of(message: Any) -> str:
    """The text of a payload of these tests, or the code of an error."""
    return str(message.code if hasattr(message, "code") else message.text)


class Audit:
    """All that a pump told, and whether its books balance."""

    def __init__(self, pump: StreamPump) -> None:
        self.pump = pump
        self.events: list[PumpEvent] = []
        self._unbalanced: list[str] = []
        pump.subscribe_events(self._note)

    def _note(self, event: PumpEvent) -> None:
        self.events.append(event)
        now = self.pump.statistics()
        if now.accepted != sum(now.outcomes.values()) + now.in_flight:
            self._unbalanced.append(f"{now} at {event}")

    async def idle(self) -> None:
        """Wait until the pump has nothing to do and all its events have come."""
        async with asyncio.timeout(PATIENCE):
            await self.pump.wait_idle()
        assert await self.pump.engine.events.flush() == 0
        assert self.pump.statistics().in_flight == 0

    def outcomes(self, **wanted: Any) -> list[OutcomeEvent]:
        """The outcomes whose fields are as wanted; those of the pump's own messages left out."""
        return [
            event
            for event in self.events
            if isinstance(event, OutcomeEvent)
            and event.to_id != "system.boot"
            and all(getattr(event, field) == value for field, value in wanted.items())
        ]

    def statuses(self, conversation_id: str) -> list[str]:
        """What became of a conversation, in order."""
        return [e.status for e in self.events if isinstance(e, ThreadEvent) and e.thread_id == conversation_id]

    def check(self) -> None:
        """Every accepted message had exactly one outcome, and nothing is left."""
        now = self.pump.statistics()
        assert not self._unbalanced
        assert now.in_flight == now.queued == now.running == now.waiting == 0
        assert now.accepted == sum(now.outcomes.values())
        ids = [event.message_id for event in self.events if isinstance(event, OutcomeEvent)]
        assert len(ids) == len(set(ids)) == now.accepted
        assert now.open_frames <= 1  # the pump's own
        assert now.open_conversations <= 1


@asynccontextmanager
async def audited(pump: StreamPump, *, drains: bool = True) -> AsyncIterator[Audit]:
    """Run a pump, and balance its books when it has stopped.

    Args:
        pump: not started yet.
        drains: whether everything is done by itself at the end of the block.
    """
    audit = Audit(pump)
    await pump.__aenter__()
    try:
        yield audit
    except BaseException:
        await pump.shutdown(0.0)
        raise
    report = await pump.shutdown(PATIENCE if drains else 0.0)
    if drains:
        assert report.drained, report
    audit.check()
