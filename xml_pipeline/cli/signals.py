"""Signals of a server: SIGTERM and SIGINT stop it, a second one ends it at once, SIGHUP reloads."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from xml_pipeline.cli.exits import Exit

__all__ = ["StopSignals", "Watchdog"]

_ECHO: Final = 0.25
"""Seconds within which a second SIGTERM is the first one again, under ``make``."""


class Watchdog:
    """Ends the process when the event loop itself does not come back, because a handler blocks it.

    Args:
        seconds: after which to do so.
        names: tells whose handlers are running.
        write: shows the reason.
    """

    def __init__(self, seconds: float, names: Callable[[], list[str]], write: Callable[[str], object]) -> None:
        self._names = names
        self._write = write
        self._timer = threading.Timer(seconds, self._bite)
        self._timer.daemon = True

    def start(self) -> None:
        """Begin to wait; safe twice."""
        if not self._timer.is_alive():
            self._timer.start()

    def cancel(self) -> None:
        """It came back."""
        self._timer.cancel()

    def _bite(self) -> None:
        names = ", ".join(map(repr, self._names())) or "something"
        self._write(f"error: not stopped in time, the event loop is blocked; running: {names}")
        os._exit(Exit.FAILED)


class StopSignals:
    """Turns signals into calls on the event loop.

    They are Python-level handlers, not the loop's: the second signal is to work also when a handler blocks the loop.

    Args:
        stop: called once, on the loop, with the signal's name.
        reload: called on the loop for each SIGHUP.
        watchdog: started by the first signal.
    """

    def __init__(self, stop: Callable[[str], object], reload: Callable[[], object], watchdog: Watchdog) -> None:
        self._stop = stop
        self._watchdog = watchdog
        self._reload = reload
        self._loop = asyncio.get_running_loop()
        self._first: float | None = None

    def install(self) -> None:
        """Begin to listen. Only the main thread can."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self._on_hangup)

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
        self._loop.call_soon_threadsafe(self._reload)
