"""Calling handlers: what they are told, which slots they take, and that nothing is left of a call that is over."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import weakref

import pytest

from xml_pipeline.errors import ConversationCancelled, HandlerError, RoutingError
from xml_pipeline.message_bus.events import MessageReceivedEvent
from xml_pipeline.message_bus.message_state import HandlerResponse, SystemError
from xml_pipeline.message_bus.stream_pump import StreamPump
from xml_pipeline.message_bus.thread_registry import get_registry

from .pump_kit import Ask, Gate, Other, Reply, echo, guard, quiesce, running, silent, until

# -- what may be a handler


class Callable:
    async def __call__(self, payload, metadata):
        return HandlerResponse.respond(Reply("object " + payload.text))

    async def method(self, payload, metadata):
        return HandlerResponse.respond(Reply("method " + payload.text))


async def _with_prefix(prefix, payload, metadata):
    return HandlerResponse.respond(Reply(prefix + payload.text))


async def _generator(payload, metadata):
    yield HandlerResponse.respond(Reply("generator " + payload.text))


class GeneratorObject:
    async def __call__(self, payload, metadata):
        yield HandlerResponse.respond(Reply("generator object " + payload.text))


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (Callable(), "object x"),
        (Callable().method, "method x"),
        (functools.partial(_with_prefix, "partial "), "partial x"),
        (functools.partial(functools.partial(_with_prefix), "nested "), "nested x"),
        (_generator, "generator x"),
        (GeneratorObject(), "generator object x"),
        (functools.partial(_generator), "generator x"),
    ],
)
async def test_every_documented_kind_of_handler(handler, text):
    pump = StreamPump()
    pump.register("tool", handler, Ask)
    async with running(pump):
        assert await pump.request("tool", Ask("x")) == Reply(text)


def _plain(payload, metadata):
    return None


@pytest.mark.parametrize("handler", [_plain, lambda payload, metadata: None, 3, None, object(), Callable])
def test_anything_else_is_a_type_error(handler):
    with pytest.raises(TypeError, match="tool"):
        StreamPump().register("tool", handler, Ask)


# -- what a handler is told


async def test_metadata_of_an_external_message():
    seen = []
    pump = StreamPump()

    async def tool(payload, metadata):
        seen.append((metadata, asyncio.get_running_loop().time()))
        return HandlerResponse.respond(Reply())

    pump.register("tool", tool, Ask, timeout=7.0)
    async with running(pump):
        thread = await pump.inject("tool", Ask(), from_id="console")
        await pump.wait(thread)
    ((metadata, now),) = seen
    assert (metadata.thread_id, metadata.conversation_id, metadata.from_id) == (thread, thread, "console")
    assert (metadata.own_name, metadata.is_self_call, metadata.usage_instructions) == (None, False, "")
    assert (metadata.todo_nudge, metadata.tag, metadata.group_size) == ("", "", 0)
    assert now + 6.0 < metadata.deadline <= now + 7.0


async def test_metadata_of_calls_and_answers():
    seen = {}
    pump = StreamPump()

    async def agent(payload, metadata):
        seen[type(payload).__name__, metadata.tag] = metadata
        if isinstance(payload, Ask):
            return (
                [HandlerResponse(Other(1), "tool", tag="first"), HandlerResponse(Ask("again"), "agent")]
                if not payload.text
                else None
            )
        return HandlerResponse.respond(Reply())

    async def tool(payload, metadata):
        seen["tool"] = metadata
        return HandlerResponse.respond(Reply())

    pump.register("agent", agent, Ask, agent=True, peers=["tool"], description="asks")
    pump.register("tool", tool, Other, description="answers")
    async with running(pump):
        thread = await pump.inject("agent", Ask())
        await pump.wait(thread)
    asked, answer, called = seen["Ask", ""], seen["Reply", "first"], seen["tool"]
    assert asked.is_self_call  # its second turn, from itself, on the same frame
    assert asked.thread_id == answer.thread_id == thread
    assert asked.own_name == "agent"
    assert "tool" in asked.usage_instructions
    assert (answer.from_id, answer.conversation_id) == ("tool", thread)
    assert called.thread_id != thread
    assert (called.from_id, called.conversation_id, called.own_name, called.usage_instructions) == (
        "agent",
        thread,
        None,
        "",
    )
    assert len({asked.message_id, answer.message_id, called.message_id}) == 3


async def test_message_ids_are_unique_over_pumps():
    seen = []

    async def tool(payload, metadata):
        seen.append(metadata.message_id)

    for _ in range(2):
        pump = StreamPump()
        pump.register("tool", tool, Ask)
        async with running(pump):
            for _ in range(3):
                await pump.inject("tool", Ask())
            await pump.wait_idle()
    assert len(set(seen)) == 6
    assert all(seen)


async def test_registries_of_the_pump_are_found_inside_a_handler():
    found = []

    async def tool(payload, metadata):
        found.append(get_registry())
        await asyncio.sleep(0)
        found.append(get_registry())

    first, second = StreamPump(name="one"), StreamPump(name="two")
    for pump in (first, second):
        pump.register("tool", tool, Ask)
    async with running(first), running(second):
        await first.inject("tool", Ask())
        await first.wait_idle()
        await second.inject("tool", Ask())
        await second.wait_idle()
    assert found[:2] == [first.engine.registry] * 2
    assert found[2:] == [second.engine.registry] * 2


async def test_a_payload_is_the_receivers_own():
    """Members of a group, and the history, do not see what one handler does to its payload."""
    texts = []

    async def spoil(payload, metadata):
        texts.append(payload.text)
        payload.text = "spoilt"

    pump = StreamPump()
    pump.register("g.one", spoil, Ask, broadcast=True)
    pump.register("g.two", spoil, Ask, broadcast=True)
    async with running(pump):
        thread = await pump.inject("g", Ask("clean"))
        await pump.wait_idle()
        assert [slot.payload.text for slot in pump.engine.history.by_conversation(thread)] == ["clean", "clean"]
    assert texts == ["clean", "clean"]


async def test_an_element_given_to_a_generic_listener_is_its_own():
    texts = []

    async def spoil(element, metadata):
        texts.append(element.findtext("Text"))
        element.find("Text").text = "spoilt"
        element.getparent()

    pump = StreamPump()
    pump.register_generic_listener("any", spoil)
    async with running(pump):
        thread = await pump.inject("any", Ask("clean"))
        await pump.wait_idle()
        (slot,) = pump.engine.history.by_conversation(thread)
        assert "clean" in str(
            slot.payload if isinstance(slot.payload, str | bytes) else getattr(slot, "data", slot.payload)
        )
    assert texts == ["clean"]


# -- slots


async def test_a_slot_is_free_again_after_every_kind_of_end():
    gate = Gate()

    async def agent(payload, metadata):
        if payload.text == "raise":
            raise ValueError
        if payload.text == "wrong":
            return 3
        if payload.text == "hang":
            return await gate(payload, metadata)
        return HandlerResponse.respond(Reply())

    pump = StreamPump(max_concurrent_per_agent=5)
    pump.register("agent", agent, Ask, agent=True, timeout=0.02)
    async with running(pump):
        gauge = pump.agent_semaphores["agent"]
        assert gauge._value == gauge.limit == 5
        for text in ("ok", "raise", "wrong", "hang"):
            await asyncio.gather(pump.request("agent", Ask(text)), return_exceptions=True)
        await pump.wait_idle()
        await quiesce()
        assert gauge._value == 5
        assert not gauge.locked()
        assert pump.statistics().running == 0


async def test_slots_are_seen_taken():
    gate = Gate()
    pump = StreamPump(max_concurrent_per_agent=2)
    pump.register("agent", gate, Ask, agent=True)
    async with running(pump):
        for number in range(3):
            await pump.inject("agent", Ask(str(number)))
        await gate.until_begun(2)
        gauge = pump.agent_semaphores["agent"]
        assert (gauge.active, gauge.available, gauge.locked()) == (2, 0, True)
        (mine,) = [each for each in pump.statistics().listeners if each.name == "agent"]
        assert (mine.running, mine.waiting) == (2, 1)
        gate.open()
    assert set(gauge.__class__.__dict__) >= {"_value", "locked"}


def test_only_agents_have_semaphores():
    pump = StreamPump()
    pump.register("agent", echo, Ask, agent=True)
    pump.register("tool", echo, Ask)
    assert list(pump.agent_semaphores) == ["agent"]
    with pytest.raises(TypeError):
        pump.agent_semaphores["tool"] = None


# -- calls, answers and failures


async def test_a_call_from_a_handler_is_answered():
    pump = StreamPump()

    async def front(payload, metadata):
        if isinstance(payload, Ask):
            return HandlerResponse(Other(2), "double")
        return HandlerResponse.respond(Reply(f"it is {payload.number}"))

    async def double(payload, metadata):
        return HandlerResponse.respond(Other(payload.number * 2))

    pump.register("front", front, (Ask, Other))
    pump.register("double", double, Other)
    async with running(pump):
        assert await pump.request("front", Ask()) == Reply("it is 4")


async def test_a_request_from_a_handler_is_a_conversation_of_its_own():
    ids = []
    pump = StreamPump(max_concurrent_handlers=2)

    async def outer(payload, metadata):
        ids.append(metadata.conversation_id)
        return HandlerResponse.respond(await pump.request("inner", Ask("asked")))

    async def inner(payload, metadata):
        ids.append(metadata.conversation_id)
        return HandlerResponse.respond(Reply(payload.text))

    pump.register("outer", outer, Ask)
    pump.register("inner", inner, Ask)
    async with running(pump):
        assert await pump.request("outer", Ask()) == Reply("asked")
    assert len(set(ids)) == 2


async def test_many_requests_from_handlers_are_no_deadlock():
    """More handlers wait inside `request` than may run at once: the ones they wait for need slots too."""
    pump = StreamPump(max_concurrent_handlers=4)

    async def outer(payload, metadata):
        return HandlerResponse.respond(await pump.request("inner", Ask(payload.text), timeout=5.0))

    pump.register("outer", outer, Ask, timeout=5.0)
    pump.register("inner", echo, Ask)
    async with running(pump):
        answers = await asyncio.gather(
            *(pump.request("outer", Ask(str(number))) for number in range(12)), return_exceptions=True
        )
    assert answers == [Reply(str(number)) for number in range(12)]


@pytest.mark.parametrize("returned", [42, "text", {"a": 1}, object(), [1], [None], True, Ask("bare payload")])
async def test_wrong_return_types_are_errors_that_name_the_type(returned):
    pump = StreamPump()

    async def wrong(payload, metadata):
        return returned

    pump.register("tool", wrong, Ask)
    async with running(pump):
        with pytest.raises(HandlerError) as caught:
            await pump.request("tool", Ask())
    first = returned[0] if isinstance(returned, list) else returned
    assert type(first).__name__ in caught.value.detail
    assert str(caught.value) == HandlerError.public_message


async def test_a_failing_tool_is_told_to_its_agent_in_generic_words():
    told = []
    pump = StreamPump()

    async def agent(payload, metadata):
        if isinstance(payload, SystemError):
            told.append((payload, metadata.from_id, metadata.tag))
            return HandlerResponse.respond(Reply("sorry"))
        return HandlerResponse(Ask(), "tool", tag="t1")

    async def tool(payload, metadata):
        raise RuntimeError("password=hunter2")

    pump.register("agent", agent, Ask, agent=True, peers=["tool"])
    pump.register("tool", tool, Ask)
    async with running(pump):
        assert await pump.request("agent", Ask()) == Reply("sorry")
    ((error, sender, tag),) = told
    assert (error.code, error.retry_allowed, tag) == ("handler", False, "t1")
    assert "hunter2" not in error.message
    assert sender == "system"


async def test_cancel_stops_handlers_and_everything_below():
    gate = Gate()
    pump = StreamPump()

    async def front(payload, metadata):
        return [HandlerResponse(Ask(f"below {number}"), "slow") for number in range(3)]

    pump.register("front", front, Ask)
    pump.register("slow", gate, Ask)
    async with running(pump):
        thread = await pump.inject("front", Ask())
        waiting = asyncio.create_task(pump.wait(thread))
        await gate.until_begun(3)
        assert pump.cancel(thread)
        with pytest.raises(ConversationCancelled):
            await waiting
        await pump.wait_idle()
        await quiesce()
        assert sorted(gate.cancelled) == ["below 0", "below 1", "below 2"]
        assert not pump.cancel(thread)
        assert pump.statistics().open_frames == 1


async def test_one_call_can_be_cancelled_by_its_thread_id():
    gate, threads, told = Gate(), [], []
    pump = StreamPump()

    async def agent(payload, metadata):
        if isinstance(payload, SystemError):
            told.append(payload.code)
        elif isinstance(payload, Ask):
            return [HandlerResponse(Other(number), "slow") for number in range(2)]
        else:
            told.append(payload.text)
        return HandlerResponse.respond(Reply("done")) if len(told) == 2 else None

    async def slow(payload, metadata):
        if payload.number == 0:
            threads.append(metadata.thread_id)
        return await gate(Ask(str(payload.number)), metadata)

    pump.register("agent", agent, Ask, agent=True, peers=["slow"])
    pump.register("slow", slow, Other)
    async with running(pump):
        asking = asyncio.create_task(pump.request("agent", Ask()))
        await gate.until_begun(2)
        assert pump.cancel(threads[0])
        await gate.until(lambda: gate.cancelled)
        gate.open()
        assert await asking == Reply("done")
    assert sorted(told) == ["1", "cancelled"]


async def test_a_removed_listener_still_finishes_what_it_works_on():
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump):
        asking = asyncio.create_task(pump.request("tool", Ask("x")))
        await gate.until_begun(1)
        assert pump.unregister_listener("tool")
        assert not pump.unregister_listener("tool")
        with pytest.raises(RoutingError):
            await pump.request("tool", Ask("y"))
        gate.open()
        assert await asking == Reply("x")
        await pump.wait_idle()
        pump.register("tool", echo, Ask)
        assert await pump.request("tool", Ask("z")) == Reply("z")


async def test_answers_that_come_too_late_are_counted_as_expired():
    pump = StreamPump()

    async def thrice(payload, metadata):
        return [HandlerResponse.respond(Reply(str(number))) for number in range(3)]

    pump.register("tool", thrice, Ask)
    async with running(pump):
        before = pump.statistics().outcomes.get("expired", 0)
        assert await pump.request("tool", Ask()) == Reply("0")
        await pump.wait_idle()
        assert pump.statistics().outcomes["expired"] - before == 2


async def test_every_accepted_message_has_exactly_one_outcome():
    pump = StreamPump()

    async def mixed(payload, metadata):
        match int(payload.text) % 5:
            case 0:
                return HandlerResponse.respond(Reply())
            case 1:
                return HandlerResponse(Ask("0"), "echo")
            case 2:
                raise ValueError
            case 3:
                return [HandlerResponse(Ask(), "nobody"), HandlerResponse.respond(Reply())]
        return None

    pump.register("mixed", mixed, Ask)
    pump.register("echo", echo, Ask)
    async with running(pump):
        for number in range(100):
            await pump.inject("mixed", Ask(str(number)))
        await pump.wait_idle()
        statistics = pump.statistics()
    assert sum(statistics.outcomes.values()) == statistics.accepted
    assert statistics.in_flight == 0


# -- nothing is left


async def test_what_a_handler_sets_in_its_context_is_its_own():
    variable = contextvars.ContextVar("variable", default="clean")
    seen = []
    pump = StreamPump(max_concurrent_handlers=1)

    async def setter(payload, metadata):
        seen.append(variable.get())
        variable.set(payload.text)
        await asyncio.sleep(0)
        seen.append(variable.get())

    pump.register("setter", setter, Ask)
    async with running(pump):
        for text in "ab":
            await pump.inject("setter", Ask(text))
        await pump.wait_idle()
    assert seen == ["clean", "a", "clean", "b"]


def frames_alive():
    return [obj for obj in gc.get_objects() if type(obj).__name__ == "Frame" and obj.caller != "system"]


async def test_a_finished_conversation_holds_no_cycle():
    """What it made is freed by reference counting: a collector that runs now and then is not needed."""
    pump = StreamPump(max_threads=1)
    pump.register("tool", echo, Ask)
    watched = []
    async with running(pump):
        gc.collect()
        gc.disable()
        others = frames_alive()
        try:
            for number in range(3):
                thread = await pump.inject("tool", Ask(str(number)))
                conversation = pump.engine.registry.find(thread)
                watched += [weakref.ref(conversation)] if hasattr(conversation, "__weakref__") else []
                frames = list(conversation.frames)
                del conversation
                await pump.wait(thread)
                await pump.wait_idle()
                assert all(not frame.conversation.frames for frame in frames)
                del frames
            await quiesce()
            kept = [frame for frame in frames_alive() if not any(frame is other for other in others)]
            assert len(kept) <= 1
        finally:
            gc.enable()


async def test_idle_means_nothing_is_scheduled():
    pump = StreamPump(thread_idle_ttl=3600)
    pump.register("tool", silent, Ask)
    async with running(pump):
        await pump.inject("tool", Ask())
        await pump.wait_idle()
        await quiesce()
        loop = asyncio.get_running_loop()
        soon = [handle for handle in loop._scheduled if not handle.cancelled() and handle.when() < loop.time() + 10]
        ours = [handle for handle in soon if "xml_pipeline" in repr(handle)]
        assert ours == []


async def test_a_handler_may_wait_for_its_own_pump_to_answer_somebody_else():
    pump = StreamPump()

    async def waits(payload, metadata):
        thread = await pump.inject("tool", Ask("x"))
        return HandlerResponse.respond(await pump.wait(thread))

    pump.register("waits", waits, Ask)
    pump.register("tool", echo, Ask)
    async with running(pump), guard():
        assert await pump.request("waits", Ask()) == Reply("x")


async def test_a_task_that_a_handler_left_behind_lends_nobodys_slot():
    """It waits for the pump when its own turn is over and another listener's handler has the worker."""
    gate, left_behind = Gate(), []
    begin = asyncio.Event()
    pump = StreamPump(max_concurrent_handlers=1)

    async def spawn(payload, metadata):
        async def later():
            await begin.wait()
            return await pump.request("tool", Ask("late"))

        left_behind.append(asyncio.create_task(later()))
        return HandlerResponse.respond(Reply())

    pump.register("spawn", spawn, Ask)
    pump.register("tool", echo, Ask)
    pump.register("one", gate, Ask, agent=True, concurrency=1)
    async with running(pump):
        await pump.request("spawn", Ask())
        asking = [asyncio.create_task(pump.request("one", Ask(str(number)))) for number in range(3)]
        await gate.until_begun(1)
        begin.set()
        await quiesce(200)
        assert gate.begun == ["0"]
        assert pump.statistics().running == 1
        gate.open()
        assert await asyncio.gather(*asking) == [Reply(str(number)) for number in range(3)]
        assert await left_behind[0] == Reply("late")
    assert gate.most == 1


async def test_a_callback_that_a_handler_subscribed_lends_nobodys_slot():
    """It runs in the context it was subscribed in: that handler's."""
    gate, answers = Gate(), []
    pump = StreamPump(max_concurrent_handlers=1)

    async def watch(event):
        if isinstance(event, MessageReceivedEvent) and event.to_id == "one" and not answers:
            answers.append("")
            answers.append(await pump.request("tool", Ask("asked")))

    async def subscribe(payload, metadata):
        pump.subscribe_events(watch)
        return HandlerResponse.respond(Reply())

    pump.register("subscribe", subscribe, Ask)
    pump.register("tool", echo, Ask)
    pump.register("one", gate, Ask, agent=True, concurrency=1)
    async with running(pump):
        await pump.request("subscribe", Ask())
        asking = [asyncio.create_task(pump.request("one", Ask(str(number)))) for number in range(3)]
        await gate.until_begun(1)
        await until(lambda: answers)
        await quiesce(200)
        assert gate.begun == ["0"]
        gate.open()
        await asyncio.gather(*asking)
        await until(lambda: len(answers) == 2)
    assert gate.most == 1
    assert answers[1] == Reply("asked")


async def test_a_task_of_a_running_handler_lends_that_handlers_slot():
    pump = StreamPump(max_concurrent_handlers=1)

    async def outer(payload, metadata):
        asking = [asyncio.create_task(pump.request("tool", Ask(str(number)), timeout=5)) for number in range(5)]
        return HandlerResponse.respond(Reply("".join([answer.text for answer in await asyncio.gather(*asking)])))

    pump.register("outer", outer, Ask)
    pump.register("tool", echo, Ask)
    async with running(pump):
        assert await pump.request("outer", Ask()) == Reply("01234")
        assert await pump.request("outer", Ask()) == Reply("01234")


async def test_workers_that_stood_in_for_others_go_when_they_are_not_needed():
    pump = StreamPump(max_concurrent_handlers=3)

    async def outer(payload, metadata):
        return HandlerResponse.respond(await pump.request("inner", payload, timeout=5.0))

    async def inner(payload, metadata):
        await asyncio.sleep(0)
        return HandlerResponse.respond(Reply(payload.text))

    pump.register("outer", outer, Ask)
    pump.register("inner", inner, Ask)
    async with running(pump):
        before = len(asyncio.all_tasks())
        answers = await asyncio.gather(*(pump.request("outer", Ask(str(number))) for number in range(100)))
        assert answers == [Reply(str(number)) for number in range(100)]
        await pump.wait_idle()
        for _ in range(3):  # those that idle find out when they are woken
            await asyncio.gather(*(pump.request("inner", Ask()) for _ in range(10)))
        await quiesce()
        assert len(asyncio.all_tasks()) <= before + 3


@pytest.mark.parametrize("when", ["at work", "done"])
async def test_nothing_is_kept_of_listeners_that_come_and_go(when):
    pump = StreamPump()

    async def working(payload, metadata):
        if when == "at work":
            pump.unregister_listener(payload.text)
        return HandlerResponse.respond(Reply(payload.text))

    async with running(pump):
        lanes = len(pump.engine.dispatcher.lanes.by_key)
        for number in range(30):
            name = f"worker {number}"
            pump.register(name, working, Ask)
            assert await pump.request(name, Ask(name)) == Reply(name)
            if when == "done":
                pump.unregister_listener(name)
        await pump.wait_idle()
        assert len(pump.engine.dispatcher.lanes.by_key) == lanes


async def test_a_listener_that_is_registered_again_while_it_works_keeps_its_limit():
    gate = Gate()
    pump = StreamPump()
    pump.register("one", gate, Ask, concurrency=1)
    async with running(pump):
        asking = [asyncio.create_task(pump.request("one", Ask("0")))]
        await gate.until_begun(1)
        pump.unregister_listener("one")
        pump.register("one", gate, Ask, concurrency=1)
        asking += [asyncio.create_task(pump.request("one", Ask(str(number)))) for number in range(1, 4)]
        await quiesce()
        assert gate.begun == ["0"]
        gate.open()
        assert await asyncio.gather(*asking) == [Reply(str(number)) for number in range(4)]
    assert gate.most == 1
