"""The sequence factory: nothing runs unless all of it fits together."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.message_bus.helpers import Recorder
from tests.message_bus.orchestration_kit import (
    Asker,
    Number,
    Sum,
    Told,
    Word,
    double,
    fail,
    increment,
    nothing,
    read,
    tidy,
    xml_of,
)
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.primitives.sequence import SequenceComplete, SequenceError, SequenceStart
from xml_pipeline.sequence import SequenceRequest, handle_sequence_request
from xml_pipeline.sequence import handler as handler_module
from xml_pipeline.sequence import primitives as primitives_module

ONE = xml_of(Number(1))


async def total(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(Sum(payload.n))


async def say(payload: Sum | Word, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(Word(repr(payload)))


def a_pump() -> StreamPump:
    pump = StreamPump()
    pump.register("inc", increment, Number, output_class=Number)
    pump.register("math.double", double, Number, output_class=Number)
    pump.register("total", total, Number, output_class=Sum)
    pump.register("say", say, (Sum, Word), output_class=Word)
    pump.register("silent about it", increment, Number)
    pump.register("fail", fail, Number, output_class=Number)
    return pump


async def ask(pump: StreamPump, steps: str, payload: str = ONE, **options: Any) -> Any:
    return await pump.request("system.sequence.factory", SequenceRequest(steps, payload, **options))


def test_it_is_found_where_it_is_documented() -> None:
    assert primitives_module.SequenceRequest is SequenceRequest
    assert handler_module.handle_sequence_request is handle_sequence_request


def test_a_request_has_the_fields_of_a_start() -> None:
    fields = [(field.name, field.type, field.default) for field in dataclasses.fields(SequenceRequest)]
    assert fields == [(field.name, field.type, field.default) for field in dataclasses.fields(SequenceStart)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("inc", Number(2)),
        ("inc, math.double, inc", Number(5)),
        ("total", Sum(1)),
        ("inc, total, say, say", Word("Word(text='Sum(n=2)')")),
        ("inc, silent about it", Number(3)),  # what the last step answers need not be known
    ],
)
async def test_what_fits_together_runs(steps: str, expected: Any) -> None:
    pump = a_pump()
    async with tidy(pump):
        complete = await ask(pump, steps, sequence_id="mine")
    assert isinstance(complete, SequenceComplete)
    assert (complete.sequence_id, complete.step_count) == ("mine", len(steps.split(",")))
    assert read(type(expected), complete.final_result) == expected


@pytest.mark.parametrize(
    ("steps", "payload", "failed", "index", "code", "told"),
    [
        ("", ONE, "", 0, "validation", "No steps"),
        (" ,", ONE, "", 0, "validation", "No steps"),
        ("inc," * 1_001, ONE, "", 0, "validation", "more than 1000 steps (max_fan_out)"),
        ("missing", ONE, "missing", 0, "routing", "Unknown listener 'missing'"),
        ("inc,inc,missing,nowhere", ONE, "missing", 2, "routing", "Unknown listener 'missing'"),
        ("x" * 100_000, ONE, "x" * 200, 0, "routing", "Unknown listener"),
        ("inc", "", "inc", 0, "validation", "one element, not 0"),
        ("inc", ONE + ONE, "inc", 0, "validation", "one element, not 2"),
        ("inc", "text", "inc", 0, "validation", "text outside"),
        ("inc", "<Number>", "inc", 0, "validation", "not well-formed"),
        ("inc", "<!DOCTYPE a>" + ONE, "inc", 0, "validation", "not well-formed"),
        ("inc", "<Number xmlns='urn:x'/>", "inc", 0, "validation", "no namespace"),
        ("inc", "<Number " + " ".join(f"a{n}=''" for n in range(999)) + "/>", "inc", 0, "validation", "max_attributes"),
        ("inc", "<Number><N>many</N></Number>", "inc", 0, "validation", "not valid: XSD validation failed"),
        ("inc", "<Word/>", "inc", 0, "routing", "'inc' does not accept <Word>"),
        ("silent about it,inc", ONE, "silent about it", 0, "validation", "declares no output_class"),
        ("inc,silent about it,inc", ONE, "silent about it", 1, "validation", "declares no output_class"),
        ("inc,say", ONE, "say", 1, "validation", "'say' accepts <Sum>, <Word>, and 'inc' answers <Number>"),
        ("total,say,inc", ONE, "inc", 2, "validation", "'inc' accepts <Number>, and 'say' answers <Word>"),
        ("system.boot", ONE, "system.boot", 0, "routing", "does not accept"),
    ],
    ids=range(20),
)
async def test_what_does_not_fit_is_refused_before_anything_runs(
    steps: str, payload: str, failed: str, index: int, code: str, told: str
) -> None:
    pump = a_pump()
    async with tidy(pump) as audit:
        error = await ask(pump, steps, payload, sequence_id="mine")
        await audit.idle()
        sent = {event.to_id for event in audit.outcomes()}
    assert isinstance(error, SequenceError)
    assert (error.sequence_id, error.failed_step, error.step_index, error.code) == ("mine", failed, index, code)
    assert told in error.error
    assert len(error.error) < 1_000
    assert sent == {"system.sequence.factory", "external"}


async def test_the_first_fault_is_told() -> None:
    pump = a_pump()
    async with tidy(pump):
        error = await ask(pump, "inc,say,missing", "<Word/>")
        assert (error.failed_step, error.step_index) == ("missing", 2)
        error = await ask(pump, "inc,say,silent about it,inc", "<Word/>")
        assert (error.failed_step, error.step_index) == ("inc", 0)


async def test_an_agent_asks_and_is_answered() -> None:
    for return_to, is_good in (("", True), ("agent", True), ("inc", False)):
        asker = Asker(SequenceRequest("inc,inc", ONE, return_to), "system.sequence.factory")
        pump = a_pump()
        # It may ask the factory, and need not be allowed to ask for sequences that are not checked.
        pump.register("agent", asker, Word, agent=True, peers=["system.sequence.factory", "inc"])
        async with tidy(pump):
            await pump.request("agent", Word())
        (answer,) = asker.got
        assert isinstance(answer, SequenceComplete) is is_good
        if not is_good:
            assert answer.error.startswith("return_to must be empty or your own name")


async def test_steps_are_bound_by_the_requesters_peers() -> None:
    vault = Recorder(lambda payload, metadata: HandlerResponse.respond(payload))
    told = {}
    for step in ("vault", "nowhere"):
        asker = Asker(SequenceRequest(f"inc,{step}", ONE), "system.sequence.factory")
        pump = a_pump()
        pump.register("vault", vault, Number, output_class=Number)
        pump.register("agent", asker, Word, agent=True, peers=["system.sequence.factory", "inc"])
        async with tidy(pump):
            await pump.request("agent", Word())
        (error,) = asker.got
        assert (error.failed_step, error.step_index, error.code) == (step, 1, "routing")
        told[step] = error.error.replace(step, "it")
    assert told["vault"] == told["nowhere"]
    assert vault.seen == []


async def test_an_agent_without_the_peer_cannot_ask() -> None:
    asker = Asker(SequenceRequest("inc", ONE), "system.sequence.factory")
    pump = a_pump()
    pump.register("agent", asker, Word, agent=True, peers=["inc", "system.sequence"])
    async with tidy(pump):
        assert await pump.request("agent", Word()) == Told("routing")


async def test_what_fails_on_the_way_is_told_as_by_any_sequence() -> None:
    pump = a_pump()
    pump.register("slow", nothing, Number, output_class=Number)
    async with tidy(pump):
        error = await ask(pump, "inc,fail,inc", sequence_id="mine")
        assert (error.sequence_id, error.failed_step, error.step_index, error.code) == ("mine", "fail", 1, "handler")
        error = await ask(pump, "inc,slow", timeout=60.0)
        assert (error.failed_step, error.code) == ("slow", "no-answer")
        error = await ask(pump, "inc", timeout=-1.0)
        assert error.error.startswith("timeout must be")


async def test_generic_listeners_take_everything_and_groups_are_steps() -> None:
    pump = a_pump()

    async def count(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Sum(len(payload.tag)))

    pump.register_generic_listener("any", count)
    for n in range(2):
        pump.register(f"pool.{n}", increment, Number, broadcast=True, output_class=Number)
    async with tidy(pump):
        complete = await ask(pump, "pool,pool,any")
        assert read(Sum, complete.final_result) == Sum(len("Number"))
        complete = await ask(pump, "any", "<Whatever it='is'/>")
        assert read(Sum, complete.final_result) == Sum(len("Whatever"))
        error = await ask(pump, "any,inc", ONE)
        assert (error.failed_step, error.step_index) == ("any", 0)  # what it answers is not known
        error = await ask(pump, "pool,say", ONE)
        assert (error.failed_step, error.step_index) == ("say", 1)


async def test_the_factory_may_be_a_step_or_a_target_itself() -> None:
    pump = a_pump()
    request = xml_of(SequenceRequest("inc,inc", ONE))
    async with tidy(pump):
        complete = await pump.request("system.sequence", SequenceStart("system.sequence.factory", request))
        assert read(SequenceComplete, complete.final_result).step_count == 2
        bad = xml_of(SequenceRequest("inc,say", ONE))
        error = await pump.request("system.sequence", SequenceStart("system.sequence.factory", bad))
        assert (error.failed_step, error.code) == ("system.sequence.factory", "validation")
