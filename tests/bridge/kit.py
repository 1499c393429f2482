"""What the tests of the bridge share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.bridge import Bridge
from xml_pipeline.config import OrganismConfig
from xml_pipeline.config.mesh import MeshConfig
from xml_pipeline.message_bus.stream_pump import StreamPump


@dataclass
class Ask:
    message: str
    n: int = 1


@dataclass
class Told:
    reply: str


async def echo(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
    """Says it again."""
    return HandlerResponse.respond(Told(ask.message * ask.n))


async def count(ask: Ask, metadata: HandlerMetadata):
    """Says it in parts."""
    for number in range(ask.n):
        yield HandlerResponse.respond(Told(f"{ask.message}{number}"))


def organism(url: str, name: str = "org", *, limits: dict[str, Any] | None = None, **mesh: Any) -> StreamPump:
    """A pump on the mesh, with nothing registered yet, and not started.

    Args:
        url: of the server.
        name: of the organism.
        limits: of the pump.
        **mesh: the entries of the ``mesh`` section.
    """
    pump = StreamPump(OrganismConfig(name=name, mesh=MeshConfig(url=url, **mesh), **(limits or {})))
    pump.attach(Bridge(pump))
    return pump
