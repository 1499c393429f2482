"""Calls with a time limit, through a running pump."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import ConversationCancelled, DeadlineExceeded
from xml_pipeline.message_bus.message_state import SystemError

from .helpers import Gate, Recorder, reached
from .orchestration_kit import Number, Sum, Told, Word, fail, hang, increment, left, nothing, tidy
from .pump_kit import quiesce

SOON = 0.02
LATER = 60.0


class Caller:
    """An agent that makes the calls it is made with, keeps what comes, and answers when enough has come.

    Args:
        calls: to be made.
        awaited: how many messages it waits for.
    """

    def __init__(self, *calls: HandlerResponse, awaited: int = 1) -> None:
        self.calls = list(calls)
        self.got: list[tuple[Any, str, str]] = []
        self._awaited = awaited

    async def __call__(self, payload: Any, metadata: HandlerMetadata) -> Any:
        if isinstance(payload, Word):
            return self.calls
        self.got.append((payload, metadata.tag, metadata.from_id))
        return HandlerResponse.respond(Told("done")) if len(self.got) == self._awaited else None

    @property
    def codes(self) -> list[str]:
        return [payload.code if isinstance(payload, SystemError) else "ok" for payload, _, _ in self.got]


def a_pump(caller: Caller, **options: Any) -> StreamPump:
    pump = StreamPump(**options)
    pump.register("agent", caller, Word, agent=True, peers=["tool", "other", "pool", "middle", "blocker"])
    return pump


def call(to: str = "tool", timeout: float = SOON, tag: str = "t", **options: Any) -> HandlerResponse:
    return HandlerResponse.call(Number(1), to, tag=tag, timeout=timeout, **options)


@pytest.mark.parametrize("make", [call, lambda: HandlerResponse(Number(1), "tool", tag="t", timeout=SOON)])
async def test_a_call_that_takes_too_long_is_cancelled_and_its_caller_told(make: Any) -> None:
    caller, gate = Caller(make()), Gate()
    pump = a_pump(caller)
    pump.register("tool", gate, Number)
    async with tidy(pump) as audit:
        assert await pump.request("agent", Word()) == Told("done")
        await reached(gate.cancelled)
        await audit.idle()
        assert [event.code for event in audit.outcomes(outcome="cancelled", to_id="tool")] == ["timeout"]
    ((error, tag, from_id),) = caller.got
    assert (error.code, error.retry_allowed, tag, from_id) == ("timeout", True, "t", "system")


async def test_a_call_that_is_answered_in_time_is_only_answered() -> None:
    caller = Caller(call(timeout=SOON), call(timeout=LATER, tag="u"), awaited=2)
    pump = a_pump(caller)
    pump.register("tool", increment, Number)
    async with tidy(pump):
        await pump.request("agent", Word())
        assert left(pump).limited_calls == 0
        await asyncio.sleep(2 * SOON)  # its time passes, and nothing comes of it
    assert caller.got == [(Number(2), "t", "tool"), (Number(2), "u", "tool")]


@pytest.mark.parametrize(
    ("handler", "expected"),
    [(fail, "handler"), (nothing, "no-answer"), (hang, "timeout")],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_whatever_comes_first_is_all_that_comes(handler: Any, expected: str) -> None:
    caller = Caller(call(expect_answer=True), awaited=1)
    pump = a_pump(caller)
    pump.register("tool", handler, Number)
    async with tidy(pump) as audit:
        await pump.request("agent", Word())
        await audit.idle()
        await asyncio.sleep(2 * SOON)
    assert caller.codes == [expected]


async def test_what_the_call_has_called_is_cancelled_too() -> None:
    caller, gate = Caller(call("middle")), Gate()
    pump = a_pump(caller)

    async def middle(payload: Number, metadata: HandlerMetadata) -> list[HandlerResponse]:
        return [HandlerResponse(payload, "tool") for _ in range(3)]

    pump.register("middle", middle, Number)
    pump.register("tool", gate, Number)
    async with tidy(pump) as audit:
        await pump.request("agent", Word())
        await reached(gate.cancelled)
        await audit.idle()
        assert len(audit.outcomes(outcome="cancelled", to_id="tool")) == 3
    assert caller.codes == ["timeout"]


async def test_the_error_passes_a_tool_that_takes_none() -> None:
    """As any other error does; the tool is closed, and its other calls with it."""
    caller, gate = Caller(call("middle", timeout=LATER)), Gate()
    pump = a_pump(caller)

    async def middle(payload: Number, metadata: HandlerMetadata) -> list[HandlerResponse]:
        return [call("tool"), HandlerResponse(payload, "other")]

    pump.register("middle", middle, Number)
    pump.register("tool", hang, Number)
    pump.register("other", gate, Number)
    async with tidy(pump):
        await pump.request("agent", Word())
        await reached(gate.cancelled)
    assert [(code, tag) for code, (_, tag, _) in zip(caller.codes, caller.got, strict=True)] == [("timeout", "t")]


async def test_a_call_that_waits_for_its_turn_past_its_time_does_not_begin() -> None:
    gate, seen = Gate(Number(5)), []
    caller = Caller(call(timeout=LATER, tag="first"), call(tag="second"), awaited=2)
    pump = a_pump(caller)

    async def tool(payload: Number, metadata: HandlerMetadata) -> Any:
        seen.append(metadata.thread_id)
        if len(caller.got) == 0:
            return await gate(payload, metadata)
        raise AssertionError("it must not begin")

    pump.register("tool", tool, Number, concurrency=1)
    async with tidy(pump):
        waiting = asyncio.create_task(pump.request("agent", Word()))
        await reached(gate.entered)
        while not caller.got:  # noqa: ASYNC110, the second one's time must pass
            await asyncio.sleep(0.001)
        gate.opened.set()
        await waiting
    assert [(code, tag) for code, (_, tag, _) in zip(caller.codes, caller.got, strict=True)] == [
        ("timeout", "second"),
        ("ok", "first"),
    ]
    assert len(seen) == 1


async def test_a_call_whose_time_passed_while_the_loop_was_blocked_does_not_begin() -> None:
    """Its message may come before the timer, which the loop had no chance to look at."""
    begun = Recorder()
    caller = Caller(call("blocker", timeout=LATER), call("tool", timeout=0.005), awaited=2)
    pump = a_pump(caller)

    async def blocker(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        time.sleep(0.02)  # noqa: ASYNC251, that is the point
        return HandlerResponse.respond(Number(0))

    pump.register("blocker", blocker, Number)
    pump.register("tool", begun, Number)
    async with tidy(pump):
        await pump.request("agent", Word())
    assert begun.seen == []
    assert sorted(caller.codes) == ["ok", "timeout"]


async def test_each_member_of_a_group_has_the_time() -> None:
    caller = Caller(call("pool"), awaited=3)
    pump = a_pump(caller)
    pump.register("pool.quick", increment, Number, broadcast=True)
    pump.register("pool.slow", hang, Number, broadcast=True)
    pump.register("pool.lost", hang, Number, broadcast=True)
    async with tidy(pump):
        await pump.request("agent", Word())
    assert sorted(caller.codes) == ["ok", "timeout", "timeout"]


async def test_a_delegate_has_what_is_left_of_the_time() -> None:
    caller, gate = Caller(call("middle")), Gate()
    pump = a_pump(caller)
    deadlines = []

    async def middle(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        deadlines.append(metadata.deadline)
        return HandlerResponse.delegate(payload, "tool")

    async def tool(payload: Number, metadata: HandlerMetadata) -> Any:
        deadlines.append(metadata.deadline)
        return await gate(payload, metadata)

    pump.register("middle", middle, Number)
    pump.register("tool", tool, Number)
    async with tidy(pump):
        await pump.request("agent", Word())
        await reached(gate.cancelled)
    assert caller.codes == ["timeout"]
    assert deadlines[0] == deadlines[1]


async def test_the_deadline_that_a_handler_sees_is_the_earlier_one() -> None:
    seen: dict[str, float] = {}
    caller = Caller(call(timeout=5.0, tag="call"), call(timeout=500.0, tag="listener"), awaited=2)
    pump = a_pump(caller)

    async def tool(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        seen[str(len(seen))] = metadata.deadline - asyncio.get_running_loop().time()
        return HandlerResponse.respond(payload)

    pump.register("tool", tool, Number, timeout=100.0)
    async with tidy(pump):
        await pump.request("agent", Word())
    assert seen["0"] <= 5.0 < seen["1"] <= 100.0


async def test_a_stream_is_cut_off_and_the_caller_told() -> None:
    """The call is not over with its first answer; a caller that takes several gets the error behind them."""
    caller = Caller(call(), awaited=3)
    closed = asyncio.Event()
    pump = a_pump(caller)

    async def stream(payload: Number, metadata: HandlerMetadata) -> Any:
        try:
            yield HandlerResponse.respond(Number(1))
            yield HandlerResponse.respond(Number(2))
            await asyncio.Event().wait()
        finally:
            closed.set()

    pump.register("tool", stream, Number)
    async with tidy(pump):
        await pump.request("agent", Word())
        await reached(closed)
    assert caller.codes == ["ok", "ok", "timeout"]


async def test_every_turn_of_the_call_counts() -> None:
    """Its time is not that of one handler call."""
    caller, turns = Caller(call()), []
    pump = a_pump(caller)

    async def restless(payload: Number, metadata: HandlerMetadata) -> HandlerResponse:
        turns.append(metadata.deadline)
        await asyncio.sleep(0.001)
        return HandlerResponse(payload, "tool")

    pump.register("tool", restless, Number)
    async with tidy(pump):
        await pump.request("agent", Word())
    assert caller.codes == ["timeout"]
    assert len(turns) > 1
    assert len(set(turns)) == 1


async def test_a_caller_that_has_ended_is_told_nothing() -> None:
    gate = Gate()
    pump = StreamPump()

    async def agent(payload: Word, metadata: HandlerMetadata) -> list[HandlerResponse]:
        return [call(), HandlerResponse.respond(Told("bye"))]

    pump.register("agent", agent, Word, agent=True, peers=["tool"])
    pump.register("tool", gate, Number)
    async with tidy(pump) as audit:
        assert await pump.request("agent", Word()) == Told("bye")
        await reached(gate.cancelled)
        await audit.idle()
        assert audit.outcomes(outcome="failed") == []
        assert len(pump.dead_letters) == 0


@pytest.mark.parametrize("seconds", [-1.0, -0.0001, math.nan, math.inf, True, "1", 10**400, [1]])
async def test_a_wrong_time_is_told_to_the_caller_and_nothing_is_sent(seconds: Any) -> None:
    begun = Recorder()
    caller = Caller(call(timeout=seconds), awaited=1)
    pump = a_pump(caller)
    pump.register("tool", begun, Number)
    async with tidy(pump):
        await pump.request("agent", Word())
    assert caller.codes == ["handler"]
    assert caller.got[0][1] == "t"
    assert begun.seen == []


@pytest.mark.parametrize("seconds", [0, 0.0, None])
async def test_no_time_is_no_limit(seconds: Any) -> None:
    caller = Caller(call(timeout=seconds))
    pump = a_pump(caller)
    pump.register("tool", increment, Number)
    async with tidy(pump):
        await pump.request("agent", Word())
    assert caller.codes == ["ok"]


async def test_cancelling_and_stopping_end_limited_calls() -> None:
    for how in ("cancel", "frame", "shutdown"):
        caller, gate = Caller(call(timeout=LATER)), Gate()
        pump = a_pump(caller)
        frames: list[str] = []

        async def tool(payload: Number, metadata: HandlerMetadata, gate: Gate = gate, frames: Any = frames) -> Any:
            frames.append(metadata.thread_id)
            return await gate(payload, metadata)

        pump.register("tool", tool, Number)
        await pump.__aenter__()
        thread = await pump.inject("agent", Word())
        await reached(gate.entered)
        assert left(pump).limited_calls == 1
        if how == "cancel":
            pump.cancel(thread)
        elif how == "frame":
            pump.cancel(frames[0])
            await pump.wait_idle()
            assert caller.codes == ["cancelled"]
        await pump.shutdown(0.0)
        assert left(pump).limited_calls == 0
        assert gate.cancelled.is_set()
        if how != "frame":
            with pytest.raises(ConversationCancelled):
                await pump.wait(thread)


async def test_a_request_from_outside_ends_with_the_error_of_its_tool() -> None:
    pump = StreamPump()

    async def front(payload: Word, metadata: HandlerMetadata) -> HandlerResponse:
        return call()

    pump.register("front", front, Word)
    pump.register("tool", hang, Number)
    async with tidy(pump):
        with pytest.raises(DeadlineExceeded) as caught:
            await pump.request("front", Word())
    assert caught.value.detail == "the call of 'tool' took too long"
    assert str(caught.value) == DeadlineExceeded.public_message


async def test_many_calls_that_end_at_once_all_end() -> None:
    """Some run, the others wait for their turn."""
    pump = StreamPump(max_concurrent_handlers=10)
    caller = Caller(*(call(tag=str(n), timeout=10 * SOON) for n in range(500)), awaited=500)
    pump.register("agent", caller, Word, agent=True, peers=["tool"])
    pump.register("tool", hang, Number)
    async with tidy(pump) as audit:
        assert await pump.request("agent", Word()) == Told("done")
        await audit.idle()
        # A machine that is slow may come to some of them too late; those have failed instead.
        ended = [event.outcome for event in audit.outcomes(to_id="tool")]
        assert len(ended) == 500
        assert {*ended} <= {"cancelled", "failed"}
    assert caller.codes == ["timeout"] * 500
    assert sorted(tag for _, tag, _ in caller.got) == sorted(map(str, range(500)))


async def test_limits_of_calls_within_limited_calls() -> None:
    """The inner one is over first; the outer one goes on, and answers in its own time."""
    caller = Caller(call("middle", timeout=LATER))
    pump = a_pump(caller)

    async def middle(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
        if isinstance(payload, SystemError):
            return HandlerResponse.respond(Sum(len(payload.code)))
        return call("tool")

    pump.register("middle", middle, (Number, SystemError))
    pump.register("tool", hang, Number)
    async with tidy(pump):
        await pump.request("agent", Word())
        await quiesce()
    assert caller.got == [(Sum(len("timeout")), "t", "middle")]
