"""Order within a frame, concurrency across frames, and who has to wait for whom. Asserted by the order of events."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

import pytest

from xml_pipeline.envelope import message_text
from xml_pipeline.errors import Overloaded
from xml_pipeline.message_bus.message_state import HandlerResponse
from xml_pipeline.message_bus.stream_pump import StreamPump

from .pump_kit import Ask, Gate, Other, Reply, echo, guard, quiesce, running, until

# -- order within a frame


async def test_answers_on_one_frame_are_handled_one_after_another_in_order():
    log = []
    pump = StreamPump()

    async def agent(payload, metadata):
        if isinstance(payload, Ask):
            return [HandlerResponse(Other(number), "tool", tag=str(number)) for number in range(3)]
        log.append(("begin", metadata.tag))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        log.append(("end", metadata.tag))
        return HandlerResponse.respond(Reply()) if len(log) == 6 else None

    async def tool(payload, metadata):
        return HandlerResponse.respond(Reply(str(payload.number)))

    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Other)
    async with running(pump):
        await pump.request("agent", Ask())
    assert [kind for kind, _ in log] == ["begin", "end"] * 3
    assert [tag for kind, tag in log if kind == "end"] == ["0", "1", "2"]


async def test_parallel_calls_to_one_tool_run_at_the_same_time():
    gate = Gate()
    tags = []
    pump = StreamPump()

    async def agent(payload, metadata):
        if isinstance(payload, Ask):
            return [HandlerResponse(Other(number), "tool", tag=f"t{number}") for number in range(3)]
        tags.append((metadata.tag, payload.text))
        return HandlerResponse.respond(Reply("all")) if len(tags) == 3 else None

    async def tool(payload, metadata):
        return await gate(Ask(str(payload.number)), metadata)

    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Other)
    async with running(pump):
        asking = asyncio.create_task(pump.request("agent", Ask()))
        await gate.until(lambda: gate.running == 3)
        gate.open()
        assert await asking == Reply("all")
    assert sorted(tags) == [("t0", "0"), ("t1", "1"), ("t2", "2")]


async def test_turns_on_one_frame_keep_the_order_they_were_sent_in():
    seen = []
    pump = StreamPump()

    async def again(payload, metadata):
        seen.append(payload.number)
        await asyncio.sleep(0)
        if payload.number == 0:
            return [HandlerResponse(Other(number), "again") for number in range(1, 30)]
        return None

    pump.register("again", again, Other)
    async with running(pump):
        await pump.inject("again", Other(0))
        await pump.wait_idle()
    assert seen == list(range(30))


async def test_ordered_false_lets_turns_of_one_frame_overlap():
    gate = Gate(answer=False)
    pump = StreamPump()

    async def again(payload, metadata):
        if payload.number == 0:
            return [HandlerResponse(Other(number), "again") for number in range(1, 5)]
        return await gate(Ask(str(payload.number)), metadata)

    pump.register("again", again, Other, ordered=False)
    async with running(pump):
        await pump.inject("again", Other(0))
        await gate.until(lambda: gate.running == 4)
        gate.open()
        await pump.wait_idle()


async def test_an_ordered_listener_never_overlaps_on_one_frame():
    most = Counter()
    running_now = Counter()
    pump = StreamPump()

    async def again(payload, metadata):
        frame = metadata.thread_id
        running_now[frame] += 1
        most[frame] = max(most[frame], running_now[frame])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running_now[frame] -= 1
        return [HandlerResponse(Other(payload.number - 1), "again")] * 2 if payload.number else None

    pump.register("again", again, Other)
    async with running(pump):
        for _ in range(5):
            await pump.inject("again", Other(4))
        await pump.wait_idle()
    assert len(most) == 5
    assert set(most.values()) == {1}


async def test_turns_of_one_conversation_from_outside_do_not_wait_for_each_other():
    """Each is a root frame of its own."""
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump):
        thread = await pump.inject("tool", Ask("1"))
        await pump.inject("tool", Ask("2"), thread_id=thread)
        await gate.until(lambda: gate.running == 2)
        gate.open()
        await pump.wait_idle()


# -- limits hold, and are reached


@pytest.mark.parametrize(
    ("limits", "options", "expected"),
    [
        pytest.param({"max_concurrent_handlers": 7}, {}, 7, id="global"),
        pytest.param({"max_concurrent_per_agent": 3}, {"agent": True}, 3, id="per agent"),
        pytest.param({}, {"concurrency": 4}, 4, id="own"),
        pytest.param({"max_concurrent_per_agent": 3}, {"agent": True, "concurrency": 6}, 6, id="own above agents'"),
        pytest.param({"max_concurrent_handlers": 2}, {"concurrency": 6}, 2, id="global below own"),
        pytest.param({"max_concurrent_per_agent": 3, "max_concurrent_handlers": 9}, {}, 9, id="tools are not agents"),
        pytest.param({}, {}, 20, id="default global"),
        pytest.param({}, {"agent": True}, 5, id="default per agent"),
    ],
)
async def test_limits_of_concurrency_are_reached_and_kept(limits, options, expected):
    gate = Gate(answer=False)
    pump = StreamPump(**limits)
    pump.register("tool", gate, Ask, **options)
    async with running(pump):
        for number in range(30):
            await pump.inject("tool", Ask(str(number)))
        await gate.until(lambda: gate.running == expected)
        await quiesce()
        assert gate.running == expected
        gate.open()
        await pump.wait_idle()
    assert gate.most == expected
    assert len(gate.ended) == 30


@pytest.mark.parametrize("options", [{}, {"rate": 1000}], ids=["at once", "through the line"])
async def test_a_message_that_comes_while_others_run_need_not_wait_for_them(options):
    gate = Gate(answer=False)
    pump = StreamPump()
    pump.register("tool", gate, Ask, concurrency=3, **options)
    async with running(pump):
        for number in range(3):
            await pump.inject("tool", Ask(str(number)))
            await gate.until(lambda: gate.running == number + 1)  # noqa: B023, at once
        gate.open()
        await pump.wait_idle()


async def test_the_limit_of_one_listener_is_not_shared_with_another():
    first, second = Gate(answer=False), Gate(answer=False)
    pump = StreamPump(max_concurrent_per_agent=2)
    pump.register("first", first, Ask, agent=True)
    pump.register("second", second, Ask, agent=True)
    async with running(pump):
        for number in range(4):
            await pump.inject("first", Ask(str(number)))
            await pump.inject("second", Ask(str(number)))
        await first.until(lambda: first.running == 2)
        await second.until(lambda: second.running == 2)
        first.open()
        second.open()


async def test_handlers_that_do_not_wait_have_no_need_of_many_workers():
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with running(pump):
        await asyncio.gather(*(pump.request("tool", Ask()) for _ in range(200)))
        assert len(pump.engine.dispatcher.pool.workers) < 10


# -- who waits for whom


async def test_a_saturated_agent_delays_nobody_else():
    """With an agent that never gets on, every message to another listener is answered."""
    gate = Gate(answer=False)
    pump = StreamPump(max_concurrent_per_agent=5, max_concurrent_handlers=6)
    pump.register("busy", gate, Ask, agent=True)
    pump.register("free", echo, Ask)
    async with running(pump):
        flood = asyncio.gather(*(pump.inject("busy", Ask(str(number))) for number in range(1500)))
        await gate.until(lambda: gate.running == 5)
        for number in range(20):
            assert await pump.request("free", Ask(str(number))) == Reply(str(number))
        assert gate.ended == []
        gate.open()
        await flood
        await pump.wait_idle()
    assert len(gate.ended) == 1500


async def test_a_saturated_agent_delays_no_conversation_in_progress():
    gate = Gate(answer=False)
    pump = StreamPump(max_concurrent_per_agent=1, max_concurrent_handlers=2, max_concurrent_pipelines=4)

    async def front(payload, metadata):
        return HandlerResponse(Other(3), "chain")

    async def chain(payload, metadata):
        if payload.number == 0:
            return HandlerResponse.respond(Reply("end"))
        return HandlerResponse.call(Other(payload.number - 1), "chain")

    pump.register("busy", gate, Ask, agent=True)
    pump.register("front", front, Ask)
    pump.register("chain", chain, Other)
    async with running(pump):
        for number in range(300):
            await pump.inject("busy", Ask(str(number)))
        await gate.until_begun(1)
        assert await pump.request("front", Ask()) == Reply("end")
        assert gate.ended == []
        gate.open()


async def test_internal_messages_to_a_saturated_agent_hold_up_nobody():
    """Calls from inside, too, wait in the agent's own line, not inside the pipeline."""
    gate = Gate()
    pump = StreamPump(max_concurrent_per_agent=1, max_concurrent_handlers=3, max_concurrent_pipelines=2)

    async def front(payload, metadata):
        return [HandlerResponse(Ask(str(number)), "busy") for number in range(100)]

    pump.register("busy", gate, Ask, agent=True)
    pump.register("front", front, Other)
    pump.register("free", echo, Ask)
    async with running(pump):
        await pump.inject("front", Other())
        await gate.until_begun(1)
        for _ in range(5):
            await pump.request("free", Ask())
        assert gate.ended == []
        gate.open()


async def test_a_chatty_conversation_does_not_starve_the_others():
    """One that breeds messages without end shares the pump with new ones."""
    stop = []
    pump = StreamPump(max_turns=10**9, max_hops=10**9)

    async def breed(payload, metadata):
        return None if stop else HandlerResponse(Other(payload.number + 1), "breed")

    pump.register("breed", breed, Other)
    pump.register("free", echo, Ask)
    async with running(pump):
        for _ in range(100):
            await pump.inject("breed", Other())
        for number in range(30):
            assert await pump.request("free", Ask(str(number))) == Reply(str(number))
        stop.append(True)
        await pump.wait_idle()


async def test_a_handler_that_never_suspends_lets_the_loop_have_its_turn():
    turns = []
    pump = StreamPump()

    async def quick(payload, metadata):
        turns.append(None)

    pump.register("quick", quick, Ask)
    async with running(pump):
        for _ in range(1000):
            await pump.inject_nowait("quick", Ask())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(turns) < 1000
        await pump.wait_idle()
    assert len(turns) == 1000


# -- conversations of one target


async def _served(scheduling, plan, *, slots=1):
    """In which order a listener with one slot serves messages that all wait before it has its first."""
    gate = Gate(answer=False)
    order = []
    pump = StreamPump(thread_scheduling=scheduling)

    async def tool(payload, metadata):
        if payload.text == "block":
            return await gate(payload, metadata)
        order.append(payload.text)
        return None

    pump.register("tool", tool, Ask, concurrency=slots)
    async with running(pump):
        await pump.inject("tool", Ask("block"))
        await gate.until_begun(1)
        threads = {}
        for text in plan:
            threads[text[0]] = await pump.inject("tool", Ask(text), thread_id=threads.get(text[0]))
        gate.open()
        await pump.wait_idle()
    return order


async def test_breadth_first_serves_conversations_in_turn():
    assert await _served("breadth-first", ["a1", "a2", "a3", "b1", "c1", "b2"]) == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_depth_first_serves_a_conversation_to_its_end():
    assert await _served("depth-first", ["a1", "a2", "a3", "b1", "c1", "b2"]) == ["a1", "a2", "a3", "b1", "b2", "c1"]


async def _served_with_calls(scheduling):
    gate = Gate(answer=False)
    order = []
    pump = StreamPump(thread_scheduling=scheduling)

    async def tool(payload, metadata):
        if payload.text == "block":
            return await gate(payload, metadata)
        order.append(payload.text)
        return None

    async def front(payload, metadata):
        return HandlerResponse(Ask("started"), "tool")

    pump.register("tool", tool, Ask, concurrency=1)
    pump.register("front", front, Other)
    async with running(pump):
        await pump.inject("tool", Ask("block"))
        await gate.until_begun(1)
        await pump.inject("tool", Ask("fresh 1"))
        await pump.inject("tool", Ask("fresh 2"))
        await pump.inject("front", Other())
        await quiesce()
        gate.open()
        await pump.wait_idle()
    return order


async def test_depth_first_prefers_conversations_that_have_started():
    assert await _served_with_calls("depth-first") == ["started", "fresh 1", "fresh 2"]


async def test_breadth_first_takes_them_as_they_came():
    assert await _served_with_calls("breadth-first") == ["fresh 1", "fresh 2", "started"]


# -- rate


async def test_the_rate_of_a_listener_lets_its_burst_through_and_holds_the_rest():
    seen = []
    pump = StreamPump()

    async def tool(payload, metadata):
        seen.append(payload.text)

    pump.register("limited", tool, Ask, rate="3/h")
    pump.register("free", echo, Ask)
    async with running(pump, shutdown=0.01):
        for number in range(10):
            await pump.inject("limited", Ask(str(number)))
        for _ in range(5):
            await pump.request("free", Ask())
        await quiesce()
        assert seen == ["0"]  # 3 an hour is less than one a second: a burst of one
        (mine,) = [each for each in pump.statistics().listeners if each.name == "limited"]
        assert (mine.running, mine.waiting + mine.queued) == (0, 9)


async def test_a_rate_lets_everybody_through_in_the_end_and_in_order():
    seen = []
    pump = StreamPump()

    async def tool(payload, metadata):
        seen.append(payload.text)

    pump.register("limited", tool, Ask, rate=200)
    async with running(pump):
        for number in range(260):
            await pump.inject("limited", Ask(str(number)))
        await pump.wait_idle()
    assert seen == [str(number) for number in range(260)]


async def test_the_rate_of_the_pump_holds_back_new_messages_only():
    seen = []
    pump = StreamPump(rate="1/h")

    async def front(payload, metadata):
        return HandlerResponse.call(Ask("below"), "tool")

    async def tool(payload, metadata):
        seen.append(payload.text)

    pump.register("front", front, Ask)
    pump.register("tool", tool, Ask)
    async with running(pump, shutdown=0.01):
        for _ in range(3):
            await pump.inject("front", Ask())
        await quiesce(200)
        assert seen == ["below"]
        assert pump.statistics().queued == 2


# -- groups


async def test_members_of_a_group_run_at_the_same_time():
    gate = Gate()
    pump = StreamPump()
    pump.register("g.one", gate, Ask, broadcast=True)
    pump.register("g.two", gate, Ask, broadcast=True)
    async with running(pump):
        await pump.inject("g", Ask())
        await gate.until(lambda: gate.running == 2)
        gate.open()
        await pump.wait_idle()


async def test_a_slow_member_holds_up_no_other_member():
    gate = Gate()
    got = []
    pump = StreamPump()

    async def quick(payload, metadata):
        got.append(payload.text)

    pump.register("g.slow", gate, Ask, broadcast=True, concurrency=1)
    pump.register("g.quick", quick, Ask, broadcast=True)
    async with running(pump), guard():
        for number in range(10):
            await pump.inject("g", Ask(str(number)))
        await until(lambda: len(got) == 10)
        assert gate.ended == []
        assert got == [str(number) for number in range(10)]
        gate.open()


@pytest.mark.parametrize("scheduling", ["breadth-first", "depth-first"])
async def test_messages_of_one_conversation_are_handled_in_the_order_they_were_sent(scheduling):
    """Some are sent before its first one starts, some afterwards; more than fit into the stages at once."""
    gate, got = Gate(), []
    pump = StreamPump(thread_scheduling=scheduling)

    async def note(payload, metadata):
        got.append(int(payload.text))
        if payload.text == "0":
            await gate(payload, metadata)

    pump.register("tool", note, Ask, concurrency=1)
    async with running(pump):
        thread = await pump.inject("tool", Ask("0"))
        for number in range(1, 100):
            await pump.inject("tool", Ask(str(number)), thread_id=thread)
        await gate.until_begun(1)
        await quiesce(100)
        for number in range(100, 110):
            await pump.inject("tool", Ask(str(number)), thread_id=thread)
        gate.open()
        await pump.wait_idle()
    assert got == list(range(110))


def claiming(claimed, real, sender="mallory"):
    """An envelope whose first look says one target, and whose meaning is another."""
    thread = str(uuid.uuid4())
    raw = message_text('<Ask xmlns=""/>', sender, real, thread)
    return raw.replace(b"<meta>", f"<meta><!-- <to>{claimed}</to> -->".encode()), thread


async def test_a_sender_takes_no_room_from_a_listener_that_he_does_not_address():
    gate = Gate()
    pump = StreamPump()
    pump.register("slow", gate, Ask, concurrency=1)
    pump.register("fast", echo, Ask)
    async with running(pump):
        for _ in range(100):
            raw, thread = claiming("fast", "slow")
            await pump.inject(raw, thread, "mallory")
        await gate.until_begun(1)
        await quiesce(100)
        for number in range(5):
            assert await pump.request("fast", Ask(str(number)), timeout=5) == Reply(str(number))
        gate.open()
        await pump.wait_idle()
    assert len(gate.ended) == 100


async def test_nor_does_he_do_so_for_ever():
    """Many more than that listener's queue holds: the rest is refused, and nobody else notices."""
    gate = Gate(answer=False)
    pump = StreamPump(max_queue_per_listener=50, max_queue=1000)
    pump.register("slow", gate, Ask, concurrency=1)
    pump.register("fast", echo, Ask)
    async with running(pump):
        for _ in range(300):
            raw, thread = claiming("fast", "slow")
            await pump.inject(raw, thread, "mallory")
        await gate.until_begun(1)
        assert await pump.request("fast", Ask("x"), timeout=5) == Reply("x")
        refused = pump.dead_letters.list()
        assert 0 < len(refused) < 300
        assert {letter.code for letter in refused} == {"overloaded"}
        gate.open()
        await pump.wait_idle()
        assert len(gate.ended) + len(refused) == 300


async def test_messages_without_a_target_fill_the_queue_of_the_group_that_takes_them():
    gate = Gate(answer=False)
    pump = StreamPump(max_queue_per_listener=5, max_queue=1000)
    pump.register("one.a", gate, Ask, broadcast=True, concurrency=1)
    pump.register("two.a", answers_number, Other, broadcast=True)
    await pump.start()
    for _ in range(5):
        await pump.inject_nowait(None, Ask())
    with pytest.raises(Overloaded):
        await pump.inject_nowait(None, Ask())
    thread = await pump.inject_nowait(None, Other(7))
    gate.open()
    async with running(pump):
        assert await pump.wait(thread) == Other(7)


async def test_messages_without_a_target_wait_for_the_group_that_takes_them():
    gate = Gate()
    pump = StreamPump()
    pump.register("one.a", gate, Ask, broadcast=True, concurrency=1)
    pump.register("two.a", answers_number, Other, broadcast=True)
    async with running(pump):
        for _ in range(100):
            await pump.inject(None, Ask())
        await gate.until_begun(1)
        await quiesce(100)
        for number in range(5):
            assert await pump.request(None, Other(number), timeout=5) == Other(number)
        gate.open()
        await pump.wait_idle()
    assert len(gate.ended) == 100


async def answers_number(payload, metadata):
    return HandlerResponse.respond(Other(payload.number))
