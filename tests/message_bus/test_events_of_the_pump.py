"""What a pump tells about messages: exact sequences, for each way a message may end."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest

from xml_pipeline.errors import PipelineError
from xml_pipeline.message_bus.events import (
    AgentStateEvent,
    MessageReceivedEvent,
    MessageSentEvent,
    OutcomeEvent,
    ThreadEvent,
)
from xml_pipeline.message_bus.message_state import HandlerResponse, SystemError
from xml_pipeline.message_bus.stream_pump import StreamPump

from .pump_kit import Ask, Gate, Other, Reply, echo, guard, quiesce, running, silent, until


def line(event):
    """One event, as short as it can be told."""
    match event:
        case ThreadEvent():
            return f"thread {event.status}"
        case AgentStateEvent():
            return f"{event.agent_name} {event.state}"
        case MessageReceivedEvent():
            return f"received {event.from_id}->{event.to_id} {event.payload_type}"
        case MessageSentEvent():
            return f"sent {event.from_id}->{event.to_id} {event.payload_type}"
        case OutcomeEvent():
            code = f" {event.code}" if event.code else ""
            return f"{event.outcome} {event.from_id}->{event.to_id}{code}"
    return type(event).__name__


class Recorder:
    def __init__(self, pump):
        self.pump = pump
        self.events = []
        pump.subscribe_events(self.events.append)

    async def of(self, thread):
        await self.pump.wait_idle()
        await self.pump.engine.events.flush()
        return [event for event in self.events if event.conversation_id == thread]

    async def lines(self, thread):
        return [line(event) for event in await self.of(thread)]


@asynccontextmanager
async def recorded(pump):
    async with running(pump):
        yield Recorder(pump)


ASKED = ["thread created", "thread active", "tool processing", "received external->tool Ask"]


async def ask(pump, target="tool", payload=None):
    thread = await pump.inject(target, payload or Ask("x"))
    with contextlib.suppress(PipelineError):
        await pump.wait(thread, timeout=5)
    return thread


# -- one message, each of its ends


async def test_an_answered_message():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with recorded(pump) as recorder:
        thread = await ask(pump)
        assert await recorder.lines(thread) == [
            *ASKED,
            "sent tool->external Reply",
            "tool idle",
            "answered external->tool",
            "handled tool->external",
            "thread completed",
        ]


async def test_a_message_that_is_only_handled():
    pump = StreamPump()
    pump.register("tool", silent, Ask)
    async with recorded(pump) as recorder:
        thread = await ask(pump)
        assert await recorder.lines(thread) == [*ASKED, "tool idle", "handled external->tool", "thread completed"]


async def test_a_failed_message():
    pump = StreamPump()

    async def tool(payload, metadata):
        raise ValueError("why")

    pump.register("tool", tool, Ask)
    async with recorded(pump) as recorder:
        thread = await ask(pump)
        events = await recorder.of(thread)
        assert [line(event) for event in events] == [
            *ASKED,
            "tool error",
            "failed external->tool handler",
            "thread error",
        ]
        outcome, last = events[-2:]
        assert "ValueError: why" in outcome.detail
        assert "ValueError: why" in last.error
        assert last.participants == ["tool"]


async def test_a_wrong_return_type():
    pump = StreamPump()

    async def tool(payload, metadata):
        return 42

    pump.register("tool", tool, Ask)
    async with recorded(pump) as recorder:
        thread = await ask(pump)
        assert await recorder.lines(thread) == [*ASKED, "tool error", "failed external->tool handler", "thread error"]


async def test_a_message_that_took_too_long():
    pump = StreamPump()
    pump.register("tool", Gate(), Ask, timeout=0.01)
    async with recorded(pump) as recorder:
        thread = await ask(pump)
        await quiesce()
        assert await recorder.lines(thread) == [*ASKED, "tool error", "failed external->tool timeout", "thread error"]


async def test_a_cancelled_message():
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with recorded(pump) as recorder:
        thread = await pump.inject("tool", Ask())
        await gate.until_begun(1)
        pump.cancel(thread)
        await quiesce()
        events = await recorder.of(thread)
        assert [line(event) for event in events] == [
            *ASKED,
            "tool error",
            "cancelled external->tool cancelled",
            "thread killed",
        ]
        assert events[-1].error


async def test_a_message_that_is_not_valid_reaches_nobody():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with recorded(pump) as recorder:
        thread = await ask(pump, "tool", Other(1))
        assert await recorder.lines(thread) == ["thread created", "failed external->tool routing", "thread error"]


async def test_a_message_nobody_waits_for_becomes_a_dead_letter():
    pump = StreamPump()

    async def tool(payload, metadata):
        raise ValueError

    pump.register("tool", tool, Ask)
    async with recorded(pump) as recorder:
        thread = await pump.inject("tool", Ask())
        events = await recorder.of(thread)
        (outcome,) = [event for event in events if isinstance(event, OutcomeEvent)]
        assert outcome.outcome == "dead-lettered"
        assert pump.dead_letters.get(outcome.dead_letter_id).code == "handler"
        assert [line(event) for event in events][-1] == "thread error"


async def test_a_call_and_its_answer():
    pump = StreamPump()

    async def agent(payload, metadata):
        if isinstance(payload, Ask):
            return HandlerResponse(Other(1), "tool")
        return HandlerResponse.respond(Reply())

    async def tool(payload, metadata):
        return HandlerResponse.respond(Reply("y"))

    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Other)
    async with recorded(pump) as recorder:
        thread = await ask(pump, "agent")
        assert await recorder.lines(thread) == [
            "thread created",
            "thread active",
            "agent processing",
            "received external->agent Ask",
            "sent agent->tool Other",
            "agent waiting",
            "forwarded external->agent",
            "tool processing",
            "received agent->tool Other",
            "sent tool->agent Reply",
            "tool idle",
            "answered agent->tool",
            "agent processing",
            "received tool->agent Reply",
            "sent agent->external Reply",
            "agent idle",
            "answered tool->agent",
            "handled agent->external",
            "thread completed",
        ]
        assert recorder.events[-1].participants == ["agent", "tool"]


async def test_a_refused_call_is_told_to_the_agent():
    pump = StreamPump()

    async def agent(payload, metadata):
        if isinstance(payload, SystemError):
            return None
        return HandlerResponse(Ask(), "forbidden")

    pump.register("agent", agent, Ask, agent=True)
    pump.register("forbidden", echo, Ask)
    async with recorded(pump) as recorder:
        thread = await ask(pump, "agent")
        assert await recorder.lines(thread) == [
            "thread created",
            "thread active",
            "agent processing",
            "received external->agent Ask",
            "failed agent->forbidden routing",
            "agent idle",
            "handled external->agent",
            "agent processing",
            "received system->agent SystemError",
            "agent idle",
            "handled system->agent",
            "thread completed",
        ]


async def test_a_generator_sends_as_it_yields():
    gate = asyncio.Event()
    pump = StreamPump()

    async def tool(payload, metadata):
        yield HandlerResponse.respond(Reply("1"))
        await gate.wait()
        yield HandlerResponse.respond(Reply("2"))

    pump.register("tool", tool, Ask)
    async with recorded(pump) as recorder:
        answers = pump.stream("tool", Ask())
        assert await anext(answers) == Reply("1")
        await pump.engine.events.flush()
        thread = next(event.thread_id for event in recorder.events if line(event) == "tool processing")
        early = [line(event) for event in recorder.events if event.conversation_id == thread]
        assert early == [*ASKED, "sent tool->external Reply", "handled tool->external"]
        gate.set()
        assert [answer async for answer in answers] == [Reply("2")]
        assert (await recorder.lines(thread))[len(early) :] == [
            "sent tool->external Reply",
            "tool idle",
            "answered external->tool",
            "handled tool->external",
            "thread completed",
        ]


async def test_a_second_turn_from_outside_tells_of_the_conversation_again():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with recorded(pump) as recorder:
        thread = await ask(pump)
        first = await recorder.lines(thread)
        await pump.inject("tool", Ask("again"), thread_id=thread)
        second = (await recorder.lines(thread))[len(first) :]
        assert [text for text in second if text.startswith("thread")] == ["thread active", "thread completed"]


# -- fields


async def test_fields_of_events():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with recorded(pump) as recorder:
        thread = await ask(pump)
        events = await recorder.of(thread)
        received = next(event for event in events if isinstance(event, MessageReceivedEvent))
        sent = next(event for event in events if isinstance(event, MessageSentEvent))
        assert (received.payload, sent.payload) == (Ask("x"), Reply("x"))
        assert (received.thread_id, sent.thread_id) == (thread, thread)
        outcomes = [event for event in events if isinstance(event, OutcomeEvent)]
        assert received.parent == outcomes[0].message_id
        assert sent.parent == outcomes[1].message_id
        assert all(event.time > 0 and event.id for event in events)


async def test_numbers_have_no_gaps_and_ids_are_unique():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    events = []
    pump.subscribe_events(events.append)
    async with running(pump):
        await asyncio.gather(*(pump.request("tool", Ask()) for _ in range(20)))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert len({event.id for event in events}) == len(events)


async def test_a_handler_cannot_change_what_events_say():
    pump = StreamPump()

    async def tool(payload, metadata):
        payload.text = "changed"
        answer = Reply("sent")
        response = HandlerResponse.respond(answer)
        asyncio.get_running_loop().call_soon(setattr, answer, "text", "changed later")
        return response

    pump.register("tool", tool, Ask)
    async with recorded(pump) as recorder:
        thread = await ask(pump)
        payloads = [event.payload for event in await recorder.of(thread) if hasattr(event, "payload")]
    assert payloads == [Ask("x"), Reply("sent")]


async def test_every_accepted_message_has_one_outcome_event():
    pump = StreamPump()

    async def tool(payload, metadata):
        match int(payload.text) % 4:
            case 0:
                raise ValueError
            case 1:
                return None
            case 2:
                return HandlerResponse(Ask(), "nobody")
        return HandlerResponse.respond(Reply())

    pump.register("tool", tool, Ask)
    async with recorded(pump) as recorder:
        before = pump.statistics().accepted
        threads = [await pump.inject("tool", Ask(str(number))) for number in range(40)]
        await recorder.lines(threads[0])
        ids = [event.message_id for event in recorder.events if isinstance(event, OutcomeEvent)]
        boots = len(ids) - len(set(ids))
        assert boots == 0
        assert len(
            [None for event in recorder.events if isinstance(event, OutcomeEvent) and event.conversation_id in threads]
        ) == (pump.statistics().accepted - before)
        for thread in threads:
            lines = await recorder.lines(thread)
            assert sum(text in ("thread completed", "thread error", "thread killed") for text in lines) == 1


async def test_repairs_are_in_the_outcome():
    pump = StreamPump()
    pump.register("tool", echo, Ask, repair="lenient")
    async with recorded(pump) as recorder:
        thread = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"
        raw = (
            '<message xmlns="https://xml-pipeline.org/ns/envelope/v1"><meta><from>external</from><to>tool</to>'
            f'<thread>{thread}</thread></meta><Ask xmlns=""><Text>a & b</Text></Ask></message>'
        )
        await pump.inject(raw.encode(), thread)
        assert await pump.wait(thread) == Reply("a & b")
        outcome = next(event for event in await recorder.of(thread) if isinstance(event, OutcomeEvent))
        assert outcome.repairs


# -- subscribers


@pytest.mark.parametrize("error", [ValueError, KeyError])
async def test_a_subscriber_that_raises_disturbs_nobody(error, caplog):
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    seen = []

    def broken(event):
        raise error

    pump.subscribe_events(broken)
    pump.subscribe_events(seen.append)
    async with running(pump):
        for number in range(20):
            assert await pump.request("tool", Ask(str(number))) == Reply(str(number))
    assert sum(isinstance(event, OutcomeEvent) for event in seen) == pump.statistics().accepted
    assert "subscriber" in caplog.text or "callback" in caplog.text


async def test_a_subscriber_that_never_comes_back_holds_up_nobody():
    stuck = asyncio.Event()
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    seen = []

    async def slow(event):
        await stuck.wait()

    pump.subscribe_events(slow)
    pump.subscribe_events(seen.append)
    async with running(pump):
        for number in range(50):
            await pump.request("tool", Ask(str(number)))
        await until(lambda: len(seen) >= 50)
        stuck.set()


async def test_an_iterator_that_is_not_read_loses_the_oldest_and_says_so():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    events = pump.events(maxsize=5)
    async with running(pump):
        for _ in range(20):
            await pump.request("tool", Ask())
        await pump.wait_idle()
        assert pump.statistics().dropped_events > 50
    async with guard():
        left = [event.seq async for event in events]
    assert len(left) == 5
    assert left == list(range(left[0], left[0] + 5))


async def test_a_subscriber_may_use_the_pump():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    asked = []

    async def curious(event):
        if isinstance(event, OutcomeEvent) and event.payload_type == "Other":
            asked.append(await pump.request("tool", Ask("from a subscriber")))

    pump.register("other", silent, Other)
    pump.subscribe_events(curious)
    async with running(pump):
        await pump.inject("other", Other())
        await until(lambda: asked)
    assert asked == [Reply("from a subscriber")]


async def test_subscribing_in_the_middle_and_leaving():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    seen = []
    async with running(pump):
        await pump.request("tool", Ask())
        pump.subscribe_events(seen.append)
        thread = await ask(pump)
        await pump.wait_idle()
        await pump.engine.events.flush()
        pump.unsubscribe_events(seen.append)
        count = len(seen)
        await ask(pump)
        await pump.wait_idle()
        assert len(seen) == count
    assert {event.conversation_id for event in seen} == {thread}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_callback_that_wants_to_exit_ends_nothing(asynchronous):
    told, seen = [], []

    def exits(event):
        told.append(event)
        raise SystemExit(4)

    async def exits_later(event):
        exits(event)

    pump = StreamPump()
    pump.register("tool", echo, Ask)
    pump.subscribe_events(exits_later if asynchronous else exits)
    pump.subscribe_events(seen.append)
    async with running(pump):
        for _ in range(3):
            assert await pump.request("tool", Ask("x")) == Reply("x")
        await pump.wait_idle()
        await pump.engine.events.flush()
    assert told == seen
