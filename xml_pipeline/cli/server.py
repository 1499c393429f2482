"""An organism that serves until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import TYPE_CHECKING

from xml_pipeline.cli.console import complain, counted, say
from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.hangups import ignore_hangups
from xml_pipeline.cli.signals import GRACE, StopSignals, Watchdog

if TYPE_CHECKING:
    from xml_pipeline.cli.conversation import Message
    from xml_pipeline.message_bus.statistics import ShutdownReport
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["Server"]


class Server:
    """One run of an organism.

    Args:
        path: its file, which has been looked through.
        timeout: seconds to drain when it stops.
        first: sent when it has started.
        watch_since: reload it when its file has changed since this moment (in seconds since the epoch), and stop it, to
            be started anew, when its source has; ``None`` to watch nothing.
        mesh_url: of the mesh's server, in the place of the file's; ``None`` for that.
    """

    def __init__(
        self,
        path: str,
        *,
        timeout: float,
        first: Message | None,
        watch_since: float | None,
        mesh_url: str | None = None,
    ) -> None:
        self._path = path
        self._timeout = timeout
        self._first = first
        self._watch_since = watch_since
        self._mesh_url = mesh_url
        self._told_to_stop = asyncio.Event()
        self._is_source_changed = False
        self._pump: StreamPump | None = None
        self._signals: StopSignals
        self._watchdog: Watchdog

    @property
    def is_to_restart(self) -> bool:
        """Whether it has stopped to be started anew; who was told to stop meanwhile stops for good."""
        return self._is_source_changed and not self._signals.is_told

    async def serve(self) -> Exit:
        """Start, serve until a signal, drain, report.

        Returns:
            `Exit.OK` after everything was finished.
        """
        self._watchdog = Watchdog(self._timeout + GRACE, self._busy, complain)
        self._signals = StopSignals(self._stop_for_good, self._watchdog)
        self._signals.install()
        try:
            self._pump = pump = await self._started()
            return Exit.OK if pump is None else await self._serve(pump)
        finally:
            self._watchdog.cancel()

    async def _started(self) -> StreamPump | None:
        """The pump, ready to run; ``None`` if it was told to stop before that."""
        from xml_pipeline.errors import ConfigurationError
        from xml_pipeline.organism import bootstrap

        starting = asyncio.create_task(bootstrap(self._path, mesh_url=self._mesh_url))
        told = asyncio.create_task(self._told_to_stop.wait())
        await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
        for task in (told, starting):
            task.cancel()  # it has no effect on what is done
        try:
            return await starting
        except asyncio.CancelledError:
            if not self._told_to_stop.is_set():
                raise
            say("stopped before it was running")
            return None
        except ConfigurationError as error:
            raise CommandFailed(f"error: {error}", code=Exit.FAILED) from error

    async def _serve(self, pump: StreamPump) -> Exit:
        _set_heap_aside()
        running = asyncio.create_task(pump.run())
        self._greet(pump)
        self._signals.on_hangup(self._reload)
        tasks = [asyncio.create_task(self._told_to_stop.wait()), running]
        helpers = [asyncio.create_task(self._send_first(pump))] if self._first is not None else []
        if self._watch_since is not None:
            helpers.append(asyncio.create_task(self._follow(self._watch_since)))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        report = await pump.shutdown(self._timeout)
        for helper in helpers:
            helper.cancel()
        broken = (await asyncio.gather(running, return_exceptions=True))[0]
        if self.is_to_restart:
            ignore_hangups()  # the new program reads everything anew
        if isinstance(broken, BaseException):
            complain(f"error: the pump broke: {type(broken).__name__}: {broken}")
            return Exit.FAILED
        return self._report(report)

    def _greet(self, pump: StreamPump) -> None:
        from xml_pipeline.organism import own_mesh_url

        config = pump.config
        users = [listener for listener in pump.listeners.values() if not listener.is_system]
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        say(
            f"organism {config.name!r} is running: {counted(len(users), 'listener')} from {self._path} ({loop}); "
            "Ctrl-C stops it",
            style="bold",
        )
        if config.mesh is not None and (url := own_mesh_url(pump)):
            say(f"its mesh is at {url} as long as it runs")  # nobody could know the port

    async def _send_first(self, pump: StreamPump) -> None:
        from xml_pipeline.cli.conversation import converse
        from xml_pipeline.cli.views import TextView

        if self._first is not None:
            with TextView(pump, self._first.from_id) as view:
                await converse(pump, self._first, view)

    # -- stopping -----------------------------------------------------------------------------------------------

    def _stop_for_good(self, signal: str) -> None:
        if self._told_to_stop.is_set():
            say(f"stopping for good ({signal}), it is not started anew")
        self._stop(signal)

    def _stop(self, why: str) -> None:
        if self._told_to_stop.is_set():
            return
        self._watchdog.start()
        self._told_to_stop.set()
        if self._pump is not None:
            left = self._pump.statistics().in_flight
            say(f"stopping ({why}): {counted(left, 'message')} to finish, at most {self._timeout:g} s")

    def _busy(self) -> list[str]:
        if self._pump is None:
            return []
        return [listener.name for listener in self._pump.statistics().listeners if listener.running]

    def _report(self, report: ShutdownReport) -> Exit:
        counts = [f"{count} {outcome}" for outcome, count in sorted(report.outcomes.items()) if count]
        outcomes = ", ".join(counts) or "none"
        if report.drained and not report.hung:
            say(f"stopped after {report.seconds:.1f} s, everything was finished; messages: {outcomes}")
            return Exit.OK
        say(f"stopped after {report.seconds:.1f} s; messages: {outcomes}")
        verb = "was" if report.cancelled == 1 else "were"
        left = f"{counted(report.cancelled, 'message')} {verb} not finished in {self._timeout:g} s"
        names = ", ".join(map(repr, report.hung))
        complain("error: " + "; ".join(filter(None, [left, names and f"still at work: {names}"])))
        return Exit.FAILED

    # -- reloading ----------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        if self._pump is None:
            return
        if self._told_to_stop.is_set():
            say(f"{self._path} is not reloaded, for it is stopping")  # what would begin now could not be served
            return
        event = self._pump.reload_config()
        if not event.success:
            complain(*(event.error or "").splitlines())
            complain(f"{self._path} was not reloaded, the old configuration is in force")
            return
        lists = {"added": event.added_listeners, "removed": event.removed_listeners, "updated": event.updated_listeners}
        changed = "; ".join(f"{what} {', '.join(names)}" for what, names in lists.items() if names)
        say(f"reloaded {self._path}: {changed or 'no listener changed'}")

    async def _follow(self, since: float) -> None:
        """Reload or restart as files change."""
        from xml_pipeline.cli.watching import broken_source, changes

        async for paths in changes(Path(self._path), since=since):
            if self._told_to_stop.is_set():
                say(f"{_names(paths)} changed, for the next start")
                continue
            sources = {path for path in paths if path.suffix == ".py"}
            faults = [fault for path in sorted(sources) if (fault := broken_source(path)) is not None]
            if faults:
                complain(*faults, "not restarted, the old code is running")
            elif sources:
                self._is_source_changed = True
                self._stop(f"{_names(sources)} changed")
                return
            elif paths:
                self._reload()


def _set_heap_aside() -> None:
    """What was made until now lives as long as the process. The garbage collector need not look at it again: each time
    it would hold up all conversations for tens of milliseconds, and find nothing."""
    gc.collect()
    gc.freeze()


def _names(paths: set[Path]) -> str:
    return ", ".join(sorted(path.name for path in paths))
