"""What a pump tells about itself: the events, and the hub that delivers them.

==========================================  ==================================================================
Transition                                  Event
==========================================  ==================================================================
a conversation begins                       ``ThreadEvent("created")``
its first message reaches a handler         ``ThreadEvent("active")``
nothing of it is queued, running or held    ``ThreadEvent("completed")``, participants in order of appearance
it ended with an error nobody could take    ``ThreadEvent("error")``, with ``error``
it was cancelled, timed out, or shut down   ``ThreadEvent("killed")``, with ``error``
a listener takes a message                  ``AgentStateEvent("processing")``, then ``MessageReceivedEvent``
a handler's response is accepted            ``MessageSentEvent``
the turn ended well                         ``AgentStateEvent("idle")``; ``"waiting"`` while calls are open
the turn failed                             ``AgentStateEvent("error")``
a message has its outcome                   ``OutcomeEvent``: exactly one for every accepted message
old history was dropped                     ``HistoryTrimmedEvent``
a merged source ended or failed             ``SourceEvent``
a reload was attempted                      ``ReloadEvent``: one per attempt, good or bad
==========================================  ==================================================================

One successful hop reads: processing, received, sent, idle, outcome.

Delivery: every subscriber has a bounded queue and a reader of its own. When the queue is full, its oldest event is
dropped and counted; the gap shows in ``seq``. Callbacks run on the event loop, in slices of about 2 ms. After a full
slice, one that takes up to 20 us per event has its next slice in the loop's next turn. A slower one has it when the
others have had the loop for nine times as long, or have nothing to do. One that blocks the loop for more than 5 ms is
paused for nine times as long, whatever the others do. So a slow subscriber gets a tenth of a busy loop's time, and the
pump the rest. An exception in a callback is logged and counted, and ends nothing.
"""

from __future__ import annotations

import asyncio
import os
import time as clock
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from xml_pipeline.message_bus.event_delivery import (
    MAX_PENDING,
    CallbackReader,
    Reader,
    StreamReader,
    SubscriberStatistics,
)

if TYPE_CHECKING:
    from third_party.xmlable import Codec

__all__ = [
    "AgentStateEvent",
    "EventCallback",
    "EventHub",
    "EventStatistics",
    "EventStream",
    "HistoryTrimmedEvent",
    "MessageReceivedEvent",
    "MessageSentEvent",
    "OutcomeEvent",
    "PumpEvent",
    "ReloadEvent",
    "SealedPayload",
    "SourceEvent",
    "SubscriberStatistics",
    "ThreadEvent",
]


@dataclass(slots=True)
class PumpEvent:
    """Base of all events. Subclass it, as a dataclass, for events of your own; `EventHub.emit` takes them too.

    The fields here are keyword-only and filled in for you. They do not take part in comparisons, so that a test may
    look for ``ThreadEvent(thread, "created")`` among what it received.

    Args:
        seq: 1, 2, 3 ... within one pump, without gaps; a gap seen by a subscriber is what its queue dropped.
        id: unique over all pumps and processes.
        parent: id of the message or event that caused this one; empty where nothing did.
        conversation_id: the conversation it belongs to; empty where it belongs to none.
        time: seconds since the epoch (``time.time()``).
    """

    seq: int = field(default=0, kw_only=True, compare=False)
    id: str = field(default="", kw_only=True, compare=False)
    parent: str = field(default="", kw_only=True, compare=False)
    conversation_id: str = field(default="", kw_only=True, compare=False)
    time: float = field(default=0.0, kw_only=True, compare=False)


EventCallback = Callable[[PumpEvent], Any]
"""Takes an event. What it returns is awaited if it is awaitable (an ``async def`` callback), and ignored otherwise."""


class SealedPayload:
    """A payload in its serialised form, given to a message event in place of the object that a handler holds.

    Whoever reads ``event.payload`` gets an object of its own, equal to what was sent, made at that moment: nobody can
    change what a handler sees, and events that nobody looks into cost no decoding.

    Args:
        data: the canonical bytes of the payload element.
        codec: reads them; without one ``open`` gives the bytes.
    """

    __slots__ = ("codec", "data")

    def __init__(self, data: bytes, codec: Codec[Any] | None = None) -> None:
        self.data = data
        self.codec = codec

    def open(self) -> Any:
        """A fresh payload object."""
        return self.data if self.codec is None else self.codec.decode_text(self.data)


class _Payload:
    """The field of a message event that opens a `SealedPayload` when it is read."""

    __slots__ = ()

    def __get__(self, event: Any, owner: type | None = None) -> Any:
        if event is None:
            raise AttributeError("payload")  # tells ``dataclass`` that the field has no default
        payload = event._payload
        return payload.open() if type(payload) is SealedPayload else payload

    def __set__(self, event: Any, payload: Any) -> None:
        event._payload = payload


@dataclass
class MessageReceivedEvent(PumpEvent):
    """A message is about to be handed to a handler.

    Args:
        thread_id: the frame it is delivered on.
        from_id: who sent it.
        to_id: the listener that gets it.
        payload_type: name of the payload class.
        payload: the payload; a `SealedPayload` is opened whenever it is read.
    """

    thread_id: str
    from_id: str
    to_id: str
    payload_type: str
    payload: Any = _Payload()


@dataclass
class MessageSentEvent(PumpEvent):
    """A handler's response was accepted. Fields as in `MessageReceivedEvent`."""

    thread_id: str
    from_id: str
    to_id: str
    payload_type: str
    payload: Any = _Payload()


@dataclass(slots=True)
class AgentStateEvent(PumpEvent):
    """A listener changed its state on a thread.

    Args:
        agent_name: the listener, tools included.
        state: ``processing``, ``waiting`` (calls are open, nothing runs), ``idle`` or ``error``.
        thread_id: the frame concerned.
    """

    agent_name: str
    state: str
    thread_id: str | None = None


@dataclass(slots=True)
class ThreadEvent(PumpEvent):
    """A conversation changed its state.

    Args:
        thread_id: the conversation's id.
        status: ``created``, ``active``, ``completed``, ``error`` or ``killed``.
        participants: listeners that took part, in order of appearance.
        error: what happened, for the operator; ``None`` unless the status is ``error`` or ``killed``.
    """

    thread_id: str
    status: str
    participants: list[str] = field(default_factory=list)
    error: str | None = None


@dataclass(slots=True)
class ReloadEvent(PumpEvent):
    """A reload of the configuration was attempted.

    Args:
        success: whether the new configuration is in force.
        added_listeners: names.
        removed_listeners: names.
        updated_listeners: names.
        error: why it failed, with file, line and column where known.
        warnings: what of the file is not in force all the same, a sentence for each.
    """

    success: bool
    added_listeners: list[str] = field(default_factory=list)
    removed_listeners: list[str] = field(default_factory=list)
    updated_listeners: list[str] = field(default_factory=list)
    error: str | None = None
    warnings: list[str] = field(default_factory=list, kw_only=True)


@dataclass(slots=True)
class OutcomeEvent(PumpEvent):
    """A message ended.

    Args:
        message_id: the id that its handler saw in ``metadata.message_id``.
        outcome: a value of `message_state.Outcome`.
        thread_id: the frame it was on.
        from_id: who sent it.
        to_id: its target.
        payload_type: name of its payload class; empty when it was never read that far.
        code: error code, for a message that failed; see ``errors``.
        detail: the first cause, for the operator.
        dead_letter_id: where it is kept, if its outcome is ``dead-lettered``.
        repairs: what repair changed in it, in words.
    """

    message_id: str
    outcome: str
    thread_id: str
    from_id: str
    to_id: str
    payload_type: str
    code: str = ""
    detail: str = ""
    dead_letter_id: str = ""
    repairs: tuple[str, ...] = ()


@dataclass(slots=True)
class HistoryTrimmedEvent(PumpEvent):
    """The history of a conversation exceeded its limit, and its oldest slots were dropped.

    Args:
        thread_id: the conversation's id.
        dropped_slots: how many, this time.
        dropped_bytes: how much they counted for.
    """

    thread_id: str
    dropped_slots: int
    dropped_bytes: int


@dataclass(slots=True)
class SourceEvent(PumpEvent):
    """A source merged into the pump is no longer read.

    Args:
        name: the source's name.
        status: ``ended`` or ``failed``.
        error: the exception's text, if it failed.
    """

    name: str
    status: str
    error: str | None = None


class EventStatistics(NamedTuple):
    """Counts of an `EventHub`."""

    emitted: int
    subscribers: tuple[SubscriberStatistics, ...]


class EventHub:
    """Delivers events to subscribers without ever making the emitter wait. Use it from the event loop's thread.

    Test `active` before you build an event, so that a pump without subscribers pays for one attribute only::

        if hub.active:
            hub.emit(ThreadEvent(thread, "created"))
    """

    __slots__ = ("__weakref__", "_closed", "_origin", "_readers", "_seq", "_tasks", "active")

    def __init__(self) -> None:
        self.active = False
        self._closed = False
        # Replaced, never changed in place: `emit` may be walking over it.
        self._readers: tuple[Reader, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._seq = 0
        self._origin = os.urandom(8).hex() + "-"

    def emit(self, event: PumpEvent) -> None:
        """Put ``event`` into every subscriber's queue and return; nothing of a subscriber runs here.

        Gives the event its ``seq``, and its ``id`` and ``time`` where it has none yet. Outside a running event loop
        events are only queued; the next one emitted inside a loop, or `flush`, sets delivery going.

        Args:
            event: handed to all subscribers as it is; do not use it again.
        """
        if not self.active:
            return
        seq = self._seq = self._seq + 1
        event.seq = seq
        if not event.id:
            event.id = self._origin + str(seq)
        if not event.time:
            event.time = clock.time()
        for reader in self._readers:
            pending = reader.pending
            if len(pending) == reader.maxsize:
                reader.dropped += 1  # the deque lets its oldest go by itself
            pending.append(event)
            if reader.asleep:
                reader.wake()

    def subscribe(self, callback: EventCallback, *, maxsize: int = MAX_PENDING) -> None:
        """Call ``callback`` with every event from now on, in order, one at a time.

        Works before any event loop runs. Subscribing a callback again changes nothing: it is called once per event.
        The callback runs in the context (``contextvars``) of this call. After `close` it will never be called.

        Args:
            callback: a function or coroutine function of one argument.
            maxsize: how many events may wait for it; beyond that the oldest is dropped and counted.

        Raises:
            TypeError: ``callback`` cannot be called.
            ValueError: ``maxsize`` is less than 1.
        """
        if not callable(callback):
            raise TypeError(f"an event callback must be callable, not {type(callback).__name__}")
        if self._find(callback) is None:
            self._add(CallbackReader(callback, maxsize, self._tasks))

    def unsubscribe(self, callback: EventCallback) -> bool:
        """Stop calling ``callback``. Events still waiting for it are discarded: `flush` first if they matter.

        May be called from within the callback. An asynchronous callback that is just running runs to its end.

        Returns:
            Whether it was subscribed.
        """
        reader = self._find(callback)
        if reader is None:
            return False
        self._remove(reader)
        return True

    def events(self, maxsize: int = MAX_PENDING) -> EventStream:
        """Every event from now on, as an asynchronous iterator; it ends after `close`.

        It listens from this call until it is closed or no longer referenced, whether or not it is being iterated.

        Args:
            maxsize: how many events may wait to be taken; beyond that the oldest is dropped and counted.

        Raises:
            ValueError: ``maxsize`` is less than 1.
        """
        reader = StreamReader(maxsize)
        self._add(reader)
        return EventStream(self, reader)

    async def flush(self, timeout: float = 5.0) -> int:
        """Deliver to all callbacks what has been emitted so far, without pausing slow ones.

        A callback may await this: it then waits for the other subscribers only. Iterators take events at their own
        pace and are not waited for.

        Args:
            timeout: seconds after which to stop waiting.

        Returns:
            How many events (counted per callback) were not delivered in time; 0 is success.
        """
        target = self._seq
        running = asyncio.current_task()
        readers = [r for r in self._readers if isinstance(r, CallbackReader) and r.task is not running]
        waiting = {r.hurry(target) for r in readers if r.pending_until(target)}
        if waiting:
            try:
                await asyncio.wait(waiting, timeout=timeout)
            finally:
                for future in waiting:
                    future.cancel()
        return sum(reader.pending_until(target) for reader in readers)

    async def close(self, timeout: float = 1.0) -> None:
        """End delivery: callbacks get nothing more, iterators end after what is in their queues. Final; safe twice.

        Call `flush` first to have everything delivered. A callback that is still running is cancelled.

        Args:
            timeout: seconds to wait for cancelled callbacks to end.
        """
        self._closed = True
        for reader in self._readers:
            self._remove(reader)
        loop = asyncio.get_running_loop()
        mine = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not mine and task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    def statistics(self) -> EventStatistics:
        """Counts of this hub and of each subscriber."""
        return EventStatistics(self._seq, tuple(reader.statistics() for reader in self._readers))

    def _find(self, callback: EventCallback) -> CallbackReader | None:
        # By equality: a bound method is a new object each time it is looked up.
        for reader in self._readers:
            if isinstance(reader, CallbackReader) and reader.callback == callback:
                return reader
        return None

    def _add(self, reader: Reader) -> None:
        if self._closed:
            reader.end()
            return
        self._readers = (*self._readers, reader)
        self.active = True

    def _remove(self, reader: Reader) -> None:
        self._readers = tuple(other for other in self._readers if other is not reader)
        self.active = bool(self._readers)
        reader.end()


class EventStream(AsyncIterator[PumpEvent]):
    """The asynchronous iterator that `EventHub.events` returns. For one task at a time.

    Also a context manager (``async with hub.events() as events``), for whoever wants it closed at a definite point.
    """

    __slots__ = ("_hub", "_reader")

    def __init__(self, hub: EventHub, reader: StreamReader) -> None:
        self._hub = hub
        self._reader = reader

    @property
    def dropped(self) -> int:
        """How many events were lost because the queue was full."""
        return self._reader.dropped

    async def __anext__(self) -> PumpEvent:
        return cast("PumpEvent", await self._reader.take())

    async def aclose(self) -> None:
        """Stop listening; events in the queue are discarded."""
        self._hub._remove(self._reader)
        self._reader.pending.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # ``break`` in an ``async for`` closes nothing: without this the queue would go on filling.
        self._hub._remove(self._reader)
