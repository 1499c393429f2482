"""Turns: one call of a handler each, from the message it gets to the outcome of that message.

A handler runs in a context of its own, within its time. What it returned becomes messages (`replies`), and its message
gets its outcome (`ledger`), whatever happens.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from xml_pipeline.errors import HandlerError, PipelineError
from xml_pipeline.message_bus.call import Announced
from xml_pipeline.message_bus.dispatch_hook import DispatchHooks, TurnHook, overridden
from xml_pipeline.message_bus.driver import Driver, absorb_cancellation
from xml_pipeline.message_bus.hooks.history import canonical_payload
from xml_pipeline.message_bus.lanes import Lanes
from xml_pipeline.message_bus.lending import Lender, current_turn
from xml_pipeline.message_bus.message_state import HandlerMetadata, MessageState, Outcome
from xml_pipeline.message_bus.replies import Replies, Turn
from xml_pipeline.message_bus.thread_registry import ConversationStatus, Frame, FrameState
from xml_pipeline.message_bus.turn_events import TurnEvents
from xml_pipeline.message_bus.worker_pool import GRACE, NEVER, Worker, WorkerPool

if TYPE_CHECKING:
    from xml_pipeline.message_bus.exchange import Exchange
    from xml_pipeline.message_bus.ledger import Ledger
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.scheduler import Scheduler
    from xml_pipeline.message_bus.usage import Usage

__all__ = ["BURST", "Turns"]

logger = logging.getLogger(__name__)

BURST = 64
"""Turns, or items of a stream, that one worker runs back to back, none of them suspending, before the event loop has
its turn."""

_HOOK_PATIENCE = 30.0
"""Seconds that the hooks of one turn may take to be told how it ended."""

# Looking a member up in its enum costs more than a comparison, and these are compared for every message.
_OPEN = FrameState.OPEN
_CANCELLED = FrameState.CANCELLED
_ACTIVE = ConversationStatus.ACTIVE
_KILLED = ConversationStatus.KILLED
_ANSWERED = Outcome.ANSWERED
_FORWARDED = Outcome.FORWARDED
_HANDLED = Outcome.HANDLED
_FAILED = Outcome.FAILED


class Turns:
    """Runs the turns of one pump.

    Args:
        ledger: gives outcomes.
        scheduler: is told when an external message starts.
        events: where turns are emitted.
        hooks: the public hooks around each call.
        turn_hooks: the pump's own.
        pool: of the workers.
        lanes: have the listeners' slots.
        lender: has the slots of those who wait for the pump itself.
        wake: called before a worker suspends.
    """

    def __init__(
        self,
        ledger: Ledger,
        scheduler: Scheduler,
        events: TurnEvents,
        hooks: DispatchHooks,
        turn_hooks: Sequence[TurnHook],
        pool: WorkerPool,
        lanes: Lanes,
        lender: Lender,
        wake: Callable[[], None],
    ) -> None:
        self.late = 0
        """Results that came after their message's time, and were dropped."""
        self.replies: Replies  # set by the engine: replies are sent through the outlet
        self.usage: Usage  # set by the engine
        self._ledger = ledger
        self._scheduler = scheduler
        self._hub = events.hub
        self._events = events
        self._hooks = hooks
        self._before = overridden(turn_hooks, "before")
        self._pool = pool
        self._lanes = lanes
        self._lender = lender
        self._wake = wake
        self._driver = Driver(pool, wake)
        self._rest_waiters: list[asyncio.Future[None]] = []

    def run(self, worker: Worker, state: MessageState) -> Coroutine[Any, Any, None] | None:
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
            self._take_result(worker, turn, await self._driver.resume(worker, context, coroutine, awaited, deadline))
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
                self._pool.watch(worker, metadata.deadline)
                told = self._hooks.intend(worker.intents, state, listener.name, name, canonical_payload(state))
                await Announced(told, self._wake)
                await self._call(worker, turn, metadata)
            except BaseException as exc:
                failure = self._driver.failure_of(worker, listener, exc)
            self._conclude(worker, turn, failure)
            if worker.intents:
                # A cancellation that was meant for the handler must not reach the hooks.
                if worker.failure is not None or (worker.task is not None and worker.task.cancelling()):
                    await absorb_cancellation(worker.task)
                await self._tell_hooks(worker, failure or worker.failure)
        finally:
            if not worker.abandoned:
                self._hooks.end(frame.conversation.id)
            self._leave(worker, listener, frame)

    def _failure_or_leave(self, worker: Worker, turn: Turn, exc: BaseException) -> PipelineError | None:
        """What an exception means; where it is let through, the worker is freed."""
        try:
            return self._driver.failure_of(worker, turn.listener, exc)
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
        self._take_result(worker, turn, await self._driver.drive(worker, context, coroutine, metadata.deadline))

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
                    item = await self._driver.drive(worker, context, produced.__anext__(), deadline)
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
                if burst >= BURST:
                    burst = 0
                    self._wake()
                    await asyncio.sleep(0)
        finally:
            worker.settling = False
            await self._driver.drive(worker, context, produced.aclose(), loop.time() + GRACE)

    async def _until_read(self, worker: Worker, exchange: Exchange) -> None:
        """Whoever reads a stream is slower than its handler: the handler waits, and is not blamed for the time."""
        worker.suspended = True
        with self._lender.lending():
            await exchange.room()

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
            self._lender.settle(worker, listener)
        worker.state = worker.turn = None
        worker.settling = False
        if self._rest_waiters:
            self.check_rest()
        worker.deadline = NEVER
        if not worker.abandoned:
            self._lanes.give_back(listener)
        frame.running -= 1
        if frame.queue and frame.state is _OPEN:
            frame.running += 1
            self._lanes.put(frame.queue.popleft())

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

    async def tell_of_abandoned(self, worker: Worker, turn: Turn) -> None:
        """Tell the hooks of a turn whose handler ignored its cancellation."""
        await self._tell_hooks(worker, worker.failure)
        self._hooks.end(turn.frame.conversation.id)

    # -- rest ---------------------------------------------------------------------------------------------------

    async def wait_until_at_rest(self) -> None:
        """Wait until no handler runs and all hooks have been told."""
        while not self._pool.is_at_rest:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._rest_waiters.append(waiter)
            await waiter

    def check_rest(self) -> None:
        """Tell those who wait for it, if no handler runs any more."""
        if self._pool.is_at_rest:
            waiters, self._rest_waiters = self._rest_waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
