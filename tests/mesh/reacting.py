"""Agents with sources, for the tests."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel

from xml_pipeline.mesh import AgentMesh, AgentSpec
from xml_pipeline.mesh.message import Message

__all__ = ["NAME", "Doc", "Seen", "bounce", "handled", "message", "reacting"]

NAME = "demo.reacts"


class Doc(BaseModel):
    id: int


class Seen:
    """What a handler was called with."""

    def __init__(self) -> None:
        self.values = asyncio.Queue[Any]()

    async def next(self) -> Any:
        return await asyncio.wait_for(self.values.get(), 20)

    async def some(self, count: int) -> list[Any]:
        return [await self.next() for _ in range(count)]

    @property
    def is_empty(self) -> bool:
        return self.values.empty()


def reacting(mesh: AgentMesh, kind: Any, *sources: Any, name: str = NAME, **more: Any) -> Seen:
    """An agent that takes a value of this kind, and puts it where the test can see it."""
    seen = Seen()

    async def react(value) -> None:
        seen.values.put_nowait(value)

    react.__annotations__["value"] = kind
    mesh.agent(AgentSpec(name=name, **more), sources=sources)(react)
    return seen


def message(data: bytes, subject: str = "s", headers: dict[str, str] | None = None) -> Message:
    return SimpleNamespace(data=data, subject=subject, headers=headers, reply="")  # type: ignore[return-value]


async def bounce(server) -> None:
    server.kill()
    await server.wait()
    await server.stop()
    await server.start()


def handled(host: AgentMesh, name: str = NAME) -> int:
    return sum(one.handled for one in host.parts.reactions.statistics(name))
