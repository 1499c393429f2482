"""What the tests of the mesh share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import BaseModel, Field

from xml_pipeline.mesh import AgentMesh, AgentSpec, CatalogEntry


class Ask(BaseModel):
    message: str
    n: int = Field(default=1, ge=1)


class Told(BaseModel):
    reply: str


class Chunk(BaseModel):
    delta: str


async def until(mesh: AgentMesh, holds: Callable[[dict[str, CatalogEntry]], bool]) -> None:
    """Wait until the catalog, as this mesh object sees it, is as described."""
    catalog = mesh.parts.catalog
    async with contextlib.aclosing(catalog.changes()) as changes:
        if holds(catalog.entries):
            return
        async for _ in changes:
            if holds(catalog.entries):
                return


async def until_names(mesh: AgentMesh, *names: str) -> None:
    """Wait until exactly these agents are in the catalog."""
    await until(mesh, lambda entries: set(entries) == set(names))


async def spin(holds: Callable[[], object]) -> None:
    """Let the loop run until a condition holds that nothing announces; the test's own timeout is its end."""
    while not holds():  # noqa: ASYNC110  # there is nothing to await
        await asyncio.sleep(0)


def echo_on(mesh: AgentMesh, name: str = "demo.echo", **spec: Any) -> None:
    @mesh.agent(AgentSpec(name=name, description="Echoes", **spec))
    async def echo(ask: Ask) -> Told:
        return Told(reply=ask.message * ask.n)


def chunks_on(mesh: AgentMesh, name: str = "demo.chunks", **spec: Any) -> None:
    @mesh.agent(AgentSpec(name=name, description="Streams", **spec))
    async def chunks(ask: Ask) -> AsyncIterator[Chunk]:
        for number in range(ask.n):
            yield Chunk(delta=f"{ask.message}{number}")


class Gate:
    """A handler that says when it has begun and goes on when it is told."""

    def __init__(self) -> None:
        self.begun = asyncio.Queue[Any]()
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def pass_through(self, value: Any) -> None:
        self.begun.put_nowait(value)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def gated_on(mesh: AgentMesh, name: str = "demo.gated", **spec: Any) -> Gate:
    gate = Gate()

    @mesh.agent(AgentSpec(name=name, description="Waits", **spec))
    async def gated(value: int) -> int:
        await gate.pass_through(value)
        return value

    return gate


class PlainClient(Client):
    """A plain NATS client, whose `flush` would overtake what still waits to be written; its second one does not."""

    async def flush(self, timeout: int = 10) -> None:
        await super().flush(timeout)
        await super().flush(timeout)


@contextlib.asynccontextmanager
async def plain_peer(url: str) -> AsyncIterator[Client]:
    """A plain NATS client, as peers in other languages are."""
    client = PlainClient()
    await client.connect(url)
    try:
        yield client
    finally:
        await client.close()


class Tap:
    """Everything that comes on a subject."""

    def __init__(self) -> None:
        self.messages = asyncio.Queue[Msg]()

    @classmethod
    async def on(cls, client: Client, subject: str) -> Tap:
        tap = cls()

        async def take(message: Msg) -> None:
            tap.messages.put_nowait(message)

        await client.subscribe(subject, cb=take)
        await client.flush()
        return tap

    async def next(self) -> Msg:
        return await asyncio.wait_for(self.messages.get(), 10)
