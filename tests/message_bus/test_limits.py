"""Every bound of a pump: what happens at it, and one beyond it."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from xml_pipeline.config import Limits
from xml_pipeline.envelope import message_text
from xml_pipeline.errors import (
    ConfigurationError,
    ConversationCancelled,
    DeadlineExceeded,
    ForgedMessage,
    HandlerError,
    HopLimitError,
    Overloaded,
    ValidationError,
)
from xml_pipeline.memory import get_context_buffer
from xml_pipeline.message_bus.events import HistoryTrimmedEvent, ThreadEvent
from xml_pipeline.message_bus.message_state import HandlerResponse, SystemError
from xml_pipeline.message_bus.stream_pump import StreamPump

from .pump_kit import Ask, Gate, Other, Reply, echo, guard, quiesce, running, silent


def envelope(*payloads, to="tool", thread=None):
    thread = thread or str(uuid.uuid4())
    return message_text("".join(payloads), "external", to, thread), thread


# -- queues


async def test_inject_waits_while_its_target_is_full_and_others_go_on():
    gate = Gate(answer=False)
    pump = StreamPump(max_queue_per_listener=2)
    pump.register("slow", gate, Ask, concurrency=1)
    pump.register("quick", echo, Ask)
    async with running(pump):
        sent = 0
        while True:
            blocked = asyncio.create_task(pump.inject("slow", Ask(str(sent))))
            sent += 1
            await quiesce(10)
            if not blocked.done():
                break
            assert sent < 200, "nothing is bounded"
        assert pump.queue.waiting_for("slow") == 2
        assert await pump.request("quick", Ask("x")) == Reply("x")
        await quiesce()
        assert not blocked.done()
        gate.open()
        await blocked
        await pump.wait_idle()
    assert gate.ended == [*map(str, range(sent))]


async def test_inject_nowait_refuses_what_would_wait():
    pump = StreamPump(max_queue_per_listener=2)
    pump.register("tool", silent, Ask)
    pump.register("other", silent, Ask)
    for _ in range(2):
        await pump.inject_nowait("tool", Ask())
    with pytest.raises(Overloaded) as caught:
        await pump.inject_nowait("tool", Ask())
    assert "max_queue_per_listener=2" in caught.value.detail
    with pytest.raises(Overloaded):
        await pump.inject_nowait(*envelope("<Ask xmlns=''/>"), "external")
    await pump.inject_nowait("other", Ask())
    report = await pump.shutdown()
    assert {outcome: count for outcome, count in report.outcomes.items() if count} == {"cancelled": 3}


async def test_max_queue_bounds_all_targets_together():
    pump = StreamPump(max_queue=3)
    for name in "abcd":
        pump.register(name, silent, Ask)
    for name in "abc":
        await pump.inject_nowait(name, Ask())
    with pytest.raises(Overloaded) as caught:
        await pump.inject_nowait("d", Ask())
    assert "max_queue=3" in caught.value.detail
    await pump.shutdown()


async def test_refused_messages_leave_nothing_behind():
    pump = StreamPump(max_queue=1)
    pump.register("tool", silent, Ask)
    await pump.inject_nowait("tool", Ask())
    before = pump.statistics()
    for _ in range(20):
        with pytest.raises(Overloaded):
            await pump.inject_nowait("tool", Ask())
        with pytest.raises(ForgedMessage):
            await pump.inject_nowait("tool", Ask(), from_id="system")
    assert pump.statistics() == before
    await pump.shutdown()


async def test_a_request_that_waits_for_admission_has_its_timeout():
    pump = StreamPump(max_queue=1)
    pump.register("tool", silent, Ask)
    await pump.inject_nowait("tool", Ask())
    async with guard():
        with pytest.raises(DeadlineExceeded):
            await pump.request("tool", Ask(), timeout=0.01)
    await pump.shutdown()


async def test_one_who_waited_and_is_refused_gives_his_room_to_the_next():
    pump = StreamPump(max_queue_per_listener=1)
    pump.register("tool", silent, Ask)
    await pump.inject("tool", Ask("first"))
    forged = asyncio.create_task(pump.inject("tool", Ask("forged"), thread_id="not a uuid"))
    honest = asyncio.create_task(pump.inject("tool", Ask("honest")))
    await quiesce()
    async with running(pump):
        async with guard(5):
            await asyncio.wait((honest,))
        assert not honest.exception()
        with pytest.raises(ForgedMessage):
            await forged


async def test_answers_are_never_blocked_by_a_full_admission_lane():
    """Deep chains go on while the lane is full and everybody outside waits."""
    pump = StreamPump(max_queue=1, max_concurrent_pipelines=1)

    async def down(payload, metadata):
        if payload.number == 0:
            return HandlerResponse.respond(Other(0))
        return HandlerResponse(Other(payload.number - 1), "down" if metadata.from_id != "down" else "up")

    async def up(payload, metadata):
        return HandlerResponse.call(Other(payload.number - 1), "down") if payload.number else None

    pump.register("down", down, Other)
    pump.register("up", up, Other)
    async with running(pump):
        await asyncio.gather(*(pump.inject("down", Other(20)) for _ in range(30)))
        await pump.wait_idle()
        assert pump.statistics().in_flight == 0


# -- how far a conversation goes


async def test_max_hops_is_the_depth_of_frames():
    depths = []
    pump = StreamPump(max_hops=5)

    async def deeper(payload, metadata):
        depths.append(payload.number)
        return HandlerResponse.call(Other(payload.number + 1), "deeper")

    pump.register("deeper", deeper, Other)
    async with running(pump):
        with pytest.raises(HopLimitError):
            await pump.request("deeper", Other(1))
    assert depths == [1, 2, 3, 4, 5]


async def test_the_hop_limit_is_told_to_the_agent_that_called():
    told = []
    pump = StreamPump(max_hops=1)

    async def agent(payload, metadata):
        if isinstance(payload, SystemError):
            told.append(payload.code)
            return HandlerResponse.respond(Reply("gave up"))
        return HandlerResponse(Ask(), "tool")

    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", echo, Ask)
    async with running(pump):
        assert await pump.request("agent", Ask()) == Reply("gave up")
    assert told == ["hops"]


async def test_max_turns_is_the_number_of_calls_on_one_frame():
    turns = []
    pump = StreamPump(max_turns=10)

    async def again(payload, metadata):
        turns.append(payload.number)
        return HandlerResponse(Other(payload.number + 1), "again")

    pump.register("again", again, Other)
    async with running(pump):
        with pytest.raises(HopLimitError):
            await pump.request("again", Other(1))
    assert turns == list(range(1, 11))


async def test_a_join_may_take_more_turns():
    """A generic listener gathers the answers of many calls on one frame."""
    got = []
    pump = StreamPump(max_turns=5)

    async def join(element, metadata):
        got.append(element.tag)
        if element.tag == "Ask":
            return [HandlerResponse(Ask(str(number)), "tool") for number in range(20)]
        return HandlerResponse.respond(Reply("all")) if len(got) == 21 else None

    pump.register_generic_listener("join", join)
    pump.register("tool", echo, Ask)
    async with running(pump):
        assert await pump.request("join", Ask()) == Reply("all")


async def test_max_fan_out_of_a_list():
    pump = StreamPump(max_fan_out=3)
    sink = []

    async def many(payload, metadata):
        return [HandlerResponse(Ask(str(number)), "sink") for number in range(payload.number)]

    async def note(payload, metadata):
        sink.append(payload.text)

    pump.register("many", many, Other)
    pump.register("sink", note, Ask)
    async with running(pump):
        await pump.inject("many", Other(3))
        await pump.wait_idle()
        assert sink == ["0", "1", "2"]
        with pytest.raises(ValidationError) as caught:
            await pump.request("many", Other(4))
        assert "max_fan_out=3" in caught.value.detail
        assert len(sink) == 3  # none of the four


async def test_max_fan_out_of_model_output():
    pump = StreamPump(max_fan_out=3)

    async def many(payload, metadata):
        return b"<Reply><Text>x</Text></Reply>" * payload.number

    pump.register("many", many, Other, output_class=Reply)
    async with running(pump):
        assert await pump.request("many", Other(3)) == Reply("x")
        with pytest.raises(ValidationError):
            await pump.request("many", Other(4))


async def test_max_fan_out_of_an_envelope():
    seen = []
    pump = StreamPump(max_fan_out=3)

    async def note(payload, metadata):
        seen.append(payload.text)
        return HandlerResponse.respond(Reply())

    pump.register("tool", note, Ask)
    payload = '<Ask xmlns=""><Text>x</Text></Ask>'
    async with running(pump):
        raw, thread = envelope(*[payload] * 3)
        await pump.inject(raw, thread)
        await pump.wait(thread)
        await pump.wait_idle()
        assert len(seen) == 3
        raw, thread = envelope(*[payload] * 4)
        await pump.inject(raw, thread)
        with pytest.raises(ValidationError):
            await pump.wait(thread)
        assert len(seen) == 3


# -- sizes


async def test_max_message_bytes_at_admission():
    pump = StreamPump(max_message_bytes=1000)

    async def measure(payload, metadata):
        return HandlerResponse.respond(Other(len(payload.text)))

    pump.register("tool", measure, Ask)
    async with running(pump):
        small, _ = envelope('<Ask xmlns=""><Text></Text></Ask>')
        fits = "x" * (1000 - len(small))
        raw, thread = envelope(f'<Ask xmlns=""><Text>{fits}</Text></Ask>')
        assert len(raw) == 1000
        await pump.inject(raw, thread)
        assert await pump.wait(thread) == Other(len(fits))
        raw, thread = envelope(f'<Ask xmlns=""><Text>{fits}x</Text></Ask>')
        with pytest.raises(ValidationError) as caught:
            await pump.inject(raw, thread)
        assert "max_message_bytes=1000" in caught.value.detail
        with pytest.raises(ValidationError):
            await pump.inject("tool", Ask("x" * 1000))
        statistics = pump.statistics()
    assert (statistics.open_conversations, statistics.in_flight) == (1, 0)  # the pump's own conversation


async def test_max_message_bytes_of_an_answer():
    pump = StreamPump(max_message_bytes=1000)

    async def long(payload, metadata):
        return HandlerResponse.respond(Reply("x" * 1000))

    pump.register("long", long, Ask)
    async with running(pump):
        with pytest.raises(ValidationError) as caught:
            await pump.request("long", Ask())
    assert "max_message_bytes" in caught.value.detail


def _attributes(count):
    return "<a " + " ".join(f'a{number}=""' for number in range(count)) + "/>"


def _nested(depth):
    return "<a>" * depth + "</a>" * depth


@pytest.mark.parametrize(
    ("limit", "good", "bad"),
    [
        # message and payload are two levels; message, meta, from, to, thread and the payload six elements
        pytest.param({"max_element_depth": 10}, _nested(8), _nested(9), id="depth"),
        pytest.param({"max_elements": 50}, "<a/>" * 44, "<a/>" * 45, id="elements"),
        pytest.param(
            {"max_attributes": 10},
            _attributes(10),
            _attributes(11),
            id="attributes",
        ),
    ],
)
async def test_bounds_of_a_tree(limit, good, bad):
    (name,) = limit
    elements = []

    async def count(element, metadata):
        elements.append(element.tag)

    pump = StreamPump(**limit)
    pump.register_generic_listener("any", count)
    async with running(pump):
        for inner in (good, bad):
            raw, thread = envelope(f'<Doc xmlns="">{inner}</Doc>', to="any")
            await pump.inject(raw, thread)
            await pump.wait_idle()
        (letter,) = pump.dead_letters.list()
    assert elements == ["Doc"]
    assert letter.code == "validation"
    assert name in letter.detail


async def test_history_beyond_its_bytes_drops_the_oldest_and_delivery_goes_on():
    trimmed = []
    got = []
    pump = StreamPump(max_history_bytes=3000)
    pump.subscribe_events(lambda event: trimmed.append(event) if isinstance(event, HistoryTrimmedEvent) else None)

    async def note(payload, metadata):
        got.append(payload.text[:2])

    pump.register("tool", note, Ask)
    async with running(pump):
        thread = await pump.inject("tool", Ask("00" + "x" * 1000))
        for number in range(1, 10):
            await pump.inject("tool", Ask(f"{number:02}" + "x" * 1000), thread_id=thread)
        await pump.wait_idle()
        buffer = pump.runtime.get(type(get_context_buffer()))
        kept = [slot.payload.text[:2] for slot in buffer.by_conversation(thread)]
    assert got == [f"{number:02}" for number in range(10)]
    assert 0 < len(kept) < 10
    assert kept == got[-len(kept) :]
    assert trimmed
    assert sum(event.dropped_slots for event in trimmed) == 10 - len(kept)
    assert {event.thread_id for event in trimmed} == {thread}


# -- time


async def test_each_listener_has_its_own_timeout():
    gate = Gate()
    pump = StreamPump(timeout=30.0)
    pump.register("hasty", gate, Ask, timeout=0.01)
    pump.register("patient", gate, Ask)
    assert (pump.listeners["hasty"].timeout, pump.listeners["patient"].timeout) == (0.01, 30.0)
    async with running(pump):
        waiting = asyncio.create_task(pump.request("patient", Ask("patient")))
        with pytest.raises(DeadlineExceeded) as caught:
            await pump.request("hasty", Ask("hasty"))
        assert caught.value.target == "hasty" or "hasty" in caught.value.detail
        assert gate.cancelled == ["hasty"]
        gate.open()
        assert await waiting == Reply("patient")


async def test_the_pumps_timeout_is_the_listeners_default():
    pump = StreamPump(timeout=0.01)
    gate = Gate()
    pump.register("tool", gate, Ask)
    async with running(pump):
        with pytest.raises(DeadlineExceeded):
            await pump.request("tool", Ask("x"))
    assert gate.cancelled == ["x"]


async def test_the_time_of_a_generator_is_per_item():
    """Three items, each with an event of its own to wait for; together they take longer than the timeout allows one."""
    loop = asyncio.get_running_loop()
    seen = []
    pump = StreamPump()

    async def items(payload, metadata):
        began = loop.time()
        while loop.time() - began < 0.3:
            # Each item takes a part of the time, the whole thrice the time.
            await asyncio.sleep(0.02)
            yield HandlerResponse.respond(Reply(str(len(seen))))
            seen.append(None)

    pump.register("items", items, Ask, timeout=0.1)
    async with running(pump):
        answers = [answer async for answer in pump.stream("items", Ask())]
    assert len(answers) == len(seen) > 3


async def test_an_item_that_does_not_come_in_time_ends_the_generator():
    never = asyncio.Event()
    closed = []
    pump = StreamPump()

    async def items(payload, metadata):
        try:
            yield HandlerResponse.respond(Reply("one"))
            await never.wait()
            yield HandlerResponse.respond(Reply("two"))
        finally:
            closed.append(True)

    pump.register("items", items, Ask, timeout=0.02)
    answers = []
    async with running(pump):
        with pytest.raises(DeadlineExceeded):
            async for answer in pump.stream("items", Ask()):
                answers.append(answer)  # noqa: PERF401, what came before the error is what counts
        await pump.wait_idle()
        await quiesce()
    assert answers == [Reply("one")]
    assert closed == [True]


async def test_a_late_result_is_dropped_and_counted():
    pump = StreamPump()
    entered = asyncio.Event()

    async def stubborn(payload, metadata):
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return HandlerResponse.respond(Reply("too late"))

    pump.register("stubborn", stubborn, Ask, timeout=0.01)
    async with running(pump):
        with pytest.raises(DeadlineExceeded):
            await pump.request("stubborn", Ask())
        await quiesce()
        assert pump.statistics().late_results == 1


async def test_max_conversation_seconds_ends_the_whole_conversation():
    gate = Gate()
    pump = StreamPump(max_conversation_seconds=0.02)

    async def front(payload, metadata):
        return HandlerResponse(Ask("below"), "slow")

    pump.register("front", front, Ask)
    pump.register("slow", gate, Ask)
    statuses = []
    pump.subscribe_events(statuses.append)
    async with running(pump):
        thread = await pump.inject("front", Ask())
        with pytest.raises(DeadlineExceeded):
            await pump.wait(thread)
        await pump.wait_idle()
        await quiesce()
        assert gate.cancelled == ["below"]
        assert pump.statistics().open_frames == 1  # the pump's own
    assert [event.status for event in statuses if isinstance(event, ThreadEvent) and event.thread_id == thread] == [
        "created",
        "active",
        "killed",
    ]


async def test_a_conversation_that_ends_in_time_is_not_bothered():
    pump = StreamPump(max_conversation_seconds=3600)
    pump.register("tool", echo, Ask)
    async with running(pump):
        assert await pump.request("tool", Ask("x")) == Reply("x")
        await pump.wait_idle()
        loop = asyncio.get_running_loop()
        timers = [handle for handle in loop._scheduled if not handle.cancelled()]
        assert not [handle for handle in timers if handle.when() > loop.time() + 3000]


# -- the limits themselves


@pytest.mark.parametrize("name", [name for name in Limits.model_fields if name.startswith("max_")])
@pytest.mark.parametrize("value", [0, -1, "5", 1.5, True])
def test_nonsense_is_refused_at_once(name, value):
    if name == "max_conversation_seconds" and value == 1.5:
        return
    with pytest.raises(ConfigurationError, match=name):
        StreamPump(**{name: value})


def test_an_unknown_limit_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ConfigurationError, match="max_queue"):
        StreamPump(max_queu=3)


def test_documented_defaults():
    limits = StreamPump().config.limits
    assert (limits.max_queue, limits.max_queue_per_listener) == (10_000, 1_000)
    assert (limits.max_hops, limits.max_turns, limits.max_fan_out) == (64, 1_000, 1_000)
    assert (limits.max_message_bytes, limits.max_element_depth) == (1_048_576, 100)
    assert (limits.max_elements, limits.max_attributes) == (50_000, 256)
    assert (limits.timeout, limits.max_conversation_seconds) == (30.0, None)
    assert (limits.thread_idle_ttl, limits.max_threads) == (600, 1_000)


@pytest.mark.parametrize("number", [0, -1, True, "x"])
def test_a_listeners_numbers_are_checked(number):
    pump = StreamPump()
    for option in ("timeout", "concurrency"):
        with pytest.raises((ConfigurationError, TypeError), match=option):
            pump.register("a", echo, Ask, **{option: number})
    assert "a" not in pump.listeners


# -- history of closed conversations


async def test_conversations_beyond_max_threads_are_forgotten_oldest_first():
    pump = StreamPump(max_threads=3)
    pump.register("tool", echo, Ask)
    async with running(pump):
        threads = [await pump.inject("tool", Ask(str(number))) for number in range(5)]
        await pump.wait_idle()
        statistics = pump.statistics()
        assert statistics.retained_conversations == 3
        for thread, text in zip(threads[2:], "234", strict=True):
            assert await pump.wait(thread) == Reply(text)
        for thread in threads[:2]:
            with pytest.raises(ValidationError):
                await pump.wait(thread)


async def test_dead_letters_are_bounded():
    pump = StreamPump(max_dead_letters=2)

    async def fail(payload, metadata):
        raise ValueError(payload.text)

    pump.register("tool", fail, Ask)
    async with running(pump):
        for number in range(4):
            await pump.inject("tool", Ask(str(number)))
            await pump.wait_idle()
        letters = pump.dead_letters.list()
    assert ["ValueError: 2" in letters[0].detail, "ValueError: 3" in letters[1].detail] == [True, True]
    assert pump.dead_letters.dropped == 2


async def test_a_cancelled_conversation_is_no_dead_letter():
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump):
        thread = await pump.inject("tool", Ask("x"))
        await gate.until_begun(1)
        assert pump.cancel(thread)
        with pytest.raises(ConversationCancelled):
            await pump.wait(thread)
        assert len(pump.dead_letters) == 0


async def test_a_wrong_return_type_is_told_to_whoever_asked():
    pump = StreamPump()

    async def wrong(payload, metadata):
        return 42

    pump.register("tool", wrong, Ask)
    async with running(pump):
        with pytest.raises(HandlerError):
            await pump.request("tool", Ask())
