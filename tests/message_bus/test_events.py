"""`xml_pipeline.message_bus.events`: the event classes, and delivery to subscribers."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import logging
import pickle
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.message_bus import event_delivery
from xml_pipeline.message_bus.event_delivery import CallbackReader
from xml_pipeline.message_bus.events import (
    AgentStateEvent,
    EventHub,
    HistoryTrimmedEvent,
    MessageReceivedEvent,
    MessageSentEvent,
    OutcomeEvent,
    PumpEvent,
    ReloadEvent,
    SealedPayload,
    SourceEvent,
    ThreadEvent,
)


def note(text: str) -> AgentStateEvent:
    return AgentStateEvent(text, "idle")


def names(events: list[PumpEvent]) -> list[str]:
    return [cast("AgentStateEvent", event).agent_name for event in events]


class Upper:
    """A codec, as far as events need one."""

    def decode_text(self, data: bytes) -> list[str]:
        return [data.decode().upper()]


# --- the classes ------------------------------------------------------------------------------------------------------

POSITIONAL: list[tuple[type[PumpEvent], list[str]]] = [
    (MessageReceivedEvent, ["thread_id", "from_id", "to_id", "payload_type", "payload"]),
    (MessageSentEvent, ["thread_id", "from_id", "to_id", "payload_type", "payload"]),
    (AgentStateEvent, ["agent_name", "state", "thread_id"]),
    (ThreadEvent, ["thread_id", "status", "participants", "error"]),
    (ReloadEvent, ["success", "added_listeners", "removed_listeners", "updated_listeners", "error"]),
    (HistoryTrimmedEvent, ["thread_id", "dropped_slots", "dropped_bytes"]),
    (SourceEvent, ["name", "status", "error"]),
    (
        OutcomeEvent,
        [
            *("message_id", "outcome", "thread_id", "from_id", "to_id", "payload_type"),
            *("code", "detail", "dead_letter_id", "repairs"),
        ],
    ),
]


@pytest.mark.parametrize(("cls", "fields"), POSITIONAL)
def test_documented_fields_are_positional_and_in_order(cls: type[PumpEvent], fields: list[str]) -> None:
    assert [f.name for f in dataclasses.fields(cls) if not f.kw_only] == fields
    values = [f"value {name}" for name in fields]
    event = cls(*values)
    assert [getattr(event, name) for name in fields] == values
    assert (event.seq, event.id, event.parent, event.conversation_id, event.time) == (0, "", "", "", 0.0)


def test_defaults_are_the_documented_ones() -> None:
    assert ThreadEvent("t", "created") == ThreadEvent("t", "created", [], None)
    assert ReloadEvent(True) == ReloadEvent(True, [], [], [], None)
    assert AgentStateEvent("a", "idle").thread_id is None


def test_comparison_leaves_out_what_the_pump_fills_in() -> None:
    stamped = ThreadEvent("t", "created", seq=4, id="x", parent="y", conversation_id="t", time=1.0)
    assert stamped == ThreadEvent("t", "created")
    assert stamped != ThreadEvent("t", "completed")


def test_a_users_event_keeps_its_own_positional_fields() -> None:
    @dataclass
    class Mine(PumpEvent):
        text: str
        count: int = 1

    event = Mine("hello", 2)
    hub = EventHub()
    stream = hub.events()
    hub.emit(event)
    assert (event.text, event.count, event.seq) == ("hello", 2, 1)
    del stream


def test_a_sealed_payload_is_opened_anew_on_every_access() -> None:
    event = MessageReceivedEvent("t", "a", "b", "P", SealedPayload(b"text", cast("Any", Upper())))
    assert event.payload == ["TEXT"]
    assert event.payload is not event.payload
    assert event == MessageReceivedEvent("t", "a", "b", "P", ["TEXT"])
    assert "payload=['TEXT']" in repr(event)
    assert MessageSentEvent("t", "a", "b", "P", SealedPayload(b"raw")).payload == b"raw"


def test_a_plain_payload_is_passed_through() -> None:
    payload = object()
    event = MessageReceivedEvent("t", "a", "b", "P", payload)
    assert event.payload is payload
    event.payload = "other"
    assert event.payload == "other"
    with pytest.raises(TypeError, match="payload"):
        MessageReceivedEvent("t", "a", "b", "P")


def test_events_can_be_pickled() -> None:
    for event in (OutcomeEvent("m", "handled", "t", "a", "b", "P", seq=3), MessageSentEvent("t", "a", "b", "P", 1)):
        copied = pickle.loads(pickle.dumps(event))
        assert copied == event
        assert copied.seq == event.seq


# --- emit -------------------------------------------------------------------------------------------------------------


async def test_nothing_happens_without_subscribers() -> None:
    hub = EventHub()
    assert not hub.active
    event = note("a")
    hub.emit(event)
    assert event.seq == 0
    assert hub.statistics().emitted == 0


async def test_emit_stamps_seq_id_and_time() -> None:
    hub = EventHub()
    stream = hub.events()
    assert hub.active
    first, second = note("a"), AgentStateEvent("b", "idle", id="given", time=5.0)
    hub.emit(first)
    hub.emit(second)
    assert (first.seq, second.seq) == (1, 2)
    assert first.id
    assert first.time > 0
    assert (second.id, second.time) == ("given", 5.0)
    assert [await anext(stream), await anext(stream)] == [first, second]


async def test_ids_differ_between_hubs() -> None:
    events = []
    for _ in range(2):
        hub = EventHub()
        stream = hub.events()
        event = note("a")
        hub.emit(event)
        events.append(event.id)
        await stream.aclose()
    assert events[0] != events[1]


async def test_callbacks_run_after_emit_in_order() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    hub.subscribe(got.append)
    for name in "abc":
        hub.emit(note(name))
    assert got == []
    assert await hub.flush() == 0
    assert names(got) == ["a", "b", "c"]
    assert [event.seq for event in got] == [1, 2, 3]
    await hub.close()


async def test_callbacks_run_without_flush() -> None:
    hub = EventHub()
    done = asyncio.Event()
    hub.subscribe(lambda event: done.set())
    for _ in range(3):
        hub.emit(note("a"))
        await done.wait()
        done.clear()
    await hub.close()


async def test_asynchronous_callbacks_get_one_event_at_a_time() -> None:
    hub = EventHub()
    steps: list[str] = []

    async def callback(event: PumpEvent) -> None:
        steps.append(f"begin {event.seq}")
        await asyncio.sleep(0)
        steps.append(f"end {event.seq}")

    hub.subscribe(callback)
    hub.emit(note("a"))
    hub.emit(note("b"))
    await hub.flush()
    assert steps == ["begin 1", "end 1", "begin 2", "end 2"]
    await hub.close()


async def test_other_awaitables_are_awaited_too() -> None:
    hub = EventHub()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    hub.subscribe(lambda event: future)
    hub.emit(note("a"))
    flushing = asyncio.create_task(hub.flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not flushing.done()
    future.set_result(None)
    assert await flushing == 0
    await hub.close()


def test_subscribing_and_emitting_before_any_loop_runs() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    hub.subscribe(got.append)
    hub.emit(note("early"))

    async def main() -> None:
        seen = asyncio.Event()
        hub.subscribe(lambda event: seen.set())
        hub.emit(note("late"))
        await seen.wait()

    asyncio.run(main())
    assert names(got) == ["early", "late"]


def test_flush_delivers_what_was_emitted_before_any_loop_ran() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    hub.subscribe(got.append)
    hub.emit(note("early"))
    assert asyncio.run(hub.flush()) == 0
    assert names(got) == ["early"]


def test_a_subscription_outlives_the_loop() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    hub.subscribe(got.append)

    async def emit_only() -> None:
        hub.emit(note("a"))  # the loop ends before the task has taken its first step

    async def emit_and_flush() -> None:
        hub.emit(note("b"))
        await hub.flush()

    asyncio.run(emit_only())
    asyncio.run(emit_and_flush())
    asyncio.run(emit_and_flush())
    assert names(got) == ["a", "b", "b"]


async def test_a_task_cancelled_before_its_first_step_is_replaced() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    hub.subscribe(got.append)
    hub.emit(note("a"))
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    task.cancel()
    await asyncio.wait([task])
    seen = asyncio.Event()
    hub.subscribe(lambda event: seen.set())
    hub.emit(note("b"))
    await seen.wait()
    assert names(got) == ["a", "b"]
    await hub.close()


async def test_the_context_is_that_of_the_subscriber_not_of_the_emitter() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    hub = EventHub()
    seen: list[str] = []
    variable.set("subscriber")
    hub.subscribe(lambda event: seen.append(variable.get()))
    variable.set("emitter")
    hub.emit(note("a"))
    await hub.flush()
    assert seen == ["subscriber"]
    await hub.close()


async def test_emitting_from_within_a_callback() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []

    def callback(event: PumpEvent) -> None:
        got.append(event)
        if event.seq < 4:
            hub.emit(note("again"))

    hub.subscribe(callback)
    hub.emit(note("first"))
    await hub.flush()
    await hub.flush()
    assert [event.seq for event in got] == [1, 2, 3, 4]
    await hub.close()


async def test_an_eager_task_factory_does_not_run_callbacks_inside_emit() -> None:
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("needs Python 3.12")
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    hub = EventHub()
    got: list[PumpEvent] = []
    hub.subscribe(got.append)
    hub.emit(note("a"))
    assert got == []
    await hub.flush()
    assert names(got) == ["a"]
    await hub.close()


# --- subscribing ------------------------------------------------------------------------------------------------------


async def test_the_same_callback_subscribed_twice_is_called_once() -> None:
    class Screen:
        def __init__(self) -> None:
            self.got: list[PumpEvent] = []

        def show(self, event: PumpEvent) -> None:
            self.got.append(event)

    screen, other = Screen(), Screen()
    hub = EventHub()
    hub.subscribe(screen.show)
    hub.subscribe(screen.show)
    hub.subscribe(other.show)
    hub.emit(note("a"))
    await hub.flush()
    assert (len(screen.got), len(other.got)) == (1, 1)
    assert hub.unsubscribe(screen.show)
    assert not hub.unsubscribe(screen.show)
    await hub.close()


async def test_after_unsubscribing_nothing_more_comes() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    hub.subscribe(got.append)
    hub.emit(note("a"))
    await hub.flush()
    hub.emit(note("pending"))
    hub.unsubscribe(got.append)
    assert not hub.active
    hub.emit(note("later"))
    await hub.flush()
    assert names(got) == ["a"]
    hub.subscribe(got.append)
    hub.emit(note("b"))
    await hub.flush()
    assert names(got) == ["a", "b"]
    await hub.close()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_unsubscribing_within_the_callback(asynchronous: bool) -> None:
    hub = EventHub()
    got: list[PumpEvent] = []

    def once(event: PumpEvent) -> None:
        got.append(event)
        assert hub.unsubscribe(callback)

    async def once_later(event: PumpEvent) -> None:
        await asyncio.sleep(0)
        once(event)

    callback: Callable[[PumpEvent], object] = once_later if asynchronous else once
    others: list[PumpEvent] = []
    hub.subscribe(callback)
    hub.subscribe(others.append)
    for name in "abc":
        hub.emit(note(name))
    await hub.flush()
    assert (names(got), names(others)) == (["a"], ["a", "b", "c"])
    await hub.close()


def test_what_cannot_be_called_or_holds_nothing_is_refused() -> None:
    hub = EventHub()
    with pytest.raises(TypeError, match="callable, not str"):
        hub.subscribe("print")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="maxsize"):
        hub.subscribe(print, maxsize=0)
    with pytest.raises(ValueError, match="maxsize"):
        hub.events(maxsize=0)
    assert not hub.active


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_full_queue_drops_its_oldest_and_counts() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    hub.subscribe(got.append, maxsize=3)
    stream = hub.events(maxsize=2)
    for name in "abcde":
        hub.emit(note(name))
    callback, iterator = hub.statistics().subscribers
    assert (callback.pending, callback.dropped) == (3, 2)
    assert (iterator.pending, iterator.dropped, stream.dropped) == (2, 3, 3)
    await hub.flush()
    assert names(got) == ["c", "d", "e"]
    assert [(await anext(stream)).seq, (await anext(stream)).seq] == [4, 5]
    callback, iterator = hub.statistics().subscribers
    assert (callback.pending, callback.delivered, callback.dropped) == (0, 3, 2)
    assert (iterator.pending, iterator.delivered, iterator.dropped) == (0, 2, 3)
    assert hub.statistics().emitted == 5
    await hub.close()


@given(st.integers(1, 5), st.lists(st.sampled_from(["emit", "take"]), max_size=40))
def test_an_iterator_sees_the_newest_events_in_order(maxsize: int, actions: list[str]) -> None:
    async def main() -> None:
        hub = EventHub()
        stream = hub.events(maxsize)
        model: list[int] = []
        lost = emitted = 0
        for action in actions:
            if action == "emit":
                emitted += 1
                hub.emit(note("x"))
                model.append(emitted)
                lost += len(model) > maxsize
                model = model[-maxsize:]
            elif model:
                assert (await anext(stream)).seq == model.pop(0)
        assert stream.dropped == lost
        await hub.close()
        assert [event.seq async for event in stream] == model

    asyncio.run(main())


async def test_a_subscriber_that_never_returns_holds_up_nobody() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    began = asyncio.Event()

    async def stuck(event: PumpEvent) -> None:
        began.set()
        await asyncio.Event().wait()

    hub.subscribe(stuck)
    hub.subscribe(got.append)
    hub.emit(note("a"))
    hub.emit(note("b"))
    await began.wait()
    assert await hub.flush(timeout=0.01) == 2
    assert names(got) == ["a", "b"]
    await hub.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- failing and slow callbacks ---------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.SimpleNamespace]:
    """The time that delivery sees: it only moves when a test moves it."""
    fake = types.SimpleNamespace(now=100.0)
    fake.perf_counter = fake.monotonic = lambda: fake.now
    monkeypatch.setattr(event_delivery, "time", fake)
    return fake


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were imposed, none of which is waited out."""
    found: list[float] = []
    rest = CallbackReader.rest

    async def record(self: CallbackReader, seconds: float | None = None) -> None:
        if seconds is None:
            await rest(self)
        else:
            found.append(seconds)
            await asyncio.sleep(0)

    monkeypatch.setattr(CallbackReader, "rest", record)
    return found


async def turns_until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("this should have happened long ago")


async def deliver(hub: EventHub, reader: list[PumpEvent], count: int) -> None:
    """Emit ``count`` events and let them be delivered in the ordinary way, without flush, which never pauses."""
    target = len(reader) + count
    for _ in range(count):
        hub.emit(note("x"))
    await turns_until(lambda: len(reader) >= target)
    await asyncio.sleep(0)


async def test_a_raising_callback_goes_on_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    hub = EventHub()
    got: list[PumpEvent] = []

    def callback(event: PumpEvent) -> None:
        got.append(event)
        raise ValueError("broken subscriber")

    async def later(event: PumpEvent) -> None:
        await asyncio.sleep(0)
        raise ValueError("broken coroutine")

    hub.subscribe(callback)
    hub.subscribe(later)
    for _ in range(3):
        hub.emit(note("a"))
    with caplog.at_level(logging.ERROR):
        assert await hub.flush() == 0
    assert len(got) == 3
    assert [s.errors for s in hub.statistics().subscribers] == [3, 3]
    assert [s.delivered for s in hub.statistics().subscribers] == [3, 3]
    assert sorted(str(record.exc_info[1]) for record in caplog.records if record.exc_info) == [
        "broken coroutine",
        "broken subscriber",
    ]
    await hub.close()


async def test_failures_are_logged_now_and_then_only(
    clock: types.SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    hub = EventHub()

    def callback(event: PumpEvent) -> None:
        raise ValueError("broken")

    hub.subscribe(callback)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            hub.emit(note("a"))
        await hub.flush()
        assert len(caplog.records) == 1
        clock.now += event_delivery.LOG_SECONDS
        hub.emit(note("a"))
        await hub.flush()
    assert len(caplog.records) == 2
    assert "4 earlier failures were not logged" in caplog.records[1].getMessage()
    await hub.close()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_cancelled_error_of_the_callbacks_own_is_a_failure(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hub = EventHub()
    got: list[PumpEvent] = []

    def callback(event: PumpEvent) -> None:
        got.append(event)
        raise asyncio.CancelledError

    async def later(event: PumpEvent) -> None:
        got.append(event)
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lost.cancel()
        await lost

    hub.subscribe(later if asynchronous else callback)
    hub.emit(note("a"))
    hub.emit(note("b"))
    assert await hub.flush() == 0
    assert names(got) == ["a", "b"]
    assert hub.statistics().subscribers[0].errors == 2
    await hub.close()


async def test_a_callback_that_cancels_its_own_task_is_served_again() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []

    async def callback(event: PumpEvent) -> None:
        got.append(event)
        task = asyncio.current_task()
        assert task is not None
        if event.seq == 1:
            task.cancel()
            await asyncio.sleep(0)

    hub.subscribe(callback)
    hub.emit(note("a"))
    hub.emit(note("b"))
    await hub.flush()
    hub.emit(note("c"))
    await hub.flush()
    assert names(got) == ["a", "b", "c"]
    await hub.close()


async def test_a_callback_that_blocks_the_loop_is_paused_nine_times_as_long(
    clock: types.SimpleNamespace, pauses: list[float]
) -> None:
    hub = EventHub()
    got: list[PumpEvent] = []

    def blocking(event: PumpEvent) -> None:
        clock.now += 0.25
        got.append(event)

    hub.subscribe(blocking)
    await deliver(hub, got, 2)
    assert pauses == [2.25, 2.25]
    await hub.close()


async def test_a_subscriber_with_too_much_to_do_gets_a_tenth_of_a_busy_loop(
    clock: types.SimpleNamespace, pauses: list[float]
) -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    turns: list[int] = []

    def callback(event: PumpEvent) -> None:
        clock.now += 0.0015
        got.append(event)

    hub.subscribe(callback)
    for _ in range(10):
        hub.emit(note("x"))
    while len(got) < 10:
        clock.now += 0.001  # what the others do in one turn of the loop
        await asyncio.sleep(0)
        turns.append(len(got))
    # Slices of 3 ms, each followed by 27 turns of 1 ms.
    assert [turns.count(count) for count in (2, 4, 6, 8)] == [27, 27, 27, 27]
    assert pauses == []
    await hub.close()


async def test_on_an_idle_loop_delivery_goes_on_at_once(clock: types.SimpleNamespace, pauses: list[float]) -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    turns: list[int] = []

    def callback(event: PumpEvent) -> None:
        clock.now += 0.0015
        got.append(event)

    hub.subscribe(callback)
    for _ in range(10):
        hub.emit(note("x"))
    while len(got) < 10:
        await asyncio.sleep(0)
        turns.append(len(got))
    assert turns[-5:] == [2, 4, 6, 8, 10]
    assert pauses == []
    await hub.close()


async def test_a_quick_callback_has_a_slice_in_every_turn_of_a_busy_loop(
    clock: types.SimpleNamespace, pauses: list[float]
) -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    turns: list[int] = []

    def callback(event: PumpEvent) -> None:
        clock.now += 0.000015
        got.append(event)

    hub.subscribe(callback)
    for _ in range(300):
        hub.emit(note("x"))
    while len(got) < 300:
        clock.now += 0.001
        await asyncio.sleep(0)
        turns.append(len(got))
    assert turns[-3:] == [134, 268, 300]
    assert pauses == []
    await hub.close()


async def test_an_asynchronous_callback_is_paused_only_for_the_stretches_in_which_it_blocks(
    clock: types.SimpleNamespace, pauses: list[float]
) -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    loop = asyncio.get_running_loop()

    def others(gate: asyncio.Future[None]) -> None:
        clock.now += 5.0
        gate.set_result(None)

    async def callback(event: PumpEvent) -> None:
        for seconds in (0.004, 0.02, 0.003, 0.01):
            clock.now += seconds
            gate: asyncio.Future[None] = loop.create_future()
            loop.call_soon(others, gate)
            await gate
        got.append(event)

    hub.subscribe(callback)
    await deliver(hub, got, 1)
    assert pauses == pytest.approx([9 * (0.02 + 0.01)])
    await hub.close()


async def test_waiting_is_not_blocking(clock: types.SimpleNamespace, pauses: list[float]) -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    gate = asyncio.Event()

    async def callback(event: PumpEvent) -> None:
        await gate.wait()
        got.append(event)

    hub.subscribe(callback)
    hub.emit(note("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.now += 1000.0
    gate.set()
    await deliver(hub, got, 1)
    assert pauses == []
    await hub.close()


async def test_flush_does_not_pause_and_ends_a_pause(clock: types.SimpleNamespace) -> None:
    hub = EventHub()
    got: list[PumpEvent] = []

    def blocking(event: PumpEvent) -> None:
        clock.now += 3600.0
        got.append(event)

    hub.subscribe(blocking)
    for _ in range(3):
        hub.emit(note("x"))
    await turns_until(lambda: bool(got))
    await asyncio.sleep(0)
    assert len(got) == 1, "it is paused, for nine hours"
    assert await hub.flush() == 0
    assert len(got) == 3
    await hub.close()


# --- flush and close --------------------------------------------------------------------------------------------------


async def test_flush_without_subscribers_and_twice() -> None:
    hub = EventHub()
    assert await hub.flush() == 0
    hub.subscribe(lambda event: None)
    assert await hub.flush() == 0
    hub.emit(note("a"))
    assert list(await asyncio.gather(hub.flush(), hub.flush())) == [0, 0]
    await hub.close()


async def test_flush_waits_for_what_was_emitted_before_it_only() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []

    async def echo(event: PumpEvent) -> None:
        got.append(event)
        hub.emit(note("and on it goes"))
        await asyncio.sleep(0)

    hub.subscribe(echo)
    hub.emit(note("a"))
    assert await hub.flush() == 0
    assert got
    await hub.close()


async def test_flush_from_within_a_callback_waits_for_the_others_only() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    left: list[int] = []

    async def flushing(event: PumpEvent) -> None:
        left.append(await hub.flush())

    hub.subscribe(flushing)
    hub.subscribe(got.append)
    hub.emit(note("a"))
    assert await hub.flush() == 0
    assert left == [0]
    assert names(got) == ["a"]
    await hub.close()


async def test_flush_ends_when_its_subscriber_goes() -> None:
    hub = EventHub()
    began = asyncio.Event()

    async def stuck(event: PumpEvent) -> None:
        began.set()
        await asyncio.Event().wait()

    hub.subscribe(stuck)
    hub.emit(note("a"))
    await began.wait()
    flushing = asyncio.create_task(hub.flush(timeout=3600))
    await asyncio.sleep(0)
    hub.unsubscribe(stuck)
    assert await flushing == 1
    await hub.close()


async def test_close_ends_iterators_after_what_is_in_their_queues() -> None:
    hub = EventHub()
    stream = hub.events()
    waiting = asyncio.create_task(anext(hub.events()))
    await asyncio.sleep(0)
    hub.emit(note("a"))
    hub.emit(note("b"))
    await hub.close()
    assert names([event async for event in stream]) == ["a", "b"]
    assert (await waiting).seq == 1


async def test_close_wakes_an_iterator_that_waits() -> None:
    hub = EventHub()
    collected = asyncio.create_task(collect(hub))
    await asyncio.sleep(0)
    await hub.close()
    assert await collected == []


async def collect(hub: EventHub) -> list[PumpEvent]:
    return [event async for event in hub.events()]


async def test_closing_twice_and_using_a_closed_hub() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    hub.subscribe(got.append)
    hub.emit(note("a"))
    await hub.flush()
    await hub.close()
    await hub.close()
    hub.subscribe(got.append)
    assert not hub.active
    hub.emit(note("b"))
    assert await hub.flush() == 0
    assert names(got) == ["a"]
    assert await collect(hub) == []
    assert hub.statistics().subscribers == ()


async def test_closing_from_within_a_callback() -> None:
    hub = EventHub()
    got: list[PumpEvent] = []
    closed = asyncio.Event()

    async def callback(event: PumpEvent) -> None:
        got.append(event)
        await hub.close()
        closed.set()

    hub.subscribe(callback)
    hub.emit(note("a"))
    hub.emit(note("b"))
    await closed.wait()
    assert names(got) == ["a"]


async def test_close_cancels_a_callback_at_work_and_waits_no_longer_than_it_is_told() -> None:
    hub = EventHub()
    began, released = asyncio.Event(), asyncio.Event()

    async def stubborn(event: PumpEvent) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await released.wait()
            raise

    hub.subscribe(stubborn)
    hub.emit(note("a"))
    await began.wait()
    await hub.close(timeout=0.01)
    released.set()
    await hub.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- iterators --------------------------------------------------------------------------------------------------------


async def test_events_listens_from_the_call_on() -> None:
    hub = EventHub()
    hub.emit(note("before"))
    stream = hub.events()
    hub.emit(note("after"))
    assert names([await anext(stream)]) == ["after"]


async def test_each_iterator_sees_every_event() -> None:
    hub = EventHub()
    one, other = asyncio.create_task(collect(hub)), asyncio.create_task(collect(hub))
    await asyncio.sleep(0)
    for name in "abc":
        hub.emit(note(name))
        await asyncio.sleep(0)
    await hub.close()
    assert names(await one) == names(await other) == ["a", "b", "c"]


async def test_leaving_the_loop_stops_listening() -> None:
    hub = EventHub()
    async with hub.events() as stream:
        hub.emit(note("a"))
        async for _ in stream:
            break
        assert hub.active
    assert not hub.active
    assert [event async for event in stream] == []
    hub.events()
    assert not hub.active, "an iterator that nobody holds does not listen"


async def test_a_cancelled_wait_loses_no_event() -> None:
    hub = EventHub()
    stream = hub.events()
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    hub.emit(note("a"))
    assert names([await anext(stream)]) == ["a"]


async def test_closing_an_iterator_ends_the_task_that_reads_it() -> None:
    hub = EventHub()
    stream = hub.events()
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0)
    await stream.aclose()
    assert await waiting is None


async def test_an_iterator_is_for_one_task() -> None:
    hub = EventHub()
    stream = hub.events()
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task"):
        await anext(stream)
    hub.emit(note("a"))
    assert names([await waiting]) == ["a"]


# --- lifetime ---------------------------------------------------------------------------------------------------------


async def test_a_closed_hub_is_freed_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        hub = EventHub()
        stream = hub.events()
        hub.subscribe(lambda event: None)
        hub.emit(note("a"))
        await hub.flush()
        await hub.close()
        await asyncio.sleep(0)
        gone = weakref.ref(hub)
        del hub, stream
        assert gone() is None
    finally:
        gc.enable()
