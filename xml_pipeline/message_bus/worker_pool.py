"""Persistent workers: the tasks inside which handlers run, and the clock that ends those that take too long."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from xml_pipeline.message_bus.log_crowd import LogCrowd
from xml_pipeline.message_bus.message_state import MessageState

if TYPE_CHECKING:
    from xml_pipeline.errors import PipelineError
    from xml_pipeline.message_bus.dispatch_hook import Intents
    from xml_pipeline.message_bus.replies import Turn
    from xml_pipeline.message_bus.thread_registry import Conversation

__all__ = ["GRACE", "NEVER", "Worker", "WorkerPool"]

logger = logging.getLogger(__name__)

GRACE = 1.0
"""Seconds a cancelled handler has to end before its worker is given up and replaced."""

NEVER = float("inf")


class Worker:
    """One task that runs one handler at a time."""

    __slots__ = (
        "abandoned",
        "deadline",
        "failure",
        "intents",
        "is_closed",
        "is_ours",
        "settling",
        "state",
        "suspended",
        "task",
        "turn",
        "waits",
    )

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.state: MessageState | None = None
        """The message it is working on."""
        self.turn: Turn | None = None
        self.deadline = NEVER
        """Loop time at which its handler is cancelled, or, once cancelled, given up."""
        self.failure: PipelineError | None = None
        """Why its handler was cancelled; its message has had its outcome then."""
        self.is_ours = True
        """Code of the pump runs, not the handler's: an error is what it says."""
        self.intents: Intents = []
        """The hooks that took its message, until they are told how its turn ended."""
        self.is_closed = False
        """Its task is being closed with the event loop."""
        self.waits = 0
        """Answers of its own pump that its handler waits for; its slots are lent out meanwhile."""
        self.suspended = False
        self.settling = False
        """It is processing what its handler returned, and must not be cancelled for what that does."""
        self.abandoned = False


class WorkerPool:
    """Up to ``limit`` workers, started when there is work for them, and one timer for all deadlines.

    Args:
        limit: handlers running at once.
        run: the coroutine function of one worker; it takes work until there is none, then awaits `rest`.
        expired: called for a worker whose deadline has come.
        given_up: called for a worker whose handler ignored its cancellation.
    """

    def __init__(
        self,
        limit: int,
        run: Callable[[Worker], Coroutine[Any, Any, None]],
        expired: Callable[[Worker], None],
        given_up: Callable[[Worker], None],
    ) -> None:
        self.limit = limit
        self.workers: set[Worker] = set()
        self.closing = False
        self.context = contextvars.copy_context()
        """What workers run in, and so what handlers' contexts are copied from."""
        self._run = run
        self._expired = expired
        self._given_up = given_up
        self._idle: list[asyncio.Future[None]] = []
        self._gone: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self._seen_running: list[Worker] = []
        self._sorted: dict[Conversation, list[Worker]] | None = None
        self.abandonments = LogCrowd(
            logger, logging.ERROR, "and %d more handlers ignored their cancellation and were abandoned"
        )
        """Where each worker that is given up is told of."""

    def wake(self, in_any_case: bool = False) -> None:
        """There is work: have one worker take it. That worker wakes the next one before it suspends.

        Args:
            in_any_case: not only a handler: somebody must read, even if more handlers run than may, as they do when the
                limit was lowered, or slots that were lent were taken again.
        """
        while self._idle:
            rest = self._idle.pop()
            if not rest.done():
                rest.set_result(None)
                return
        if self.closing:
            return
        # One more than handlers: it reads.
        if len(self.workers) <= self.limit or (in_any_case and self.running == len(self.workers)):
            worker = Worker()
            self.workers.add(worker)
            loop = asyncio.get_running_loop()
            # Not in the context of whoever happened to bring the work.
            worker.task = loop.create_task(self._run(worker), context=self.context.copy())
            worker.task.add_done_callback(partial(self._ended, worker), context=self.context)

    @property
    def running(self) -> int:
        """Workers that have a message."""
        return sum(worker.state is not None for worker in self.workers)

    @property
    def is_at_rest(self) -> bool:
        """Whether no worker has a message.

        It may be asked after every turn of thousands: first those are looked at that were seen to have one before.
        """
        seen = self._seen_running
        while True:
            while seen:
                if seen[-1].state is not None and seen[-1] in self.workers:
                    return False
                seen.pop()
            seen += [worker for worker in self.workers if worker.state is not None]
            if not seen:
                return True

    def working_for(self, conversation: Conversation) -> list[Worker]:
        """The workers that have a message of a conversation."""
        if self._sorted is not None:
            return self._sorted.get(conversation, [])
        return [
            worker
            for worker in self.workers
            if (turn := worker.turn) is not None and turn.frame.conversation is conversation
        ]

    @contextmanager
    def sorted_by_conversation(self) -> Iterator[None]:
        """Have `working_for` look only once; for the time in which many conversations end, and no turn begins."""
        found: dict[Conversation, list[Worker]] = {}
        for worker in self.workers:
            if worker.turn is not None:
                found.setdefault(worker.turn.frame.conversation, []).append(worker)
        self._sorted = found
        try:
            yield
        finally:
            self._sorted = None

    async def rest(self) -> None:
        """Wait until there is work."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(future)
        await future

    # -- deadlines ----------------------------------------------------------------------------------------------

    def watch(self, worker: Worker, deadline: float) -> None:
        """End the worker's handler at ``deadline`` (loop time). Called when the handler suspends for the first time.

        There is one timer, set to the earliest deadline. Handlers usually end long before theirs, so it fires rarely,
        and finds the next one then: far cheaper than a timer per call.
        """
        worker.deadline = deadline
        if deadline < self._timer_at:
            self._set_timer(deadline)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        # In a context without a turn, for the timer would keep its conversation.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(when, self._sweep, context=self.context) if when < NEVER else None

    def _sweep(self) -> None:
        # The loop may call a timer up to its clock's resolution early.
        now = max(asyncio.get_running_loop().time(), self._timer_at)
        self._timer = None
        self._timer_at = NEVER
        for worker in list(self.workers):
            if worker.deadline <= now:
                worker.deadline = NEVER
                if worker.failure is None:
                    self._expired(worker)
                else:
                    self.give_up(worker)
        self._set_timer(min((worker.deadline for worker in self.workers), default=NEVER))

    def cancel(self, worker: Worker, failure: PipelineError) -> None:
        """Cancel the worker's handler; give it up if it does not end within the grace period."""
        worker.failure = failure
        if worker.task is not None:
            worker.task.cancel()
        self.watch(worker, asyncio.get_running_loop().time() + GRACE)

    def give_up(self, worker: Worker) -> None:
        """Replace a worker whose handler does not end. Its task runs on, but nothing listens to it any more."""
        worker.abandoned = True
        self.workers.discard(worker)
        if worker.task is not None:
            self._gone.add(worker.task)
        self._given_up(worker)

    # -- stopping -----------------------------------------------------------------------------------------------

    async def close(self) -> list[Worker]:
        """Cancel all workers and wait for them, at most the grace period; returns those that did not end."""
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        workers = {worker.task: worker for worker in self.workers if worker.task is not None}
        for task in [*workers, *self._gone]:
            task.cancel()
        if not workers and not self._gone:
            return []
        _, hung = await asyncio.wait([*workers, *self._gone], timeout=GRACE)
        return [workers[task] for task in hung if task in workers]

    def _ended(self, worker: Worker, task: asyncio.Task[None]) -> None:
        self._gone.discard(task)
        self.workers.discard(worker)
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            logger.error("a worker ended unexpectedly", exc_info=failure)
        if task.cancelled() or failure is not None:
            self.wake()  # by somebody who is not of the pump; it may have been the one who was to go on
