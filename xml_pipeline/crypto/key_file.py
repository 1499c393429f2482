"""Files that hold keys: a private one is readable by its owner only, from the first moment on.

Reading does as ssh does: a key file of one's own that others can read, or change, is not used (OpenSSH,
``sshkey_perm_ok``); for a file of somebody else, say one that an orchestrator mounted, its owner decides. Writing makes
the whole file under another name first, so that nobody ever sees half a key, and nothing is overwritten unawares.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import stat
from pathlib import Path
from typing import Final

from xml_pipeline.crypto.refusals import IdentityError

__all__ = ["how_to_make", "read_key_file", "write_key_file"]

_MAX_BYTES: Final = 65_536
"""Far more than any key; a device or a wrong file is not read to its end."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_key_file(path: str | os.PathLike[str], *, private: bool) -> bytes:
    """All of a key file.

    Args:
        path: where it is.
        private: whether it must be closed to others.

    Raises:
        IdentityError: there is none, it is no file, too large, or a private one is open to others.
    """
    where = Path(path)
    try:
        # Without O_NONBLOCK, opening a pipe would wait for whoever writes to it.
        descriptor = os.open(where, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        hint = f"; make one with: {how_to_make(where)}" if private else ""
        raise IdentityError(f"key file not found: {where}{hint}") from None
    except (OSError, ValueError) as error:
        raise IdentityError(f"Failed to load the key file {where}: {_why(error)}") from None
    try:
        _check(where, os.fstat(descriptor), private)
        content = _first_bytes(descriptor, _MAX_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"Failed to load the key file {where}: {_why(error)}") from None
    finally:
        os.close(descriptor)
    if len(content) > _MAX_BYTES:
        raise IdentityError(f"Failed to load the key file {where}: it is too large to be a key")
    return content


def how_to_make(path: str | os.PathLike[str]) -> str:
    """The command that writes this private key, to be copied into a shell."""
    return f"xml-pipeline keygen --output {shlex.quote(os.fspath(path))}"


def _first_bytes(descriptor: int, count: int) -> bytes:
    content = b""
    while len(content) < count and (piece := os.read(descriptor, count - len(content))):
        content += piece
    return content


def _check(where: Path, status: os.stat_result, private: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise IdentityError(f"Failed to load the key file {where}: it is not a regular file")
    # Windows has no such modes.
    if private and hasattr(os, "getuid") and status.st_uid == os.getuid() and status.st_mode & _OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise IdentityError(
            f"Failed to load the key file {where}: others can reach it (mode {mode:04o}), so it is not used; "
            f"close it with: chmod 600 {where} - and make a new key if somebody may have read it"
        )


def write_key_file(path: str | os.PathLike[str], content: bytes, *, private: bool, overwrite: bool = False) -> None:
    """Write a key file, all of it or none.

    Args:
        path: where; its directory must exist.
        content: what to write.
        private: mode 0600 instead of 0644.
        overwrite: whether a file that is there is replaced.

    Raises:
        IdentityError: there is a file already and ``overwrite`` is not set, or it cannot be written.
    """
    where = Path(path)
    draft = where.with_name(f".{where.name}.{secrets.token_hex(8)}")
    try:
        try:
            _write(draft, content, 0o600 if private else 0o644)
            if overwrite:
                os.replace(draft, where)
            else:
                _put(draft, where)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
    except FileExistsError:
        raise IdentityError(f"{where} exists already, and is not overwritten") from None
    except (OSError, ValueError) as error:
        raise IdentityError(f"the key file {where} cannot be written: {_why(error)}") from None


def _write(path: Path, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put(draft: Path, where: Path) -> None:
    """Give the file its name, unless that is taken: in one step, which ``rename`` is not."""
    try:
        os.link(draft, where)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(where):
            raise FileExistsError from None
        os.rename(draft, where)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
