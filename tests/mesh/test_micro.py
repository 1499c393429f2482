"""Our agents as NATS micro services: asked as the ``nats`` command asks, read with the NATS client's own classes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.micro.service import NAME_REGEX, SEMVER_REGEX, ServiceInfo, ServicePing, ServiceStats

from tests.mesh.kit import chunks_on, echo_on, gated_on, plain_peer, spin
from tests.mesh.secured import ConfiguredServer
from xml_pipeline.mesh import AgentMesh, AgentSpec, HandlerError
from xml_pipeline.mesh.micro_document import semantic_version, service_name

READERS = {"PING": ServicePing, "INFO": ServiceInfo, "STATS": ServiceStats}


async def ask(client: Client, subject: str, count: int) -> list[dict[str, Any]]:
    """This many answers to one question, and any that come soon after them."""
    inbox, answers = client.new_inbox(), asyncio.Queue()

    async def take(message) -> None:
        answers.put_nowait(json.loads(message.data))

    subscription = await client.subscribe(inbox, cb=take)
    await client.publish(subject, reply=inbox)
    found = [await asyncio.wait_for(answers.get(), 10) for _ in range(count)]
    for _ in range(3):
        await client.flush()
    await subscription.unsubscribe()
    while not answers.empty():
        found.append(answers.get_nowait())
    return sorted(found, key=lambda answer: (answer["name"], answer["id"]))


async def ask_one(client: Client, subject: str) -> dict[str, Any]:
    return json.loads((await client.request(subject, timeout=10)).data)


async def test_an_agent_is_a_service_that_says_all_there_is_to_know(host, peer):
    echo_on(host, "demo.echo", version="1.2.3", tags=["a", "b"])
    async with host:
        info = await ask_one(peer, "$SRV.INFO.demo_echo")
        metadata = info.pop("metadata")
        assert info == {
            "type": "io.nats.micro.v1.info_response",
            "name": "demo_echo",
            "id": host.instance_id,
            "version": "1.2.3",
            "description": "Echoes",
            "endpoints": [
                {
                    "name": "call",
                    "subject": "mesh.agent.demo.echo",
                    "queue_group": "q.demo.echo",
                    "metadata": metadata,
                }
            ],
        }
        assert metadata == {
            "agent": "demo.echo",
            "version": "1.2.3",
            "shape": "responder",
            "tags": "a,b",
            "contract": "$KV.mesh-registry.demo.echo",
        }
        # What it says can be used as it says.
        answer = await peer.request(info["endpoints"][0]["subject"], b'{"message": "x"}')
        assert answer.data == b'{"reply":"x"}'


@pytest.mark.parametrize("verb", READERS)
async def test_all_are_asked_one_kind_or_one_instance(server, peer, verb):
    hosts = [AgentMesh(server.url) for _ in range(2)]
    for host in hosts:
        echo_on(host, "demo.echo")
        chunks_on(host, "demo.chunks")
    async with hosts[0], hosts[1]:
        ids = sorted(host.instance_id for host in hosts)
        everybody = await ask(peer, f"$SRV.{verb}", 4)
        assert [(one["name"], one["id"]) for one in everybody] == [
            (name, instance) for name in ("demo_chunks", "demo_echo") for instance in ids
        ]
        kind = await ask(peer, f"$SRV.{verb}.demo_echo", 2)
        assert [(one["name"], one["id"]) for one in kind] == [("demo_echo", instance) for instance in ids]
        one = await ask(peer, f"$SRV.{verb}.demo_echo.{ids[0]}", 1)
        assert [(found["name"], found["id"]) for found in one] == [("demo_echo", ids[0])]
        for answer in everybody:
            assert answer["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
            assert READERS[verb].from_dict(answer).to_dict() == answer, "the NATS client reads it, and loses nothing"


async def test_the_figures(host, mesh, peer):
    @host.agent(AgentSpec(name="a.divide"))
    async def divide(by: int) -> float:
        return 1 / by

    async with host:
        assert (await ask_one(peer, "$SRV.STATS.a_divide"))["endpoints"] == [
            {
                "name": "call",
                "subject": "mesh.agent.a.divide",
                "queue_group": "q.a.divide",
                "num_requests": 0,
                "num_errors": 0,
                "last_error": "",
                "processing_time": 0,
                "average_processing_time": 0,
                "data": {"running": 0, "waiting": 0},
            }
        ]
        for _ in range(3):
            await mesh.call("a.divide", 2)
        with pytest.raises(HandlerError):
            await mesh.call("a.divide", 0)
        figures = (await ask_one(peer, "$SRV.STATS.a_divide"))["endpoints"][0]
        assert (figures["num_requests"], figures["num_errors"]) == (4, 1)
        assert figures["last_error"].startswith("handler_error: ")
        assert "division" not in figures["last_error"], "what a handler raised stays on its host"
        assert figures["processing_time"] > 0
        assert figures["average_processing_time"] == figures["processing_time"] // 4


async def test_the_figures_know_what_runs_and_what_waits(host, mesh, peer):
    gate = gated_on(host, max_concurrency=1)
    async with host:
        calls = [asyncio.create_task(mesh.call("demo.gated", number)) for number in range(3)]
        await gate.begun.get()
        await spin(lambda: host.parts.host.service("demo.gated").waiting == 2)
        figures = (await ask_one(peer, "$SRV.STATS.demo_gated"))["endpoints"][0]
        assert figures["data"] == {"running": 1, "waiting": 2}
        assert figures["num_requests"] == 3
        gate.go.set()
        await asyncio.gather(*calls)


async def test_what_takes_no_requests_has_no_endpoint(host, peer):
    @host.agent(AgentSpec(name="a.ticks", description="Publishes"))
    async def ticks() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    async with host:
        info = await ask_one(peer, "$SRV.INFO.a_ticks")
        assert info["endpoints"] == []
        assert (info["metadata"]["shape"], info["metadata"]["events"]) == ("publisher", "mesh.agent.a.ticks.events")
        assert (await ask_one(peer, "$SRV.STATS.a_ticks"))["endpoints"] == []


async def test_the_endpoint_of_a_streamer(host, peer):
    chunks_on(host)
    async with host:
        info = await ask_one(peer, "$SRV.INFO.demo_chunks")
        assert info["endpoints"][0]["name"] == "stream"


async def test_who_does_not_serve_an_agent_is_no_service(host, mesh, peer):
    echo_on(host)
    with pytest.raises(nats.errors.NoRespondersError):
        await peer.request("$SRV.PING")
    async with host:
        await ask_one(peer, "$SRV.PING")
        with pytest.raises(nats.errors.NoRespondersError):
            await peer.request("$SRV.PING.another")
    with pytest.raises(nats.errors.NoRespondersError):
        await peer.request("$SRV.PING")


async def test_one_that_is_deactivated_disappears_and_comes_back(host, peer):
    echo_on(host)
    chunks_on(host)
    async with host:
        agents = host.parts.host
        echo = agents.service("demo.echo").agent
        await agents.deactivate("demo.echo", 1.0)
        await host.parts.link.flush()
        with pytest.raises(nats.errors.NoRespondersError):
            await peer.request("$SRV.INFO.demo_echo")
        assert [one["name"] for one in await ask(peer, "$SRV.INFO", 1)] == ["demo_chunks"]
        assert await ask(peer, f"$SRV.INFO.demo_echo.{host.instance_id}", 0) == []
        await agents.activate(echo)
        await host.parts.link.flush()
        assert [one["name"] for one in await ask(peer, "$SRV.INFO", 2)] == ["demo_chunks", "demo_echo"]
        assert (await ask_one(peer, "$SRV.INFO.demo_echo"))["name"] == "demo_echo"


async def test_two_agents_whose_names_become_one_are_told_apart(host, peer):
    echo_on(host, "a.b")
    echo_on(host, "a_b")
    async with host:
        infos = await ask(peer, "$SRV.INFO.a_b", 2)
        assert {info["endpoints"][0]["subject"] for info in infos} == {"mesh.agent.a.b", "mesh.agent.a_b"}
        await host.parts.host.deactivate("a.b", 1.0)
        assert (await ask_one(peer, "$SRV.INFO.a_b"))["metadata"]["agent"] == "a_b"


async def test_an_agent_that_is_registered_again_is_described_anew(host, peer):
    echo_on(host, version="1.0.0")
    async with host:
        echo_on(host, version="2.0.0")
        await host.catalog()  # completes the registration
        assert [one["version"] for one in await ask(peer, "$SRV.PING", 1)] == ["2.0.0"]


async def test_they_are_there_again_after_a_reconnect(lasting_server):
    host = AgentMesh(lasting_server.url, drain_timeout=1.0)
    echo_on(host)
    async with host:
        restored = asyncio.Event()
        host.parts.link.on_restored.append(restored.set)
        lasting_server.kill()
        await lasting_server.wait()
        await lasting_server.stop()
        await lasting_server.start()
        await asyncio.wait_for(restored.wait(), 20)
        async with plain_peer(lasting_server.url) as client:
            for subject in ("$SRV.PING", "$SRV.PING.demo_echo", f"$SRV.PING.demo_echo.{host.instance_id}"):
                assert (await ask_one(client, subject))["id"] == host.instance_id


@pytest.mark.parametrize("subject", ["$SRV.SCHEMA", "$SRV.ping", "$SRV.*", "$SRV.SCHEMA.demo_echo"])
async def test_other_questions_get_no_answer_and_do_no_harm(host, peer, subject):
    echo_on(host)
    async with host:
        if "*" not in subject:
            assert await ask(peer, subject, 0) == []
        await peer.publish("$SRV.INFO")  # nobody is to be answered
        await peer.publish("$SRV.INFO", b"\xff{", reply="x.y")
        assert (await ask_one(peer, "$SRV.PING"))["name"] == "demo_echo"


async def test_more_questions_than_can_be_answered_are_dropped_and_the_host_lives_on(host, mesh, peer):
    for number in range(20):
        echo_on(host, f"many.echo{number}")
    async with host:
        for _ in range(500):
            await peer.publish("$SRV.INFO", reply="x.y")
        await peer.flush()
        assert await mesh.call("many.echo7", {"message": "x"}) == {"reply": "x"}
        await spin(lambda: not host.parts.host._micro._busy)
        assert len(await ask(peer, "$SRV.INFO", 20)) == 20


LIMITED = """
    authorization {
      users = [
        {user: host, password: pw, permissions: {subscribe: ["mesh.>", "_INBOX.>"]}}
        {user: peer, password: pw}
      ]
    }
"""


async def test_where_it_is_not_permitted_there_is_none_and_agents_serve(caplog):
    caplog.set_level("INFO", "xml_pipeline.mesh.micro")
    async with ConfiguredServer(LIMITED) as server:
        host = AgentMesh(server.url_of("host"), drain_timeout=1.0)
        echo_on(host)
        async with host, plain_peer(server.url_of("peer")) as client:
            chunks_on(host)
            assert await host.call("demo.echo", {"message": "x"}) == {"reply": "x"}
            with pytest.raises(nats.errors.NoRespondersError):
                await client.request("$SRV.PING")
            await spin(lambda: not host.parts.host._micro._busy)
            assert not any(one.subject.startswith("$SRV") for one in host.parts.link._subscriptions)
            assert caplog.text.count("does not permit to answer") == 1, "it is not tried again for every agent"


# -- names and versions


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.2.3", "1.2.3"),
        ("1.2.3-rc.1+build.5", "1.2.3-rc.1+build.5"),
        ("1", "1.0.0"),
        ("1.2", "1.2.0"),
        ("v2.1", "2.1.0"),
        ("2024.05.01", "2024.5.1"),
        ("1.0rc1", "1.0.0+rc1"),
        ("1.2.3.4", "1.2.3+4"),
        ("latest", "0.0.0+latest"),
        ("my version!", "0.0.0+my.version"),
        ("", "0.0.0"),
        ("٣.١", "0.0.0"),
        ("1.2.3-", "1.2.3+-"),
        ("1.2.3\n", "1.2.3"),
    ],
)
def test_a_version_becomes_a_semantic_one(version, expected):
    assert semantic_version(version) == expected


@given(st.text() | st.from_regex(re.compile(r"v?[0-9]{1,3}(\.[0-9]{1,3}){0,4}[-+.a-z0-9]{0,10}", re.ASCII)))
def test_every_version_becomes_one_and_stays_so(version):
    found = semantic_version(version)
    assert SEMVER_REGEX.fullmatch(found)
    assert semantic_version(found) == found


@given(st.from_regex(r"[A-Za-z0-9_-]{1,20}(\.[A-Za-z0-9_-]{1,20}){0,3}", fullmatch=True))
def test_every_name_becomes_one(name):
    assert NAME_REGEX.fullmatch(service_name(name))
