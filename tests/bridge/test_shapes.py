"""Every shape of agent, in both directions, with every kind of payload, for agents of ours and of `openagentmesh`.

=========== ==================================================== ====================================================
            used: the agent is theirs                            offered: the listener is the organism's
=========== ==================================================== ====================================================
responder   a listener calls it and gets its answer              it is called
streamer    a listener calls it and gets its chunks              its stream is read
trigger     a listener calls it without anything                 it is called without anything
publisher   its events are messages of a listener                its answers are events
watcher     a key that the organism puts is what it works on,    a key that somebody puts is what it works on, and what
            and what it puts is a message of a listener          it puts can be read; it can be in the catalog
=========== ==================================================== ====================================================
"""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import pytest

from tests.bridge.kit import organism
from tests.mesh.kit import spin, until
from third_party.xmlable import codec_of
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.bridge.forms import JsonForm, json_of
from xml_pipeline.errors import RoutingError
from xml_pipeline.mesh import AgentMesh, AgentSpec

oam = pytest.importorskip("openagentmesh")


@dataclass
class Point:
    x: int
    y: float = 0.5


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Line:
    name: str
    start: Point
    others: list[Point] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    colour: Colour = Colour.RED
    end: Point | None = None


@dataclass
class Go:
    pass


KINDS: dict[str, tuple[Any, list[Any]]] = {
    "object": (Point, [{"x": 1, "y": 2.5}]),
    "int": (int, [0, -7, 10**20]),
    "str": (str, ["", "a & b\n<ä☃>", " x "]),
    "bool": (bool, [True, False]),
    "float": (float, [0.0, 2.5, 1e300]),
    "list of int": (list[int], [[], [1, 2, 3]]),
    "list of objects": (list[Point], [[], [{"x": 1, "y": 1.5}, {"x": 2, "y": 2.5}]]),
    "dict": (dict[str, float], [{"a": 1.5, "": 2.5}]),
    "optional": (int | None, [5, None]),
    "enum": (Colour, ["red", "blue"]),
    "nested": (
        Line,
        [
            {
                "name": "l",
                "start": {"x": 1, "y": 1.5},
                "others": [{"x": 2, "y": 2.5}],
                "weights": {"a": 0.5},
                "colour": "blue",
                "end": {"x": 3, "y": 3.5},
            },
            {"name": "", "start": {"x": 0, "y": 0.5}, "others": [], "weights": {}, "colour": "red", "end": None},
        ],
    ),
}
"""What is carried: a type, and values of it as JSON."""


def class_for(annotation: Any) -> type:
    """The payload class: of what is no object, the bare value of one."""
    return annotation if annotation in (Point, Line) else make_dataclass("Value", [("value", annotation)])


def made(cls: type, data: Any) -> Any:
    return JsonForm([codec_of(cls)]).of(data)


def plain(payload: Any) -> Any:
    return json.loads(json_of(payload))


def name_of(kind: str) -> str:
    return kind.replace(" ", "-")


# -- agents of others


def responder(annotation: Any, values: list[Any]) -> Any:
    async def agent(value):
        return value

    if annotation == (int | None):

        async def agent(value=None):  # nothing at all is sent for None
            return value

    agent.__annotations__ = {"value": annotation, "return": annotation}
    return agent


def streamer(annotation: Any, values: list[Any]) -> Any:
    async def agent(value):
        yield value
        yield value

    if annotation == (int | None):

        async def agent(value=None):
            yield value
            yield value

    agent.__annotations__ = {"value": annotation, "return": annotation}
    return agent


def read(annotation: Any, data: Any) -> Any:
    """The value as an agent has it."""
    payload = made(class_for(annotation), data)
    return payload if annotation in (Point, Line) else payload.value


def trigger(annotation: Any, values: list[Any]) -> Any:
    async def agent():
        return read(annotation, values[0])

    agent.__annotations__ = {"return": annotation}
    return agent


def publisher(annotation: Any, values: list[Any], go: asyncio.Event) -> Any:
    async def agent():
        await go.wait()
        for value in values:
            yield read(annotation, value)

    agent.__annotations__ = {"return": annotation}
    return agent


class Host:
    """A mesh object of ours or of theirs, that serves agents.

    Args:
        whose: ``ours`` or ``theirs``.
        url: of the server.
    """

    def __init__(self, whose: str, url: str) -> None:
        self.is_ours = whose == "ours"
        self.mesh: Any = AgentMesh(url) if self.is_ours else oam.AgentMesh(url)
        self._spec = AgentSpec if self.is_ours else oam.AgentSpec

    def serve(self, kind: str, function: Any) -> None:
        self.mesh.agent(self._spec(name=f"tools.{name_of(kind)}", description=kind))(function)

    async def watch(self, key: str) -> AsyncIterator[str]:
        async for value in self.mesh.kv.watch(key):
            yield value


WHOSE = pytest.mark.parametrize("whose", ["ours", "theirs"])
TYPED = pytest.mark.parametrize("typed", ["found", "named"])
"""Whether the classes are made from the contracts, or written by hand."""


async def there(pump: Any, names: list[str]) -> None:
    """The organism knows these agents, and has listeners for them."""
    await until(pump.attachments[0].mesh, lambda entries: {*names} <= {*entries})
    await spin(lambda: {*names} <= {*pump.listeners})


def entries(typed: str) -> list[dict[str, Any]]:
    if typed == "found":
        return [{"pattern": "tools.*"}]
    return [
        {"name": f"tools.{name_of(kind)}", "payload_class": class_for(cls), "output_class": class_for(cls)}
        for kind, (cls, _) in KINDS.items()
    ]


# -- used


@WHOSE
@TYPED
async def test_a_responder_is_used(server, whose, typed):
    host, pump = Host(whose, server.url), organism(server.url, agents=entries(typed))
    for kind, (cls, values) in KINDS.items():
        host.serve(kind, responder(cls, values))
    said, wanted = {}, {kind: values for kind, (_, values) in KINDS.items()}
    async with host.mesh, pump:
        await there(pump, [f"tools.{name_of(kind)}" for kind in KINDS])
        for kind, (_, values) in KINDS.items():
            name = f"tools.{name_of(kind)}"
            payload_class = pump.listeners[name].payload_class
            said[kind] = [plain(await pump.request(name, made(payload_class, value))) for value in values]
    assert said == wanted


@WHOSE
@TYPED
async def test_a_streamer_is_used(server, whose, typed):
    host, pump = Host(whose, server.url), organism(server.url, agents=entries(typed))
    for kind, (cls, values) in KINDS.items():
        host.serve(kind, streamer(cls, values))
    said, wanted = {}, {kind: [[value, value] for value in values] for kind, (_, values) in KINDS.items()}
    async with host.mesh, pump:
        await there(pump, [f"tools.{name_of(kind)}" for kind in KINDS])
        for kind, (_, values) in KINDS.items():
            name = f"tools.{name_of(kind)}"
            payload_class = pump.listeners[name].payload_class
            said[kind] = [
                [plain(answer) async for answer in pump.stream(name, made(payload_class, value))] for value in values
            ]
    assert said == wanted


@WHOSE
@TYPED
async def test_a_trigger_is_used(server, whose, typed):
    agents = [{**entry, "payload_class": Go} if typed == "named" else entry for entry in entries(typed)]
    host, pump = Host(whose, server.url), organism(server.url, agents=agents)
    for kind, (cls, values) in KINDS.items():
        host.serve(kind, trigger(cls, values))
    said, wanted = {}, {kind: values[0] for kind, (_, values) in KINDS.items()}
    async with host.mesh, pump:
        await there(pump, [f"tools.{name_of(kind)}" for kind in KINDS])
        for kind in KINDS:
            name = f"tools.{name_of(kind)}"
            said[kind] = plain(await pump.request(name, pump.listeners[name].payload_class()))
    assert said == wanted


class Taking:
    """A listener that keeps what it gets."""

    def __init__(self) -> None:
        self.taken: dict[str, list[Any]] = {kind: [] for kind in KINDS}

    def of(self, kind: str) -> Any:
        async def take(payload: Any, metadata: HandlerMetadata) -> None:
            self.taken[kind].append(plain(payload))

        return take

    async def have(self, wanted: dict[str, list[Any]]) -> None:
        await spin(lambda: all(len(self.taken[kind]) >= len(values) for kind, values in wanted.items()))


@WHOSE
async def test_a_publisher_is_used(server, whose):
    sources = [
        {"subscribe": f"tools.{name_of(kind)}", "to": name_of(kind), "payload_class": class_for(cls)}
        for kind, (cls, _) in KINDS.items()
    ]
    host, pump, taking, go = Host(whose, server.url), organism(server.url, agents=sources), Taking(), asyncio.Event()
    # Nothing is sent for None by an agent, so that it is no event.
    wanted = {kind: [value for value in values if value is not None] for kind, (_, values) in KINDS.items()}
    for kind, (cls, _) in KINDS.items():
        host.serve(kind, publisher(cls, wanted[kind], go))
        pump.register(name_of(kind), taking.of(kind), class_for(cls))
    async with pump, host.mesh:
        await pump.attachments[0].mesh.parts.link.flush(5.0)
        go.set()
        await taking.have(wanted)
        assert pump.dead_letters.list() == []
    assert {kind: sorted(map(repr, values)) for kind, values in taking.taken.items()} == {
        kind: sorted(map(repr, values)) for kind, values in wanted.items()
    }


@WHOSE
async def test_a_watcher_is_used(server, whose):
    """It cannot be called. What drives it is what the organism puts, and its results are messages."""
    kv = []
    for kind, (cls, _) in KINDS.items():
        name = name_of(kind)
        kv += [
            {"put": f"in.{name}", "listener": f"put.{name}", "payload_class": class_for(cls)},
            {"watch": f"out.{name}", "to": name, "payload_class": class_for(cls)},
        ]
    agents = [{"pattern": "tools.*"}, {"name": "tools.watcher", "as": "watcher", "payload_class": Go}]
    host, pump, taking = Host(whose, server.url), organism(server.url, agents=agents, kv=kv), Taking()

    async def copy(name: str) -> None:
        async for value in host.mesh.kv.watch(f"in.{name}"):
            await host.mesh.kv.put(f"out.{name}", value)

    async def watcher() -> None:
        await asyncio.gather(*(copy(name_of(kind)) for kind in KINDS))

    host.serve("watcher", watcher)
    for kind, (cls, _) in KINDS.items():
        pump.register(name_of(kind), taking.of(kind), class_for(cls))
    async with host.mesh, pump:
        await until(pump.attachments[0].mesh, lambda entries: "tools.watcher" in entries)
        assert "tools.watcher" not in pump.listeners
        with pytest.raises(RoutingError):
            await pump.request("watcher", Go())
        for kind, (cls, values) in KINDS.items():
            for count, value in enumerate(values):  # a key has one value: one after the other
                await pump.inject(f"put.{name_of(kind)}", made(class_for(cls), value))
                await spin(lambda kind=kind, count=count: len(taking.taken[kind]) > count)
    assert taking.taken == {kind: values for kind, (_, values) in KINDS.items()}


# -- offered


async def answer(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
    return HandlerResponse.respond(payload)


async def answers(payload: Any, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
    yield HandlerResponse.respond(payload)
    yield HandlerResponse.respond(payload)


def says(cls: type, values: list[Any]) -> Any:
    async def say(payload: Go, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(made(cls, values[0]))

    return say


def publishes(cls: type, values: list[Any], go: asyncio.Event) -> Any:
    async def publish(payload: Go, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        await go.wait()
        for value in values:
            yield HandlerResponse.respond(made(cls, value))

    return publish


def offering(server: Any, handler: Any, takes: type | None = None) -> Any:
    """An organism that offers a listener for each kind."""
    pump = organism(server.url, expose=[{"listener": name_of(kind), "as": f"our.{name_of(kind)}"} for kind in KINDS])
    for kind, (annotation, values) in KINDS.items():
        cls = class_for(annotation)
        pump.register(name_of(kind), handler(cls, values), takes or cls, output_class=cls)
    return pump


async def offered(host: Host, flags: tuple[bool, bool]) -> None:
    """The agents are in the catalog of a client, as what they are."""
    names = {f"our.{name_of(kind)}" for kind in KINDS}
    found: dict[str, tuple[bool, bool]] = {}
    while {*found} != names:
        found = {entry.name: (entry.invocable, entry.streaming) for entry in await host.mesh.catalog(channel="our")}
        await asyncio.sleep(0)
    assert set(found.values()) == {flags}


@WHOSE
async def test_a_responder_is_offered(server, whose):
    host, pump = Host(whose, server.url), offering(server, lambda cls, values: answer)
    said = {}
    async with pump, host.mesh:
        await offered(host, (True, False))
        for kind, (_, values) in KINDS.items():
            said[kind] = [await host.mesh.call(f"our.{name_of(kind)}", value) for value in values]
    assert said == {kind: values for kind, (_, values) in KINDS.items()}


@WHOSE
async def test_a_streamer_is_offered(server, whose):
    host, pump = Host(whose, server.url), offering(server, lambda cls, values: answers)
    said = {}
    async with pump, host.mesh:
        await offered(host, (True, True))
        for kind, (_, values) in KINDS.items():
            name = f"our.{name_of(kind)}"
            said[kind] = [[chunk async for chunk in host.mesh.stream(name, value)] for value in values]
    assert said == {kind: [[chunk_of(value)] * 2 for value in values] for kind, (_, values) in KINDS.items()}


@WHOSE
async def test_a_trigger_is_offered(server, whose):
    host, pump = Host(whose, server.url), offering(server, says, Go)
    said = {}
    async with pump, host.mesh:
        await offered(host, (True, False))
        for kind in KINDS:
            said[kind] = await host.mesh.call(f"our.{name_of(kind)}")
    assert said == {kind: values[0] for kind, (_, values) in KINDS.items()}


@WHOSE
async def test_a_publisher_is_offered(server, peer, whose):
    go = asyncio.Event()
    host = Host(whose, server.url)
    pump = offering(server, lambda cls, values: publishes(cls, values, go), Go)
    said: dict[str, list[Any]] = {kind: [] for kind in KINDS}

    async def follow(kind: str) -> None:
        async for event in host.mesh.subscribe(agent=f"our.{name_of(kind)}"):
            said[kind].append(event)

    async with pump, host.mesh, AsyncExitStack() as stack:
        await offered(host, (False, True))
        following = [asyncio.create_task(follow(kind)) for kind in KINDS]
        stack.push_async_callback(asyncio.gather, *following, return_exceptions=True)
        await subscribed(host, len(KINDS))
        go.set()
        await asyncio.gather(*following)  # each ends with the publisher
    assert said == {kind: list(map(chunk_of, values)) for kind, (_, values) in KINDS.items()}


def chunk_of(value: Any) -> Any:
    """A chunk or event as a client gets it: ``null`` would end the stream for some."""
    return {} if value is None else value


async def subscribed(host: Host, count: int) -> None:
    """The server knows of so many followers of events."""
    if host.is_ours:
        link = host.mesh.parts.link
        await spin(lambda: sum(one.subject.endswith(".events") for one in link._subscriptions) == count)
        await link.flush(5.0)
        return
    client = host.mesh._nc
    await spin(lambda: sum(one.subject.endswith(".events") for one in client._subs.values()) == count)
    await client.flush()
    await client.flush()  # the first overtakes what still waits to be written


@WHOSE
async def test_a_watcher_is_offered(server, whose):
    """A key that anybody puts is its message, and what it sends on is a key that anybody reads."""
    kv = []
    for kind, (cls, _) in KINDS.items():
        name = name_of(kind)
        kv += [
            {"watch": f"in.{name}", "to": name, "payload_class": class_for(cls), "resume": name},
            {"put": f"out.{name}", "listener": f"put.{name}", "payload_class": class_for(cls)},
        ]
    host, pump = Host(whose, server.url), organism(server.url, kv=kv)

    def pass_on(name: str) -> Any:
        async def handler(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
            return HandlerResponse(payload, to=f"put.{name}")

        return handler

    for kind, (cls, _) in KINDS.items():
        pump.register(name_of(kind), pass_on(name_of(kind)), class_for(cls))
    said: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    async with pump, host.mesh:
        for kind, (_, values) in KINDS.items():
            for value in values:
                watching = host.mesh.kv.watch(f"out.{name_of(kind)}")
                await host.mesh.kv.put(f"in.{name_of(kind)}", json.dumps(value))
                async for text in watching:
                    if json.loads(text) == value:
                        said[kind].append(value)
                        break
                await watching.aclose()
        assert pump.dead_letters.list() == []
    assert said == {kind: values for kind, (_, values) in KINDS.items()}


@WHOSE
async def test_a_watcher_can_be_shown(server, whose):
    """Others see that it is there, and that they cannot call it."""
    kv = [
        {"watch": "in.x", "to": "extractor", "payload_class": Point},
        {"put": "out.x", "listener": "store", "payload_class": Point},
    ]
    expose = [{"listener": "extractor", "as": "our.extractor", "invocable": False, "tags": ["t"]}]
    host, pump = Host(whose, server.url), organism(server.url, expose=expose, kv=kv)

    async def extract(point: Point, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse(point, to="store")

    pump.register("extractor", extract, Point, description="Extracts.")
    async with pump, host.mesh, AgentMesh(server.url) as observer:
        await until(observer, lambda entries: "our.extractor" in entries)
        entry = observer.parts.catalog.entries["our.extractor"]
        assert (entry.invocable, entry.streaming, entry.description, entry.tags) == (False, False, "Extracts.", ["t"])
        assert (await observer.contract("our.extractor")).input_schema is None
        while "our.extractor" not in [each.name for each in await host.mesh.catalog()]:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for use in (host.mesh.call("our.extractor", {"x": 1}), anext(host.mesh.stream("our.extractor", {"x": 1}))):
            with pytest.raises(Exception, match="background"):
                await use
        await host.mesh.kv.put("in.x", '{"x": 1}')
        async for text in host.mesh.kv.watch("out.x"):
            assert json.loads(text) == {"x": 1, "y": 0.5}
            break
    assert pump.dead_letters.list() == []
