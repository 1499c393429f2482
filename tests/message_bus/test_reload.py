"""Replacing the configuration of a running pump: all of it or nothing, and no message is lost over it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from types import SimpleNamespace

import pytest

from xml_pipeline.errors import (
    DeadlineExceeded,
    HopLimitError,
    Overloaded,
    PipelineError,
    RoutingError,
    ValidationError,
)
from xml_pipeline.message_bus.events import ReloadEvent
from xml_pipeline.message_bus.message_state import HandlerResponse
from xml_pipeline.message_bus.stream_pump import StreamPump

from .pump_kit import Ask, Gate, Reply, echo, guard, quiesce, running, until

MODULE = """
from dataclasses import dataclass
import asyncio
from xml_pipeline import HandlerResponse

@dataclass
class Say:
    text: str = ""

@dataclass
class Said:
    text: str = ""
    by: str = ""

@dataclass
class Number:
    value: int = 0

gate = asyncio.Event()
begun = []

async def one(payload, metadata):
    return HandlerResponse.respond(Said(payload.text, "one"))

async def two(payload, metadata):
    return HandlerResponse.respond(Said(payload.text, "two"))

async def waits_one(payload, metadata):
    begun.append(metadata.thread_id)
    await gate.wait()
    return HandlerResponse.respond(Said(payload.text, "one"))

async def caller(payload, metadata):
    if isinstance(payload, Said):
        return HandlerResponse.respond(payload)
    return HandlerResponse(Say(payload.text), "target")

async def turns_one(payload, metadata):
    if payload.value:
        return HandlerResponse.respond(Said("", "one"))
    begun.append(metadata.thread_id)
    await gate.wait()
    return HandlerResponse(Number(1), "self")

async def turns_two(payload, metadata):
    return HandlerResponse.respond(Said("", "two"))
"""

_numbers = itertools.count()


@pytest.fixture
def organism(tmp_path, monkeypatch):
    """A directory with a module of handlers, and a way to write ``organism.yaml``."""
    name = f"reload_handlers_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "organism.yaml"

    def write(*listeners, settings=""):
        lines = ["organism: {name: reloading}", *settings.splitlines(), "listeners:" if listeners else "listeners: []"]
        for listener in listeners:
            entry = {"description": "x", **listener}
            pairs = ", ".join(f"{key}: {value}" for key, value in entry.items())
            lines.append(f"  - {{{pairs}}}".replace("MODULE", name))
        path.write_text("\n".join(lines) + "\n")

    def module():
        return sys.modules[name]

    yield SimpleNamespace(path=str(path), file=path, write=write, module=module)
    sys.modules.pop(name, None)


def listener(name, handler="one", payload="Say", **more):
    return {"name": name, "payload_class": f"MODULE.{payload}", "handler": f"MODULE.{handler}", **more}


async def started(organism):
    return await StreamPump.from_yaml(organism.path)


# -- what changes


async def test_listeners_come_change_and_go(organism):
    organism.write(listener("stays"), listener("changes"), listener("goes"))
    pump = await started(organism)
    async with running(pump):
        say = organism.module().Say
        kept = pump.listeners["stays"]
        organism.write(listener("stays"), listener("changes", "two"), listener("comes"), listener("comes too"))
        event = pump.reload_config()
        assert (event.success, event.error) == (True, None)
        assert event.added_listeners == ["comes", "comes too"]
        assert event.removed_listeners == ["goes"]
        assert event.updated_listeners == ["changes"]
        assert pump.listeners["stays"] is kept
        assert "goes.say" not in pump.routing_table
        assert "comes.say" in pump.routing_table
        answers = [await pump.request(name, say("x")) for name in ("stays", "changes", "comes", "comes too")]
        assert [answer.by for answer in answers] == ["one", "two", "one", "one"]
        with pytest.raises(RoutingError):
            await pump.request("goes", say("x"))


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({}, {}, False),
        ({}, {"description": "other"}, True),
        ({}, {"handler": "MODULE.two"}, True),
        ({}, {"payload_class": "MODULE.Number"}, True),
        ({}, {"peers": "[other]"}, True),
        ({"peers": "[other, third]"}, {"peers": "[third, other]"}, False),
        ({}, {"agent": "true", "peers": "[]"}, True),
        ({}, {"timeout": 3}, True),
        ({}, {"concurrency": 2}, True),
        ({}, {"rate": "5/s"}, True),
        ({}, {"ordered": "false"}, True),
    ],
)
async def test_what_counts_as_a_change(organism, before, after, changed):
    others = [listener("other"), listener("third")]
    organism.write({**listener("tool"), **before}, *others)
    pump = await started(organism)
    organism.write({**listener("tool"), **after}, *others)
    event = pump.reload_config()
    assert event.success, event.error
    assert event.updated_listeners == (["tool"] if changed else [])
    await pump.shutdown(0)


async def test_one_event_per_attempt(organism):
    organism.write(listener("tool"))
    pump = await started(organism)
    events = []
    pump.subscribe_events(lambda event: events.append(event) if isinstance(event, ReloadEvent) else None)
    async with running(pump):
        good = pump.reload_config()
        organism.file.write_text("listeners: [")
        bad = pump.reload_config()
        await quiesce()
        assert events == [good, bad]
        assert [event.success for event in events] == [True, False]


async def test_another_file_can_be_named(organism, tmp_path):
    organism.write(listener("tool"))
    pump = await started(organism)
    text = organism.file.read_text().replace("name: tool", "name: other tool")
    (tmp_path / "other.yaml").write_text(text)
    event = pump.reload_config(str(tmp_path / "other.yaml"))
    assert (event.added_listeners, event.removed_listeners) == (["other tool"], ["tool"])
    await pump.shutdown(0)


# -- what stays


async def test_programmatic_generic_and_system_listeners_stay(organism):
    organism.write(listener("tool"))
    pump = await started(organism)
    pump.register("mine", echo, Ask)

    async def anything(element, metadata):
        return None

    pump.register_generic_listener("any", anything)
    own = {name for name in pump.listeners if name.startswith("system.")}
    assert "system.boot" in own
    organism.write()
    event = pump.reload_config()
    assert event.removed_listeners == ["tool"]
    assert set(pump.listeners) == {"mine", "any"} | own
    await pump.shutdown(0)


async def test_a_file_that_takes_a_name_of_the_programs_is_refused(organism):
    organism.write(listener("tool"))
    pump = await started(organism)
    mine = pump.register("mine", echo, Ask)
    organism.write(listener("mine"))
    event = pump.reload_config()
    assert not event.success
    assert "mine" in event.error
    assert pump.listeners["mine"] is mine
    assert "tool" in pump.listeners
    await pump.shutdown(0)


# -- broken files


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("listeners: [", "organism.yaml:"),
        (
            "organism: {name: x}\nlisteners:\n  - {name: a, handler: nowhere.at_all, payload_class: nowhere.Class}\n",
            "nowhere",
        ),
        ("organism: {name: x, nonsense: 1}\nlisteners: []\n", "nonsense"),
        ("organism: {name: x}\nlisteners: [{name: a}, {name: a}]\n", "organism.yaml:"),
        ("", "organism.yaml"),
        ("42", "organism.yaml"),
        ("organism: {name: x}\nlisteners:\n  - {name: system.boot, handler: a.b, payload_class: a.B}\n", "system.boot"),
    ],
)
async def test_a_broken_file_changes_nothing_and_says_where(organism, text, hint):
    organism.write(listener("tool"))
    pump = await started(organism)
    async with running(pump):
        before = (dict(pump.listeners), dict(pump.routing_table), pump.config)
        organism.file.write_text(text)
        event = pump.reload_config()
        assert not event.success
        assert hint in event.error
        assert "Traceback" not in event.error
        assert (dict(pump.listeners), dict(pump.routing_table), pump.config) == before
        assert (await pump.request("tool", organism.module().Say("x"))).by == "one"


async def test_a_file_cut_at_any_byte_changes_all_or_nothing(organism):
    organism.write(listener("tool"), listener("other"))
    whole = organism.file.read_bytes()
    pump = await started(organism)
    for end in range(0, len(whole), 3):
        before = dict(pump.listeners)
        organism.file.write_bytes(whole[:end])
        event = pump.reload_config()
        if not event.success:
            assert dict(pump.listeners) == before
            assert event.error
    organism.file.write_bytes(whole)
    assert pump.reload_config().success
    assert {"tool", "other"} <= set(pump.listeners)
    await pump.shutdown(0)


async def test_no_path_and_no_file(organism):
    event = StreamPump().reload_config()
    assert not event.success
    assert "No config path" in event.error
    event = StreamPump().reload_config(organism.path + ".nowhere")
    assert not event.success
    assert "no such file" in event.error


# -- open calls


async def test_a_frame_keeps_the_listener_it_was_opened_with(organism):
    """Its second turn, after the reload, is handled by the first generation; a new call by the second."""
    organism.write(listener("self", "turns_one", "Number"))
    pump = await started(organism)
    async with running(pump):
        module = organism.module()
        asking = asyncio.create_task(pump.request("self", module.Number(0)))
        await until(lambda: module.begun)
        organism.write(listener("self", "turns_two", "Number"))
        assert pump.reload_config().success
        assert (await pump.request("self", module.Number(0))).by == "two"
        module.gate.set()
        assert (await asking).by == "one"


async def test_calls_of_a_removed_listener_are_still_served(organism):
    organism.write(listener("tool", "waits_one"), listener("self", "turns_one", "Number"))
    pump = await started(organism)
    async with running(pump):
        module = organism.module()
        asking = [
            asyncio.create_task(pump.request("tool", module.Say("x"))),
            asyncio.create_task(pump.request("self", module.Number(0))),
        ]
        await until(lambda: len(module.begun) >= 2)
        organism.write()
        assert pump.reload_config().removed_listeners == ["tool", "self"]
        with pytest.raises(RoutingError):
            await pump.request("tool", module.Say("y"))
        module.gate.set()
        assert [answer.by for answer in await asyncio.gather(*asking)] == ["one", "one"]


async def test_peers_are_those_in_force():
    """A call made after the change, by a handler that began before it, is subject to the new list."""
    gate = Gate()
    pump = StreamPump()

    async def front(payload, metadata):
        if not isinstance(payload, Ask):
            return HandlerResponse.respond(Reply(type(payload).__name__))
        await gate(payload, metadata)
        return HandlerResponse(Ask("x"), "target")

    pump.register("target", echo, Ask)
    pump.register("front", front, Ask, agent=True, peers=["target"])
    async with running(pump):
        asking = asyncio.create_task(pump.request("front", Ask()))
        await gate.until_begun(1)
        pump.unregister_listener("front")
        pump.register("front", front, Ask, agent=True, peers=[])
        gate.open()
        assert await asking == Reply("SystemError")


async def test_timeouts_are_those_in_force():
    gate = Gate()
    pump = StreamPump()

    async def twice(payload, metadata):
        if payload.text == "first":
            await gate(payload, metadata)
            return HandlerResponse(Ask("second"), "twice")
        return await asyncio.Event().wait()

    pump.register("twice", twice, Ask, timeout=30)
    async with running(pump):
        asking = asyncio.create_task(pump.request("twice", Ask("first")))
        await gate.until_begun(1)
        pump.unregister_listener("twice")
        pump.register("twice", twice, Ask, timeout=0.02)
        gate.open()
        with pytest.raises(DeadlineExceeded):
            await asking


async def test_a_rate_that_is_lifted_lets_the_waiting_through_at_once(organism):
    organism.write(listener("tool", rate="1/h"))
    pump = await started(organism)
    async with running(pump, shutdown=0.01):
        module = organism.module()
        asking = [asyncio.create_task(pump.request("tool", module.Say(str(number)))) for number in range(5)]
        await quiesce()
        assert sum(task.done() for task in asking) == 1
        organism.write(listener("tool"))
        assert pump.reload_config().success
        async with guard(5):
            await asyncio.gather(*asking)


async def test_a_limit_that_is_raised_lets_the_waiting_through_at_once(organism):
    organism.write(listener("tool", "waits_one", concurrency=1))
    pump = await started(organism)
    async with running(pump):
        module = organism.module()
        asking = [asyncio.create_task(pump.request("tool", module.Say(str(number)))) for number in range(200)]
        await until(lambda: module.begun)
        organism.write(listener("tool", "waits_one", concurrency=10))
        assert pump.reload_config().success
        async with guard(5):
            await until(lambda: len(module.begun) >= 10)
        module.gate.set()
        await asyncio.gather(*asking)


async def test_usage_instructions_follow(organism):
    organism.write(listener("agent", agent="true", peers="[tool]"), listener("tool", description="first words"))
    pump = await started(organism)
    assert "first words" in pump.listeners["agent"].usage_instructions
    organism.write(listener("agent", agent="true", peers="[tool]"), listener("tool", description="second words"))
    assert pump.reload_config().success
    assert "second words" in pump.listeners["agent"].usage_instructions
    await pump.shutdown(0)


# -- under load


async def test_good_broken_good_under_load(organism):
    """No message is lost, and every answer comes from a whole table: both names always of one generation."""

    def both(handler):
        front = {**listener("front", "caller"), "payload_class": "[MODULE.Say, MODULE.Said]"}
        return [front, listener("target", handler)]

    organism.write(*both("one"))
    pump = await started(organism)
    stop = asyncio.Event()
    seen = []

    async def load(say):
        number = 0
        while not stop.is_set():
            number += 1
            answer = await pump.request("front", say(str(number)), timeout=10)
            assert answer.text == str(number)
            seen.append(answer.by)

    async with running(pump):
        module = organism.module()
        clients = [asyncio.create_task(load(module.Say)) for _ in range(10)]
        for generation in range(12):
            target = len(seen) + 50
            await until(lambda: len(seen) >= target or any(client.done() for client in clients))  # noqa: B023, at once
            assert len(seen) >= target
            if generation % 3 == 1:
                organism.file.write_text("listeners: [\n")
                assert not pump.reload_config().success
            else:
                organism.write(*both("two" if generation % 2 else "one"))
                event = pump.reload_config()
                assert event.success, event.error
        stop.set()
        results = await asyncio.gather(*clients, return_exceptions=True)
        assert results == [None] * 10
        await pump.wait_idle()
        statistics = pump.statistics()
        assert sum(statistics.outcomes.values()) == statistics.accepted
        lost = {
            outcome: count
            for outcome, count in statistics.outcomes.items()
            if outcome in ("failed", "dead-lettered", "cancelled", "expired") and count
        }
        assert lost == {}
    assert {"one", "two"} <= set(seen)


async def test_register_all_is_all_or_nothing(organism):
    organism.write(listener("a"), listener("b"))
    pump = await started(organism)
    names = set(pump.listeners)
    pump.register_all()  # what is there already is left alone
    assert set(pump.listeners) == names
    await pump.shutdown(0)


async def test_a_failing_request_during_reload_is_still_typed(organism):
    organism.write(listener("tool"))
    pump = await started(organism)
    async with running(pump):
        module = organism.module()
        asking = asyncio.create_task(pump.request("tool", module.Say("x")))
        organism.write()
        pump.reload_config()
        (result,) = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(result, PipelineError | module.Said | Reply)


# -- limits


async def limited(organism, settings, *listeners):
    organism.write(*(listeners or [listener("tool")]), settings=settings)
    return await started(organism)


def reloaded(pump, organism, settings, *listeners):
    organism.write(*(listeners or [listener("tool")]), settings=settings)
    event = pump.reload_config()
    assert event.success, event.error
    return event


async def test_depth_and_fan_out_and_turns_are_those_in_force(organism):
    pump = await limited(organism, "")

    async def deeper(payload, metadata):
        return HandlerResponse.call(Ask(), "deeper")

    async def wide(payload, metadata):
        return [HandlerResponse(Ask(), "tool2") for _ in range(5)]

    async def again(payload, metadata):
        turns.append(payload)
        return HandlerResponse(Ask(), "again") if len(turns) < 50 else HandlerResponse.respond(Reply())

    turns = []
    for name, handler in [("deeper", deeper), ("wide", wide), ("again", again), ("tool2", echo)]:
        pump.register(name, handler, (Ask, Reply) if name == "wide" else Ask)
    async with running(pump):
        reloaded(pump, organism, "max_hops: 3\nmax_fan_out: 4\nmax_turns: 7")
        with pytest.raises(HopLimitError) as caught:
            await pump.request("deeper", Ask())
        assert "max_hops=3" in caught.value.detail
        with pytest.raises(ValidationError) as refused:
            await pump.request("wide", Ask())
        assert "max_fan_out=4" in refused.value.detail
        with pytest.raises(HopLimitError):
            await pump.request("again", Ask())
        assert len(turns) == 7
        reloaded(pump, organism, "max_turns: 1000")
        turns.clear()
        assert await pump.request("again", Ask()) == Reply()


async def test_the_size_of_messages_is_the_one_in_force(organism):
    pump = await limited(organism, "")
    async with running(pump):
        long = organism.module().Say("x" * 5_000)
        await pump.request("tool", long)
        reloaded(pump, organism, "max_message_bytes: 2000")
        with pytest.raises(ValidationError):
            await pump.request("tool", long)
        reloaded(pump, organism, "max_message_bytes: 20000\nmax_element_depth: 2")
        with pytest.raises(ValidationError):
            await pump.request("tool", long)
        reloaded(pump, organism, "")
        await pump.request("tool", long)


async def test_queues_are_those_in_force(organism):
    pump = await limited(organism, "max_queue: 1")
    module_of = organism.module
    say = module_of().Say
    await pump.inject("tool", say())
    waiting = asyncio.create_task(pump.inject("tool", say()))
    await quiesce()
    assert not waiting.done()
    reloaded(pump, organism, "max_queue: 3")
    async with guard():
        await waiting
    await pump.inject_nowait("tool", say())
    with pytest.raises(Overloaded):
        await pump.inject_nowait("tool", say())
    reloaded(pump, organism, "max_queue_per_listener: 2")
    with pytest.raises(Overloaded):
        await pump.inject_nowait("tool", say())
    reloaded(pump, organism, "")
    await pump.inject_nowait("tool", say())
    async with running(pump):
        await pump.wait_idle()
        assert pump.statistics().outcomes["answered"] == 4


@pytest.mark.parametrize(
    ("before", "after"), [(2, 5), (5, 2), (1, 20), (20, 1)], ids=["more", "fewer", "many more", "one left"]
)
async def test_the_number_of_handlers_is_the_one_in_force(organism, before, after):
    gate, then = Gate(), Gate()
    pump = await limited(organism, f"max_concurrent_handlers: {before}")
    pump.register("first", gate, Ask)
    pump.register("then", then, Ask)
    async with running(pump):
        asking = [asyncio.create_task(pump.request("first", Ask(str(number)))) for number in range(30)]
        await gate.until(lambda: gate.running == before)
        reloaded(pump, organism, f"max_concurrent_handlers: {after}")
        if after > before:
            await gate.until(lambda: gate.running == after)
        await quiesce()
        assert gate.running == max(before, after)  # those that run are not touched
        gate.open()
        await asyncio.gather(*asking)
        asking = [asyncio.create_task(pump.request("then", Ask(str(number)))) for number in range(30)]
        await then.until(lambda: then.running == after)
        await quiesce()
        assert then.running == after
        then.open()
        await asyncio.gather(*asking)


async def test_the_number_of_an_agents_handlers_is_the_one_in_force(organism):
    gate = Gate()
    pump = await limited(organism, "max_concurrent_per_agent: 1")
    pump.register("agent", gate, Ask, agent=True)
    async with running(pump):
        asking = [asyncio.create_task(pump.request("agent", Ask(str(number)))) for number in range(10)]
        await gate.until_begun(1)
        await quiesce()
        assert gate.running == 1
        reloaded(pump, organism, "max_concurrent_per_agent: 4")
        await gate.until(lambda: gate.running == 4)
        await quiesce()
        assert gate.running == 4
        gate.open()
        await asyncio.gather(*asking)


@pytest.mark.parametrize(("before", "after"), [("", "rate: 1/h"), ("rate: 1/h", "")], ids=["set", "lifted"])
async def test_the_pumps_rate_is_the_one_in_force(organism, before, after):
    pump = await limited(organism, before)
    async with running(pump, shutdown=0.01):
        say = organism.module().Say
        if not before:
            await asyncio.gather(*(pump.request("tool", say()) for _ in range(5)))
        else:
            waiting = [asyncio.create_task(pump.request("tool", say(), timeout=4)) for _ in range(5)]
            await quiesce()
            assert sum(task.done() for task in waiting) <= 1
        reloaded(pump, organism, after)
        if before:
            await asyncio.gather(*waiting)
            await pump.request("tool", say(), timeout=4)
        else:
            waiting = [asyncio.create_task(pump.request("tool", say())) for _ in range(5)]
            await quiesce(200)
            assert sum(task.done() for task in waiting) <= 1
            await pump.shutdown(0.01)
            await asyncio.gather(*waiting, return_exceptions=True)


async def test_what_is_shown_as_in_force_is_in_force(organism, caplog):
    """The one limit that cannot change while the pump runs is neither shown nor silently dropped."""
    pump = await limited(organism, "max_hops: 10\nthread_scheduling: breadth-first")
    async with running(pump):
        for max_hops in (3, 5):  # it is said every time
            event = reloaded(pump, organism, f"max_hops: {max_hops}\nthread_scheduling: depth-first")
            assert pump.config.max_hops == pump.engine.limits.max_hops == max_hops
            assert pump.config.thread_scheduling == pump.engine.limits.thread_scheduling == "breadth-first"
            assert event.warnings == ["thread_scheduling stays 'breadth-first' until the next start"]
            (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
            assert event.warnings[0] in record.getMessage()
            caplog.clear()
        event = reloaded(pump, organism, "max_hops: 4\nthread_scheduling: breadth-first")
        assert pump.config.max_hops == pump.engine.limits.max_hops == 4
        assert event.warnings == []
        assert "thread_scheduling" not in caplog.text


async def test_whoever_subscribes_is_told_what_of_a_file_is_not_in_force(organism):
    pump = await limited(organism, "")
    seen = []
    async with running(pump):
        pump.subscribe_events(lambda event: seen.append(event) if isinstance(event, ReloadEvent) else None)
        reloaded(pump, organism, "thread_scheduling: depth-first")
        await quiesce()
    assert [event.warnings for event in seen] == [["thread_scheduling stays 'breadth-first' until the next start"]]


async def test_a_file_that_is_refused_warns_of_nothing(organism, caplog):
    pump = await limited(organism, "")
    async with running(pump):
        organism.write(listener("tool", handler="nowhere"), settings="thread_scheduling: depth-first")
        event = pump.reload_config()
    assert (event.success, event.warnings) == (False, [])
    assert "thread_scheduling" not in caplog.text


async def test_limits_of_a_file_that_is_refused_are_not_applied(organism):
    pump = await limited(organism, "max_hops: 10")
    async with running(pump):
        organism.write(listener("tool", handler="nowhere"), settings="max_hops: 3")
        assert not pump.reload_config().success
        assert pump.config.max_hops == pump.engine.limits.max_hops == 10


def test_a_pump_that_does_not_run_is_reloaded_outside_of_an_event_loop(organism):
    """A change of the number of slots, too, which wakes workers in a pump that runs."""
    organism.write(listener("first"))
    pump = asyncio.run(started(organism))
    organism.write(listener("first"), listener("second"), settings="max_concurrent_handlers: 7\nmax_hops: 3")
    event = pump.reload_config()
    assert (event.success, event.error) == (True, None)
    assert event.added_listeners == ["second"]
    assert pump.config.max_hops == pump.engine.limits.max_hops == 3
    assert pump.engine.dispatcher.pool.limit == 7
