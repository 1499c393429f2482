"""Buffers: the registry, and `BufferStart` to ``system.buffer`` through a running pump."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from tests.message_bus.helpers import Gate, Recorder, reached
from tests.message_bus.orchestration_kit import (
    Asker,
    Number,
    Told,
    Word,
    fail,
    hang,
    increment,
    items_of,
    left,
    nothing,
    tidy,
    xml_of,
)
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import ConversationCancelled, HopLimitError, NoAnswer, RoutingError
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.primitives.buffer import (
    BufferComplete,
    BufferDispatched,
    BufferError,
    BufferItemResult,
    BufferRegistry,
    BufferStart,
    BufferState,
    _format_buffer_results,
    get_buffer_registry,
    handle_buffer_start,
    reset_buffer_registry,
)
from xml_pipeline.primitives.sequence import SequenceStart
from xml_pipeline.runtime import use_runtime
from xml_pipeline.sequence import SequenceRequest

ONE = xml_of(Number(1))


def a_pump(**options: Any) -> StreamPump:
    pump = StreamPump(**options)
    pump.register("inc", increment, Number)
    pump.register("fail", fail, Number)
    pump.register("hang", hang, Number)
    pump.register("nothing", nothing, Number)
    return pump


async def run(pump: StreamPump, target: str, items: str = ONE, **options: Any) -> Any:
    return await pump.request("system.buffer", BufferStart(target, items, **options))


def numbers(count: int) -> str:
    return xml_of(*(Number(n) for n in range(count)))


def results_of(complete: BufferComplete) -> list[Any]:
    """For each item its number, or the code of its error."""
    assert isinstance(complete, BufferComplete), complete
    found: list[Any] = []
    for success, content in items_of(complete.results):
        assert not isinstance(content, str), content
        found.append(int(content.findtext("N") or "") if success else content.findtext("code"))
    assert complete.total == len(found)
    assert complete.successful == sum(isinstance(each, int) for each in found)
    return found


# -- the registry


@pytest.fixture
def registry() -> BufferRegistry:
    return BufferRegistry()


def create(registry: BufferRegistry, name: str = "b", total: int = 3) -> BufferState:
    return registry.create(name, total, "agent", "thread", "agent", "target")


def test_a_new_buffer_has_no_results(registry: BufferRegistry) -> None:
    state = create(registry)
    assert registry.get("b") is state
    assert (state.buffer_id, state.total_items, state.return_to, state.thread_id) == ("b", 3, "agent", "thread")
    assert (state.from_id, state.target, state.collect) == ("agent", "target", True)
    assert (state.results, state.completed_count, state.successful_count) == ({}, 0, 0)
    assert (state.is_complete, state.pending_count) == (False, 3)
    assert state.get_ordered_results() == [None, None, None]


def test_results_are_kept_in_the_items_order(registry: BufferRegistry) -> None:
    state = create(registry)
    assert registry.record_result("b", 2, "<c/>") is state
    assert registry.record_result("b", 0, "", False, "why") is state
    assert (state.completed_count, state.successful_count, state.pending_count) == (2, 1, 1)
    assert state.get_ordered_results() == [
        BufferItemResult(0, "", False, "why"),
        None,
        BufferItemResult(2, "<c/>"),
    ]
    assert not state.is_complete
    registry.record_result("b", 1, "<b/>")
    assert (state.is_complete, state.pending_count) == (True, 0)


def test_the_first_result_of_an_item_counts(registry: BufferRegistry) -> None:
    state = create(registry)
    registry.record_result("b", 1, "first", False, "why")
    registry.record_result("b", 1, "second")
    assert state.results == {1: BufferItemResult(1, "first", False, "why")}
    assert (state.completed_count, state.successful_count) == (1, 0)


@pytest.mark.parametrize("index", [-1, 3, 100])
def test_an_item_that_does_not_exist_has_no_result(registry: BufferRegistry, index: int) -> None:
    state = create(registry)
    with pytest.raises(IndexError, match=f"has 3 items, and none with the index {index}"):
        registry.record_result("b", index, "x")
    assert state.results == {}


def test_buffers_are_listed_and_removed(registry: BufferRegistry) -> None:
    create(registry, "b")
    create(registry, "c")
    assert registry.list_active() == ["b", "c"]
    assert len(registry) == 2
    assert registry.remove("b")
    assert not registry.remove("b")
    registry.clear()
    assert registry.list_active() == []


def test_what_is_unknown_is_none(registry: BufferRegistry) -> None:
    assert registry.get("x") is None
    assert registry.record_result("x", 0, "") is None


def test_one_that_is_under_way_is_not_replaced(registry: BufferRegistry) -> None:
    state = create(registry)
    with pytest.raises(ValueError, match="'b' is under way already"):
        create(registry)
    assert registry.get("b") is state
    other = registry.create("b", 1, "", "", "", "", key="another key")
    assert registry.get("another key") is other


def test_the_accessors_are_those_of_the_current_pump() -> None:
    one, two = StreamPump(), StreamPump()
    with use_runtime(one.runtime):
        create(get_buffer_registry())
        with use_runtime(two.runtime):
            assert len(get_buffer_registry()) == 0
            reset_buffer_registry()
        assert len(get_buffer_registry()) == 1
        reset_buffer_registry()
        assert len(get_buffer_registry()) == 0


def test_the_results_document(registry: BufferRegistry) -> None:
    state = create(registry)
    registry.record_result("b", 0, "<A><T>&amp;</T></A>")
    registry.record_result("b", 2, SystemError("timeout", "late", True), False, "late")
    assert _format_buffer_results(state) == (
        '<results><item index="0" success="true"><A><T>&amp;</T></A></item>'
        '<item index="1" success="false">missing</item>'
        '<item index="2" success="false"><SystemError><code>timeout</code><message>late</message>'
        "<retry-allowed>true</retry-allowed></SystemError></item></results>"
    )


@pytest.mark.parametrize(
    ("cls", "defaults"),
    [
        (
            BufferStart,
            {
                "target": "",
                "items": "",
                "collect": True,
                "return_to": "",
                "buffer_id": "",
                "max_parallel": 10,
                "timeout": 0.0,
                "item_timeout": 30.0,
            },
        ),
        (BufferComplete, {"buffer_id": "", "total": 0, "successful": 0, "results": ""}),
        (BufferDispatched, {"buffer_id": "", "total": 0}),
        (BufferError, {"buffer_id": "", "error": "", "code": ""}),
    ],
)
def test_the_fields_and_their_defaults(cls: Any, defaults: dict[str, Any]) -> None:
    assert dataclasses.asdict(cls()) == defaults


# -- buffers that collect


async def test_ten_items_of_which_one_fails_and_one_hangs() -> None:
    pump = StreamPump()

    async def tool(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        if payload.n == 3:
            raise ValueError("on purpose")
        if payload.n == 7:
            await asyncio.Event().wait()
        return HandlerResponse.respond(payload)

    pump.register("the.dotted, tool", tool, Number)
    async with tidy(pump):
        complete = await run(pump, "the.dotted, tool", numbers(10), buffer_id="mine", item_timeout=0.5)
    assert (complete.buffer_id, complete.total, complete.successful) == ("mine", 10, 8)
    assert results_of(complete) == [0, 1, 2, "handler", 4, 5, 6, "timeout", 8, 9]


async def test_a_thousand_items_of_which_ten_fail_and_ten_hang() -> None:
    running = most = 0
    pump = StreamPump(max_concurrent_handlers=100)

    async def tool(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            if payload.n % 100 == 7:
                raise ValueError("on purpose")
            if payload.n % 100 == 13:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return HandlerResponse.respond(Number(2 * payload.n))
        finally:
            running -= 1

    asker = Asker(BufferStart("tool", numbers(1_000), max_parallel=50, item_timeout=2.0), "system.buffer")
    pump.register("tool", tool, Number)
    pump.register("agent", asker, Word, agent=True, peers=["tool", "system.buffer"])
    async with tidy(pump):
        await pump.request("agent", Word())
    assert 10 < most <= 50
    assert running == 0
    expected = {7: "handler", 13: "timeout"}
    assert results_of(asker.got[0]) == [expected.get(n % 100, 2 * n) for n in range(1_000)]


@pytest.mark.parametrize(
    "items",
    [
        "<Number><N>1</N></Number><Number><N>2</N></Number>",
        "<Number><N>1</N></Number>\n<Number><N>2</N></Number>\n",
        "\r\n<Number>\r\n\t<N>\n1\n</N>\r\n</Number>\n\n\n<Number\n>\n<N\n>2</N\n></Number\n>  ",
        "<!-- one --><Number><N>1</N></Number><!-- two\n --><Number><!-- in --><N>2</N></Number>",
        "<Number><N><![CDATA[1]]></N></Number><?pi?><Number xmlns=''><N>&#x32;</N></Number>",
    ],
)
async def test_items_in_any_layout(items: str) -> None:
    pump = a_pump()
    async with tidy(pump):
        assert results_of(await run(pump, "inc", items)) == [2, 3]


async def test_text_comes_through_unchanged() -> None:
    """Layout is only what stands between the items."""
    texts = ["", " leading", "two\nlines\r\n", "<&>\"']]>", "</Number>", "ü 数 \U0001f600", "\t"]
    pump = a_pump()

    async def echo(payload: Word, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(payload)

    pump.register("echo", echo, Word)
    async with tidy(pump):
        complete = await run(pump, "echo", xml_of(*map(Word, texts)))
    contents = [content for _, content in items_of(complete.results)]
    assert [content.findtext("Text") or "" for content in contents if not isinstance(content, str)] == texts


async def test_an_agent_asks_and_is_answered() -> None:
    for return_to in ("", "agent"):
        asker = Asker(BufferStart("inc", numbers(3), return_to=return_to), "system.buffer")
        pump = a_pump()
        pump.register("agent", asker, Word, agent=True, peers=["system.buffer", "inc"])
        async with tidy(pump):
            await pump.request("agent", Word())
        assert results_of(asker.got[0]) == [1, 2, 3]


async def test_no_more_items_are_under_way_than_allowed() -> None:
    gate = Gate(Number(0))
    begun: list[int] = []
    pump = StreamPump()

    async def tool(payload: Number, metadata: HandlerMetadata) -> Any:
        begun.append(payload.n)
        return await gate(payload, metadata)

    pump.register("tool", tool, Number)
    async with tidy(pump):
        asking = asyncio.create_task(run(pump, "tool", numbers(9), max_parallel=3))
        while len(begun) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert begun == [0, 1, 2]
        assert left(pump)[:7] == (5, 2, 1, 0, 1, 0, 3)
        gate.opened.set()
        assert results_of(await asking) == [0] * 9
    assert begun == [*range(9)]


async def test_by_the_deadline_there_are_the_results_that_there_are() -> None:
    begun: list[int] = []
    pump = StreamPump()

    async def tool(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        begun.append(payload.n)
        if payload.n >= 2:
            await asyncio.Event().wait()
        return HandlerResponse.respond(payload)

    pump.register("tool", tool, Number)
    async with tidy(pump):
        complete = await run(pump, "tool", numbers(6), max_parallel=2, timeout=0.5)
        assert results_of(complete) == [0, 1, *["timeout"] * 4]
        assert begun == [0, 1, 2, 3]
        begun.clear()
        assert results_of(await run(pump, "tool", numbers(3), timeout=1e-9)) == ["timeout"] * 3
        assert begun == []


@pytest.mark.parametrize(("target", "code"), [("fail", "handler"), ("nothing", "no-answer"), ("late", "timeout")])
async def test_an_item_that_does_not_end_well(target: str, code: str) -> None:
    pump = a_pump()
    pump.register("late", hang, Number, timeout=0.02)
    async with tidy(pump):
        assert results_of(await run(pump, target, numbers(3))) == [code] * 3


async def test_a_target_that_answers_several_times_is_taken_at_its_first_word() -> None:
    pump = a_pump()

    async def several(payload: Number, metadata: HandlerMetadata) -> list[HandlerResponse]:
        return [HandlerResponse.respond(Number(payload.n + more)) for more in (10, 20, 30)]

    async def stream(payload: Number, metadata: HandlerMetadata) -> Any:
        for more in (40, 50):
            yield HandlerResponse.respond(Number(payload.n + more))

    async def delegate(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.delegate(payload, "inc")

    async def again(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        if metadata.is_self_call:
            return HandlerResponse.respond(payload)
        return HandlerResponse(Number(payload.n + 5), "again")

    for handler in (several, stream, delegate, again):
        pump.register(handler.__name__, handler, Number)
    for n in range(3):
        pump.register(f"pool.{n}", increment, Number, broadcast=True)
    async with tidy(pump):
        assert results_of(await run(pump, "several", numbers(3))) == [10, 11, 12]
        assert results_of(await run(pump, "stream", numbers(3))) == [40, 41, 42]
        assert results_of(await run(pump, "delegate", numbers(3))) == [1, 2, 3]
        assert results_of(await run(pump, "again", numbers(3))) == [5, 6, 7]
        assert results_of(await run(pump, "pool", numbers(3))) == [1, 2, 3]


async def test_a_target_may_answer_what_buffers_are_asked_with() -> None:
    begun = Recorder()
    pump = a_pump()

    async def tricky(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(BufferStart("begun", ONE))

    async def refuse(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(SystemError("budget", "x", False))

    pump.register("tricky", tricky, Number)
    pump.register("refuse", refuse, Number)
    pump.register("begun", begun, Number)
    async with tidy(pump):
        complete = await run(pump, "tricky", numbers(2))
        assert complete.successful == 2
        assert [getattr(content, "tag", "") for _, content in items_of(complete.results)] == ["BufferStart"] * 2
        assert results_of(await run(pump, "refuse", numbers(2))) == ["budget"] * 2
    assert begun.seen == []


async def test_a_buffer_below_that_fails_is_a_failure() -> None:
    """Its item tells why; it does not count as answered."""
    pump = a_pump()
    starts = [BufferStart("inc", ONE), BufferStart("missing", ONE), BufferStart("inc", "")]
    async with tidy(pump):
        complete = await run(pump, "system.buffer", xml_of(*starts))
        assert complete.successful == 1
        tags = [(success, getattr(content, "tag", "")) for success, content in items_of(complete.results)]
        assert tags == [(True, "BufferComplete"), (False, "BufferError"), (False, "BufferError")]
        complete = await run(pump, "system.sequence", xml_of(SequenceStart("inc,fail", ONE), SequenceStart("inc", ONE)))
        tags = [(success, getattr(content, "tag", "")) for success, content in items_of(complete.results)]
        assert tags == [(False, "SequenceError"), (True, "SequenceComplete")]


async def test_the_same_id_in_two_conversations_at_once() -> None:
    gate = Gate(Number(5))
    pump = a_pump()
    pump.register("gate", gate, Number)
    async with tidy(pump):
        slow = asyncio.create_task(run(pump, "gate", numbers(2), buffer_id="same"))
        await reached(gate.entered)
        assert results_of(await run(pump, "inc", numbers(3), buffer_id="same")) == [1, 2, 3]
        gate.opened.set()
        complete = await slow
    assert (complete.buffer_id, results_of(complete)) == ("same", [5, 5])


async def test_the_requester_as_the_target_goes_as_deep_as_allowed() -> None:
    """Each level asks for the next one; at the bottom it is refused, and that comes back level by level."""
    pump = StreamPump(max_hops=11)
    depth = 0

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        nonlocal depth
        match payload:
            case Number(n):
                depth = max(depth, n)
                return HandlerResponse(BufferStart("agent", xml_of(Number(n + 1))), "system.buffer")
            case BufferComplete():
                assert payload.successful == 0 or "hops" in payload.results
                return HandlerResponse.respond(Told(payload.results))
            case _:
                return HandlerResponse.respond(payload)

    pump.register("agent", agent, Number, agent=True, peers=["system.buffer"])
    async with tidy(pump):
        answer = await pump.request("agent", Number(0))
    assert isinstance(answer, Told)
    assert HopLimitError.code in answer.text
    assert depth == 5


# -- buffers that do not collect


async def test_without_collecting_the_requester_is_answered_at_once() -> None:
    gate = Gate(Number(1))
    seen: list[int] = []
    pump = StreamPump()

    async def tool(payload: Number, metadata: HandlerMetadata) -> Any:
        seen.append(payload.n)
        return await gate(payload, metadata)

    pump.register("tool", tool, Number)
    async with tidy(pump) as audit:
        answer = await run(pump, "tool", numbers(15), collect=False, max_parallel=2, buffer_id="mine")
        assert answer == BufferDispatched("mine", 15)
        await reached(gate.entered)
        assert left(pump).buffers == left(pump).joins == 0
        gate.opened.set()
        await audit.idle()
        assert len(audit.outcomes(outcome="expired")) == 15  # the answers, which nobody waits for
    assert sorted(seen) == [*range(15)]


async def test_what_is_not_collected_is_limited_in_time_all_the_same() -> None:
    for options in ({"item_timeout": 0.02}, {"timeout": 0.02}):
        gate = Gate()
        pump = a_pump()
        pump.register("gate", gate, Number)
        async with tidy(pump) as audit:
            assert isinstance(await run(pump, "gate", numbers(3), collect=False, **options), BufferDispatched)
            await reached(gate.cancelled)
            await audit.idle()
            assert {event.outcome for event in audit.outcomes(to_id="gate")} == {"cancelled"}
            assert len(pump.dead_letters) == 0


async def test_what_is_not_collected_is_cancelled_with_the_conversation() -> None:
    gate = Gate()
    pump = a_pump()
    pump.register("gate", gate, Number)
    async with tidy(pump):
        thread = await pump.inject("system.buffer", BufferStart("gate", numbers(5), collect=False))
        assert await pump.wait(thread) == BufferDispatched(thread[:8], 5)
        await reached(gate.entered)
        assert pump.cancel(thread)
        await reached(gate.cancelled)


# -- what is refused, before anything is sent


@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_parallel": 0}, "max_parallel must be a whole number above 0, not 0"),
        ({"max_parallel": -5}, "max_parallel must be a whole number above 0, not -5"),
        ({"timeout": -1.0}, "timeout must be a number of seconds"),
        ({"timeout": float("nan")}, "timeout must be a number of seconds"),
        ({"timeout": float("inf")}, "timeout must be a number of seconds"),
        ({"item_timeout": -1.0}, "item_timeout must be a number of seconds"),
        ({"item_timeout": float("nan")}, "item_timeout must be a number of seconds"),
        ({"return_to": "inc"}, "return_to must be empty or your own name"),
        ({"target": "missing"}, "Unknown target 'missing'"),
        ({"target": ""}, "Unknown target ''"),
        ({"target": "seen "}, "Unknown target 'seen '"),
        ({"target": "x" * 100_000}, f"Unknown target '{'x' * 200}'"),
        ({"items": ""}, "No items"),
        ({"items": " <!-- none --> "}, "No items"),
        ({"items": ONE + "</payloads><payloads>" + ONE}, "not well-formed"),
        ({"items": ONE + "</results>"}, "not well-formed"),
        ({"items": ONE + "<!--"}, "not well-formed"),
        ({"items": ONE + "]]>"}, "not well-formed"),
        ({"items": ONE + "<![CDATA[" + ONE + "]]>"}, "text outside of the items"),
        ({"items": "one\ntwo\n"}, "text outside of the items"),
        ({"items": "<!DOCTYPE x [<!ENTITY y 'z'>]>" + ONE}, "not well-formed"),
        ({"items": "<Number><N>&y;</N></Number>"}, "not well-formed"),
        ({"items": ONE + "<Number xmlns='urn:x'><N>1</N></Number>"}, "no namespace"),
        ({"items": ONE + "<x:Number xmlns:x='urn:x'/>"}, "no namespace"),
        ({"items": ONE + "<Number><N>many</N></Number>"}, "item 1, <Number>, is not valid; no item was sent"),
        ({"items": ONE * 500 + "<Number/>" + ONE}, "item 500, <Number>, is not valid; no item was sent"),
        ({"items": ONE + "<Word/>"}, "item 1, <Word>, is not accepted by the target; no item was sent"),
        ({"items": f"<{'x' * 50_000}/>"}, f"item 0, <{'x' * 200}>, is not accepted by the target"),
        ({"items": "<Number " + " ".join(f"a{n}=''" for n in range(1_000)) + "/>"}, "max_attributes"),
        ({"items": "<Number>" * 150 + "</Number>" * 150}, "max_element_depth"),
        ({"items": "<Number>" + "<N/>" * 60_000 + "</Number>"}, "max_elements"),
        ({"items": ONE * 1_001}, "more than 1000 items (max_fan_out)"),
        ({"items": "<a/>" * 100_000}, "more than 1000 items (max_fan_out)"),
    ],
    ids=range(33),
)
async def test_a_buffer_that_cannot_be_begun(options: dict[str, Any], told: str, collect: bool) -> None:
    seen = Recorder()
    pump = a_pump()
    pump.register("seen", seen, Number)
    options = {"target": "seen", "items": ONE * 3, "buffer_id": "mine", **options}
    async with tidy(pump):
        error = await pump.request("system.buffer", BufferStart(collect=collect, **options))
    assert isinstance(error, BufferError)
    assert error.buffer_id == "mine"
    assert told in error.error
    assert error.code == ("routing" if "Unknown" in told or "not accepted" in told else "validation")
    assert len(error.error) < 500
    assert seen.seen == []


async def test_what_a_payload_class_says_itself_is_checked_too() -> None:
    """What the schema cannot say; its own words are not repeated to the requester."""
    seen = Recorder()
    pump = StreamPump()
    pump.register("seen", seen, Even)
    async with tidy(pump):
        error = await run(pump, "seen", "<Even><N>2</N></Even><Even><N>3</N></Even>")
    assert error == BufferError(error.buffer_id, "item 1, <Even>, is not valid; no item was sent", "validation")
    assert seen.seen == []


@dataclass
class Even:
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError("the secret of the class")


# -- results that cannot be passed on


async def test_results_that_are_too_large_for_a_message() -> None:
    pump = a_pump(max_message_bytes=20_000)

    async def large(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Word("&" * 1_000))

    pump.register("large", large, Number)
    async with tidy(pump):
        assert (await run(pump, "large", numbers(1))).successful == 1
        error = await run(pump, "large", numbers(8))
    assert isinstance(error, BufferError)
    assert error.code == "validation"
    assert error.error.startswith("8 of 8 items were answered, but the results are too large")
    assert "max_message_bytes" in error.error


@dataclass
class Odd:
    """Spoils itself when it is read."""

    n: int

    def __post_init__(self) -> None:
        if self.n == 2:
            self.n = "two"  # type: ignore[assignment]


class Raw:
    """What reads as an `Odd`."""

    def __init__(self, n: int) -> None:
        self.n = n

    def to_xml(self) -> str:
        return f"<Odd><N>{self.n}</N></Odd>"


async def test_an_answer_that_cannot_be_written_does_not_take_the_others_with_it() -> None:
    """It was read from a valid message all the same."""
    pump = StreamPump()

    async def tool(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Raw(payload.n))

    pump.register("tool", tool, Number, output_class=Odd)
    async with tidy(pump):
        assert results_of(await run(pump, "tool", numbers(4))) == [0, 1, "handler", 3]
        assert (await pump.map("tool", [Number(2)]))[0].n == "two"  # nothing needs to be written


# -- peers


async def test_an_agent_cannot_reach_through_a_buffer_what_it_may_not_call_itself() -> None:
    """Nor through a sequence inside of one; and what exists and is forbidden reads like what does not exist."""
    vault = Recorder(lambda payload, metadata: HandlerResponse.respond(payload))
    told = {}
    for target in ("vault", "nowhere"):
        asker = Asker(BufferStart(target, ONE), "system.buffer")
        pump = a_pump()
        pump.register("vault", vault, Number)
        pump.register("agent", asker, Word, agent=True, peers=["system.buffer"])
        async with tidy(pump):
            await pump.request("agent", Word())
        (error,) = asker.got
        assert (type(error), error.code) == (BufferError, "routing")
        told[target] = error.error.replace(target, "it")
    assert told["vault"] == told["nowhere"]
    assert vault.seen == []


@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize("inner", ["system.sequence", "system.buffer", "system.sequence.factory"])
async def test_nor_through_one_of_the_pumps_listeners_inside_of_it(inner: str, collect: bool) -> None:
    requests = {
        "system.sequence": SequenceStart("inc,vault", ONE),
        "system.buffer": BufferStart("vault", ONE),
        "system.sequence.factory": SequenceRequest("inc,vault", ONE),
    }
    vault = Recorder(lambda payload, metadata: HandlerResponse.respond(payload))
    for peers, reaches in ((["system.buffer"], False), (["system.buffer", inner, "inc"], False), (None, True)):
        asker = Asker(BufferStart(inner, xml_of(requests[inner]), collect=collect), "system.buffer")
        pump = StreamPump()
        pump.register("inc", increment, Number, output_class=Number)
        pump.register("vault", vault, Number, output_class=Number)
        peers = peers if peers is not None else ["system.buffer", inner, "inc", "vault"]
        pump.register("agent", asker, Word, agent=True, peers=peers)
        async with tidy(pump) as audit:
            await pump.request("agent", Word())
            await audit.idle()
        assert bool(vault.seen) is reaches
        (answer,) = asker.got
        if collect and not reaches:
            assert "routing" in repr(answer)


async def test_peers_taken_away_while_items_wait() -> None:
    gate = Gate(Number(1))
    pump = a_pump()
    asker = Asker(BufferStart("gate", numbers(4), max_parallel=2), "system.buffer")
    pump.register("gate", gate, Number)
    pump.register("agent", asker, Word, agent=True, peers=["system.buffer", "gate"])
    pump.register_peer_table("table", {"agent": ["system.buffer", "gate"]})
    async with tidy(pump):
        asking = asyncio.create_task(pump.request("agent", Word(), routing_table="table"))
        await reached(gate.entered)
        pump.modify_peer_table("table", "agent", revoke=["gate"])
        gate.opened.set()
        await asking
    assert results_of(asker.got[0]) == [1, 1, "routing", "routing"]


async def test_an_agent_without_the_peer_cannot_ask() -> None:
    asker = Asker(BufferStart("inc", ONE), "system.buffer")
    pump = a_pump()
    pump.register("agent", asker, Word, agent=True, peers=["inc"])
    async with tidy(pump):
        assert await pump.request("agent", Word()) == Told("routing")


async def test_a_tool_that_does_not_take_the_answer_passes_it_on() -> None:
    pump = a_pump()

    async def tool(payload: Word, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(BufferStart("inc", numbers(2)), "system.buffer")

    pump.register("tool", tool, Word, peers=["system.buffer", "inc"])
    pump.register("free", tool, Word)
    async with tidy(pump):
        assert results_of(await pump.request("tool", Word())) == [1, 2]
        with pytest.raises(RoutingError):
            await pump.request("free", Word())


# -- cancelled, changed and stopped on the way


async def test_cancelling_one_items_call_is_its_error() -> None:
    frames: dict[int, str] = {}
    full = asyncio.Event()
    gate = Gate(Number(9))
    pump = StreamPump()

    async def tool(payload: Number, metadata: HandlerMetadata) -> Any:
        frames[payload.n] = metadata.thread_id
        if len(frames) == 3:
            full.set()
        return await gate(payload, metadata)

    pump.register("tool", tool, Number)
    async with tidy(pump):
        asking = asyncio.create_task(run(pump, "tool", numbers(3)))
        await reached(full)
        assert pump.cancel(frames[1])
        gate.opened.set()
        assert results_of(await asking) == [9, "cancelled", 9]


async def test_cancelling_the_requesters_conversation_leaves_nothing() -> None:
    gate = Gate()
    asker = Asker(BufferStart("gate", numbers(200), max_parallel=100), "system.buffer")
    pump = a_pump()
    pump.register("gate", gate, Number)
    pump.register("agent", asker, Word, agent=True, peers=["system.buffer", "gate"])
    async with tidy(pump):
        thread = await pump.inject("agent", Word())
        await reached(gate.entered)
        assert left(pump)[:5] == (103, 2, 1, 0, 1)
        assert pump.cancel(thread)
        await reached(gate.cancelled)
        with pytest.raises(ConversationCancelled):
            await pump.wait(thread)
    assert asker.got == []


async def test_a_target_that_is_removed_while_items_wait() -> None:
    """Those that run are finished; the others find nobody."""
    gate = Gate(Number(1))
    pump = a_pump()
    pump.register("gate", gate, Number)
    async with tidy(pump):
        asking = asyncio.create_task(run(pump, "gate", numbers(5), max_parallel=2))
        await reached(gate.entered)
        assert pump.unregister_listener("gate")
        gate.opened.set()
        assert results_of(await asking) == [1, 1, "routing", "routing", "routing"]


async def test_stopping_in_the_middle_tells_whoever_waits() -> None:
    gate = Gate()
    pump = a_pump()
    pump.register("gate", gate, Number)
    await pump.__aenter__()
    asking = asyncio.create_task(run(pump, "gate", numbers(50)))
    await reached(gate.entered)
    await pump.shutdown(0.0)
    with pytest.raises(ConversationCancelled):
        await asking
    assert left(pump)[2:7] == (0, 0, 0, 0, 0)


async def test_a_message_that_is_none_of_its_own_is_left_alone() -> None:
    with use_runtime(StreamPump().runtime):
        metadata = HandlerMetadata("no frame of a buffer", "somebody")
        assert await handle_buffer_start(Number(1), metadata) is None


async def test_nobody_hears_of_a_buffer_that_was_forgotten() -> None:
    gate = Gate(Number(2))
    pump = a_pump()
    pump.register("gate", gate, Number)
    async with tidy(pump):
        asking = asyncio.create_task(run(pump, "gate", numbers(2)))
        await reached(gate.entered)
        pump.runtime.get(BufferRegistry).clear()
        gate.opened.set()
        with pytest.raises(NoAnswer):
            await asking
