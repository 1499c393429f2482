"""Three nodes of one organism, called all the time, while one is killed and another one is told to stop.

Which node a call ran on says the handler, before it does anything else. So it is known of each call that failed.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bridge.proofs.node import Node
from tests.bridge.proofs.replica import Done, Job
from tests.mesh.kit import until_names
from tests.mesh.proofs.figures import Figure, count, spread
from xml_pipeline.errors import PipelineError
from xml_pipeline.mesh import AgentMesh, EmbeddedServer, MeshError, Monitor
from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["prove"]

_MODULE = "tests.bridge.proofs.replica"
_NODES = ("a", "b", "c")
_CASES = tuple(itertools.permutations(range(len(_NODES)), 2))
"""Which one is killed, and which one is told to stop."""
_MOMENT = 0.5
"""Seconds after a kill in which the server may not have noticed it."""
_ORGANISM = f"""\
organism: {{name: trio}}
max_concurrent_handlers: 10
listeners:
- {{name: work, description: d, payload_class: {_MODULE}.Job, output_class: {_MODULE}.Done, handler: {_MODULE}.work}}
- {{name: parts, description: d, payload_class: {_MODULE}.Job, output_class: {_MODULE}.Done, handler: {_MODULE}.parts}}
mesh:
  expose: [{{listener: work}}, {{listener: parts}}]
"""
_CALLER = f"""\
organism: {{name: caller}}
mesh:
  agents:
  - {{name: trio.work, as: work, payload_class: {_MODULE}.Job, output_class: {_MODULE}.Done, timeout: TIMEOUT}}
"""


@dataclass
class Call:
    """One call.

    Args:
        number: of it.
        made: when, in the loop's time.
        ended: when.
        code: of the error; empty for an answer.
        node: that answered.
    """

    number: int
    made: float
    ended: float = 0.0
    code: str = ""
    node: str = ""


class Callers:
    """Those who call, each one thing after the other.

    Args:
        work: seconds that a call takes at its node.
    """

    def __init__(self, work: float) -> None:
        self.calls: list[Call] = []
        self.untyped: list[BaseException] = []
        self.wrong = 0
        self._work = work
        self._open = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._news = asyncio.Condition()

    def begin(self, ask: Callable[[Job], Awaitable[list[Done]]], times: int) -> None:
        """Have so many more call in this way."""
        self._tasks += [asyncio.create_task(self._call_again(ask)) for _ in range(times)]

    async def end(self) -> None:
        """Make no more calls, and wait until all that were made have ended."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def until(self, holds: Callable[[list[Call]], bool]) -> None:
        """Wait until the calls that have ended from now on are as described."""
        since = len(self.calls)
        async with self._news:
            await self._news.wait_for(lambda: holds(self.calls[since:]))

    async def _call_again(self, ask: Callable[[Job], Awaitable[list[Done]]]) -> None:
        while not self._stopping:
            await self._call(ask)

    async def _call(self, ask: Callable[[Job], Awaitable[list[Done]]]) -> None:
        loop = asyncio.get_running_loop()
        self._open += 1
        call = Call(self._open, loop.time())
        try:
            answers = await ask(Job(call.number, self._work))
        except (MeshError, PipelineError) as error:
            call.code = error.code
        except Exception as error:
            self.untyped.append(error)
            call.code = "untyped"
        else:
            call.node = answers[0].node if answers else ""
            self.wrong += {(done.number, done.node) for done in answers} != {(call.number, call.node)}
        call.ended = loop.time()
        async with self._news:
            self.calls.append(call)
            self._news.notify_all()


async def prove(
    folder: Path,
    callers: int,
    work: float,
    *,
    cases: int,
    monitored: bool,
    lease: float = 0.0,
    patience: float = 30.0,
) -> list[Figure]:
    """Run it.

    Args:
        folder: for files.
        callers: how many there are.
        work: seconds that a call takes.
        cases: how many of the six ways to choose one node that is killed and one that is told to stop.
        monitored: whether there is a monitor, as on an embedded server.
        lease: see `ConnectionOptions`; 0.0 for the default.
        patience: seconds that a call may take: what was lost on its way to a node is known to be so only then.
    """
    loop, chance = asyncio.get_running_loop(), random.Random(7)
    file, caller, log = _files(folder, patience)
    kills: dict[str, float] = {}
    codes, drained, stopping, back = [], [], [], []
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer())
        if monitored:
            await stack.enter_async_context(Monitor.of(server.url, server.system_url))
        mesh = await stack.enter_async_context(AgentMesh(server.url))
        nodes = [Node(file, server.url, name, {"BRIDGE_PROOF_LOG": str(log)}, lease) for name in _NODES]
        for node in nodes:
            stack.push_async_callback(node.close)
        await asyncio.gather(*(node.start() for node in nodes))
        await until_names(mesh, "trio.work", "trio.parts")
        pump = await StreamPump.from_yaml(caller, mesh_url=server.url)
        await stack.enter_async_context(pump)
        found = Callers(work)
        for ask in (_from_mesh(mesh, patience), _from_stream(mesh, patience), _from_organism(pump)):
            found.begin(ask, callers // 3)
        for killed, told in ((nodes[one], nodes[other]) for one, other in _CASES[:cases]):
            await found.until(_answered_by(node.alive for node in nodes))
            await asyncio.sleep(chance.random() * work)  # else it would be while answers come, and new calls are made
            await killed.end(signal.SIGKILL)
            kills[killed.alive] = loop.time()
            await asyncio.sleep(2 * _MOMENT)
            await found.until(lambda calls: len(calls) >= callers)
            at = loop.time()
            codes.append(await told.end(signal.SIGTERM))
            drained.append(told.alive)
            stopping.append(loop.time() - at)
            at = loop.time()
            await asyncio.gather(killed.start(), told.start())
            await found.until(_answered_by((killed.alive, told.alive)))
            back.append(loop.time() - at)
        await found.end()
        records = len(await mesh.parts.instances.all())
        names = len(await mesh.catalog())
    return [
        *_figures(found, _begun(log), kills, drained, limit=1.0 if monitored else 3 * (lease or 4.0) + 3.0),
        count("exit codes of those that were told to stop, added up", sum(map(abs, codes)), exactly=0),
        spread("until one that was told to stop had ended", stopping, most=5.0),
        spread("until both that were started again had answered", back),
        count("records of nodes at the end", records, exactly=len(_NODES)),
        count("agents in the catalog at the end", names, exactly=2),
    ]


def _files(folder: Path, patience: float) -> tuple[Path, Path, Path]:
    """The organism's file, that of those who call it, and where it is written what has begun."""
    folder.mkdir(parents=True, exist_ok=True)
    file, caller = folder / "organism.yaml", folder / "caller.yaml"
    file.write_text(_ORGANISM)
    caller.write_text(_CALLER.replace("TIMEOUT", str(patience)))
    return file, caller, folder / "begun.log"


# -- who calls


def _from_mesh(mesh: AgentMesh, patience: float) -> Callable[[Job], Awaitable[list[Done]]]:
    async def ask(job: Job) -> list[Done]:
        return [await mesh.call("trio.work", vars(job), timeout=patience, result_type=Done)]

    return ask


def _from_stream(mesh: AgentMesh, patience: float) -> Callable[[Job], Awaitable[list[Done]]]:
    async def ask(job: Job) -> list[Done]:
        return [done async for done in mesh.stream("trio.parts", vars(job), timeout=patience, result_type=Done)]

    return ask


def _from_organism(pump: StreamPump) -> Callable[[Job], Awaitable[list[Done]]]:
    async def ask(job: Job) -> list[Done]:
        done: Any = await pump.request("work", job)
        return [done]

    return ask


def _answered_by(nodes: Any) -> Callable[[list[Call]], bool]:
    wanted = set(nodes)
    return lambda calls: wanted <= {call.node for call in calls}


# -- what is found


def _begun(log: Path) -> dict[int, list[str]]:
    """The nodes that have begun each call."""
    found: dict[int, list[str]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        number, node = line.split(" ")
        found.setdefault(int(number), []).append(node)
    return found


def _figures(
    found: Callers, begun: dict[int, list[str]], kills: dict[str, float], drained: list[str], limit: float
) -> list[Figure]:
    failed = [call for call in found.calls if call.code]
    on_killed = [call for call in failed if begun.get(call.number, [""])[-1] in kills]
    on_drained = [call for call in failed if begun.get(call.number, [""])[-1] in drained]
    elsewhere = [call for call in failed if call.number in begun and call not in on_killed]
    nowhere = [call for call in failed if call.number not in begun]
    after = [call for call in nowhere if not _may_have_been_lost(call, kills)]
    told = [call for call in on_killed if call.code != "timeout"]
    until_told = [call.ended - kills[begun[call.number][-1]] for call in told]
    served = Counter(node.partition(".")[0] for nodes in begun.values() for node in nodes)
    return [
        count(
            "calls in all", len(found.calls), least=1, note=", ".join(f"{served[name]} on {name}" for name in _NODES)
        ),
        count("calls that ended untyped", len(found.untyped), exactly=0, note=str(found.untyped[:2] or "")),
        count("calls with a wrong answer", found.wrong, exactly=0),
        count("calls that were begun twice", sum(len(nodes) > 1 for nodes in begun.values()), exactly=0),
        count("nodes killed", len(kills), note=f"and {len(drained)} told to stop"),
        count("calls that failed, and ran on one that was killed", len(on_killed), least=1, note=_codes(on_killed)),
        count("calls that failed, and ran on one that was told to stop", len(on_drained), exactly=0),
        count("calls that failed, and ran anywhere else", len(elsewhere), exactly=0, note=_codes(elsewhere)),
        count("calls that failed before they ran", len(nowhere), note=_codes(nowhere)),
        count("of these, made when nobody was being killed", len(after), exactly=0, note=_codes(after)),
        spread("until those failed that ran on one that was killed", until_told, most=limit),
    ]


def _may_have_been_lost(call: Call, kills: dict[str, float]) -> bool:
    """Whether it may have waited at a node when that was killed."""
    return any(call.made <= at + _MOMENT and call.ended >= at for at in kills.values())


def _codes(calls: list[Call]) -> str:
    return ", ".join(f"{number} {code}" for code, number in Counter(call.code for call in calls).most_common())
