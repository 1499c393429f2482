"""Workers take turns at the pipeline: whoever has nothing else to do takes the next batch in, and runs its handlers.

A task that did nothing but read would have to wake a worker for each batch, and the worker to wake it for each answer:
two turns of the event loop more per request, which of a message that travels alone are a quarter of the time.

Source: the Leader/Followers pattern (Schmidt, O'Ryan, Kircher, Pyarali, Buschmann, PLoP 2000), with tasks for threads.
The one that reads is the leader; it promotes a follower when its handler suspends, see `Dispatcher`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable
from typing import Any

from xml_pipeline.message_bus.call import Continued
from xml_pipeline.message_bus.message_state import MessageState

__all__ = ["Intake"]


class Intake:
    """The pipeline's stages up to dispatch, for whoever is to read them.

    Only for stages that suspend nowhere but at their source, since each batch may be read by another task. They run in
    a context of their own: what a payload class sets in a context variable is not for a reader's next handler.

    Args:
        batches: what the stages give.
        take: is called with each batch.
    """

    __slots__ = ("_batches", "_context", "_is_closing", "_left", "_over", "_reader", "_take", "is_broken_off")

    def __init__(
        self, batches: AsyncIterator[list[MessageState]], take: Callable[[list[MessageState]], object]
    ) -> None:
        self._batches = batches
        self._context = contextvars.copy_context()
        self._take = take
        self._reader: asyncio.Task[Any] | None = None
        self._is_closing = False
        self.is_broken_off = False
        """Whoever read was cancelled for something else: there may be more to read, but not from these batches."""
        loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = loop.create_future()
        self._left: asyncio.Future[None] = loop.create_future()

    @property
    def is_free(self) -> bool:
        """Whether there may be more to read, and nobody reads."""
        return self._reader is None and not self._over.done()

    async def read(self, reader: asyncio.Task[Any]) -> None:
        """Wait for the next batch, and take it.

        Args:
            reader: the current task.
        """
        self._reader = reader
        try:
            step: Any = anext(self._batches)
            try:
                awaited = self._context.run(step.send, None)
            except StopIteration as stop:
                batch = stop.value
            else:
                batch = await Continued(step, self._context, awaited)
            self._take(batch)
        except StopAsyncIteration:
            self.end()
        except asyncio.CancelledError:
            if not self._is_closing and not reader.cancelling():
                self.end(RuntimeError("a stage of the pipeline raised CancelledError"))
                return
            self.is_broken_off = not self._is_closing
            self.end()  # what was read from is closed by it
            if not self._is_closing:
                raise
            reader.uncancel()
        except Exception as exc:
            self.end(exc)
        finally:
            self._reader = None
            if self._is_closing:
                self._left.set_result(None)

    def end(self, failure: Exception | None = None) -> None:
        """There is nothing more to read, or nobody who would."""
        if self._over.done():
            return
        if failure is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(failure)

    async def wait(self) -> None:
        """Wait until everything is read, or `is_broken_off`. Nobody reads any more when this has returned, or was
        cancelled.

        Raises:
            Exception: what a stage, or taking a batch, raised.
        """
        try:
            await self._over
        finally:
            if self._reader is not None:
                self._is_closing = True
                self._reader.cancel()
                while not self._left.done():  # however often whoever waits here is cancelled
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.shield(self._left)
