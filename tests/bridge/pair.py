"""Two organisms on one server: a shop that calls, and a bank that is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.bridge.kit import Ask, Told, organism
from tests.mesh.kit import plain_peer, until
from xml_pipeline.crypto import Identity
from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["SHOP_AGENTS", "Wire", "bank_of", "keys_for", "met", "shop_of", "trust_in", "wiretapped"]

SHOP_AGENTS: list[dict[str, Any]] = [
    {"name": name, "payload_class": Ask, "output_class": Told, "timeout": 20.0}
    for name in ("bank.clerk", "bank.teller")
]


def keys_for(tmp_path: Any, *names: str) -> dict[str, Identity]:
    """An identity each, with a file."""
    found = {}
    for name in names:
        identity = Identity.generate()
        identity.save(tmp_path / f"{name}.key")
        found[name] = Identity.load(tmp_path / f"{name}.key")
    return found


def trust_in(organism: str, identity: Identity, policy: str = "require") -> dict[str, str]:
    """An entry of ``mesh.trust``."""
    return {"organism": organism, "key": identity.get_public_key_base64(), "policy": policy}


def bank_of(url: str, identity: Identity | None = None, **mesh: Any) -> StreamPump:
    """The organism that is called; its listeners have still to be registered."""
    mesh.setdefault("expose", [{"listener": "clerk"}])
    return organism(url, "bank", limits=_signed_by(identity), **mesh)


def shop_of(url: str, identity: Identity | None = None, **mesh: Any) -> StreamPump:
    """The organism that calls."""
    mesh.setdefault("agents", SHOP_AGENTS)
    return organism(url, "shop", limits=_signed_by(identity), **mesh)


def _signed_by(identity: Identity | None) -> dict[str, Any]:
    return {} if identity is None else {"identity_path": identity.path}


async def met(pump: StreamPump, *names: str) -> None:
    """Wait until a pump knows these agents."""
    await until(pump.attachments[0].mesh, lambda entries: set(names) <= set(entries))


class Wire:
    """All requests to an agent, on their way."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.messages: asyncio.Queue[Msg] = asyncio.Queue()

    async def next(self) -> Msg:
        """The next request."""
        return await self.messages.get()

    async def send(self, body: bytes, agent: str = "bank.clerk", **headers: str) -> Msg:
        """Send an envelope as anybody could; returns what comes back."""
        named = {"X-Mesh-" + name.replace("_", "-").title(): value for name, value in headers.items()}
        all_headers = {"X-Mesh-Content-Type": "application/xml", **named}
        return await self.client.request(f"mesh.agent.{agent}", body, timeout=20, headers=all_headers)


@asynccontextmanager
async def wiretapped(url: str, subject: str = "mesh.agent.*.*") -> AsyncGenerator[Wire, None]:
    """Listen in on a server."""
    async with plain_peer(url) as client:
        wire = Wire(client)

        async def heard(message: Msg) -> None:
            wire.messages.put_nowait(message)

        await client.subscribe(subject, cb=heard)
        await client.flush()
        yield wire
