"""The way from handlers back into the pipeline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from xml_pipeline.message_bus.message_state import MessageState

__all__ = ["Outlet"]

logger = logging.getLogger(__name__)


class Outlet:
    """Collects what handlers send, for the dispatch stage to yield.

    Args:
        on_failure: called with a message that the sink raised for, and the exception.
    """

    def __init__(self, on_failure: Callable[[MessageState, Exception], None]) -> None:
        self.sink: Callable[[MessageState], object] | None = None
        """Takes a message at once where nothing stands between dispatch and re-injection; see `pipeline.drive`."""
        self._on_failure = on_failure
        self._messages: list[MessageState] = []
        self._handed_out: list[MessageState] = []
        self._arrival: asyncio.Future[None] | None = None
        self._finished = False

    def put(self, state: MessageState) -> None:
        """Put a message in line for re-injection, or straight into the sink if there is one."""
        sink = self.sink
        if sink is None:
            self._messages.append(state)
            self._wake()
            return
        try:
            sink(state)
        except Exception as exc:
            logger.exception("the re-injection stage failed")
            self._on_failure(state, exc)

    async def batch(self) -> list[MessageState] | None:
        """What has gathered since the last call, waiting if it is nothing; ``None`` once all is out after `finish`."""
        self._handed_out = []
        while not self._messages:
            if self._finished:
                return None
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        batch, self._messages = self._messages, []
        self._handed_out = batch
        return batch

    def take_back(self) -> list[MessageState]:
        """The last batch given out, when the pipeline broke before it asked for the next one."""
        batch, self._handed_out = self._handed_out, []
        return batch

    def drain(self) -> list[MessageState]:
        """Take everything that is still in line."""
        states, self._messages = self._messages, []
        return states

    def open(self) -> None:
        """Get ready for a new pipeline."""
        self._finished = False

    def finish(self) -> None:
        """No more messages will come."""
        self._finished = True
        self._wake()

    def _wake(self) -> None:
        arrival = self._arrival
        if arrival is not None and not arrival.done():
            arrival.set_result(None)
