"""Replicas that leave properly while they are asked all the time."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

from tests.mesh.kit import until
from tests.mesh.proofs.family import family
from tests.mesh.proofs.figures import Figure, count, seconds, spread
from tests.mesh.proofs.load import Outcomes
from xml_pipeline.mesh import AgentMesh, EmbeddedServer, Monitor

__all__ = ["prove"]

_NAME = "a.echo"


async def prove(rate: float, times: int, pause: float) -> list[Figure]:
    """One of two replicas leaves, and is replaced, again and again.

    Args:
        rate: calls per second, whether or not the earlier ones have been answered.
        times: how often one leaves.
        pause: seconds of calls before and after each.
    """
    loop = asyncio.get_running_loop()
    outcomes, left, codes = Outcomes(30.0), [], []
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer())
        await stack.enter_async_context(Monitor.of(server.url, server.system_url))
        mesh = await stack.enter_async_context(AgentMesh(server.url))
        calls: set[asyncio.Task[bool]] = set()
        answers: list[float] = []

        async def ask(number: int) -> None:
            began = loop.time()
            if await mesh.call(_NAME, number, timeout=30.0) != number:
                outcomes.wrong.append(number)
            answers.append(loop.time() - began)

        async def keep_asking() -> None:
            began, number = loop.time(), 0
            while True:
                while number < (loop.time() - began) * rate:
                    number += 1
                    calls.add(task := asyncio.create_task(outcomes.note(ask(number))))
                    task.add_done_callback(calls.discard)
                await asyncio.sleep(0.5 / rate)

        await stack.enter_async_context(family("serve", server.url, 1, agents={_NAME: "echo"}))
        await until(mesh, lambda entries: _NAME in entries)
        asking = asyncio.create_task(keep_asking())
        for _ in range(times):
            async with family("serve", server.url, 1, agents={_NAME: "echo"}) as leaver:
                await leaver.line(0, "in")
                await asyncio.sleep(pause)
                began = loop.time()
                leaver.send(0, signal.SIGTERM)
                codes += await leaver.ended([0])
                left.append(loop.time() - began)
            replica = AgentMesh(server.url)

            @replica.agent(_spec())
            async def echo(value: int) -> int:
                await asyncio.sleep(0.002)
                return value

            async with replica:
                await asyncio.sleep(pause)
        asking.cancel()
        await asyncio.wait([asking, *calls])
        failed = outcomes.ends.total() - outcomes.ends["ok"]
        return [
            *outcomes.figures("calls"),
            count("calls that failed", failed, exactly=0),
            count("replicas that left, each by SIGTERM and by the end of its block", times),
            count("of which ended with another code than 0", sum(map(bool, codes)), exactly=0),
            seconds("the longest that a call took", max(answers, default=0.0)),
            spread("from SIGTERM to the end of the process", left),
        ]


def _spec() -> object:
    from xml_pipeline.mesh import AgentSpec

    return AgentSpec(name=_NAME)
