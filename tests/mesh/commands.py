"""Commands of the mesh, run as processes: those that end by themselves, and those that go on."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ENVIRONMENT, Result, Zygote
from xml_pipeline.mesh import AgentMesh
from xml_pipeline.mesh.inbound import Inbound

__all__ = ["Commands", "Following", "commands", "mesh_zygote", "subscribed"]


class Following:
    """A command that goes on."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """What it prints next; an empty text after its end."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def data(self) -> Any:
        """The JSON it prints next."""
        return json.loads(await self.line())

    async def end(self, number: int | None = signal.SIGINT) -> tuple[int, str, str]:
        """Send it a signal, and wait; its exit code, and what else it printed."""
        if number is not None:
            self.process.send_signal(number)
        out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, (out or b"").decode(), err.decode()


class Commands:
    """Runs ``xml-pipeline mesh ...``.

    Args:
        zygote: see there.
        folder: the current directory of the commands.
        url: of the mesh; empty for the one that they find by themselves.
    """

    def __init__(self, zygote: Zygote, folder: Path, url: str = "") -> None:
        self.folder = folder
        self.environment = {"XDG_STATE_HOME": str(folder / "state"), "OAM_URL": url, "OAM_CREDS": ""}
        self._zygote = zygote
        self._following: list[Following] = []

    @property
    def state(self) -> Path:
        """Where ``up`` keeps what it knows."""
        return self.folder / "state" / "xml-pipeline" / "mesh"

    async def __call__(self, *args: str, stdin: bytes = b"", cwd: Path | None = None, **environment: str) -> Result:
        """Run one, and wait for its end; meanwhile the event loop, and the agents in it, go on."""
        folder = cwd or self.folder
        environment = {**self.environment, **environment}
        return await asyncio.to_thread(self._zygote.run, folder, ("mesh", *args), stdin, environment)

    async def data(self, *args: str, **options: Any) -> Any:
        """The JSON that a command prints, which must succeed."""
        result = await self(*args, "--json", **options)
        assert (result.code, result.err) == (0, ""), result
        return json.loads(result.out)

    async def follow(self, *args: str, **options: Any) -> Following:
        """Start one that goes on; at the end of the test it is killed, if it has not ended."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "xml_pipeline.cli",
            "mesh",
            *args,
            cwd=self.folder,
            env={**ENVIRONMENT, **self.environment},
            **{
                "stdin": asyncio.subprocess.DEVNULL,
                "stdout": asyncio.subprocess.PIPE,
                "stderr": asyncio.subprocess.PIPE,
                **options,
            },
        )
        self._following.append(Following(process))
        return self._following[-1]

    async def close(self) -> None:
        """End what goes on."""
        for following in self._following:
            if following.process.returncode is None:
                following.process.kill()
            await following.process.communicate()
        if (self.state / "up").exists():
            await self("down", "--timeout", "5")


@pytest.fixture(scope="session")
def mesh_zygote() -> Iterator[Zygote]:
    zygote = Zygote(Path(__file__).with_name("zygote.py"))
    yield zygote
    zygote.close()


@pytest.fixture
async def commands(mesh_zygote: Zygote, tmp_path: Path) -> AsyncIterator[Commands]:
    """Commands in the test's directory, with a state folder of their own."""
    commands = Commands(mesh_zygote, tmp_path)
    yield commands
    await commands.close()


async def subscribed(host: AgentMesh, subject: str) -> None:
    """Wait until the server has somebody's subscription."""
    link = host.parts.link
    while True:
        inbound = Inbound("the server's answer")
        taken = await link.subscribe(link.inbox(), inbound.put)
        await link.publish(subject, b"", taken.subject)
        await link.flush()
        for _ in range(10):  # what came before the server's answer to this is on its way through the loop
            await asyncio.sleep(0)
        await taken.close()
        if not len(inbound):  # the server says that nobody listens where that is so
            return
