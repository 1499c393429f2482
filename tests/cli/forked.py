"""Commands as processes that need not import anything: they are forked from one that has; see ``zygote.py``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["ENVIRONMENT", "ROOT", "Forked", "Result", "Zygote"]

ROOT = Path(__file__).resolve().parents[2]

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("XML_PIPELINE_", "MAKE"))},
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",  # or a module written twice in one second may be read from its old bytecode
    "NO_COLOR": "1",
    "COLUMNS": "200",
}


class Result:
    """How a command ended."""

    def __init__(self, args: tuple[str, ...], code: int, out: str, err: str) -> None:
        self.args, self.code, self.out, self.err = args, code, out, err

    def __repr__(self) -> str:
        return f"{self.args} -> {self.code}\n--- stdout\n{self.out}--- stderr\n{self.err}"

    def complaint(self, code: int) -> str:
        """The one line on stderr, after a look at all the rest."""
        assert self.code == code, self
        assert "Traceback" not in self.err, self
        lines = self.err.splitlines()
        assert len(lines) == 1, self
        return lines[0]


class Forked:
    """One process: what there is of `subprocess.Popen` that tests need.

    Args:
        told: the pipe in which the zygote tells its process id and its exit code.
    """

    def __init__(self, told: int) -> None:
        self._told = os.fdopen(told, "rb", buffering=0)
        self.pid = int(self._told.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; its exit code, negative for signals.

        Raises:
            subprocess.TimeoutExpired: it has not ended.
        """
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("xml-pipeline", timeout or 0.0)
            self.returncode = int(self._told.readline())
            self._told.close()
        return self.returncode

    async def ended(self) -> int:
        """Wait for its end, while the event loop goes on."""
        if self.returncode is None:
            loop, is_told = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(self._told, is_told.set)
            try:
                await is_told.wait()
            finally:
                loop.remove_reader(self._told)
        return self.wait()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Zygote:
    """Starts commands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking, asked = socket.socketpair()
        with asked:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("zygote.py")), str(asked.fileno())],
                stdin=subprocess.DEVNULL,
                env=ENVIRONMENT,
                pass_fds=[asked.fileno()],
            )

    def start(
        self,
        cwd: Path,
        args: Sequence[str],
        env: Mapping[str, str],
        stdin: int | None,
        stdout: int,
        stderr: int,
        program: str = "",
        *,
        at_once: bool = False,
    ) -> Forked:
        """Start a command, with these files as its input, or none, its output and its errors; they stay open here.

        Args:
            cwd: its current directory.
            args: what follows the program's name.
            env: what is set besides that of all commands.
            stdin: its input, or none.
            stdout: its output.
            stderr: its errors.
            program: in Python, instead of ``xml-pipeline``.
            at_once: whether to spare it the end of an interpreter.
        """
        environment = {**ENVIRONMENT, **env}
        asked = {"args": args, "cwd": str(cwd), "env": environment, "program": program, "at_once": at_once}
        job = json.dumps(asked).encode() + b"\n"
        ours, theirs = os.pipe()
        with self._lock, open(os.devnull) as nothing:
            files = [nothing.fileno() if stdin is None else stdin, stdout, stderr, theirs]
            sent = socket.send_fds(self._asking, [job], files)
            self._asking.sendall(job[sent:])
            os.close(theirs)
            return Forked(ours)

    def run(self, cwd: Path, args: tuple[str, ...], stdin: bytes, env: Mapping[str, str], program: str = "") -> Result:
        """Run a command to its end."""
        with _files(3) as (given, out, err):
            os.write(given, stdin) if stdin else None
            os.lseek(given, 0, os.SEEK_SET)
            code = self.start(cwd, args, env, given, out, err, program, at_once=True).wait()
            return Result(args, code, _content(out).decode(), _content(err).decode())

    def close(self) -> None:
        """End it; what it has started goes on."""
        self._asking.close()
        self._process.wait()


@contextlib.contextmanager
def _files(count: int) -> Iterator[list[int]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(tempfile.TemporaryFile(buffering=0)).fileno() for _ in range(count)]


def _content(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(file, "rb", closefd=False) as reader:
        return reader.read()
