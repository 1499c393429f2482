"""How messages end: every way to fail is seen by whoever waits, as a typed error; and every message ends once."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import (
    ConversationCancelled,
    DeadlineExceeded,
    HandlerError,
    HopLimitError,
    NoAnswer,
    PipelineError,
    PumpStopped,
    RoutingError,
    ValidationError,
    from_code,
)
from xml_pipeline.message_bus.events import AgentStateEvent, MessageReceivedEvent, MessageSentEvent
from xml_pipeline.message_bus.message_state import SystemError

from .helpers import PATIENCE, Ask, Count, Gate, Note, Recorder, Reply, audited, calls, crash, echo, reached, text_of

Handler = Callable[[Any, HandlerMetadata], Any]


def returns(value: Any) -> Handler:
    return Recorder(lambda payload, metadata: value)


async def hang(payload: Any, metadata: HandlerMetadata) -> None:
    await asyncio.Event().wait()


async def cancel_itself(payload: Any, metadata: HandlerMetadata) -> None:
    raise asyncio.CancelledError


async def cancel_its_task(payload: Any, metadata: HandlerMetadata) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def impostor() -> Any:
    """A payload named <Ask> whose content is not that of `Ask`."""

    @dataclass
    class Ask:
        number: int = 1

    return Ask()


@dataclass
class Case:
    """One way to fail: what ``victim`` is and does, and what whoever called it is told."""

    name: str
    error: type[PipelineError]
    cause: str
    """Part of ``detail``."""
    handler: Handler = echo
    target: str = "victim"
    payload: Any = field(default_factory=Ask)
    options: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)

    def pump(self) -> StreamPump:
        pump = StreamPump(**self.limits)
        pump.register("victim", self.handler, Ask, **self.options)
        pump.register("vault", echo, Ask)
        return pump


CASES = [
    Case("unknown target", RoutingError, "'nobody'", target="nobody"),
    Case("misspelt target", RoutingError, "did you mean 'victim'", target="victm"),
    Case("other case", RoutingError, "'Victim'", target="Victim"),
    Case("wrong class", RoutingError, "does not accept <Note>", payload=Note("x")),
    Case("wrong schema", ValidationError, "Number", payload=impostor()),
    Case("malformed bytes", ValidationError, "", handler=returns(b"<Reply><Text>cut he")),
    Case("bytes without an element", ValidationError, "", handler=returns(b"I am sorry, I cannot do that.")),
    Case("crash", HandlerError, "RuntimeError: the secret of the handler", handler=crash),
    Case("wrong return type", HandlerError, "returned int", handler=returns(7)),
    Case("timeout", DeadlineExceeded, "'victim' did not finish in time", handler=hang, options={"timeout": 0.05}),
    Case("CancelledError inside", HandlerError, "raised CancelledError", handler=cancel_itself),
    Case("cancels its own task", HandlerError, "raised CancelledError", handler=cancel_its_task),
    Case(
        "peer violation",
        RoutingError,
        "'victim' may not call 'vault'",
        handler=returns(HandlerResponse(Ask(), "vault")),
        options={"peers": ["somebody else"]},
    ),
    Case(
        "empty peers",
        RoutingError,
        "'victim' may not call 'vault'",
        handler=returns(HandlerResponse(Ask(), "vault")),
        options={"peers": []},
    ),
    Case(
        "hop limit",
        HopLimitError,
        "max_hops=4",
        handler=returns(HandlerResponse.call(Ask(), "victim")),
        limits={"max_hops": 4},
    ),
    Case(
        "turn limit",
        HopLimitError,
        "max_turns",
        handler=returns(HandlerResponse(Ask(), "victim")),
        limits={"max_turns": 4},
    ),
    Case(
        "fan-out limit",
        ValidationError,
        "max_fan_out=3",
        handler=returns([HandlerResponse(Ask(), "vault")] * 4),
        limits={"max_fan_out": 3},
    ),
    Case(
        "oversize answer",
        ValidationError,
        "max_message_bytes",
        handler=returns(HandlerResponse.respond(Reply("x" * 3000))),
        limits={"max_message_bytes": 2000},
    ),
    Case(
        "oversize message",
        ValidationError,
        "max_message_bytes",
        payload=Ask("x" * 3000),
        limits={"max_message_bytes": 2000},
    ),
    Case(
        "error as an answer",
        HandlerError,
        "answered with an error",
        handler=returns(HandlerResponse.respond(SystemError("handler", "my own words", True))),
    ),
]

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))


@each_case
async def test_an_external_requester_sees_it_as_a_typed_error(case: Case) -> None:
    pump = case.pump()
    async with audited(pump) as audit:
        with pytest.raises(PipelineError) as caught:
            await pump.request(case.target, case.payload, timeout=PATIENCE)
        await audit.idle()
        assert not pump.dead_letters.list()  # somebody was told
    assert type(caught.value) is case.error
    assert str(caught.value) == str(from_code(case.error.code))  # the same for every cause of the code
    assert case.cause in caught.value.detail
    assert "secret" not in str(caught.value)


@each_case
async def test_a_calling_agent_gets_it_as_a_payload(case: Case) -> None:
    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Note):
            return HandlerResponse(case.payload, case.target, tag="my call")
        return HandlerResponse.respond(Reply(text_of(message)))

    pump = case.pump()
    agent = Recorder(decide)
    pump.register("agent", agent, Note, agent=True, peers=["victim", "nobody", "victm", "Victim"])
    async with audited(pump) as audit:
        assert await pump.request("agent", Note("go"), timeout=PATIENCE) == Reply(case.error.code)
        await audit.idle()
    (_, (error, metadata)) = agent.seen
    public = from_code(case.error.code)
    assert error == SystemError(public.code, str(public), public.retry_allowed)
    assert (metadata.tag, metadata.from_id) == ("my call", "system")
    if case.name != "error as an answer":  # that was delivered like any other answer
        assert any(case.cause in event.detail for event in audit.outcomes(code=case.error.code))


@each_case
async def test_it_passes_a_tool_by_and_closes_it(case: Case) -> None:
    """A tool that does not list SystemError: its own caller is told, with the tag of that caller's call."""

    def relay(message: Any, metadata: HandlerMetadata) -> Any:
        return HandlerResponse(case.payload, case.target, tag="inner")

    pump = case.pump()
    tool = Recorder(relay)
    agent = calls("tool", payload=Note, tag="outer")
    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Note)
    async with audited(pump) as audit:
        assert await pump.request("agent", Ask("go"), timeout=PATIENCE) == Reply(case.error.code)
        await audit.idle()
    assert len(tool.seen) == 1
    assert agent.metadata[1].tag == "outer"


@each_case
async def test_nobody_waiting_makes_it_one_dead_letter(case: Case) -> None:
    pump = case.pump()
    async with audited(pump) as audit:
        if case.name == "oversize message":
            with pytest.raises(ValidationError):
                await pump.inject(case.target, case.payload)
            return
        thread = await pump.inject(case.target, case.payload, from_id="somebody")
        await audit.idle()
        (letter,) = pump.dead_letters.list()
        assert (letter.code, letter.from_id, letter.conversation_id) == (case.error.code, "somebody", thread)
        assert case.cause in letter.detail
        assert letter.target == case.target
        with pytest.raises(case.error):
            await pump.wait(thread, timeout=PATIENCE)
        assert audit.statuses(thread)[-1] == "error"


async def test_malformed_bytes_from_outside_are_seen_by_whoever_waits() -> None:
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with audited(pump) as audit:
        thread = await pump.inject(b"<message><meta>", None, "console")
        with pytest.raises(ValidationError):
            await pump.wait(thread, timeout=PATIENCE)
        assert [event.code for event in audit.outcomes()] in ([], ["validation"])


async def test_a_tool_that_lists_the_error_may_answer_all_the_same() -> None:
    tool = calls("victim")
    pump = StreamPump()
    pump.register("tool", tool, (Ask, SystemError))
    pump.register("victim", crash, Ask)
    async with audited(pump):
        assert await pump.request("tool", Ask("go")) == Reply("handler")


async def test_an_error_passes_every_tool_on_its_way_to_the_outside() -> None:
    pump = StreamPump()
    for name, to in (("one", "two"), ("two", "three"), ("three", "victim")):
        pump.register(name, calls(to), Ask)
    pump.register("victim", crash, Ask)
    async with audited(pump) as audit:
        with pytest.raises(HandlerError) as caught:
            await pump.request("one", Ask("go"))
        await audit.idle()
    assert "'victim' raised RuntimeError" in caught.value.detail
    assert [event.outcome for event in audit.outcomes()] == ["forwarded"] * 3 + ["failed"]


# --- an agent that fails while it is working on an answer -------------------------------------------------------------

LATER_FAILURES = [
    case for case in CASES if case.name in ("crash", "wrong return type", "timeout", "CancelledError inside")
]


@pytest.mark.parametrize("case", LATER_FAILURES, ids=lambda case: case.name.replace(" ", "-"))
async def test_an_agents_failure_on_an_answer_closes_its_frame_and_reaches_its_caller(case: Case) -> None:
    seen: list[Any] = []

    async def agent(message: Any, metadata: HandlerMetadata) -> Any:
        seen.append(message)
        if isinstance(message, Ask):
            return [HandlerResponse(Ask("1"), "tool"), HandlerResponse(Ask("2"), "slow")]
        return await case.handler(message, metadata)

    slow = Gate()
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["tool", "slow"], **case.options)
    pump.register("tool", echo, Ask)
    pump.register("slow", slow, Ask)
    async with audited(pump) as audit:
        with pytest.raises(case.error):
            await pump.request("agent", Ask("go"), timeout=PATIENCE)
        await audit.idle()
    assert seen == [Ask("go"), Reply("1")]
    assert slow.cancelled.is_set() or not slow.entered.is_set()


async def test_one_turn_too_many_is_told_to_the_caller_once() -> None:
    agent = Recorder(
        lambda message, _: (
            [HandlerResponse(Ask(str(n)), "tool") for n in range(6)] if isinstance(message, Ask) else None
        )
    )
    boss = Recorder(lambda message, _: HandlerResponse(Ask("go"), "agent") if isinstance(message, Ask) else None)
    pump = StreamPump(max_turns=3)
    pump.register("boss", boss, Ask, agent=True, peers=["agent"])
    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", echo, Ask)
    async with audited(pump) as audit:
        await pump.inject("boss", Ask("go"))
        await audit.idle()
    assert len(agent.seen) == 3
    assert [text_of(message) for message in boss.payloads[1:]] == ["hops"]


# --- failures close frames --------------------------------------------------------------------------------------------


async def test_a_failure_cancels_the_children_that_are_at_work_and_those_that_are_queued() -> None:
    """The tool's frame is closed by an error that passes it by, while one child runs and another waits for it."""
    slow = Gate(Reply("never"))
    failing = Gate()

    async def fail_when_told(payload: Ask, metadata: HandlerMetadata) -> Any:
        await failing(payload, metadata)
        raise RuntimeError("no")

    pump = StreamPump()
    tool = Recorder(
        lambda ask, _: [
            HandlerResponse(Ask("run"), "slow"),
            HandlerResponse(Ask("wait"), "slow"),
            HandlerResponse(Ask("fail"), "failing"),
        ]
    )
    pump.register("tool", tool, Ask)
    pump.register("slow", slow, Ask, concurrency=1)
    pump.register("failing", fail_when_told, Ask)
    async with audited(pump) as audit:
        request = asyncio.create_task(pump.request("tool", Ask("go")))
        await reached(slow.entered)
        await reached(failing.entered)
        failing.opened.set()
        with pytest.raises(HandlerError):
            await request
        await audit.idle()
        await reached(slow.cancelled)
    assert [event.outcome for event in audit.outcomes(to_id="slow")] == ["cancelled", "cancelled"]


async def test_a_failure_cancels_also_what_works_below_a_child_that_answered_early() -> None:
    slow = Gate()

    async def agent(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return HandlerResponse(Ask(), "hasty")
        await slow.entered.wait()
        raise RuntimeError("no")

    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["hasty"])
    pump.register("hasty", returns([HandlerResponse(Ask(), "slow"), HandlerResponse.respond(Reply())]), Ask)
    pump.register("slow", slow, Ask)
    async with audited(pump) as audit:
        with pytest.raises(HandlerError):
            await pump.request("agent", Ask())
        await reached(slow.cancelled)
        await audit.idle()
        assert [event.outcome for event in audit.outcomes(to_id="slow")] == ["cancelled"]


async def test_an_error_leaves_the_agent_and_its_other_calls_alone() -> None:
    slow = Gate(Reply("in the end"))

    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return [HandlerResponse(Ask("x"), "victim"), HandlerResponse(Ask("x"), "slow")]
        if isinstance(message, SystemError):
            slow.opened.set()
            return None
        return HandlerResponse.respond(Reply(message.text))

    pump = StreamPump()
    pump.register("agent", Recorder(decide), Ask, agent=True, peers=["victim", "slow"])
    pump.register("victim", crash, Ask)
    pump.register("slow", slow, Ask)
    async with audited(pump):
        assert await pump.request("agent", Ask("go")) == Reply("in the end")


async def test_the_deadline_of_a_conversation_takes_its_whole_subtree() -> None:
    slow = Gate()
    pump = StreamPump(max_conversation_seconds=0.1)
    pump.register("agent", calls("tool"), Ask, agent=True, peers=["tool"])
    pump.register("tool", calls("slow"), Ask)
    pump.register("slow", slow, Ask)
    async with audited(pump) as audit:
        with pytest.raises(DeadlineExceeded) as caught:
            await pump.request("agent", Ask("go"), timeout=PATIENCE)
        await audit.idle()
        await reached(slow.cancelled)
        assert "longer than 0.1 s" in caught.value.detail
        assert pump.statistics().open_frames == 1


async def test_a_handler_that_ignores_its_time_is_told_of_at_once_and_its_late_result_is_dropped() -> None:
    release = asyncio.Event()

    async def stubborn(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()
        return HandlerResponse.respond(Reply("too late"))

    pump = StreamPump()
    pump.register("stubborn", stubborn, Ask, timeout=0.05)
    async with audited(pump) as audit:
        with pytest.raises(DeadlineExceeded):
            await pump.request("stubborn", Ask("go"))
        release.set()
        await audit.idle()
    assert pump.statistics().late_results == 1
    assert [event.outcome for event in audit.outcomes()] == ["failed"]


async def test_the_pump_goes_on_after_every_failure() -> None:
    pump = StreamPump(max_concurrent_handlers=1)
    pump.register("echo", echo, Ask)
    pump.register("crash", crash, Ask)
    pump.register("cancel", cancel_itself, Ask)
    pump.register("task", cancel_its_task, Ask)
    pump.register("hang", hang, Ask, timeout=0.02)
    async with audited(pump):
        for name in ("crash", "cancel", "task", "hang"):
            for _ in range(3):
                with pytest.raises(PipelineError):
                    await pump.request(name, Ask("go"))
            assert await pump.request("echo", Ask(name)) == Reply(name)


# --- shutdown ---------------------------------------------------------------------------------------------------------


async def test_shutdown_is_seen_by_who_waits_for_a_running_and_for_a_queued_message() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("slow", gate, Ask, concurrency=1)
    async with audited(pump, drains=False) as audit:
        threads = [await pump.inject("slow", Ask(str(n))) for n in range(201)]
        waiting = [asyncio.create_task(pump.wait(thread)) for thread in threads]
        await reached(gate.entered)
        report = await pump.shutdown(0.0)
        for task in waiting:
            with pytest.raises(PumpStopped):
                await task
    assert (report.drained, report.cancelled) == (False, 201)
    assert {event.outcome for event in audit.outcomes()} == {"cancelled"}
    assert gate.cancelled.is_set()


async def test_shutdown_reaches_who_waits_for_an_agent_that_waits_for_a_tool() -> None:
    gate = Gate()
    agent = calls("slow")
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["slow"])
    pump.register("slow", gate, Ask, concurrency=1)
    async with audited(pump, drains=False) as audit:
        requests = [asyncio.create_task(pump.request("agent", Ask(str(n)))) for n in range(2)]
        await reached(gate.entered)
        await agent.called(2)
        await pump.shutdown(0.0)
        for task in requests:
            with pytest.raises(ConversationCancelled) as caught:
                await task
            assert "stopped" in caught.value.detail
    assert len(agent.seen) == 2
    assert [event.outcome for event in audit.outcomes(to_id="slow")] == ["cancelled", "cancelled"]


async def test_after_shutdown_everything_is_refused() -> None:
    pump = StreamPump()
    pump.register("echo", echo, Ask)
    async with audited(pump):
        pass
    with pytest.raises(PumpStopped):
        await pump.inject("echo", Ask("x"))
    with pytest.raises(PumpStopped):
        await pump.request("echo", Ask("x"))


# --- books ------------------------------------------------------------------------------------------------------------


async def test_every_kind_of_outcome_is_counted_once() -> None:
    slow = Gate()
    late = Gate(Reply("late"))
    pump = StreamPump()
    pump.register("echo", echo, Ask)
    pump.register("quiet", Recorder(), Ask)
    pump.register("relay", calls("echo"), Ask)
    pump.register("crash", crash, Ask)
    pump.register("slow", slow, Ask)
    pump.register("late", late, Ask)
    pump.register("hasty", returns([HandlerResponse(Ask(), "late"), HandlerResponse.respond(Reply("now"))]), Ask)
    async with audited(pump) as audit:
        await pump.request("relay", Ask("x"))
        with pytest.raises(NoAnswer):
            await pump.request("quiet", Ask("x"))
        with pytest.raises(HandlerError):
            await pump.request("crash", Ask("x"))
        await pump.inject("crash", Ask("x"))
        thread = await pump.inject("slow", Ask("x"))
        await reached(slow.entered)
        assert pump.cancel(thread)
        await pump.request("hasty", Ask("x"))
        late.opened.set()
        await audit.idle()
        assert pump.statistics().outcomes == {
            "handled": 1 + 3,  # boot; quiet, and the delivery of the answers to relay's and hasty's requests
            "forwarded": 1,  # relay; hasty, which called and answered in one turn, counts as answered
            "answered": 3,  # echo, hasty, late
            "failed": 1,
            "dead-lettered": 1,
            "cancelled": 1,
            "expired": 1,  # late's answer
        }


async def test_outcomes_tell_who_what_and_why() -> None:
    pump = StreamPump()
    pump.register("crash", crash, Ask)
    async with audited(pump) as audit:
        thread = await pump.inject("crash", Ask("x"), from_id="console")
        await audit.idle()
        (event,) = audit.outcomes()
        (letter,) = pump.dead_letters.list()
    assert (event.outcome, event.from_id, event.to_id, event.payload_type) == (
        "dead-lettered",
        "console",
        "crash",
        "Ask",
    )
    assert (event.code, event.thread_id, event.conversation_id) == ("handler", thread, thread)
    assert event.dead_letter_id == letter.id
    assert "RuntimeError" in event.detail


async def test_the_text_of_an_error_tells_nothing_about_the_inside() -> None:
    """Peer violation, unknown target and wrong class cannot be told apart by who is told; only ``detail`` tells."""
    texts, details = set(), set()
    for case in CASES:
        if case.error is RoutingError:
            pump = case.pump()
            async with audited(pump):
                with pytest.raises(RoutingError) as caught:
                    await pump.request(case.target, case.payload)
            texts.add(str(caught.value))
            details.add(caught.value.detail)
    assert len(texts) == 1
    assert len(details) > 3


# --- what is told on the way ------------------------------------------------------------------------------------------


async def test_one_hop_reads_processing_received_sent_idle_outcome() -> None:
    pump = StreamPump()
    pump.register("echo", echo, Ask)
    async with audited(pump) as audit:
        thread = await pump.inject("echo", Ask("x"), from_id="ann")
        await audit.idle()
    told = [
        (type(event).__name__, getattr(event, "state", None) or getattr(event, "status", None))
        for event in audit.events
        if event.conversation_id == thread
    ]
    assert told == [
        ("ThreadEvent", "created"),
        ("ThreadEvent", "active"),
        ("AgentStateEvent", "processing"),
        ("MessageReceivedEvent", None),
        ("MessageSentEvent", None),
        ("AgentStateEvent", "idle"),
        ("OutcomeEvent", None),
        ("OutcomeEvent", None),
        ("ThreadEvent", "completed"),
    ]
    (received,) = [e for e in audit.events if isinstance(e, MessageReceivedEvent) and e.to_id == "echo"]
    (sent,) = [event for event in audit.events if isinstance(event, MessageSentEvent)]
    assert (received.from_id, received.payload_type, received.payload) == ("ann", "Ask", Ask("x"))
    assert (sent.from_id, sent.to_id, sent.payload_type, sent.payload) == ("echo", "ann", "Reply", Reply("x"))
    assert [event.seq for event in audit.events] == list(range(1, len(audit.events) + 1))


async def test_an_agent_is_waiting_while_its_calls_are_open_and_in_error_when_it_took_too_long() -> None:
    gate = Gate(Reply("x"))
    pump = StreamPump()
    pump.register("agent", calls("slow"), Ask, agent=True, peers=["slow"])
    pump.register("slow", gate, Ask)
    pump.register("hang", hang, Ask, timeout=0.05)
    async with audited(pump) as audit:
        request = asyncio.create_task(pump.request("agent", Ask()))
        await reached(gate.entered)
        gate.opened.set()
        await request
        with pytest.raises(DeadlineExceeded):
            await pump.request("hang", Ask())
        await audit.idle()
    states: dict[str, list[str]] = {}
    for event in audit.events:
        if isinstance(event, AgentStateEvent):
            states.setdefault(event.agent_name, []).append(event.state)
    assert states["agent"] == ["processing", "waiting", "processing", "idle"]
    assert states["slow"] == ["processing", "idle"]
    assert states["hang"] == ["processing", "error"]


async def test_boot_is_the_first_message_and_a_second_start_changes_nothing() -> None:
    pump = StreamPump(name="my.organism")
    pump.register("echo", echo, Ask)
    async with audited(pump) as audit:
        listeners = list(pump.listeners)
        await pump.start()
        assert list(pump.listeners) == listeners
        await pump.request("echo", Ask())
        await audit.idle()
        assert await pump.shutdown() == await pump.shutdown()
    first = next(event for event in audit.events if isinstance(event, MessageReceivedEvent))
    assert (first.from_id, first.to_id, first.payload_type) == ("system", "system.boot", "Boot")
    assert (first.payload.organism_name, first.payload.listener_count) == ("my.organism", 1)
    assert [event.payload_type for event in audit.events if isinstance(event, MessageReceivedEvent)] == ["Boot", "Ask"]


# --- any organism at all ----------------------------------------------------------------------------------------------

NAMES = ["agent.0", "agent.1", "tool 0", "tool 1", "stream", "crowd", "nobody"]
_LEAVES = ["respond", "nothing", "crash", "hang", "cancel", "wrong", "unwritable", "error", "pause"]
_PLANS = st.recursive(
    st.lists(st.sampled_from(_LEAVES), max_size=3),
    lambda plans: st.lists(
        st.sampled_from(_LEAVES)
        | st.tuples(st.sampled_from(["call", "send", "expect", "delegate", "bytes"]), st.sampled_from(NAMES), plans),
        max_size=4,
    ),
    max_leaves=8,
)


async def carry_out(plan: list[Any]) -> AsyncIterator[Any]:
    """What a handler with such a plan does, one thing after the other."""
    for step in plan:
        if step == "respond":
            yield HandlerResponse.respond(Reply("answer"))
        elif step == "crash":
            raise RuntimeError("as planned")
        elif step == "hang":
            await asyncio.Event().wait()
        elif step == "cancel":
            raise asyncio.CancelledError
        elif step == "wrong":
            yield 7
        elif step == "unwritable":
            yield HandlerResponse.respond(Reply("\x00"))
        elif step == "error":
            yield HandlerResponse.respond(SystemError("budget", "", False))
        elif step == "pause":
            await asyncio.sleep(0)
        elif step != "nothing":
            verb, to, further = step
            payload = Ask(json.dumps(further))
            if verb == "delegate":
                yield HandlerResponse.delegate(payload, to)
            elif verb == "call":
                yield HandlerResponse.call(payload, to, tag="relay")
            elif verb == "bytes":
                yield HandlerResponse(Note("nobody takes this"), to)
            else:
                yield HandlerResponse(payload, to, tag="relay", expect_answer=verb == "expect")


async def planned(message: Any, metadata: HandlerMetadata) -> Any:
    if not isinstance(message, Ask):
        return HandlerResponse.respond(Reply("relayed")) if metadata.tag == "relay" else None
    sent = [item async for item in carry_out(json.loads(message.text))]
    return sent[0] if len(sent) == 1 else sent


async def planned_stream(message: Any, metadata: HandlerMetadata) -> AsyncIterator[Any]:
    async for item in carry_out(json.loads(message.text)):
        yield item


@settings(max_examples=examples(40), deadline=None)
@given(plans=st.lists(st.tuples(st.sampled_from(NAMES), _PLANS), min_size=1, max_size=4))
def test_whatever_handlers_do_every_message_ends_once_and_everybody_is_told(plans: list[tuple[str, list[Any]]]) -> None:
    async def ask(pump: StreamPump, name: str, plan: list[Any]) -> None:
        try:
            await pump.request(name, Ask(json.dumps(plan)), timeout=PATIENCE)
        except PipelineError as error:
            assert not error.detail.startswith("no answer from"), (
                "nobody was told until the request's own time was over"
            )

    async def main() -> None:
        pump = StreamPump(max_hops=8, max_turns=8, timeout=0.03)
        for name in ("agent.0", "agent.1"):
            pump.register(name, planned, Ask, agent=True, peers=[peer for peer in NAMES if peer != "tool 1"])
        for name in ("tool 0", "tool 1"):
            pump.register(name, planned, (Ask, Reply) if name == "tool 1" else Ask)
        pump.register("stream", planned_stream, Ask)
        for name in ("one", "two"):
            pump.register(name, planned, Ask, broadcast="crowd")
        async with audited(pump):
            await asyncio.gather(*(ask(pump, name, plan) for name, plan in plans))
            for name, plan in plans:
                await pump.inject(name, Ask(json.dumps(plan)))

    asyncio.run(main())


# --- dead letters -----------------------------------------------------------------------------------------------------


async def test_a_dead_letter_can_be_retried_once_its_target_exists() -> None:
    pump = StreamPump()
    late = Recorder()
    async with audited(pump) as audit:
        await pump.inject("late", Ask("keep me"), from_id="console")
        await audit.idle()
        (letter,) = pump.dead_letters.list()
        assert pump.dead_letters.get(letter.id) is letter
        pump.register("late", late, Ask)
        thread = await pump.dead_letters.retry(letter.id)
        await audit.idle()
        assert late.payloads == [Ask("keep me")]
        assert late.metadata[0].from_id == "console"
        assert late.metadata[0].conversation_id == thread != letter.conversation_id
        assert len(pump.dead_letters) == 0


async def test_a_dead_letter_of_a_finished_envelope_goes_to_the_same_target_when_retried() -> None:
    raw = (
        b'<message xmlns="https://xml-pipeline.org/ns/envelope/v1"><meta><from>console</from><to>late</to>'
        b"<thread>0b1d3c7e-6f0a-4f3b-9d0e-1c2b3a4d5e6f</thread></meta>"
        b'<Ask xmlns=""><Text>keep me</Text></Ask></message>'
    )
    pump = StreamPump()
    late = Recorder()
    async with audited(pump) as audit:
        await pump.inject(raw, None, "console")
        await audit.idle()
        (letter,) = pump.dead_letters.list()
        assert letter.target == "late"
        pump.register("late", late, Ask)
        await pump.dead_letters.retry(letter.id)
        await audit.idle()
        assert late.payloads == [Ask("keep me")]


async def test_a_retry_that_fails_again_is_a_new_letter_that_counts_its_attempts() -> None:
    pump = StreamPump()
    pump.register("crash", crash, Ask)
    async with audited(pump) as audit:
        await pump.inject("crash", Ask("x"))
        await audit.idle()
        (first,) = pump.dead_letters.list()
        await pump.dead_letters.retry(first.id)
        await audit.idle()
        (second,) = pump.dead_letters.list()
        assert (first.attempts, second.attempts) == (0, 1)
        assert first.id != second.id
        with pytest.raises(KeyError):
            pump.dead_letters.get(first.id)
        assert pump.dead_letters.clear() == 1
        assert not pump.dead_letters.list()


async def test_cancelled_messages_are_no_dead_letters() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("slow", gate, Ask)
    async with audited(pump) as audit:
        thread = await pump.inject("slow", Ask("x"))
        await reached(gate.entered)
        assert pump.cancel(thread)
        assert not pump.cancel(thread)
        await audit.idle()
        assert not pump.dead_letters.list()
        assert audit.statuses(thread) == ["created", "active", "killed"]


class Effort:
    """Counts the lines that run in the modules which keep the books: work, where time would depend on the machine."""

    FILES = ("ledger.py", "thread_registry.py", "conversation.py")

    def __init__(self) -> None:
        self.lines = 0

    def __enter__(self) -> Effort:
        self._former = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(self._former)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if frame.f_code.co_filename.endswith(self.FILES) else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        self.lines += event == "line"
        return self._line


async def effort_of_ending(width: int, depth: int, how: str) -> int:
    """An agent calls a tool so often, each call goes so deep; then all of them end at once."""
    ready, go = asyncio.Event(), asyncio.Event()
    waiting = 0

    def start(message: Any, _: HandlerMetadata) -> Any:
        if isinstance(message, Note):
            return [HandlerResponse(Count(depth - 1), "tool", tag=str(number)) for number in range(width)]
        return None

    async def dig(payload: Count, metadata: HandlerMetadata) -> HandlerResponse:
        nonlocal waiting
        if payload.number:
            return HandlerResponse.call(Count(payload.number - 1), "tool")
        waiting += 1
        if waiting == width:
            ready.set()
        await go.wait()
        if how == "failing":
            raise RuntimeError("no")
        return HandlerResponse.respond(Reply())

    pump = StreamPump(max_concurrent_handlers=1000, max_hops=1000)
    pump.register("agent", Recorder(start), Note, agent=True, peers=["tool"])
    pump.register("tool", dig, Count)
    async with audited(pump) as audit:
        thread = await pump.inject("agent", Note())
        await reached(ready)
        with Effort() as effort:
            if how == "cancelled":
                pump.cancel(thread)
            go.set()
            await audit.idle()
    return effort.lines


@pytest.mark.parametrize("how", ["failing", "answering", "cancelled"])
@pytest.mark.parametrize(("width", "depth"), [(20, 3), (1, 30)])
async def test_the_work_of_ending_many_calls_grows_with_their_number(width: int, depth: int, how: str) -> None:
    """Not with its square: one event loop serves everybody."""
    small = await effort_of_ending(width, depth, how)
    large = await effort_of_ending(*(4 * size if size > 3 else size for size in (width, depth)), how)
    assert large < 6 * small
