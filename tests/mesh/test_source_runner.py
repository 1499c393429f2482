"""One source at work: failures, requests beside it, and its end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.mesh.kit import Gate, Tap, spin, until
from tests.mesh.reacting import NAME, Doc, reacting
from xml_pipeline.mesh import (
    AgentMesh,
    AgentSpec,
    ConnectionLost,
    InvocationMismatch,
    KVEntry,
    KVSource,
    MeshError,
    MeshMessage,
)
from xml_pipeline.mesh.subjects import errors_subject

# -- failures


class Own(MeshError):
    default_code = "own"


def boom() -> None:
    raise ValueError("the password is 42")


def own() -> None:
    raise Own(message="for everybody", details={"more": 1})


def cancel() -> None:
    raise asyncio.CancelledError


def leave() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("what", "code", "text"),
    [
        (boom, "handler_error", None),
        (own, "own", "for everybody"),
        (cancel, "handler_error", None),
        (leave, "handler_error", None),
    ],
)
@pytest.mark.parametrize("kind", ["keys", "subject"])
async def test_a_failure_is_logged_and_copied_and_the_source_goes_on(host, mesh, peer, caplog, what, code, text, kind):
    errors = await Tap.on(peer, errors_subject(NAME))
    done = asyncio.Queue[str]()
    source = host.kv_source("a") if kind == "keys" else host.subject_source("a")

    @host.agent(AgentSpec(name=NAME), sources=[source])
    async def react(value: str) -> None:
        if value == "bad":
            what()
        done.put_nowait(value)

    async with host:
        await (mesh.kv.put("a", "bad") if kind == "keys" else mesh.publish("a", "bad"))
        message = await errors.next()
        await (mesh.kv.put("a", "good") if kind == "keys" else mesh.publish("a", "good"))
        assert await done.get() == "good"
        assert message.headers == {"X-Mesh-Status": "error", "X-Mesh-Instance-Id": host.instance_id}
        told = json.loads(message.data)
        assert set(told) == {"code", "message", "agent", "request_id", "details"}
        assert (told["code"], told["agent"], told["request_id"]) == (code, NAME, "")
        assert text is None or told["message"] == text
        where = (
            {"source": "keys a", "key": "a", "revision": 1}
            if kind == "keys"
            else {"source": "subject a", "subject": "a"}
        )
        assert told["details"] == {**({"more": 1} if what is own else {}), **where}
        assert b"password" not in message.data
        await spin(lambda: host.parts.reactions.statistics(NAME)[0][1:3] == (1, 1))
    assert any(NAME in record.getMessage() and record.levelno >= logging.WARNING for record in caplog.records)


async def test_who_fails_with_what_is_said_of_its_failures_does_not_go_round_in_circles(host, peer):
    errors = await Tap.on(peer, "mesh.errors.>")
    for number, subject in enumerate(("mesh.errors.>", "mesh.logs.>")):
        reacting(host, MeshMessage[int], host.subject_source(subject), name=f"a.{number}")
    async with host:
        await peer.publish("mesh.errors.other", b"{}")
        await peer.publish("mesh.logs.other", b"{}")

        def failed() -> list[int]:
            return [host.parts.reactions.statistics(f"a.{number}")[0].failed for number in range(2)]

        await spin(lambda: min(failed()) >= 1)
        for _ in range(3):
            before = failed()
            await host.parts.link.flush()
        assert failed() == before
    assert (await errors.next()).subject == "mesh.errors.other"
    assert errors.messages.empty()


async def test_a_value_that_is_not_valid_is_told_with_its_key(host, mesh, peer):
    errors = await Tap.on(peer, errors_subject(NAME))
    seen = reacting(host, KVEntry[Doc], host.kv_source("doc.*"))
    async with host:
        logs = await Tap.on(peer, f"mesh.logs.{NAME}")
        await mesh.kv.put("doc.bad", '{"id": "x"}')
        await mesh.kv.put("doc.worse", b"\xff{")
        await mesh.kv.put("doc.good", Doc(id=1))
        assert (await seen.next()).value == Doc(id=1)
        for key in ("doc.bad", "doc.worse"):
            told = json.loads((await errors.next()).data)
            assert (told["code"], told["details"]["key"]) == ("invalid_input", key)
            assert told["details"]["errors"]
            event = json.loads((await logs.next()).data)
            assert (event["event"], event["data"]) == ("validation_error", {"code": "invalid_input"})


async def test_a_handler_that_takes_too_long_is_given_up(host, mesh, peer):
    errors = await Tap.on(peer, errors_subject(NAME))
    done = asyncio.Event()

    @host.agent(AgentSpec(name=NAME, timeout=0.05), sources=[host.kv_source("a")])
    async def react(value: str) -> None:
        if value == "slow":
            await asyncio.Event().wait()
        done.set()

    async with host:
        await mesh.kv.put("a", "slow")
        assert json.loads((await errors.next()).data)["code"] == "timeout"
        await mesh.kv.put("a", "quick")
        await done.wait()


@pytest.mark.parametrize("resume", [None, "me"])
async def test_a_change_whose_handler_had_no_connection_is_handled_again(lasting_server, resume):
    """Else a stage of a pipeline would lose what it was at when the server crashed."""
    begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    raised: list[MeshError] = []
    async with AgentMesh(lasting_server.url) as host:
        errors = Tap()
        await host.parts.link.subscribe(errors_subject(NAME), errors.messages.put_nowait)

        @host.agent(AgentSpec(name=NAME), sources=[host.kv_source("in", resume=resume)])
        async def react(entry: KVEntry[str]) -> None:
            begun.set()
            await go.wait()
            try:
                await host.kv.put("out", entry.value)
            except MeshError as error:
                raised.append(error)
                raise
            done.set()

        await host.kv.put("in", "x")
        await begun.wait()
        lasting_server.kill()
        await lasting_server.wait()
        await spin(lambda: not host.is_connected)
        go.set()
        await spin(lambda: raised)
        await lasting_server.stop()
        await lasting_server.start()
        await asyncio.wait_for(done.wait(), 30)
        assert await host.kv.get("out") == "x"
        assert isinstance(raised[0], ConnectionLost)
        assert errors.messages.empty()


async def test_a_lost_connection_that_was_none_is_a_failure(host, mesh):
    calls = 0

    @host.agent(AgentSpec(name=NAME), sources=[host.kv_source("a")])
    async def react(entry: KVEntry[str]) -> None:
        nonlocal calls
        calls += 1
        raise ConnectionLost("of something else")

    async with host:
        await mesh.kv.put("a", "1")
        await spin(lambda: host.parts.reactions.statistics(NAME)[0].failed == 1)
        assert calls == 1


async def test_an_agent_registered_while_the_connection_is_lost_begins_when_it_is_back(lasting_server):
    async with AgentMesh(lasting_server.url) as host:
        lasting_server.kill()
        await lasting_server.wait()
        await spin(lambda: not host.is_connected)
        seen = reacting(host, KVEntry[str], host.kv_source("k"))
        await lasting_server.stop()
        await lasting_server.start()
        await host.parts.link.wait_up(30)
        await host.kv.put("k", "1")
        assert (await seen.next()).value == "1"


# -- beside requests


async def test_one_event_at_a_time_and_requests_meanwhile(host, mesh, peer):
    gate, found = Gate(), []

    @host.agent(AgentSpec(name=NAME), sources=[host.subject_source("s"), host.kv_source("k")])
    async def react(doc: Doc) -> int:
        if doc.id < 10:
            await gate.pass_through(doc.id)
            found.append(doc.id)
        return doc.id

    async with host:
        for number in range(3):
            await peer.publish("s", b'{"id": %d}' % number)
        assert await gate.begun.get() == 0
        await mesh.kv.put("k", Doc(id=5))
        assert await gate.begun.get() == 5  # each source is for itself
        assert await mesh.call(NAME, {"id": 20}) == 20
        assert gate.begun.empty()
        gate.go.set()
        await spin(lambda: len(found) == 4)
        assert [number for number in found if number != 5] == [0, 1, 2]


async def test_who_takes_envelopes_cannot_be_called(host, mesh):
    reacting(host, KVEntry[Doc], host.kv_source("a"))
    async with host:
        await mesh.contract(NAME)
        for asking in (host, mesh):
            await spin(lambda asking=asking: NAME in asking.parts.catalog.entries)
            with pytest.raises(InvocationMismatch, match="background task"):
                await asking.call(NAME, {"id": 1})


async def test_an_event_has_a_task_and_context_of_its_own(host, mesh):
    tasks = []

    @host.agent(AgentSpec(name=NAME), sources=[host.kv_source("a")])
    async def react(value: str) -> None:
        tasks.append(asyncio.current_task())
        if value == "1":
            asyncio.current_task().cancel()

    async with host:
        for number, value in enumerate(("1", "2"), 1):
            await mesh.kv.put("a", value)
            await spin(lambda number=number: len(tasks) == number)
    assert tasks[0] is not tasks[1]


async def test_a_later_agent_of_the_name_takes_over(host, mesh):
    first = reacting(host, str, host.kv_source("a"))
    async with host:
        await mesh.kv.put("a", "1")
        assert await first.next() == "1"
        second = reacting(host, str, host.kv_source("a"))
        assert await second.next() == "1"  # it begins anew
        await mesh.kv.put("a", "2")
        assert await second.next() == "2"
        assert first.is_empty

        @host.agent(AgentSpec(name=NAME, version="3"))
        async def only_asked(value: str) -> str:
            return value

        await until(mesh, lambda entries: entries[NAME].version == "3")
        assert not host.parts.reactions.names
        assert await mesh.call(NAME, "x") == "x"
        await mesh.kv.put("a", "3")
        assert second.is_empty


# -- leaving


@asynccontextmanager
async def at_work(host: AgentMesh, mesh: AgentMesh, source: Any) -> AsyncIterator[tuple[Gate, list[str]]]:
    gate, done = Gate(), []

    @host.agent(AgentSpec(name=NAME), sources=[source])
    async def react(value: str) -> None:
        await gate.pass_through(value)
        done.append(value)

    async with host:
        for key, value in (("a.1", "1"), ("a.2", "2")):
            await (mesh.kv.put(key, value) if isinstance(source, KVSource) else mesh.publish(key, value))
        await gate.begun.get()
        yield gate, done


SOURCES: list[Callable[[], Any]] = [
    lambda: AgentMesh.kv_source("a.*"),
    lambda: AgentMesh.kv_source("a.*", resume="me"),
    lambda: AgentMesh.subject_source("a.*"),
]


@pytest.mark.parametrize("source", SOURCES)
async def test_leaving_waits_for_the_event_it_is_at_and_begins_no_other(host, mesh, source):
    async with at_work(host, mesh, source()) as (gate, done):
        leaving = asyncio.create_task(host.__aexit__(None, None, None))
        await spin(lambda: not host.parts.reactions.names)
        gate.go.set()
        await leaving
        assert done == ["1"]
    assert gate.begun.empty()
    if isinstance(source(), KVSource) and source().cursor:
        again = reacting(host, str, source())
        async with host:
            assert await again.next() == "2"  # the first was handled
            assert again.is_empty


async def test_sources_end_before_requests_are_refused(host, mesh):
    gate = Gate()

    @host.agent(AgentSpec(name=NAME), sources=[host.kv_source("a")])
    async def react(value: str) -> str:
        if value == "event":
            await gate.pass_through(value)
        return value

    async with host:
        await mesh.kv.put("a", "event")
        await gate.begun.get()
        leaving = asyncio.create_task(host.__aexit__(None, None, None))
        await spin(lambda: host.parts.reactions._leaving)
        for _ in range(3):
            assert await mesh.call(NAME, "request") == "request"
        gate.go.set()
        await leaving


async def test_an_agent_that_is_activated_once_more_does_not_begin_anew(host, mesh):
    """As happens where it was activated, and could not be made known."""
    seen = reacting(host, str, host.kv_source("a.*"))
    async with host:
        await mesh.kv.put("a.1", "1")
        assert await seen.next() == "1"
        await host.parts.gates.admit(host._roster.agents[NAME])
        await mesh.kv.put("a.2", "2")
        assert await seen.next() == "2"


async def test_no_task_is_left_behind(server):
    before = asyncio.all_tasks()
    host = AgentMesh(server.url)
    seen = [reacting(host, str, source(), name=f"a.{number}") for number, source in enumerate(SOURCES)]
    for _ in range(2):
        async with host:
            await host.publish("a.1", "x")
            assert await seen[2].next() == "x"
            assert len(asyncio.all_tasks()) > len(before) + len(SOURCES)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("source", SOURCES)
async def test_leaving_gives_up_at_the_deadline(server, mesh, source):
    host = AgentMesh(server.url, drain_timeout=0.05)
    async with at_work(host, mesh, source()) as (gate, done):
        pass
    assert gate.cancelled.is_set()
    assert done == []


async def test_a_handler_may_end_its_own_host(server, mesh):
    host = AgentMesh(server.url)
    left = asyncio.Event()

    @host.agent(AgentSpec(name=NAME), sources=[host.kv_source("a")])
    async def react(value: str) -> None:
        await host.__aexit__(None, None, None)
        left.set()

    await host.__aenter__()
    await mesh.kv.put("a", "leave")
    await asyncio.wait_for(left.wait(), 20)
    assert not host.is_connected
