"""``send --mesh``: one message of an organism whose listeners call agents of a mesh, on a real server."""

from __future__ import annotations

import asyncio

import pytest

from tests.mesh.kit import until_names
from xml_pipeline.mesh import AgentMesh, AgentSpec

from .conftest import ORGANISM

ASKER = """
async def ask(payload, metadata):
    if isinstance(payload, Pong):
        return HandlerResponse.respond(payload)
    return HandlerResponse(payload, to="far.echo")
"""

MESH = """
  - name: asker
    payload_class: [handlers.Ping, handlers.Pong]
    handler: handlers.ask
    description: Asks an agent.
    agent: true
    peers: [far.echo]
mesh:
  url: {url}
  agents: [{{name: far.echo, payload_class: handlers.Ping, output_class: handlers.Pong}}]
  expose: [{{listener: echo}}]
"""

NOWHERE = "nats://127.0.0.1:1"


@pytest.fixture
def server(shared_server):
    shared_server.forget()
    return shared_server


@pytest.fixture
async def mesh(server):
    """A member that serves an agent."""
    mesh = AgentMesh(server.url)

    @mesh.agent(AgentSpec(name="far.echo", description="Answers from afar."))
    async def echo(payload: dict) -> dict:
        names = [entry.name for entry in await mesh.catalog()]
        return {"text": f"{payload['text']} from afar, where are {names}"}

    async with mesh:
        yield mesh


@pytest.fixture
def send(cli, organism):
    """Send a message from the organism with this mesh in its file."""
    with (organism / "handlers.py").open("a") as file:
        file.write(ASKER)

    async def run(url, *options):
        (organism / "organism.yaml").write_text(ORGANISM + (MESH.format(url=url) if url else ""))
        target = ("asker", "--class", "Ping") if url else ("echo",)
        return await asyncio.to_thread(cli, "send", *target, '{"text": "hi"}', *options)

    return run


ANSWER = "answer: Pong(text=\"hi from afar, where are ['far.echo']\")"


async def test_it_takes_another_server_than_that_of_the_file_and_offers_nothing_there(send, server, mesh):
    for url in (NOWHERE, "local"):
        result = await send(url, "--mesh", server.url)
        assert (result.code, result.err) == (0, ""), result
        assert result.out.splitlines()[-1] == ANSWER
    await until_names(mesh, "far.echo")


async def test_without_it_the_file_decides(send, server, mesh):
    result = await send(server.url)
    assert (result.code, result.out.splitlines()[-1]) == (0, ANSWER), result
    result = await send(NOWHERE)
    assert result.complaint(1).startswith(f"error: mesh: There is no connection to the mesh at {NOWHERE}")


async def test_a_file_without_the_section_has_nothing_to_do_on_a_mesh(send, server):
    assert "there is no 'mesh' section" in (await send("", "--mesh", server.url)).complaint(1)


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        (f"{NOWHERE},nats://127.0.0.1:2", 1, "127.0.0.1:2: "),
        ("ftp://x", 1, "error: mesh: 'ftp://x' is not"),
        ("", 2, "an address must not be empty"),
        ("  ", 2, "an address must not be empty"),
    ],
)
async def test_an_address_of_no_server_is_told(send, url, code, told):
    result = await send("local", "--mesh", url)
    assert told in result.complaint(code)
    assert result.out == ""
