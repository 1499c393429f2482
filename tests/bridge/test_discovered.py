"""Agents that are offered as they appear, with classes made from their contracts."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from tests.bridge.kit import Ask, Told, organism
from tests.mesh.kit import echo_on, plain_peer, spin
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.bridge import discovered
from xml_pipeline.bridge.classes import MeshReply, class_of
from xml_pipeline.errors import ConfigurationError, RoutingError
from xml_pipeline.mesh import AgentContract, AgentMesh, AgentSpec, EmbeddedServer, InvalidReply


class Query(BaseModel):
    text: str
    limit: int = 10
    kind: Literal["a", "b"] = "a"
    tags: list[str] = Field(default_factory=list)


class Found(BaseModel):
    hits: list[str]
    more: bool | None = None


class Words(BaseModel):
    words: list[str]


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


# -- what could not be offered is looked at again


class Registry:
    """What a client puts there that writes the catalog and the contracts as it likes.

    Args:
        client: a plain NATS client.
    """

    def __init__(self, client) -> None:
        self._js = client.jetstream()
        self.entries: list[dict] = []

    async def enter(self, *names: str) -> None:
        """The catalog has these agents, and no others."""
        self.entries = [{"name": name, "description": "d"} for name in names]
        await (await self._js.key_value("mesh-catalog")).put("catalog", json.dumps(self.entries).encode())

    async def contract(self, name: str, schema) -> None:
        """This is what an agent takes."""
        contract = AgentContract(name=name, description="d", input_schema=schema)
        await self.write(name, contract.to_registry_json().encode())

    async def write(self, name: str, document: bytes) -> None:
        await (await self._js.key_value("mesh-registry")).put(name, document)


@pytest.fixture
def registry(peer):
    return Registry(peer)


SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


class Reads:
    """Counts how often contracts are read, and may say what comes of it."""

    def __init__(self, pump) -> None:
        directory = pump.attachments[0].mesh.parts.directory
        self._read, directory.contract = directory.contract, self.read
        self.names: list[str] = []
        self.done = 0
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def read(self, name):
        self.names.append(name)
        if self.gate is not None:
            await self.gate.wait()
        self.done += 1
        if self.error is not None:
            raise self.error
        return await self._read(name)


def lines_of(caplog, name="tools.late"):
    return [record for record in caplog.records if name in record.getMessage() and record.levelno >= logging.INFO]


@pytest.mark.parametrize("document", [None, b"{", b'{"skills": [{"inputSchema": {"type": "object"}}]}', b"[]"])
async def test_a_contract_that_comes_late_is_found(pump, registry, monkeypatch, caplog, document):
    """Nothing in the catalog changes when it is there, or put right."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(discovered, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(discovered, "_LONGEST_PAUSE", 0.01)
    async with pump:
        if document is not None:
            await registry.write("tools.late", document)
        reads = Reads(pump)
        await registry.enter("tools.late")
        await spin(lambda: len(reads.names) >= 20)
        assert "tools.late" not in pump.listeners
        assert [record.levelname for record in lines_of(caplog)] == ["WARNING"]
        await registry.contract("tools.late", SCHEMA)
        await spin(lambda: "tools.late" in pump.listeners)
        assert [record.levelname for record in lines_of(caplog)] == ["WARNING", "INFO"]
        count = len(reads.names)
        await registry.enter("tools.late", "other")
        await registry.enter("tools.late", "tools.soon")
        await spin(lambda: "tools.soon" in reads.names)
        assert reads.names[count:].count("tools.late") == 0  # nothing else is asked of what is offered


async def test_each_pause_is_longer_than_the_one_before_up_to_a_bound(pump, registry):
    pauses = []
    async with pump:
        ((_, part),) = pump.attachments[0]._parts
        mesh = pump.attachments[0].mesh
        await registry.enter("tools.late")
        await spin(lambda: "tools.late" in part._agents)
        agent = part._agents["tools.late"]
        loop = asyncio.get_running_loop()
        for _ in range(100):
            agent.due = float("inf")
            part._failed(mesh, agent, InvalidReply("x"))
            pauses.append(agent.due - loop.time())
    assert pauses[0] <= 2.0
    assert all(29.0 <= pause <= 60.0 for pause in pauses[7:])


async def test_a_name_that_becomes_free_is_the_agents(pump, mesh, monkeypatch):
    monkeypatch.setattr(discovered, "_FIRST_PAUSE", 0.001)
    search_on(mesh)
    await mesh.catalog()

    async def own(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Told("own"))

    pump.register("tools.search", own, Ask)
    async with pump:
        assert pump.unregister_listener("tools.search")
        await spin(lambda: "tools.search" in pump.listeners)
        assert pump.listeners["tools.search"].description == "Finds."


async def test_a_contract_that_no_class_can_say_any_more_takes_the_listener_away(pump, registry):
    async with pump:
        await registry.contract("tools.late", SCHEMA)
        await registry.enter("tools.late")
        await spin(lambda: "tools.late" in pump.listeners)
        await registry.contract("tools.late", {"type": "object"})
        await spin(lambda: "tools.late" not in pump.listeners)


async def test_one_that_breaks_everything_is_told_once_and_stands_in_nobodys_way(pump, registry, monkeypatch, caplog):
    """Whatever a contract holds: those behind it in the catalog are offered."""
    monkeypatch.setattr(discovered, "_FIRST_PAUSE", 0.001)
    made = discovered.classes_of

    def classes_of(contract):
        if contract.name == "tools.bad":
            raise ZeroDivisionError
        return made(contract)

    monkeypatch.setattr(discovered, "classes_of", classes_of)
    for name in ("tools.bad", "tools.good"):
        await registry._js.create_key_value(bucket="mesh-registry")
        await registry._js.create_key_value(bucket="mesh-catalog")
        await registry.contract(name, SCHEMA)
    await registry.enter("tools.bad", "tools.good")
    async with pump:
        assert "tools.good" in pump.listeners  # from the start
        reads = Reads(pump)
        await spin(lambda: len(reads.names) >= 5)
        assert len(lines_of(caplog, "tools.bad")) == 1


async def test_what_was_not_read_because_the_connection_was_lost_is_read_when_it_is_back(tmp_path, monkeypatch, caplog):
    """Nothing but the connection's return tells: no pause is over, and nobody writes anything."""
    monkeypatch.setattr(discovered, "_FIRST_PAUSE", 1e6)
    monkeypatch.setattr(discovered, "_LONGEST_PAUSE", 1e6)
    async with EmbeddedServer(tmp_path / "nats") as server:
        pump = organism(server.url, agents=[{"pattern": "tools.*"}])
        await pump.start()
        running = asyncio.create_task(pump.run())
        reads = Reads(pump)
        reads.gate = asyncio.Event()
        async with plain_peer(server.url) as client:
            registry = Registry(client)
            await registry.contract("tools.late", SCHEMA)
            await registry.enter("tools.late")
            await spin(lambda: reads.names)
    await spin(lambda: not pump.attachments[0].mesh.is_connected)
    reads.gate.set()
    await spin(lambda: reads.done)
    for _ in range(20):
        await pump.attachments[0]._parts[0][1].refresh()
        for _ in range(5):
            await asyncio.sleep(0)
    said = [record for record in caplog.records if "mesh.agents" in record.getMessage()]
    assert [(record.levelname, record.exc_info) for record in said] == [("WARNING", None)]
    assert "tools.late" not in pump.listeners and len(reads.names) == 1  # nor is anything asked
    async with EmbeddedServer(tmp_path / "nats", port=server.port):
        await spin(lambda: "tools.late" in pump.listeners)
        await pump.shutdown(5.0)
        await running


async def test_a_contract_that_changed_while_the_connection_was_away_is_read_anew(tmp_path):
    """Its entry in the catalog is the same."""
    async with EmbeddedServer(tmp_path / "nats") as server:
        pump = organism(server.url, agents=[{"pattern": "tools.*"}])
        await pump.start()
        running = asyncio.create_task(pump.run())
        async with AgentMesh(server.url) as mesh:
            search_on(mesh)
            await mesh.catalog()
            await spin(lambda: "tools.search" in pump.listeners)
            server.kill()
            await server.wait()
            await spin(lambda: not pump.attachments[0].mesh.is_connected)
    assert set(pump.listeners["tools.search"].codecs) == {"Query"}
    async with EmbeddedServer(tmp_path / "nats", port=server.port), AgentMesh(server.url) as mesh:

        @mesh.agent(AgentSpec(name="tools.search", description="Finds."))
        async def search(words: Words) -> Found:
            return Found(hits=words.words)

        await mesh.catalog()
        await spin(lambda: "Words" in getattr(pump.engine.table.listeners.get("tools.search"), "codecs", ()))
        await pump.shutdown(5.0)
        await running


async def test_what_is_read_while_its_pattern_is_taken_away_is_not_offered(pump, registry):
    async with pump:
        ((_, part),) = pump.attachments[0]._parts
        reads = Reads(pump)
        reads.gate = asyncio.Event()
        await registry.contract("tools.late", SCHEMA)
        await registry.enter("tools.late")
        await spin(lambda: reads.names)
        part.end()
        reads.gate.set()
        await spin(lambda: reads.done)
        await part.stop(0.0)
        assert "tools.late" not in pump.listeners
