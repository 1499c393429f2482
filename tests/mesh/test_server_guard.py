"""The server's life is its parent's: signals do not shorten it, and nothing prolongs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="ends of foreign processes can be awaited there")

ROOT = Path(__file__).parents[2]

PARENT = """
    import asyncio, os, signal, sys
    import nats
    from xml_pipeline.mesh import EmbeddedServer

    async def main():
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        server = EmbeddedServer()
        await server.start()
        client = await nats.connect(server.url, allow_reconnect=False)
        print(server._process.pid, server.pid, server._folder, flush=True)
        {then}

    {run}
"""

FAREWELL = """
        await told.wait()
        for _ in range(300):  # the time in which a server that was told to end would have
            await client.flush()
        await client.close()
        guard = server._process
        await server.stop()
        assert guard.returncode == 0, guard  # told, not killed after a while
        print("it was there to the end")
"""

POOL = """
        if os.fork() == 0:  # holds open what its parent had open
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pause()
            os._exit(0)
        print("forked", flush=True)
        await asyncio.Event().wait()
"""

PLAIN = "asyncio.run(main())"
UVLOOP = "import uvloop; uvloop.run(main())"


class Parent:
    """A program with a server, in a process group of its own, and the ids of its processes."""

    def __init__(self, process: asyncio.subprocess.Process, guard: int, server: int, folder: Path) -> None:
        self.process, self.guard, self.server, self.folder = process, guard, server, folder

    async def all_gone(self) -> None:
        """Wait for the end of its guard and its server, which are not ours to wait for."""
        for pid in (self.guard, self.server):
            await gone(pid)


async def gone(pid: int) -> None:
    """Wait for the end of any process."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process)
        os.close(process)


@contextlib.asynccontextmanager
async def parent(then: str, run: str = PLAIN) -> AsyncIterator[Parent]:
    program = textwrap.dedent(PARENT).replace("{then}", textwrap.dedent(then).replace("\n", "\n    ").strip())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program.replace("{run}", run), stdout=asyncio.subprocess.PIPE, cwd=ROOT, process_group=0
    )
    assert process.stdout is not None
    guard, server, folder = (await process.stdout.readline()).decode().split()
    try:
        yield Parent(process, int(guard), int(server), Path(folder))
    finally:
        for pid in (-process.pid, int(guard), int(server)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.communicate()  # reads its output to the end, which closes it


@pytest.mark.parametrize("run", [PLAIN, UVLOOP], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_to_everybody_leaves_it_to_the_last_of_its_users(number, run):
    if run is UVLOOP:
        pytest.importorskip("uvloop")
    async with parent(FAREWELL, run) as user:
        os.kill(user.guard, number)  # as a control group's end does: to each process of it
        os.killpg(user.process.pid, number)
        out, _ = await user.process.communicate()
        assert out == b"it was there to the end\n"
        assert user.process.returncode == 0
        await user.all_gone()
        assert not user.folder.exists()


async def test_a_group_that_is_killed_leaves_nothing():
    async with parent("await asyncio.Event().wait()") as user:
        os.killpg(user.process.pid, signal.SIGKILL)
        await user.all_gone()
        assert not user.folder.exists()


async def test_what_its_parent_has_forked_does_not_keep_it():
    async with parent(POOL) as user:
        assert await user.process.stdout.readline() == b"forked\n"
        user.process.kill()
        await user.all_gone()
        assert not user.folder.exists()


async def test_a_guard_that_is_killed_takes_it_along():
    async with parent("await asyncio.Event().wait()") as user:
        os.kill(user.guard, signal.SIGKILL)
        await user.all_gone()


async def test_an_event_loop_that_ends_without_stopping_it_ends_it():
    async with parent("await client.close()") as user:
        await user.process.communicate()
        await user.all_gone()
