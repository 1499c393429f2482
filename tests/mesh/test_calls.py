"""Calls, end to end between two mesh objects."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar

import pytest

from tests.mesh.kit import Ask, Tap, Told, echo_on, gated_on, spin
from xml_pipeline.mesh import (
    AgentMesh,
    AgentSpec,
    CallCancelled,
    ConnectionFailed,
    HandlerError,
    InvalidInput,
    InvalidReply,
    InvocationMismatch,
    MeshError,
    MeshTimeout,
    NotAvailable,
    NotFound,
    Overloaded,
    PayloadTooLarge,
)


async def test_a_call_is_answered(host, mesh):
    echo_on(host)
    async with host:
        assert await mesh.call("demo.echo", Ask(message="hi", n=2)) == {"reply": "hihi"}
        assert await mesh.call("demo.echo", {"message": "hi"}, result_type=Told) == Told(reply="hi")
        assert await mesh.call("demo.echo", b'{"message": "raw"}') == {"reply": "raw"}


async def test_what_a_handler_sets_is_not_there_for_the_request_that_waits_for_its_slot(host, mesh):
    mark = ContextVar("mark", default="")

    @host.agent(AgentSpec(name="demo.echo", description="", max_concurrency=1))
    async def look(ask: Ask) -> Told:
        found = mark.get()
        mark.set(ask.message)
        await asyncio.sleep(0)
        return Told(reply=found)

    async with host:
        calls = [mesh.call("demo.echo", {"message": "mine"}) for _ in range(4)]
        assert await asyncio.gather(*calls) == [{"reply": ""}] * 4


async def test_a_mesh_object_may_call_itself(host):
    echo_on(host)
    async with host:
        assert await host.call("demo.echo", {"message": "hi"}) == {"reply": "hi"}


async def test_answers_of_every_kind(host, mesh):
    @host.agent(AgentSpec(name="a.trigger"))
    async def trigger() -> list[int]:
        return [1, 2]

    @host.agent(AgentSpec(name="a.silent"))
    async def silent(x: int) -> None: ...

    async with host:
        assert await mesh.call("a.trigger") == [1, 2]
        assert await mesh.call("a.trigger", result_type=tuple[int, int]) == (1, 2)
        assert await mesh.call("a.silent", 3) == {}


# -- failures


def failing_on(mesh: AgentMesh) -> None:
    @mesh.agent(AgentSpec(name="demo.failing"))
    async def failing(how: str) -> int:
        if how == "mesh":
            raise MeshError("out_of_stock", "none left", details={"sku": 7})
        if how == "cancel":
            raise asyncio.CancelledError
        if how == "exit":
            raise SystemExit(3)
        if how == "generator":
            raise GeneratorExit
        if how == "recursion":
            return await failing(how)
        if how == "type":
            return "text"  # type: ignore[return-value]
        raise ValueError("a secret of the host")


@pytest.mark.parametrize("how", ["value", "cancel", "exit", "generator", "recursion", "type"])
async def test_whatever_a_handler_raises_its_caller_is_answered_and_told_nothing(host, mesh, how, caplog):
    failing_on(host)
    async with host:
        with pytest.raises(HandlerError) as caught:
            await mesh.call("demo.failing", how)
        assert caught.value.agent == "demo.failing"
        assert "secret" not in str(caught.value)
        assert "demo.failing" in caplog.text
        with pytest.raises(MeshError) as caught:  # and it still serves
            await mesh.call("demo.failing", "mesh")
        assert (caught.value.code, str(caught.value), caught.value.details) == ("out_of_stock", "none left", {"sku": 7})


async def test_an_answer_that_is_too_large_is_a_typed_error(host, mesh):
    @host.agent(AgentSpec(name="a.large"))
    async def large(n: int) -> str:
        return "x" * n

    async with host:
        with pytest.raises(PayloadTooLarge):
            await mesh.call("a.large", 2_000_000)
        assert await mesh.call("a.large", 3) == "xxx"


async def test_details_that_are_too_large_do_not_silence_the_error(host, mesh):
    @host.agent(AgentSpec(name="a.detailed"))
    async def detailed(n: int) -> None:
        raise MeshError("mine", details={str(number): "x" * 4000 for number in range(n)})

    async with host:
        with pytest.raises(HandlerError):
            await mesh.call("a.detailed", 900)


async def test_a_payload_that_is_too_large_is_refused_before_it_is_sent(host, mesh):
    echo_on(host)
    async with host:
        with pytest.raises(PayloadTooLarge):
            await mesh.call("demo.echo", {"message": "x" * 2_000_000})
        assert await mesh.call("demo.echo", {"message": "x"}) == {"reply": "x"}
        assert not mesh.parts.replies._expected


@pytest.mark.parametrize("payload", [{"message": 5}, b"{nope", b"\xff", None, {"message": "x", "n": 0}, b"[" * 5000])
async def test_a_payload_of_another_kind_is_invalid_input(host, mesh, payload):
    echo_on(host)
    async with host:
        with pytest.raises(InvalidInput) as caught:
            await mesh.call("demo.echo", payload)
        assert isinstance(caught.value.details["errors"], list)


async def test_a_payload_that_is_no_json_never_leaves(mesh):
    with pytest.raises(TypeError, match="cannot be put into JSON"):
        await mesh.call("demo.echo", object())


async def test_an_answer_of_another_type_is_an_invalid_reply(host, mesh):
    echo_on(host)
    async with host:
        with pytest.raises(InvalidReply, match=r"demo\.echo"):
            await mesh.call("demo.echo", {"message": "x"}, result_type=int)


async def test_an_answer_that_is_no_json_is_an_invalid_reply(mesh, peer):
    async def answer(message):
        await peer.publish(message.reply, b"{nope")

    await peer.subscribe("mesh.agent.plain", cb=answer)
    await peer.flush()
    with pytest.raises(InvalidReply):
        await mesh.call("plain")


async def test_nobody_of_this_name(mesh):
    with pytest.raises(NotFound, match="no agent 'nobody'") as caught:
        await mesh.call("nobody")
    assert caught.value.agent == "nobody"
    assert len(caught.value.request_id) == 32


@pytest.mark.parametrize("name", ["", "a b", "a.*", "a\r\nPUB x 1", "$JS.API"])
async def test_what_is_no_name_is_nobody(mesh, name):
    with pytest.raises(NotFound, match="name of an agent"):
        await mesh.call(name)


async def test_somebody_who_is_listed_and_not_there(host, mesh):
    echo_on(host)
    async with host:
        await mesh.call("demo.echo", {"message": "x"})
        await host.parts.host.drain(1.0)
        with pytest.raises(NotAvailable, match="nobody serves it"):
            await mesh.call("demo.echo", {"message": "x"})


async def test_before_entering_and_after_leaving():
    mesh = AgentMesh()
    with pytest.raises(ConnectionFailed, match="async with mesh"):
        await mesh.call("x")
    with pytest.raises(ConnectionFailed):
        await mesh.catalog()


async def test_preflight(host, mesh):
    echo_on(host)

    @host.agent(AgentSpec(name="demo.background"))
    async def background() -> None:
        await asyncio.Event().wait()

    async with host:
        await mesh.call("demo.echo", {"message": "x"})
        with pytest.raises(InvocationMismatch, match="background task"):
            await mesh.call("demo.background")
        with pytest.raises(InvocationMismatch, match=r"Use call\(\)"):
            async for _ in mesh.stream("demo.echo", {"message": "x"}):
                pass
        with pytest.raises(InvocationMismatch, match="does not publish"):
            async for _ in mesh.subscribe(agent="demo.echo"):
                pass


# -- at the same time


async def test_requests_of_one_agent_run_at_the_same_time(host, mesh):
    gate = gated_on(host)
    async with host:
        calls = [asyncio.create_task(mesh.call("demo.gated", number)) for number in range(20)]
        begun = {await gate.begun.get() for _ in range(20)}
        assert begun == set(range(20)), "none had to wait for another"
        gate.go.set()
        assert await asyncio.gather(*calls) == list(range(20))


async def test_the_limit_holds_and_others_wait_their_turn(host, mesh):
    gate = gated_on(host, max_concurrency=2)
    async with host:
        calls = [asyncio.create_task(mesh.call("demo.gated", number)) for number in range(5)]
        first = [await gate.begun.get() for _ in range(2)]
        await mesh.parts.link.flush()
        service = host.parts.host.service("demo.gated")
        await spin(lambda: not (service.waiting < 3))
        assert gate.begun.empty()
        gate.go.set()
        assert await asyncio.gather(*calls) == list(range(5))
        assert len(first) == 2


async def test_more_than_may_wait_are_refused(host, mesh):
    gate = gated_on(host, max_concurrency=1, max_queue=1)
    async with host:
        running = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        waiting = asyncio.create_task(mesh.call("demo.gated", 2))
        service = host.parts.host.service("demo.gated")
        await spin(lambda: bool(service.waiting))
        with pytest.raises(Overloaded):
            await mesh.call("demo.gated", 3)
        gate.go.set()
        assert await asyncio.gather(running, waiting) == [1, 2]


@pytest.mark.parametrize("limit", [1, 64])
async def test_an_agent_may_call_itself(host, limit):
    @host.agent(AgentSpec(name="a.factorial", max_concurrency=limit))
    async def factorial(n: int) -> int:
        return 1 if n < 2 else n * await host.call("a.factorial", n - 1)

    async with host:
        assert await host.call("a.factorial", 10, timeout=10.0) == 3_628_800


async def test_agents_may_call_each_other_in_a_circle(host):
    @host.agent(AgentSpec(name="a.even", max_concurrency=1))
    async def even(n: int) -> bool:
        return n == 0 or await host.call("a.odd", n - 1)

    @host.agent(AgentSpec(name="a.odd", max_concurrency=1))
    async def odd(n: int) -> bool:
        return n != 0 and await host.call("a.even", n - 1)

    async with host:
        assert await asyncio.gather(*(host.call("a.even", n) for n in (4, 7, 10))) == [True, False, True]


async def test_a_slot_that_was_lent_is_taken_back(host):
    """While the handler waits for another agent others run; afterwards the limit holds again."""
    running = highest = 0

    @host.agent(AgentSpec(name="a.inner"))
    async def inner() -> int:
        return 1

    @host.agent(AgentSpec(name="a.outer", max_concurrency=2))
    async def outer(n: int) -> int:
        nonlocal running, highest
        await asyncio.gather(host.call("a.inner"), host.call("a.inner"))
        running += 1
        highest = max(highest, running)
        await asyncio.sleep(0)
        running -= 1
        return n

    async with host:
        assert await asyncio.gather(*(host.call("a.outer", n) for n in range(30))) == list(range(30))
        assert highest <= 2
        assert host.parts.host.service("a.outer")._slots.taken == 0


# -- deadlines and cancellation


async def test_a_deadline_ends_the_handler_too(host, mesh):
    gate = gated_on(host)
    async with host:
        with pytest.raises(MeshTimeout, match=r"demo\.gated") as caught:
            await mesh.call("demo.gated", 1, timeout=0.1)
        assert caught.value.agent == "demo.gated"
        await asyncio.wait_for(gate.cancelled.wait(), 10)


async def test_an_agent_has_a_limit_of_its_own(host, mesh):
    gate = gated_on(host, timeout=0.1)
    async with host:
        with pytest.raises(MeshTimeout, match="did not answer in time"):
            await mesh.call("demo.gated", 1, timeout=30.0)
        assert gate.cancelled.is_set()


async def test_a_request_that_waits_past_its_deadline_is_never_run(host, mesh, peer):
    gate = gated_on(host, max_concurrency=1)
    async with host:
        errors = await Tap.on(peer, "mesh.errors.>")
        first = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        with pytest.raises(MeshTimeout):
            await mesh.call("demo.gated", 2, timeout=0.05)
        assert b'"timeout"' in (await errors.next()).data  # the host counts from when the request came to it
        gate.go.set()
        await first
        assert await mesh.call("demo.gated", 3) == 3
        assert gate.begun.get_nowait() == 3


async def test_cancelling_a_call_cancels_its_handler(host, mesh, peer):
    gate = gated_on(host)
    async with host:
        errors = await Tap.on(peer, "mesh.errors.>")
        call = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gate.cancelled.wait(), 10)
        assert b'"cancelled"' in (await errors.next()).data


async def test_what_is_cancelled_before_its_handler_has_begun_leaves_its_slot(host, peer):
    """Request and cancellation come in one piece."""
    echo_on(host, max_concurrency=2)
    async with host:
        for number in range(4):
            headers = {"X-Mesh-Request-Id": f"rid-{number}"}
            answers = await Tap.on(peer, f"answers.{number}")
            await peer.publish("mesh.agent.demo.echo", b'{"message": "x"}', f"answers.{number}", headers)
            await peer.publish(f"mesh.cancel.rid-{number}", b"")
            assert (await answers.next()).headers["X-Mesh-Request-Id"] == f"rid-{number}"
        service = host.parts.host.service("demo.echo")
        await spin(lambda: not service._jobs)
        assert (service.running, service.waiting, service._slots.taken) == (0, 0, 0)


async def test_a_call_that_waits_can_be_cancelled(host, mesh):
    gate = gated_on(host, max_concurrency=1)
    async with host:
        first = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        second = asyncio.create_task(mesh.call("demo.gated", 2))
        service = host.parts.host.service("demo.gated")
        await spin(lambda: bool(service.waiting))
        second.cancel()
        await spin(lambda: not (service.waiting))
        gate.go.set()
        assert await first == 1
        assert gate.begun.empty()


async def test_a_handler_that_ignores_cancellation_does_not_keep_its_caller(host, mesh):
    stubborn = asyncio.Event()

    @host.agent(AgentSpec(name="a.stubborn", timeout=0.05))
    async def handler(n: int) -> int:
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                continue
        return n

    async with host:
        with pytest.raises(MeshTimeout):
            await mesh.call("a.stubborn", 1, timeout=30.0)
        stubborn.set()


async def test_the_deadline_of_a_call_is_that_of_the_calls_within_it(host, mesh):
    gate = gated_on(host)

    @host.agent(AgentSpec(name="a.outer"))
    async def outer(n: int) -> int:
        return await host.call("demo.gated", n, timeout=60.0)

    async with host:
        with pytest.raises(MeshTimeout):
            await mesh.call("a.outer", 1, timeout=0.1)
        await asyncio.wait_for(gate.cancelled.wait(), 10)


async def test_the_host_that_has_a_request_says_so(host, mesh):
    gate = gated_on(host)
    async with host:
        call = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        (expected,) = mesh.parts.replies._expected.values()
        await spin(lambda: bool(expected.instance_id))
        assert expected.instance_id == host.instance_id
        gate.go.set()
        assert await call == 1


async def test_registration_takes_effect_at_once(host, mesh):
    async with host:
        echo_on(host, "late.one")
        assert await host.call("late.one", {"message": "x"}) == {"reply": "x"}
        echo_on(host, "late.two")  # and nothing is asked of this mesh object afterwards
        async for change in mesh.catalog_changes():
            if change.name == "late.two":
                break
        assert await mesh.call("late.two", {"message": "y"}) == {"reply": "y"}


async def test_an_agent_can_be_replaced_while_it_is_served(host, mesh):
    echo_on(host, "a.b")
    async with host:
        assert await mesh.call("a.b", {"message": "x"}) == {"reply": "x"}

        @host.agent(AgentSpec(name="a.b"))
        async def other(n: int) -> int:
            return n + 1

        await host.catalog()
        assert [await mesh.call("a.b", 1) for _ in range(10)] == [2] * 10


async def test_an_open_mesh_says_so(server, caplog):
    with caplog.at_level(logging.INFO, "xml_pipeline.mesh"):
        async with AgentMesh(server.url):
            assert "this mesh is open" in caplog.text


async def test_the_host_gives_up_what_does_not_end(host, mesh):
    gate = gated_on(host)
    async with host:
        call = asyncio.create_task(mesh.call("demo.gated", 1))
        await gate.begun.get()
        await host.parts.host.drain(0.05)
        with pytest.raises(CallCancelled, match="shuts down"):
            await call
