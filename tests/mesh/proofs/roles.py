"""What the members of a family do."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from xml_pipeline.mesh import AgentMesh, AgentSpec, outflow
from xml_pipeline.mesh.credit import Credit
from xml_pipeline.mesh.running import serve_until_told

__all__ = ["KINDS", "ROLES", "resident"]

Say = Callable[[str], None]


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# -- agents


def echo_on(mesh: AgentMesh, name: str) -> None:
    """Answers with what it is given, after a little while."""

    @mesh.agent(AgentSpec(name=name, max_queue=100_000))
    async def echo(value: int) -> int:
        await asyncio.sleep(0.002)
        return value


def slow_on(mesh: AgentMesh, name: str) -> None:
    """Answers with who it is, after as many seconds as it is told."""

    @mesh.agent(AgentSpec(name=name, max_concurrency=1000))
    async def slow(wait: float) -> str:
        await asyncio.sleep(wait)
        return mesh.instance_id


def chunks_on(mesh: AgentMesh, name: str) -> None:
    """Sends numbered chunks of a size, and tells how far it is, whether it must wait for its consumer, and how much
    memory its process has."""
    state = {"sent": 0, "running": 0, "waiting": 0}

    class WatchedCredit(Credit):
        __slots__ = ()

        async def wait(self, timeout: float) -> None:
            state["waiting"] += 1
            try:
                await super().wait(timeout)
            finally:
                state["waiting"] -= 1

    outflow.Credit = WatchedCredit  # type: ignore[misc]  # this process has nothing else that sends chunks

    @mesh.agent(AgentSpec(name=name))
    async def chunks(ask: list[int]) -> AsyncIterator[dict[str, Any]]:
        times, size = ask
        state["sent"] = 0
        state["running"] += 1
        try:
            for number in range(times):
                yield {"n": number, "x": "x" * size}
                state["sent"] += 1
                if size < 1000:
                    await asyncio.sleep(0)
        finally:
            state["running"] -= 1

    @mesh.agent(AgentSpec(name=name + "-state"))
    async def told() -> dict[str, int]:
        return {**state, "resident": resident(), "losses": mesh.parts.link.losses}


def ticks_on(mesh: AgentMesh, name: str) -> None:
    """Publishes numbers."""

    @mesh.agent(AgentSpec(name=name))
    async def ticks() -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.005)


KINDS = {"echo": echo_on, "slow": slow_on, "chunks": chunks_on, "ticks": ticks_on}


# -- roles


class _Host(AgentMesh):
    """A mesh object that says when it has been entered."""

    say: Say

    async def __aenter__(self) -> AgentMesh:
        await super().__aenter__()
        self.say(f"in {self.instance_id}")
        return self


async def serve(url: str, number: int, say: Say, *, agents: dict[str, str], own: int = 0, lease: float = 4.0) -> None:
    """Serve until SIGTERM.

    Args:
        url: of the server.
        number: of this member.
        say: writes a line.
        agents: kinds by name; ``#`` in a name stands for the number.
        own: how many more echoing agents only this member has.
        lease: see `ConnectionOptions`.
    """
    mesh = _Host(url, drain_timeout=20.0)
    mesh.say = say
    mesh._options = replace(mesh._options, lease=lease)
    for name, kind in agents.items():
        KINDS[kind](mesh, name.replace("#", str(number)))
    for one in range(own):
        echo_on(mesh, f"h{number}.a{one}")
    await serve_until_told(mesh)
    say("left")


async def serve_hostile(url: str, number: int, say: Say) -> None:
    """Serve what is attacked, and an agent that tells how the process is."""
    from tests.mesh.proofs.hostile import agents_on

    mesh = _Host(url, drain_timeout=20.0)
    mesh.say = say
    logging.disable(logging.ERROR)  # one line for each of very many
    agents_on(mesh)

    @mesh.agent(AgentSpec(name="y.state"))
    async def state() -> dict[str, int]:
        gc.collect()
        parts = mesh.parts
        services = [parts.host.service(name) for name in parts.host.names]
        return {
            "tasks": len(asyncio.all_tasks()),
            "jobs": sum(len(service._jobs) for service in services if service is not None),
            "subscriptions": len(parts.link._subscriptions),
            "losses": parts.link.losses,
            "resident": resident(),
        }

    await serve_until_told(mesh)


async def increment(url: str, number: int, say: Say, *, key: str, times: int) -> None:
    """Add one to a key, as often as it is told."""
    async with AgentMesh(url) as mesh:
        say("in")
        for _ in range(times):
            await mesh.parts.link.wait_up(60.0)  # without a connection it would be refused at once
            await mesh.kv.update(key, lambda value: str(int(value) + 1), timeout=300.0)
    say("left")


async def follow(url: str, number: int, say: Say, *, pattern: str, name: str, patience: float) -> None:
    """Handle the changes of keys, one after the other, and say so."""
    from xml_pipeline.mesh import kv_cursor

    kv_cursor.Cursor.__init__.__defaults__ = (patience,)  # type: ignore[misc]
    async with AgentMesh(url) as mesh:
        async for entry in mesh.kv.watch_entries(pattern, resume=name):
            say(f"begun {entry.key} {entry.revision} {entry.value.decode()}")
            await asyncio.sleep(0.002)
            say(f"done {entry.key} {entry.revision}")


ROLES: dict[str, Callable[..., Awaitable[None]]] = {
    "serve": serve,
    "serve_hostile": serve_hostile,
    "increment": increment,
    "follow": follow,
}
