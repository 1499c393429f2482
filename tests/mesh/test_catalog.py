"""The catalog among many writers, some of which do not keep to the rules."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.mesh.kit import chunks_on, echo_on, until, until_names
from xml_pipeline.mesh import AgentMesh, NotFound
from xml_pipeline.mesh.instances import agents_of


async def stored(peer, bucket, key):
    return json.loads((await (await peer.jetstream().key_value(bucket)).get(key)).value)


async def test_everybody_sees_who_comes_and_goes(host, mesh, peer):
    echo_on(host, tags=["x"])
    chunks_on(host)
    async with host:
        assert [entry.name for entry in await host.catalog()] == ["demo.echo", "demo.chunks"]
        await until_names(mesh, "demo.echo", "demo.chunks")
        assert [entry.name for entry in await mesh.catalog(tags=["x"])] == ["demo.echo"]
        assert [entry.name for entry in await mesh.catalog(streaming=True)] == ["demo.chunks"]
        assert await mesh.catalog("other") == []
        assert (await mesh.contract("demo.echo")).input_schema["title"] == "Ask"
        assert [contract.name for contract in await mesh.discover("demo")] == ["demo.echo", "demo.chunks"]
        assert await stored(peer, "mesh-instances", host.instance_id) == {"agents": ["demo.chunks", "demo.echo"]}
    await until_names(mesh)
    with pytest.raises(NotFound):
        await mesh.contract("demo.echo")
    assert await mesh.parts.instances.all() == {}


async def test_leaving_is_told(host, peer):
    from tests.mesh.kit import Tap

    echo_on(host)
    async with host:
        tap = await Tap.on(peer, "mesh.death.>")
    notice = await tap.next()
    assert (notice.subject, notice.headers) == ("mesh.death.demo.echo", None)
    body = json.loads(notice.data)
    assert body.pop("detected_at").endswith("+00:00")
    assert body == {"agent": "demo.echo", "reason": "graceful_shutdown", "instance_id": host.instance_id}


async def test_one_of_two_hosts_leaves_and_the_agent_stays(server, mesh):
    hosts = [AgentMesh(server.url, drain_timeout=5.0) for _ in range(2)]
    for host in hosts:
        echo_on(host)
    async with hosts[0]:
        async with hosts[1]:
            await until_names(mesh, "demo.echo")
        assert await mesh.call("demo.echo", {"message": "x"}) == {"reply": "x"}
        assert (await mesh.contract("demo.echo")).name == "demo.echo"
        assert [entry.name for entry in await mesh.catalog()] == ["demo.echo"]
    await until_names(mesh)


async def test_twenty_hosts_with_five_agents_each_at_once(server, mesh):
    hosts = [AgentMesh(server.url, drain_timeout=5.0) for _ in range(20)]
    names = {f"h{number}.a{agent}" for number in range(20) for agent in range(5)}
    for number, host in enumerate(hosts):
        for agent in range(5):
            echo_on(host, f"h{number}.a{agent}")
    await asyncio.gather(*(host.__aenter__() for host in hosts))
    await until(mesh, lambda entries: entries.keys() == names)
    assert len(await mesh.discover()) == 100
    await asyncio.gather(*(host.__aexit__() for host in hosts))
    await until_names(mesh)


async def test_a_thousand_agents_of_one_host(host, mesh):
    for number in range(1000):
        echo_on(host, f"many.a{number}")
    async with host:
        await until(mesh, lambda entries: len(entries) == 1000)
        assert await mesh.call("many.a999", {"message": "x"}) == {"reply": "x"}
    await until_names(mesh)


async def write(peer, value: bytes) -> None:
    bucket = await peer.jetstream().key_value("mesh-catalog")
    await bucket.put("catalog", value)


BROKEN = [{"name": "no.description"}, 7, None, {"description": "no name"}, {"name": 3, "description": ""}]


async def test_broken_elements_hide_only_themselves_and_stay(host, mesh, peer):
    await write(peer, json.dumps([*BROKEN, {"name": "good", "description": "d", "more": [1]}]).encode())
    await until_names(mesh, "good")
    echo_on(host)
    async with host:
        await until_names(mesh, "good", "demo.echo")
        elements = await stored(peer, "mesh-catalog", "catalog")
        assert elements[:-1] == [*BROKEN, {"name": "good", "description": "d", "more": [1]}]
    await until_names(mesh, "good")
    assert await stored(peer, "mesh-catalog", "catalog") == elements[:-1]


@pytest.mark.parametrize("value", [b"{nope", b"", b"7", b"\xff"])
async def test_a_value_that_is_no_array_stops_nobody(host, mesh, peer, value):
    await write(peer, value)
    echo_on(host)
    async with host:
        await until_names(mesh, "demo.echo")
        await write(peer, value)
        await until_names(mesh)
        await until_names(mesh, "demo.echo")
        elements = await stored(peer, "mesh-catalog", "catalog")
        assert [element["name"] for element in elements] == ["demo.echo"]


async def test_an_entry_that_somebody_removes_is_put_back(host, mesh, peer):
    echo_on(host)
    async with host:
        await until_names(mesh, "demo.echo")
        for _ in range(3):
            await write(peer, b"[]")
            await until_names(mesh)
            await until_names(mesh, "demo.echo")


async def test_a_bucket_that_somebody_deletes_is_filled_again(quick_heartbeat, host, mesh, peer):
    echo_on(host)
    async with host:
        await until_names(mesh, "demo.echo")
        await peer.jetstream().delete_stream("KV_mesh-catalog")
        await until_names(mesh)
        await until_names(mesh, "demo.echo")


async def test_two_hosts_with_different_entries_do_not_fight(server, mesh, peer):
    hosts = [AgentMesh(server.url, drain_timeout=5.0) for _ in range(2)]
    for number, host in enumerate(hosts):
        echo_on(host, version=f"{number}.0")
    async with hosts[0], hosts[1]:
        await until(mesh, lambda entries: "demo.echo" in entries and entries["demo.echo"].version == "1.0")
        bucket = await peer.jetstream().key_value("mesh-catalog")
        revision = (await bucket.get("catalog")).revision
        echo_on(hosts[0], "other")
        await until_names(mesh, "demo.echo", "other")
        assert (await bucket.get("catalog")).revision == revision + 1
        assert (await mesh.catalog())[0].version == "1.0"


async def test_changes_are_told(host, mesh):
    changes = mesh.catalog_changes()
    following = asyncio.create_task(anext(changes))
    echo_on(host)
    async with host:
        change = await asyncio.wait_for(following, 10)
        assert (change.name, change.before, change.after.description) == ("demo.echo", None, "Echoes")
    change = await asyncio.wait_for(anext(changes), 10)
    assert (change.name, change.after) == ("demo.echo", None)
    await changes.aclose()


@pytest.mark.parametrize(
    ("value", "agents"),
    [
        (b'{"agents": ["a", "b"]}', {"a", "b"}),
        (b'{"agents": ["a", 3]}', {"a"}),
        (b'{"agents": "a"}', set()),
        (b"[]", set()),
        (b"{nope", set()),
        (b"[" * 100_000, set()),
    ],
)
def test_a_record_that_makes_no_sense_names_nobody(value, agents):
    assert agents_of(value) == agents


async def test_a_loop_over_its_changes_ends_with_the_mesh_object(server):
    begun = asyncio.Event()
    async with AgentMesh(server.url) as mesh:
        echo_on(mesh)

        async def read() -> list[str]:
            names = []
            async for change in mesh.catalog_changes():
                names.append(change.name)
                begun.set()
            return names

        reader = asyncio.create_task(read())
        await begun.wait()
    assert await asyncio.wait_for(reader, 10) == ["demo.echo"]
