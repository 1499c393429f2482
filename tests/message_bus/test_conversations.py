"""Conversations, frames and turns in a running pump: nothing is shared, nothing is found by name, all is freed."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import ConversationCancelled, DeadlineExceeded, ForgedMessage, NoAnswer, ValidationError
from xml_pipeline.memory import get_context_buffer
from xml_pipeline.message_bus.operators import pipe
from xml_pipeline.message_bus.thread_registry import Conversation, Frame, get_registry

from .helpers import PATIENCE, Ask, Gate, Note, Recorder, Reply, audited, calls, echo, reached

CHOSEN = "0b1d3c7e-6f0a-4f3b-9d0e-1c2b3a4d5e6f"


# --- ids --------------------------------------------------------------------------------------------------------------


async def test_the_id_of_a_conversation_is_that_of_its_first_frame_everywhere() -> None:
    tool = Recorder(lambda ask, _: HandlerResponse.respond(Reply(ask.text)))
    agent = calls("tool")
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Ask)
    async with audited(pump) as audit:
        thread = await pump.inject("agent", Ask("x"))
        await audit.idle()
        assert agent.metadata[0].thread_id == agent.metadata[0].conversation_id == thread
        assert tool.metadata[0].thread_id != tool.metadata[0].conversation_id == thread
        assert audit.statuses(thread) == ["created", "active", "completed"]
        others = [event for event in audit.events if event.conversation_id != thread]
        assert all("system.boot" in str(event) for event in others), others
        assert {type(event).__name__ for event in audit.events if event.conversation_id == thread} == {
            "ThreadEvent",
            "AgentStateEvent",
            "MessageReceivedEvent",
            "MessageSentEvent",
            "OutcomeEvent",
        }


async def test_an_unknown_version_4_uuid_begins_a_conversation_with_that_id() -> None:
    sink = Recorder()
    pump = StreamPump()
    pump.register("sink", sink, Ask)
    async with audited(pump) as audit:
        assert await pump.inject("sink", Ask("x"), thread_id=CHOSEN) == CHOSEN
        await audit.idle()
    assert sink.metadata[0].thread_id == CHOSEN


@pytest.mark.parametrize(
    "thread_id",
    [
        CHOSEN.upper(),
        CHOSEN.replace("-", ""),
        CHOSEN[:-1],
        "{" + CHOSEN + "}",
        "00000000-0000-1000-8000-000000000000",
        "0b1d3c7e-6f0a-4f3b-0d0e-1c2b3a4d5e6f",
        "default",
        "",
        " " + CHOSEN,
        CHOSEN + "\n",
    ],
)
async def test_any_other_unknown_id_is_refused_and_never_replaced(thread_id: str) -> None:
    sink = Recorder()
    pump = StreamPump()
    pump.register("sink", sink, Ask)
    async with audited(pump) as audit:
        with pytest.raises(ForgedMessage):
            await pump.inject("sink", Ask("x"), thread_id=thread_id)
        await audit.idle()
    assert not sink.seen


# --- turns of one conversation ----------------------------------------------------------------------------------------


async def remember(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
    """Answer with all that this agent was asked in this conversation so far."""
    slots = get_context_buffer().by_agent(metadata.conversation_id, "memory")
    return HandlerResponse.respond(Reply(" ".join(slot.payload.text for slot in slots)))


async def test_a_second_message_on_the_conversation_finds_its_history() -> None:
    pump = StreamPump()
    pump.register("memory", remember, Ask)
    async with audited(pump) as audit:
        thread = await pump.inject("memory", Ask("one"), from_id="ann")
        assert await pump.wait(thread) == Reply("one")
        await audit.idle()
        assert await pump.request("memory", Ask("two"), from_id="ann", thread_id=thread) == Reply("one two")
        assert await pump.request("memory", Ask("three"), from_id="ann", thread_id=thread) == Reply("one two three")
        assert await pump.request("memory", Ask("other"), from_id="ann") == Reply("other")
        await audit.idle()
        assert audit.statuses(thread) == ["created"] + ["active", "completed"] * 3


async def test_each_turn_has_a_root_frame_of_its_own() -> None:
    agent = Recorder(lambda ask, _: HandlerResponse.respond(Reply(ask.text)))
    pump = StreamPump()
    pump.register("agent", agent, Ask)
    async with audited(pump):
        await pump.request("agent", Ask("one"), thread_id=CHOSEN)
        await pump.request("agent", Ask("two"), thread_id=CHOSEN)
    first, second = agent.metadata
    assert first.thread_id == CHOSEN != second.thread_id
    assert first.conversation_id == second.conversation_id == CHOSEN


async def test_a_turn_may_begin_while_another_is_open_and_each_gets_its_own_answer() -> None:
    gates = {"first": Gate(Reply("1")), "second": Gate(Reply("2"))}
    pump = StreamPump()
    for name, gate in gates.items():
        pump.register(name, gate, Ask)
    async with audited(pump):
        first = asyncio.create_task(pump.request("first", Ask(), thread_id=CHOSEN))
        await reached(gates["first"].entered)
        second = asyncio.create_task(pump.request("second", Ask(), thread_id=CHOSEN))
        await reached(gates["second"].entered)
        gates["second"].opened.set()
        assert await second == Reply("2")
        assert not first.done()
        gates["first"].opened.set()
        assert await first == Reply("1")


async def test_nobody_else_may_speak_in_it_whether_it_is_open_or_complete() -> None:
    gate = Gate(Reply("x"))
    pump = StreamPump()
    pump.register("slow", gate, Ask)
    async with audited(pump):
        thread = await pump.inject("slow", Ask("x"), from_id="ann")
        await reached(gate.entered)
        with pytest.raises(ForgedMessage):
            await pump.inject("slow", Ask("y"), from_id="mallory", thread_id=thread)
        gate.opened.set()
        await pump.wait(thread)
        with pytest.raises(ForgedMessage):
            await pump.request("slow", Ask("y"), from_id="mallory", thread_id=thread)
        assert await pump.request("slow", Ask("z"), from_id="ann", thread_id=thread) == Reply("x")


async def test_the_id_of_an_inner_frame_is_nobodys_to_speak_on() -> None:
    gate = Gate(Reply("x"))
    threads: list[str] = []

    async def tool(payload: Ask, metadata: HandlerMetadata) -> Any:
        threads.append(metadata.thread_id)
        return await gate(payload, metadata)

    pump = StreamPump()
    pump.register("agent", calls("tool"), Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Ask)
    async with audited(pump):
        thread = await pump.inject("agent", Ask("x"))
        await reached(gate.entered)
        with pytest.raises(ForgedMessage):
            await pump.inject("tool", Ask("y"), thread_id=threads[0])
        gate.opened.set()
        assert await pump.wait(thread) == Reply("x")
    assert len(threads) == 1


async def test_a_conversation_that_was_cancelled_can_be_continued_and_completes() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("slow", gate, Ask)
    pump.register("echo", echo, Ask)
    async with audited(pump) as audit:
        with pytest.raises(DeadlineExceeded):
            await pump.request("slow", Ask("one"), thread_id=CHOSEN, timeout=0.05)
        await audit.idle()
        assert audit.statuses(CHOSEN) == ["created", "active", "killed"]
        assert await pump.request("echo", Ask("two"), thread_id=CHOSEN) == Reply("two")
        await audit.idle()
        assert audit.statuses(CHOSEN)[3:] == ["active", "completed"]


async def test_a_message_that_is_refused_leaves_the_conversation_and_its_history_alone() -> None:
    pump = StreamPump(max_message_bytes=1000)
    pump.register("memory", remember, Ask)
    async with audited(pump) as audit:
        await pump.request("memory", Ask("one"), thread_id=CHOSEN)
        await audit.idle()
        for payload in (Ask("x" * 2000), Ask("bell \x07")):
            with pytest.raises(ValidationError):
                await pump.inject("memory", payload, thread_id=CHOSEN)
        assert await pump.request("memory", Ask("two"), thread_id=CHOSEN) == Reply("one two")


async def test_what_was_refused_leaves_nothing_behind() -> None:
    pump = StreamPump(max_message_bytes=1000)
    pump.register("memory", remember, Ask)
    async with audited(pump):
        before = pump.statistics()
        for _ in range(3):
            with pytest.raises(ValidationError):
                await pump.inject("memory", Ask("x" * 2000))
        after = pump.statistics()
        assert after.open_conversations == before.open_conversations
        assert after.open_frames == before.open_frames
        assert after.retained_conversations == before.retained_conversations


# --- nothing is shared ------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    conversations=st.integers(2, 6),
    turns=st.integers(1, 3),
    slots=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_interleaved_conversations_over_the_same_path_never_see_each_other(
    conversations: int, turns: int, slots: int, seed: int
) -> None:
    """agent -> relay.one -> tool and back, all conversations at once, with the event loop's order shuffled."""
    chance = random.Random(seed)
    seen: dict[str, set[str]] = {}

    async def pause() -> None:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)

    def note(metadata: HandlerMetadata, text: str) -> None:
        seen.setdefault(metadata.conversation_id, set()).add(text.split("/")[0])
        for slot in get_context_buffer().by_conversation(metadata.conversation_id):
            seen[metadata.conversation_id].add(slot.payload.text.split("/")[0])

    async def agent(message: Any, metadata: HandlerMetadata) -> HandlerResponse:
        note(metadata, message.text)
        await pause()
        if isinstance(message, Ask):
            return HandlerResponse(message, "relay.one")
        return HandlerResponse.respond(message)

    async def relay(message: Any, metadata: HandlerMetadata) -> HandlerResponse:
        note(metadata, message.text)
        await pause()
        return HandlerResponse(message, "tool")

    async def tool(message: Any, metadata: HandlerMetadata) -> HandlerResponse:
        note(metadata, message.text)
        await pause()
        return HandlerResponse(Reply(message.text), metadata.from_id)

    async def talk(pump: StreamPump, name: str) -> str:
        thread = None
        for turn in range(turns):
            await pause()
            thread = await pump.inject("agent", Ask(f"{name}/{turn}"), thread_id=thread)
            assert await pump.wait(thread, timeout=PATIENCE) == Reply(f"{name}/{turn}")
        assert thread is not None
        return thread

    async def main() -> None:
        pump = StreamPump(max_concurrent_handlers=slots)
        pump.register("agent", agent, Ask, agent=True, peers=["relay.one"])
        pump.register("relay.one", relay, Ask)
        pump.register("tool", tool, Ask)
        async with audited(pump):
            threads = await asyncio.gather(*(talk(pump, f"c{n}") for n in range(conversations)))
        assert len(set(threads)) == conversations
        assert seen == {thread: {f"c{n}"} for n, thread in enumerate(threads)}

    asyncio.run(main())


async def test_two_pumps_in_one_process_are_independent() -> None:
    registries: dict[str, object] = {}

    def make(name: str) -> StreamPump:
        pump = StreamPump(name=name)

        async def tell(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
            registries[name] = get_registry()
            history = get_context_buffer().by_conversation(metadata.conversation_id)
            return HandlerResponse.respond(Reply(f"{name}: " + ",".join(slot.payload.text for slot in history)))

        pump.register("same name", tell, Ask)
        return pump

    left, right = make("left"), make("right")
    async with audited(left) as books_left, audited(right) as books_right:
        assert await left.request("same name", Ask("a"), thread_id=CHOSEN) == Reply("left: a")
        assert await right.request("same name", Ask("b"), thread_id=CHOSEN) == Reply("right: b")
        await books_left.idle()
        await books_right.idle()
        assert registries == {"left": left.engine.registry, "right": right.engine.registry}
        assert left.engine.registry is not right.engine.registry
        assert left.statistics().accepted == right.statistics().accepted == 3
        await left.shutdown()
        assert await right.request("same name", Ask("c"), thread_id=CHOSEN) == Reply("right: b,c")


# --- names ------------------------------------------------------------------------------------------------------------

NAMES = [
    "calc.add",
    "a.b.c.d",
    ".leading",
    "two words",
    'it\'s "quoted"',
    "<&>",
    "</from><to>admin</to>",
    "&amp;",
    "перевод",
    "計算機",
    "naïve café",
    "🦜",
    "a/b\\c",
    "{braces}",
    "*",
    "external.user",
]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_may_be_any_text_as_listener_caller_and_external_sender(name: str) -> None:
    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return HandlerResponse(Note(message.text), f"{name}.tool")
        return HandlerResponse.respond(message)

    tool = Recorder(lambda note, metadata: HandlerResponse(Reply(note.text), metadata.from_id))
    agent = Recorder(decide)
    pump = StreamPump()
    pump.register(name, agent, Ask, agent=True, peers=[f"{name}.tool"])
    pump.register(f"{name}.tool", tool, Note)
    async with audited(pump) as audit:
        assert await pump.request(name, Ask("x"), from_id=f"{name}.user") == Reply("x")
        await audit.idle()
    assert [metadata.from_id for metadata in agent.metadata] == [f"{name}.user", f"{name}.tool"]
    assert agent.metadata[0].own_name == name
    assert tool.metadata[0].from_id == name
    (event,) = audit.outcomes(payload_type="Note")
    assert (event.from_id, event.to_id) == (name, f"{name}.tool")


async def test_a_callee_whose_name_ends_like_its_callers_answers_the_caller() -> None:
    """With chains of dotted names, `calc.add` called by `calc` used to answer somebody else."""
    pump = StreamPump()
    pump.register("calc", calls("calc.add"), Ask, agent=True, peers=["calc.add"])
    pump.register("calc.add", calls("add"), Ask)
    pump.register("add", echo, Ask)
    async with audited(pump):
        assert await pump.request("calc", Ask("1+1")) == Reply("1+1")


async def test_names_match_exactly() -> None:
    upper, lower = Recorder(), Recorder()
    pump = StreamPump()
    pump.register("straße", lower, Ask)
    pump.register("strasse", upper, Ask)
    async with audited(pump) as audit:
        await pump.inject("straße", Ask("x"))
        await audit.idle()
    assert (len(lower.seen), len(upper.seen)) == (1, 0)


# --- completion -------------------------------------------------------------------------------------------------------


async def test_a_conversation_is_complete_when_nothing_of_it_runs_not_when_somebody_returns_none() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register(
        "starter", Recorder(lambda ask, _: [HandlerResponse(Ask(), "slow"), HandlerResponse(Ask(), "quiet")]), Ask
    )
    pump.register("slow", gate, Ask)
    quiet = Recorder()
    pump.register("quiet", quiet, Ask)
    async with audited(pump) as audit:
        thread = await pump.inject("starter", Ask())
        await reached(gate.entered)
        await quiet.called()
        await pump.engine.events.flush()
        assert audit.statuses(thread) == ["created", "active"]
        gate.opened.set()
        await audit.idle()
        assert audit.statuses(thread) == ["created", "active", "completed"]


async def test_having_called_somebody_is_not_a_hold() -> None:
    pump = StreamPump()
    pump.register("agent", calls("quiet"), Ask, agent=True, peers=["quiet"])
    pump.register("quiet", Recorder(), Ask)
    async with audited(pump):
        with pytest.raises(NoAnswer):
            await pump.request("agent", Ask())


async def test_a_hold_keeps_the_conversation_open_until_it_is_released() -> None:
    holds = []
    held = asyncio.Event()

    async def hold(payload: Ask, metadata: HandlerMetadata) -> None:
        holds.append(get_registry().hold(metadata.thread_id, "a call to elsewhere"))
        held.set()

    pump = StreamPump()
    pump.register("holder", hold, Ask)
    async with audited(pump) as audit:
        request = asyncio.create_task(pump.request("holder", Ask()))
        await reached(held)
        await audit.idle()
        assert not request.done()
        assert pump.statistics().open_frames == 2
        holds[0].release()
        holds[0].release()
        with pytest.raises(NoAnswer):
            await request


async def test_a_frame_with_an_open_child_stays_open() -> None:
    gate = Gate(Reply("answer"))
    pump = StreamPump()
    tool = calls("slow")
    pump.register("tool", tool, (Ask, Reply))
    pump.register("slow", gate, Ask)
    async with audited(pump):
        request = asyncio.create_task(pump.request("tool", Ask()))
        await reached(gate.entered)
        frame = pump.engine.registry.frame(tool.metadata[0].thread_id)
        assert frame is not None
        assert frame.open_children == 1
        gate.opened.set()
        assert await request == Reply("answer")


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_cancel_takes_the_whole_conversation_and_only_that() -> None:
    gates = [Gate(Reply("a")), Gate(Reply("b"))]
    pump = StreamPump()
    for n, gate in enumerate(gates):
        pump.register(f"agent{n}", calls(f"slow{n}"), Ask, agent=True, peers=[f"slow{n}"])
        pump.register(f"slow{n}", gate, Ask)
    async with audited(pump) as audit:
        threads = [await pump.inject(f"agent{n}", Ask()) for n in range(2)]
        waits = [asyncio.create_task(pump.wait(thread)) for thread in threads]
        for gate in gates:
            await reached(gate.entered)
        assert pump.cancel(threads[0]) is True
        with pytest.raises(ConversationCancelled):
            await waits[0]
        await reached(gates[0].cancelled)
        gates[1].opened.set()
        assert await waits[1] == Reply("b")
        await audit.idle()
        assert not gates[1].cancelled.is_set()
        assert audit.statuses(threads[0])[-1] == "killed"
        assert audit.statuses(threads[1])[-1] == "completed"


async def test_cancel_of_an_inner_thread_tells_its_caller() -> None:
    gate = Gate()
    threads: list[str] = []

    async def slow(payload: Ask, metadata: HandlerMetadata) -> Any:
        threads.append(metadata.thread_id)
        return await gate(payload, metadata)

    pump = StreamPump()
    agent = calls("slow", tag="t")
    pump.register("agent", agent, Ask, agent=True, peers=["slow"])
    pump.register("slow", slow, Ask)
    async with audited(pump):
        request = asyncio.create_task(pump.request("agent", Ask()))
        await reached(gate.entered)
        assert pump.cancel(threads[0])
        assert await request == Reply("cancelled")
        await reached(gate.cancelled)
    assert agent.metadata[1].tag == "t"


async def test_cancel_of_an_inner_thread_passes_a_tool_by_and_is_no_dead_letter() -> None:
    gate = Gate()
    threads: list[str] = []

    async def slow(payload: Ask, metadata: HandlerMetadata) -> Any:
        threads.append(metadata.thread_id)
        return await gate(payload, metadata)

    pump = StreamPump()
    pump.register("tool", calls("slow"), Ask)
    pump.register("slow", slow, Ask)
    async with audited(pump) as audit:
        thread = await pump.inject("tool", Ask())
        await reached(gate.entered)
        assert pump.cancel(threads[0])
        await audit.idle()
        assert not pump.dead_letters.list()
        with pytest.raises(ConversationCancelled):
            await pump.wait(thread)


async def test_cancel_reaches_what_is_queued_behind_others() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("slow", gate, Ask, concurrency=1)
    async with audited(pump) as audit:
        await pump.inject("slow", Ask("running"))
        await reached(gate.entered)
        thread = await pump.inject("slow", Ask("queued"))
        wait = asyncio.create_task(pump.wait(thread))
        assert pump.cancel(thread)
        with pytest.raises(ConversationCancelled):
            await wait
        gate.opened.set()
        await audit.idle()
        assert [event.outcome for event in audit.outcomes(conversation_id=thread)] == ["cancelled"]


async def test_a_handler_may_cancel_its_own_conversation() -> None:
    pump = StreamPump()

    async def give_up(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        assert pump.cancel(metadata.conversation_id)
        await asyncio.sleep(0)
        return HandlerResponse.respond(Reply("never"))

    pump.register("quitter", give_up, Ask)
    pump.register("echo", echo, Ask)
    async with audited(pump):
        for _ in range(3):
            with pytest.raises(ConversationCancelled):
                await pump.request("quitter", Ask())
        assert await pump.request("echo", Ask("fine")) == Reply("fine")


# --- memory -----------------------------------------------------------------------------------------------------------


async def test_everything_is_back_at_the_baseline_after_10_000_conversations() -> None:
    pump = StreamPump(max_threads=50)
    pump.register("agent", calls("tool"), Ask, agent=True, peers=["tool"])
    pump.register("tool", echo, Ask)
    async with pump:
        numbers = iter(range(10_000))

        async def customer() -> None:
            for number in numbers:
                assert await pump.request("agent", Ask(str(number))) == Reply(str(number))

        await asyncio.gather(*(customer() for _ in range(20)))
        await pump.wait_idle()
        now = pump.statistics()
        assert now.accepted == sum(now.outcomes.values()) == 40_001
        assert now.in_flight == 0
        assert now.open_conversations == now.open_frames == 1  # the pump's own
        assert now.retained_conversations == 50
        history = pump.engine.history.get_stats()
        assert history["thread_count"] <= 2 * 50 + 1, history
        assert not pump.queue._windows
        gc.collect()
        mine = [each for each in gc.get_objects() if type(each) in (Frame, Conversation)]
        # What is retained, the pump's own, and what other tests' pumps may not have let go of yet.
        assert len(mine) < 500


async def test_finished_conversations_are_freed_without_the_garbage_collector() -> None:
    pump = StreamPump(max_threads=1)
    pump.register("agent", calls("tool"), Ask, agent=True, peers=["tool"])
    pump.register("tool", echo, Ask)
    async with pump:
        await pump.request("agent", Ask("warm up"))
        await pump.wait_idle()
        gc.collect()
        gc.disable()
        try:
            before = sum(type(each) in (Frame, Conversation) for each in gc.get_objects())
            for _ in range(100):
                await pump.request("agent", Ask("x"))
            await pump.wait_idle()
            after = sum(type(each) in (Frame, Conversation) for each in gc.get_objects())
        finally:
            gc.enable()
        assert after - before < 10


async def test_what_is_remembered_is_forgotten_after_its_time() -> None:
    pump = StreamPump(thread_idle_ttl=0.05)
    pump.register("memory", remember, Ask)
    forgotten = asyncio.Event()
    forget = pump.engine.registry.on_forget

    def on_forget(conversation_id: str) -> None:
        forget(conversation_id)
        forgotten.set()

    pump.engine.registry.on_forget = on_forget
    async with audited(pump) as audit:
        await pump.request("memory", Ask("one"), thread_id=CHOSEN, from_id="ann")
        await audit.idle()
        await reached(forgotten)
        assert pump.statistics().retained_conversations == 0
        assert len(pump.engine.history.by_conversation(CHOSEN)) == 0
        # Its id is free again, for anybody.
        assert await pump.request("memory", Ask("two"), thread_id=CHOSEN, from_id="bob") == Reply("two")


async def test_open_conversations_are_never_evicted() -> None:
    gate = Gate(Reply("still here"))
    pump = StreamPump(max_threads=2)
    pump.register("slow", gate, Ask)
    pump.register("echo", echo, Ask)
    async with audited(pump):
        thread = await pump.inject("slow", Ask("old"))
        await reached(gate.entered)
        for number in itertools.islice(itertools.count(), 20):
            await pump.request("echo", Ask(str(number)))
        assert pump.engine.history.by_conversation(thread)[0].payload == Ask("old")
        gate.opened.set()
        assert await pump.wait(thread) == Reply("still here")


# --- cancelling twice, and what is not to be cancelled ----------------------------------------------------------------


async def test_a_cancelled_conversation_whose_message_is_still_inside_a_stage_can_be_continued() -> None:
    inside, go = asyncio.Event(), asyncio.Event()

    class Slow(StreamPump):
        def build_pipeline(self, source: Any) -> Any:
            return super().build_pipeline(source | pipe.map(self._hold))

        async def _hold(self, state: Any) -> Any:
            if state.from_id == "external" and not go.is_set():
                inside.set()
                await go.wait()
            return state

    pump = Slow()
    pump.register("echo", echo, Ask)
    async with audited(pump) as audit:
        await pump.inject("echo", Ask("first"), thread_id=CHOSEN)
        await reached(inside)
        assert pump.cancel(CHOSEN)
        assert not pump.cancel(CHOSEN)  # nothing is left to cancel
        second = asyncio.create_task(pump.request("echo", Ask("second"), thread_id=CHOSEN))
        go.set()
        assert await second == Reply("second")
        await audit.idle()
        statuses = audit.statuses(CHOSEN)
    assert statuses.count("killed") == 1
    assert statuses[-2:] == ["active", "completed"]


async def test_cancel_of_what_is_complete_changes_nothing() -> None:
    pump = StreamPump()
    pump.register("echo", echo, Ask)
    async with audited(pump) as audit:
        await pump.request("echo", Ask(), thread_id=CHOSEN)
        await audit.idle()
        assert not pump.cancel(CHOSEN)
        assert not pump.cancel("nobody knows this")
        await audit.idle()
        assert audit.statuses(CHOSEN) == ["created", "active", "completed"]


async def test_the_pumps_own_conversation_cannot_be_cancelled_even_from_a_handler() -> None:
    cancelled = []

    async def meddle(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        root = get_registry().root_uuid
        assert root is not None
        cancelled.append(pump.cancel(root))
        return HandlerResponse.respond(Reply("tried"))

    pump = StreamPump()
    pump.register("meddle", meddle, Ask)
    async with audited(pump) as audit:
        assert await pump.request("meddle", Ask()) == Reply("tried")
        await audit.idle()
        now = pump.statistics()
        assert (now.open_frames, now.open_conversations) == (1, 1)
        root = pump.engine.registry.root_uuid
        assert root is not None
        assert "killed" not in audit.statuses(root)
    assert cancelled == [False]


@pytest.mark.parametrize("delegations", [1, 2])
async def test_cancel_reaches_what_was_handed_over_below_a_caller_that_has_ended(delegations: int) -> None:
    """The frame of whoever called has gone, and the one that the call was made on has a successor."""
    may_delegate, gate = asyncio.Event(), Gate()

    def hasty(message: Any, metadata: HandlerMetadata) -> Any:
        return [HandlerResponse(Note("0"), "hands over"), HandlerResponse.respond(Reply("at once"))]

    async def hands_over(payload: Note, metadata: HandlerMetadata) -> HandlerResponse:
        await may_delegate.wait()
        step = int(payload.text) + 1
        if step < delegations:
            return HandlerResponse.delegate(Note(str(step)), "hands over")
        return HandlerResponse.delegate(Ask(), "slow")

    pump = StreamPump()
    pump.register("hasty", Recorder(hasty), Ask)
    pump.register("hands over", hands_over, Note)
    pump.register("slow", gate, Ask)
    async with audited(pump) as audit:
        assert await pump.request("hasty", Ask(), thread_id=CHOSEN) == Reply("at once")
        may_delegate.set()
        await reached(gate.entered)
        assert pump.cancel(CHOSEN)
        await reached(gate.cancelled)
        await audit.idle()
        assert audit.statuses(CHOSEN)[-1] == "killed"
