"""Commands of the mesh, run as processes: those that end by themselves, and those that go on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.forked import Forked, Result, Zygote
from xml_pipeline.mesh import AgentMesh
from xml_pipeline.mesh.inbound import Inbound

__all__ = ["Commands", "Following", "Output", "commands", "subscribed"]


class Following:
    """A command that goes on.

    Args:
        process: what was started.
        out: what it prints, if that is for us.
        err: what it complains of.
    """

    def __init__(self, process: Forked, out: Output | None, err: Output) -> None:
        self.process = process
        self._out = out
        self._err = err

    @classmethod
    async def start(
        cls,
        zygote: Zygote,
        folder: Path,
        args: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
    ) -> Following:
        """Start a command of ``xml-pipeline``.

        Args:
            zygote: what it is forked from.
            folder: its current directory.
            args: what follows the program's name.
            environment: what is set besides that of all commands.
            stdin: its input, instead of none.
            stdout: where it prints, if not for us.
        """
        out, err = None if stdout is not None else Output(), Output()
        theirs = out.writer if out is not None else stdout
        assert theirs is not None
        process = zygote.start(folder, args, environment, stdin, theirs, err.writer)
        for output in (out, err):
            if output is not None:
                await output.open()
        return cls(process, out, err)

    async def line(self) -> str:
        """What it prints next; an empty text after its end."""
        assert self._out is not None
        return (await self._out.reader.readline()).decode().rstrip("\n")

    async def data(self) -> Any:
        """The JSON it prints next."""
        return json.loads(await self.line())

    async def rest(self, number: int | None = None) -> tuple[int, bytes, bytes]:
        """Send it a signal, and wait; its exit code, and what else it printed."""
        if number is not None:
            self.process.send_signal(number)
        outputs = [self._err] if self._out is None else [self._out, self._err]
        *out, err = await asyncio.gather(*(output.rest() for output in outputs))
        return await self.process.ended(), b"".join(out), err

    async def end(self, number: int | None = signal.SIGINT) -> tuple[int, str, str]:
        """The same, as text; without a number, it must end by itself."""
        code, out, err = await self.rest(number)
        return code, out.decode(), err.decode()

    async def close(self) -> None:
        """End it at once, if it has not ended."""
        self.process.kill()
        await self.process.ended()
        for output in (self._out, self._err):
            if output is not None:
                output.close()


class Output:
    """A pipe that somebody else writes to."""

    def __init__(self) -> None:
        self._end, self.writer = os.pipe()
        self.reader = asyncio.StreamReader()

    async def open(self) -> None:
        """Begin to read; the other end is not ours any more."""
        os.close(self.writer)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.reader), os.fdopen(self._end, "rb", buffering=0)
        )

    async def rest(self) -> bytes:
        """What else comes."""
        return await self.reader.read()

    def close(self) -> None:
        """Read no more."""
        self._transport.close()


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

    async def follow(self, *args: str, **streams: int) -> Following:
        """Start one that goes on; at the end of the test it is killed, if it has not ended."""
        following = await Following.start(self._zygote, self.folder, ("mesh", *args), self.environment, **streams)
        self._following.append(following)
        return following

    async def close(self) -> None:
        """End what goes on."""
        for following in self._following:
            await following.close()
        if (self.state / "up").exists():
            await self("down", "--timeout", "5")


@pytest.fixture
async def commands(zygote: Zygote, tmp_path: Path) -> AsyncIterator[Commands]:
    """Commands in the test's directory, with a state folder of their own."""
    commands = Commands(zygote, tmp_path)
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
