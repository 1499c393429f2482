"""Whose turn it is: messages in order per frame, within the listeners' limits, and in time.

A message whose frame is busy waits on the frame, any other in its listener's lane (`lanes`). A worker takes it, and
runs its handler (`turns`). A worker that has nothing to run reads the pipeline (`intake`).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from xml_pipeline.errors import DeadlineExceeded, HandlerError, PipelineError
from xml_pipeline.message_bus.call import Announced
from xml_pipeline.message_bus.dispatch_hook import DispatchHooks, TurnHook
from xml_pipeline.message_bus.driver import absorb_cancellation
from xml_pipeline.message_bus.events import EventHub
from xml_pipeline.message_bus.intake import Intake
from xml_pipeline.message_bus.lanes import Lanes
from xml_pipeline.message_bus.lending import Lender, current_turn
from xml_pipeline.message_bus.message_state import MessageState, Outcome
from xml_pipeline.message_bus.replies import Turn
from xml_pipeline.message_bus.thread_registry import Conversation, Frame, FrameState
from xml_pipeline.message_bus.turn_events import TurnEvents
from xml_pipeline.message_bus.turns import BURST, Turns
from xml_pipeline.message_bus.worker_pool import Worker, WorkerPool

if TYPE_CHECKING:
    from xml_pipeline.message_bus.ledger import Ledger
    from xml_pipeline.message_bus.scheduler import Scheduler

__all__ = ["Dispatcher"]

logger = logging.getLogger(__name__)

_DEGRADED_AFTER = 3
"""Abandoned handlers after which a listener is reported as degraded."""

_OPEN = FrameState.OPEN  # a look-up in the enum costs more than the comparison


class Dispatcher:
    """Decides when the handlers of one pump run, and ends those that must not go on.

    Args:
        ledger: gives outcomes.
        scheduler: is told when an external message starts.
        events: where turns are emitted.
        hooks: the public hooks around each call.
        turn_hooks: the pump's own.
        max_concurrent_handlers: handlers running at once, in all.
        max_concurrent_per_agent: handlers of one agent running at once.
        depth_first: see `FairQueue`.
    """

    def __init__(
        self,
        ledger: Ledger,
        scheduler: Scheduler,
        events: EventHub,
        hooks: DispatchHooks,
        turn_hooks: Sequence[TurnHook],
        *,
        max_concurrent_handlers: int,
        max_concurrent_per_agent: int,
        depth_first: bool,
    ) -> None:
        self._max_concurrent_handlers = max_concurrent_handlers
        self.pool = WorkerPool(max_concurrent_handlers, self._work, self._expire, self._given_up)
        self.lanes = Lanes(max_concurrent_handlers, max_concurrent_per_agent, depth_first, self.pool.wake)
        self.lender = Lender(self.pool, self.lanes, self._wake)
        self._events = TurnEvents(events)
        self.turns = Turns(
            ledger, scheduler, self._events, hooks, turn_hooks, self.pool, self.lanes, self.lender, self._wake
        )
        self.abandoned = 0
        """Handlers that ignored their cancellation."""
        self._intake: Intake | None = None
        self._ledger = ledger
        self._scheduler = scheduler
        self._warned = False
        self._farewells: set[asyncio.Task[None]] = set()
        ledger.cancel_running = self.cancel_running
        ledger.discard_waiting = self.discard_waiting

    # -- taking messages in -------------------------------------------------------------------------------------

    def accept(self, batch: Sequence[MessageState]) -> None:
        """Take messages from the pipeline: put each in line for its handler, or deliver it to the outside."""
        self._scheduler.leave_all(batch)
        for state in batch:
            if state.error is not None:  # in a stage after the one that handles errors
                self._ledger.fail(state, state.failure or HandlerError(state.error, step="pipeline"))
                continue
            if not (state.envelope_is_valid and state.payload_is_valid) and not self._warned:
                self._warn(state)
            frame = state.frame
            if frame is None:
                self._ledger.deliver(state)
            elif frame.state is not _OPEN:
                self._ledger.expire(state)
            elif frame.running and frame.listener is not None and frame.listener.ordered:
                if frame.queue is None:
                    frame.queue = deque()
                frame.queue.append(state)
            else:
                frame.running += 1
                self.lanes.put(state)
        if self._intake is None:
            self._wake()  # else a worker took these messages in, and will take them from their lanes

    async def lead(
        self, batches: AsyncIterator[list[MessageState]], take: Callable[[list[MessageState]], object]
    ) -> bool:
        """Have workers take turns in reading the pipeline. See `Intake`.

        Args:
            batches: what the stages before dispatch give; they suspend nowhere but at their source.
            take: gets each batch, and hands it to `accept`.

        Returns:
            Whether everything is read. If not, somebody cancelled the task that read, as a timer may that a handler
            left behind in it; nothing is lost, but the rest has to be read from new batches.
        """
        intake = self._intake = Intake(batches, take)
        self._wake()
        try:
            await intake.wait()
        finally:
            if self._intake is intake:
                self._intake = None
            self._wake()
        return self.pool.closing or not intake.is_broken_off

    def _warn(self, state: MessageState) -> None:
        self._warned = True
        what = "envelopes" if not state.envelope_is_valid else "payloads"
        logger.error("this pipeline does not validate %s: messages reach handlers unchecked (said once)", what)

    # -- workers ------------------------------------------------------------------------------------------------

    async def _work(self, worker: Worker) -> None:
        """The life of a worker."""
        burst = 0
        task = asyncio.current_task()
        run = self.turns.run
        while not (self.pool.closing or worker.abandoned):
            state = self.lanes.take()
            if state is None:
                current_turn.set(None)  # or the worker's context would keep the conversation
                if self._intake is not None and self._intake.is_free and task is not None:
                    burst = await self._read(self._intake, task, burst)
                    continue
                if len(self.pool.workers) > self.pool.limit + 1:
                    self.pool.workers.discard(worker)  # now, and not when the task has ended: nobody may count on it
                    return  # it stood in for one whose slots were lent
                burst = 0
                await self.pool.rest()
                continue
            worker.suspended = False
            rest = run(worker, state)
            if rest is not None:
                await rest
            if worker.failure is not None or (task is not None and task.cancelling()):
                await absorb_cancellation(task)
                worker.failure = None  # whoever waited has it, and with it the frames it went through
            burst = 0 if worker.suspended else burst + 1
            if burst >= BURST:
                burst = 0
                await asyncio.sleep(0)  # nobody is woken: a second worker would be as busy, and take as long again
                intake = self._intake
                if intake is not None and intake.is_free and self._scheduler.waiting and task is not None:
                    # What waits in the lanes may be much, and all one listener's: what is for others must get there.
                    await Announced(intake.read(task), self._wake)

    async def _read(self, intake: Intake, task: asyncio.Task[Any], burst: int) -> int:
        """Take the next batch in; returns what is to be counted as run back to back."""
        waits = self._scheduler.waits
        await intake.read(task)
        if self._scheduler.waits != waits:
            return 0
        if burst >= BURST:
            await asyncio.sleep(0)
            return 0
        return burst + 1

    # -- deadlines and cancellation -----------------------------------------------------------------------------

    def _expire(self, worker: Worker) -> None:
        turn = worker.turn
        if turn is None or worker.settling:
            return
        failure = DeadlineExceeded(
            f"handler of {turn.listener.name!r} did not finish in time", step="handler", target=turn.listener.name
        )
        self._stop(worker, turn, failure)
        self._ledger.fail_turn(turn.state, turn.frame, failure)

    def cancel_running(
        self, conversation: Conversation, wanted: Callable[[Frame], bool], failure: PipelineError
    ) -> None:
        """Cancel the handlers of a conversation whose frames ``wanted`` picks; their messages end as cancelled."""
        for worker in self.pool.working_for(conversation):
            turn = worker.turn
            if turn is None or worker.settling or worker.failure is not None or not wanted(turn.frame):
                continue
            self._stop(worker, turn, failure)
            self._ledger.finish(turn.state, Outcome.CANCELLED, failure)

    def _stop(self, worker: Worker, turn: Turn, failure: PipelineError) -> None:
        self.pool.cancel(worker, failure)
        if self._events.hub.active:
            self._events.agent_state(turn, "error")

    def _given_up(self, worker: Worker) -> None:
        turn = worker.turn
        self.abandoned += 1
        if turn is None:
            return
        lane = self.lanes.of(turn.listener)
        lane.abandoned += 1
        self.pool.abandonments.log(
            "handler of %r ignored its cancellation and was abandoned (%d so far%s)",
            turn.listener.name,
            lane.abandoned,
            "; the listener is degraded" if lane.abandoned >= _DEGRADED_AFTER else "",
        )
        self.lender.settle(worker, turn.listener)
        self.lanes.give_back(turn.listener)
        self.pool.wake()
        self.turns.check_rest()
        if worker.intents:
            task = asyncio.get_running_loop().create_task(self.turns.tell_of_abandoned(worker, turn))
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    def discard_waiting(self, conversation: Conversation, wanted: Callable[[MessageState], bool]) -> list[MessageState]:
        """Remove a conversation's messages that wait for a handler."""
        removed = self.lanes.discard(conversation, wanted)
        for state in removed:
            if state.frame is not None:
                state.frame.running -= 1
        return removed

    def resize(self, max_concurrent_handlers: int, max_concurrent_per_agent: int) -> None:
        """Apply other limits; handlers that run are not touched."""
        more = max_concurrent_handlers - self._max_concurrent_handlers
        self._max_concurrent_handlers = max_concurrent_handlers
        self.pool.limit += more
        self.lanes.resize(more, max_concurrent_per_agent)

    # -- lifetime -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Get ready to run, in the current context; handlers run in copies of it."""
        self.pool.closing = False
        self.pool.context = contextvars.copy_context()
        self._wake()

    def _wake(self) -> None:
        """Called before a worker suspends, too: somebody has to run what waits, and to read on."""
        if self._intake is not None and self._intake.is_free:
            self.pool.wake(in_any_case=True)
        elif self.lanes.has_work:
            self.pool.wake()

    async def close(self) -> list[str]:
        """Cancel what runs; returns the names of listeners whose handlers would not end."""
        hung = await self.pool.close()
        if self._intake is not None:
            self._intake.end()
        return [worker.turn.listener.name for worker in hung if worker.turn is not None]
