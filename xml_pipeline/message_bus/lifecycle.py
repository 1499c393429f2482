"""Starting, running and stopping a pump.

::

    NEW ── start ──> STARTED ── run ──> RUNNING ── shutdown ──> DRAINING ── all done, or deadline ──> STOPPED
     └───────────────── shutdown (nothing runs: what waits is cancelled) ────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from xml_pipeline.errors import HandlerError, PumpStopped
from xml_pipeline.message_bus.ledger import cancel_all
from xml_pipeline.message_bus.statistics import ShutdownReport
from xml_pipeline.message_bus.worker_pool import GRACE
from xml_pipeline.runtime import use_runtime

if TYPE_CHECKING:
    from xml_pipeline.message_bus.engine import Engine

__all__ = ["Lifecycle", "PumpState"]

logger = logging.getLogger(__name__)

_MAX_RESTARTS = 5
_RESTART_WINDOW = 60.0


class PumpState(enum.StrEnum):
    """See the module's drawing."""

    NEW = "new"
    STARTED = "started"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class Lifecycle:
    """One pump's way from new to stopped.

    Args:
        engine: the parts.
        drive: runs the pipeline until its source ends; called again if a stage breaks it.
        quiesce: called first, with the seconds there are, to take nothing more in from the world outside.
        close: called at the end, when no handler runs any more.
    """

    def __init__(
        self,
        engine: Engine,
        drive: Callable[[], Awaitable[None]],
        quiesce: Callable[[float], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self.state = PumpState.NEW
        self._engine = engine
        self._drive = drive
        self._quiesce = quiesce
        self._close = close
        self._task: asyncio.Task[None] | None = None
        self._ended: asyncio.Event | None = None
        self._driver: asyncio.Task[None] | None = None
        self.broken: Exception | None = None
        """Why it stopped, if its pipeline broke for good."""
        self._stopping: asyncio.Task[ShutdownReport] | None = None
        self._idle_waiters: list[asyncio.Future[None]] = []
        engine.ledger.on_idle = self._on_idle

    # -- running ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Process messages until `shutdown`. Returns when the pump has stopped.

        Raises:
            PumpStopped: it has stopped before; a pump runs once.
            RuntimeError: it is running already.
        """
        if self.state is PumpState.STOPPED:
            raise PumpStopped("a pump that has stopped cannot run again; make a new one")
        if self._ended is not None:
            raise RuntimeError("the pump is running already")
        ended = self._ended = asyncio.Event()
        if self.state is not PumpState.DRAINING:
            self.state = PumpState.RUNNING
        engine = self._engine
        completions = asyncio.create_task(engine.tell_completions())
        engine.sources.start()
        try:
            with use_runtime(engine.runtime):
                await self._supervise()
        except BaseException as exc:
            # Cancelled from outside, or broken for good: nobody may be left waiting.
            self.state = PumpState.STOPPED
            engine.scheduler.refuse()
            if isinstance(exc, Exception):
                self.broken = exc
            why = "was cancelled" if self.broken is None else f"broke: {type(exc).__name__}: {exc}"
            self._cancel_everything(f"the pump {why}")
            self._finish_leftovers()
            await engine.sources.stop()
            await engine.dispatcher.close()
            raise
        finally:
            completions.cancel()
            ended.set()
            self._on_idle()

    async def _supervise(self) -> None:
        """Drive the pipeline; when a stage breaks it, end what was inside, and go on with a new one."""
        failures: list[float] = []
        while True:
            self._driver = asyncio.create_task(self._drive())  # type: ignore[arg-type]
            try:
                await self._driver
                return
            except asyncio.CancelledError:
                if self.state is PumpState.DRAINING and not _is_being_cancelled():
                    return  # shutdown did not wait for a stage that would not end
                self._driver.cancel()
                await asyncio.wait((self._driver,))
                raise
            except Exception as exc:
                now = time.monotonic()
                failures = [at for at in failures if now - at < _RESTART_WINDOW] + [now]
                logger.exception("a stage broke the pipeline")
                failure = HandlerError(f"a stage of the pipeline raised {type(exc).__name__}: {exc}", step="pipeline")
                self._engine.recover(failure)
                if len(failures) > _MAX_RESTARTS:
                    raise

    def run_in_background(self) -> None:
        """Run in a task of our own, for ``async with``."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self.run())

    # -- idle ---------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether no message is without an outcome."""
        return not self._engine.mint.in_flight

    @property
    def _is_done(self) -> bool:
        """Whether it is idle, and nobody holds a conversation open."""
        return self.is_idle and not self._engine.registry.held

    async def _wait_done(self) -> None:
        while not self._is_done:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter

    async def wait_idle(self) -> None:
        """Wait until no message is without an outcome."""
        while not self.is_idle:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter
            if self._ended is not None and self._ended.is_set():
                return

    def _on_idle(self) -> None:
        waiters, self._idle_waiters = self._idle_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # -- stopping -----------------------------------------------------------------------------------------------

    async def shutdown(self, timeout: float) -> ShutdownReport:
        """Stop; see `StreamPump.shutdown`."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._shutdown(timeout))
        return await asyncio.shield(self._stopping)

    async def _shutdown(self, timeout: float) -> ShutdownReport:
        began = time.monotonic()
        engine = self._engine
        await self._leave_the_world(timeout)
        if self.state is not PumpState.STOPPED:
            self.state = PumpState.DRAINING
        engine.scheduler.refuse()
        await engine.sources.stop()
        running = self._ended is not None and not self._ended.is_set()
        if self._task is not None and self._ended is None:
            await asyncio.sleep(0)  # the background task was made and has not begun yet
            running = self._ended is not None
        if running:
            await self._drain(max(0.0, began + timeout - time.monotonic()))
        drained = self._is_done
        busy = self._busy_listeners()
        cancelled = self._cancel_everything("the pump stopped before this was done")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await engine.dispatcher.turns.wait_until_at_rest()
        hung = await engine.dispatcher.close()
        engine.dispatcher.pool.abandonments.flush()
        engine.scheduler.close()
        engine.outlet.finish()
        await self._end_run()
        self._finish_leftovers()
        await engine.tell_remaining_completions()
        await engine.events.flush()
        await engine.events.close()
        engine.close()
        await self._close()
        self.state = PumpState.STOPPED
        outcomes = dict(engine.ledger.outcomes)
        names = tuple(dict.fromkeys([*busy, *hung]))
        return ShutdownReport(drained, time.monotonic() - began, cancelled, names, outcomes)

    async def _leave_the_world(self, timeout: float) -> None:
        """Have what joins us to the world outside take nothing new, and answer what it took, while we still can."""
        running = self.state is PumpState.RUNNING and self._ended is not None
        try:
            await self._quiesce(timeout if running else 0.0)
        except Exception:
            logger.exception("shutdown: what joins the pump to the world outside was not left in order")

    async def _drain(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._wait_done()
                await self._engine.dispatcher.turns.wait_until_at_rest()
        except TimeoutError:
            logger.warning("shutdown: %d messages are not done after %s s", self._engine.mint.in_flight, timeout)

    def _busy_listeners(self) -> list[str]:
        turns = (worker.turn for worker in self._engine.dispatcher.pool.workers)
        return [turn.listener.name for turn in turns if turn is not None]

    def _cancel_everything(self, why: str) -> int:
        engine = self._engine
        before = engine.mint.in_flight
        root = engine.registry.root
        with engine.dispatcher.pool.sorted_by_conversation():
            for conversation in engine.registry.conversations():
                if root is not None and conversation is root.conversation and not conversation.pending:
                    continue  # the pump's own
                engine.ledger.cancel_conversation(conversation, PumpStopped(why, step="shutdown"))
        return before

    def _finish_leftovers(self) -> None:
        """Messages in no running pipeline's hands: the pump never ran, or its pipeline was replaced."""
        engine = self._engine
        left = [
            *engine.scheduler.drain(),
            *engine.scheduler.take_inside(),
            *engine.dispatcher.lanes.drain(),
            *engine.outlet.drain(),
        ]
        cancel_all(engine.ledger, left, PumpStopped("the pump stopped before this was done", step="shutdown"))

    async def _end_run(self) -> None:
        if self._ended is not None:
            try:
                async with asyncio.timeout(GRACE):
                    await self._ended.wait()
            except TimeoutError:
                if self._driver is not None:
                    self._driver.cancel()
                await self._ended.wait()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
