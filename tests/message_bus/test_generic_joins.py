"""Generic listeners as joins, with handlers of a user's own, through a running pump."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from lxml import etree

from third_party.xmlable import codec_of
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import ConversationCancelled, HopLimitError
from xml_pipeline.message_bus.join import Join, get_joins
from xml_pipeline.message_bus.thread_registry import get_registry

from .helpers import Gate, reached
from .orchestration_kit import Number, Sum, Told, Word, double, fail, hang, increment, left, nothing, tidy


def number_in(element: etree._Element) -> int:
    return codec_of(Number).decode(element).n


class FanOut:
    """Asks each of its targets for what it is given, and answers with the sum of what comes back, and the codes.

    Args:
        targets: whom.
        **options: of the join.
    """

    def __init__(self, *targets: str, **options: Any) -> None:
        self.targets = targets
        self.options = options
        self.taken: list[str] = []
        self.joins: list[Join] = []

    async def __call__(self, payload: etree._Element, metadata: HandlerMetadata) -> Any:
        assert isinstance(payload, etree._Element)
        assert metadata.own_name is None
        join = get_joins().of(metadata)
        if join is None:
            join = get_joins().open(metadata, **self.options)
            self.joins.append(join)
            join.add(HandlerResponse.call(payload, target) for target in self.targets)
        else:
            self.taken.append(str(payload.tag))
            join.take(payload, metadata)
        due = join.due()
        if not join.is_complete:
            return due
        total = sum(number_in(result.payload) for result in join if result.ok)
        codes = ",".join("ok" if result.error is None else result.error.code for result in join)
        return [HandlerResponse.respond(Told(f"{total} {codes}"))]


def a_pump(**options: Any) -> StreamPump:
    pump = StreamPump(**options)
    pump.register("inc", increment, Number)
    pump.register("double", double, Number)
    pump.register("fail", fail, Number)
    pump.register("hang", hang, Number)
    pump.register("nothing", nothing, Number)
    return pump


async def test_answers_and_errors_come_as_elements_and_are_joined() -> None:
    join = FanOut("inc", "fail", "double", "nowhere", "nothing", "hang", call_timeout=0.5)
    pump = a_pump()
    pump.register_generic_listener("survey", join, "Asks everybody.")
    async with tidy(pump):
        assert await pump.request("survey", Number(10)) == Told("31 ok,handler,ok,routing,no-answer,timeout")
    assert sorted(join.taken) == ["Number"] * 2 + ["SystemError"] * 4


async def test_any_payload_reaches_it_also_as_bytes() -> None:
    seen: list[etree._Element] = []

    async def keep(payload: etree._Element, metadata: HandlerMetadata) -> HandlerResponse:
        seen.append(payload)
        return HandlerResponse.respond(Word(str(payload.tag)))

    pump = StreamPump()
    pump.register_generic_listener("any", keep)
    async with tidy(pump):
        for payload in (Number(1), Word("x"), etree.fromstring("<Unheard of='1'>text</Unheard>")):
            await pump.request("any", payload)
    assert [element.tag for element in seen] == ["Number", "Word", "Unheard"]
    assert (seen[2].get("of"), seen[2].text) == ("1", "text")


async def test_one_listener_joins_for_many_conversations_at_once() -> None:
    pump = a_pump()
    join = FanOut("inc", "double", "inc", max_parallel=2)
    pump.register_generic_listener("a.join", join)
    async with tidy(pump):
        answers = await asyncio.gather(*(pump.request("a.join", Number(n)) for n in range(200)))
    assert answers == [Told(f"{4 * n + 2} ok,ok,ok") for n in range(200)]
    assert len(join.joins) == 200


async def test_an_agent_asks_a_join_and_a_join_asks_a_join() -> None:
    """The answer of the lower one, which the upper one has no class for, is delivered to it."""
    pump = a_pump()
    taken: list[str] = []

    async def upper(payload: etree._Element, metadata: HandlerMetadata) -> Any:
        join = get_joins().of(metadata)
        if join is None:
            join = get_joins().open(metadata)
            join.add([HandlerResponse.call(payload, "lower"), HandlerResponse.call(payload, "lower")])
            return join.due()
        join.take(payload, metadata)
        taken.append(metadata.from_id)
        if not join.is_complete:
            return None
        return HandlerResponse.respond(Word("; ".join(result.payload.findtext("Text") for result in join)))

    async def agent(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(payload, Number):
            return HandlerResponse(payload, "upper")
        return HandlerResponse.respond(payload)

    pump.register_generic_listener("lower", FanOut("inc", "double"))
    pump.register_generic_listener("upper", upper)
    pump.register("agent", agent, Number, agent=True, peers=["upper"])
    async with tidy(pump):
        assert await pump.request("agent", Number(1)) == Word("4 ok,ok; 4 ok,ok")
    assert taken == ["lower", "lower"]


async def test_answers_that_are_joined_are_no_turns() -> None:
    """Also when each of them is an error."""
    for target, code in (("inc", "ok"), ("fail", "handler"), ("nowhere", "routing")):
        pump = a_pump(max_turns=3)
        pump.register_generic_listener("many", FanOut(*[target] * 50))
        async with tidy(pump):
            answer = await pump.request("many", Number(0))
        assert answer.text.split()[1] == ",".join([code] * 50)


async def test_a_listener_that_answers_each_refusal_with_another_call_is_stopped() -> None:
    turns = []

    async def stubborn(payload: etree._Element, metadata: HandlerMetadata) -> HandlerResponse:
        turns.append(payload.tag)
        return HandlerResponse(Number(1), "nowhere")

    pump = StreamPump(max_turns=7)
    pump.register_generic_listener("stubborn", stubborn)
    async with tidy(pump):
        with pytest.raises(HopLimitError):
            await pump.request("stubborn", Number(1))
    assert len(turns) == 7


async def test_a_join_without_any_help_of_ours() -> None:
    """The contract is enough: tags, answers that are expected, time limits, and a place to free what is kept."""
    pump = a_pump()
    open_tags: dict[str, set[str]] = {}
    codes: dict[str, str] = {}

    async def by_hand(payload: etree._Element, metadata: HandlerMetadata) -> Any:
        thread = metadata.thread_id
        if thread not in open_tags:
            get_registry().on_close(thread, lambda: open_tags.pop(thread))
            open_tags[thread] = {"inc", "nothing", "hang"}
            return [
                HandlerResponse.call(payload, to, tag=to, expect_answer=True, timeout=0.5) for to in open_tags[thread]
            ]
        open_tags[thread].discard(metadata.tag)
        codes[metadata.tag] = payload.findtext("code") or "ok"
        return None if open_tags[thread] else HandlerResponse.respond(Sum(len(codes)))

    pump.register_generic_listener("by hand", by_hand)
    async with tidy(pump):
        assert await pump.request("by hand", Number(1)) == Sum(3)
    assert codes == {"inc": "ok", "nothing": "no-answer", "hang": "timeout"}
    assert open_tags == {}


async def test_cancelling_leaves_nothing_of_a_join() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("gate", gate, Number)
    pump.register_generic_listener("join", FanOut(*["gate"] * 30, max_parallel=10, call_timeout=60.0))
    async with tidy(pump):
        thread = await pump.inject("join", Number(1))
        await reached(gate.entered)
        assert left(pump)[:3] == (12, 2, 1)
        assert pump.cancel(thread)
        await reached(gate.cancelled)
        with pytest.raises(ConversationCancelled):
            await pump.wait(thread)


async def test_it_lives_until_it_is_unregistered_and_finishes_what_it_began() -> None:
    gate = Gate(Number(5))
    pump = StreamPump()
    pump.register("gate", gate, Number)
    pump.register_generic_listener("join", FanOut("gate", "gate"))
    async with tidy(pump):
        asking = asyncio.create_task(pump.request("join", Number(1)))
        await reached(gate.entered)
        assert pump.unregister_listener("join")
        assert not pump.unregister_listener("join")
        gate.opened.set()
        assert await asking == Told("10 ok,ok")
        assert "join" not in pump.listeners
        pump.register_generic_listener("join", FanOut("gate"))
        assert await pump.request("join", Number(1)) == Told("5 ok")


async def test_a_step_of_a_sequence_and_the_target_of_a_buffer_may_be_generic() -> None:
    pump = a_pump()

    async def measure(payload: etree._Element, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Number(len(payload.tag)))

    pump.register_generic_listener("measure", measure)
    async with tidy(pump):
        assert await pump.sequence(["measure", "inc", "measure"], Word("x")) == Number(len("Number"))
        assert await pump.map("measure", [Word(), Number(1), Sum(2)]) == [Number(4), Number(6), Number(3)]


def test_its_handler_must_be_a_coroutine_function() -> None:
    with pytest.raises(TypeError):
        StreamPump().register_generic_listener("x", lambda payload, metadata: None)
