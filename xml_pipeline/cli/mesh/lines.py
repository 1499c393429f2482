"""Writing line by line, for as long as it takes whoever reads them."""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from types import TracebackType
from typing import Self

__all__ = ["Lines"]

_Job = tuple[bytes, asyncio.Future[None]]


class Lines:
    """Standard output, for a command whose event loop must not stand still; a context manager.

    A reader that stands still (``| less``) would stop the event loop, which then gives no sign of life, and the server
    would cut the connection. So a thread writes. It is a daemon, and writes to the descriptor itself: blocked as it may
    be, it never holds up the end of the process.
    """

    def __init__(self) -> None:
        self._descriptor = sys.stdout.fileno()
        self._encoding = sys.stdout.encoding or "utf-8"
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_all, daemon=True)

    def __enter__(self) -> Self:
        sys.stdout.flush()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.put(None)

    async def put(self, text: str) -> None:
        """Write a text and a line break, and wait until somebody has room for them.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        await self.put_bytes(f"{text}\n".encode(self._encoding, "backslashreplace"))

    async def put_bytes(self, data: bytes) -> None:
        """The same with bytes, as they are."""
        written: asyncio.Future[None] = self._loop.create_future()
        self._jobs.put((data, written))
        await written

    def _write_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            data, written = job
            error = self._write(data)
            try:
                self._loop.call_soon_threadsafe(_tell, written, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _write(self, data: bytes) -> OSError | None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            return error
        return None


def _tell(written: asyncio.Future[None], error: OSError | None) -> None:
    if written.done():  # whoever waited was cancelled
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
