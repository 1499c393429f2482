"""What a request has cost: reported by its handler, sent with the answer, added up by its caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.mesh.kit import Tap, spin
from xml_pipeline.mesh import AgentMesh, AgentSpec, MeshError, Usage, collect_usage, report_usage

HEADER = "X-Mesh-Usage"


# -- the value


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_tokens": -1},
        {"output_tokens": 1.5},
        {"total_tokens": True},
        {"total_tokens": "many"},
        {"total_tokens": 10**400},
        {"model": 3},
        {"model": "m" * 1000},
        {"estimated_cost_usd": float("nan")},
        {"estimated_cost_usd": float("inf")},
        {"estimated_cost_usd": -0.01},
        {"estimated_cost_usd": False},
        {"estimated_cost_usd": "free"},
    ],
)
def test_a_value_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        Usage(**wrong)
    usage = Usage(input_tokens=1)
    ((name, value),) = wrong.items()
    with pytest.raises(ValidationError):
        setattr(usage, name, value)
    assert usage.to_dict() == {"input_tokens": 1}


def test_what_is_not_known_is_left_out():
    assert Usage().to_header() == "{}"
    usage = Usage(input_tokens=0, model="m", estimated_cost_usd=Decimal("0.25"))
    assert usage.to_header() == '{"input_tokens":0,"model":"m","estimated_cost_usd":0.25}'


def test_a_header_is_one_line_of_ascii():
    header = Usage(model="\u00e9\r\nX-Mesh-Status: error\u2028\x7f").to_header()
    assert header.isascii()
    assert not set(header) & set("\r\n\0")
    assert Usage.read(header).model == "\u00e9\r\nX-Mesh-Status: error\u2028\x7f"


def test_numbers_are_added_and_the_last_model_is_kept():
    total = Usage()
    for usage in (
        Usage(input_tokens=10, output_tokens=1, model="m1", estimated_cost_usd=0.25),
        Usage(input_tokens=1, output_tokens=1, model="m2", estimated_cost_usd=0.25),
        Usage(total_tokens=5),
    ):
        total.add(usage)
    assert total == Usage(input_tokens=11, output_tokens=2, total_tokens=5, model="m2", estimated_cost_usd=0.5)


def test_a_sum_is_never_more_than_what_can_be_sent():
    total = Usage()
    for _ in range(3):
        total.add(Usage(input_tokens=10**15, estimated_cost_usd=1e12))
    assert Usage.read(total.to_header()) == Usage(input_tokens=10**15, estimated_cost_usd=1e12)


usages = st.builds(
    Usage,
    input_tokens=st.none() | st.integers(0, 10**15),
    output_tokens=st.none() | st.integers(0, 10**15),
    total_tokens=st.none() | st.integers(0, 10**15),
    model=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    estimated_cost_usd=st.none() | st.floats(0, 1e12),
)


@given(usages)
def test_what_is_written_is_read_again(usage):
    assert Usage.read(usage.to_header()) == usage


@pytest.mark.parametrize(
    ("header", "usage"),
    [
        ("", None),
        ("{nope", None),
        ("7", None),
        ("null", None),
        ("[" * 2000, None),
        (" " * 5000 + "{}", None),
        ("{}", Usage()),
        ('{"input_tokens": 3, "more": {"a": 1}}', Usage(input_tokens=3)),
        ('{"input_tokens": 3, "output_tokens": -4, "model": 7}', Usage(input_tokens=3)),
        ('{"estimated_cost_usd": Infinity, "total_tokens": 1e400}', Usage()),
        ('{"input_tokens": null, "output_tokens": 2.0}', Usage(output_tokens=2)),
        (f'{{"input_tokens": {"9" * 4000}}}', Usage()),
    ],
)
def test_a_header_of_a_peer(header, usage):
    assert Usage.read(header) == usage


@given(
    st.text() | st.dictionaries(st.sampled_from(list(Usage.model_fields)), st.integers() | st.floats()).map(json.dumps)
)
def test_reading_never_fails(header):
    usage = Usage.read(header)
    assert usage is None or Usage.read(usage.to_header()) == usage


# -- reporting


def costly_on(mesh: AgentMesh) -> None:
    """Agents that report what they are asked to."""

    @mesh.agent(AgentSpec(name="cost.answer"))
    async def answer(reports: list[dict[str, Any]]) -> str:
        for report in reports:
            report_usage(Usage(**report))
        return "done"

    @mesh.agent(AgentSpec(name="cost.chunks"))
    async def chunks(reports: list[dict[str, Any]]) -> AsyncIterator[int]:
        for number, report in enumerate(reports):
            yield number
            report_usage(**report)


async def test_the_bytes_of_an_answer_and_of_its_event(host, peer):
    costly_on(host)
    tap = await Tap.on(peer, "mesh.logs.>")
    async with host:
        reports = [
            {"input_tokens": 10, "output_tokens": 1, "model": "m1", "estimated_cost_usd": 0.25},
            {"input_tokens": 1, "output_tokens": 1, "model": "m2", "estimated_cost_usd": 0.25},
        ]
        request = {"X-Mesh-Request-Id": "rid-1"}
        reply = await peer.request("mesh.agent.cost.answer", json.dumps(reports).encode(), headers=request)
        assert reply.headers == {
            "X-Mesh-Status": "ok",
            "X-Mesh-Source": "cost.answer",
            "X-Mesh-Request-Id": "rid-1",
            "X-Mesh-Usage": '{"input_tokens":11,"output_tokens":2,"model":"m2","estimated_cost_usd":0.5}',
            "X-Mesh-Instance-Id": host.instance_id,
        }
        while b"usage_reported" not in (event := await tap.next()).data:
            pass
        assert event.headers == {"X-Mesh-Instance-Id": host.instance_id}
        timestamp = json.loads(event.data)["timestamp"]
        assert (
            event.data
            == (
                f'{{"timestamp":"{timestamp}","level":"info","agent":"cost.answer","event":"usage_reported",'
                '"request_id":"rid-1","message":"Usage reported",'
                f'"data":{reply.headers[HEADER]}}}'
            ).encode()
        )
        reply = await peer.request("mesh.agent.cost.answer", b"[]", headers=request)
        assert HEADER not in reply.headers


async def test_the_end_of_a_stream_says_what_it_has_cost(host, peer):
    costly_on(host)
    async with host:
        frames = await Tap.on(peer, "mesh.stream.rid-1")
        await peer.publish(
            "mesh.agent.cost.chunks",
            b'[{"input_tokens":1},{"input_tokens":2}]',
            headers={"X-Mesh-Request-Id": "rid-1", "X-Mesh-Stream": "true"},
        )
        chunks = [await frames.next() for _ in range(2)]
        assert all(HEADER not in chunk.headers for chunk in chunks)
        end = await frames.next()
        assert end.data == b""
        assert end.headers == {
            "X-Mesh-Stream-Seq": "2",
            "X-Mesh-Stream-End": "true",
            "X-Mesh-Request-Id": "rid-1",
            "X-Mesh-Usage": '{"input_tokens":3}',
            "X-Mesh-Instance-Id": host.instance_id,
        }


async def test_the_event_comes_before_the_one_that_it_is_completed(host, mesh, peer):
    costly_on(host)
    tap = await Tap.on(peer, "mesh.logs.cost.answer")
    async with host:
        await host.observe.set("cost.answer", log_level="debug")
        await mesh.call("cost.answer", [{"total_tokens": 1}])
        found = []
        while not found or found[-1] != "request_completed":
            found.append(json.loads((await tap.next()).data)["event"])
    assert found[-3:] == ["request_received", "usage_reported", "request_completed"]


async def test_a_request_that_fails_has_cost_something_too(host, mesh, peer):
    @host.agent(AgentSpec(name="cost.failing"))
    async def failing(x: int) -> int:
        report_usage(total_tokens=x)
        raise MeshError("mine")

    tap = await Tap.on(peer, "mesh.logs.>")
    errors = await Tap.on(peer, "mesh.errors.>")
    async with host:
        with pytest.raises(MeshError):
            await mesh.call("cost.failing", 7)
        assert HEADER not in (await errors.next()).headers
        while (event := json.loads((await tap.next()).data))["event"] != "usage_reported":
            pass
        assert event["data"] == {"total_tokens": 7}


async def test_tasks_of_the_handler_report_for_it(host, mesh):
    @host.agent(AgentSpec(name="cost.tasks"))
    async def tasks(n: int) -> None:
        async def part(number: int) -> None:
            await asyncio.sleep(0)
            report_usage(input_tokens=number)

        await asyncio.gather(
            *(part(number) for number in range(n)), asyncio.to_thread(report_usage, Usage(total_tokens=1))
        )

    async with host:
        with collect_usage() as usage:
            await asyncio.gather(mesh.call("cost.tasks", 3), mesh.call("cost.tasks", 5))
        assert usage == Usage(input_tokens=0 + 1 + 2 + 0 + 1 + 2 + 3 + 4, total_tokens=2)


async def test_outside_of_a_request(host, mesh, peer):
    left = asyncio.get_running_loop().create_future()

    @host.agent(AgentSpec(name="cost.leaves"))
    async def leaves(x: int) -> None:
        go = asyncio.Event()

        async def behind() -> None:
            await go.wait()
            try:
                report_usage(total_tokens=1)
            except RuntimeError as error:
                left.set_result(error)

        host.behind = asyncio.create_task(behind())
        host.go = go

    @host.agent(AgentSpec(name="cost.publishes"))
    async def publishes() -> AsyncIterator[int]:
        report_usage(total_tokens=1)
        yield 1

    with pytest.raises(RuntimeError, match="for handlers"):
        report_usage(Usage(total_tokens=1))
    errors = await Tap.on(peer, "mesh.errors.cost.publishes")
    async with host:
        assert json.loads((await errors.next()).data)["code"] == "handler_error"
        await mesh.call("cost.leaves", 1)
        await spin(lambda: not host.parts.host.service("cost.leaves")._jobs)
        host.go.set()
        assert "for handlers" in str(await left)


async def test_a_report_that_makes_no_sense_is_an_error_of_the_handler(host, mesh):
    caught: list[Exception] = []

    @host.agent(AgentSpec(name="cost.wrong"))
    async def wrong(x: int) -> str:
        changed = Usage(input_tokens=1)
        changed.__dict__["input_tokens"] = -1
        report_usage(input_tokens=5)
        for attempt in (
            lambda: report_usage({"input_tokens": 1}),  # type: ignore[arg-type]
            lambda: report_usage(input_tokens=-1),
            lambda: report_usage(changed),
        ):
            try:
                attempt()
            except (TypeError, ValidationError) as error:
                caught.append(error)
        return "done"

    async with host:
        with collect_usage() as usage:
            assert await mesh.call("cost.wrong", 1) == "done"
    assert [type(error) for error in caught] == [TypeError, ValidationError, ValidationError]
    assert usage == Usage(input_tokens=5)


async def test_what_is_reported_is_what_it_was_then(host, mesh):
    @host.agent(AgentSpec(name="cost.reuses"))
    async def reuses(x: int) -> None:
        usage = Usage()
        for number in (1, 2):
            usage.input_tokens = number
            report_usage(usage)
        usage.input_tokens = 100

    async with host:
        with collect_usage() as usage:
            await mesh.call("cost.reuses", 1)
    assert usage.input_tokens == 3


# -- adding up


async def test_a_block_adds_up_calls_streams_and_sends(host, mesh):
    costly_on(host)
    async with host:
        await mesh.call("cost.answer", [{"input_tokens": 1000}])
        with collect_usage() as outer:
            await mesh.call("cost.answer", [{"input_tokens": 1, "model": "m1"}])
            with collect_usage() as inner:
                async for _ in mesh.stream("cost.chunks", [{"input_tokens": 10}, {"input_tokens": 10}]):
                    assert inner == Usage()
                await asyncio.gather(*(mesh.call("cost.answer", [{"input_tokens": 100}]) for _ in range(3)))
            replied = asyncio.Event()
            await mesh.send("cost.answer", [{"output_tokens": 1}], on_reply=lambda _: replied.set())
            await replied.wait()
        await mesh.call("cost.answer", [{"input_tokens": 1000}])
        assert inner == Usage(input_tokens=320)
        assert outer == Usage(input_tokens=321, output_tokens=1, model="m1")


async def test_blocks_of_different_tasks_know_nothing_of_each_other(host, mesh):
    costly_on(host)

    async def spend(tokens: int) -> Usage:
        with collect_usage() as usage:
            for _ in range(3):
                await mesh.call("cost.answer", [{"input_tokens": tokens}])
        return usage

    async with host:
        spent = await asyncio.gather(*(spend(tokens) for tokens in range(1, 6)))
    assert [usage.input_tokens for usage in spent] == [3, 6, 9, 12, 15]


async def test_a_handler_passes_on_what_others_have_cost(host, mesh):
    costly_on(host)

    @host.agent(AgentSpec(name="cost.manager"))
    async def manager(tokens: int) -> None:
        with collect_usage() as usage:
            await host.call("cost.answer", [{"input_tokens": tokens}])
        usage.add(Usage(input_tokens=1, model="m"))
        report_usage(usage)

    async with host:
        with collect_usage() as usage:
            await mesh.call("cost.manager", 10)
    assert usage == Usage(input_tokens=11, model="m")


async def test_what_handlers_of_the_same_process_ask_others_is_not_counted_for_their_callers(server):
    """Their tasks were made in the context in which the mesh object was entered."""
    mesh = AgentMesh(server.url)
    costly_on(mesh)

    @mesh.agent(AgentSpec(name="cost.hides"))
    async def hides(tokens: int) -> None:
        await mesh.call("cost.answer", [{"input_tokens": tokens}])

    with collect_usage() as usage:
        async with mesh:
            await mesh.call("cost.hides", 10)
            await mesh.call("cost.answer", [{"input_tokens": 1}])
    assert usage == Usage(input_tokens=1)


async def test_what_a_plain_peer_says_is_not_trusted(mesh, peer):
    headers = iter(['{"input_tokens":3}', "{nope", '{"input_tokens":-1,"output_tokens":2}', "[" * 50_000])

    async def serve(message: Any) -> None:
        await peer.publish(message.reply, b'"done"', headers={"X-Mesh-Status": "ok", HEADER: next(headers)})

    await peer.subscribe("mesh.agent.plain.answer", cb=serve)
    await peer.flush()
    with collect_usage() as usage:
        for _ in range(4):
            assert await mesh.call("plain.answer", 1) == "done"
    assert usage == Usage(input_tokens=3, output_tokens=2)
