"""What hosts say about their agents, how much of it, and looking at it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.mesh.kit import Tap, chunks_on, echo_on, gated_on, plain_peer, spin
from tests.mesh.secured import ConfiguredServer
from xml_pipeline.mesh import (
    AgentMesh,
    AgentSpec,
    ConnectionDenied,
    ConnectionFailed,
    ConnectionLost,
    HandlerError,
    InvalidInput,
    KVEntry,
    LogEvent,
    MeshError,
    MeshTimeout,
    ObserveConfig,
    Overloaded,
)
from xml_pipeline.mesh.agent_log import AgentLog
from xml_pipeline.mesh.log_levels import SEVERITIES, LogLevels, read_level, stored_level

LEVELS = list(SEVERITIES)


@pytest.fixture
async def tap(peer):
    """All log events, as a plain peer gets them."""
    return await Tap.on(peer, "mesh.logs.>")


async def said(tap: Tap) -> tuple[str, str, str, Any]:
    """Level, event, request id and data of the next event, which is as the protocol describes it."""
    message = await tap.next()
    body = json.loads(message.data)
    assert list(body) == ["timestamp", "level", "agent", "event", "request_id", "message", "data"]
    assert message.subject == f"mesh.logs.{body['agent']}"
    assert datetime.fromisoformat(body["timestamp"]).utcoffset() == UTC.utcoffset(None)
    return body["level"], body["event"], body["request_id"], body["data"]


async def write_level(peer, key: str, value: bytes) -> None:
    """As the other implementation does it."""
    bucket = await peer.jetstream().key_value("mesh-observability")
    await bucket.put(key, value)


def is_debug(mesh: AgentMesh, agent: str = "demo.echo") -> bool:
    return mesh.parts.journal.log(agent).is_debug


@contextlib.asynccontextmanager
async def following(mesh: AgentMesh, *args: Any, **kwargs: Any) -> AsyncIterator[asyncio.Queue[LogEvent]]:
    """What `observe.logs` yields, from the beginning of the block."""
    events = asyncio.Queue[LogEvent]()

    async def follow() -> None:
        async for event in mesh.observe.logs(*args, **kwargs):
            events.put_nowait(event)

    link = mesh.parts.link
    before = len(link._subscriptions)
    task = asyncio.create_task(follow())
    await spin(lambda: task.done() or len(link._subscriptions) > before)
    await link.flush()
    yield events
    task.cancel()
    await asyncio.wait([task])


# -- the bytes


async def test_the_bytes_of_an_event(host, mesh, tap):
    echo_on(host)
    async with host:
        assert [(await said(tap))[1] for _ in range(2)] == ["agent_activated", "agent_registered"]
        with pytest.raises(InvalidInput) as caught:
            await mesh.call("demo.echo", {"message": 5})
        message = await tap.next()
        assert message.subject == "mesh.logs.demo.echo"
        assert message.headers == {"X-Mesh-Instance-Id": host.instance_id}
        assert message.reply == ""
        timestamp = json.loads(message.data)["timestamp"]
        assert (
            message.data
            == (
                f'{{"timestamp":"{timestamp}","level":"warn","agent":"demo.echo","event":"validation_error",'
                f'"request_id":"{caught.value.request_id}","message":"{caught.value.message}",'
                '"data":{"code":"invalid_input"}}'
            ).encode()
        )
        assert timestamp.endswith("+00:00")


async def test_an_agent_comes_and_goes(host, tap):
    echo_on(host)
    async with host:
        assert await said(tap) == ("info", "agent_activated", "", {})
        assert await said(tap) == ("info", "agent_registered", "", {})
        echo_on(host, "demo.later")
        await host.catalog()
        assert [(await said(tap))[1] for _ in range(2)] == ["agent_activated", "agent_registered"]
    gone = sorted([(await said(tap))[1] for _ in range(4)])
    assert gone == ["agent_deactivated"] * 2 + ["agent_deregistered"] * 2


async def test_an_agent_that_is_switched_off_for_a_while(host, tap):
    echo_on(host)
    async with host:
        await host.parts.host.deactivate("demo.echo", 1.0)
        await host.parts.host.deactivate("demo.echo", 1.0)  # nothing happens, nothing is said
        await host.parts.host.activate(host._roster.agents["demo.echo"])
        events = [(await said(tap))[1] for _ in range(4)]
    assert events == ["agent_activated", "agent_registered", "agent_deactivated", "agent_activated"]


async def test_a_request_from_its_arrival_to_its_answer(host, mesh, peer, tap):
    echo_on(host)
    async with host:
        await mesh.observe.set("demo.echo", log_level="debug")
        await spin(lambda: is_debug(host))
        assert [(await said(tap))[1] for _ in range(2)] == ["agent_activated", "agent_registered"]
        await peer.request("mesh.agent.demo.echo", b'{"message":"x"}', headers={"X-Mesh-Request-Id": "rid-1"})
        assert await said(tap) == ("debug", "request_received", "rid-1", {})
        message = await tap.next()
        body = json.loads(message.data)
        took = body["data"]["duration_ms"]
        assert type(took) is int
        assert took >= 0
        del body["timestamp"]
        assert body == {
            "level": "debug",
            "agent": "demo.echo",
            "event": "request_completed",
            "request_id": "rid-1",
            "message": f"Request completed in {took}ms",
            "data": {"duration_ms": took},
        }


async def test_the_time_a_request_takes_is_counted_from_its_arrival(host, mesh):
    gate = gated_on(host)
    async with host, following(mesh, "demo.gated") as events:
        await host.observe.set_global(log_level="debug")
        call = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        (job,) = host.parts.host.service("demo.gated")._jobs
        job.arrived -= 7.0
        gate.go.set()
        await call
        while (event := await events.get()).event != "request_completed":
            pass
        assert 7000 <= event.data["duration_ms"] < 60_000


async def test_a_stream_is_a_request_too(host, mesh, peer):
    chunks_on(host)
    async with host, following(mesh, "demo.chunks") as events:
        await host.observe.set_global(log_level="debug")
        assert len([chunk async for chunk in mesh.stream("demo.chunks", {"message": "x", "n": 3})]) == 3
        received, completed = await events.get(), await events.get()
        assert (received.event, completed.event) == ("request_received", "request_completed")
        assert received.request_id == completed.request_id
        await peer.request("mesh.agent.demo.chunks", b'{"message":"x"}')
        received, failed = await events.get(), await events.get()
        assert (failed.level, failed.event, failed.data) == ("warn", "request_failed", {"code": "invocation_mismatch"})
        assert (received.request_id, failed.request_id) == ("", "")


async def test_every_way_to_fail(host, mesh, tap):
    failures = {"value": ValueError("secret"), "mesh": MeshError("mine", "of its own"), "exit": SystemExit(3)}

    @host.agent(AgentSpec(name="demo.failing"))
    async def failing(how: str) -> str:
        raise failures[how]

    @host.agent(AgentSpec(name="demo.slow", timeout=0.01, max_concurrency=1, max_queue=0))
    async def slow(x: int) -> None:
        await asyncio.Event().wait()

    async with host:
        for _ in range(4):
            await said(tap)
        for how, code in (("value", "handler_error"), ("mesh", "mine"), ("exit", "handler_error")):
            with pytest.raises(MeshError) as caught:
                await mesh.call("demo.failing", how)
            message = await tap.next()
            body = json.loads(message.data)
            assert (body["event"], body["data"]) == ("request_failed", {"code": code})
            assert body["request_id"] == caught.value.request_id
            assert body["message"] == caught.value.message
            assert b"secret" not in message.data
        with pytest.raises(MeshTimeout) as late:
            await mesh.call("demo.slow", 1)
        assert (await said(tap))[1:] == ("request_failed", late.value.request_id, {"code": "timeout"})


async def test_a_request_that_is_refused_or_given_up_is_said_to_have_failed_once(host, mesh):
    gate = gated_on(host, max_concurrency=1, max_queue=0)
    async with host, following(mesh, "demo.gated") as events:
        await host.observe.set_global(log_level="debug")
        call = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        with pytest.raises(Overloaded):
            await mesh.call("demo.gated", 2)
        call.cancel()
        await gate.cancelled.wait()
        with pytest.raises(InvalidInput):
            await mesh.call("demo.gated", "x")
        found = []
        while not found or found[-1].event != "validation_error":
            found.append(await events.get())
        failed = [event.data["code"] for event in found if event.event == "request_failed"]
        assert failed == ["overloaded", "cancelled"]
        assert [event.event for event in found].count("request_received") == 3
        assert "request_completed" not in [event.event for event in found]


async def test_a_stream_that_is_given_up_has_not_ended_well(host, peer, tap):
    """Also where its handler catches the cancellation, and returns."""

    @host.agent(AgentSpec(name="demo.ends", timeout=0.01))
    async def ends(x: int) -> AsyncIterator[int]:
        yield 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with host:
        await host.observe.set_global(log_level="debug")
        await until_silent(host, tap)
        frames = await Tap.on(peer, "mesh.stream.rid")
        request = {"X-Mesh-Request-Id": "rid", "X-Mesh-Stream": "true"}
        await peer.publish("mesh.agent.demo.ends", b"1", headers=request)
        assert (await frames.next()).data == b"1"
        error = await frames.next()
        assert json.loads(error.data)["code"] == "timeout"
        service = host.parts.host.service("demo.ends")
        await spin(lambda: not service._jobs)
        assert await until_silent(host, tap) == ["request_received", "request_failed"]


async def test_a_publisher_and_a_background_task_that_fail(host, mesh, tap):
    @host.agent(AgentSpec(name="demo.publisher"))
    async def publisher() -> AsyncIterator[int]:
        yield 1
        raise ValueError("secret")

    @host.agent(AgentSpec(name="demo.task"))
    async def task() -> None:
        raise MeshError("mine", "of its own")

    failed = {}
    async with host:
        while len(failed) < 2:
            body = json.loads((await tap.next()).data)
            if body["event"] == "request_failed":
                failed[body["agent"]] = (body["level"], body["request_id"], body["data"]["code"], body["message"])
    assert failed == {
        "demo.publisher": ("warn", "", "handler_error", HandlerError().message),
        "demo.task": ("warn", "", "mine", "of its own"),
    }


# -- levels


async def until_silent(host: AgentMesh, tap: Tap) -> list[str]:
    """The events that were sent so far."""
    host.parts.link.publish_now("mesh.logs.mark", b"{}")
    found = []
    while (message := await tap.next()).subject != "mesh.logs.mark":
        found.append(json.loads(message.data)["event"])
    return found


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["request_received", "request_completed", "request_received", "validation_error"]),
        ("info", ["validation_error"]),
        ("warn", ["validation_error"]),
        ("error", []),
        ("off", []),
    ],
)
async def test_a_level_that_a_plain_peer_writes(host, mesh, peer, tap, level, events):
    echo_on(host)
    async with host:
        await until_silent(host, tap)
        await write_level(peer, "demo.echo", json.dumps({"log_level": level}).encode())
        await spin(lambda: host.parts.journal._levels.of("demo.echo").log_level == level)
        await mesh.call("demo.echo", {"message": "x"})
        with pytest.raises(InvalidInput):
            await mesh.call("demo.echo", {"message": 5})
        assert await until_silent(host, tap) == events


async def test_the_bytes_of_a_level(mesh, peer):
    bucket = await peer.jetstream().key_value("mesh-observability")
    await mesh.observe.set_global(log_level="debug")
    await mesh.observe.set("demo.echo", log_level="off")
    assert (await bucket.get("global")).value == b'{"log_level": "debug"}'
    assert (await bucket.get("demo.echo")).value == b'{"log_level": "off"}'
    await mesh.observe.unset("demo.echo")
    await mesh.observe.unset_global()
    assert await mesh.observe.get("demo.echo") == ObserveConfig("info", "default")


async def test_the_agents_level_wins_over_the_one_for_all(mesh, peer):
    assert await mesh.observe.get("demo.echo") == ObserveConfig("info", "default")
    await mesh.observe.set_global(log_level="warn")
    assert await mesh.observe.get("demo.echo") == ObserveConfig("warn", "global")
    await mesh.observe.set("demo.echo", log_level="debug")
    assert await mesh.observe.get("demo.echo") == ObserveConfig("debug", "agent")
    assert await mesh.observe.get("demo.other") == ObserveConfig("warn", "global")
    await write_level(peer, "demo.echo", b'{"log_level": "loud"}')
    assert await mesh.observe.get("demo.echo") == ObserveConfig("warn", "global")
    await mesh.observe.unset_global()
    assert await mesh.observe.get("demo.echo") == ObserveConfig("info", "default")


async def test_a_level_of_our_own_holds_when_it_is_set(host):
    """Whoever sets it need not wait until it is heard of."""
    echo_on(host)
    async with host:
        await host.observe.set("demo.echo", log_level="debug")
        assert is_debug(host)
        await host.observe.set("demo.echo", log_level="info")
        assert not is_debug(host)


async def test_levels_that_were_there_before_hold_from_the_beginning(mesh, host, tap):
    await mesh.observe.set("demo.quiet", log_level="warn")
    echo_on(host, "demo.quiet")
    echo_on(host, "demo.echo")
    async with host:
        await until_silent(host, tap)
    assert {json.loads((await tap.next()).data)["agent"] for _ in range(2)} == {"demo.echo"}


async def test_an_agent_that_is_called_global_has_the_level_for_all(mesh):
    await mesh.observe.set_global(log_level="warn")
    assert await mesh.observe.get("global") == ObserveConfig("warn", "global")
    with pytest.raises(ValueError, match="set_global"):
        await mesh.observe.set("global", log_level="debug")
    with pytest.raises(ValueError, match="unset_global"):
        await mesh.observe.unset("global")
    assert await mesh.observe.get("demo.echo") == ObserveConfig("warn", "global")


@pytest.mark.parametrize("level", ["loud", "", "INFO", None, 10, b"info", ["info"]])
async def test_a_level_that_is_none(mesh, level):
    for attempt in (
        mesh.observe.set("demo.echo", log_level=level),
        mesh.observe.set_global(log_level=level),
        anext(mesh.observe.logs(level="off" if level is None else level)),
    ):
        with pytest.raises(ValueError, match="level"):
            await attempt
    assert await mesh.observe.get("demo.echo") == ObserveConfig()


@pytest.mark.parametrize("name", ["", "a b", "a.*", "a..b", "a\r\nb", None, "x" * 300])
async def test_a_name_that_no_agent_can_have(mesh, name):
    attempts = [mesh.observe.set(name, log_level="info"), mesh.observe.get(name), mesh.observe.unset(name)]
    if name is not None:
        attempts.append(anext(mesh.observe.logs(name)))
    for attempt in attempts:
        with pytest.raises(ValueError, match="name of an agent"):
            await attempt


async def test_without_a_connection(server):
    mesh = AgentMesh(server.url)
    with pytest.raises(ConnectionFailed):
        _ = mesh.observe
    async with mesh:
        observe = mesh.observe
        mesh.parts.link._lost(ConnectionLost())
        with pytest.raises(ConnectionLost):
            await observe.set("demo.echo", log_level="info")
        with pytest.raises(ConnectionLost):
            await observe.get("demo.echo")
    with pytest.raises(ConnectionFailed):
        await observe.set("demo.echo", log_level="info")


NO_LEVELS = [b"", b"{nope", b"7", b"[]", b'"info"', b"{}", b'{"log_level": 10}', b'{"log_level": "loud"}', b"\xff"]
NO_LEVELS += [b'{"log_level": ["info"]}', b"[" * 100_000, b'{"log_level": null}']


@pytest.mark.parametrize("value", NO_LEVELS)
def test_a_stored_level_that_makes_no_sense(value):
    assert read_level(value) is None


async def test_a_value_that_makes_no_sense_is_as_none(host, peer):
    echo_on(host)
    async with host:
        await host.observe.set_global(log_level="debug")
        for value in NO_LEVELS:
            await host.observe.set("demo.echo", log_level="warn")
            assert not is_debug(host)
            await write_level(peer, "demo.echo", value)
            await spin(lambda: is_debug(host))


async def test_a_deleted_bucket_is_a_bucket_without_levels(host, peer):
    echo_on(host)
    async with host:
        for _ in range(5):
            await host.observe.set_global(log_level="debug")
        assert is_debug(host)
        await peer.jetstream().delete_stream("KV_mesh-observability")
        host.parts.journal._watch._trouble.set()  # it would notice by itself, some seconds later
        await spin(lambda: not is_debug(host))
        await host.observe.set_global(log_level="debug")  # its revision is lower than those of before
        assert is_debug(host)
        assert await host.observe.get("demo.echo") == ObserveConfig("debug", "global")


async def test_a_level_that_is_set_while_the_host_is_cut_off(host, peer, monkeypatch):
    echo_on(host)
    async with host:
        link = host.parts.link
        cut_off, back = asyncio.Event(), asyncio.Event()
        try_again = link._try_again

        async def try_later() -> bool:
            cut_off.set()
            await back.wait()
            return await try_again()

        monkeypatch.setattr(link, "_try_again", try_later)
        link._lost(ConnectionLost())
        await cut_off.wait()
        await write_level(peer, "demo.echo", b'{"log_level": "debug"}')
        assert not is_debug(host)
        back.set()
        await spin(lambda: is_debug(host))


async def test_levels_and_loops_outlive_the_server(lasting_server):
    host, mesh = (AgentMesh(lasting_server.url, drain_timeout=2.0) for _ in range(2))
    echo_on(host)
    async with host, mesh, following(mesh, "demo.echo") as events:
        await mesh.observe.set("demo.echo", log_level="debug")
        await spin(lambda: is_debug(host))
        for level, message in (("warn", "1"), ("debug", "2")):
            lasting_server.kill()
            await lasting_server.wait()
            await lasting_server.stop()
            await lasting_server.start()
            await asyncio.gather(*(one.parts.link.wait_up(20) for one in (host, mesh)))
            async with plain_peer(lasting_server.url) as peer:
                await write_level(peer, "demo.echo", stored_level(level))
            await spin(lambda level=level: is_debug(host) == (level == "debug"))
            await mesh.call("demo.echo", {"message": message}, timeout=10.0, idempotent=True)
        while (event := await events.get()).event != "request_completed":
            assert event.event == "request_received"


class Levels:
    """What `LogLevels` has to say, in the plainest form."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[int, str | None]] = {}

    def of(self, agent: str) -> tuple[str, str]:
        for key, source in ((agent, "agent"), ("global", "global")):
            level = self.entries.get(key, (0, None))[1]
            if level is not None and (source == "global" or agent != "global"):
                return level, source
        return "info", "default"


entries = st.tuples(st.sampled_from(["a", "b", "global"]), st.sampled_from([*LEVELS, "?", None]), st.integers(1, 6))


@given(st.lists(entries))
def test_the_latest_entries_decide_in_whatever_order_they_come(written):
    levels, model = LogLevels(), Levels()
    for key, level, revision in written:
        value = b"" if level is None else stored_level(level)
        levels.apply(KVEntry(key, value, revision, "DEL" if level is None else "PUT"))
        if revision >= model.entries.get(key, (0, None))[0]:
            model.entries[key] = (revision, level if level in LEVELS else None)
        for agent in ("a", "b", "c", "global"):
            assert (levels.of(agent).log_level, levels.of(agent).source) == model.of(agent)


# -- never in the way


async def test_an_event_is_dropped_where_there_is_no_connection(host):
    echo_on(host)
    async with host:
        log = host.parts.journal.log("demo.echo")
        await host.observe.set_global(log_level="debug")
    log.received("1")
    log.completed("1", 0.5)
    log.failed("1", HandlerError())
    log.registered()


async def test_an_event_that_cannot_be_sent_breaks_nothing(host, mesh, monkeypatch):
    echo_on(host)
    async with host:
        await host.observe.set_global(log_level="debug")

        def lost(subject: str, *args: Any, **kwargs: Any) -> None:
            assert subject == "mesh.logs.demo.echo"
            raise ConnectionLost

        monkeypatch.setattr(host.parts.link, "publish_now", lost)
        assert await mesh.call("demo.echo", {"message": "x"}) == {"reply": "x"}
        monkeypatch.undo()


async def test_what_comes_with_every_request_is_dropped_while_much_waits_to_be_written(host, tap, monkeypatch):
    echo_on(host)
    async with host:
        await host.observe.set_global(log_level="debug")
        await until_silent(host, tap)
        log = host.parts.journal.log("demo.echo")
        with monkeypatch.context() as patch:
            patch.setattr(type(host.parts.link), "is_congested", True)
            log.received("1")
            log.failed("1", HandlerError())
        assert await until_silent(host, tap) == ["request_failed"]


async def test_an_event_that_nobody_wants_is_not_even_begun(host, mesh, monkeypatch):
    """Most of the time, requests that go well have nothing to say; that must cost them nothing."""
    echo_on(host)
    chunks_on(host)
    async with host:
        for name in ("received", "completed", "_write"):
            monkeypatch.delattr(AgentLog, name)
        assert await mesh.call("demo.echo", {"message": "x"}) == {"reply": "x"}
        assert [chunk async for chunk in mesh.stream("demo.chunks", {"message": "x"})] == [{"delta": "x0"}]
        monkeypatch.undo()


async def test_what_a_caller_chooses_can_be_sent(host, peer, tap):
    """Also an id, a code or a text that is very long, or no text at all."""

    @host.agent(AgentSpec(name="demo.odd"))
    async def odd(x: int) -> int:
        raise MeshError("c" * 10_000, "\ud800" + "m" * 10_000_000)

    async with host:
        await until_silent(host, tap)
        await peer.publish("mesh.agent.demo.odd", b"1", headers={"X-Mesh-Request-Id": "\u00e9" * 1000})
        level, event, request_id, data = await said(tap)
        assert (level, event, request_id) == ("warn", "request_failed", "\u00e9" * 256)
        assert data["code"].startswith("cccc")


# -- looking


async def test_only_the_events_of_one_agent_or_of_a_level(host, mesh):
    echo_on(host, "demo.one")
    echo_on(host, "demo.two")
    async with (
        following(mesh) as everything,
        following(mesh, "demo.two") as two,
        following(mesh, level="warn") as warnings,
        host,
    ):
        for name in ("demo.one", "demo.two"):
            with pytest.raises(InvalidInput):
                await host.call(name, {"message": 5})
        for _ in range(2):
            assert (await warnings.get()).event == "validation_error"
        assert warnings.empty()
        events = [(await two.get()).event for _ in range(3)]
        assert events == ["agent_activated", "agent_registered", "validation_error"]
        found = [await everything.get() for _ in range(6)]
        assert {event.agent for event in found} == {"demo.one", "demo.two"}
        assert all(isinstance(event, LogEvent) for event in found)


HOSTILE = [b"", b"{nope", b"7", b"null", b"[" * 100_000, b"{}", b'{"event": 3}', b"\xff\xfe", b'{"event": ""}']


async def test_what_is_no_event_is_left_out(mesh, peer):
    async with following(mesh) as everything, following(mesh, "a.b", level="debug") as events:
        for body in HOSTILE:
            await peer.publish("mesh.logs.a.b", body)
        await peer.publish("mesh.logs.a.b", b'{"event": "e", "level": "unheard-of"}')
        await peer.publish(
            "mesh.logs.a.b",
            b'{"event": "e", "level": "error", "agent": "of.others", "timestamp": 3, "data": [], "more": 1}',
        )
        known = LogEvent(timestamp="", level="error", agent="a.b", event="e")
        assert await events.get() == known
        assert await everything.get() == LogEvent(timestamp="", level="unheard-of", agent="a.b", event="e")
        assert await everything.get() == known
        assert events.empty()


@given(st.binary() | st.recursive(st.none() | st.text() | st.integers() | st.floats(), st.lists).map(json.dumps))
def test_reading_never_fails(body):
    assert LogEvent.read("mesh.logs.a", body if isinstance(body, bytes) else body.encode()) is None


async def test_a_loop_that_is_left_leaves_nothing_behind(mesh, peer):
    before = len(mesh.parts.link._subscriptions)
    async with contextlib.aclosing(mesh.observe.logs()) as events:
        first = asyncio.create_task(anext(events))
        await spin(lambda: len(mesh.parts.link._subscriptions) > before)
        await mesh.parts.link.flush()
        await peer.publish("mesh.logs.a", b'{"event": "e"}')
        assert (await first).event == "e"
    assert len(mesh.parts.link._subscriptions) == before


async def test_a_loop_ends_with_the_mesh_object(server):
    mesh = AgentMesh(server.url)
    async with mesh:

        async def follow() -> str:
            async for event in mesh.observe.logs():
                assert not event
            return "ended"

        task = asyncio.create_task(follow())
        await spin(lambda: any(one.subject == "mesh.logs.>" for one in mesh.parts.link._subscriptions))
    assert await asyncio.wait_for(task, 10) == "ended"


async def test_who_serves_nobody_follows_no_levels(mesh, peer):
    assert mesh.is_connected
    assert (await peer.jetstream().stream_info("KV_mesh-observability")).state.consumer_count == 0


# -- where the server does not permit it

RESTRICTED = """
accounts {
  M {
    jetstream: enabled
    users: [
      { user: all, password: pw }
      { user: some, password: pw, permissions: {
          publish: { deny: ["mesh.logs.>", "$KV.mesh-observability.>"] }
          subscribe: { deny: ["mesh.logs.>"] } } }
    ]
  }
}
"""


async def test_what_the_server_does_not_permit(tmp_path):
    async with ConfiguredServer(RESTRICTED, tmp_path) as server:
        host, mesh = AgentMesh(server.url_of("some")), AgentMesh(server.url_of("all"))
        echo_on(host)
        async with host, mesh:
            await mesh.observe.set_global(log_level="debug")
            await spin(lambda: is_debug(host))
            assert await mesh.call("demo.echo", {"message": "x"}) == {"reply": "x"}
            with pytest.raises(ConnectionDenied):
                await asyncio.wait_for(anext(host.observe.logs()), 20)
            with pytest.raises(ConnectionDenied):
                await host.observe.set("demo.echo", log_level="info")
            assert await host.observe.get("demo.echo") == ObserveConfig("debug", "global")
