"""What a pump is doing, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from xml_pipeline.message_bus.engine import Engine

__all__ = ["ListenerStatistics", "PumpStatistics", "ShutdownReport", "collect"]


class ListenerStatistics(NamedTuple):
    """One listener.

    Attributes:
        name: the registered name.
        running: handlers running.
        waiting: messages waiting for a handler.
        queued: external messages waiting for admission to it.
        abandoned: handlers that ignored their cancellation, so far.
    """

    name: str
    running: int
    waiting: int
    queued: int
    abandoned: int


class PumpStatistics(NamedTuple):
    """A pump at one moment. ``accepted == sum(outcomes.values()) + in_flight``, always.

    Attributes:
        state: ``new``, ``started``, ``running``, ``draining`` or ``stopped``.
        accepted: messages so far, external ones and those that handlers sent.
        in_flight: messages that have no outcome yet.
        outcomes: how many messages ended how; see `Outcome`.
        queued: external messages waiting for admission.
        running: handlers running.
        waiting: messages waiting for a handler.
        open_conversations: conversations that are not complete, the pump's own included.
        retained_conversations: complete ones that are remembered.
        open_frames: frames that are open, the pump's own included.
        dead_letters: dead letters kept.
        late_results: results that came after their message's time, and were dropped.
        abandoned_handlers: handlers that ignored their cancellation.
        dropped_events: events that slow subscribers lost.
        listeners: one entry for each listener.
    """

    state: str
    accepted: int
    in_flight: int
    outcomes: dict[str, int]
    queued: int
    running: int
    waiting: int
    open_conversations: int
    retained_conversations: int
    open_frames: int
    dead_letters: int
    late_results: int
    abandoned_handlers: int
    dropped_events: int
    listeners: tuple[ListenerStatistics, ...]


class ShutdownReport(NamedTuple):
    """How a pump stopped.

    Attributes:
        drained: everything that was accepted had been processed when it stopped.
        seconds: how long it took.
        cancelled: messages that were cancelled because the time was over.
        hung: listeners whose handlers were still running at the deadline.
        outcomes: how many messages ended how, over the pump's life.
    """

    drained: bool
    seconds: float
    cancelled: int
    hung: tuple[str, ...]
    outcomes: dict[str, int]


def collect(engine: Engine, state: str) -> PumpStatistics:
    """The numbers of a pump's parts.

    Args:
        engine: the parts.
        state: what the pump is doing, see `PumpStatistics`.
    """
    dispatcher = engine.dispatcher
    listeners = []
    for name, listener in engine.table.listeners.items():
        lane = dispatcher.lanes.of(listener)
        queued = engine.scheduler.waiting_for(name)
        listeners.append(ListenerStatistics(name, lane.active, lane.waiting.size, queued, lane.abandoned))
    return PumpStatistics(
        state=state,
        accepted=engine.mint.accepted,
        in_flight=engine.mint.in_flight,
        outcomes=dict(engine.ledger.outcomes),
        queued=engine.scheduler.queued,
        running=dispatcher.pool.running,
        waiting=dispatcher.lanes.waiting,
        open_conversations=engine.registry.open_conversations,
        retained_conversations=engine.registry.retained_conversations,
        open_frames=engine.registry.open_frames,
        dead_letters=len(engine.dead_letters),
        late_results=dispatcher.turns.late,
        abandoned_handlers=dispatcher.abandoned,
        dropped_events=sum(reader.dropped for reader in engine.events.statistics().subscribers),
        listeners=tuple(listeners),
    )
