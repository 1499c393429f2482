"""Signals: SIGTERM and SIGINT stop a command, a second one ends it at once, SIGHUP reloads a server."""

from __future__ import annotations

import asyncio
import os
import signal
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
        reload: called on the loop for each SIGHUP, also for one that came before; ``None`` to leave SIGHUP alone.
        watchdog: started by the first signal.
    """

    def __init__(self, stop: Callable[[str], object], reload: Callable[[], object] | None, watchdog: Watchdog) -> None:
        self._stop = stop
        self._watchdog = watchdog
        self._reload = reload
        self._loop = asyncio.get_running_loop()
        self._first: float | None = None
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Begin to listen. Only the main thread can."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._on_stop)
        if self._reload is not None and hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._on_hangup)
            if was_held():
                self._loop.call_soon(self._reload)

    def restore(self) -> None:
        """Leave SIGTERM and SIGINT to whom they were left before; the event loop is about to be closed."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_stop(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self._watchdog.start()
            self._loop.call_soon_threadsafe(self._stop, signal.Signals(number).name)
            return
        if number == signal.SIGTERM and "MAKELEVEL" in os.environ and now - self._first < _ECHO:
            return  # make passes SIGTERM on to its children, so that one sent to the process group comes twice
        os.write(2, b"stopped at once\n")
        os._exit(Exit.INTERRUPTED)

    def _on_hangup(self, number: int, frame: Any) -> None:
        if self._reload is not None:
            self._loop.call_soon_threadsafe(self._reload)
