"""Starting, running and stopping, in every order; and that nobody is left waiting."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from xml_pipeline.errors import ConversationCancelled, NoAnswer, PumpStopped
from xml_pipeline.message_bus.message_state import HandlerResponse
from xml_pipeline.message_bus.stream_pump import StreamPump, get_stream_pump, reset_stream_pump, set_stream_pump

from .pump_kit import Ask, Gate, Other, Reply, echo, guard, quiesce, running, silent


@pytest.fixture
def quick_grace(monkeypatch):
    """Cancelled handlers are given up after a moment; how long is not what is tested."""
    monkeypatch.setattr("xml_pipeline.message_bus.worker_pool.GRACE", 0.02)


def make(**limits):
    pump = StreamPump(**limits)
    pump.register("tool", echo, Ask)
    return pump


def told(results):
    return {type(result).__name__ for result in results}


def outcomes(report):
    return {outcome: count for outcome, count in report.outcomes.items() if count}


# -- starting


async def test_start_registers_boot_opens_the_root_and_queues_the_boot_message():
    pump = make()
    await pump.start()
    assert "system.boot" in pump.listeners
    assert "system.boot.boot" in pump.routing_table
    assert pump.engine.registry.root_chain == "system.organism"
    assert pump.statistics().in_flight == 1
    assert get_stream_pump() is pump
    await pump.shutdown()


async def test_a_second_start_changes_nothing():
    pump = make()
    await pump.start()
    before = (pump.statistics(), dict(pump.listeners))
    await pump.start()
    assert (pump.statistics(), dict(pump.listeners)) == before
    await pump.shutdown()


async def test_boot_is_handled_first():
    seen = []
    pump = make()
    pump.subscribe_events(lambda event: seen.append(event.to_id) if hasattr(event, "to_id") else None)
    await pump.inject("tool", Ask())  # before it was started
    async with running(pump):
        pass
    received = [name for name in seen if name in ("system.boot", "tool")]
    assert received[0] == "system.boot"


async def test_messages_accepted_before_run_are_handled_by_it():
    pump = make()
    thread = await pump.inject("tool", Ask("early"))
    async with running(pump):
        assert await pump.wait(thread) == Reply("early")


# -- every order of verbs

VERBS = ("start", "run", "shutdown", "inject")


@pytest.mark.parametrize("order", list(itertools.permutations(VERBS)), ids=lambda order: "-".join(order))
async def test_every_order_ends_in_a_stopped_pump_and_one_outcome_per_message(order):
    pump = make()
    tasks, refused = [], 0
    async with guard():
        for verb in order:
            match verb:
                case "start":
                    stopped = "shutdown" in order[: order.index("start")]
                    with pytest.raises(PumpStopped) if stopped else contextlib.nullcontext():
                        await pump.start()
                case "run":
                    tasks.append(asyncio.create_task(pump.run()))
                    await quiesce(5)
                case "shutdown":
                    await pump.shutdown(5.0)
                case "inject":
                    try:
                        await pump.inject("tool", Ask("x"))
                    except PumpStopped:
                        refused += 1
        report = await pump.shutdown(5.0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
    stopped_before = order.index("shutdown") < order.index("run")
    assert [type(result) for result in results] == [PumpStopped if stopped_before else type(None)]
    assert refused == (order.index("shutdown") < order.index("inject"))
    statistics = pump.statistics()
    assert statistics.state == "stopped"
    assert statistics.in_flight == 0
    assert sum(report.outcomes.values()) == statistics.accepted


async def test_shutdown_of_a_pump_that_never_ran_tells_whoever_waits():
    pump = make()
    waiting = [asyncio.create_task(pump.request("tool", Ask(str(number)))) for number in range(3)]
    await quiesce()
    async with guard():
        report = await pump.shutdown()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert told(results) == {"PumpStopped"}
    assert (report.drained, report.cancelled) == (False, 3)
    assert outcomes(report) == {"cancelled": 3}


async def test_shutdown_of_an_untouched_pump():
    async with guard():
        report = await StreamPump().shutdown()
    assert (report.drained, report.cancelled, report.hung) == (True, 0, ())


async def test_a_second_shutdown_gets_the_first_ones_report():
    pump = make()
    async with running(pump):
        await pump.request("tool", Ask())
        first, second = await asyncio.gather(pump.shutdown(), pump.shutdown())
        assert first == second == await pump.shutdown()
        assert first.drained


async def test_shutdown_right_after_the_background_task_was_made():
    pump = make()
    async with guard():
        await pump.__aenter__()
        report = await pump.shutdown()  # the task has not had its first turn
    assert report.drained
    assert outcomes(report) == {"handled": 1}  # boot


async def test_a_second_run_is_refused_and_the_first_goes_on():
    pump = make()
    async with running(pump):
        with pytest.raises(RuntimeError, match="running already"):
            await pump.run()
        assert await pump.request("tool", Ask("x")) == Reply("x")


async def test_a_stopped_pump_cannot_run_again():
    pump = make()
    async with running(pump):
        pass
    with pytest.raises(PumpStopped):
        await pump.run()


# -- async with


async def test_enter_and_exit_in_different_tasks():
    pump = make()

    async def enter():
        await pump.__aenter__()

    async def leave():
        await pump.__aexit__(None, None, None)

    async with guard():
        await asyncio.create_task(enter())
        assert await pump.request("tool", Ask("x")) == Reply("x")
        await asyncio.create_task(leave())
    assert pump.statistics().state == "stopped"


async def test_leaving_the_block_drains():
    seen = []
    pump = StreamPump()

    async def tool(payload, metadata):
        await asyncio.sleep(0)
        seen.append(payload.text)

    pump.register("tool", tool, Ask)
    async with guard(), pump:
        for number in range(200):
            await pump.inject("tool", Ask(str(number)))
    assert len(seen) == 200


async def test_an_exception_in_the_block_comes_through():
    with pytest.raises(KeyError, match="mine"):
        async with make():
            raise KeyError("mine")


async def test_no_task_is_left_behind():
    before = asyncio.all_tasks()
    pump = make()
    pump.subscribe_events(lambda event: None)
    async with running(pump):
        await asyncio.gather(*(pump.request("tool", Ask()) for _ in range(50)))
    await quiesce()
    assert asyncio.all_tasks() == before


# -- draining


async def test_500_queued_and_20_running_are_all_finished():
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump):
        threads = [await pump.inject("tool", Ask(str(number))) for number in range(520)]
        await gate.until(lambda: gate.running == 20)
        stopping = asyncio.create_task(pump.shutdown(30.0))
        await quiesce()
        assert not stopping.done()
        gate.open()
        report = await stopping
    assert (report.drained, report.cancelled, report.hung) == (True, 0, ())
    assert len(gate.ended) == 520
    assert outcomes(report)["answered"] == 520
    assert len(threads) == 520


async def test_draining_finishes_whole_conversations():
    """Calls that handlers make while the pump drains are still served."""
    gate = Gate()
    pump = StreamPump()

    async def front(payload, metadata):
        return HandlerResponse(Ask("below"), "gate") if isinstance(payload, Ask) else HandlerResponse.respond(payload)

    pump.register("front", front, (Ask, Reply))
    pump.register("gate", gate, Ask)
    async with running(pump):
        asking = asyncio.create_task(pump.request("front", Ask()))
        await gate.until_begun(1)
        stopping = asyncio.create_task(pump.shutdown())
        await quiesce()
        gate.open()
        assert await asking == Reply("below")
        assert (await stopping).drained


async def test_new_work_is_refused_while_draining():
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump):
        await pump.inject("tool", Ask("last"))
        await gate.until_begun(1)
        stopping = asyncio.create_task(pump.shutdown())
        await quiesce()
        for verb in (pump.inject, pump.inject_nowait, pump.request):
            with pytest.raises(PumpStopped):
                await verb("tool", Ask())
        with pytest.raises(PumpStopped):
            async for _ in pump.stream("tool", Ask()):
                pass
        gate.open()
        await stopping
        with pytest.raises(PumpStopped):
            await pump.inject("tool", Ask())


async def test_whoever_waits_for_admission_is_refused_when_the_pump_stops():
    pump = make(max_queue=1)
    await pump.inject("tool", Ask())
    waiting = [asyncio.create_task(pump.inject("tool", Ask())) for _ in range(3)]
    await quiesce()
    async with guard():
        await pump.shutdown()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert told(results) == {"PumpStopped"}


# -- the deadline


async def test_at_the_deadline_what_is_left_is_cancelled_and_named():
    gate = Gate()
    pump = StreamPump(max_concurrent_handlers=3)
    pump.register("slow one", gate, Ask)
    async with running(pump):
        asking = [asyncio.create_task(pump.request("slow one", Ask(str(number)))) for number in range(10)]
        await gate.until(lambda: gate.running == 3)
        report = await pump.shutdown(0.01)
        results = await asyncio.gather(*asking, return_exceptions=True)
    assert told(results) == {"PumpStopped"}
    assert (report.drained, report.cancelled, report.hung) == (False, 10, ("slow one",))
    assert len(gate.cancelled) == 3
    statistics = pump.statistics()
    assert (statistics.in_flight, statistics.running, statistics.waiting, statistics.queued) == (0, 0, 0, 0)
    assert sum(report.outcomes.values()) == statistics.accepted


async def test_a_deadline_with_500_queued_and_20_running_gives_everybody_an_outcome():
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    events = []
    pump.subscribe_events(events.append)
    async with running(pump):
        asking = [asyncio.create_task(pump.request("tool", Ask(str(number)))) for number in range(520)]
        await gate.until(lambda: gate.running == 20)
        report = await pump.shutdown(0.01)
        results = await asyncio.gather(*asking, return_exceptions=True)
    assert told(results) == {"PumpStopped"}
    assert (report.cancelled, report.hung) == (520, ("tool",))
    assert outcomes(report) == {"handled": 1, "cancelled": 520}
    ended = [event for event in events if type(event).__name__ == "OutcomeEvent"]
    assert len({event.message_id for event in ended}) == len(ended) == 521  # each once, boot included
    killed = [event for event in events if getattr(event, "status", "") == "killed"]
    assert len(killed) >= 520


def holding():
    """A pump whose listener goes on waiting for something elsewhere when its handler has returned."""
    holds = []
    held = asyncio.Event()
    pump = StreamPump()

    async def hold(payload, metadata):
        holds.append(pump.engine.registry.hold(metadata.thread_id, "a call to elsewhere"))
        held.set()

    pump.register("holder", hold, Ask)
    return pump, holds, held


async def asked_by_request(pump):
    return await pump.request("holder", Ask())


async def asked_by_stream(pump):
    return [answer async for answer in pump.stream("holder", Ask())]


async def asked_by_wait(pump):
    return await pump.wait(await pump.inject("holder", Ask()))


@pytest.mark.parametrize("ask", [asked_by_request, asked_by_stream, asked_by_wait])
@pytest.mark.parametrize("timeout", [0.0, 0.02])
async def test_a_shutdown_tells_whoever_waits_on_a_held_conversation(ask, timeout):
    """Nothing of it is queued or running, and yet somebody waits."""
    pump, _, held = holding()
    events = []
    pump.subscribe_events(events.append)
    async with running(pump):
        asking = asyncio.create_task(ask(pump))
        await held.wait()
        await pump.wait_idle()
        report = await pump.shutdown(timeout)
        assert not report.drained
        with pytest.raises(PumpStopped):
            await asking
    statistics = pump.statistics()
    assert (statistics.open_conversations, statistics.open_frames) == (1, 1)  # the pump's own
    assert [event.status for event in events if getattr(event, "status", "") == "killed"] == ["killed"]


async def test_draining_waits_until_what_is_held_is_released():
    pump, holds, held = holding()
    async with running(pump):
        asking = asyncio.create_task(asked_by_request(pump))
        await held.wait()
        stopping = asyncio.create_task(pump.shutdown(3600))
        await quiesce()
        assert not stopping.done()
        assert not asking.done()
        holds[0].release()
        assert (await stopping).drained
        with pytest.raises(NoAnswer):
            await asking


async def test_a_hold_that_is_released_after_the_pump_stopped_changes_nothing():
    pump, holds, held = holding()
    async with running(pump):
        asking = asyncio.create_task(asked_by_request(pump))
        await held.wait()
        await pump.shutdown(0.0)
        await asyncio.gather(asking, return_exceptions=True)
        before = pump.statistics()
        holds[0].release()
        await quiesce()
        assert pump.statistics() == before


async def test_calls_below_a_cancelled_conversation_are_cancelled_too():
    gate = Gate()
    pump = StreamPump(max_concurrent_handlers=2)

    async def front(payload, metadata):
        return [HandlerResponse(Ask(str(number)), "slow") for number in range(payload.number)]

    pump.register("front", front, Other)
    pump.register("slow", gate, Ask)
    async with running(pump):
        await pump.inject("front", Other(10))
        await gate.until(lambda: gate.running == 2)
        report = await pump.shutdown(0.01)
    assert report.hung == ("slow",)
    assert pump.statistics().in_flight == 0
    assert pump.statistics().open_frames <= 1


async def test_a_handler_that_ignores_its_cancellation_is_named_and_not_waited_for(quick_grace):
    release = asyncio.Event()
    entered = asyncio.Event()
    pump = StreamPump()

    async def stubborn(payload, metadata):
        entered.set()
        for _ in range(2):  # the third one ends it, so that a test that fails does not hang
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
                break
        else:
            await release.wait()

    pump.register("stubborn", stubborn, Ask)
    async with guard():
        await pump.__aenter__()
        asking = asyncio.create_task(pump.request("stubborn", Ask()))
        await entered.wait()
        report = await pump.shutdown(0.01)
        assert report.hung == ("stubborn",)
        assert told(await asyncio.gather(asking, return_exceptions=True)) == {"PumpStopped"}
        assert pump.statistics().in_flight == 0
        release.set()
        await quiesce()


async def test_a_zero_timeout_stops_at_once():
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump):
        await pump.inject("tool", Ask("x"))
        await gate.until_begun(1)
        report = await pump.shutdown(0)
    assert (report.drained, report.hung) == (False, ("tool",))


async def test_a_handler_may_clean_up_when_it_is_cancelled():
    cleaned = []
    entered = asyncio.Event()
    pump = StreamPump()

    async def careful(payload, metadata):
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    pump.register("careful", careful, Ask)
    async with running(pump):
        await pump.inject("careful", Ask())
        await entered.wait()
        await pump.shutdown(0.01)
        assert cleaned == [True]


async def test_all_callbacks_are_called_before_shutdown_returns():
    seen = []
    pump = make()
    pump.subscribe_events(seen.append)
    async with running(pump):
        for _ in range(100):
            await pump.request("tool", Ask())
        await pump.shutdown()
        assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
        assert sum(type(event).__name__ == "OutcomeEvent" for event in seen) == pump.statistics().accepted


async def test_the_events_of_a_shut_down_pump_end():
    pump = make()
    events = pump.events()
    async with running(pump):
        await pump.request("tool", Ask())
    async with guard():
        kinds = [type(event).__name__ async for event in events]
    assert kinds[-1] == "ThreadEvent"


async def test_shutdown_goes_on_when_whoever_called_it_is_cancelled():
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump):
        asking = asyncio.create_task(pump.request("tool", Ask("x")))
        await gate.until_begun(1)
        stopping = asyncio.create_task(pump.shutdown())
        await quiesce()
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        gate.open()
        assert await asking == Reply("x")
        assert (await pump.shutdown()).drained


# -- run() is cancelled


async def test_a_cancelled_run_tells_whoever_waits_and_accepts_nothing_more():
    gate = Gate()
    pump = StreamPump(max_concurrent_handlers=2)
    pump.register("tool", gate, Ask)
    async with guard():
        run = asyncio.create_task(pump.run())
        await pump.wait_idle()
        asking = [asyncio.create_task(pump.request("tool", Ask(str(number)))) for number in range(5)]
        await gate.until(lambda: gate.running == 2)
        run.cancel()
        results = await asyncio.gather(run, *asking, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert all(isinstance(result, ConversationCancelled) for result in results[1:])
        assert len(gate.cancelled) == 2
        with pytest.raises(PumpStopped):
            await pump.inject("tool", Ask("late"))
        report = await pump.shutdown()
    assert pump.statistics().in_flight == 0
    assert sum(report.outcomes.values()) == pump.statistics().accepted


async def test_run_cancelled_before_its_first_turn():
    pump = make()
    async with guard():
        run = asyncio.create_task(pump.run())
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        report = await pump.shutdown()
    assert report.hung == ()


async def test_the_launchers_order_cancel_then_shutdown_leaves_no_task():
    before = asyncio.all_tasks()
    pump = make()
    async with guard():
        run = asyncio.create_task(pump.run())
        await pump.wait_idle()
        await pump.request("tool", Ask())
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await pump.shutdown()
    await quiesce()
    assert asyncio.all_tasks() == before


async def test_cancelling_run_under_asyncio_timeout():
    pump = make()
    async with guard():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await pump.run()
        await pump.shutdown()
    assert pump.statistics().state == "stopped"


# -- the program's main pump


async def test_a_stopped_pump_is_no_longer_the_main_one():
    reset_stream_pump()
    with pytest.raises(RuntimeError):
        get_stream_pump()
    async with running(make()) as pump:
        assert get_stream_pump() is pump
    with pytest.raises(RuntimeError):
        get_stream_pump()


async def test_stopping_one_pump_leaves_another_main_pump_alone():
    first, second = make(), make()
    async with running(first), running(second):
        set_stream_pump(second)
        await first.shutdown()
        assert get_stream_pump() is second
        assert await second.request("tool", Ask("x")) == Reply("x")


async def test_wait_idle_returns_at_once_on_an_idle_pump_and_when_the_last_message_ends():
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump):
        await pump.wait_idle()
        await pump.inject("tool", Ask())
        waiting = [asyncio.create_task(pump.wait_idle()) for _ in range(2)]
        await gate.until_begun(1)
        assert not any(task.done() for task in waiting)
        gate.open()
        await asyncio.gather(*waiting)


async def test_a_silent_pump_stops_though_it_was_never_idle_long():
    pump = StreamPump()
    pump.register("tool", silent, Ask)
    for _ in range(3):
        async with running(StreamPump()) as one:
            assert one.statistics().state == "running"
    await pump.shutdown()


async def test_a_stopped_pump_cannot_be_entered_again():
    pump = make()
    async with guard():
        async with pump:
            assert await pump.request("tool", Ask("x")) == Reply("x")
        before = asyncio.all_tasks()
        with pytest.raises(PumpStopped):
            async with pump:
                raise AssertionError("the block was entered")
        with pytest.raises(PumpStopped):
            await pump.start()
        assert asyncio.all_tasks() == before  # no run() that nobody looks after
    assert pump.statistics().state == "stopped"


async def test_a_draining_pump_cannot_be_entered():
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump):
        asking = asyncio.create_task(pump.request("tool", Ask("x")))
        await gate.until_begun(1)
        stopping = asyncio.create_task(pump.shutdown())
        await quiesce()
        with pytest.raises(PumpStopped):
            async with pump:
                raise AssertionError("the block was entered")
        gate.open()
        assert (await stopping).drained
        assert await asking == Reply("x")
