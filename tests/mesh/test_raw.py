"""Agents that read and write bytes, and begin requests without a task for each."""

from __future__ import annotations

import asyncio
import gc
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from tests.mesh.kit import Tap, plain_peer, spin, until_names
from tests.mesh.test_returns import crash, delay_return
from xml_pipeline.mesh import (
    AgentContract,
    AgentMesh,
    AgentSpec,
    CallCancelled,
    HandlerError,
    InvalidInput,
    InvocationMismatch,
    MeshTimeout,
    Overloaded,
    PayloadTooLarge,
)
from xml_pipeline.mesh import service as service_module
from xml_pipeline.mesh.job import Job
from xml_pipeline.mesh.raw import RawRequest, Told, raw_agent
from xml_pipeline.mesh.shapes import Shape

NAME = "demo.raw"


class Desk:
    """Begins requests, and has their ends told by the test."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[tuple[RawRequest, Told]] = asyncio.Queue()
        self.given_up: list[str] = []
        self.with_a_task: list[bytes] = []

    def begin(self, request: RawRequest, told: Told) -> Any:
        if request.body == b'"task"':
            return None
        self.begun.put_nowait((request, told))
        return lambda: self.given_up.append(request.request_id)

    async def serve(self, request: RawRequest) -> bytes:
        self.with_a_task.append(request.body)
        return b'"served"'

    def agent(self, **spec: Any) -> Any:
        return agent(self.begin, self.serve, **spec)


def agent(begin: Any, serve: Any = None, **spec: Any) -> Any:
    contract = AgentContract(name=NAME, description="", input_schema={}, output_schema={})
    return raw_agent(AgentSpec(name=NAME, description="", **spec), contract, Shape.RESPONDER, serve, begin)


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
async def serving(host, mesh):
    """Have an agent served, and known to whoever asks."""
    async with host:

        async def serve(raw: Any) -> Any:
            await host.offer(raw)
            await until_names(mesh, NAME)
            return host.parts.host.service(NAME)

        yield serve


def is_idle(service: Any) -> bool:
    return not service._jobs and (service.running, service.waiting, service._slots.taken) == (0, 0, 0)


async def test_the_end_of_a_request_may_be_told_later_and_from_anywhere(serving, mesh, desk):
    service = await serving(desk.agent())
    calls = [asyncio.create_task(mesh.call(NAME, number)) for number in (1, 2, 3)]
    came = [await desk.begun.get() for _ in calls]
    assert service.running == 3
    for request, told in reversed(came):
        assert request.instance_id == mesh.instance_id
        told(request.body + b"0", None)
    assert await asyncio.gather(*calls) == [10, 20, 30]
    assert is_idle(service) and not desk.given_up and not desk.with_a_task
    assert service.tally.nanoseconds > 0 and service.tally.errors == 0


async def test_it_may_be_told_before_begin_returns(serving, mesh, desk):
    def begin(request: RawRequest, told: Told) -> Any:
        told(b'"at once"', None)
        told(b'"again"', None)
        return lambda: desk.given_up.append("late")

    service = await serving(agent(begin, timeout=30.0))
    assert await mesh.call(NAME, 1) == "at once"
    assert is_idle(service)
    service.cancel_all(CallCancelled())
    assert not desk.given_up


async def test_what_is_told_after_the_end_is_dropped(serving, mesh, peer, desk):
    await serving(desk.agent())
    call = asyncio.create_task(mesh.call(NAME, 1))
    _, told = await desk.begun.get()
    everything = await Tap.on(peer, ">")
    told(b"1", None)
    told(b"2", None)
    told(b"", ValueError("late"))
    assert await call == 1
    await peer.publish("the.end", b"")
    came = []
    while (message := await everything.next()).subject != "the.end":
        came.append(message.data)
    assert [data for data in came if data] == [b"1"]  # that the host has the request is said without a body


async def test_a_request_that_cannot_be_handled_so_gets_a_task(serving, mesh, desk):
    service = await serving(desk.agent())
    assert await mesh.call(NAME, "task") == "served"
    assert desk.with_a_task == [b'"task"']
    assert is_idle(service)


async def test_what_kind_of_call_it_is_is_checked_as_ever(serving, mesh, peer, desk):
    await serving(desk.agent())
    with pytest.raises(InvocationMismatch):
        async for _ in mesh.stream(NAME, 1):
            pass
    headers = {"X-Mesh-Request-Id": "mine", "X-Mesh-Stream": "true"}
    frames = await Tap.on(peer, "mesh.stream.mine")
    await peer.publish(f"mesh.agent.{NAME}", b"1", headers=headers)
    assert b"invocation_mismatch" in (await frames.next()).data
    assert desk.begun.empty()


@pytest.mark.parametrize("told_so", [True, False])
async def test_errors_for_the_caller_reach_it(serving, mesh, told_so):
    def begin(request: RawRequest, told: Told) -> Any:
        if not told_so:
            raise InvalidInput("not so")
        told(b"", InvalidInput("not so"))
        return lambda: None

    service = await serving(agent(begin))
    with pytest.raises(InvalidInput, match="not so"):
        await mesh.call(NAME, 1)
    await spin(lambda: is_idle(service))
    assert service.tally.errors == 1


@pytest.mark.parametrize("told_so", [True, False])
async def test_other_errors_stay_here(serving, mesh, told_so, caplog):
    def begin(request: RawRequest, told: Told) -> Any:
        if not told_so:
            raise ValueError("secret")
        told(b"", ValueError("secret"))
        return lambda: None

    await serving(agent(begin))
    with pytest.raises(HandlerError) as caught:
        await mesh.call(NAME, 1)
    assert "secret" not in str(caught.value.to_dict())
    assert "secret" in caplog.text


class OwnBaseException(BaseException):
    pass


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, OwnBaseException])
@pytest.mark.parametrize("told_so", [True, False])
async def test_whatever_is_raised_ends_its_own_request_only(serving, mesh, desk, error, told_so):
    """Neither all reading from the connection, nor whoever frees the slot of a request that waits."""

    def begin(request: RawRequest, told: Told) -> Any:
        if request.body == b"2":
            if told_so:
                return told(b"", error())
            raise error
        return desk.begin(request, told)

    service = await serving(agent(begin, max_concurrency=1))
    first = asyncio.create_task(mesh.call(NAME, 1))
    _, told = await desk.begun.get()
    others = [asyncio.create_task(mesh.call(NAME, number)) for number in (2, 3)]
    await spin(lambda: service.waiting == 2)
    told(b"1", None)
    _, told = await desk.begun.get()
    told(b"3", None)
    assert await first == 1 and await others[1] == 3
    with pytest.raises(HandlerError):
        await others[0]
    with pytest.raises(HandlerError):
        await mesh.call(NAME, 2)
    await spin(lambda: is_idle(service))


async def test_a_request_that_waited_runs_in_the_context_that_it_came_in(serving, mesh, desk):
    mark = ContextVar("mark", default="")
    seen = []

    def begin(request: RawRequest, told: Told) -> Any:
        seen.append(mark.get())
        mark.set("of another request")
        return desk.begin(request, told)

    service = await serving(agent(begin, max_concurrency=1))
    calls = [asyncio.create_task(mesh.call(NAME, number)) for number in (1, 2)]
    _, told = await desk.begun.get()
    await spin(lambda: service.waiting == 1)
    elsewhere = copy_context()
    elsewhere.run(mark.set, "of whoever tells")
    elsewhere.run(told, b"1", None)
    assert elsewhere[mark] == "of whoever tells"
    _, told = await desk.begun.get()
    told(b"2", None)
    assert await asyncio.gather(*calls) == [1, 2]
    assert seen == ["", ""]


@pytest.mark.parametrize("body", [b'"raised"', b'"told"', b'"task"'])
async def test_a_request_that_is_over_leaves_nothing_for_the_garbage_collector(serving, peer, desk, body):
    def begin(request: RawRequest, told: Told) -> Any:
        if body == b'"told"':
            return told(b"", InvalidInput())
        if body == b'"raised"':
            raise InvalidInput  # nothing else: what is logged is kept with all that it went through
        return desk.begin(request, told)

    service = await serving(agent(begin, desk.serve))
    await peer.request(f"mesh.agent.{NAME}", body)
    await spin(lambda: is_idle(service))
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await peer.request(f"mesh.agent.{NAME}", body)
        await spin(lambda: is_idle(service))
        assert sum(isinstance(each, Job) for each in gc.get_objects()) <= 1
    finally:
        gc.enable()


async def test_an_answer_that_is_too_large_is_a_typed_error(serving, mesh, desk):
    service = await serving(desk.agent())
    call = asyncio.create_task(mesh.call(NAME, 1))
    _, told = await desk.begun.get()
    told(b'"%s"' % (b"x" * 2_000_000), None)
    with pytest.raises(PayloadTooLarge):
        await call
    await spin(lambda: is_idle(service))


async def test_the_limit_holds_and_others_wait_their_turn(serving, mesh, desk):
    service = await serving(desk.agent(max_concurrency=1, max_queue=1))
    first = asyncio.create_task(mesh.call(NAME, 1))
    _, told = await desk.begun.get()
    second = asyncio.create_task(mesh.call(NAME, 2))
    await spin(lambda: service.waiting == 1)
    with pytest.raises(Overloaded):
        await mesh.call(NAME, 3)
    assert desk.begun.empty()
    told(b"1", None)
    request, told = await desk.begun.get()
    assert request.body == b"2"
    told(b"2", None)
    assert await asyncio.gather(first, second) == [1, 2]
    assert is_idle(service)


async def test_cancelling_a_call_gives_up_what_was_begun(serving, mesh, peer, desk):
    service = await serving(desk.agent())
    errors = await Tap.on(peer, "mesh.errors.>")
    call = asyncio.create_task(mesh.call(NAME, 1))
    request, told = await desk.begun.get()
    call.cancel()
    assert b'"cancelled"' in (await errors.next()).data
    await spin(lambda: is_idle(service))
    assert desk.given_up == [request.request_id]
    told(b"1", None)
    told(b"", ValueError())
    service.cancel(request.request_id)
    assert is_idle(service) and service.tally.errors == 1 and len(desk.given_up) == 1


async def test_a_deadline_gives_it_up(serving, mesh, desk):
    service = await serving(desk.agent(timeout=0.1))
    with pytest.raises(MeshTimeout, match="did not answer in time"):
        await mesh.call(NAME, 1, timeout=30.0)
    assert len(desk.given_up) == 1
    await spin(lambda: is_idle(service))


async def test_giving_up_may_tell_the_end_at_once(serving, mesh):
    """As the pump does, which fails what is cancelled while it cancels it."""

    def begin(request: RawRequest, told: Told) -> Any:
        return lambda: told(b"", ValueError("cancelled"))

    service = await serving(agent(begin, timeout=0.1))
    with pytest.raises(MeshTimeout):
        await mesh.call(NAME, 1, timeout=30.0)
    await spin(lambda: is_idle(service))
    assert service.tally.errors == 1


async def test_a_host_that_drains_waits_for_the_end(host, serving, mesh, desk):
    service = await serving(desk.agent())
    call = asyncio.create_task(mesh.call(NAME, 1))
    _, told = await desk.begun.get()
    draining = asyncio.create_task(host.parts.host.drain(60.0))
    await spin(lambda: service._subscription is None)  # it takes nothing any more
    assert not draining.done()
    told(b"1", None)
    assert await call == 1
    await draining
    assert not desk.given_up


async def test_a_host_gives_up_what_does_not_end(host, serving, mesh, desk):
    await serving(desk.agent())
    call = asyncio.create_task(mesh.call(NAME, 1))
    await desk.begun.get()
    await host.parts.host.drain(0.05)
    with pytest.raises(CallCancelled, match="shuts down"):
        await call
    assert len(desk.given_up) == 1


async def test_the_host_that_has_a_request_says_so(host, serving, mesh, desk):
    await serving(desk.agent())
    call = asyncio.create_task(mesh.call(NAME, 1))
    _, told = await desk.begun.get()
    (expected,) = mesh.parts.replies._expected.values()
    await spin(lambda: bool(expected.instance_id))
    assert expected.instance_id == host.instance_id
    told(b"1", None)
    assert await call == 1


async def test_an_answer_outlives_a_lost_connection(lasting_server, desk, monkeypatch):
    async with AgentMesh(lasting_server.url) as host:
        await host.offer(desk.agent())
        async with plain_peer(lasting_server.url) as peer:
            await peer.publish(f"mesh.agent.{NAME}", b"1", "answers.1")
            _, told = await desk.begun.get()
        go = delay_return(host, monkeypatch)
        await crash(lasting_server, host)
        told(b'"late"', None)
        await lasting_server.start()
        async with plain_peer(lasting_server.url) as peer:
            answers = await Tap.on(peer, "answers.1")
            go.set()
            assert (await answers.next()).data == b'"late"'


async def test_an_answer_outlives_a_lost_connection_for_as_long_as_its_caller_waits(lasting_server, desk, monkeypatch):
    monkeypatch.setattr(service_module, "RESEND", 0.0)
    async with AgentMesh(lasting_server.url) as host:
        await host.offer(desk.agent())
        async with plain_peer(lasting_server.url) as peer:
            await peer.publish(f"mesh.agent.{NAME}", b"1", "answers.1", {"X-Mesh-Deadline": "60000"})
            _, told = await desk.begun.get()
        go = delay_return(host, monkeypatch)
        await crash(lasting_server, host)
        told(b'"late"', None)
        await spin(lambda: host.parts.link.waiting)
        await lasting_server.start()
        async with plain_peer(lasting_server.url) as peer:
            answers = await Tap.on(peer, "answers.1")
            go.set()
            assert (await answers.next()).data == b'"late"'


async def test_an_answer_waits_while_too_much_waits_to_be_written(host, serving, mesh, desk, monkeypatch):
    service = await serving(desk.agent())
    call = asyncio.create_task(mesh.call(NAME, 1))
    _, told = await desk.begun.get()
    is_congested = True
    monkeypatch.setattr(type(host.parts.link), "is_congested", property(lambda link: is_congested))
    told(b"1", None)
    assert service.running == 1  # it was not sent yet
    is_congested = False
    assert await call == 1
    await spin(lambda: is_idle(service))


async def test_what_is_given_up_just_after_its_end_was_told_ends_once(serving, mesh, desk):
    """Between the telling and the task that passes it on."""

    def begin(request: RawRequest, told: Told) -> Any:
        asyncio.get_running_loop().call_soon(service.cancel_all, CallCancelled("given up"))
        told(b"", InvalidInput("not so"))
        return lambda: desk.given_up.append("late")

    service = await serving(agent(begin))
    with pytest.raises(InvalidInput, match="not so"):
        await mesh.call(NAME, 1, timeout=30.0)
    await spin(lambda: is_idle(service))
    assert service.tally.errors == 1 and not desk.given_up
