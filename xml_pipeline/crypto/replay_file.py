"""A replay window that is also on disk, so that what came in before a restart does not come in after it.

Each message is appended to the file, as one line, before it is let in: a few microseconds. What is written survives the
process, however it ends; it is not forced to the disk, so a power failure may take the last seconds with it. When most
of the lines are about what is forgotten, the file is written anew under another name, and put in the old one's place.

The first line says up to which time of signing nothing is let in. A last line without its end was not let in. A file
that is missing, or damaged in any other way, leads to a window that knows nothing; that is safe, and refuses what is
signed in the first ``tolerance`` seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from xml_pipeline.crypto.refusals import Reason
from xml_pipeline.crypto.replay import CAPACITY, MAX_AGE, TOLERANCE, ReplayWindow, Seen
from xml_pipeline.errors import ConfigurationError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["ReplayFile"]

_logger = logging.getLogger(__name__)

_HEAD: Final = re.compile(rb"xml-pipeline replay window 1 (-inf|-?[0-9.e+\-]+)")
_LINE: Final = re.compile(rb"(-?[0-9.e+\-]+) ([A-Za-z0-9_\-]{43}) ([A-Za-z0-9._:\-]{1,128})")
_SPARE_LINES: Final = 1_000
"""So many lines may be about what is forgotten before a small file is written anew."""


class ReplayFile:
    """A `ReplayWindow` with a file. May be used from several threads, by one process at a time.

    Args:
        path: the file; its directory must exist. Made, with mode 0600, if it is not there.
        max_age: see `ReplayWindow`.
        tolerance: see `ReplayWindow`.
        capacity: see `ReplayWindow`.
        clock: see `ReplayWindow`.
        floor: see `ReplayWindow`; for when there is no file yet.

    Raises:
        ConfigurationError: another process uses the file, or it cannot be read or written.
        ValueError: see `ReplayWindow`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_age: float = MAX_AGE,
        tolerance: float = TOLERANCE,
        capacity: int = CAPACITY,
        clock: Callable[[], float] = time.time,
        floor: float | None = None,
    ) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._lines = 0
        self._file = self._guard = -1
        try:
            self._guard = self._exclusive()
            floor, seen = self._read(floor)
            self._window = ReplayWindow(
                max_age=max_age, tolerance=tolerance, capacity=capacity, clock=clock, floor=floor, seen=seen
            )
            self._write_anew()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise ConfigurationError(f"the replay window {self._path} cannot be used: {error.strerror}") from None
            raise

    def admit(self, seen: Seen) -> Reason | None:
        """See `ReplayGuard.admit`. Further reason: ``replay-window-unusable``, when it cannot be written down."""
        line = _line(seen)
        with self._lock:
            reason = self._window.admit(seen)
            if reason is not None:
                return reason
            try:
                if self._file < 0 or self._lines > 2 * len(self._window) + _SPARE_LINES:
                    self._write_anew()  # with this one in it
                else:
                    self._append(line)
            except OSError as error:
                # Half a line may be there; nothing is appended to it.
                self._leave()
                _logger.error("the replay window %s cannot be written: %s", self._path, error.strerror)
                return Reason.WINDOW_UNUSABLE
        return None

    def close(self) -> None:
        """Let another process use the file. Nothing is let in any more."""
        with self._lock:
            self._leave()
            if self._guard >= 0:
                os.close(self._guard)
                self._guard = -1

    def _exclusive(self) -> int:
        guard = os.open(self._beside("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl is not None:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(guard)
                raise ConfigurationError(f"the replay window {self._path} is in use by another process") from None
        return guard

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{suffix}")

    def _read(self, floor: float | None) -> tuple[float | None, list[Seen]]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return floor, []
        try:
            return _parsed(content)
        except ValueError as error:
            _logger.warning("the replay window %s is damaged (%s); it begins anew", self._path, error)
            return None, []

    def _write_anew(self) -> None:
        """Replace the file by one with what is remembered now, and go on with that."""
        if self._guard < 0:
            raise OSError(0, "it is closed")
        floor, seen = self._window.snapshot()
        draft = self._beside("new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)  # of somebody who was killed meanwhile
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            _write(file, b"".join([b"xml-pipeline replay window 1 %r\n" % floor, *map(_line, seen)]))
            os.replace(draft, self._path)
        except BaseException:
            os.close(file)
            raise
        self._leave()
        self._file = file
        self._lines = len(seen)

    def _append(self, line: bytes) -> None:
        _write(self._file, line)
        self._lines += 1

    def _leave(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _line(seen: Seen) -> bytes:
    return f"{seen.created!r} {seen.key_id} {seen.message_id}\n".encode()


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _parsed(content: bytes) -> tuple[float, list[Seen]]:
    head, *lines = content.split(b"\n")
    if not lines:
        raise ValueError("it has no first line")
    lines.pop()  # what follows the last line break: nothing, or a line that was not let in
    begin = _HEAD.fullmatch(head)
    if begin is None:
        raise ValueError("its first line is none of a replay window")
    seen = []
    for number, line in enumerate(lines, 2):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} cannot be read")
        seen.append(Seen(match[2].decode(), match[3].decode(), float(match[1])))
    return float(begin[1]), seen
