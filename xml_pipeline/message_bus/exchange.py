"""What the outside gets back for one external message: its first answer, its stream of answers, or its error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeAlias

from xml_pipeline.errors import DeadlineExceeded, NoAnswer, PipelineError
from xml_pipeline.message_bus.message_state import Outcome

__all__ = ["MOST_AHEAD", "Exchange", "Taker"]

logger = logging.getLogger(__name__)

Taker: TypeAlias = Callable[[Any, PipelineError | None], object]
"""Gets an answer's payload, or why there is none."""

MOST_AHEAD: Final = 256
"""Answers of a stream that may wait for whoever reads it, before the handler that yields them waits, too."""


class Exchange:
    """One external message and everything that comes back for it.

    Whoever asks does so through `first` (request, wait) or `stream`. When nobody asks, the first result is kept for a
    later `wait`, and an error is a dead letter.
    """

    __slots__ = (
        "_deferred",
        "_error",
        "_future",
        "_queue",
        "_room",
        "_settled",
        "_taker",
        "_under_way",
        "_value",
        "attempts",
        "conversation_id",
        "from_id",
        "is_complete",
        "on_complete",
        "target",
        "wire",
    )

    def __init__(self, target: str, from_id: str, conversation_id: str) -> None:
        self.target = target
        self.from_id = from_id
        self.conversation_id = conversation_id
        self.wire: bytes | None = None
        """The external message, for its dead letter; dropped when the conversation is complete."""
        self.is_complete = False
        """Nothing more will come."""
        self.on_complete: Callable[[], object] | None = None
        """Called once, when nothing more will come."""
        self._deferred: PipelineError | None = None
        self._under_way = 0
        self.attempts = 0
        """How often it was retried as a dead letter."""
        self._value: Any = None
        self._error: PipelineError | None = None
        self._settled = False
        self._future: asyncio.Future[Any] | None = None
        self._queue: asyncio.Queue[Any] | None = None
        self._room: asyncio.Future[None] | None = None
        self._taker: Taker | None = None

    @property
    def error(self) -> PipelineError | None:
        """The error that ended it, if one did."""
        return self._error

    def deliver(self, payload: Any) -> Outcome:
        """Hand over an answer; returns what became of it."""
        if self._queue is not None:
            if self._error is not None:
                return Outcome.EXPIRED
            self._settled = True
            self._queue.put_nowait((payload, None))
            return Outcome.HANDLED
        if self._settled:
            return Outcome.EXPIRED
        self._settled = True
        self._value = payload
        if self._taker is not None:
            self._hand_over(payload, None)
        if self._future is not None and not self._future.done():
            self._future.set_result(payload)
        return Outcome.HANDLED

    def sent(self) -> None:
        """An answer is on its way to the outside."""
        self._under_way += 1

    def landed(self) -> None:
        """An answer on its way has its outcome."""
        self._under_way -= 1
        if self._room is not None:
            self._make_room()
        deferred = self._deferred
        if deferred is not None and not self._under_way:
            self._deferred = None
            self.fail(deferred)

    def fail_in_turn(self, error: PipelineError) -> bool:
        """Hand over an error behind the answers that are under way, so that it does not overtake them.

        Returns:
            Whether anybody gets it. Whoever waits for one answer gets the one that is under way instead.
        """
        if not self._under_way:
            return self.fail(error)
        if self._queue is None or self._error is not None:
            return False
        self._deferred = self._deferred or error
        return True

    def fail(self, error: PipelineError) -> bool:
        """Hand over an error; returns whether anybody was waiting for it."""
        if self._queue is not None:
            told = self._error is None
            if told:
                self._error = error
                self._settled = True
                self._queue.put_nowait((None, error))
            return told
        if self._settled:
            return False
        self._settled = True
        self._error = error
        if self._taker is not None:
            self._hand_over(None, error)
            return True
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)
            return True
        return False

    def complete(self) -> None:
        """The conversation is complete: whoever still waits gets `NoAnswer`, a stream ends."""
        self.wire = None
        self.is_complete = True
        if self.on_complete is not None:
            self.on_complete()
        if self._queue is not None:
            self._queue.put_nowait(None)
        elif (self._future is not None or self._taker is not None) and not self._settled:
            self.fail(self._no_answer())
        # This is remembered for a while, and what the error went through must not be: whoever waits has the error.
        self._future = None
        if self._error is not None:
            self._error = self._error.bare()

    def _no_answer(self) -> NoAnswer:
        return NoAnswer(f"the conversation with {self.target!r} completed and nobody answered")

    def hand_to(self, taker: Taker) -> None:
        """Have the first answer, or the error, handed over at once when it comes, instead of being waited for.

        Args:
            taker: gets the answer's payload and ``None``, or ``None`` and the error; once, from within the pump, which
                it must not keep waiting. What it raises is logged.
        """
        self._taker = taker

    def _hand_over(self, payload: Any, error: PipelineError | None) -> None:
        taker, self._taker = self._taker, None
        try:
            if taker is not None:
                taker(payload, error)
        except KeyboardInterrupt:
            raise
        except BaseException:  # it would end the worker that delivers, and with it the pipeline
            logger.exception("an answer of %r could not be handed over", self.target)

    async def only(self) -> Any:
        """`first`, for somebody who is the only one that will ever ask: it costs less."""
        return await self._first(_as_it_is)

    async def first(self) -> Any:
        """The first answer.

        Raises:
            PipelineError: the conversation failed, or ended without an answer.
        """
        return await self._first(asyncio.shield)

    async def _first(self, guard: Callable[[asyncio.Future[Any]], asyncio.Future[Any]]) -> Any:
        if self._settled:
            if self._error is not None:
                # What is remembered must not remember who was told.
                raise self._error.bare() if self.is_complete else self._error
            return self._value
        if self.is_complete:
            raise self._no_answer()
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
            # An error that comes after the last waiter left is kept here, not reported as never retrieved.
            self._future.add_done_callback(_retrieve)
        return await guard(self._future)

    def open_stream(self) -> None:
        """From now on keep every answer, for `stream`."""
        self._queue = asyncio.Queue()

    @property
    def is_behind(self) -> bool:
        """Whether as many answers wait for the reader of a stream as may."""
        return self._queue is not None and self._queue.qsize() + self._under_way >= MOST_AHEAD

    async def room(self) -> None:
        """Wait until the reader of a stream has caught up, or has left."""
        while self.is_behind:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def _make_room(self) -> None:
        room = self._room
        if room is not None and not self.is_behind:
            self._room = None
            room.set_result(None)

    async def stream(self, timeout: float) -> AsyncGenerator[Any, None]:
        """Every answer until the conversation is complete.

        Args:
            timeout: seconds without an answer after which to give up.

        Raises:
            PipelineError: the conversation failed.
            DeadlineExceeded: no answer came for ``timeout`` seconds.
        """
        queue = self._queue
        if queue is None:
            raise RuntimeError("open_stream() was not called")
        try:
            while True:
                try:
                    async with asyncio.timeout(timeout):
                        item = await queue.get()
                except TimeoutError:
                    raise DeadlineExceeded(f"no answer from {self.target!r} for {timeout} s", step="stream") from None
                if item is None:
                    return
                payload, error = item
                if error is not None:
                    raise error
                self._make_room()
                yield payload
        finally:
            while not queue.empty():  # nobody will read it, and the exchange is remembered for a while
                queue.get_nowait()
            self._make_room()


def _as_it_is(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    return future


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
