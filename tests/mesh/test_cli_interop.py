"""Our commands with a host of the real SDK, and its commands with what ours have started."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

from tests.mesh.commands import Commands, commands, subscribed  # noqa: F401 - fixtures
from tests.mesh.kit import Ask, Told, echo_on, until_names
from xml_pipeline.mesh import AgentMesh

oam = pytest.importorskip("openagentmesh")


@pytest.fixture
def run(commands: Commands) -> Commands:  # noqa: F811
    return commands


@pytest.fixture
async def theirs(server, run):
    """Their host, whom our commands find."""
    run.environment["OAM_URL"] = server.url
    theirs = oam.AgentMesh(server.url)

    @theirs.agent(oam.AgentSpec(name="their.echo", description="Echoes"))
    async def echo(ask: Ask) -> Told:
        if ask.message == "boom":
            raise ValueError("boom")
        return Told(reply=ask.message * ask.n)

    @theirs.agent(oam.AgentSpec(name="their.chunks", description="Streams"))
    async def chunks(ask: Ask) -> int:  # type: ignore[misc]
        for number in range(ask.n):
            yield number

    theirs.go = asyncio.Event()

    @theirs.agent(oam.AgentSpec(name="their.ticks", description="Publishes"))
    async def ticks() -> int:  # type: ignore[misc]
        await theirs.go.wait()
        for number in range(3):
            yield number

    async with theirs, AgentMesh(server.url) as mesh:
        await until_names(mesh, "their.echo", "their.chunks", "their.ticks")
        theirs.mesh = mesh
        yield theirs


async def test_our_commands_use_their_agents(run, theirs):
    assert [entry["name"] for entry in await run.data("catalog")] == ["their.echo", "their.chunks", "their.ticks"]
    assert json.loads((await run("contract", "their.echo")).out)["input_schema"] == Ask.model_json_schema()
    assert (await run("call", "their.echo", '{"message": "x", "n": 2}')).out == '{"reply": "xx"}\n'
    assert (await run("stream", "their.chunks", '{"message": "x", "n": 3}')).out == "0\n1\n2\n"
    following = await run.follow("subscribe", "their.ticks")
    await subscribed(theirs.mesh, "mesh.agent.their.ticks.events")
    theirs.go.set()
    assert await following.end(None) == (0, "0\n1\n2\n", "")


async def test_our_commands_understand_their_errors(run, theirs):
    assert "Error [handler_error] boom\n" in (await run("call", "their.echo", '{"message": "boom"}')).err
    assert (await run("call", "their.echo", '{"message": 5}')).err.startswith("Error [handler_error] ")
    assert (await run("call", "their.chunks", "{}")).err.endswith("Try: xml-pipeline mesh stream their.chunks [JSON]\n")


async def test_our_keys_are_theirs(run, theirs):
    await run("kv", "put", "k", "ours")
    assert await theirs.kv.get("k") == "ours"
    await theirs.kv.put("k", "theirs")
    assert (await run("kv", "get", "k")).out == "theirs"


async def test_their_commands_find_the_mesh_that_ours_has_started(run):
    await run("up", "--port", "0")
    url = (run.folder / ".oam-url").read_text().strip()
    below = run.folder / "below"
    below.mkdir()
    async with AgentMesh(url) as host:
        echo_on(host, "our.echo")
        await until_names(host, "our.echo")
        for arguments, expected in (
            (("mesh", "catalog"), "our.echo  no         Echoes"),
            (("agent", "call", "our.echo", '{"message": "x"}'), '{"reply": "x"}'),
        ):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "openagentmesh.cli",
                *arguments,
                cwd=below,
                env={name: value for name, value in os.environ.items() if name != "OAM_URL"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await process.communicate()
            assert process.returncode == 0, err
            assert out.decode().splitlines()[-1] == expected


async def test_our_commands_find_the_mesh_that_theirs_points_to(run, server):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "openagentmesh.cli",
        "mesh",
        "connect",
        server.url,
        cwd=run.folder,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
    assert (await run("kv", "put", "k", "v")).code == 0
    assert (await run("up", "--port", "0")).code == 1, "it is not ours to replace"
