"""The process behind ``mesh up``: it owns the server and the monitor, and ends both.

::

    locked -> server started -> monitor started -> recorded, and ``.oam-url`` written
       ^            |                                             |
       |            '--- the server ends: started again ----------'
       '--- SIGTERM: everything is taken back in reverse order ---'

In the background it is a program of its own (``__main__`` starts it), with a session of its own, and tells the command
that started it how that went, with one line of JSON: a `Report`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import logging.handlers
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.mesh.process import ProcessId
from xml_pipeline.cli.mesh.remains import clear_remains, server_ended
from xml_pipeline.cli.mesh.state import Lock, Record, StateFolder

if TYPE_CHECKING:
    from xml_pipeline.mesh.server import EmbeddedServer

__all__ = ["Order", "Report", "Supervisor", "supervise_in_background"]

_log = logging.getLogger(__name__)

_STORE_LOCK: Final = "mesh.lock"
_LOG_BYTES: Final = 1 << 20
_PAUSES: Final = (0.1, 0.5, 2.0, 5.0, 10.0)
"""Seconds before the server that has ended is started again, each longer than the one before; then it is given up."""
_HEALTHY: Final = 60.0
"""Seconds after which a server counts as well started, so that the pauses begin anew."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be started.

    Args:
        port: on the loopback; 0 for any that is free.
        store: directory of the server's files; empty for that of the `StateFolder`.
        folder: where ``.oam-url`` is written.
        replace: whether to replace one that is there and says something else.
        state: the state folder's path.
    """

    port: int
    store: str
    folder: str
    replace: bool
    state: str

    @classmethod
    def read(cls, text: str) -> Order:
        """What `text` wrote."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """As an argument of a program."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Report:
    """What became of an order.

    Args:
        record: what is up; ``None`` if nothing is.
        notes: what else there is to know, a line each.
        errors: why nothing is up, a line each.
        code: the exit code that belongs to it.
    """

    record: Record | None = None
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    code: int = Exit.OK

    def text(self) -> str:
        """One line of JSON."""
        record = self.record.text() if self.record is not None else ""
        return json.dumps({"record": record, "notes": self.notes, "errors": self.errors, "code": self.code}) + "\n"

    @classmethod
    def read(cls, text: str) -> Report:
        """What `text` wrote."""
        found = json.loads(text)
        return cls(Record.read(found["record"]), tuple(found["notes"]), tuple(found["errors"]), found["code"])


class Supervisor:
    """Starts what was ordered, and looks after it until it is told to stop.

    Args:
        order: what.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._state = StateFolder(Path(order.state))
        self._store = Path(order.store) if order.store else self._state.data
        self._told = asyncio.Event()
        self._record = Record(_this_process(), store=str(self._store))
        self._notes: list[str] = []
        self._replaces = False
        self._server: EmbeddedServer

    async def run(self, report: Callable[[Report], object]) -> None:
        """Start, report, wait for SIGTERM, SIGINT or SIGHUP, and take everything back.

        Args:
            report: called once it is up.

        Raises:
            CommandFailed: it could not be started, or the server could not be started again.
        """
        async with self._until_told(), AsyncExitStack() as closing:
            await self._open(closing)
            report(Report(self._record, tuple(self._notes)))
            await self._keep_up()

    @asynccontextmanager
    async def _until_told(self) -> AsyncIterator[None]:
        """Cancel what is inside when a signal comes. Later signals change nothing: it takes moments only."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # as in every coroutine

        def stop() -> None:
            if not self._told.is_set():
                self._told.set()
                task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, stop)
        try:
            yield
        except asyncio.CancelledError:
            if not self._told.is_set():
                raise
            task.uncancel()

    # -- starting ---------------------------------------------------------------------------------------------------

    async def _open(self, closing: AsyncExitStack) -> None:
        state = self._state
        state.make()
        self._lock(closing, state.lock, f"error: another process is starting or stopping the mesh of {state.path}")
        state.must_be_down()
        await self._take_over(state.record())
        state.write(self._record)
        closing.callback(state.forget)
        self._look_at_pointer()
        self._make_store()
        self._lock(closing, self._store / _STORE_LOCK, f"error: the files in {self._store} are those of another mesh")
        _look_at_port(self._order.port)
        await self._start_server(closing)
        await self._start_monitor(closing)
        self._write_pointer(closing)
        state.write(self._record)

    def _lock(self, closing: AsyncExitStack, path: Path, otherwise: str) -> None:
        lock = Lock(path)
        try:
            taken = lock.take()
        except OSError as error:
            raise CommandFailed(f"error: {path} cannot be locked: {error.strerror}") from None
        if not taken:
            raise CommandFailed(f"{otherwise} ({path} is locked); try again in a moment")
        closing.callback(lock.release)

    async def _take_over(self, left: Record | None) -> None:
        """What a crash has left must be gone first: its server may still be writing into the same files."""
        if left is None:
            return
        await server_ended(left)
        self._notes.append(clear_remains(left, self._state))

    def _look_at_pointer(self) -> None:
        """Refuse before anything is started; and say what is going to be replaced."""
        from xml_pipeline.mesh.errors import ConnectionFailed
        from xml_pipeline.mesh.pointer import POINTER_NAME, Pointer, read_pointer

        path = Path(self._order.folder) / POINTER_NAME
        self._replaces = os.path.lexists(path)
        if not self._replaces:
            return
        try:
            found = read_pointer(path)
            says = found.url or "nothing"
        except ConnectionFailed:
            found, says = None, "something that makes no sense"
        if found == Pointer(path, f"nats://127.0.0.1:{self._order.port}"):
            return
        if not self._order.replace:
            raise CommandFailed(
                f"error: {path} is there, and says {says}; remove it, start the mesh in another directory, or replace "
                "it with --force"
            )
        self._notes.append(f"replaced {path}, which said {says}")

    def _make_store(self) -> None:
        try:
            self._store.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CommandFailed(f"error: {self._store} cannot be made: {error.strerror}") from None

    async def _start_server(self, closing: AsyncExitStack) -> None:
        from xml_pipeline.mesh.errors import ConnectionFailed
        from xml_pipeline.mesh.server import EmbeddedServer

        self._server = EmbeddedServer(self._store, self._order.port)
        try:
            await self._server.start()
        except ConnectionFailed as error:
            raise CommandFailed(f"error: {error}") from None
        except OSError as error:  # its files cannot be written
            raise CommandFailed(f"error: {error.filename or self._store}: {error.strerror}") from None
        closing.push_async_callback(self._server.stop)
        self._keep_record()

    def _keep_record(self) -> None:
        server = self._server
        record = self._record
        self._record = Record(
            record.supervisor, ProcessId.of(server.pid), server.url, str(self._store.resolve()), record.pointer
        )
        self._state.write(self._record)

    async def _start_monitor(self, closing: AsyncExitStack) -> None:
        """And make the buckets: there are peers that never do, and find nothing without them."""
        from xml_pipeline.mesh.mesh import AgentMesh
        from xml_pipeline.mesh.monitor import Monitor

        async with AgentMesh(self._server.url, creds=""):
            pass
        await closing.enter_async_context(Monitor.of(self._server.url, self._server.system_url))

    def _write_pointer(self, closing: AsyncExitStack) -> None:
        from xml_pipeline.mesh.pointer import remove_pointer, write_pointer

        url = self._server.url
        try:
            path = write_pointer(Path(self._order.folder), url, replace=self._replaces)
        except OSError as error:
            place = f"{self._order.folder}: {error.strerror}"
            self._notes.append(f"no .oam-url could be written in {place}; say --url {url}, or set OAM_URL")
            return
        closing.callback(remove_pointer, path, url)
        record = self._record
        self._record = Record(record.supervisor, record.server, record.url, record.store, str(path))

    # -- looking after it -------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Start the server again whenever it ends, on the same port and files."""
        loop = asyncio.get_running_loop()
        pauses = iter(_PAUSES)
        while True:
            began = loop.time()
            await self._server.wait()
            if loop.time() - began > _HEALTHY:
                pauses = iter(_PAUSES)
            _log.warning("the nats-server has ended; its last lines:\n%s", self._server.log)
            await self._start_again(pauses)

    async def _start_again(self, pauses: Any) -> None:
        from xml_pipeline.mesh.errors import MeshError

        for pause in pauses:
            await asyncio.sleep(pause)
            try:
                await self._server.stop()
                await self._server.start()
            except (MeshError, OSError) as error:
                _log.error("it cannot be started again: %s", error)
                continue
            _log.warning("it was started again, as process %d", self._server.pid)
            return self._keep_record()
        raise CommandFailed("error: the nats-server ends again and again; it was given up")


def _this_process() -> ProcessId:
    process = ProcessId.of(os.getpid())
    assert process is not None  # it is running this
    return process


def _look_at_port(port: int) -> None:
    """Refuse a port that is taken in words of ours; the server finds out, too, but in many more."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise CommandFailed(
                f"error: port {port} may not be used by you; choose one above 1023 with --port"
            ) from None
        except OSError:
            raise CommandFailed(
                f"error: port {port} is taken by another program; choose another one with --port, or 0 for any"
            ) from None


def supervise_in_background(order: Order, status: int) -> Exit:
    """What the process in the background does.

    Args:
        order: what it is to start.
        status: descriptor of the pipe on which whoever started it waits for the `Report`.

    Returns:
        Its exit code.
    """
    _log_to_file(StateFolder(Path(order.state)).log)

    def report(what: Report) -> None:
        nonlocal status
        told, status = status, -1
        if told >= 0:
            with contextlib.suppress(BrokenPipeError):  # whoever started it has gone; it stays
                os.write(told, what.text().encode())
            os.close(told)

    try:
        asyncio.run(_run(order, report))
    except CommandFailed as failed:
        _log.error("%s", failed)
        report(Report(errors=failed.lines, code=failed.code))
        return failed.code
    except Exception as error:
        _log.exception("it broke")
        report(Report(errors=(f"error: {type(error).__name__}: {error}",), code=Exit.FAILED))
        return Exit.FAILED
    return Exit.OK


async def _run(order: Order, report: Callable[[Report], object]) -> None:
    await Supervisor(order).run(report)


def _log_to_file(path: Path) -> None:
    """Everything since the start, but never more than two files of it."""
    handler = logging.handlers.RotatingFileHandler(path, mode="a", maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-8s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("xml_pipeline.mesh.server").setLevel(logging.DEBUG)  # what the server itself says
