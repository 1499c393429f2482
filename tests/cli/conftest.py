"""Commands run as processes: `cli` for those that end by themselves, `start` for those that must be told to."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from tests.cli.forked import Result, Zygote

DEADLINE = 30.0
"""Seconds after which a test gives up; nothing here takes so long, unless the machine is very busy."""


IMPATIENT = """
import sys
from xml_pipeline.cli import server, signals
from xml_pipeline.cli.main import main
from xml_pipeline.message_bus import worker_pool

signals.GRACE = server.GRACE = worker_pool.GRACE = 0.3
sys.exit(main())
"""
"""The command, but where it gives the event loop, or a cancelled handler, seconds to come back, it gives them less."""


class Running:
    """A command that goes on."""

    def __init__(self, zygote: Zygote, cwd: Path, args: tuple[str, ...], env: dict[str, str], program: str) -> None:
        self.args = args
        self.out: list[str] = []
        self.err: list[str] = []
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        pipes = [os.pipe(), os.pipe()]
        (_, out), (_, err) = pipes
        self.process = zygote.start(cwd, args, env, None, out, err, program)
        for _, writer in pipes:
            os.close(writer)
        self._threads = [
            threading.Thread(target=self._read, args=(os.fdopen(reader), lines), daemon=True)
            for (reader, _), lines in zip(pipes, (self.out, self.err), strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: TextIO, lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                self._news.put(None)
        self._news.put(None)

    def wait_for(self, text: str, *, times: int = 1) -> str:
        """Wait until ``text`` was printed, on stdout or stderr, so many times; return the line."""
        deadline = time.monotonic() + DEADLINE
        while True:
            found = [line for line in [*self.out, *self.err] if text in line]
            if len(found) >= times:
                return found[times - 1]
            left = deadline - time.monotonic()
            if left <= 0 or (
                self.process.poll() is not None and not any(map(threading.Thread.is_alive, self._threads))
            ):
                found = [line for line in [*self.out, *self.err] if text in line]
                assert len(found) >= times, f"{text!r} was not printed\n{self}"
                return found[times - 1]
            try:
                self._news.get(timeout=min(left, 1.0))
            except queue.Empty:
                continue

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait until it has ended; return its exit code."""
        try:
            code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it did not end\n{self}")
        for thread in self._threads:
            thread.join(DEADLINE)
        return code

    def __repr__(self) -> str:
        out, err = "\n".join(self.out), "\n".join(self.err)
        return f"{self.args} -> {self.process.poll()}\n--- stdout\n{out}\n--- stderr\n{err}"

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(DEADLINE)


@pytest.fixture
def cli(zygote: Zygote, tmp_path: Path) -> Callable[..., Result]:
    """Run a command in the test's directory, and wait for its end."""

    def run(
        *args: str,
        stdin: bytes = b"",
        cwd: Path = tmp_path,
        env: dict[str, str] | None = None,
        program: str = "",
    ) -> Result:
        return zygote.run(cwd, args, stdin, env or {}, program)

    return run


@pytest.fixture
def start(zygote: Zygote, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a command in the test's directory; it is killed after the test, if it has not ended."""
    started: list[Running] = []

    def begin(*args: str, cwd: Path = tmp_path, env: dict[str, str] | None = None, program: str = "") -> Running:
        started.append(Running(zygote, cwd, args, env or {}, program))
        return started[-1]

    yield begin
    for running in started:
        running.close()


HANDLERS = '''
import asyncio, os
from dataclasses import dataclass, field
from xml_pipeline import HandlerResponse

@dataclass
class Ping:
    text: str
    count: int = 1

@dataclass
class Pong:
    text: str

@dataclass
class Note:
    text: str

async def echo(payload, metadata):
    """Answers; or does what the text says."""
    match payload.text:
        case "crash":
            raise ValueError("it crashed")
        case "hang":
            await asyncio.Event().wait()
        case "silent":
            return None
        case "print":
            print("printed by the handler")
        case "sender":
            return HandlerResponse.respond(Pong(metadata.from_id))
        case "many":
            return [HandlerResponse.respond(Pong(str(number))) for number in range(3)]
    return HandlerResponse.respond(Pong(f"echo {payload.text}"))
'''

ORGANISM = """
organism: {name: test}
listeners:
  - {name: echo, payload_class: handlers.Ping, handler: handlers.echo, description: Answers.}
  - {name: two, payload_class: [handlers.Ping, handlers.Note], handler: handlers.echo, description: Takes two.}
  - {name: all.one, broadcast: true, payload_class: handlers.Ping, handler: handlers.echo, description: One.}
  - {name: all.other, broadcast: true, payload_class: handlers.Ping, handler: handlers.echo, description: Other.}
"""


@pytest.fixture
def organism(tmp_path: Path) -> Path:
    """An organism in the test's directory."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "organism.yaml").write_text(ORGANISM)
    return tmp_path
