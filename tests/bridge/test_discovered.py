"""Agents that are offered as they appear, with classes made from their contracts."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from tests.bridge.kit import Ask, Told, organism
from tests.mesh.kit import echo_on, spin
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.bridge.classes import MeshReply, class_of
from xml_pipeline.errors import ConfigurationError, RoutingError
from xml_pipeline.mesh import AgentMesh, AgentSpec


class Query(BaseModel):
    text: str
    limit: int = 10
    kind: Literal["a", "b"] = "a"
    tags: list[str] = Field(default_factory=list)


class Found(BaseModel):
    hits: list[str]
    more: bool | None = None


@pytest.fixture
def pump(server):
    return organism(server.url, agents=[{"pattern": "tools.*"}])


def search_on(mesh: AgentMesh) -> None:
    @mesh.agent(AgentSpec(name="tools.search", description="Finds."))
    async def search(query: Query) -> Found:
        return Found(hits=[query.text] * query.limit)


async def test_an_agent_is_offered_as_it_appears_and_no_more_when_it_is_gone(server, pump):
    async with pump:
        assert "tools.search" not in pump.listeners
        host = AgentMesh(server.url)
        search_on(host)
        async with host:
            await spin(lambda: "tools.search" in pump.listeners)
            listener = pump.listeners["tools.search"]
            assert listener.description == "Finds."
            answer = await pump.request("tools.search", listener.payload_class(text="x", limit=2))
            assert answer.hits == ["x", "x"]
        await spin(lambda: "tools.search" not in pump.listeners)
        with pytest.raises(RoutingError):
            await pump.request("tools.search", Ask("x"))


async def test_one_that_is_there_is_offered_from_the_start(pump, mesh):
    search_on(mesh)
    await mesh.catalog()
    async with pump:
        assert "tools.search" in pump.listeners


async def test_a_model_agent_is_told_how_to_call_it(pump, mesh):
    search_on(mesh)
    await mesh.catalog()
    seen = asyncio.Queue()

    async def agent(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        seen.put_nowait(metadata.usage_instructions)
        return HandlerResponse.respond(Told(""))

    pump.register("agent", agent, Ask, agent=True, peers=["tools.search"])
    async with pump:
        await pump.request("agent", Ask("x"))
        told = await seen.get()
        assert "tools.search" in told and "Finds." in told and "<Query>" in told


async def test_an_agent_by_its_name_alone_gets_its_classes_from_its_contract(server, mesh):
    search_on(mesh)
    await mesh.catalog()
    async with organism(server.url, agents=[{"name": "tools.search", "as": "find"}]) as pump:
        listener = pump.listeners["find"]
        assert (await pump.request("find", listener.payload_class(text="x", limit=1))).hits == ["x"]


async def test_other_shapes(pump, mesh):
    @mesh.agent(AgentSpec(name="tools.double"))
    async def double(numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]

    @mesh.agent(AgentSpec(name="tools.now"))
    async def now() -> str:
        return "12:00"

    @mesh.agent(AgentSpec(name="tools.untyped"))
    async def untyped(query: Query):
        return {"anything": [1, None]}

    @mesh.agent(AgentSpec(name="tools.any"))
    async def anything(value: dict) -> int:
        return 1

    await mesh.catalog()
    async with pump:
        listeners = pump.listeners
        assert (await pump.request("tools.double", listeners["tools.double"].payload_class([1, 2]))).value == [2, 4]
        assert (await pump.request("tools.now", listeners["tools.now"].payload_class())).value == "12:00"
        answer = await pump.request("tools.untyped", listeners["tools.untyped"].payload_class(text=""))
        assert answer == MeshReply('{"anything": [1, null]}')
        assert "tools.any" not in listeners  # no class takes any object


async def test_a_local_listener_keeps_its_name(pump, mesh, caplog):
    search_on(mesh)
    await mesh.catalog()

    async def own(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Told("own"))

    pump.register("tools.search", own, Ask)
    async with pump:
        assert await pump.request("tools.search", Ask("x")) == Told("own")
    assert "is not offered" in caplog.text


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": "object"},
        {"type": "array"},
        {"type": "object", "properties": {"content-type": {"type": "string"}}},
        {"type": "object", "properties": {"class": {"type": "string"}}},
        {"type": "object", "properties": {"__class__": {"type": "string"}}},
        {"$ref": "#/$defs/Node", "$defs": {"Node": {"type": "object", "properties": {"n": {"$ref": "#/$defs/Node"}}}}},
        {"$ref": "http://evil"},
        {"$ref": "#/$defs/None"},
        {"type": "object", "properties": {f"f{n}": {"type": "string"} for n in range(2000)}},
        {"type": ["object", 5]},
        {"enum": []},
        {"enum": [1.5]},
        {"anyOf": []},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "object", "properties": {"ﬁ": {"type": "string"}, "fi": {"type": "string"}}},
    ],
)
def test_what_no_class_can_say_is_refused(schema):
    with pytest.raises(ConfigurationError):
        class_of(schema, "Name")


def test_a_hostile_depth_is_refused():
    schema: dict = {"type": "string"}
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ConfigurationError, match="too deeply"):
        class_of(schema, "Name")


def test_a_hostile_width_is_refused():
    schema: dict = {"type": "string"}
    for _ in range(14):
        schema = {"type": ["array"] * 6, "items": schema}
    with pytest.raises(ConfigurationError, match="too much"):
        class_of(schema, "Name")


def test_required_may_say_anything():
    cls = class_of({"type": "object", "properties": {"a": {"type": "string"}}, "required": [["a"], 5]}, "Name")
    assert cls().a is None


@pytest.mark.parametrize("is_there_before", [True, False])
async def test_names_that_no_listener_can_have_stop_nothing(server, mesh, is_there_before):
    pump = organism(server.url, agents=[{"pattern": ">"}])

    def offer():
        for name in ("external", "system.agent"):
            echo_on(mesh, name)

    if is_there_before:
        offer()
    async with pump:
        offer()
        search_on(mesh)
        await spin(lambda: "tools.search" in pump.listeners)
        assert not {"external", "system.agent"} & {*pump.listeners}
