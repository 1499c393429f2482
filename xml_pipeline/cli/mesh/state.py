"""What is known of the mesh that ``mesh up`` has started: one for each user, in a directory of its own.

======== ==============================================================================
File     holds
======== ==============================================================================
``lock`` nothing; it is locked for as long as the process lives that looks after the mesh
``up``   the `Record` of that process; after a crash, it stays behind
``log``  what that process, and the server, had to say since its start
``data`` the server's files, unless another directory was given
======== ==============================================================================

Whether the mesh is up is decided by the process that the record names, not by the record: see `ProcessId`.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from xml_pipeline.cli.exits import CommandFailed
from xml_pipeline.cli.mesh.process import ProcessId

__all__ = ["Lock", "Record", "StateFolder"]


@dataclass(frozen=True, slots=True)
class Record:
    """One mesh that was started here.

    Args:
        supervisor: the process that looks after it.
        server: that of the nats-server; ``None`` while it is being started.
        url: where it is; empty while it is being started.
        store: the directory of the server's files.
        pointer: the ``.oam-url`` that was written; empty for none.
    """

    supervisor: ProcessId
    server: ProcessId | None = None
    url: str = ""
    store: str = ""
    pointer: str = ""

    @classmethod
    def read(cls, text: str) -> Record | None:
        """What the file holds; ``None`` if that makes no sense."""
        try:
            found = json.loads(text)
            supervisor, server = found["supervisor"], found["server"]
            texts = (str(found[name]) for name in ("url", "store", "pointer"))
            return cls(_process(supervisor), _process(server) if server else None, *texts)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def text(self) -> str:
        """What `read` reads."""
        return json.dumps(asdict(self), indent=2) + "\n"


def _process(found: dict[str, Any]) -> ProcessId:
    return ProcessId(int(found["pid"]), str(found["started"]))


class Lock:
    """A lock on a file, which the system takes back when the process ends, however it ends.

    Args:
        path: of the file; it is made, and never removed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def take(self) -> bool:
        """Take it, if nobody has it.

        Returns:
            Whether it is ours now.
        """
        import fcntl

        file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Give it back. Safe twice."""
        if self._file is not None:
            self._file.close()
            self._file = None


class StateFolder:
    """The directory.

    Args:
        path: where; ``None`` for ``$XDG_STATE_HOME/xml-pipeline/mesh``, which is below ``~/.local/state`` by default.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = _default() if path is None else path
        self.lock = self.path / "lock"
        self.log = self.path / "log"
        self.data = self.path / "data"
        self._record = self.path / "up"

    def make(self) -> None:
        """Make it, for nobody else to read.

        Raises:
            CommandFailed: it cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CommandFailed(
                f"error: {self.path} cannot be made: {error.strerror}; XDG_STATE_HOME chooses another place"
            ) from None

    def record(self) -> Record | None:
        """What was last written; ``None`` if nothing was, or it makes no sense."""
        try:
            return Record.read(self._record.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return None

    def must_be_down(self) -> None:
        """Refuse to go on while the process that the record names is there.

        Raises:
            CommandFailed: it is.
        """
        record = self.record()
        if record is not None and record.supervisor.is_alive:
            where = f"up already, at {record.url}" if record.url else "being started already"
            raise CommandFailed(
                f"error: the mesh is {where} (process {record.supervisor.pid}); to stop it: xml-pipeline mesh down"
            )

    def write(self, record: Record) -> None:
        """Replace the record; nobody ever reads half of it."""
        beside = self._record.with_suffix(".new")
        beside.write_text(record.text(), encoding="utf-8")
        beside.replace(self._record)

    def forget(self) -> None:
        """Remove the record."""
        with contextlib.suppress(FileNotFoundError):
            self._record.unlink()


def _default() -> Path:
    try:
        named = os.environ.get("XDG_STATE_HOME", "")
        # A relative path is to be ignored, says the XDG Base Directory Specification.
        home = Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        raise CommandFailed("error: there is no home directory; XDG_STATE_HOME chooses another place") from None
    return home / "xml-pipeline" / "mesh"
