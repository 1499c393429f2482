"""What a running pump writes into the history, and who can read what of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.memory import get_context_buffer
from xml_pipeline.message_bus.events import HistoryTrimmedEvent

from .helpers import Ask, Note, Recorder, Reply, audited, calls, echo, text_of

CHOSEN = "0b1d3c7e-6f0a-4f3b-9d0e-1c2b3a4d5e6f"


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)


async def test_every_message_is_recorded_once_where_it_was_delivered() -> None:
    agent, tool = calls("tool"), Recorder(lambda ask, _: HandlerResponse.respond(Reply(ask.text + "!")))
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Ask)
    async with audited(pump):
        await pump.request("agent", Ask("x"), from_id="ann", thread_id=CHOSEN)
        history = pump.engine.history
        rows = [
            (slot.from_id, slot.to_id, slot.metadata.payload_type, slot.payload.text, slot.metadata.thread_id)
            for slot in history.by_conversation(CHOSEN)
        ]
        below = tool.metadata[0].thread_id
        assert rows == [
            ("ann", "agent", "Ask", "x", CHOSEN),
            ("agent", "tool", "Ask", "x", below),
            ("tool", "agent", "Reply", "x!", CHOSEN),
        ]


async def test_history_reads_by_frame_by_agent_and_by_conversation() -> None:
    frames: dict[str, list[str]] = {}
    agents: dict[str, list[str]] = {}

    def look(name: str, metadata: HandlerMetadata) -> None:
        buffer = get_context_buffer()
        frames[name] = [text_of(slot.payload) for slot in buffer.get_thread_slots(metadata.thread_id)]
        agents[name] = [text_of(slot.payload) for slot in buffer.by_agent(metadata.conversation_id, name)]

    def agent(message: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(message, Ask):
            return [HandlerResponse(Note(word), "tool") for word in ("one", "two")]
        look("agent", metadata)
        return HandlerResponse.respond(message) if message.text == "two" else None

    def tool(message: Any, metadata: HandlerMetadata) -> Any:
        look("tool", metadata)
        return HandlerResponse.respond(Reply(message.text))

    pump = StreamPump(max_concurrent_handlers=1)
    pump.register("agent", Recorder(agent), Ask, agent=True, peers=["tool"])
    pump.register("tool", Recorder(tool), Note)
    async with audited(pump):
        await pump.request("agent", Ask("go"))
    assert frames == {"tool": ["two"], "agent": ["go", "one", "two"]}
    assert agents["tool"][-1] == "two"
    assert "one" in agents["tool"]  # its own earlier call, on another frame of the conversation
    assert set(agents["agent"]) == {"go", "one", "two"}


async def test_what_a_handler_does_to_its_payload_does_not_change_what_was_said() -> None:
    async def spoil(payload: Basket, metadata: HandlerMetadata) -> None:
        payload.items.append("spoilt")
        slots = get_context_buffer().get_thread_slots(metadata.thread_id)
        slots[0].payload.items.append("spoilt too")
        assert get_context_buffer().get_thread_slots(metadata.thread_id)[0].payload == Basket(["fresh"])

    pump = StreamPump()
    pump.register("spoiler", spoil, Basket)
    async with audited(pump) as audit:
        basket = Basket(["fresh"])
        thread = await pump.inject("spoiler", basket)
        basket.items.append("afterwards")
        await audit.idle()
        assert [slot.payload for slot in pump.engine.history.by_conversation(thread)] == [Basket(["fresh"])]
        assert [event.outcome for event in audit.outcomes()] == ["handled"]


async def test_beyond_its_limit_the_oldest_goes_with_an_event_and_delivery_goes_on() -> None:
    pump = StreamPump(max_history_bytes=3000)
    agent = Recorder(lambda ask, _: HandlerResponse.respond(Reply(ask.text[:3])))
    pump.register("agent", agent, Ask)
    async with audited(pump) as audit:
        for number in range(20):
            text = f"{number:03}" + "x" * 500
            assert await pump.request("agent", Ask(text), thread_id=CHOSEN) == Reply(f"{number:03}")
        await audit.idle()
        kept = [slot.payload.text[:3] for slot in pump.engine.history.by_conversation(CHOSEN)]
        trimmed = [event for event in audit.events if isinstance(event, HistoryTrimmedEvent)]
    assert kept == [f"{number:03}" for number in range(20 - len(kept), 20)]
    assert 0 < len(kept) < 10
    assert sum(event.dropped_slots for event in trimmed) == 20 - len(kept)
    assert {event.thread_id for event in trimmed} == {CHOSEN}
    assert len(agent.seen) == 20


async def test_errors_are_part_of_what_an_agent_was_told() -> None:
    agent = calls("nowhere")
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["nowhere"])
    async with audited(pump):
        await pump.request("agent", Ask("x"), thread_id=CHOSEN)
        slots = pump.engine.history.by_conversation(CHOSEN)
    assert [(slot.from_id, slot.metadata.payload_type) for slot in slots] == [
        ("external", "Ask"),
        ("system", "SystemError"),
    ]


async def test_a_message_that_no_handler_got_is_not_part_of_the_history() -> None:
    pump = StreamPump()
    pump.register("echo", echo, Ask)
    async with audited(pump) as audit:
        await pump.inject("echo", Note("wrong class"), thread_id=CHOSEN)
        await audit.idle()
        assert pump.engine.history.by_conversation(CHOSEN) == []


async def test_the_slot_tells_what_its_handler_was_told() -> None:
    agent = Recorder(
        lambda message, m: (
            HandlerResponse.respond(Reply("x")) if m.is_self_call else HandlerResponse(Ask("again"), "agent")
        )
    )
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["tool"], description="An agent.")
    pump.register("tool", echo, Note, description="A tool.")
    async with audited(pump):
        await pump.request("agent", Ask("x"), thread_id=CHOSEN)
        first, second = pump.engine.history.by_conversation(CHOSEN)
    assert (first.metadata.own_name, first.metadata.is_self_call) == ("agent", False)
    assert (second.metadata.own_name, second.metadata.is_self_call) == ("agent", True)
    assert "tool" in first.metadata.usage_instructions
    assert first.metadata.usage_instructions == agent.metadata[0].usage_instructions
