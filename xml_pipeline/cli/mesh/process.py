"""A process that is told apart from a later one with the same number."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ProcessId"]

_LOOK: Final = 0.02
"""Seconds between two looks at a process that is nobody's child here, so that its end cannot be awaited."""
_ENDED: Final = ("Z", "X")
"""A process that has ended, and of which only its parent does not know yet."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process.

    Args:
        pid: its number, which may be another's once it has ended.
        started: when it was started, as the system tells it; never the same for two processes of one number.
    """

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has the number now; ``None`` if none has, or it has ended."""
        if pid <= 0:
            return None
        started = _started_in_proc(pid) if sys.platform == "linux" else _started_by_ps(pid)
        return cls(pid, started) if started else None

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return ProcessId.of(self.pid) == self

    def signal(self, number: int) -> bool:
        """Send it a signal; never to another process that has taken its number.

        Returns:
            Whether it was there.

        Raises:
            PermissionError: it belongs to somebody else.
        """
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "linux":
                return self._signal_exactly(number)
            if self.is_alive:
                os.kill(self.pid, number)
                return True
        return False

    def _signal_exactly(self, number: int) -> bool:
        import signal

        process = os.pidfd_open(self.pid)
        try:
            if not self.is_alive:
                return False
            signal.pidfd_send_signal(process, number)  # the one that was alive a moment ago, or none
            return True
        finally:
            os.close(process)

    def wait(self, timeout: float) -> bool:
        """Wait for its end.

        Args:
            timeout: in seconds.

        Returns:
            Whether it has ended.
        """
        deadline = time.monotonic() + timeout
        while self.is_alive:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True


def _started_in_proc(pid: int) -> str:
    """See proc(5): after the name in brackets, the state is the first field, and the start, in ticks, the twentieth."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if len(fields) < 20 or fields[0] in _ENDED else fields[19]


def _started_by_ps(pid: int) -> str:
    command = ["ps", "-o", "state=", "-o", "lstart=", "-p", str(pid)]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split(maxsplit=1)
    except OSError:
        return ""
    return "" if len(told) < 2 or told[0][:1] in _ENDED else told[1].strip()
