"""A hundred agents of twenty processes that start together, and leave together, in one way or the other."""

from __future__ import annotations

import asyncio
import json
import signal

from tests.mesh.kit import echo_on, plain_peer, until
from tests.mesh.proofs.family import family
from tests.mesh.proofs.figures import Figure, count, seconds
from xml_pipeline.mesh import AgentMesh, EmbeddedServer, Monitor

__all__ = ["prove", "prove_many"]

_BROKEN = [{"name": "no.description"}, 7, None, {"description": "no name"}, {"name": 3, "description": ""}]
_OURS = "h"


async def prove(processes: int, agents: int, how: signal.Signals) -> list[Figure]:
    """Let them come and go, beside foreign entries that make no sense.

    Args:
        processes: how many.
        agents: of each.
        how: the signal that ends them.
    """
    loop = asyncio.get_running_loop()
    server = EmbeddedServer()
    async with server, Monitor.of(server.url, server.system_url), AgentMesh(server.url) as mesh:
        async with plain_peer(server.url) as peer:
            bucket = await peer.jetstream().key_value("mesh-catalog")
            foreign = [*_BROKEN, {"name": "foreign.good", "description": "d", "more": [1]}]
            await bucket.put("catalog", json.dumps(foreign).encode())
            wanted = {f"{_OURS}{number}.a{one}" for number in range(processes) for one in range(agents)}
            began = loop.time()
            async with family("serve", server.url, processes, agents={}, own=agents) as hosts:
                await hosts.lines("in")
                entered = loop.time() - began
                await until(mesh, lambda entries: entries.keys() - {"foreign.good"} == wanted)
                complete = loop.time() - began
                contracts = len(await mesh.discover("h0"))
                answers = await asyncio.gather(*(mesh.call(name, 7) for name in wanted))
                began = loop.time()
                for number in range(processes):
                    hosts.send(number, how)
                await until(mesh, lambda entries: entries.keys() == {"foreign.good"})
                gone = loop.time() - began
                await hosts.ended(range(processes))
            # What is written last is deleted last.
            while await mesh.parts.instances.all():  # noqa: ASYNC110  # each look is a request
                await asyncio.sleep(0.01)
            clean = loop.time() - began
            kept = json.loads((await bucket.get("catalog")).value or b"")
        return [
            count("agents in the catalog", len(wanted), exactly=processes * agents),
            count("of which answered a call", answers.count(7), exactly=len(wanted)),
            count("contracts of one host", contracts, exactly=agents),
            seconds("until all had entered, from the start of the first process", entered),
            seconds("until all were in the catalog", complete),
            count("foreign entries that were changed", int(kept != foreign), exactly=0),
            seconds(f"until none was in the catalog after {how.name}", gone, most=2.0),
            seconds("until none had a record", clean),
        ]


async def prove_many(agents: int) -> list[Figure]:
    """One host with very many agents."""
    loop = asyncio.get_running_loop()
    async with EmbeddedServer() as server, AgentMesh(server.url) as mesh:
        host = AgentMesh(server.url)
        for number in range(agents):
            echo_on(host, f"many.a{number}")
        began = loop.time()
        async with host:
            entered = loop.time() - began
            await until(mesh, lambda entries: len(entries) == agents)
            seen = loop.time() - began
            last = await mesh.call(f"many.a{agents - 1}", {"message": "x"})
            contracts = len(await mesh.discover())
            began = loop.time()
        left = loop.time() - began
        await until(mesh, lambda entries: not entries)
        return [
            count("agents of one host in the catalog", agents, exactly=agents),
            count("of which have a contract", contracts, exactly=agents),
            count("the last of which answered", int(last == {"reply": "x"}), exactly=1),
            seconds("until it had entered", entered),
            seconds("until another one saw all", seen),
            seconds("until it had left", left),
        ]
