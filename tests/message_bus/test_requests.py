"""Asking from outside: request, stream, wait, inject, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import (
    ConversationCancelled,
    DeadlineExceeded,
    HandlerError,
    NoAnswer,
    PipelineError,
    RoutingError,
    ValidationError,
)

from .helpers import PATIENCE, Ask, Gate, Note, Recorder, Reply, audited, calls, crash, echo, reached, read_all

CHOSEN = "0b1d3c7e-6f0a-4f3b-9d0e-1c2b3a4d5e6f"


def answers(*words: str) -> Recorder:
    return Recorder(lambda ask, _: [HandlerResponse.respond(Reply(word)) for word in words])


# --- request ----------------------------------------------------------------------------------------------------------


async def test_request_returns_the_first_answer_and_later_ones_expire() -> None:
    pump = StreamPump()
    pump.register("talker", answers("one", "two", "three"), Ask)
    async with audited(pump) as audit:
        assert await pump.request("talker", Ask()) == Reply("one")
        await audit.idle()
        out = audit.outcomes(payload_type="Reply")
        assert [event.outcome for event in out] == ["handled", "expired", "expired"]
        assert {event.to_id for event in out} == {"external"}


async def test_an_error_after_the_first_answer_is_no_longer_raised_and_becomes_a_dead_letter() -> None:
    gate = Gate()

    async def fail_late(payload: Ask, metadata: HandlerMetadata) -> Any:
        await gate(payload, metadata)
        raise RuntimeError("too late")

    pump = StreamPump()
    pump.register(
        "hasty", Recorder(lambda a, _: [HandlerResponse.respond(Reply("now")), HandlerResponse(a, "late")]), Ask
    )
    pump.register("late", fail_late, Ask)
    async with audited(pump) as audit:
        assert await pump.request("hasty", Ask()) == Reply("now")
        gate.opened.set()
        await audit.idle()
        (event,) = audit.outcomes(to_id="late")
        assert event.outcome in ("expired", "dead-lettered")
        assert event.code == "handler"


async def test_a_request_without_an_answer_raises_once_the_conversation_is_complete() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("quiet", gate, Ask)
    async with audited(pump) as audit:
        request = asyncio.create_task(pump.request("quiet", Ask()))
        await reached(gate.entered)
        assert not request.done()
        gate.opened.set()
        with pytest.raises(NoAnswer) as caught:
            await request
        await audit.idle()
    assert "'quiet'" in caught.value.detail


async def test_a_request_that_takes_too_long_cancels_its_conversation() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("agent", calls("slow"), Ask, agent=True, peers=["slow"])
    pump.register("slow", gate, Ask)
    async with audited(pump) as audit:
        with pytest.raises(DeadlineExceeded) as caught:
            await pump.request("agent", Ask(), timeout=0.05, thread_id=CHOSEN)
        await reached(gate.cancelled)
        await audit.idle()
        assert audit.statuses(CHOSEN)[-1] == "killed"
    assert isinstance(caught.value, TimeoutError)
    assert "'agent'" in caught.value.detail


async def test_whoever_asks_and_is_cancelled_cancels_the_conversation() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("slow", gate, Ask)
    async with audited(pump):
        request = asyncio.create_task(pump.request("slow", Ask()))
        await reached(gate.entered)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await reached(gate.cancelled)


async def test_the_answer_is_an_object_of_the_class_it_was_made_from_and_a_copy() -> None:
    kept = Reply("mine")
    pump = StreamPump()
    pump.register("tool", Recorder(lambda ask, _: HandlerResponse.respond(kept)), Ask)
    async with audited(pump):
        answer = await pump.request("tool", Ask())
        assert answer == kept
        assert answer is not kept
        answer.text = "changed"
        assert await pump.request("tool", Ask()) == Reply("mine")


async def test_many_requests_at_once_get_their_own_answers() -> None:
    pump = StreamPump()
    pump.register("agent", calls("tool"), Ask, agent=True, peers=["tool"])
    pump.register("tool", echo, Ask)
    async with audited(pump):
        texts = [str(number) for number in range(200)]
        got = await asyncio.gather(*(pump.request("agent", Ask(text)) for text in texts))
    assert [reply.text for reply in got] == texts


@pytest.mark.parametrize("payload", ["text", 7, {"a": 1}, object(), Ask])
async def test_what_is_no_payload_is_a_type_error_at_once(payload: object) -> None:
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with audited(pump) as audit:
        with pytest.raises(TypeError):
            await pump.request("tool", payload)
        with pytest.raises(TypeError):
            await pump.inject("tool", payload)
        assert not audit.outcomes()


async def test_a_missing_payload_is_a_type_error() -> None:
    pump = StreamPump()
    async with audited(pump):
        with pytest.raises(TypeError):
            await pump.inject("tool", None)


# --- a handler asks its own pump --------------------------------------------------------------------------------------


async def test_a_handler_may_request_of_its_own_pump_in_a_conversation_of_its_own() -> None:
    pump = StreamPump()
    inner = Recorder(lambda ask, _: HandlerResponse.respond(Reply(ask.text + "!")))

    async def outer(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        answer = await pump.request("inner", payload)
        assert metadata.conversation_id != inner.metadata[0].conversation_id
        return HandlerResponse.respond(answer)

    pump.register("outer", outer, Ask)
    pump.register("inner", inner, Ask)
    async with audited(pump):
        assert await pump.request("outer", Ask("x")) == Reply("x!")


async def test_an_error_of_a_request_inside_a_handler_is_that_handlers_exception() -> None:
    pump = StreamPump()

    async def outer(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        if payload.text == "catch":
            with pytest.raises(RoutingError):
                await pump.request("nowhere", payload)
            return HandlerResponse.respond(Reply("caught"))
        return HandlerResponse.respond(await pump.request("nowhere", payload))

    pump.register("outer", outer, Ask)
    async with audited(pump):
        assert await pump.request("outer", Ask("catch")) == Reply("caught")
        with pytest.raises(HandlerError):
            await pump.request("outer", Ask("let it pass"))


async def test_requests_inside_handlers_never_deadlock_even_when_every_slot_asks() -> None:
    """All handler slots are taken by handlers that each ask the pump for something that needs a slot."""
    pump = StreamPump(max_concurrent_handlers=2)

    async def outer(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(await pump.request("inner", payload, timeout=2.0))

    pump.register("outer", outer, Ask)
    pump.register("inner", echo, Ask)
    async with audited(pump):
        got = await asyncio.gather(*(pump.request("outer", Ask(str(n)), timeout=PATIENCE) for n in range(4)))
    assert got == [Reply(str(n)) for n in range(4)]


async def test_a_saturated_agent_may_ask_itself_from_inside() -> None:
    pump = StreamPump(max_concurrent_per_agent=1)

    async def factorial(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        number = int(payload.text)
        if number <= 1:
            return HandlerResponse.respond(Reply("1"))
        below = await pump.request("factorial", Ask(str(number - 1)), timeout=2.0)
        return HandlerResponse.respond(Reply(str(number * int(below.text))))

    pump.register("factorial", factorial, Ask, agent=True, peers=[])
    async with audited(pump):
        assert await pump.request("factorial", Ask("5"), timeout=PATIENCE) == Reply("120")


# --- stream -----------------------------------------------------------------------------------------------------------


async def test_stream_yields_every_answer_until_the_conversation_is_complete() -> None:
    pump = StreamPump()
    pump.register("talker", answers("one", "two", "three"), Ask)
    pump.register("quiet", Recorder(), Ask)
    async with audited(pump):
        assert [answer.text async for answer in pump.stream("talker", Ask())] == ["one", "two", "three"]
        assert [answer async for answer in pump.stream("quiet", Ask())] == []


async def test_stream_raises_the_error_after_the_answers_before_it() -> None:
    gate = Gate()

    async def two(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        yield HandlerResponse.respond(Reply("one"))
        await gate(payload, metadata)
        raise RuntimeError("no more")

    pump = StreamPump()
    pump.register("two", two, Ask)
    got: list[str] = []
    async with audited(pump):
        with pytest.raises(HandlerError):
            async for answer in pump.stream("two", Ask()):
                got.append(answer.text)
                gate.opened.set()
    assert got == ["one"]


@pytest.mark.parametrize("target", ["nowhere", "crash"])
async def test_stream_raises_what_request_raises(target: str) -> None:
    pump = StreamPump()
    pump.register("crash", crash, Ask)
    async with audited(pump):
        with pytest.raises(PipelineError):
            async for _ in pump.stream(target, Ask()):
                raise AssertionError


async def endless(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
    number = 0
    while True:
        yield HandlerResponse.respond(Reply(str(number)))
        number += 1
        await asyncio.sleep(0)


async def test_leaving_a_stream_early_cancels_its_conversation() -> None:
    pump = StreamPump()
    pump.register("endless", endless, Ask)
    async with audited(pump) as audit:
        async with aclosing(pump.stream("endless", Ask(), thread_id=CHOSEN)) as stream:
            async for answer in stream:
                if answer == Reply("3"):
                    break
        await audit.idle()
        assert audit.statuses(CHOSEN)[-1] == "killed"


async def test_breaking_out_of_a_stream_cancels_its_conversation() -> None:
    pump = StreamPump()
    pump.register("endless", endless, Ask)
    async with audited(pump) as audit:
        async for answer in pump.stream("endless", Ask(), thread_id=CHOSEN):
            if answer == Reply("3"):
                break
        await audit.idle()
        assert audit.statuses(CHOSEN)[-1] == "killed"


async def test_the_timeout_of_a_stream_is_inactivity() -> None:
    gate = Gate()

    async def two(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        yield HandlerResponse.respond(Reply("one"))
        await gate(payload, metadata)

    pump = StreamPump()
    pump.register("two", two, Ask)
    got: list[Any] = []
    async with audited(pump):
        with pytest.raises(DeadlineExceeded):
            await read_all(pump.stream("two", Ask(), timeout=0.1), got)
        await reached(gate.cancelled)
    assert got == [Reply("one")]


@pytest.mark.parametrize("full", ["max_queue", "max_queue_per_listener"])
async def test_the_timeout_of_a_stream_covers_waiting_for_room(full: str) -> None:
    pump = StreamPump(**{full: 1})
    pump.register("echo", echo, Ask)
    await pump.start()
    first = await pump.inject("echo", Ask("first"))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(DeadlineExceeded) as caught:
            await read_all(pump.stream("echo", Ask("second"), timeout=0.02), [])
    assert "room" in caught.value.detail
    async with audited(pump) as audit:
        assert await pump.wait(first) == Reply("first")
        assert [answer async for answer in pump.stream("echo", Ask("third"))] == [Reply("third")]
        await audit.idle()
        assert not audit.outcomes(outcome="cancelled")


async def test_room_that_comes_in_time_does_not_shorten_a_streams_patience() -> None:
    """The time of waiting for room is over once there is some."""
    gate = Gate(Reply("slow"))
    pump = StreamPump(max_queue_per_listener=1)
    pump.register("slow", gate, Ask, concurrency=1)
    async with audited(pump):
        first = asyncio.create_task(pump.request("slow", Ask()))
        await reached(gate.entered)
        second = asyncio.create_task(pump.request("slow", Ask()))
        third = asyncio.create_task(read_all(pump.stream("slow", Ask(), timeout=PATIENCE), got := []))
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, second, third)
    assert got == [Reply("slow")]


async def test_an_error_that_is_read_late_does_not_touch_the_next_turn_of_the_conversation() -> None:
    async def fail(payload: Ask, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        yield HandlerResponse.respond(Reply("first"))
        raise RuntimeError("no more")

    gate = Gate(Reply("second"))
    pump = StreamPump()
    pump.register("fail", fail, Ask)
    pump.register("slow", gate, Ask)
    async with audited(pump) as audit:
        stream = pump.stream("fail", Ask(), thread_id=CHOSEN)
        assert await anext(stream) == Reply("first")
        await audit.idle()
        second = asyncio.create_task(pump.request("slow", Ask(), thread_id=CHOSEN))
        await reached(gate.entered)
        with pytest.raises(HandlerError):
            await anext(stream)
        gate.opened.set()
        assert await second == Reply("second")


async def test_ending_a_stream_does_not_touch_the_next_turn_of_its_conversation() -> None:
    gate = Gate(Reply("second"))
    pump = StreamPump()
    pump.register("talker", answers("first"), Ask)
    pump.register("slow", gate, Ask)
    async with audited(pump) as audit:
        stream = pump.stream("talker", Ask(), thread_id=CHOSEN)
        assert await anext(stream) == Reply("first")
        await audit.idle()
        second = asyncio.create_task(pump.request("slow", Ask(), thread_id=CHOSEN))
        await reached(gate.entered)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        gate.opened.set()
        assert await second == Reply("second")


# --- inject and wait --------------------------------------------------------------------------------------------------


async def test_wait_does_for_inject_what_request_does_however_late_it_is_called() -> None:
    gate = Gate(Reply("slow"))
    pump = StreamPump()
    pump.register("echo", echo, Ask)
    pump.register("crash", crash, Ask)
    pump.register("quiet", Recorder(), Ask)
    pump.register("slow", gate, Ask)
    async with audited(pump) as audit:
        threads = {name: await pump.inject(name, Ask("x")) for name in ("echo", "crash", "quiet", "slow")}
        waiting = asyncio.create_task(pump.wait(threads["slow"]))
        await reached(gate.entered)
        gate.opened.set()
        assert await waiting == Reply("slow")
        await audit.idle()
        assert await pump.wait(threads["echo"]) == Reply("x")
        assert await pump.wait(threads["echo"]) == Reply("x")
        with pytest.raises(HandlerError):
            await pump.wait(threads["crash"])
        with pytest.raises(NoAnswer):
            await pump.wait(threads["quiet"])


async def test_several_may_wait_for_one_conversation() -> None:
    gate = Gate(Reply("x"))
    pump = StreamPump()
    pump.register("slow", gate, Ask)
    async with audited(pump):
        thread = await pump.inject("slow", Ask())
        waits = [asyncio.create_task(pump.wait(thread)) for _ in range(3)]
        await reached(gate.entered)
        gate.opened.set()
        assert await asyncio.gather(*waits) == [Reply("x")] * 3


async def test_wait_for_what_is_not_known_is_refused() -> None:
    pump = StreamPump()
    async with audited(pump):
        with pytest.raises(ValidationError):
            await pump.wait(CHOSEN)
        assert pump.cancel(CHOSEN) is False


async def test_wait_has_a_timeout() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("slow", gate, Ask)
    async with audited(pump):
        thread = await pump.inject("slow", Ask())
        with pytest.raises(DeadlineExceeded):
            await pump.wait(thread, timeout=0.05)
        await reached(gate.cancelled)


async def test_cancel_is_seen_by_request_stream_and_wait() -> None:
    gate = Gate()
    pump = StreamPump()
    pump.register("slow", gate, Ask)

    async def drain() -> None:
        async for _ in pump.stream("slow", Ask(), thread_id="7c9e6679-7425-40de-944b-e07fc1f90ae7"):
            raise AssertionError

    async with audited(pump):
        request = asyncio.create_task(pump.request("slow", Ask(), thread_id=CHOSEN))
        stream = asyncio.create_task(drain())
        thread = await pump.inject("slow", Ask())
        wait = asyncio.create_task(pump.wait(thread))
        await reached(gate.entered)
        for cancelled, task in ((CHOSEN, request), ("7c9e6679-7425-40de-944b-e07fc1f90ae7", stream), (thread, wait)):
            assert pump.cancel(cancelled)
            with pytest.raises(ConversationCancelled):
                await task


async def test_a_request_may_be_made_before_the_pump_runs() -> None:
    pump = StreamPump()
    pump.register("echo", echo, Ask)
    request = asyncio.create_task(pump.request("echo", Ask("early")))
    await asyncio.sleep(0)
    async with audited(pump):
        assert await request == Reply("early")


async def test_four_hops_deliver_the_right_class_at_each() -> None:
    """console-router, greeter, shouter, response-handler: the chain of the getting-started guide."""
    handler = Recorder()
    pump = StreamPump()
    pump.register("console-router", Recorder(lambda ask, _: HandlerResponse(Note(ask.text), "greeter")), Ask)
    pump.register("greeter", Recorder(lambda note, _: HandlerResponse(Reply(f"Hello {note.text}"), "shouter")), Note)
    pump.register("shouter", Recorder(lambda r, _: HandlerResponse(Reply(r.text.upper()), "response-handler")), Reply)
    pump.register("response-handler", handler, Reply)
    async with audited(pump) as audit:
        thread = await pump.inject("console-router", Ask("Ada"))
        await audit.idle()
        assert pump.engine.registry.lookup(thread) is not None
    assert handler.payloads == [Reply("HELLO ADA")]


@pytest.mark.parametrize("timeout", [float("nan"), -1])
async def test_a_timeout_that_is_no_time_is_refused(timeout: float) -> None:
    pump = StreamPump()
    pump.register("echo", echo, Ask)
    async with pump:
        with pytest.raises(ValueError, match="must be a number of seconds"):
            await pump.request("echo", Ask(), timeout=timeout)
        with pytest.raises(TypeError, match="must be a number of seconds"):
            await pump.request("echo", Ask(), timeout="5")  # type: ignore[arg-type]
        assert pump.engine.registry.open_conversations == 1  # the pump's own
