"""`xml_pipeline.message_bus.replies` in a running pump: every row of the table of what a handler may return."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import HandlerError, NoAnswer, RoutingError
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.message_bus.thread_registry import get_registry

from .helpers import PATIENCE, Ask, Gate, Note, Recorder, Reply, audited, calls, echo, reached, read_all, text_of

# --- calls ------------------------------------------------------------------------------------------------------------


async def test_a_call_opens_a_frame_below_and_its_answer_comes_back_to_the_callers_frame() -> None:
    pump = StreamPump()
    boss, tool = calls("tool", tag="first"), Recorder(lambda ask, _: HandlerResponse.respond(Reply(f"{ask.text}!")))
    pump.register("boss", boss, Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Ask)
    async with audited(pump) as audit:
        assert await pump.request("boss", Ask("hello")) == Reply("hello!")
        await audit.idle()
    asked, answered = boss.metadata
    assert (asked.from_id, answered.from_id, answered.tag) == ("external", "tool", "first")
    assert asked.thread_id == answered.thread_id == asked.conversation_id
    (called,) = tool.metadata
    assert (called.from_id, called.tag, called.conversation_id) == ("boss", "", asked.conversation_id)
    assert called.thread_id != asked.thread_id
    assert [event.outcome for event in audit.outcomes()] == ["forwarded", "answered", "answered", "handled"]


async def test_sending_to_oneself_stays_in_the_frame_and_needs_no_peer() -> None:
    def count_down(message: Any, metadata: HandlerMetadata) -> Any:
        left = int(message.text)
        return HandlerResponse(Ask(str(left - 1)), "agent") if left else HandlerResponse.respond(Reply("done"))

    pump = StreamPump()
    agent = Recorder(count_down)
    pump.register("agent", agent, Ask, agent=True, peers=[])
    async with audited(pump):
        assert await pump.request("agent", Ask("3")) == Reply("done")
    assert len({metadata.thread_id for metadata in agent.metadata}) == 1
    assert [metadata.is_self_call for metadata in agent.metadata] == [False, True, True, True]
    assert [metadata.from_id for metadata in agent.metadata] == ["external", "agent", "agent", "agent"]


async def test_sending_to_the_caller_by_name_is_an_answer_and_closes_the_frame() -> None:
    open_then: list[object] = []
    tool = Recorder(lambda ask, metadata: HandlerResponse(Reply("pong"), metadata.from_id))

    def ask_tool(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return HandlerResponse(Ask("ping"), "tool")
        open_then.append(get_registry().frame(tool.metadata[0].thread_id))
        return HandlerResponse(Reply(message.text), "external")

    pump = StreamPump()
    pump.register("boss", Recorder(ask_tool), Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Ask)
    async with audited(pump):
        assert await pump.request("boss", Ask("go")) == Reply("pong")
    assert open_then == [None]


async def test_call_reaches_even_the_caller_in_a_frame_of_its_own() -> None:
    def decide_boss(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Note):
            return HandlerResponse.respond(Reply("the number is 7"))
        if isinstance(message, Ask):
            return HandlerResponse(Ask("compute"), "tool")
        return HandlerResponse.respond(Reply(message.text))

    def decide_tool(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return HandlerResponse.call(Note("which number?"), metadata.from_id, tag="question")
        assert metadata.tag == "question"
        return HandlerResponse.respond(Reply(f"computed: {message.text}"))

    pump = StreamPump()
    boss, tool = Recorder(decide_boss), Recorder(decide_tool)
    pump.register("boss", boss, (Ask, Note, Reply), agent=True, peers=["tool"])
    pump.register("tool", tool, (Ask, Reply))
    async with audited(pump):
        assert await pump.request("boss", Ask("go")) == Reply("computed: the number is 7")
    first, question, last = boss.metadata
    assert first.thread_id == last.thread_id != question.thread_id
    assert question.from_id == "tool"
    assert [m.thread_id for m in tool.metadata] == [tool.metadata[0].thread_id] * 2


async def test_parallel_calls_to_one_tool_run_at_the_same_time_and_answers_carry_their_tags() -> None:
    together = asyncio.Barrier(3)

    async def tool(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        await together.wait()  # none of the three gets on before all are here
        return HandlerResponse.respond(Reply(payload.text.upper()))

    answers: dict[str, str] = {}

    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return [HandlerResponse(Ask(word), "tool", tag=f"tag {word}") for word in ("a", "b", "c")]
        answers[metadata.tag] = text_of(message)
        return HandlerResponse.respond(Reply("all")) if len(answers) == 3 else None

    pump = StreamPump()
    pump.register("boss", Recorder(decide), Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Ask, timeout=PATIENCE)
    async with audited(pump):
        assert await pump.request("boss", Ask("go")) == Reply("all")
    assert answers == {"tag a": "A", "tag b": "B", "tag c": "C"}


@pytest.mark.parametrize("verb", ["send", "delegate"])
async def test_a_chain_that_forwards_three_times_answers_the_asker_with_the_last_ones_answer(verb: str) -> None:
    def forward(to: str) -> Recorder:
        def decide(message: Any, metadata: HandlerMetadata) -> Any:
            further = Ask(f"{message.text}>{to}")
            return HandlerResponse(further, to) if verb == "send" else HandlerResponse.delegate(further, to)

        return Recorder(decide)

    pump = StreamPump()
    asker = calls("one")
    pump.register("asker", asker, Ask, agent=True, peers=["one"])
    for name, to in (("one", "two"), ("two", "three"), ("three", "last")):
        pump.register(name, forward(to), Ask)
    pump.register("last", echo, Ask)
    async with audited(pump):
        assert await pump.request("one", Ask("0")) == Reply("0>two>three>last")
        assert await pump.request("asker", Ask("0")) == Reply("0>two>three>last")
    assert asker.metadata[1].from_id == "one"  # the name it called, however many hands the call went through


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_all_answers_of_a_turn_are_delivered_in_order_and_then_the_frame_is_closed() -> None:
    tool = Recorder(lambda ask, metadata: [HandlerResponse.respond(Reply(word)) for word in "abc"])
    boss = Recorder(lambda message, _: HandlerResponse(Ask("go"), "tool") if isinstance(message, Ask) else None)
    pump = StreamPump()
    pump.register("boss", boss, Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Ask)
    async with audited(pump) as audit:
        await pump.inject("boss", Ask("go"))
        await audit.idle()
        assert boss.payloads[1:] == [Reply("a"), Reply("b"), Reply("c")]
        assert pump.engine.registry.frame(tool.metadata[0].thread_id) is None


async def test_children_of_a_frame_that_answered_run_on_and_their_late_answers_expire() -> None:
    slow = Gate(Reply("too late"))

    def both(message: Any, metadata: HandlerMetadata) -> Any:
        return [HandlerResponse(Ask("work"), "slow"), HandlerResponse.respond(Reply("at once"))]

    pump = StreamPump()
    hasty = Recorder(both)
    pump.register("hasty", hasty, Ask, agent=True, peers=["slow"])
    pump.register("slow", slow, Ask)
    async with audited(pump) as audit:
        assert await pump.request("hasty", Ask("go")) == Reply("at once")
        await reached(slow.entered)
        slow.opened.set()
        await audit.idle()
        assert not slow.cancelled.is_set()
        assert len(hasty.seen) == 1
        (late,) = audit.outcomes(outcome="expired")
        assert (late.from_id, late.to_id) == ("slow", "hasty")


async def test_answers_queued_for_a_frame_expire_when_it_answers() -> None:
    """Of three answers the agent needs one; the others are queued on its frame when it answers, or come later."""

    def first_wins(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return [HandlerResponse(Ask(word), "tool") for word in ("a", "b", "c")]
        return HandlerResponse.respond(Reply("enough"))

    pump = StreamPump()
    agent = Recorder(first_wins)
    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", echo, Ask)
    async with audited(pump) as audit:
        assert await pump.request("agent", Ask("go")) == Reply("enough")
        await audit.idle()
        assert len(agent.seen) == 2
        assert len(audit.outcomes(outcome="expired")) == 2


# --- delegation -------------------------------------------------------------------------------------------------------


async def test_delegate_hands_the_frame_over_and_the_answer_comes_under_the_called_name() -> None:
    front = Recorder(lambda ask, _: HandlerResponse.delegate(Ask(ask.text + "!"), "back"))
    back = Recorder(lambda ask, _: HandlerResponse.respond(Reply(ask.text)))
    boss = calls("front", tag="mine")
    pump = StreamPump()
    pump.register("boss", boss, Ask, agent=True, peers=["front"])
    pump.register("front", front, Ask)
    pump.register("back", back, Ask)
    async with audited(pump) as audit:
        assert await pump.request("boss", Ask("hi")) == Reply("hi!")
        await audit.idle()
        assert pump.engine.registry.frame(front.metadata[0].thread_id) is None
    assert (boss.metadata[1].from_id, boss.metadata[1].tag) == ("front", "mine")
    assert back.metadata[0].from_id == "boss"  # whom it will answer
    assert back.metadata[0].thread_id != front.metadata[0].thread_id
    assert len(front.seen) == 1
    assert [event.outcome for event in audit.outcomes(to_id="front")] == ["forwarded"]


async def test_a_second_delegation_in_one_turn_is_refused() -> None:
    back = Recorder()
    pump = StreamPump()
    twice = Recorder(
        lambda ask, _: [HandlerResponse.delegate(Ask("1"), "back"), HandlerResponse.delegate(Ask("2"), "back")]
    )
    pump.register("front", twice, Ask)
    pump.register("back", back, Ask)
    async with audited(pump) as audit:
        with pytest.raises(HandlerError) as caught:
            await pump.request("front", Ask("go"))
        await audit.idle()
    assert "delegated its frame twice" in caught.value.detail
    assert len(back.seen) <= 1
    assert Ask("2") not in back.payloads


async def test_a_frame_cannot_be_handed_over_to_a_group() -> None:
    members = Recorder()
    pump = StreamPump()
    pump.register("front", Recorder(lambda ask, _: HandlerResponse.delegate(Ask("x"), "crowd")), Ask)
    pump.register("one", members, Ask, broadcast="crowd")
    pump.register("two", members, Ask, broadcast="crowd")
    async with audited(pump):
        with pytest.raises(RoutingError, match="could not be delivered"):
            await pump.request("front", Ask("go"))
    assert not members.seen


async def test_a_failure_of_the_successor_reaches_the_caller_of_the_frame_that_was_handed_over() -> None:
    async def broken(payload: Ask, metadata: HandlerMetadata) -> None:
        raise ValueError("no")

    boss = calls("front", tag="mine")
    pump = StreamPump()
    pump.register("boss", boss, Ask, agent=True, peers=["front"])
    pump.register("front", Recorder(lambda ask, _: HandlerResponse.delegate(ask, "back")), Ask)
    pump.register("back", broken, Ask)
    async with audited(pump):
        assert await pump.request("boss", Ask("go")) == Reply("handler")
    assert boss.metadata[1].tag == "mine"


# --- lists and generators ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [list, tuple])
async def test_the_items_of_a_list_are_sent_in_order(make: type) -> None:
    sink = Recorder()
    pump = StreamPump()
    pump.register("spread", Recorder(lambda ask, _: make(HandlerResponse(Note(w), "sink") for w in "xyz")), Ask)
    pump.register("sink", sink, Note, concurrency=1)
    async with audited(pump) as audit:
        await pump.inject("spread", Ask("go"))
        await audit.idle()
    assert sink.payloads == [Note("x"), Note("y"), Note("z")]
    assert len({metadata.thread_id for metadata in sink.metadata}) == 3


async def test_a_list_with_something_else_in_it_sends_nothing() -> None:
    sink = Recorder()
    pump = StreamPump()
    pump.register("spread", Recorder(lambda ask, _: [HandlerResponse(Note("x"), "sink"), "text"]), Ask)
    pump.register("sink", sink, Note)
    async with audited(pump):
        with pytest.raises(HandlerError) as caught:
            await pump.request("spread", Ask("go"))
    assert "a list with a str in it" in caught.value.detail
    assert not sink.seen


async def test_an_empty_list_sends_nothing() -> None:
    pump = StreamPump()
    pump.register("quiet", Recorder(lambda ask, _: []), Ask)
    async with audited(pump):
        with pytest.raises(NoAnswer):
            await pump.request("quiet", Ask("go"))


async def test_a_generators_items_are_sent_as_they_are_yielded() -> None:
    first_was_read = asyncio.Event()

    async def stream(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        yield HandlerResponse.respond(Reply("first"))
        await first_was_read.wait()
        yield HandlerResponse.respond(Reply("second"))

    pump = StreamPump()
    pump.register("stream", stream, Ask)
    async with audited(pump):
        answers = []
        async for answer in pump.stream("stream", Ask("go"), timeout=PATIENCE):
            answers.append(answer.text)
            first_was_read.set()
    assert answers == ["first", "second"]


async def test_a_generators_answers_are_a_stream_on_one_frame() -> None:
    async def stream(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        for number in range(5):
            yield HandlerResponse.respond(Reply(str(number)))
            await asyncio.sleep(0)

    boss = Recorder(
        lambda message, _: HandlerResponse(Ask("go"), "stream", tag="s")
        if isinstance(message, Ask)
        else HandlerResponse.respond(Reply("done")) if message.text == "4" else None
    )  # fmt: skip
    pump = StreamPump()
    pump.register("boss", boss, Ask, agent=True, peers=["stream"])
    pump.register("stream", stream, Ask)
    async with audited(pump):
        assert await pump.request("boss", Ask("go")) == Reply("done")
    assert [message.text for message in boss.payloads[1:]] == ["0", "1", "2", "3", "4"]
    assert {metadata.tag for metadata in boss.metadata[1:]} == {"s"}


async def test_a_generator_may_mix_calls_and_answers() -> None:
    async def stream(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        yield HandlerResponse(Note("for the record"), "log")
        yield HandlerResponse.respond(Reply("answer"))

    log = Recorder()
    pump = StreamPump()
    pump.register("stream", stream, Ask)
    pump.register("log", log, Note)
    async with audited(pump) as audit:
        assert await pump.request("stream", Ask("go")) == Reply("answer")
        await audit.idle()
    assert log.payloads == [Note("for the record")]


async def test_what_a_generator_sent_before_it_failed_is_delivered_and_then_the_error() -> None:
    async def stream(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        yield HandlerResponse.respond(Reply("first"))
        raise ValueError("no more")

    boss = Recorder(lambda message, _: HandlerResponse(Ask("go"), "stream") if isinstance(message, Ask) else None)
    pump = StreamPump()
    pump.register("boss", boss, Ask, agent=True, peers=["stream"])
    pump.register("stream", stream, Ask)
    answers: list[Any] = []
    async with audited(pump) as audit:
        with pytest.raises(HandlerError):
            await read_all(pump.stream("stream", Ask("go")), answers)
        await pump.inject("boss", Ask("go"))
        await audit.idle()
    assert answers == [Reply("first")]
    assert [text_of(message) for message in boss.payloads[1:]] == ["first", "handler"]


async def test_an_item_that_is_no_response_fails_the_generator_and_closes_it() -> None:
    closed = asyncio.Event()

    async def stream(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[Any]:
        try:
            yield HandlerResponse.respond(Reply("first"))
            yield 7
            yield HandlerResponse.respond(Reply("never"))
        finally:
            closed.set()

    pump = StreamPump()
    pump.register("stream", stream, Ask)
    answers: list[Any] = []
    async with audited(pump):
        with pytest.raises(HandlerError) as caught:
            await read_all(pump.stream("stream", Ask("go")), answers)
    assert answers == [Reply("first")]
    assert closed.is_set()
    assert "returned int" in caught.value.detail


async def test_a_generator_whose_time_is_over_is_closed_and_each_item_has_the_full_time() -> None:
    closed = asyncio.Event()

    async def stream(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        try:
            yield HandlerResponse.respond(Reply("first"))
            await asyncio.Event().wait()
        finally:
            closed.set()

    pump = StreamPump()
    boss = Recorder(lambda message, _: HandlerResponse(Ask("go"), "stream") if isinstance(message, Ask) else None)
    pump.register("boss", boss, Ask, agent=True, peers=["stream"])
    pump.register("stream", stream, Ask, timeout=0.05)
    async with audited(pump) as audit:
        await pump.inject("boss", Ask("go"))
        await audit.idle()
        await reached(closed)
    assert [text_of(message) for message in boss.payloads[1:]] == ["first", "timeout"]


async def test_an_item_that_is_yielded_after_the_time_was_over_is_dropped() -> None:
    async def stubborn(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield HandlerResponse.respond(Reply("too late"))

    boss = Recorder(lambda message, _: HandlerResponse(Ask("go"), "stubborn") if isinstance(message, Ask) else None)
    pump = StreamPump()
    pump.register("boss", boss, Ask, agent=True, peers=["stubborn"])
    pump.register("stubborn", stubborn, Ask, timeout=0.05)
    async with audited(pump) as audit:
        await pump.inject("boss", Ask("go"))
        await audit.idle()
        assert pump.statistics().abandoned_handlers == 0
    assert [text_of(message) for message in boss.payloads[1:]] == ["timeout"]


# --- nothing ----------------------------------------------------------------------------------------------------------


async def test_none_is_silent_to_the_caller() -> None:
    agent = Recorder(lambda message, _: HandlerResponse(Ask("?"), "quiet") if isinstance(message, Ask) else None)
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["quiet"])
    pump.register("quiet", Recorder(), Ask)
    async with audited(pump) as audit:
        with pytest.raises(NoAnswer):
            await pump.request("agent", Ask("go"))
        await audit.idle()
    assert len(agent.seen) == 1
    assert [event.outcome for event in audit.outcomes()] == ["forwarded", "handled"]


@pytest.mark.parametrize("agent", [True, False])
async def test_expect_answer_turns_silence_into_an_error_with_the_tag(agent: bool) -> None:
    asker = calls("quiet", tag="q", expect_answer=True)
    pump = StreamPump()
    pump.register("asker", asker, (Ask, SystemError), agent=agent, peers=["quiet"])
    pump.register("quiet", Recorder(), Ask)
    async with audited(pump):
        assert await pump.request("asker", Ask("go")) == Reply("no-answer")
    assert asker.payloads[1] == SystemError("no-answer", "The conversation ended without an answer.", False)
    assert (asker.metadata[1].tag, asker.metadata[1].from_id) == ("q", "system")


@pytest.mark.parametrize("how", ["forward", "delegate"])
async def test_expect_answer_is_content_with_an_answer_that_came_a_long_way(how: str) -> None:
    middle = Recorder(
        lambda ask, _: HandlerResponse.delegate(ask, "end") if how == "delegate" else HandlerResponse(ask, "end")
    )
    # It does not answer, so that its frame stays open for whatever else may come.
    asker = Recorder(
        lambda m, _: HandlerResponse(Ask("x"), "middle", expect_answer=True) if isinstance(m, Ask) else None
    )
    pump = StreamPump()
    pump.register("asker", asker, Ask, agent=True, peers=["middle"])
    pump.register("middle", middle, Ask)
    pump.register("end", echo, Ask)
    async with audited(pump) as audit:
        await pump.inject("asker", Ask("go"))
        await audit.idle()
    assert asker.payloads == [Ask("go"), Reply("x")]


@pytest.mark.parametrize("how", ["forward", "delegate"])
async def test_expect_answer_notices_silence_a_long_way_off(how: str) -> None:
    middle = Recorder(
        lambda ask, _: HandlerResponse.delegate(ask, "end") if how == "delegate" else HandlerResponse(ask, "end")
    )
    pump = StreamPump()
    pump.register("asker", calls("middle", expect_answer=True), Ask, agent=True, peers=["middle"])
    pump.register("middle", middle, Ask)
    pump.register("end", Recorder(), Ask)
    async with audited(pump):
        assert await pump.request("asker", Ask("go")) == Reply("no-answer")


async def test_a_join_that_is_silent_until_it_has_all_answers_is_not_without_an_answer() -> None:
    """A tool that calls two others and answers on the second answer: its first turns end in nothing."""
    got: list[str] = []

    def join(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return [HandlerResponse(Ask("left"), "part"), HandlerResponse(Ask("right"), "part")]
        got.append(message.text)
        return HandlerResponse.respond(Reply("+".join(sorted(got)))) if len(got) == 2 else None

    asker = calls("join", expect_answer=True)
    pump = StreamPump()
    pump.register("asker", asker, Ask, agent=True, peers=["join"])
    pump.register("join", Recorder(join), (Ask, Reply))
    pump.register("part", echo, Ask)
    async with audited(pump):
        assert await pump.request("asker", Ask("go")) == Reply("left+right")
    assert len(asker.seen) == 2


# --- tags and permissions ---------------------------------------------------------------------------------------------


async def test_errors_carry_the_tag_of_the_call_that_failed() -> None:
    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return [HandlerResponse(Ask("x"), "broken", tag="b"), HandlerResponse(Ask("x"), "nowhere", tag="n")]
        return None

    async def broken(payload: Ask, metadata: HandlerMetadata) -> None:
        raise ValueError("no")

    pump = StreamPump()
    agent = Recorder(decide)
    pump.register("agent", agent, Ask, agent=True, peers=["broken", "nowhere"])
    pump.register("broken", broken, Ask)
    async with audited(pump) as audit:
        await pump.inject("agent", Ask("go"))
        await audit.idle()
    assert {m.tag: p.code for p, m in agent.seen[1:]} == {"b": "handler", "n": "routing"}


@pytest.mark.parametrize(("allowed", "expected"), [(["helper"], "routing"), (["helper", "vault"], "gold")])
async def test_as_caller_needs_the_permission_of_both(allowed: list[str], expected: str) -> None:
    def help_(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return HandlerResponse(Ask("open"), "vault", as_caller=True)
        return HandlerResponse.respond(Reply(text_of(message)))

    vault = Recorder(lambda ask, _: HandlerResponse.respond(Reply("gold")))
    pump = StreamPump()
    pump.register("guest", calls("helper"), Ask, agent=True, peers=allowed)
    pump.register("helper", Recorder(help_), (Ask, Reply, SystemError))
    pump.register("vault", vault, Ask)
    async with audited(pump):
        assert await pump.request("guest", Ask("go")) == Reply(expected)
    assert bool(vault.seen) is (expected == "gold")


async def test_without_as_caller_the_callees_own_permission_is_enough() -> None:
    pump = StreamPump()
    pump.register("guest", calls("helper"), Ask, agent=True, peers=["helper"])
    pump.register("helper", calls("vault"), (Ask, Reply))
    pump.register("vault", echo, Ask)
    async with audited(pump):
        assert await pump.request("guest", Ask("go")) == Reply("go")


async def test_as_caller_does_not_widen_what_the_callee_itself_may() -> None:
    helper = Recorder(
        lambda message, _: (
            HandlerResponse(Ask("open"), "vault", as_caller=True)
            if isinstance(message, Ask)
            else HandlerResponse.respond(Reply(text_of(message)))
        )
    )
    vault = Recorder()
    pump = StreamPump()
    pump.register("guest", calls("helper"), Ask, agent=True, peers=["helper", "vault"])
    pump.register("helper", helper, (Ask, SystemError), peers=[])
    pump.register("vault", vault, Ask)
    async with audited(pump):
        assert await pump.request("guest", Ask("go")) == Reply("routing")
    assert not vault.seen


# --- what cannot be sent ----------------------------------------------------------------------------------------------


class Foreign:
    """No payload: neither a dataclass nor a pydantic model, and without to_xml()."""


@pytest.mark.parametrize(
    ("payload", "code", "cause"),
    [
        (Foreign(), "handler", "wants to send a Foreign"),
        (None, "handler", "wants to send a NoneType"),
        (Reply("bell \x07"), "validation", "U+0007"),
        (Reply("half \ud800"), "validation", "U+D800"),
    ],
)
async def test_an_answer_that_cannot_be_written_is_an_error_for_the_caller(payload: Any, code: str, cause: str) -> None:
    boss = calls("tool")
    pump = StreamPump()
    pump.register("boss", boss, Ask, agent=True, peers=["tool"])
    pump.register("tool", Recorder(lambda ask, _: HandlerResponse.respond(payload)), Ask)
    async with audited(pump) as audit:
        assert await pump.request("boss", Ask("go")) == Reply(code)
        await audit.idle()
    assert any(event.code == code and cause in event.detail for event in audit.outcomes(from_id="tool"))


async def test_an_agent_is_told_that_its_answer_could_not_be_written_and_may_answer_again() -> None:
    agent = Recorder(
        lambda message, _: HandlerResponse.respond(Foreign() if isinstance(message, Ask) else Reply(message.code))
    )
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=[])
    async with audited(pump):
        assert await pump.request("agent", Ask("go")) == Reply("handler")


async def test_a_handler_may_answer_with_an_error() -> None:
    boss = calls("tool", tag="t")
    pump = StreamPump()
    pump.register("boss", boss, Ask, agent=True, peers=["tool"])
    answer = SystemError("budget", "my own words", True)
    pump.register("tool", Recorder(lambda ask, _: HandlerResponse.respond(answer)), Ask)
    async with audited(pump):
        assert await pump.request("boss", Ask("go")) == Reply("budget")
    assert boss.payloads[1].message == "The budget of the conversation is exhausted."
    assert boss.metadata[1].tag == "t"


@pytest.mark.parametrize("value", ["text", 7, {"a": 1}, Reply("bare"), object()])
async def test_anything_else_is_a_failure_of_the_handler(value: object) -> None:
    pump = StreamPump()
    pump.register("tool", Recorder(lambda ask, _: value), Ask)
    async with audited(pump) as audit:
        with pytest.raises(HandlerError) as caught:
            await pump.request("tool", Ask("go"))
        await audit.idle()
    assert f"returned {type(value).__name__}" in caught.value.detail
    assert [event.outcome for event in audit.outcomes()] == ["failed"]
