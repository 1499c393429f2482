"""One test for each defect of the earlier systems that is not the subject of another file's tests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import HopLimitError, PipelineError, ValidationError
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.message_bus.thread_registry import FrameState

from .helpers import Ask, Count, Note, Recorder, Reply, audited, calls, echo, text_of

THREAD = "0b1d3c7e-6f0a-4f3b-9d0e-1c2b3a4d5e6f"


def envelope(*payloads: str, to: str = "sink", before: str = "", from_: str = "console", thread: str = THREAD) -> bytes:
    return (
        f'{before}<message xmlns="https://xml-pipeline.org/ns/envelope/v1">'
        f"<meta><from>{from_}</from><to>{to}</to><thread>{thread}</thread></meta>{''.join(payloads)}</message>"
    ).encode()


def ask(text: str = "x") -> str:
    return f'<Ask xmlns=""><Text>{text}</Text></Ask>'


# --- threads and routing ----------------------------------------------------------------------------------------------


async def test_answers_of_the_second_and_third_conversation_over_a_path_arrive_too() -> None:
    agent = calls("b")
    pump = StreamPump()
    pump.register("a", agent, Ask, agent=True, peers=["b"])
    pump.register("b", echo, Ask)
    async with audited(pump) as audit:
        for number in range(3):
            thread = THREAD[:-1] + str(number)
            await pump.inject(envelope(ask(str(number)), to="a", thread=thread), None, "console")
        await audit.idle()
    assert sorted(text_of(message) for message in agent.payloads if isinstance(message, Reply)) == ["0", "1", "2"]


async def test_alternating_calls_unwind_and_leave_nothing() -> None:
    def decide(message: Any, metadata: HandlerMetadata) -> Any:
        if metadata.from_id == "external":
            return HandlerResponse(Count(100), "tool")
        if message.number == 0:
            return HandlerResponse.respond(Reply("done"))
        return HandlerResponse(Count(message.number - 1), "tool")

    pump = StreamPump()
    agent = Recorder(decide)
    tool = Recorder(lambda count, metadata: HandlerResponse(count, metadata.from_id))
    pump.register("agent", agent, (Ask, Count), agent=True, peers=["tool"])
    pump.register("tool", tool, Count)
    async with audited(pump) as audit:
        assert await pump.request("agent", Ask()) == Reply("done")
        await audit.idle()
        assert pump.statistics().open_frames == 1
        assert set(pump.engine.registry.debug_dump().values()) == {"system.organism"}
    assert len(agent.seen) == 102
    assert len({metadata.thread_id for metadata in agent.metadata}) == 1
    assert len({metadata.thread_id for metadata in tool.metadata}) == 101


async def test_the_injector_is_the_caller_of_the_root_frame() -> None:
    records = []
    pump = StreamPump(name="my.organism")

    async def look(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        records.append(pump.engine.registry.lookup(metadata.thread_id))
        return HandlerResponse(Reply("x"), metadata.from_id)

    pump.register("tool.x", look, Ask)
    async with audited(pump):
        assert await pump.request("tool.x", Ask(), from_id="ann.b") == Reply("x")
    (record,) = records
    assert record is not None
    assert (record.caller, record.callee, record.parent_id, record.depth) == ("ann.b", "tool.x", None, 1)
    assert record.state is FrameState.OPEN


async def test_none_does_not_complete_the_conversation_for_hooks() -> None:
    completed: list[tuple[str, int]] = []
    sink = Recorder()

    class Hook:
        async def on_intent(self, **keywords: Any) -> str:
            return "id"

        async def on_acknowledged(self, *args: Any, **keywords: Any) -> None: ...

        async def on_failed(self, *args: Any, **keywords: Any) -> None: ...

        async def on_thread_complete(self, thread_id: str) -> None:
            completed.append((thread_id, len(sink.seen)))

    pump = StreamPump()
    pump.register("starter", Recorder(lambda *_: [HandlerResponse(Note(str(n)), "sink") for n in range(5)]), Ask)
    pump.register("sink", sink, Note)
    pump.register_dispatch_hook(Hook())
    async with audited(pump) as audit:
        thread = await pump.inject("starter", Ask())
        await audit.idle()
    assert [entry for entry in completed if entry[0] == thread] == [(thread, 5)]


@pytest.mark.parametrize("ordered", [True, False])
async def test_the_messages_of_a_frame_are_handled_in_order_one_at_a_time(ordered: bool) -> None:
    running = most = 0
    order: list[int] = []
    all_in = asyncio.Event()

    async def agent(message: Any, metadata: HandlerMetadata) -> Any:
        nonlocal running, most
        if isinstance(message, Ask):
            return [HandlerResponse(Count(n), "tool") for n in range(30)]
        running += 1
        most = max(most, running)
        if not ordered:
            if running == 5:
                all_in.set()
            await all_in.wait()
        for _ in range(3 * (message.number % 3)):
            await asyncio.sleep(0)
        order.append(message.number)
        running -= 1
        return None

    pump = StreamPump(max_concurrent_per_agent=5)
    pump.register("agent", agent, Ask, agent=True, peers=["tool"], ordered=ordered)
    pump.register("tool", Recorder(lambda count, _: HandlerResponse.respond(count)), Count, concurrency=1)
    async with audited(pump) as audit:
        await pump.inject("agent", Ask())
        await audit.idle()
    assert sorted(order) == list(range(30))
    if ordered:
        assert (most, order) == (1, list(range(30)))
    else:
        assert most == 5


async def test_a_loop_of_51_steps_is_fine_and_an_endless_one_ends_with_an_error() -> None:
    def count_down(message: Any, metadata: HandlerMetadata) -> Any:
        left = message.number
        return HandlerResponse.respond(Reply("done")) if left == 0 else HandlerResponse(Count(left - 1), "loop")

    pump = StreamPump()
    pump.register("loop", Recorder(count_down), Count, agent=True, peers=[])
    pump.register("ping", Recorder(lambda count, _: HandlerResponse.call(count, "pong")), Count)
    pump.register("pong", Recorder(lambda count, _: HandlerResponse.call(count, "ping")), Count)
    pump.register("hot", Recorder(lambda count, _: HandlerResponse.delegate(count, "potato")), Count)
    pump.register("potato", Recorder(lambda count, _: HandlerResponse.delegate(count, "hot")), Count)
    async with audited(pump) as audit:
        assert await pump.request("loop", Count(51)) == Reply("done")
        for name in ("loop", "ping", "hot"):
            with pytest.raises(HopLimitError):
                await pump.request(name, Count(-1))
        await audit.idle()


# --- pipeline and envelopes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "step"),
    [
        (b"", "repair"),
        (b"<message", "repair"),
        (b"<other/>", "envelope"),
        (envelope(), "envelope"),
        (envelope(ask(), from_="somebody"), "extraction"),
        (envelope("<Nobody xmlns=''/>"), "route"),
    ],
)
async def test_the_first_error_is_the_one_that_is_reported(raw: bytes, step: str) -> None:
    sink = Recorder()
    pump = StreamPump()
    pump.register("sink", sink, Ask)
    async with audited(pump):
        with pytest.raises(PipelineError) as caught:
            await pump.wait(await pump.inject(raw, None, "console"))
    assert step in caught.value.step, caught.value.detail
    assert "no envelope_tree" not in caught.value.detail
    assert not sink.seen


BAD = {
    "nothing": b"",
    "no xml": b"hello",
    "cut": envelope(ask())[:-5],
    "another root": b"<greeting/>",
    "no namespace": envelope(ask()).replace(b' xmlns="https://xml-pipeline.org/ns/envelope/v1"', b""),
    "other namespace": envelope(ask()).replace(b"envelope/v1", b"envelope/v9"),
    "no meta": b'<message xmlns="https://xml-pipeline.org/ns/envelope/v1"><Ask xmlns=""/></message>',
    "no payload": envelope(),
    "payload in the envelope's namespace": envelope("<Ask><Text>x</Text></Ask>"),
    "unknown target": envelope(ask(), to="nowhere"),
    "unknown payload": envelope('<Nobody xmlns=""/>'),
    "wrong schema": envelope('<Ask xmlns=""><Number>1</Number></Ask>'),
    "wrong sender": envelope(ask(), from_="somebody"),
    "undeclared entity": envelope(ask("&nope;")),
    "not utf-8": envelope(ask("X")).replace(b"X", b"\xff"),
    "stray ampersand": envelope(ask("a & b")),
    "stray less-than": envelope(ask("a < b && c")),
    "control character": envelope(ask("\x07")),
    "character reference to a control character": envelope(ask("&#7;")),
    "text outside": envelope(ask()) + b"trailing",
}


@pytest.mark.parametrize("kind", BAD)
async def test_every_bad_message_is_counted_kept_and_told_of_and_the_pump_goes_on(kind: str) -> None:
    sink = Recorder()
    pump = StreamPump()
    pump.register("sink", sink, Ask)
    async with audited(pump) as audit:
        thread = await pump.inject(BAD[kind], None, "console")
        await audit.idle()
        (letter,) = pump.dead_letters.list()
        (event,) = audit.outcomes()
        assert (event.outcome, event.dead_letter_id, event.conversation_id) == ("dead-lettered", letter.id, thread)
        assert (letter.wire, letter.from_id) == (BAD[kind], "console")
        assert letter.detail
        assert audit.statuses(thread) in (["created", "error"], ["created", "active", "error"])
        with pytest.raises(PipelineError):
            await pump.wait(await pump.inject(BAD[kind], None, "console"))
        assert not sink.seen
        await pump.inject("sink", Ask("fine"))
        await audit.idle()
    assert sink.payloads == [Ask("fine")]


async def test_an_envelope_may_carry_several_payloads_each_on_a_root_frame_of_its_own() -> None:
    sink = Recorder(lambda payload, _: HandlerResponse.respond(payload))
    pump = StreamPump()
    pump.register("sink", sink, (Ask, Note))
    async with audited(pump) as audit:
        raw = envelope(ask("one"), '<Note xmlns=""><Text>two</Text></Note>', ask("three"))
        assert await pump.inject(raw, THREAD, "console") == THREAD
        await audit.idle()
    assert sink.payloads == [Ask("one"), Note("two"), Ask("three")]
    assert sink.metadata[0].thread_id == THREAD
    assert len({metadata.thread_id for metadata in sink.metadata}) == 3
    assert {metadata.conversation_id for metadata in sink.metadata} == {THREAD}
    assert len(audit.outcomes(to_id="sink")) == 3


async def test_one_bad_payload_of_several_does_not_stop_the_others() -> None:
    sink = Recorder()
    pump = StreamPump(max_fan_out=3)
    pump.register("sink", sink, Ask)
    async with audited(pump) as audit:
        await pump.inject(envelope(ask("one"), '<Ask xmlns=""><Wrong/></Ask>', ask("three")), None, "console")
        await audit.idle()
        assert sink.payloads == [Ask("one"), Ask("three")]
        assert len(pump.dead_letters) == 1
        with pytest.raises(ValidationError):
            await pump.wait(await pump.inject(envelope(*[ask()] * 4), None, "console"))
    assert len(sink.seen) == 2


async def test_an_envelope_cut_at_any_byte_never_calls_a_handler() -> None:
    sink = Recorder()
    whole = envelope(
        '<Count xmlns=""><Number>1000000</Number></Count>', before='<?xml version="1.0" encoding="UTF-8"?>\n'
    )
    pump = StreamPump()
    pump.register("sink", sink, Count)
    async with audited(pump) as audit:
        for end in range(len(whole)):
            await pump.inject(whole[:end], None, "console")
        await audit.idle()
        assert not sink.seen
        assert len(pump.dead_letters) == len(whole)
        await pump.inject(whole, None, "console")
        await audit.idle()
    assert sink.payloads == [Count(1_000_000)]


async def test_a_handler_learns_that_its_text_cannot_be_written() -> None:
    """It used to be an exception inside the dispatcher, after the handler's side effects, that nobody saw."""
    agent = Recorder(lambda m, _: HandlerResponse(Note("bell \x07"), "sink", tag="t") if isinstance(m, Ask) else None)
    sink = Recorder()
    pump = StreamPump()
    pump.register("agent", agent, Ask, agent=True, peers=["sink"])
    pump.register("sink", sink, Note)
    async with audited(pump) as audit:
        await pump.inject("agent", Ask())
        await audit.idle()
    assert isinstance(agent.payloads[1], SystemError)
    assert (agent.payloads[1].code, agent.metadata[1].tag) == ("validation", "t")
    assert not sink.seen


@pytest.mark.parametrize(
    "before",
    [
        "<!DOCTYPE message>",
        '<!DOCTYPE message [<!ENTITY x "y">]>',
        '<!DOCTYPE message SYSTEM "file:///etc/hostname">',
        '<!DOCTYPE m [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]>',
        '<?xml version="1.0" encoding="UTF-16"?>',
    ],
)
async def test_document_types_entities_and_other_encodings_are_refused(before: str) -> None:
    sink = Recorder()
    pump = StreamPump()
    pump.register("sink", sink, Ask)
    async with audited(pump):
        with pytest.raises(ValidationError):
            await pump.wait(await pump.inject(envelope(ask("x"), before=before), None, "console"))
    assert not sink.seen


async def test_size_and_shape_are_bounded() -> None:
    sink = Recorder()
    pump = StreamPump(max_message_bytes=5_000, max_element_depth=10, max_elements=50, max_attributes=5)
    pump.register("sink", sink, Ask)
    deep = "<a>" * 20 + "</a>" * 20
    async with audited(pump):
        with pytest.raises(ValidationError):
            await pump.inject(envelope(ask("x" * 5_000)), None, "console")
        for payload in (
            f'<Ask xmlns="">{deep}</Ask>',
            f'<Ask xmlns="">{"<a/>" * 100}</Ask>',
            '<Ask xmlns="" ' + " ".join(f'a{n}="1"' for n in range(10)) + "/>",
        ):
            with pytest.raises(ValidationError):
                await pump.wait(await pump.inject(envelope(payload), None, "console"))
    assert not sink.seen
