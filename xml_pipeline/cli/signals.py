"""Signals: SIGTERM and SIGINT stop a command, a second one ends it at once, SIGHUP reloads a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from xml_pipeline.cli.exits import Exit
from xml_pipeline.cli.hangups import was_held

__all__ = ["GRACE", "StopSignals", "Watchdog"]

GRACE: Final = 3.0
"""Seconds beyond its deadline that a command may take before the event loop counts as blocked."""

_ECHO: Final = 0.25
"""Seconds within which a second SIGTERM is the first one again, under ``make``."""


class Watchdog:
    """Ends the process when the event loop itself does not come back, because a handler blocks it.

    Args:
        seconds: after which to do so, counted from `start`, or from the last `feed`.
        names: tells whose handlers are running.
        write: shows the reason.
        code: the exit code.
    """

    def __init__(
        self,
        seconds: float,
        names: Callable[[], list[str]],
        write: Callable[[str], object],
        code: Exit = Exit.FAILED,
    ) -> None:
        self._seconds = seconds
        self._names = names
        self._write = write
        self._code = code
        self._deadline = 0.0
        self._came_back = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to wait; safe twice."""
        if self._thread.ident is None:
            self.feed()
            with contextlib.suppress(RuntimeError):  # a signal came just now, and its handler has started it
                self._thread.start()

    def feed(self) -> None:
        """The event loop is alive: begin to wait anew."""
        self._deadline = time.monotonic() + self._seconds

    def cancel(self) -> None:
        """It came back."""
        self._came_back.set()

    def _watch(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            if self._came_back.wait(min(left, threading.TIMEOUT_MAX)):
                return
        names = ", ".join(map(repr, self._names())) or "something"
        self._write(f"error: not stopped in time, the event loop is blocked; running: {names}")
        os._exit(self._code)


class StopSignals:
    """Turns signals into calls on the event loop.

    They are Python-level handlers, not the loop's: the second signal is to work also when a handler blocks the loop.

    Args:
        stop: called once, on the loop, with the signal's name.
        watchdog: started by the first signal.
    """

    def __init__(self, stop: Callable[[str], object], watchdog: Watchdog) -> None:
        self._stop = stop
        self._reload: Callable[[], object] = lambda: None
        self._watchdog = watchdog
        self._loop = asyncio.get_running_loop()
        self._first: float | None = None
        self._before: dict[int, Any] = {}
        self._bell: tuple[socket.socket, socket.socket] | None = None

    @property
    def is_told(self) -> bool:
        """Whether a signal to stop has come; also one that came too late for the event loop."""
        return self._first is not None

    def install(self) -> None:
        """Begin to listen to SIGTERM and SIGINT. Only the main thread can."""
        self._have_the_loop_woken()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_stop)

    def on_hangup(self, reload: Callable[[], object]) -> None:
        """Call ``reload`` on the loop for each SIGHUP from now on, and for one that came before."""
        self._reload = reload
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._on_hangup)
            if was_held():
                self._loop.call_soon(reload)

    def restore(self) -> None:
        """Leave SIGTERM and SIGINT to whom they were left before; the event loop is about to be closed."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._bell is not None:
            reader, writer = self._bell
            self._bell = None
            now = signal.set_wakeup_fd(-1)
            if now != writer.fileno():
                signal.set_wakeup_fd(now)  # somebody else's by now
            self._loop.remove_reader(reader)
            reader.close()
            writer.close()

    def _have_the_loop_woken(self) -> None:
        """Have the system's handler ring a bell that the loop hears.

        Without it, a signal that comes between the interpreter's last look and the loop's wait, or that another thread
        gets, is only noticed when something else ends the wait. Some loops, such as uvloop's, see to that themselves.
        """
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if before >= 0:
            signal.set_wakeup_fd(before)
            reader.close()
            writer.close()
            return
        self._bell = reader, writer
        self._loop.add_reader(reader, _hear, reader)

    def _on_stop(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self._watchdog.start()
            self._call(self._stop, signal.Signals(number).name)
            return
        if number == signal.SIGTERM and "MAKELEVEL" in os.environ and now - self._first < _ECHO:
            return  # make passes SIGTERM on to its children, so that one sent to the process group comes twice
        os.write(2, b"stopped at once\n")
        os._exit(Exit.INTERRUPTED)

    def _on_hangup(self, number: int, frame: Any) -> None:
        self._call(self._reload)

    def _call(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to end
            self._loop.call_soon_threadsafe(callback, *args)


def _hear(bell: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        bell.recv(4096)  # the handlers themselves were called when the loop woke
