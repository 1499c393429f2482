"""Watching an organism's files, for ``run --reload``."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

__all__ = ["broken_source", "changes", "loaded_sources"]


def loaded_sources() -> set[Path]:
    """The source files of the modules that are loaded, without Python's own and installed ones."""
    foreign = [_resolved(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py"):
            path = _resolved(file)
            if not any(path.is_relative_to(directory) for directory in foreign):
                found.add(path)
    return found


async def changes(config: Path, *, since: float, any_source: bool = False) -> AsyncIterator[set[Path]]:
    """What has changed, again and again: the configuration, ``.env`` beside it, or a loaded source file.

    The directories are watched, not the files: editors replace a file by a new one.

    Args:
        config: the organism's file.
        since: what has changed after this moment, in seconds since the epoch, counts, although nobody watched then.
        any_source: also source files below the organism's directory that are not loaded.
    """
    from watchfiles import awatch

    config = _resolved(config)
    settings = {config, config.with_name(".env")}
    while True:
        sources = loaded_sources()
        wanted = settings | sources | (set(config.parent.rglob("*.py")) if any_source else set())

        def is_wanted(_: object, path: str, wanted: Iterable[Path] = wanted) -> bool:
            return _resolved(path) in wanted or (any_source and path.endswith(".py"))

        directories = {config.parent, *(path.parent for path in wanted)}
        batches = awatch(*directories, watch_filter=is_wanted, recursive=False, debounce=400)
        following = asyncio.ensure_future(anext(batches))
        try:
            await asyncio.sleep(0)  # its first step: from now on it watches
            missed = {path for path in wanted if _changed_since(path, since)}
            if missed:
                since = time.time()
                yield missed
            while loaded_sources() == sources:  # a reload may have imported more
                batch = await following
                since = time.time()
                following = asyncio.ensure_future(anext(batches))
                yield {_resolved(path) for _, path in batch}
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await batches.aclose()


def _changed_since(path: Path, since: float) -> bool:
    try:
        changed = path.stat().st_mtime
    except OSError:
        return False
    return since < changed <= time.time()  # a clock that is ahead of ours must not make us start for ever


def _resolved(path: str | Path) -> Path:
    return Path(path).resolve()


def broken_source(path: Path) -> str | None:
    """What is wrong with a source file, in one line with its place; ``None`` if it can be compiled, or is gone."""
    try:
        compile(path.read_bytes(), str(path), "exec")
    except SyntaxError as error:
        return f"{path}:{error.lineno or 1}:{error.offset or 1} SyntaxError: {error.msg}"
    except ValueError as error:  # a NUL character
        return f"{path}: {error}"
    except OSError:
        return None
    return None
