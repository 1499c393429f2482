"""A listener that takes orders from a durable subject, and who places them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client

from tests.bridge.kit import organism
from xml_pipeline import HandlerMetadata
from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["Clerk", "Order", "order", "taking", "until_none_is_pending"]


@dataclass
class Order:
    number: int


class Clerk:
    """Takes orders; has done those that it may, once it may go on."""

    def __init__(self) -> None:
        self.taken = asyncio.Queue[int]()
        self.done: list[int] = []
        self.go = asyncio.Event()
        self.fails: set[int] = set()

    async def take(self, order: Order, metadata: HandlerMetadata) -> None:
        self.taken.put_nowait(order.number)
        await self.go.wait()
        if order.number in self.fails:
            raise ValueError("no")
        self.done.append(order.number)


def taking(url: str, clerk: Clerk, name: str = "org", **entry: Any) -> StreamPump:
    """An organism of this name that gives the clerk what comes on a durable subject."""
    said = {"subscribe": "orders.new", "to": "clerk", "payload_class": Order, "durable": "clerk", **entry}
    pump = organism(url, name, subjects=[said])
    pump.register("clerk", clerk.take, Order)
    return pump


async def order(peer: Client, number: int, subject: str = "orders.new") -> str:
    """Place an order, and say in which stream it is kept."""
    answer = json.loads((await peer.request(subject, json.dumps({"number": number}).encode())).data)
    return str(answer["stream"])


async def _pending(peer: Client, stream: str, consumer: str) -> int:
    info = json.loads((await peer.request(f"$JS.API.CONSUMER.INFO.{stream}.{consumer}", b"")).data)
    return int(info["num_pending"] + info["num_ack_pending"])


async def until_none_is_pending(peer: Client, stream: str = "mesh-clerk", consumer: str = "clerk") -> None:
    while await _pending(peer, stream, consumer):  # noqa: ASYNC110  # the server announces nothing
        await asyncio.sleep(0.01)
