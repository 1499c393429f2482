"""An organism that serves until it is told to stop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from xml_pipeline.cli.console import complain, counted, say
from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.organism_file import find_file
from xml_pipeline.cli.signals import GRACE, StopSignals, Watchdog

if TYPE_CHECKING:
    from xml_pipeline.cli.conversation import Message
    from xml_pipeline.message_bus.statistics import ShutdownReport
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["Server", "wait_for_change"]


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
        self.is_to_restart = False
        self._path = path
        self._timeout = timeout
        self._first = first
        self._watch_since = watch_since
        self._mesh_url = mesh_url
        self._told_to_stop = asyncio.Event()
        self._pump: StreamPump
        self._watchdog: Watchdog

    async def serve(self) -> Exit:
        """Start, serve until a signal, drain, report.

        Returns:
            `Exit.OK` after everything was finished.
        """
        from xml_pipeline.errors import ConfigurationError
        from xml_pipeline.organism import bootstrap

        try:
            self._pump = pump = await bootstrap(self._path, mesh_url=self._mesh_url)
        except ConfigurationError as error:
            raise CommandFailed(f"error: {error}", code=Exit.FAILED) from error
        self._watchdog = Watchdog(self._timeout + GRACE, self._busy, complain)
        StopSignals(self._stop, self._reload, self._watchdog).install()
        running = asyncio.create_task(pump.run())
        self._greet()
        tasks = [asyncio.create_task(self._told_to_stop.wait()), running]
        helpers = [asyncio.create_task(self._send_first())] if self._first is not None else []
        if self._watch_since is not None:
            helpers.append(asyncio.create_task(self._follow(self._watch_since)))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        report = await pump.shutdown(self._timeout)
        for helper in helpers:
            helper.cancel()
        broken = (await asyncio.gather(running, return_exceptions=True))[0]
        self._watchdog.cancel()
        if isinstance(broken, BaseException):
            complain(f"error: the pump broke: {type(broken).__name__}: {broken}")
            return Exit.FAILED
        return self._report(report)

    def _greet(self) -> None:
        from xml_pipeline.organism import own_mesh_url

        config = self._pump.config
        users = [listener for listener in self._pump.listeners.values() if not listener.is_system]
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        say(
            f"organism {config.name!r} is running: {counted(len(users), 'listener')} from {self._path} ({loop}); "
            "Ctrl-C stops it",
            style="bold",
        )
        if config.mesh is not None and (url := own_mesh_url(self._pump)):
            say(f"its mesh is at {url} as long as it runs")  # nobody could know the port

    async def _send_first(self) -> None:
        from xml_pipeline.cli.conversation import converse
        from xml_pipeline.cli.views import TextView

        if self._first is not None:
            with TextView(self._pump, self._first.from_id) as view:
                await converse(self._pump, self._first, view)

    # -- stopping -----------------------------------------------------------------------------------------------

    def _stop(self, why: str) -> None:
        if self._told_to_stop.is_set():
            return
        self._watchdog.start()
        self._told_to_stop.set()
        left = self._pump.statistics().in_flight
        say(f"stopping ({why}): {counted(left, 'message')} to finish, at most {self._timeout:g} s")

    def _busy(self) -> list[str]:
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
            sources = {path for path in paths if path.suffix == ".py"}
            faults = [fault for path in sorted(sources) if (fault := broken_source(path)) is not None]
            if faults:
                complain(*faults, "not restarted, the old code is running")
            elif sources:
                self.is_to_restart = True
                self._stop(f"{', '.join(sorted(path.name for path in sources))} changed")
                return
            elif paths:
                self._reload()


async def wait_for_change(file: str | None, since: float, failed: CommandFailed) -> Exit:
    """Show what is wrong with an organism that was to be started anew, and wait for somebody to mend it."""
    from xml_pipeline.cli.watching import changes

    complain(*failed.lines, "not started; waiting for a change")
    async for _ in changes(Path(find_file(file)), since=since, any_source=True):
        break
    return Exit.OK
