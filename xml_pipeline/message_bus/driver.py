"""Driving a handler's coroutine inside its worker, in time, and saying what its exceptions mean."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable
from typing import Any

from xml_pipeline.errors import BudgetExhausted, ConversationCancelled, DeadlineExceeded, HandlerError, PipelineError
from xml_pipeline.message_bus.call import Continued
from xml_pipeline.message_bus.listener import Listener
from xml_pipeline.message_bus.worker_pool import Worker, WorkerPool

__all__ = ["Driver", "absorb_cancellation"]

logger = logging.getLogger(__name__)


class Driver:
    """Drives handlers.

    Args:
        pool: of the workers; it ends what takes too long.
        wake: called before a worker suspends.
    """

    def __init__(self, pool: WorkerPool, wake: Callable[[], object]) -> None:
        self._pool = pool
        self._wake = wake

    async def drive(self, worker: Worker, context: contextvars.Context, coroutine: Any, deadline: float) -> Any:
        """Run a coroutine in a context, until its end or a deadline in the loop's time."""
        try:
            awaited = context.run(coroutine.send, None)
        except StopIteration as stop:
            return stop.value
        return await self.resume(worker, context, coroutine, awaited, deadline)

    async def resume(
        self, worker: Worker, context: contextvars.Context, coroutine: Any, awaited: Any, deadline: float
    ) -> Any:
        """Run the rest of a coroutine that has suspended: it needs a deadline, and what is left another worker."""
        worker.suspended = True
        self._pool.watch(worker, deadline)
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

    def failure_of(self, worker: Worker, listener: Listener, exc: BaseException) -> PipelineError | None:
        """The outcome of an exception that left the handler, or a hook."""
        if isinstance(exc, BudgetExhausted) or (
            isinstance(exc, PipelineError) and (worker.is_ours or listener.is_trusted)
        ):
            return exc
        if isinstance(exc, asyncio.CancelledError):
            if worker.failure is not None:
                return None  # we cancelled it, and its message has had its outcome
            if self._pool.closing:
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


async def absorb_cancellation(task: asyncio.Task[Any] | None) -> None:
    """A cancellation of one handler must not reach the next one of the same task.

    ``uncancel`` alone is not enough: before Python 3.13 it leaves a cancellation that was requested and not yet
    delivered, which the next handler would get at its first ``await``.
    """
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    while task is not None and task.cancelling():
        task.uncancel()


def _describe(exc: BaseException) -> str:
    """Type and text of a handler's exception, whose own text may raise."""
    try:
        return f"{type(exc).__name__}: {exc}"
    except Exception:
        return type(exc).__name__
