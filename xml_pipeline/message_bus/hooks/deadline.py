"""By when a handler must be done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from xml_pipeline.errors import DeadlineExceeded
from xml_pipeline.message_bus.dispatch_hook import TurnHook
from xml_pipeline.message_bus.message_state import HandlerMetadata, MessageState
from xml_pipeline.message_bus.routing import CurrentTable

__all__ = ["Deadline"]


class Deadline(TurnHook):
    """Sets ``metadata.deadline`` to the listener's timeout from now, or to the message's or the call's own deadline if
    that is earlier; a message past its deadline is not started.

    Args:
        current: has the routing table in force: timeouts are read at check time, also for frames opened earlier.
    """

    def __init__(self, current: CurrentTable) -> None:
        self._current = current
        self._clock: Callable[[], float] | None = None

    def _get_clock(self) -> Callable[[], float]:
        # A pump runs in one loop all its life.
        self._clock = asyncio.get_running_loop().time
        return self._clock

    def before(self, state: MessageState, metadata: HandlerMetadata) -> None:
        listener = state.listener
        if listener is None:
            return
        listener = self._current.table.listeners.get(listener.name, listener)
        now = self._clock() if self._clock is not None else self._get_clock()()
        deadline = now + listener.timeout
        if state.deadline:
            if state.deadline <= now:
                raise DeadlineExceeded("the message waited past its deadline", step="dispatch", target=listener.name)
            deadline = min(deadline, state.deadline)
        if state.frame is not None and state.frame.expiry is not None:
            expiry = state.frame.expiry.when
            if expiry <= now:  # its timer is due, and would have come before this message if the loop had not been busy
                raise DeadlineExceeded("the call waited past its time", step="dispatch", target=listener.name)
            deadline = min(deadline, expiry)
        metadata.deadline = deadline
