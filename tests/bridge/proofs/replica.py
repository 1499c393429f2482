"""The listeners of an organism with several nodes. What is begun is written down, with the node that it runs on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

from xml_pipeline import HandlerMetadata, HandlerResponse


@dataclass
class Job:
    number: int
    seconds: float


@dataclass
class Done:
    number: int
    node: str


def _begun(job: Job) -> str:
    node = os.environ["BRIDGE_PROOF_NODE"]
    # A line of one write, at the end of the file: whole, also if the node is killed the next moment.
    with open(os.environ["BRIDGE_PROOF_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{job.number} {node}\n")
    return node


async def work(job: Job, metadata: HandlerMetadata) -> HandlerResponse:
    """Takes a moment."""
    node = _begun(job)
    await asyncio.sleep(job.seconds)
    return HandlerResponse.respond(Done(job.number, node))


async def parts(job: Job, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
    """Takes a moment, and says so on the way."""
    node = _begun(job)
    for _ in range(3):
        await asyncio.sleep(job.seconds / 3)
        yield HandlerResponse.respond(Done(job.number, node))
