"""Processes with mesh objects of their own: one program, forked as often as asked, so that Python starts only once.

Each member of the family does what its role says, writes lines, and is killed, stopped and told to end by its number.
None outlives the process that started the family.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

__all__ = ["Family", "family"]

_ROOT = Path(__file__).parents[3]


class Family:
    """The processes.

    Args:
        process: the one that they are forked from.
        size: how many there are.

    Attributes:
        pids: their process ids, by number.
    """

    def __init__(self, process: asyncio.subprocess.Process, size: int) -> None:
        self.size = size
        self.pids: dict[int, int] = {}
        self._process = process
        self._lines: dict[int, asyncio.Queue[str]] = defaultdict(asyncio.Queue)
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            number, text = line.decode().rstrip("\n").split(" ", 1)
            if text.startswith("pid "):
                self.pids[int(number)] = int(text[4:])
            self._lines[int(number)].put_nowait(text)
        for number in range(self.size):
            self._lines[number].put_nowait("gone")

    async def line(self, number: int, begin: str = "", *, whole: bool = False) -> str:
        """The next line of a member that begins like this; others are passed over.

        Args:
            number: of the member.
            begin: how it begins.
            whole: whether to have it with its beginning.

        Raises:
            EOFError: it has ended without such a line.
        """
        while True:
            text = await self._lines[number].get()
            if text.startswith(begin):
                return text if whole or not begin else text[len(begin) :].strip()
            if text.startswith(("gone", "ended")):
                raise EOFError(f"member {number} has {text}")

    async def lines(self, begin: str) -> list[str]:
        """The next such line of every member."""
        return await asyncio.gather(*(self.line(number, begin) for number in range(self.size)))

    def send(self, number: int, what: signal.Signals) -> None:
        """Send a signal to a member."""
        os.kill(self.pids[number], what)

    async def ended(self, numbers: Iterable[int]) -> list[int]:
        """Wait until these members have ended; their exit codes, negative for signals."""
        return [int(await self.line(number, "ended")) for number in numbers]

    async def close(self) -> None:
        """End those that are left, whatever they do."""
        assert self._process.stdin is not None
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._process.stdin.close()  # they see the end of their input
        await self._process.wait()
        await self._reader


@contextlib.asynccontextmanager
async def family(role: str, url: str, size: int, **options: Any) -> AsyncIterator[Family]:
    """Start one, and end it with the block.

    Args:
        role: what each member does, see `roles`.
        url: of the server.
        size: how many.
        options: for the role.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.mesh.proofs.family",
        role,
        url,
        str(size),
        json.dumps(options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    found = Family(process, size)
    try:
        await found.lines("pid")
        yield found
    finally:
        await found.close()


# -- in the processes


def main(role: str, url: str, size: str, options: str) -> None:
    """Fork the members, and tell how each has ended."""
    from tests.mesh.proofs.roles import ROLES

    members = {_fork(number, ROLES[role], url, json.loads(options)): number for number in range(int(size))}
    while members:
        pid, status = os.wait()
        _say(members.pop(pid), f"ended {os.waitstatus_to_exitcode(status)}")


def _fork(number: int, role: Any, url: str, options: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _say(number, f"pid {os.getpid()}")
        asyncio.run(_live(number, role, url, options))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


async def _live(number: int, role: Any, url: str, options: dict[str, Any]) -> None:
    asyncio.get_running_loop().add_reader(0, os._exit, 9)  # nothing is ever written: whoever started it is gone
    await role(url, number, lambda text: _say(number, text), **options)


def _say(number: int, text: str) -> None:
    os.write(1, f"{number} {text}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
