"""With the real SDK of version 0.2.0, in both directions."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import pytest

from tests.mesh.kit import Ask, Chunk, Told, chunks_on, echo_on, spin, until, until_names
from xml_pipeline.mesh import AgentMesh, AgentSpec, HandlerError, InvocationMismatch, MeshError, NotFound

oam = pytest.importorskip("openagentmesh")


@pytest.fixture
def theirs(server):
    """A mesh object of the SDK, with one agent of each shape."""
    theirs = oam.AgentMesh(server.url)

    @theirs.agent(oam.AgentSpec(name="their.echo", description="Echoes", tags=["t"]))
    async def echo(ask: Ask) -> Told:
        if ask.message == "boom":
            raise ValueError("boom")
        return Told(reply=ask.message * ask.n)

    @theirs.agent(oam.AgentSpec(name="their.chunks", description="Streams"))
    async def chunks(ask: Ask) -> Chunk:  # type: ignore[misc]
        for number in range(ask.n):
            yield Chunk(delta=f"{ask.message}{number}")
        if ask.message == "boom":
            raise ValueError("boom")

    theirs.go = asyncio.Event()

    @theirs.agent(oam.AgentSpec(name="their.ticks", description="Publishes"))
    async def ticks() -> int:  # type: ignore[misc]
        await theirs.go.wait()
        for number in range(3):
            yield number

    return theirs


@pytest.fixture
def ours(host):
    echo_on(host, "our.echo", tags=["t"])
    chunks_on(host, "our.chunks")
    host.go = asyncio.Event()  # type: ignore[attr-defined]

    @host.agent(AgentSpec(name="our.ticks", description="Publishes"))
    async def ticks() -> AsyncIterator[int]:
        await host.go.wait()  # type: ignore[attr-defined]
        for number in range(3):
            yield number

    @host.agent(AgentSpec(name="our.failing", description="Fails"))
    async def failing(how: str) -> int:
        if how == "key":
            from xml_pipeline.mesh import KVKeyExists

            raise KVKeyExists(key="k")
        raise MeshError("mine", "of its own", details={"a": 1})

    return host


async def test_they_use_our_agents(ours, theirs):
    async with ours, theirs:
        names = [entry.name for entry in await theirs.catalog(channel="our")]
        assert names == ["our.echo", "our.chunks", "our.ticks", "our.failing"]
        contract = await theirs.contract("our.echo")
        assert contract.skills[0]["inputSchema"] == Ask.model_json_schema()
        assert await theirs.call("our.echo", Ask(message="x", n=2)) == {"reply": "xx"}
        chunks = [chunk async for chunk in theirs.stream("our.chunks", {"message": "m", "n": 3})]
        assert chunks == [{"delta": "m0"}, {"delta": "m1"}, {"delta": "m2"}]


async def test_they_understand_our_errors(ours, theirs):
    async with ours, theirs:
        for name, payload, code in (
            ("our.echo", {"message": 1}, "invalid_input"),
            ("our.failing", "key", "handler_error"),
            ("our.failing", "", "mine"),
        ):
            with pytest.raises(oam.MeshError) as caught:
                await theirs.call(name, payload)
            assert (caught.value.code, caught.value.agent) == (code, name)
        assert caught.value.details == {"a": 1}
        with pytest.raises(oam.InvocationMismatch):
            await theirs.call("our.chunks", {"message": "x"})


async def test_they_follow_our_publisher(ours, theirs):
    async with ours, theirs:
        following = asyncio.create_task(anext(events := theirs.subscribe(agent="our.ticks")))
        await spin(lambda: any("events" in one.subject for one in theirs._nc._subs.values()))
        await theirs._nc.flush()
        await theirs._nc.flush()  # the first overtakes what still waits to be written
        ours.go.set()
        assert await following == 0
        assert [event async for event in events] == [1, 2]


async def test_we_use_their_agents(mesh, theirs):
    async with theirs:
        await until_names(mesh, "their.echo", "their.chunks", "their.ticks")
        assert [entry.name for entry in await mesh.catalog(tags=["t"])] == ["their.echo"]
        assert (await mesh.contract("their.echo")).output_schema == Told.model_json_schema()
        assert await mesh.call("their.echo", Ask(message="x", n=2), result_type=Told) == Told(reply="xx")
        chunks = [chunk async for chunk in mesh.stream("their.chunks", {"message": "m", "n": 2})]
        assert chunks == [{"delta": "m0"}, {"delta": "m1"}]
        events = mesh.subscribe(agent="their.ticks")
        following = asyncio.create_task(anext(events))
        link = mesh.parts.link
        await spin(lambda: any(one.subject.endswith(".events") for one in link._subscriptions))
        await link.flush()
        theirs.go.set()
        assert await following == 0
        assert [event async for event in events] == [1, 2]


async def test_we_understand_their_errors(mesh, theirs):
    async with theirs:
        await until_names(mesh, "their.echo", "their.chunks", "their.ticks")
        for payload in ({"message": "boom"}, {"message": 1}):
            with pytest.raises(HandlerError):
                await mesh.call("their.echo", payload)
        got = []
        with pytest.raises(HandlerError, match="boom"):
            async for chunk in mesh.stream("their.chunks", {"message": "boom"}):
                got.append(chunk)  # noqa: PERF401
        assert got == [{"delta": "boom0"}]
        with pytest.raises(InvocationMismatch):
            await mesh.call("their.ticks")
        with pytest.raises(NotFound):
            await mesh.call("their.other")


async def test_a_replica_of_theirs_that_leaves_does_not_take_ours_along(host, mesh, server):
    """The SDK deletes the entry and the contract of an agent whoever else serves it."""
    echo_on(host, "shared")
    theirs = oam.AgentMesh(server.url)

    @theirs.agent(oam.AgentSpec(name="shared", description="Theirs"))
    async def shared(ask: Ask) -> Told:
        return Told(reply=ask.message)

    async with host:
        async with theirs:
            await until(mesh, lambda entries: "shared" in entries and entries["shared"].description == "Theirs")
        await until(mesh, lambda entries: "shared" in entries and entries["shared"].description == "Echoes")
        await asyncio.wait_for(host.parts.membership._staying, 10)
        assert (await mesh.contract("shared")).description == "Echoes"
        assert await mesh.call("shared", {"message": "x"}) == {"reply": "x"}


async def oam_command(url: str, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "openagentmesh.cli",
        *arguments,
        "--url",
        url,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_their_command_line(ours, server):
    async with ours:
        code, out, err = await oam_command(server.url, "mesh", "catalog", "--json")
        assert code == 0, err
        assert {entry["name"] for entry in json.loads(out)} == {"our.echo", "our.chunks", "our.ticks", "our.failing"}
        code, out, err = await oam_command(server.url, "agent", "contract", "our.echo", "--json")
        assert code == 0, err
        assert json.loads(out)["name"] == "our.echo"
        code, out, err = await oam_command(server.url, "agent", "call", "our.echo", '{"message": "x"}', "--json")
        assert (code, json.loads(out)) == (0, {"reply": "x"}), err
        code, out, err = await oam_command(
            server.url, "agent", "stream", "our.chunks", '{"message": "m", "n": 2}', "--json"
        )
        assert (code, "".join(out.split())) == (0, '{"delta":"m0"}{"delta":"m1"}'), err
        code, out, err = await oam_command(server.url, "agent", "call", "our.chunks", "{}")
        assert code == 1
        assert "stream()" in err


async def test_a_program_written_for_the_sdk_runs_on_ours(server):
    """Positional arguments, attributes and the older way to stream, as in its documents."""
    mesh = AgentMesh(server.url)
    spec = AgentSpec(name="demo.old", description="d", tags=["a"], version="0.2.0")

    @mesh.agent(spec)
    async def old(ask: Ask) -> Told:
        return Told(reply=ask.message)

    async with mesh:
        assert await mesh.call("demo.old", {"message": "x"}, 5.0) == {"reply": "x"}
        assert (await mesh.catalog("demo", ["a"]))[0].name == spec.name
        assert await old(Ask(message="direct")) == Told(reply="direct")
