"""`xml_pipeline.message_bus.notices`: what the pump itself says to a frame."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from lxml import etree

from tests.message_bus.helpers import PATIENCE, Ask, Gate, Note, Recorder, Reply, audited, calls, echo, reached
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import NoAnswer, ValidationError
from xml_pipeline.memory import get_context_buffer
from xml_pipeline.message_bus.notices import Notices, get_notices
from xml_pipeline.runtime import Runtime, use_runtime


def post_first(frames: list[str], results: list[bool], then: Any = None) -> Recorder:
    """An agent that, asked, posts a note to itself, and is silent; what comes then, ``then`` says."""

    def decide(payload: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(payload, Ask):
            frames.append(metadata.thread_id)
            results.append(get_notices().post(metadata.thread_id, Note("mind"), from_id="system.test"))
            return None
        return then(payload) if then is not None else HandlerResponse.respond(Reply(payload.text))

    return Recorder(decide)


async def test_a_notice_is_the_next_turn_of_its_frame() -> None:
    frames: list[str] = []
    results: list[bool] = []
    agent = post_first(frames, results)
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True)
    async with audited(pump) as audit:
        assert await pump.request("agent", Ask("go"), timeout=PATIENCE) == Reply("mind")
        await audit.idle()
        (outcome,) = audit.outcomes(payload_type="Note")
        history = pump.engine.history.get_thread_slots(frames[0])
    assert results == [True]
    assert agent.payloads == [Ask("go"), Note("mind")]
    first, notice = agent.metadata
    assert (notice.thread_id, notice.conversation_id) == (first.thread_id, first.conversation_id)
    assert (notice.from_id, notice.tag, notice.is_self_call) == ("system.test", "", False)
    assert (outcome.outcome, outcome.from_id, outcome.to_id) == ("answered", "system.test", "agent")
    assert [(slot.from_id, slot.payload) for slot in history] == [
        ("external", Ask("go")),
        ("system.test", Note("mind")),
    ]


async def test_a_notice_waits_its_turn() -> None:
    """The frame's running turn is not disturbed, and the conversation is not over before the notice is handled."""
    gate = Gate()
    seen: list[str] = []

    async def agent(payload: Any, metadata: HandlerMetadata) -> None:
        if isinstance(payload, Ask):
            await gate(payload, metadata)
        seen.append(type(payload).__name__)

    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True)
    async with audited(pump) as audit:
        thread = await pump.inject("agent", Ask())
        await reached(gate.entered)
        assert pump.runtime.get(Notices).post(thread, Note(), from_id="system")
        assert pump.statistics().in_flight == 2
        assert seen == []
        gate.opened.set()
        with pytest.raises(NoAnswer):
            await pump.wait(thread, timeout=PATIENCE)
        await audit.idle()
    assert seen == ["Ask", "Note"]


async def test_a_notice_to_a_frame_that_answers_expires() -> None:
    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        assert isinstance(payload, Ask)
        assert get_notices().post(metadata.thread_id, Note(), from_id="system")
        return HandlerResponse.respond(Reply("done"))

    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True)
    async with audited(pump) as audit:
        assert await pump.request("agent", Ask(), timeout=PATIENCE) == Reply("done")
        await audit.idle()
        assert [event.outcome for event in audit.outcomes(payload_type="Note")] == ["expired"]


@pytest.mark.parametrize("accepts", [True, False])
async def test_a_tool_gets_only_what_it_accepts(accepts: bool) -> None:
    frames: list[str] = []
    results: list[bool] = []
    tool = post_first(frames, results)
    pump = StreamPump()
    pump.register("tool", tool, (Ask, Note) if accepts else Ask)
    async with audited(pump):
        if accepts:
            assert await pump.request("tool", Ask(), timeout=PATIENCE) == Reply("mind")
        else:
            with pytest.raises(NoAnswer):
                await pump.request("tool", Ask(), timeout=PATIENCE)
    assert results == [accepts]


async def test_a_generic_listener_gets_an_element() -> None:
    got: list[Any] = []

    async def join(payload: Any, metadata: HandlerMetadata) -> Any:
        got.append((payload.tag, metadata.from_id, payload.findtext("Text")))
        if payload.tag == "Ask":
            # No schema is needed for one that takes anything.
            get_notices().post(metadata.thread_id, etree.fromstring("<Odd><Text>x</Text></Odd>"), from_id="system.a")
            get_notices().post(metadata.thread_id, Note("y"), from_id="system.b")

    pump = StreamPump()
    pump.register_generic_listener("join", join)
    async with audited(pump):
        with pytest.raises(NoAnswer):
            await pump.request("join", Ask("go"), timeout=PATIENCE)
    assert got == [("Ask", "external", "go"), ("Odd", "system.a", "x"), ("Note", "system.b", "y")]


async def test_closed_and_unknown_frames_get_nothing() -> None:
    pump = StreamPump()
    pump.register("agent", echo, Ask, agent=True)
    async with audited(pump) as audit:
        thread = await pump.inject("agent", Ask())
        await pump.wait(thread, timeout=PATIENCE)
        await audit.idle()
        before = pump.statistics().accepted
        for thread_id in (thread, "", "no such thread", pump.engine.registry.root_uuid or ""):
            assert not pump.runtime.get(Notices).post(thread_id, Note(), from_id="system")
        assert pump.statistics().accepted == before


@pytest.mark.parametrize(
    "from_id",
    ["agent", "external", "", "system.", "System", "system2", "SYSTEM.x", " system", "system.\n", "system.x ", None, 3],
)
def test_only_the_pumps_own_names_may_be_used(from_id: Any) -> None:
    with pytest.raises(ValueError, match=r"a notice is from 'system'"):
        Notices().post("t", Note(), from_id=from_id)


def test_what_is_no_payload_is_refused() -> None:
    with pytest.raises(TypeError, match="payload"):
        Notices().post("t", object(), from_id="system")
    with pytest.raises(ValidationError):
        Notices().post("t", Note("\x00"), from_id="system")


async def test_an_agent_gets_nothing_that_has_no_schema() -> None:
    class Written:
        def to_xml(self) -> str:
            return "<Written/>"

    errors: list[Exception] = []

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        try:
            get_notices().post(metadata.thread_id, Written(), from_id="system")
        except ValidationError as exc:
            errors.append(exc)
        return HandlerResponse.respond(Reply(""))

    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True)
    async with audited(pump):
        await pump.request("agent", Ask(), timeout=PATIENCE)
    assert "no schema" in errors[0].detail  # type: ignore[attr-defined]


async def test_what_its_listener_has_a_schema_for_needs_none_of_its_own() -> None:
    gate = Gate()
    seen: list[Any] = []

    async def tool(payload: Any, metadata: HandlerMetadata) -> None:
        seen.append(payload)
        if isinstance(payload, Ask):
            await gate(payload, metadata)

    pump = StreamPump()
    pump.register("tool", tool, (Ask, Note))
    async with audited(pump):
        thread = await pump.inject("tool", Ask())
        await reached(gate.entered)
        assert pump.engine.notices.post(thread, etree.fromstring("<Note><Text>x</Text></Note>"), from_id="system")
        gate.opened.set()
        with pytest.raises(NoAnswer):
            await pump.wait(thread, timeout=PATIENCE)
    assert seen == [Ask(), Note("x")]


async def test_the_name_and_the_payload_are_escaped() -> None:
    frames: list[str] = []
    pump = StreamPump()
    name = "system.<a>&b"

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse | None:
        if isinstance(payload, Ask):
            frames.append(metadata.thread_id)
            text = "</Text></Note></message>"
            assert get_notices().post(metadata.thread_id, Note(text), from_id=name)
            return None
        return HandlerResponse.respond(Reply(f"{metadata.from_id} {payload.text}"))

    pump.register("agent", agent, Ask, agent=True)
    async with audited(pump):
        answer = await pump.request("agent", Ask(), timeout=PATIENCE)
    assert answer == Reply(f"{name} </Text></Note></message>")


@dataclass
class Picky:
    """Its schema accepts what its constructor does not, when it is read."""

    number: int = 0
    refuse = False

    def __post_init__(self) -> None:
        if Picky.refuse:
            raise ValueError("not now")


async def test_a_notice_that_fails_is_told_to_its_frame_which_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse | None:
        if not isinstance(payload, Ask):
            return HandlerResponse.respond(Reply(payload.code))
        assert get_notices().post(metadata.thread_id, Picky(), from_id="system.test")
        monkeypatch.setattr(Picky, "refuse", True)
        return None

    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True)
    async with audited(pump):
        assert await pump.request("agent", Ask(), timeout=PATIENCE) == Reply("validation")


# -- who may post what


async def test_a_turn_posts_to_no_other_frame(caplog: pytest.LogCaptureFixture) -> None:
    """Not to another conversation's, and not to its caller's either: nobody speaks to others in the pump's name."""
    gate = Gate()
    target: list[str] = []
    results: list[bool] = []

    async def victim(payload: Any, metadata: HandlerMetadata) -> Any:
        assert isinstance(payload, Ask)
        target.append(metadata.thread_id)
        return await gate(payload, metadata)

    async def forger(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        post = get_notices().post
        results.extend(post(thread, Note(), from_id="system") for thread in (*target, metadata.conversation_id))
        return HandlerResponse.respond(Reply(""))

    pump = StreamPump()
    boss = calls("forger")
    pump.register("victim", victim, Ask, agent=True)
    pump.register("boss", boss, Ask, agent=True, peers=["forger"])
    pump.register("forger", forger, Ask)
    async with audited(pump):
        await pump.inject("victim", Ask())
        await reached(gate.entered)
        assert await pump.request("boss", Ask(), timeout=PATIENCE) == Reply("")
        gate.opened.set()
    assert results == [False, False]
    assert [type(payload) for payload in boss.payloads] == [Ask, Reply]
    assert "may not post" in caplog.text


async def test_a_task_that_a_turn_left_behind_is_bound_as_the_turn_was() -> None:
    gate, left = Gate(), asyncio.Event()
    results: list[bool] = []
    tasks: list[asyncio.Task[None]] = []

    async def forger(payload: Any, metadata: HandlerMetadata) -> None:
        own = metadata.thread_id

        async def later() -> None:
            await left.wait()
            results.extend(get_notices().post(thread, Note(), from_id="system") for thread in (thread_of_victim, own))

        tasks.append(asyncio.create_task(later()))

    pump = StreamPump()
    pump.register("victim", gate, Ask, agent=True)
    pump.register("forger", forger, Ask, agent=True)
    async with audited(pump):
        thread_of_victim = await pump.inject("victim", Ask())
        await reached(gate.entered)
        with pytest.raises(NoAnswer):
            await pump.request("forger", Ask(), timeout=PATIENCE)
        left.set()
        await tasks[0]
        gate.opened.set()
    assert results == [False, False]


# -- accessor


def test_without_a_pump_nothing_is_delivered() -> None:
    with use_runtime(Runtime()):
        assert get_notices() is get_notices()
        assert not get_notices().post("t", Note(), from_id="system")


async def test_inside_a_handler_the_notices_are_those_of_its_pump() -> None:
    seen: list[Notices] = []

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        seen.append(get_notices())
        assert get_context_buffer() is pump.engine.history
        return HandlerResponse.respond(Reply(""))

    pump, other = StreamPump(), StreamPump()
    pump.register("agent", agent, Ask, agent=True)
    async with audited(pump):
        await pump.request("agent", Ask(), timeout=PATIENCE)
    assert seen == [pump.engine.notices]
    assert seen != [other.engine.notices]
