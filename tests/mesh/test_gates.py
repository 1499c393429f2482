"""Agents that serve only while a condition holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.mesh.kit import Gate as Holding
from tests.mesh.kit import Tap, spin, until_names
from xml_pipeline.mesh import (
    AgentMesh,
    AgentSpec,
    CallCancelled,
    ConnectionDenied,
    KVCondition,
    KVInvalidKey,
    MeshTimeout,
    NotAvailable,
    SubjectCondition,
)
from xml_pipeline.mesh.agent import Agent
from xml_pipeline.mesh.conditions import check_condition
from xml_pipeline.mesh.gates import Gate
from xml_pipeline.mesh.subjects import events_subject

NAME = "demo.gated"
KEY = "mode"


def is_on(value: bytes | None) -> bool:
    return value == b"on"


def gated(mesh: AgentMesh, condition: Any = None, **spec: Any) -> Holding:
    """An agent that answers 0 at once, and other numbers when it may go on."""
    holding = Holding()

    @mesh.agent(AgentSpec(name=NAME, **spec), active_when=condition or mesh.kv_condition(KEY, is_on))
    async def handle(value: int) -> int:
        if value:
            await holding.pass_through(value)
        return value

    return holding


def gate_of(mesh: AgentMesh) -> Gate:
    gate = mesh.parts.gates.gate(NAME)
    assert gate is not None
    return gate


async def is_open(mesh: AgentMesh) -> None:
    await spin(lambda: gate_of(mesh).is_open and NAME in mesh.parts.host.names)


async def is_closed(mesh: AgentMesh) -> None:
    """Until nothing of it is left, so that the server knows it too."""
    await spin(lambda: not gate_of(mesh).is_open and not gate_of(mesh)._closings)


# -- what is said about them


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: AgentMesh.kv_condition("a.*", is_on), KVInvalidKey),
        (lambda: AgentMesh.subject_condition("a..b", is_on), ValueError),
        (lambda: AgentMesh.kv_condition("a", "on"), TypeError),  # type: ignore[arg-type]
        (lambda: AgentMesh.kv_condition("a", is_on, drain_timeout=float("inf")), ValueError),
        (lambda: AgentMesh.subject_condition("a", is_on, drain_timeout=True), TypeError),
    ],
)
def test_a_condition_that_cannot_be_is_refused_where_it_is_made(make, error):
    with pytest.raises(error):
        make()


class Waits:
    async def __call__(self, value: bytes | None) -> bool:
        return True


async def waits(value: bytes | None) -> bool:
    return True


@pytest.mark.parametrize("predicate", [waits, Waits()])
def test_a_predicate_that_waits_is_refused(predicate):
    """It would be true whatever it says."""
    with pytest.raises(TypeError, match="plain function"):
        AgentMesh.kv_condition("a", predicate)


def test_conditions_are_values():
    assert AgentMesh.kv_condition("a", is_on) == KVCondition("a", is_on, False, 30.0)
    assert AgentMesh.subject_condition("a.>", is_on, initial=True, drain_timeout=1) == SubjectCondition(
        "a.>", is_on, True, 1
    )
    assert check_condition(None) is None


@pytest.mark.parametrize("condition", [is_on, True, "mode", KVCondition])
def test_what_is_no_condition_is_refused(condition):
    with pytest.raises(TypeError, match=r"use mesh\.kv_condition"):
        AgentMesh().agent(AgentSpec(name=NAME), active_when=condition)(waits)


# -- keys


async def test_it_serves_while_the_value_says_so_and_is_known_all_the_time(host, mesh):
    gated(host)
    async with host:
        await until_names(mesh, NAME)
        with pytest.raises(NotAvailable):
            await mesh.call(NAME, 0)
        with pytest.raises(NotAvailable):
            await host.call(NAME, 0)
        for value, expected in (("on", True), ("off", False), ("on", True)):
            await mesh.kv.put(KEY, value)
            if expected:
                await is_open(host)
                assert await mesh.call(NAME, 0) == 0
            else:
                await is_closed(host)
                with pytest.raises(NotAvailable):
                    await mesh.call(NAME, 0)
            assert [entry.name for entry in await mesh.catalog()] == [NAME]
            assert (await mesh.contract(NAME)).invocable
    await until_names(mesh)


async def test_it_is_read_before_the_agent_is_served(host, mesh, monkeypatch):
    await mesh.kv.put(KEY, "off")
    activated = []
    gated(host)
    async with host:
        monkeypatch.setattr(host.parts.host, "activate", activated.append)
        assert not gate_of(host).is_open
        assert host.parts.host.names == set()
    await mesh.kv.put(KEY, "on")
    async with host:
        assert await mesh.call(NAME, 0) == 0  # nothing was waited for
    assert activated == []


async def test_no_value_is_none_whoever_took_it_away(quick_heartbeat, host, mesh, peer):
    values: list[bytes | None] = []

    def note(value: bytes | None) -> bool:
        values.append(value)
        return value is not None

    gated(host, host.kv_condition(KEY, note))
    subject = f"$KV.mesh-context.{KEY}"
    async with host:
        for body, headers in (
            (b"\xff", None),
            (b"", {"KV-Operation": "DEL"}),
            (b"", None),
            (b"", {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}),
            (b"on", None),
        ):
            before = len(values)
            await peer.request(subject, body, headers=headers)
            await spin(lambda before=before: len(values) > before)
        await is_open(host)
        await mesh.parts.jetstream.api("STREAM.DELETE.KV_mesh-context")
        await is_closed(host)
        await mesh.kv.put(KEY, "again")
        await is_open(host)
    assert values == [None, b"\xff", None, b"", None, b"on", None, b"again"]


async def test_a_predicate_that_fails_changes_nothing(host, mesh, caplog):
    gated(host, host.kv_condition(KEY, lambda value: json.loads(value or b"false")))
    async with host:
        for failures, value, opened in ((1, "{", False), (1, "true", True), (2, "}", True), (2, "false", False)):
            await mesh.kv.put(KEY, value)
            await spin(lambda failures=failures: caplog.text.count("it stays as it is") == failures)
            if opened:
                await is_open(host)
                assert await mesh.call(NAME, 0) == 0
            else:
                await is_closed(host)
    assert f"the condition of {NAME} (key {KEY}) failed" in caplog.text


@pytest.mark.parametrize("initial", [True, False])
async def test_what_cannot_be_read_is_as_it_is_said_and_read_when_it_can_be(host, mesh, monkeypatch, caplog, initial):
    """It is the opposite of what was said."""
    await mesh.kv.put(KEY, "off" if initial else "on")
    gated(host, host.kv_condition(KEY, is_on, initial=initial))
    denied = asyncio.Event()
    opened = []
    start, begin = Gate.start, Gate._begin

    async def noting(gate: Gate) -> None:
        await start(gate)
        opened.append(gate.is_open)

    async def failing(gate: Gate) -> bool:
        if not denied.is_set():
            denied.set()
            monkeypatch.setattr(gate._bucket, "open", refuse)
        else:
            monkeypatch.undo()
        return await begin(gate)

    async def refuse() -> None:
        raise ConnectionDenied("not permitted")

    monkeypatch.setattr(Gate, "start", noting)
    monkeypatch.setattr(Gate, "_begin", failing)
    async with host:
        assert opened == [initial]
        await (is_closed(host) if initial else is_open(host))
    assert f"so it is {'met' if initial else 'not met'} for now: not permitted" in caplog.text


async def test_a_value_that_does_not_come_in_time_cannot_be_read(host, mesh, monkeypatch):
    monkeypatch.setattr("xml_pipeline.mesh.gates._READ_WITHIN", 0.0)
    gate = gated(host)
    async with host:
        await is_closed(host)
        signal = gate_of(host)._new_signal()
        with pytest.raises(MeshTimeout):
            await signal.start()
        await signal.stop()
        monkeypatch.undo()
        await mesh.kv.put(KEY, "on")
        await is_open(host)
    assert gate.begun.empty()


async def test_it_is_read_again_after_a_lost_connection(lasting_server):
    async with AgentMesh(lasting_server.url) as host:
        gated(host)
        await host.kv.put(KEY, "on")
        await is_open(host)
        for value in ("off", "on"):
            lasting_server.kill()
            await lasting_server.wait()
            await lasting_server.stop()
            await lasting_server.start()
            async with AgentMesh(lasting_server.url) as other:
                await other.kv.put(KEY, value)
                await (is_open(host) if value == "on" else is_closed(host))
                await host.parts.link.wait_up(30)
                if value == "on":
                    assert await other.call(NAME, 0, idempotent=True) == 0


# -- subjects


async def test_the_last_message_of_a_subject(host, mesh, peer):
    gated(host, host.subject_condition("mode.*", is_on, initial=True))
    async with host:
        assert await mesh.call(NAME, 0) == 0
        for body, subject in ((b"off", "mode.a"), (b"on", "mode.b"), (b"\xff", "mode.c")):
            await peer.publish(subject, body)
            await (is_open(host) if body == b"on" else is_closed(host))
        with pytest.raises(NotAvailable):
            await mesh.call(NAME, 0)
        await peer.publish("other", b"on")
        await peer.flush()
        await host.parts.link.flush()
        assert not gate_of(host).is_open


# -- what runs


async def test_what_was_taken_is_finished_while_others_are_told_that_nobody_serves(host, mesh):
    holding = gated(host)
    async with host:
        await mesh.kv.put(KEY, "on")
        await is_open(host)
        call = asyncio.create_task(mesh.call(NAME, 1))
        await holding.begun.get()
        await mesh.kv.put(KEY, "off")
        await spin(lambda: not gate_of(host).is_open)
        while True:  # the server hears of it a moment later
            try:
                await mesh.call(NAME, 0)
            except NotAvailable:
                break
        assert not call.done()
        holding.go.set()
        assert await call == 1
        await is_closed(host)


async def test_it_serves_again_before_what_it_had_is_finished(host, mesh):
    holding = gated(host)
    async with host:
        calls = []
        for number in (1, 2, 3):
            await mesh.kv.put(KEY, "on")
            await is_open(host)
            calls.append(asyncio.create_task(mesh.call(NAME, number)))
            assert await holding.begun.get() == number
            await mesh.kv.put(KEY, "off")
            await spin(lambda: not gate_of(host).is_open)
        await mesh.kv.put(KEY, "on")
        await is_open(host)
        assert await mesh.call(NAME, 0) == 0
        assert len(gate_of(host)._closings) == 3
        holding.go.set()
        assert await asyncio.gather(*calls) == [1, 2, 3]
        await spin(lambda: not gate_of(host)._closings)
        assert await mesh.call(NAME, 0) == 0


async def test_a_request_that_is_being_finished_can_be_cancelled(host, mesh):
    holding = gated(host)
    async with host:
        await mesh.kv.put(KEY, "on")
        await is_open(host)
        call = asyncio.create_task(mesh.call(NAME, 1))
        await holding.begun.get()
        await mesh.kv.put(KEY, "off")
        await spin(lambda: not gate_of(host).is_open)
        call.cancel()
        await holding.cancelled.wait()
        await is_closed(host)


async def test_what_is_not_finished_in_time_is_given_up_and_told(host, mesh):
    holding = gated(host, host.kv_condition(KEY, is_on, drain_timeout=-1))
    async with host:
        await mesh.kv.put(KEY, "on")
        await is_open(host)
        call = asyncio.create_task(mesh.call(NAME, 1))
        await holding.begun.get()
        await mesh.kv.put(KEY, "off")
        with pytest.raises(CallCancelled):
            await call
        assert holding.cancelled.is_set()
        await is_closed(host)


async def test_a_publisher_ends_and_begins_anew(host, mesh, peer):
    runs = 0

    @host.agent(AgentSpec(name=NAME), active_when=host.kv_condition(KEY, is_on))
    async def publish() -> AsyncIterator[str]:
        nonlocal runs
        runs += 1
        yield f"{runs}.begun"
        await asyncio.Event().wait()

    events = await Tap.on(peer, events_subject(NAME))
    async with host:
        for run in (1, 2):
            await mesh.kv.put(KEY, "on")
            message = await events.next()
            assert (json.loads(message.data), message.headers["X-Mesh-Stream-Seq"]) == (f"{run}.begun", "0")
            await mesh.kv.put(KEY, "off")
            assert (await events.next()).headers["X-Mesh-Stream-End"] == "true"
        await is_closed(host)
    assert runs == 2
    assert events.messages.empty()


async def test_a_publisher_that_is_wanted_again_waits_for_its_own_end(host, mesh, peer):
    ending, release = asyncio.Event(), asyncio.Event()

    @host.agent(AgentSpec(name=NAME), active_when=host.kv_condition(KEY, is_on))
    async def publish() -> AsyncIterator[str]:
        yield "begun"
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await release.wait()

    events = await Tap.on(peer, events_subject(NAME))
    async with host:
        await mesh.kv.put(KEY, "on")
        await events.next()
        await mesh.kv.put(KEY, "off")
        await ending.wait()
        await mesh.kv.put(KEY, "on")
        await spin(lambda: gate_of(host)._wanted)
        await host.parts.link.flush()
        assert not gate_of(host).is_open
        release.set()
        await is_open(host)
        found = [(await events.next()).headers["X-Mesh-Stream-End"] for _ in range(2)]
    assert found == ["true", "false"]


async def test_a_background_task_ends_and_begins_anew(host, mesh):
    begun, ended = asyncio.Queue[None](), asyncio.Queue[None]()

    @host.agent(AgentSpec(name=NAME), active_when=host.kv_condition(KEY, is_on))
    async def work() -> None:
        begun.put_nowait(None)
        try:
            await asyncio.Event().wait()
        finally:
            ended.put_nowait(None)

    async with host:
        for _ in range(2):
            await mesh.kv.put(KEY, "on")
            await begun.get()
            await mesh.kv.put(KEY, "off")
            await ended.get()


async def test_sources_give_nothing_meanwhile(host, mesh, peer):
    seen = asyncio.Queue[Any]()

    @host.agent(
        AgentSpec(name=NAME),
        sources=[host.kv_source("k.*", resume="me"), host.subject_source("s")],
        active_when=host.kv_condition(KEY, is_on),
    )
    async def react(value: str) -> None:
        seen.put_nowait(value)

    async with host:
        await mesh.kv.put("k.1", "before")
        await peer.publish("s", b"lost")
        await peer.flush()
        await mesh.kv.put(KEY, "on")
        assert await seen.get() == "before"
        await is_open(host)
        await host.parts.link.flush()  # the server has heard of it
        await peer.publish("s", b"heard")
        assert await seen.get() == "heard"
        await mesh.kv.put(KEY, "off")
        await is_closed(host)
        await mesh.kv.put("k.2", "meanwhile")
        await peer.publish("s", b"lost")
        await peer.flush()
        assert seen.empty()
        await mesh.kv.put(KEY, "on")
        assert await seen.get() == "meanwhile"
    assert seen.empty()


async def test_a_source_begins_again_when_its_last_event_is_done(host, mesh):
    holding, running = Holding(), []

    @host.agent(AgentSpec(name=NAME), sources=[host.kv_source("k")], active_when=host.kv_condition(KEY, is_on))
    async def react(value: str) -> str:
        if value == "asked":
            return value
        running.append(value)
        assert len(running) == 1
        await holding.pass_through(value)
        running.clear()
        return value

    await mesh.kv.put("k", "1")
    await mesh.kv.put(KEY, "on")
    async with host:
        assert await holding.begun.get() == "1"
        await mesh.kv.put(KEY, "off")
        await spin(lambda: not gate_of(host).is_open)
        await mesh.kv.put(KEY, "on")
        await is_open(host)
        assert await mesh.call(NAME, "asked") == "asked"  # requests need not wait
        assert holding.begun.empty()
        holding.go.set()
        assert await holding.begun.get() == "1"  # without a name it begins with what is there
        await spin(lambda: host.parts.reactions.statistics(NAME)[0][1:3] == (1, 0))


# -- changing its mind


async def test_however_quickly_it_changes_the_last_state_is_what_counts(host, mesh, peer):
    gated(host)
    subject = f"$KV.mesh-context.{KEY}"
    async with host:
        for last in (b"off", b"on"):
            for _ in range(100):
                await peer.publish(subject, b"on")
                await peer.publish(subject, b"off")
            if last == b"on":
                await peer.publish(subject, b"on")
            await peer.publish("$KV.mesh-context.end", last)
            await spin(lambda: gate_of(host)._signal._watch._revision)
            await mesh.kv.get(KEY)
            if last == b"on":
                await is_open(host)
                assert await mesh.call(NAME, 0) == 0
            else:
                revision = (await mesh.kv.entry(KEY)).revision
                await spin(lambda revision=revision: gate_of(host)._signal._watch._revision >= revision)
                await is_closed(host)
                with pytest.raises(NotAvailable):
                    await mesh.call(NAME, 0)


@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=20))
def test_any_sequence_ends_in_the_last_state(steps):
    """With a host that takes its time, and any number of turns of the loop between two changes."""

    async def run() -> None:
        host = SlowHost()
        gate = gate_with(host)
        await gate.start()
        for wanted, turns in steps:
            gate._judge(b"on" if wanted else b"off")
            for _ in range(turns):
                await asyncio.sleep(0)
        await spin(lambda: gate.is_open is steps[-1][0] and not gate._closings and not host.busy)
        assert host.serves is steps[-1][0]
        await gate.stop()
        await gate.close()

    asyncio.run(run())


class SlowHost:
    """What a gate needs of a host."""

    def __init__(self) -> None:
        self.serves = False
        self.busy = 0

    async def activate(self, agent: Any) -> None:
        assert not self.serves
        self.busy += 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.serves = True
        self.busy -= 1

    async def deactivate(self, name: str, timeout: float) -> None:
        assert self.serves
        self.serves = False
        self.busy += 1
        for _ in range(3):
            await asyncio.sleep(0)
        self.busy -= 1


class DeafLink:
    """A link on which nothing is ever heard."""

    async def subscribe(self, subject: str, on_message: Any) -> DeafLink:
        return self

    async def close(self) -> None:
        return None


def gate_with(host: Any) -> Gate:
    async def handle(value: int) -> int:
        return value

    condition = SubjectCondition("s", is_on)
    agent = Agent.of(AgentSpec(name=NAME), handle, active_when=condition)
    return Gate(agent, condition, host, DeafLink(), None)  # type: ignore[arg-type]


async def test_one_that_cannot_be_activated_is_tried_again(caplog):
    class FailingHost(SlowHost):
        failures = 2

        async def activate(self, agent: Any) -> None:
            if self.failures:
                self.failures -= 1
                raise MeshTimeout(message="slow")
            await super().activate(agent)

    host = FailingHost()
    gate = gate_with(host)
    await gate.start()
    gate._judge(b"on")
    await spin(lambda: gate.is_open)
    assert host.serves
    await gate.stop()
    assert caplog.text.count("which is tried again: slow") == 2


# -- leaving, and being replaced


@pytest.mark.parametrize("state", ["closed", "open", "closing", "closing and open"])
async def test_leaving_finishes_what_runs_whatever_the_gate_does(server, mesh, state):
    before = asyncio.all_tasks()
    host = AgentMesh(server.url, drain_timeout=20.0)
    holding = gated(host)
    calls = []
    async with host:
        if state != "closed":
            await host.kv.put(KEY, "on")
            await is_open(host)
            calls.append(asyncio.create_task(mesh.call(NAME, 1)))
            await holding.begun.get()
        if state.startswith("closing"):
            await host.kv.put(KEY, "off")
            await spin(lambda: not gate_of(host).is_open)
        if state == "closing and open":
            await host.kv.put(KEY, "on")
            await is_open(host)
            calls.append(asyncio.create_task(mesh.call(NAME, 2)))
            await holding.begun.get()
        leaving = asyncio.create_task(host.__aexit__(None, None, None))
        if calls:
            await spin(lambda: not host.parts.host.names)
            await mesh.kv.put(KEY, "on")  # nobody looks any more
            holding.go.set()
        assert await asyncio.gather(*calls) == list(range(1, len(calls) + 1))
        await leaving
    await asyncio.sleep(0)
    left = {task.get_name() for task in asyncio.all_tasks() - before if "Gate" in repr(task) or "Host" in repr(task)}
    assert left == set()
    assert not host.is_connected


async def test_leaving_gives_up_what_is_being_closed_at_its_own_deadline(server, mesh):
    host = AgentMesh(server.url, drain_timeout=0.05)
    holding = gated(host)  # it would have thirty seconds
    async with host:
        await host.kv.put(KEY, "on")
        await is_open(host)
        call = asyncio.create_task(mesh.call(NAME, 1))
        await holding.begun.get()
        await host.kv.put(KEY, "off")
        await spin(lambda: not gate_of(host).is_open)
    with pytest.raises(CallCancelled):
        await call


async def test_no_task_is_left_behind(server):
    before = asyncio.all_tasks()
    host = AgentMesh(server.url)
    gated(host)
    for value in ("off", "on"):
        async with host:
            await host.kv.put(KEY, value)
            await (is_open(host) if value == "on" else is_closed(host))
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


async def test_a_later_agent_of_the_name_takes_over_with_its_gate(host, mesh):
    gated(host)
    async with host:
        assert not gate_of(host).is_open

        @host.agent(AgentSpec(name=NAME))
        async def always(value: int) -> str:
            return "always"

        assert await host.call(NAME, 0) == "always"
        assert host.parts.gates.gate(NAME) is None
        await mesh.kv.put(KEY, "on")
        await mesh.kv.put(KEY, "off")
        assert await host.call(NAME, 0) == "always"
        gated(host)
        await host.kv.get(KEY)  # whatever one does, it is registered first
        await spin(lambda: host.parts.gates.gate(NAME) is not None)
        await is_closed(host)
        with pytest.raises(NotAvailable):
            await mesh.call(NAME, 0)
        await mesh.kv.put(KEY, "on")
        await is_open(host)
        assert await mesh.call(NAME, 0) == 0


async def test_it_is_told_when_it_serves_and_when_not(host, mesh, peer):
    gated(host)
    logs = await Tap.on(peer, f"mesh.logs.{NAME}")
    async with host:
        for value in ("on", "off", "on"):
            await mesh.kv.put(KEY, value)
            await (is_open(host) if value == "on" else is_closed(host))
    found = [json.loads((await logs.next()).data)["event"] for _ in range(6)]
    assert found == [
        "agent_registered",
        "agent_activated",
        "agent_deactivated",
        "agent_activated",
        "agent_deactivated",
        "agent_deregistered",
    ]
