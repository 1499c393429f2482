"""The file ``.oam-url``: it tells everybody in its directory and below where the mesh is.

It has one of two forms, both of which peers write: a URL on its first line that is not blank, or TOML::

    nats://127.0.0.1:4222                       url = "tls://mesh.example.org:4222"
                                                creds = "me.creds"

A relative path of credentials is relative to the file.
"""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xml_pipeline.mesh.errors import ConnectionFailed
from xml_pipeline.mesh.url import check_port, without_password

__all__ = ["POINTER_NAME", "Pointer", "check_url", "nearest_pointer", "read_pointer", "remove_pointer", "write_pointer"]

POINTER_NAME = ".oam-url"

_LONGEST = 65_536
_ADDRESS = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?[^\s\"'<>\\/?#]+/?")
_SCHEMES = ("nats", "tls", "ws", "wss")


@dataclass(frozen=True, slots=True)
class Pointer:
    """What one such file says.

    Args:
        path: of the file.
        url: where the mesh is; empty where it does not say.
        creds: path of a credentials file; empty for none.
    """

    path: Path
    url: str = ""
    creds: str = ""


def check_url(url: str) -> str:
    """The URL, if one can connect to it: ``nats://host:port``, ``tls://...``, or several, joined by commas.

    Raises:
        ValueError: it is none; the text says why.
    """
    for part in url.split(","):
        found = _ADDRESS.fullmatch(part.strip())
        if found is None or (found["scheme"] or "nats").lower() not in _SCHEMES:
            raise ValueError(
                f"{without_password(url)[:200]!r} is not the URL of a mesh; write e.g. nats://localhost:4222"
            )
        check_port(part.strip())
    return url


def nearest_pointer(folder: Path | None = None) -> Pointer | None:
    """The nearest file, looked for from a directory upwards.

    Args:
        folder: where to begin; ``None`` for the current directory.

    Raises:
        ConnectionFailed: there is one, and it cannot be read.
    """
    try:
        start = Path.cwd() if folder is None else folder
    except FileNotFoundError:  # somebody removed the directory that we are in
        return None
    for place in (start, *start.parents):
        path = place / POINTER_NAME
        with contextlib.suppress(OSError):  # a directory that we may not look into
            if path.is_file():
                return read_pointer(path)
    return None


def read_pointer(path: Path) -> Pointer:
    """What the file says.

    Raises:
        ConnectionFailed: it cannot be read, or says nothing that makes sense.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConnectionFailed(f"{path} cannot be read: {reason}.") from error
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # a URL is not TOML
        return _from_line(path, next(filter(None, map(str.strip, text.splitlines())), ""))
    return _from_toml(path, found)


def _from_line(path: Path, line: str) -> Pointer:
    try:
        return Pointer(path, check_url(line))
    except ValueError as error:
        raise ConnectionFailed(f'{path}: {error}, or TOML: url = "..."') from error


def _from_toml(path: Path, found: dict[str, Any]) -> Pointer:
    url, creds = found.get("url", ""), found.get("creds", "")
    if found and not (url or creds):
        raise ConnectionFailed(f"{path} has neither `url` nor `creds`; it has {', '.join(sorted(found))}.")
    if not (isinstance(url, str) and isinstance(creds, str)):
        raise ConnectionFailed(f"{path}: `url` and `creds` are texts in quotation marks.")
    try:
        checked = check_url(url) if url else ""
    except ValueError as error:
        raise ConnectionFailed(f"{path}: {error}") from error
    return Pointer(path, checked, str(path.parent / Path(creds).expanduser()) if creds else "")


def write_pointer(folder: Path, url: str, *, replace: bool = False) -> Path:
    """Write the file, in the form that every peer reads.

    Args:
        folder: where.
        url: what it is to say.
        replace: whether to replace one that is there.

    Returns:
        Its path.

    Raises:
        FileExistsError: there is one.
        OSError: it cannot be written.
    """
    path = folder / POINTER_NAME
    if not replace:
        with path.open("x", encoding="utf-8") as file:
            file.write(_text(url))
        return path
    # Beside it first: nobody is to read half of it, whatever happens meanwhile.
    beside = folder / f"{POINTER_NAME}.{os.getpid()}"
    try:
        beside.write_text(_text(url), encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def remove_pointer(path: Path, url: str) -> bool:
    """Remove the file, if it still says what was written to it.

    Args:
        path: of the file.
        url: what `write_pointer` was told.

    Returns:
        Whether it was removed.
    """
    try:
        if path.read_bytes() != _text(url).encode():
            return False
        path.unlink()
    except OSError:
        return False
    return True


def _text(url: str) -> str:
    return f"{url}\n"
