"""An organism whose server goes away: its listeners, and its file."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from string import Template

from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.message_bus.message_state import SystemError

__all__ = ["SEEN", "organism"]

_MOMENT = 0.02
"""Seconds that a change or a task takes, so that some are under way whenever the server goes."""

SEEN: dict[str, Counter[int]] = {"change": Counter(), "task": Counter()}
"""How often each change of a key, and each message of the durable subject, was handled."""


@dataclass
class Turn:
    number: int


@dataclass
class Turned:
    number: int


@dataclass
class Need:
    number: int


@dataclass
class Far:
    number: int


@dataclass
class Change:
    id: int


@dataclass
class Task:
    id: int


@dataclass
class Ping:
    number: int


@dataclass
class Out:
    id: int


async def local(message: Turn | Turned, metadata: HandlerMetadata) -> HandlerResponse:
    """Asks its neighbour."""
    if isinstance(message, Turn):
        return HandlerResponse(message, to="neighbour")
    return HandlerResponse.respond(message)


async def neighbour(turn: Turn, metadata: HandlerMetadata) -> HandlerResponse:
    """Answers."""
    return HandlerResponse.respond(Turned(turn.number))


async def asker(message: Need | Far | SystemError, metadata: HandlerMetadata) -> HandlerResponse:
    """Asks an agent of the mesh, and passes on how that ended."""
    if isinstance(message, Need):
        return HandlerResponse(message, to="far")
    return HandlerResponse.respond(message)


async def changed(change: Change, metadata: HandlerMetadata) -> None:
    """Handles the change of a key."""
    await asyncio.sleep(_MOMENT)
    SEEN["change"][change.id] += 1


async def done(task: Task, metadata: HandlerMetadata) -> None:
    """Handles a message of the durable subject."""
    await asyncio.sleep(_MOMENT)
    SEEN["task"][task.id] += 1


async def ping(message: Ping, metadata: HandlerMetadata) -> HandlerResponse:
    """Is exposed."""
    return HandlerResponse.respond(Turned(message.number))


async def herald(turn: Turn, metadata: HandlerMetadata) -> list[HandlerResponse]:
    """Publishes something, and answers."""
    return [HandlerResponse(Out(turn.number), to="news"), HandlerResponse.respond(Turned(turn.number))]


_ORGANISM = Template("""\
organism: {name: home}
max_concurrent_handlers: 100
timeout: $patience
listeners:
- {name: neighbour, description: d, payload_class: $here.Turn, handler: $here.neighbour}
- {name: changed, description: d, payload_class: $here.Change, handler: $here.changed}
- {name: done, description: d, payload_class: $here.Task, handler: $here.done}
- {name: herald, description: d, payload_class: $here.Turn, handler: $here.herald}
- {name: ping, description: d, payload_class: $here.Ping, handler: $here.ping}
- name: local
  description: d
  agent: true
  payload_class: [$here.Turn, $here.Turned]
  handler: $here.local
  peers: [neighbour]
  concurrency: 100
- name: asker
  description: d
  agent: true
  payload_class: [$here.Need, $here.Far]
  handler: $here.asker
  peers: [far]
  concurrency: 100
mesh:
  events: true
  expose: [{listener: ping}]
  agents:
  - {name: outside.far, as: far, payload_class: $here.Need, output_class: $here.Far, timeout: $patience}
  - {pattern: outside.found, timeout: $patience}
  kv:
  - {watch: "in.{id}", to: changed, payload_class: $here.Change, resume: home}
  - {put: "out.{id}", listener: store, payload_class: $here.Out}
  subjects:
  - {subscribe: "tasks.{id}", to: done, payload_class: $here.Task, durable: home}
  - {publish: "news.{id}", listener: news, payload_class: $here.Out}
""")


def organism(patience: float) -> str:
    """The file.

    Args:
        patience: seconds that a handler, and a call to the mesh, may take.
    """
    return _ORGANISM.substitute(here=__name__, patience=patience)
