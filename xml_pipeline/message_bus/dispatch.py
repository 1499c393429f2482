"""Calling handlers: in order per frame, within their limits and their time.

A message whose frame is busy waits on the frame, any other in its listener's lane (`lanes`). A worker takes it, runs
its handler in a context of its own, turns what it returned into messages (`replies`), and gives it its outcome
(`ledger`), whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from xml_pipeline.errors import (
    BudgetExhausted,
    ConversationCancelled,
    DeadlineExceeded,
    HandlerError,
    PipelineError,
)
from xml_pipeline.message_bus.call import Announced, Continued
from xml_pipeline.message_bus.dispatch_hook import DispatchHooks, TurnHook, overridden
from xml_pipeline.message_bus.events import (
    EventHub,
)
from xml_pipeline.message_bus.hooks.history import canonical_payload
from xml_pipeline.message_bus.intake import Intake
from xml_pipeline.message_bus.lanes import Lanes
from xml_pipeline.message_bus.lending import Lending, current_turn
from xml_pipeline.message_bus.message_state import HandlerMetadata, MessageState, Outcome
from xml_pipeline.message_bus.replies import Replies, Turn
from xml_pipeline.message_bus.thread_registry import Conversation, ConversationStatus, Frame, FrameState
from xml_pipeline.message_bus.turn_events import TurnEvents
from xml_pipeline.message_bus.worker_pool import GRACE, NEVER, Worker, WorkerPool

if TYPE_CHECKING:
    from xml_pipeline.message_bus.exchange import Exchange
    from xml_pipeline.message_bus.ledger import Ledger
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.scheduler import Scheduler
    from xml_pipeline.message_bus.usage import Usage

__all__ = ["Dispatcher"]

logger = logging.getLogger(__name__)

_BURST = 64
"""Handlers that one worker runs back to back, none of them suspending, before the event loop has its turn."""

_HOOK_PATIENCE = 30.0
"""Seconds that the hooks of one turn may take to be told how it ended."""

_DEGRADED_AFTER = 3
"""Abandoned handlers after which a listener is reported as degraded."""

# Looking a member up in its enum costs more than a comparison, and these are compared for every message.
_OPEN = FrameState.OPEN
_CANCELLED = FrameState.CANCELLED
_ACTIVE = ConversationStatus.ACTIVE
_KILLED = ConversationStatus.KILLED
_ANSWERED = Outcome.ANSWERED
_FORWARDED = Outcome.FORWARDED
_HANDLED = Outcome.HANDLED
_FAILED = Outcome.FAILED


class Dispatcher:
    """Runs the handlers of one pump.

    Args:
        ledger: gives outcomes.
        scheduler: is told when an external message starts.
        replies: turns results into messages.
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
        self.late = 0
        """Results that came after their message's time, and were dropped."""
        self.abandoned = 0
        """Handlers that ignored their cancellation."""
        self._intake: Intake | None = None
        self.replies: Replies  # set by the engine: replies are sent through the outlet, and the dispatcher calls them
        self.usage: Usage  # set by the engine
        self._ledger = ledger
        self._scheduler = scheduler
        self._hub = events
        self._events = TurnEvents(events)
        self._hooks = hooks
        self._before = overridden(turn_hooks, "before")
        self._warned = False
        self._rest_waiters: list[asyncio.Future[None]] = []
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

    # -- running handlers ---------------------------------------------------------------------------------------

    async def _work(self, worker: Worker) -> None:
        """The life of a worker."""
        burst = 0
        task = asyncio.current_task()
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
            rest = self._turn(worker, state)
            if rest is not None:
                await rest
            if worker.failure is not None or (task is not None and task.cancelling()):
                await _absorb_cancellation(task)
                worker.failure = None  # whoever waited has it, and with it the frames it went through
            burst = 0 if worker.suspended else burst + 1
            if burst >= _BURST:
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
        if burst >= _BURST:
            await asyncio.sleep(0)
            return 0
        return burst + 1

    def _turn(self, worker: Worker, state: MessageState) -> Coroutine[Any, Any, None] | None:
        """One handler call, from the start to its message's outcome, or to where it waits for the first time.

        Most handlers never wait, and for them there is nothing to await here.

        Returns:
            What is left, to be awaited.
        """
        listener, frame = state.listener, state.frame
        assert listener is not None and frame is not None  # for the type checker: Lanes.put checked
        if state.window is not None:
            self._scheduler.started(state)
        turn = Turn(state, frame, listener, worker)
        current_turn.set(turn)
        worker.state, worker.turn, worker.failure, worker.is_ours = state, turn, None, True
        if self._hooks.registered:
            return self._hooked_turn(worker, turn)
        if listener.streams:
            return self._streamed_turn(worker, turn)
        failure: PipelineError | None = None
        try:
            metadata = self._prepare(state, frame, listener)
            context = contextvars.copy_context()
            worker.is_ours = False
            coroutine: Any = listener.handler(state.payload, metadata)
            try:
                awaited = context.run(coroutine.send, None)
            except StopIteration as stop:
                self._take_result(worker, turn, stop.value)
            else:
                return self._rest_of_turn(worker, turn, context, coroutine, awaited, metadata.deadline)
        except BaseException as exc:
            failure = self._failure_or_leave(worker, turn, exc)
        self._end(worker, turn, failure)
        return None

    async def _rest_of_turn(
        self, worker: Worker, turn: Turn, context: contextvars.Context, coroutine: Any, awaited: Any, deadline: float
    ) -> None:
        failure: PipelineError | None = None
        try:
            self._take_result(worker, turn, await self._resume(worker, context, coroutine, awaited, deadline))
        except BaseException as exc:
            failure = self._failure_or_leave(worker, turn, exc)
        self._end(worker, turn, failure)

    async def _streamed_turn(self, worker: Worker, turn: Turn) -> None:
        failure: PipelineError | None = None
        try:
            metadata = self._prepare(turn.state, turn.frame, turn.listener)
            await self._stream(worker, turn, metadata)
        except BaseException as exc:
            failure = self._failure_or_leave(worker, turn, exc)
        self._end(worker, turn, failure)

    async def _hooked_turn(self, worker: Worker, turn: Turn) -> None:
        """The same, with the public hooks told before and after."""
        state, frame, listener = turn.state, turn.frame, turn.listener
        self._hooks.begin(frame.conversation.id)
        failure: PipelineError | None = None
        try:
            try:
                metadata = self._prepare(state, frame, listener)
                name = "" if state.payload_tree is None else str(state.payload_tree.tag)
                worker.intents = []
                self.pool.watch(worker, metadata.deadline)
                told = self._hooks.intend(worker.intents, state, listener.name, name, canonical_payload(state))
                await Announced(told, self._wake)
                await self._call(worker, turn, metadata)
            except BaseException as exc:
                failure = self._failure_of(worker, listener, exc)
            self._conclude(worker, turn, failure)
            if worker.intents:
                # A cancellation that was meant for the handler must not reach the hooks.
                if worker.failure is not None or (worker.task is not None and worker.task.cancelling()):
                    await _absorb_cancellation(worker.task)
                await self._tell_hooks(worker, failure or worker.failure)
        finally:
            if not worker.abandoned:
                self._hooks.end(frame.conversation.id)
            self._leave(worker, listener, frame)

    def _failure_or_leave(self, worker: Worker, turn: Turn, exc: BaseException) -> PipelineError | None:
        """`_failure_of`; where that lets the exception through, the worker is freed."""
        try:
            return self._failure_of(worker, turn.listener, exc)
        except BaseException:
            self._leave(worker, turn.listener, turn.frame)
            raise

    def _end(self, worker: Worker, turn: Turn, failure: PipelineError | None) -> None:
        """`_conclude`, and free the worker."""
        worker.settling = True
        try:
            self._settle_turn(turn, failure)
        except Exception as exc:
            self._end_by_defect(turn, exc)
        finally:
            self._leave(worker, turn.listener, turn.frame)

    def _prepare(self, state: MessageState, frame: Frame, listener: Listener) -> HandlerMetadata:
        conversation = frame.conversation
        if listener.name not in conversation.participants:
            conversation.participants += (listener.name,)
        from_id = state.from_id or ""
        agent = listener.is_agent
        # Every handler call makes one, and to call a class with keywords takes three times as long.
        metadata: HandlerMetadata = object.__new__(HandlerMetadata)
        metadata.thread_id = frame.id
        metadata.from_id = from_id
        metadata.own_name = listener.name if agent else None
        metadata.is_self_call = from_id == listener.name
        metadata.usage_instructions = self.usage.of(listener, conversation.peer_table) if agent else ""
        metadata.todo_nudge = ""
        metadata.tag = state.tag
        metadata.conversation_id = conversation.id
        metadata.message_id = state.message_id
        metadata.deadline = 0.0
        metadata.group_size = state.group_size or frame.group_size
        for before in self._before:
            before(state, metadata)
        if conversation.status is not _ACTIVE:
            if conversation.status is not _KILLED:
                conversation.status = _ACTIVE
            if self._hub.active and conversation.owner != "system":
                self._ledger.emit_thread(conversation)
        if self._hub.active:
            self._events.received(state, frame, listener)
        return metadata

    async def _call(self, worker: Worker, turn: Turn, metadata: HandlerMetadata) -> None:
        if turn.listener.streams:
            await self._stream(worker, turn, metadata)
            return
        context = contextvars.copy_context()
        worker.is_ours = False
        coroutine: Any = turn.listener.handler(turn.state.payload, metadata)
        self._take_result(worker, turn, await self._drive(worker, context, coroutine, metadata.deadline))

    def _take_result(self, worker: Worker, turn: Turn, result: Any) -> None:
        """Send what a handler returned, if it did so in time."""
        if worker.failure is not None:
            self.late += 1
            return
        worker.settling = worker.is_ours = True
        if result is not None:
            self.replies.send(turn, result)

    async def _stream(self, worker: Worker, turn: Turn, metadata: HandlerMetadata) -> None:
        """An async generator's items, each sent as it is yielded, each with the full time."""
        context = contextvars.copy_context()
        worker.is_ours = False
        produced: Any = turn.listener.handler(turn.state.payload, metadata)
        loop = asyncio.get_running_loop()
        deadline = metadata.deadline
        budget = deadline - loop.time()
        burst = 0
        try:
            while True:
                worker.suspended = False
                try:
                    item = await self._drive(worker, context, produced.__anext__(), deadline)
                except StopAsyncIteration:
                    return
                if worker.failure is not None or turn.frame.state is not _OPEN:
                    return
                worker.deadline = NEVER  # it was this item's; the next one has its own as soon as it waits
                worker.settling = worker.is_ours = True
                self.replies.send(turn, item)
                worker.settling = worker.is_ours = False
                if turn.frame.state is not _OPEN:
                    return  # a refused item closed this tool's frame
                exchange = turn.frame.exchange
                if turn.frame.parent is None and exchange is not None and exchange.is_behind:
                    await self._until_read(worker, exchange)
                    if worker.failure is not None or turn.frame.state is not _OPEN:
                        return
                deadline = loop.time() + budget
                burst = 0 if worker.suspended else burst + 1
                if burst >= _BURST:
                    burst = 0
                    self._wake()
                    await asyncio.sleep(0)
        finally:
            worker.settling = False
            await self._drive(worker, context, produced.aclose(), loop.time() + GRACE)

    async def _until_read(self, worker: Worker, exchange: Exchange) -> None:
        """Whoever reads a stream is slower than its handler: the handler waits, and is not blamed for the time."""
        worker.suspended = True
        with self.lending():
            await exchange.room()

    async def _drive(self, worker: Worker, context: contextvars.Context, coroutine: Any, deadline: float) -> Any:
        try:
            awaited = context.run(coroutine.send, None)
        except StopIteration as stop:
            return stop.value
        return await self._resume(worker, context, coroutine, awaited, deadline)

    async def _resume(
        self, worker: Worker, context: contextvars.Context, coroutine: Any, awaited: Any, deadline: float
    ) -> Any:
        """Run the rest of a coroutine that has suspended: it needs a deadline, and what is left another worker."""
        worker.suspended = True
        self.pool.watch(worker, deadline)
        self._wake()
        rest = Continued(coroutine, context, awaited)
        try:
            result = await rest
        finally:
            worker.is_closed = rest.is_closed
        if worker.failure is None and asyncio.get_running_loop().time() > deadline:
            # It blocked the event loop, so that the timer could not fire.
            worker.is_ours = True
            raise DeadlineExceeded("the handler blocked the event loop past its deadline", step="handler")
        return result

    def _failure_of(self, worker: Worker, listener: Listener, exc: BaseException) -> PipelineError | None:
        """The outcome of an exception that left the handler, or a hook."""
        if isinstance(exc, BudgetExhausted) or (
            isinstance(exc, PipelineError) and (worker.is_ours or listener.is_trusted)
        ):
            return exc
        if isinstance(exc, asyncio.CancelledError):
            if worker.failure is not None:
                return None  # we cancelled it, and its message has had its outcome
            if self.pool.closing:
                return ConversationCancelled("the pump stopped", step="dispatch", target=listener.name)
            return HandlerError(
                f"handler of {listener.name!r} raised CancelledError", step="handler", target=listener.name
            )
        if isinstance(exc, KeyboardInterrupt) or worker.is_closed:
            raise exc
        logger.error("handler of %r failed", listener.name, exc_info=exc)
        return HandlerError(
            f"handler of {listener.name!r} raised {_describe(exc)}", step="handler", target=listener.name
        )

    def _conclude(self, worker: Worker, turn: Turn, failure: PipelineError | None) -> None:
        """Give the message its outcome, unless it had one already. Never raises."""
        worker.settling = True
        try:
            self._settle_turn(turn, failure)
        except Exception as exc:
            self._end_by_defect(turn, exc)

    def _end_by_defect(self, turn: Turn, exc: Exception) -> None:
        """A defect of ours, not the handler's. The message must have its outcome all the same."""
        state, name = turn.state, turn.listener.name
        logger.error("dispatching message %s to %r failed", state.message_id, name, exc_info=exc)
        if state.outcome is None:
            defect = HandlerError("internal error in dispatch", step="dispatch", target=name)
            self._ledger.fail_turn(state, turn.frame, defect)

    def _settle_turn(self, turn: Turn, failure: PipelineError | None) -> None:
        state, frame = turn.state, turn.frame
        if state.outcome is not None:
            return  # its handler was cancelled, and that was told when it happened
        failed = failure is not None or frame.state is _CANCELLED
        if not failed and (turn.answered or turn.delegated):
            self._ledger.close(frame)
        if self._hub.active:
            waits = frame.open_children and frame.state is _OPEN
            self._events.agent_state(turn, "error" if failed else "waiting" if waits else "idle")
        if failure is not None:
            self._ledger.fail_turn(state, frame, failure)
        elif failed:
            self._ledger.finish(state, _FAILED)
        else:
            self._ledger.finish(
                state,
                _ANSWERED if turn.answered else _FORWARDED if turn.forwarded else _HANDLED,
            )

    def _leave(self, worker: Worker, listener: Listener, frame: Frame) -> None:
        """Free the worker, the listener's slot and the frame."""
        if worker.waits:
            worker.waits = 0
            self._take_again(listener)
        worker.state = worker.turn = None
        worker.settling = False
        if self._rest_waiters and not self.pool.running:
            _wake_all(self._rest_waiters)
        worker.deadline = NEVER
        if not worker.abandoned:
            self.lanes.give_back(listener)
        frame.running -= 1
        if frame.queue and frame.state is _OPEN:
            frame.running += 1
            self.lanes.put(frame.queue.popleft())

    async def _tell_hooks(self, worker: Worker, failure: PipelineError | None) -> None:
        """Tell the hooks that took a message how its turn ended; once."""
        intents, worker.intents = worker.intents, []
        try:
            async with asyncio.timeout(_HOOK_PATIENCE):
                if failure is None:
                    await Announced(self._hooks.acknowledge(intents), self._wake)
                else:
                    await Announced(self._hooks.fail(intents, failure.detail or str(failure)), self._wake)
        except TimeoutError:
            logger.error("hooks did not end within %s s; the handler's slot is freed", _HOOK_PATIENCE)

    # -- handlers that ask their own pump -------------------------------------------------------------------------

    def lending(self) -> Lending:
        """A context for waiting for the pump itself: a handler of ours lends its slots out in it."""
        turn = current_turn.get()
        if turn is not None and not (turn.worker in self.pool.workers and turn.worker.turn is turn):
            turn = None  # another pump's, or ended: what asks is a task that it left behind
        return Lending(turn, self._lend, self._take_again)

    def _lend(self, listener: Listener) -> None:
        self.pool.limit += 1
        self.lanes.give_back(listener)
        self._wake()

    def _take_again(self, listener: Listener) -> None:
        self.pool.limit -= 1
        self.lanes.take_again(listener)

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

    def cancel_running(self, wanted: Callable[[Frame], bool], failure: PipelineError) -> None:
        """Cancel the running handlers of the frames that ``wanted`` picks; their messages end as cancelled."""
        for worker in list(self.pool.workers):
            turn = worker.turn
            if turn is None or worker.settling or worker.failure is not None or not wanted(turn.frame):
                continue
            self._stop(worker, turn, failure)
            self._ledger.finish(turn.state, Outcome.CANCELLED, failure)

    def _stop(self, worker: Worker, turn: Turn, failure: PipelineError) -> None:
        self.pool.cancel(worker, failure)
        if self._hub.active:
            self._events.agent_state(turn, "error")

    def _given_up(self, worker: Worker) -> None:
        turn = worker.turn
        self.abandoned += 1
        if turn is None:
            return
        lane = self.lanes.of(turn.listener)
        lane.abandoned += 1
        logger.error(
            "handler of %r ignored its cancellation and was abandoned (%d so far%s)",
            turn.listener.name,
            lane.abandoned,
            "; the listener is degraded" if lane.abandoned >= _DEGRADED_AFTER else "",
        )
        self.lanes.give_back(turn.listener)
        self.pool.wake()
        if self._rest_waiters and not self.pool.running:
            _wake_all(self._rest_waiters)
        if worker.intents:
            task = asyncio.get_running_loop().create_task(self._tell_of_abandoned(worker, turn))
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    async def _tell_of_abandoned(self, worker: Worker, turn: Turn) -> None:
        await self._tell_hooks(worker, worker.failure)
        self._hooks.end(turn.frame.conversation.id)

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

    async def wait_until_at_rest(self) -> None:
        """Wait until no handler runs and all hooks have been told."""
        while self.pool.running:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._rest_waiters.append(waiter)
            await waiter

    async def close(self) -> list[str]:
        """Cancel what runs; returns the names of listeners whose handlers would not end."""
        hung = await self.pool.close()
        if self._intake is not None:
            self._intake.end()
        return [worker.turn.listener.name for worker in hung if worker.turn is not None]


def _wake_all(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


def _describe(exc: BaseException) -> str:
    """Type and text of a handler's exception, whose own text may raise."""
    try:
        return f"{type(exc).__name__}: {exc}"
    except Exception:
        return type(exc).__name__


async def _absorb_cancellation(task: asyncio.Task[Any] | None) -> None:
    """A cancellation of one handler must not reach the next one of the same task.

    ``uncancel`` alone is not enough: before Python 3.13 it leaves a cancellation that was requested and not yet
    delivered, which the next handler would get at its first ``await``.
    """
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    while task is not None and task.cancelling():
        task.uncancel()
