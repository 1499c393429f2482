"""An organism that was to be started anew, and cannot be until somebody mends it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from xml_pipeline.cli.console import complain, say
from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.organism_file import find_file
from xml_pipeline.cli.signals import GRACE, StopSignals, Watchdog

__all__ = ["Waiting"]


class Waiting:
    """Waits until a file changes, or somebody says so with SIGHUP.

    Args:
        file: the organism's file, as it was named.
        since: what has changed after this moment, in seconds since the epoch, counts.
        failed: what is wrong with it.
    """

    def __init__(self, file: str | None, since: float, failed: CommandFailed) -> None:
        self._file = file
        self._since = since
        self._failed = failed
        self._signals: StopSignals | None = None

    @property
    def is_told(self) -> bool:
        """Whether it was told to stop."""
        return self._signals is not None and self._signals.is_told

    async def wait(self) -> Exit:
        """Show what is wrong, and wait. Returns when it is to be tried again, or when it was told to stop."""
        over = asyncio.Event()
        watchdog = Watchdog(GRACE, list, complain)
        self._signals = StopSignals(lambda why: over.set(), watchdog)
        self._signals.install()
        self._signals.on_hangup(over.set)
        complain(*self._failed.lines, "not started; waiting for a change")
        changed = asyncio.create_task(self._changed())
        told = asyncio.create_task(over.wait())
        await asyncio.wait([changed, told], return_when=asyncio.FIRST_COMPLETED)
        for task in (changed, told):
            task.cancel()
        results = await asyncio.gather(changed, told, return_exceptions=True)
        watchdog.cancel()
        if self.is_told:
            say("stopped; nothing was running")
        elif isinstance(results[0], Exception):
            raise results[0]
        return Exit.OK

    async def _changed(self) -> None:
        from xml_pipeline.cli.watching import changes

        async for _ in changes(Path(find_file(self._file)), since=self._since, any_source=True):
            return
