"""Whatever comes to a host: each request is answered, and the next good one works."""

from __future__ import annotations

import asyncio
import json
import random

from nats.errors import Error as NatsError

from tests.mesh.kit import Ask, chunks_on, echo_on
from xml_pipeline.mesh import headers as h

ROUNDS = 1500
BODIES = [
    b"",
    b"null",
    b"{nope",
    b"\xff\xfe\x00",
    b"[" * 3000,
    b"1" * 5000,
    b'{"message": "\\ud800"}',
    b'{"message": 1e400}',
    b'{"message": NaN}',
    b'{"message": {"message": []}}',
    b'{"message": "x", "n": 99999999999999999999}',
    json.dumps({"message": "x", "n": 1}).encode(),
]
VALUES = ["", "true", "error", "accepted", "-1", "9" * 40, "1e9", "a b", "a.>", "*", "x" * 3000, "ä", "0", "5000", "1"]
NAMES = [value for name, value in vars(h).items() if name.isupper() and value.startswith(("X-", "S", "t"))]


def bad_request(chance: random.Random) -> tuple[bytes, dict[str, str]]:
    body = chance.choice(BODIES)
    if chance.random() < 0.3:
        body = bytearray(body + b"x")
        body[chance.randrange(len(body))] = chance.randrange(256)
    return bytes(body), {chance.choice(NAMES): chance.choice(VALUES) for _ in range(chance.randrange(5))}


async def test_hostile_requests_are_answered_and_good_ones_still_work(host, mesh, peer):
    echo_on(host)
    chunks_on(host)
    chance = random.Random(20260102)
    async with host:

        async def attack(name: str) -> bool:
            body, headers = bad_request(chance)
            is_stream = headers.get(h.STREAM) == "true" and headers.get(h.REQUEST_ID, "") in ("true", "error", "-1")
            headers = headers if not is_stream else {**headers, h.STREAM: "no"}  # those are answered elsewhere
            if name == "demo.chunks" and headers.get(h.STREAM) == "true":
                headers.pop(h.REQUEST_ID, None)
            if headers.get(h.STREAM) == "true":
                headers[h.REQUEST_ID] = "a b"
            headers.pop(h.ACCEPT, None)
            reply = await peer.request(f"mesh.agent.{name}", body, timeout=20, headers=headers)
            found = json.loads(reply.data)
            return reply.headers[h.STATUS] in ("ok", "error") and isinstance(found, dict)

        for _ in range(ROUNDS // 50):
            answered = await asyncio.gather(*(attack(chance.choice(["demo.echo", "demo.chunks"])) for _ in range(50)))
            assert all(answered)
        assert await mesh.call("demo.echo", Ask(message="good")) == {"reply": "good"}
        assert [chunk async for chunk in mesh.stream("demo.chunks", Ask(message="m"))] == [{"delta": "m0"}]
        service = host.parts.host.service("demo.echo")
        assert (service.running, service.waiting) == (0, 0)


async def test_what_nobody_awaits_does_no_harm(host, mesh, peer):
    echo_on(host)
    async with host:
        chance = random.Random(7)
        for number in range(ROUNDS):
            body, headers = bad_request(chance)
            subject = chance.choice(
                ["mesh.agent.demo.echo", "mesh.cancel.x", f"mesh.cancel.{number}", mesh.parts.replies._prefix + "1"]
            )
            try:
                await peer.publish(subject, body, headers=headers)
            except NatsError:
                continue
        await peer.flush()
        assert await mesh.call("demo.echo", Ask(message="good")) == {"reply": "good"}


async def test_accepting_goes_only_to_inboxes(host, peer):
    """A caller could otherwise have a host publish wherever the host may."""
    echo_on(host)
    seen = []

    async def see(message):
        seen.append(message.subject)

    async with host:
        await peer.subscribe("victim.>", cb=see)
        for accept in ("victim.x", "victim.>", "$KV.mesh-catalog.catalog"):
            headers = {h.REQUEST_ID: "r", h.ACCEPT: accept}
            await peer.request("mesh.agent.demo.echo", b'{"message": "x"}', timeout=10, headers=headers)
        await peer.flush()
        assert seen == []
