"""What is held is what it was: agents that come and go, calls that are given up, reloads, connections, callers."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from collections import Counter

import pytest

from tests.bridge.kit import Ask, Told, echo, organism
from tests.mesh.kit import Tap, echo_on, plain_peer, spin, until_names
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.errors import PipelineError
from xml_pipeline.mesh import AgentContract, AgentMesh, AgentSpec, EmbeddedServer
from xml_pipeline.mesh.agent import Agent

ROUNDS = int(os.environ.get("XML_PIPELINE_GROWTH", "5"))
"""Each is fifty agents, or as much of something else; 20 for a thousand."""
FEW = {"max_threads": 5}
"""Closed conversations are kept for a while, with what they failed of."""
OURS = ("xml_pipeline", "third_party", "nats")


def held() -> Counter[str]:
    """How many there are of everything that is ours, of tasks that run, and of classes."""
    for _ in range(3):
        gc.collect()
    found: Counter[str] = Counter()
    for each in gc.get_objects():
        cls = type(each)
        if cls is type:
            found["classes"] += 1
        elif isinstance(each, asyncio.Task):
            found["tasks"] += not each.done()  # the loop holds cancelled timers, and what they hold, a little longer
        elif str(cls.__module__).partition(".")[0] in OURS:
            found[f"{cls.__module__}.{cls.__qualname__}"] += 1
    return found


def grown(before: Counter[str], *, by: int = 8) -> dict[str, tuple[int, int]]:
    """What there is more of, by more than may be under way by chance."""
    now = held()
    return {name: (before[name], count) for name, count in now.items() if count > before[name] + by}


class Agents:
    """Agents that are there as somebody else's: their entries, their contracts, and one who answers for all."""

    def __init__(self, client) -> None:
        self._client = client
        self._js = client.jetstream()

    async def serve(self):
        async def answer(message):
            await message.respond(b'{"reply": "yes"}')

        await self._client.subscribe("mesh.agent.tools.*", cb=answer)

    async def come(self, *names):
        registry = await self._js.key_value("mesh-registry")
        for name in names:
            schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
            gives = {"type": "object", "properties": {"reply": {"type": "string"}}}
            contract = AgentContract(name=name, description=name, input_schema=schema, output_schema=gives)
            await registry.put(name, contract.to_registry_json().encode())
        await self._enter(names)

    async def go(self, *names):
        await self._enter(())
        registry = await self._js.key_value("mesh-registry")
        for name in names:
            await registry.purge(name)

    async def _enter(self, names):
        entries = [{"name": name, "description": name} for name in names]
        await (await self._js.key_value("mesh-catalog")).put("catalog", json.dumps(entries).encode())


async def test_agents_that_are_offered_and_withdrawn(server):
    async def nothing() -> None: ...

    async with AgentMesh(server.url) as host:

        async def one_round(number):
            agents = [Agent.of(AgentSpec(name=f"a.n{number}x{index}"), nothing) for index in range(10)]
            await asyncio.gather(*(host.offer(agent) for agent in agents))
            await asyncio.gather(*(host.withdraw(agent.name, 5.0) for agent in agents))

        await one_round(0)
        before = held()
        for number in range(ROUNDS):
            await one_round(number + 1)
        assert grown(before) == {}


@pytest.mark.parametrize("calls", [False, True])
@pytest.mark.timeout(180)
async def test_agents_that_come_and_go(server, peer, calls):
    pump = organism(server.url, limits=FEW, agents=[{"pattern": "tools.*"}], events=True)
    agents = Agents(peer)

    async def one_round(number):
        names = [f"tools.n{number}x{index}" for index in range(50)]
        await agents.come(*names)
        await spin(lambda: {*names} <= {*pump.engine.table.listeners})
        for name in names if calls else ():
            asked = pump.engine.table.listeners[name].payload_class(text="x")
            assert (await pump.request(name, asked)).reply == "yes"
        await agents.go(*names)
        await spin(lambda: not any(name.startswith("tools.") for name in pump.engine.table.listeners))
        await pump.wait_idle()

    async with pump:
        await agents.serve()
        listeners = {*pump.listeners}
        await one_round(0)
        before = held()
        for number in range(ROUNDS):
            await one_round(number + 1)
        assert grown(before) == {}
        assert {*pump.listeners} == listeners
        part = next(part for (kind, _), part in pump.attachments[0]._parts if kind == "agents")
        assert part._agents == {}
        assert len(part._calls._names) <= 8  # the pump's workers hold what they did last


async def test_calls_that_are_given_up(server, mesh):
    """In both directions, before and after they were answered; streams too."""
    begun = asyncio.Semaphore(0)

    async def hang(ask: Ask, metadata: HandlerMetadata) -> None:
        begun.release()
        await asyncio.Event().wait()

    async def drip(ask: Ask, metadata: HandlerMetadata):
        yield HandlerResponse.respond(Told("1"))
        begun.release()
        await asyncio.Event().wait()

    agents = [{"name": f"org.{name}", "as": f"far.{name}", "payload_class": Ask} for name in ("hang", "drip")]
    host = organism(server.url, limits=FEW, expose=[{"listener": "hang"}, {"listener": "drip"}], events=True)
    host.register("hang", hang, Ask)
    host.register("drip", drip, Ask)
    caller = organism(server.url, "caller", limits=FEW, agents=agents)

    async def follow(stream):
        async for _ in stream:
            pass

    async def one_round():
        calls = [caller.request("far.hang", Ask("x")) for _ in range(4)]
        calls += [follow(caller.stream("far.drip", Ask("x"))) for _ in range(4)]
        calls += [mesh.call("org.hang", {"message": "x"}) for _ in range(4)]
        calls += [follow(mesh.stream("org.drip", {"message": "x"})) for _ in range(4)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        for _ in tasks:
            await begun.acquire()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await caller.wait_idle()
        await host.wait_idle()

    async with host, caller:
        await until_names(caller.attachments[0].mesh, "org.hang", "org.drip")
        await until_names(mesh, "org.hang", "org.drip")
        await one_round()
        await one_round()
        before = held()
        for _ in range(ROUNDS):
            await one_round()
        # The loop keeps cancelled timers for a while, and they what the cancelled calls were about.
        assert grown(before, by=6 * ROUNDS) == {}
        for pump in (host, caller):
            assert len(pump.attachments[0]._baggage) == 0
            assert pump.engine.budgets.get_all_usage() == {}


ASK, TOLD = ("tests.bridge.kit.Ask", "tests.bridge.kit.Told")


def section(url, tag):
    """One of two sections, of which every entry is another one."""
    message = f"{tag}.in.{{message}}"
    return {
        "url": url,
        "expose": [{"listener": "echo", "tags": [tag]}],
        "agents": [
            {"pattern": f"{tag}.*"},
            {"name": "demo.echo", "payload_class": ASK, "output_class": TOLD, "description": tag},
            {"subscribe": f"feed.{tag}", "to": "echo", "payload_class": ASK},
        ],
        "kv": [
            {"watch": message, "to": "echo", "payload_class": ASK, "resume": "r"},
            {"watch": message, "to": "echo", "payload_class": ASK},
            {"put": f"{tag}.out.{{message}}", "listener": "kept", "payload_class": ASK},
        ],
        "subjects": [
            {"subscribe": f"{tag}.{{message}}", "to": "echo", "payload_class": ASK},
            {"subscribe": f"durable.{tag}", "to": "echo", "payload_class": ASK, "durable": tag},
            {"publish": f"{tag}.told.{{message}}", "listener": "said", "payload_class": ASK},
        ],
        "events": tag == "a",
    }


async def test_reloads(server, mesh, tmp_path):
    for name in ("demo.echo", "a.echo", "b.echo"):
        echo_on(mesh, name)
    await mesh.catalog()
    path = tmp_path / "organism.yaml"

    def write(tag):
        listener = {"name": "echo", "description": "d", "payload_class": ASK, "handler": "tests.bridge.kit.echo"}
        said = {"organism": {"name": "org"}, "listeners": [listener], "mesh": section(server.url, tag), **FEW}
        path.write_text(json.dumps(said))

    write("a")
    pump = await StreamPump.from_yaml(str(path))
    bridge = pump.attachments[0]

    async def one_round():
        for tag in ("b", "a"):
            write(tag)
            event = pump.reload_config()
            assert event.success, event.error
            await spin(lambda: not bridge._changing)
            assert f"{tag}.echo" in pump.listeners
            assert await pump.request("demo.echo", Ask("x")) == Told("x")
            await mesh.kv.put(f"{tag}.in.x", "{}")
            await mesh.publish(f"{tag}.x", b"{}")
            await pump.wait_idle()

    async with pump:
        await one_round()
        await one_round()
        before = held()
        for _ in range(ROUNDS):
            await one_round()
        assert grown(before) == {}


async def test_connections_that_come_and_go(tmp_path):
    expose, agents = [{"listener": "echo"}], [{"pattern": "tools.*"}, {"name": "no.one", "payload_class": Ask}]
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    follow = [{"subscribe": "s", "to": "echo", "payload_class": Ask, "durable": "d"}]
    watch = [{"watch": "k.*", "to": "echo", "payload_class": Ask, "resume": "r"}]
    pump = organism(server.url, limits=FEW, expose=expose, agents=agents, subjects=follow, kv=watch, events=True)
    pump.register("echo", echo, Ask)
    await pump.start()
    running = asyncio.create_task(pump.run())
    mesh = pump.attachments[0].mesh

    async def one_round():
        nonlocal server
        server.kill()
        await server.wait()
        await spin(lambda: not mesh.is_connected)
        with pytest.raises(PipelineError):
            await pump.request("no.one", Ask("x"), timeout=0.01)
        await pump.attachments[0]._parts[0][1].refresh()
        server = EmbeddedServer(tmp_path / "nats", port=server.port)
        await server.start()
        async with AgentMesh(server.url) as other:
            await until_names(other, "org.echo")
            assert await other.call("org.echo", {"message": "x"}, idempotent=True) == {"reply": "x"}

    await one_round()
    for _ in range(FEW["max_threads"]):
        await pump.request("echo", Ask("x"))  # so many conversations are remembered, and from now on no more
    before = held()
    for _ in range(ROUNDS - 1):
        await one_round()
    try:
        # Each of the conversations that are remembered may keep its failure, and its exchange the same.
        assert grown(before, by=2 * FEW["max_threads"]) == {}
    finally:
        await pump.shutdown(5.0)
        await running
        await server.stop()


async def test_ten_thousand_callers(server, mesh):
    """Each says to be another mesh object; none of them is remembered."""
    pump = organism(server.url, limits=FEW, expose=[{"listener": "echo"}])
    pump.register("echo", echo, Ask)
    async with pump, plain_peer(server.url) as client:
        await until_names(mesh, "org.echo")

        async def call(number):
            headers = {
                "X-Mesh-Instance-Id": f"{number:032x}",
                "X-Mesh-Request-Id": f"{number:032x}",
                "X-Mesh-Thread": f"{number:08x}-0000-4000-8000-000000000000",
                "X-Mesh-Budget": str(number),
                "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01",
            }
            reply = await client.request("mesh.agent.org.echo", b'{"message": "x"}', timeout=20, headers=headers)
            assert reply.data == b'{"reply":"x"}'

        async def some(start, count):
            for first in range(start, start + count, 50):
                await asyncio.gather(*(call(number) for number in range(first, first + 50)))
            await pump.wait_idle()

        await some(0, 200)
        before = held()
        await some(200, 400 * ROUNDS)
        assert grown(before) == {}
        bridge = pump.attachments[0]
        assert len(bridge._baggage) == 0
        assert pump.engine.budgets.get_all_usage() == {}


# -- names that a handler makes up


async def test_no_name_that_a_handler_makes_up_ends_the_events_or_is_kept(server, peer):
    async def wild(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(Ask("x"), to=ask.message)

    logs = await Tap.on(peer, "mesh.logs.>")
    events = await Tap.on(peer, "mesh.pump.>")
    pump = organism(server.url, limits=FEW, events=True)
    pump.register("wild", wild, Ask)
    async with pump:
        mesh = pump.attachments[0].mesh
        for name in ("x" * 3_000, "x" * 100_000, "a.b.c", *(f"n{number}" for number in range(20 * ROUNDS))):
            with pytest.raises(PipelineError):
                await pump.request("wild", Ask(name))
        await pump.wait_idle()
        assert {*mesh.parts.journal._logs} == {"org", "org.wild"}
        names = set()
        while "n0" not in names:
            names.add(json.loads((await logs.next()).data)["data"].get("listener"))
        assert {"x" * 3_000, "a.b.c"} <= names
        assert pump.attachments[0]._parts[0][1]._sending.done() is False
        outcomes = 0
        while outcomes < 20 * ROUNDS:
            outcomes += json.loads((await events.next()).data)["event"] == "OutcomeEvent"
