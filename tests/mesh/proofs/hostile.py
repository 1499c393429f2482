"""Requests that no honest peer sends."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from pydantic import BaseModel, Field

from tests.mesh.kit import until_names
from tests.mesh.proofs.family import family
from tests.mesh.proofs.figures import Figure, count
from tests.mesh.proofs.wire import Wire, wire
from xml_pipeline.mesh import AgentMesh, AgentSpec, EmbeddedServer
from xml_pipeline.mesh import headers as h

__all__ = ["Answers", "Attack", "agents_on", "prove"]

_AGENTS = ("x.echo", "x.chunks", "x.none")
_MOST_MEMORY = 64_000_000
_AT_ONCE = 200
_OUTER = 120.0
_INBOX = "_INBOX.attacker"

_BODIES = [
    b"",
    b"null",
    b"{nope",
    b"\xff\xfe\x00",
    b"[" * 3000,
    b"{" * 100,
    b"1" * 5000,
    b'"' + b"x" * 5000 + b'"',
    b'{"message": "\\ud800"}',
    b'{"message": 1e400}',
    b'{"message": NaN}',
    b'{"message": {"message": []}}',
    b'{"message": "x", "n": 99999999999999999999}',
    b'{"message": "x", "n": -1}',
    b'{"message": "x", "message": "y"}',
    b'{"message": "good"}',
    b'{"message": "good", "n": 3}',
    b"\xef\xbb\xbf{}",
    b'{"__class__": "os.system"}',
    b"<xml/>",
]
_VALUES = [
    "", "true", "TRUE", "error", "ok", "accepted", "-1", "0", "1", "9" * 40, "1e9", "nan", "-inf", "0x10", "٣", "a b",
    "a.>", "*", ">", "x" * 3000, "ä", "\t", "5000", "mesh.agent.x.echo", "_INBOX.*", "_INBOX.x y", "$JS.API.>",
    "$KV.mesh-catalog.catalog", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\x7f", "%s", "../..", "null",
]  # fmt: skip
_NAMES = sorted({value for name, value in vars(h).items() if name.isupper() and len(value) > 3})
_BLOCKS = [
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    b"NATS/9.9\r\n\r\n",
    b"\r\n\r\n",
    b"garbage\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n: no name\r\n\r\n",
    b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
    b"NATS/1.0\r\nX-Mesh-Request-Id\r\n\r\n",
    b"NATS/1.0\r\n" + b"A: b\r\n" * 3000 + b"\r\n",
    b"NATS/1.0\r\n" + b"A" * 60_000 + b": b\r\n\r\n",
    b"NATS/1.0\r\nA: b",
    b"x",
]


class Hostile(BaseModel):
    """What the attacked agents take."""

    message: str
    n: int = Field(default=1, ge=1, le=3)


def agents_on(mesh: AgentMesh) -> None:
    """The agents that are attacked."""

    @mesh.agent(AgentSpec(name="x.echo", max_queue=100_000))
    async def echo(ask: Hostile) -> str:
        return ask.message * ask.n

    @mesh.agent(AgentSpec(name="x.chunks", max_queue=100_000))
    async def chunks(ask: Hostile) -> AsyncIterator[str]:
        for _ in range(ask.n):
            yield ask.message

    @mesh.agent(AgentSpec(name="x.none", max_queue=100_000))
    async def none(ask: Hostile) -> None:
        return None


class Answers:
    """What came back for which request.

    A request is answered in its own inbox, or, if it asks for a stream and has an id for that, on the subject of the
    stream.
    """

    def __init__(self) -> None:
        self.open: dict[str, asyncio.Event] = {}
        self.kinds: Counter[str] = Counter()

    def take(self, subject: str, block: bytes, body: bytes) -> None:
        """A message came."""
        key = subject.rpartition(".")[2]
        waiting = self.open.get(key)
        if waiting is None or (b"X-Mesh-Status: accepted" in block and not body):
            return
        is_stream = subject.startswith("mesh.stream.")
        if is_stream and b"X-Mesh-Stream-End: true" not in block and b"X-Mesh-Status: error" not in block:
            return
        del self.open[key]
        self.kinds[self._kind(block, body)] += 1
        waiting.set()

    @staticmethod
    def _kind(block: bytes, body: bytes) -> str:
        if block.startswith(b"NATS/1.0 503"):
            return "nobody serves it"
        if b"X-Mesh-Status: error" in block:
            return str(json.loads(body)["code"])
        return "ok"


class Attack:
    """A seeded generator of requests.

    Args:
        seed: for the same requests again.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._number = 0

    def request(self) -> tuple[str, bytes, bytes, bytes]:
        """The key of the next request, its subject, its headers, and its body."""
        chance = self._chance
        self._number += 1
        key = f"a{self._number}"
        names = [*_AGENTS] * 8 + ["x.nobody", "x", "x.echo.events"]
        subject = b"mesh.agent." + chance.choice(names).encode()
        body = chance.choice(_BODIES)
        if chance.random() < 0.3:
            body = self._damaged(body + b"x")
        elif chance.random() < 0.005:
            body = chance.randbytes(chance.choice((100_000, 900_000)))
        return key, subject, self._block(key), body

    def _damaged(self, data: bytes) -> bytes:
        found = bytearray(data)
        for _ in range(self._chance.randrange(1, 4)):
            found[self._chance.randrange(len(found))] = self._chance.randrange(256)
        return bytes(found)

    def _block(self, key: str) -> bytes:
        chance = self._chance
        kind = chance.random()
        if kind < 0.1:
            return b""
        if kind < 0.25:
            return chance.choice(_BLOCKS)
        lines = [f"{chance.choice(_NAMES)}: {chance.choice(_VALUES)}" for _ in range(chance.randrange(6))]
        # The only id with which a stream can be had is one that its answers are looked for under.
        lines = [line for line in lines if not line.startswith(f"{h.REQUEST_ID}:")]
        if is_stream := chance.random() < 0.3:
            lines.append(f"{h.STREAM}: true")
        chance.shuffle(lines)
        if chance.random() < 0.8:
            other = chance.choice(["a b", "a.b", "*", ">", "", "x" * 129, "a/b", "ä", f" {key} x"])
            lines.insert(0, f"{h.REQUEST_ID}: {key if chance.random() < 0.7 else other}")
        block = b"NATS/1.0\r\n" + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
        if chance.random() < 0.1:
            begin = block.index(b"\r\n", 10) + 2 if is_stream or b"true" in block else 9
            at = chance.randrange(begin, len(block) + 1)
            return block[:at] + chance.randbytes(1) + block[at:]
        return block

    def nuisance(self) -> tuple[bytes, bytes, bytes]:
        """Something that nobody has to answer: subject, headers and body."""
        chance = self._chance
        ours = "mesh.cancel mesh.credit mesh.death mesh.death.instance mesh.stream mesh.results mesh.errors _INBOX"
        tail = chance.choice(["x", f"a{chance.randrange(1, self._number + 2)}", "x.y", "*", ">", "-" * 200, "%00"])
        subject = f"{chance.choice(ours.split())}.{tail}".encode()
        return subject, self._block("z"), self._damaged(chance.choice(_BODIES) + b"x")


async def assail(on: Wire, answers: Answers, attack: Attack, requests: int) -> list[str]:
    """Send requests, many at a time; the keys of those that were not answered."""
    missing: list[str] = []
    for begin in range(0, requests, _AT_ONCE):
        waiting = []
        for _ in range(min(_AT_ONCE, requests - begin)):
            key, subject, block, body = attack.request()
            answers.open[key] = asyncio.Event()
            waiting.append(answers.open[key].wait())
            on.request(subject, f"{_INBOX}.{key}".encode(), block, body)
            if attack._chance.random() < 0.2:
                subject, block, body = attack.nuisance()
                on.request(subject, b"", block, body)
        await on.settle()
        try:
            async with asyncio.timeout(_OUTER):
                await asyncio.gather(*waiting)
        except TimeoutError:
            missing += answers.open
            answers.open.clear()
    return missing


async def prove(requests: int, seed: int = 6) -> list[Figure]:
    """Attack a host.

    Args:
        requests: how many.
        seed: of the generator.
    """
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer())
        mesh = await stack.enter_async_context(AgentMesh(server.url))
        hosts = await stack.enter_async_context(family("serve_hostile", server.url, 1))
        await hosts.lines("in")
        await until_names(mesh, *_AGENTS, "y.state")
        answers, attack = Answers(), Attack(seed)
        on = await stack.enter_async_context(wire(server.port, answers.take))
        on.subscribe(f"{_INBOX}.*", 1)
        on.subscribe("mesh.stream.*", 2)
        warm = min(requests // 10, 5000)
        missing = await assail(on, answers, attack, warm)
        before = await mesh.call("y.state", timeout=60.0)
        missing += await assail(on, answers, attack, requests - warm)
        refused = await _refused(server.port, mesh)
        after = await mesh.call("y.state", timeout=60.0)
        good = [
            await mesh.call("x.echo", {"message": "good", "n": 2}),
            [chunk async for chunk in mesh.stream("x.chunks", {"message": "m", "n": 3})],
            await mesh.call("x.none", {"message": "x"}),
            {entry.name for entry in await mesh.catalog()},
        ]
        wanted = ["goodgood", ["m", "m", "m"], {}, {*_AGENTS, "y.state"}]
        kinds = ", ".join(f"{number} {kind}" for kind, number in answers.kinds.most_common())
        return [
            count("hostile requests that were answered", answers.kinds.total(), exactly=requests, note=kinds),
            count("hostile requests that were not", len(missing), exactly=0, note=" ".join(missing[:3])),
            count("things that the server refuses by itself", refused, exactly=len(_REFUSED)),
            count("honest requests afterwards that went wrong", int(good != wanted), exactly=0, note=str(good)),
            count("connections that the host lost", after["losses"], exactly=0),
            count("tasks more than before", after["tasks"] - before["tasks"], most=0),
            count("requests that never ended", after["jobs"], exactly=1, note="one asks"),
            count("subscriptions more than before", after["subscriptions"] - before["subscriptions"], most=0),
            count("bytes of memory more than after the first of them", after["resident"] - before["resident"],
                  most=_MOST_MEMORY),
        ]  # fmt: skip


_REFUSED = [
    b"PUB mesh.agent.x.echo 2000000\r\n" + b"x" * 2_000_000 + b"\r\n",
    b"PUB mesh.agent.x.echo -1\r\n\r\n",
    b"PUB mesh.agent.x.echo\r\n",
    b"HPUB mesh.agent.x.echo 100 10\r\n" + b"x" * 10 + b"\r\n",
    b"\x00\x01\x02\x03\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"A" * 100_000,
]
"""What makes the server end the connection, before it comes to any host."""


async def _refused(port: int, mesh: AgentMesh) -> int:
    """How many of them the server refuses, while everybody else's connection stays."""
    ended = 0
    for data in _REFUSED:
        async with wire(port) as on:
            on.write(data)
            await on.settle()
            ended += on.reading.done() or bool(on.errors)
    assert mesh.parts.link.losses == 0
    return ended
