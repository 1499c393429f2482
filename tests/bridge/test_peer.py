"""Agents of the mesh as listeners."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from tests.bridge.kit import Ask, Told, organism
from tests.mesh.kit import Gate, chunks_on, echo_on, until_names
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.errors import (
    ConversationCancelled,
    DeadlineExceeded,
    HandlerError,
    Overloaded,
    RoutingError,
    ValidationError,
)
from xml_pipeline.mesh import AgentSpec, MeshError
from xml_pipeline.mesh import Overloaded as AgentOverloaded
from xml_pipeline.message_bus.message_state import SystemError


@dataclass
class Chunk:
    delta: str


@pytest.fixture
def pump(server):
    return organism(
        server.url,
        agents=[
            {"name": "demo.echo", "payload_class": Ask, "output_class": Told},
            {"name": "demo.chunks", "payload_class": Ask, "output_class": Chunk},
            {"name": "demo.fails", "as": "fails", "payload_class": Ask, "output_class": Told, "timeout": 5.0},
        ],
    )


async def test_an_agent_is_asked_like_a_listener(pump, mesh):
    echo_on(mesh)
    async with pump:
        await until_names(pump.attachments[0].mesh, "demo.echo")
        assert await pump.request("demo.echo", Ask("hi", 2)) == Told("hihi")


async def test_chunks_are_answers(pump, mesh):
    chunks_on(mesh)
    async with pump:
        await until_names(pump.attachments[0].mesh, "demo.chunks")
        answers = [answer async for answer in pump.stream("demo.chunks", Ask("c", 3))]
        assert answers == [Chunk("c0"), Chunk("c1"), Chunk("c2")]


async def test_an_agent_of_the_pump_reaches_only_its_peers(pump, mesh):
    echo_on(mesh)
    seen = []

    async def agent(payload: Ask | Told | SystemError, metadata: HandlerMetadata) -> HandlerResponse:
        seen.append(payload)
        if isinstance(payload, Ask):
            return HandlerResponse.call(payload, "demo.echo")
        return HandlerResponse.respond(Told(getattr(payload, "reply", "") or payload.code))

    pump.register("good", agent, Ask, agent=True, peers=["demo.echo"])
    pump.register("bad", agent, Ask, agent=True, peers=[])
    async with pump:
        await until_names(pump.attachments[0].mesh, "demo.echo")
        assert await pump.request("good", Ask("hi")) == Told("hi")
        assert await pump.request("bad", Ask("hi")) == Told("routing")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (AgentOverloaded(), Overloaded),
        (MeshError("custom", "a custom text"), HandlerError),
        (MeshError("timeout"), DeadlineExceeded),
        (MeshError("cancelled"), ConversationCancelled),
        (ValueError("secret"), HandlerError),
    ],
)
async def test_its_errors_are_errors_here(pump, mesh, raised, expected):
    @mesh.agent(AgentSpec(name="demo.fails"))
    async def fails(ask: dict) -> dict:
        raise raised

    async with pump:
        await until_names(pump.attachments[0].mesh, "demo.fails")
        with pytest.raises(expected) as caught:
            await pump.request("fails", Ask("x"))
        assert type(caught.value) is expected
        assert "secret" not in caught.value.detail
        assert caught.value.target == "demo.fails"


async def test_what_it_does_not_take_is_a_validation_error(pump, mesh):
    @mesh.agent(AgentSpec(name="demo.fails"))
    async def fails(ask: int) -> dict:
        return {}

    async with pump:
        await until_names(pump.attachments[0].mesh, "demo.fails")
        with pytest.raises(ValidationError):
            await pump.request("fails", Ask("x"))


async def test_an_answer_of_another_class_is_its_failure(pump, mesh):
    @mesh.agent(AgentSpec(name="demo.fails"))
    async def fails(ask: dict) -> dict:
        return {"other": 1}

    async with pump:
        await until_names(pump.attachments[0].mesh, "demo.fails")
        with pytest.raises(HandlerError, match="could not be processed"):
            await pump.request("fails", Ask("x"))


async def test_nobody_there_is_said_at_once(pump):
    async with pump:
        with pytest.raises(RoutingError):
            await pump.request("demo.echo", Ask("x"))


async def test_cancelling_here_cancels_there(pump, mesh):
    gate = Gate()

    @mesh.agent(AgentSpec(name="demo.fails"))
    async def fails(ask: dict) -> dict:
        await gate.pass_through(ask)
        return {}

    async with pump:
        await until_names(pump.attachments[0].mesh, "demo.fails")
        thread = await pump.inject("fails", Ask("x"))
        await gate.begun.get()
        assert pump.cancel(thread)
        await gate.cancelled.wait()


async def test_who_waits_for_the_mesh_lends_its_slot(server, mesh):
    gate = Gate()

    @mesh.agent(AgentSpec(name="demo.fails"))
    async def fails(ask: dict) -> dict:
        await gate.pass_through(ask)
        return {"reply": ""}

    entry = {"name": "demo.fails", "payload_class": Ask, "output_class": Told}
    pump = organism(server.url, limits={"max_concurrent_handlers": 1}, agents=[entry])

    async def local(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Told("local"))

    pump.register("local", local, Ask)
    async with pump:
        await until_names(pump.attachments[0].mesh, "demo.fails")
        waiting = asyncio.create_task(pump.request("demo.fails", Ask("x")))
        await gate.begun.get()
        assert await pump.request("local", Ask("x")) == Told("local")
        gate.go.set()
        await waiting


async def test_a_sequence_runs_over_the_mesh(pump, mesh):
    @mesh.agent(AgentSpec(name="demo.echo"))
    async def echo(ask: dict) -> dict:
        return {"reply": ask["message"].upper()}

    async def ask_again(told: Told, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Ask(told.reply + "!"))

    pump.register("again", ask_again, Told)
    async with pump:
        await until_names(pump.attachments[0].mesh, "demo.echo")
        assert await pump.sequence(["demo.echo", "again", "demo.echo"], Ask("hi")) == Told("HI!")
        assert await pump.map("demo.echo", [Ask("a"), Ask("b")]) == [Told("A"), Told("B")]
