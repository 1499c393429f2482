"""``run`` with a mesh of its own: the server is there to the last answer, and gone with the organism."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from xml_pipeline.mesh import AgentMesh, ConnectionLost

from .conftest import DEADLINE, ORGANISM

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")

GROUP = """
import os, sys
from xml_pipeline.cli.main import main

os.setpgid(0, 0)  # as a shell does with its jobs
sys.exit(main())
"""

STARTING = """
import asyncio
from xml_pipeline.mesh import server

class Slow(server.EmbeddedServer):
    async def start(self):
        await super().start()
        print("the server is there", flush=True)
        await asyncio.Event().wait()

from xml_pipeline.mesh import local
local.EmbeddedServer = Slow
"""

WAIT = """
import signal

async def wait(payload, metadata):
    gate = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, gate.set)
    print("working", flush=True)
    await gate.wait()
    return HandlerResponse.respond(Pong("answered"))
"""

MESH = """
  - {name: wait, payload_class: handlers.Ping, handler: handlers.wait, description: Waits for a signal.}
mesh: {url: local, expose: [{listener: wait}]}
"""


def processes(folder: Path) -> list[str]:
    """What runs with files below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(folder) in command:
                found.append(command)
    return found


def wait_until_gone(folder: Path) -> None:
    """Wait for the end of processes that are nobody's children any more."""
    deadline = time.monotonic() + DEADLINE
    while left := processes(folder):
        assert time.monotonic() < deadline, left


@pytest.fixture
def on_mesh(start, organism):
    """Start the organism in a process group of its own, with the server's files in the test's directory."""
    with (organism / "handlers.py").open("a") as file:
        file.write(WAIT)
    (organism / "organism.yaml").write_text(ORGANISM + MESH)

    def begin(*args, program=GROUP):
        return start("run", *args, program=program, env={"TMPDIR": str(organism)})

    return begin


def url_of(running):
    return running.wait_for("its mesh is at ").split()[4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_group_lets_callers_have_their_answers(on_mesh, organism, number):
    running = on_mesh()
    async with AgentMesh(await asyncio.to_thread(url_of, running)) as caller:
        answer = asyncio.create_task(caller.call("test.wait", {"text": "x"}, timeout=DEADLINE))
        await asyncio.to_thread(running.wait_for, "working")
        os.killpg(running.process.pid, number)
        await asyncio.to_thread(running.wait_for, f"stopping ({number.name}): 1 message to finish")
        for _ in range(300):  # the time in which a server that was told to end would have
            await caller.parts.link.flush()
        running.signal(signal.SIGUSR1)
        assert await answer == {"text": "answered"}
        assert await asyncio.to_thread(running.end) == 0, running
    assert running.out[-1].endswith("everything was finished; messages: 1 answered, 2 handled"), running
    assert running.err == []
    assert processes(organism) == []


async def test_a_group_that_is_killed_leaves_no_process(on_mesh, organism):
    running = on_mesh()
    async with AgentMesh(await asyncio.to_thread(url_of, running)) as caller:
        answer = asyncio.create_task(caller.call("test.wait", {"text": "x"}, timeout=DEADLINE))
        await asyncio.to_thread(running.wait_for, "working")
        assert processes(organism)
        os.killpg(running.process.pid, signal.SIGKILL)
        assert await asyncio.to_thread(running.end) == -signal.SIGKILL
        with pytest.raises(ConnectionLost):
            await answer
    wait_until_gone(organism)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_leaves_no_process(on_mesh, organism, number):
    running = on_mesh(program=STARTING + GROUP)
    running.wait_for("the server is there")
    assert processes(organism)
    os.killpg(running.process.pid, number)
    assert running.end() == 0, running
    assert running.out[-1] == "stopped before it was running"
    assert running.err == []
    wait_until_gone(organism)
