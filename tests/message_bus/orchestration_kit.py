"""What the tests of joins, sequences and buffers share: payloads, handlers, and a look at what is left of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from lxml import etree

from third_party.xmlable import codec_of
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.message_bus.join import Joins
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.primitives.buffer import BufferRegistry
from xml_pipeline.primitives.handover import Handovers
from xml_pipeline.primitives.sequence import SequenceRegistry
from xml_pipeline.strict_xml import parse_strict

from .helpers import PATIENCE, Audit, audited


@dataclass
class Number:
    n: int


@dataclass
class Sum:
    n: int


@dataclass
class Word:
    text: str = ""


@dataclass
class Told:
    """What an agent of these tests answers: a text."""

    text: str = ""


class Left(NamedTuple):
    """What is there of a pump's work."""

    frames: int
    conversations: int
    joins: int
    sequences: int
    buffers: int
    handovers: int
    limited_calls: int
    running: int
    listeners: tuple[str, ...]


def left(pump: StreamPump) -> Left:
    now, runtime = pump.statistics(), pump.runtime
    return Left(
        now.open_frames,
        now.open_conversations,
        len(runtime.get(Joins)),
        len(runtime.get(SequenceRegistry)),
        len(runtime.get(BufferRegistry)),
        len(runtime.get(Handovers)),
        pump.engine.expiries.open_calls,
        now.running,
        tuple(pump.listeners),
    )


@asynccontextmanager
async def tidy(pump: StreamPump) -> AsyncIterator[Audit]:
    """Run a pump; at the end of the block it becomes idle by itself, its books balance, and nothing is left."""
    async with asyncio.timeout(3 * PATIENCE), audited(pump) as audit:
        await audit.idle()
        before = left(pump)
        yield audit
        await audit.idle()
        while pump.statistics().running:  # noqa: ASYNC110, handlers that were cancelled end in their own time
            await asyncio.sleep(0)
        after = left(pump)
        assert after._replace(listeners=()) == before._replace(listeners=())


@asynccontextmanager
async def tidy_in_numbers(pump: StreamPump) -> AsyncIterator[None]:
    """`tidy` for more messages than subscribers' queues hold events of."""
    async with asyncio.timeout(3 * PATIENCE), pump:
        await pump.wait_idle()
        before = left(pump)
        yield
        await pump.wait_idle()
        now = pump.statistics()
        assert now.accepted == sum(now.outcomes.values())
        assert left(pump) == before


def xml_of(*payloads: Any) -> str:
    """Payloads as the XML text that a sequence or buffer is given."""
    return "\n".join(codec_of(type(payload)).encode(payload) for payload in payloads)


def read(cls: type, text: str) -> Any:
    """What a sequence or buffer answers, as an object."""
    return codec_of(cls).decode(parse_strict(text.encode()))


def items_of(results: str) -> list[tuple[bool, etree._Element | str]]:
    """The items of a buffer's results: whether it was answered, and with what."""
    root = parse_strict(results.encode())
    assert root.tag == "results"
    assert [item.get("index") for item in root] == [str(index) for index in range(len(root))]
    return [(item.get("success") == "true", item[0] if len(item) else item.text or "") for item in root]


async def increment(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(Number(payload.n + 1))


async def double(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(Number(2 * payload.n))


async def fail(payload: Any, metadata: HandlerMetadata) -> None:
    raise RuntimeError("the secret of the handler")


async def hang(payload: Any, metadata: HandlerMetadata) -> None:
    await asyncio.Event().wait()


async def nothing(payload: Any, metadata: HandlerMetadata) -> None:
    return None


class Asker:
    """An agent that sends what it is made with to ``to``, and answers with what comes back, as text.

    Args:
        payload: what it sends.
        to: whom.
    """

    def __init__(self, payload: Any, to: str) -> None:
        self.payload = payload
        self.to = to
        self.got: list[Any] = []

    async def __call__(self, payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(payload, Word):
            return HandlerResponse(self.payload, self.to)
        self.got.append(payload)
        return HandlerResponse.respond(Told(payload.code if isinstance(payload, SystemError) else repr(payload)))
