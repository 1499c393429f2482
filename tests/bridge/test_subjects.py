"""Plain subjects, and publishers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.bridge.kit import organism
from tests.mesh.kit import Tap, spin, until_names
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.errors import ValidationError
from xml_pipeline.mesh import AgentSpec


@dataclass
class Price:
    value: float
    symbol: str = ""


class Ticker:
    def __init__(self) -> None:
        self.taken = asyncio.Queue[tuple[Price, str]]()
        self.go = asyncio.Event()
        self.go.set()

    async def take(self, price: Price, metadata: HandlerMetadata) -> None:
        self.taken.put_nowait((price, metadata.from_id))
        await self.go.wait()


@pytest.fixture
def ticker():
    return Ticker()


def following(url, ticker, name="org", **entry):
    said = {"subscribe": "prices.{symbol}", "to": "ticker", "payload_class": Price, **entry}
    pump = organism(url, name, subjects=[said])
    pump.register("ticker", ticker.take, Price)
    return pump


async def test_what_is_published_becomes_messages(server, mesh, peer, ticker):
    async with following(server.url, ticker) as pump:
        await pump.attachments[0].mesh.parts.link.flush(5.0)
        await peer.publish("prices.abc", b'{"value": 1.5}')
        assert await ticker.taken.get() == (Price(1.5, "abc"), "mesh:anonymous")
        await mesh.publish("prices.xyz", b'{"value": 2}')
        assert await ticker.taken.get() == (Price(2, "xyz"), f"mesh:{mesh.instance_id}")


async def test_of_a_queue_one_node_gets_each_message(server, peer, ticker):
    async with following(server.url, ticker, queue="q") as one, following(server.url, ticker, queue="q") as two:
        for pump in (one, two):
            await pump.attachments[0].mesh.parts.link.flush(5.0)
        for number in range(20):
            await peer.publish(f"prices.s{number}", b'{"value": 1}')
        assert {(await ticker.taken.get())[0].symbol for _ in range(20)} == {f"s{number}" for number in range(20)}
        assert ticker.taken.empty()


async def test_what_is_no_payload_is_a_dead_letter(server, peer, ticker):
    async with following(server.url, ticker) as pump:
        await pump.attachments[0].mesh.parts.link.flush(5.0)
        await peer.publish("prices.abc", b"{")
        await spin(pump.dead_letters.list)
        (letter,) = pump.dead_letters.list()
        assert (letter.wire, letter.target, letter.from_id) == (b"{", "ticker", "mesh:anonymous")


async def test_what_the_pump_does_not_admit_is_a_dead_letter(server, peer, ticker):
    said = {"subscribe": "prices.{symbol}", "to": "ticker", "payload_class": Price}
    pump = organism(server.url, limits={"max_message_bytes": 2_000}, subjects=[said])
    pump.register("ticker", ticker.take, Price)
    async with pump:
        await peer.publish("prices." + "x" * 3_000, b'{"value": 1.5}')
        await spin(pump.dead_letters.list)
        (kept,) = pump.dead_letters.list()
        assert kept.code == "validation"
        assert kept.target == "ticker"


async def test_what_comes_too_fast_is_bounded_and_counted(server, peer, ticker, caplog):
    ticker.go.clear()
    async with following(server.url, ticker, max_in_flight=1) as pump:
        await pump.attachments[0].mesh.parts.link.flush(5.0)
        for number in range(1_101):
            await peer.publish(f"prices.s{number}", b'{"value": 1}')
        part = pump.attachments[0]._parts[0][1]
        await spin(lambda: part.dropped == 100)
        ticker.go.set()
        await spin(lambda: ticker.taken.qsize() == 1_001)
    assert "comes too fast" in caplog.text


async def test_what_came_is_finished_at_the_end(server, peer, ticker):
    ticker.go.clear()
    pump = following(server.url, ticker)
    async with pump:
        await pump.attachments[0].mesh.parts.link.flush(5.0)
        await peer.publish("prices.a", b'{"value": 1}')
        await ticker.taken.get()
        stopping = asyncio.create_task(pump.shutdown())
        await asyncio.sleep(0)
        ticker.go.set()
        assert (await stopping).drained


async def test_messages_are_published(server, peer):
    pump = organism(server.url, subjects=[{"publish": "alerts.{symbol}", "listener": "out", "payload_class": Price}])
    async with pump:
        tap = await Tap.on(peer, "alerts.>")
        await pump.inject("out", Price(2.5, "abc"))
        message = await tap.next()
        assert (message.subject, message.data) == ("alerts.abc", b'{"value":2.5,"symbol":"abc"}')
        assert message.headers["X-Mesh-Content-Type"] == "application/json"
        assert message.headers["X-Mesh-Instance-Id"] == pump.attachments[0].mesh.instance_id
        with pytest.raises(ValidationError):
            await pump.request("out", Price(2.5, "a.>"))


@pytest.mark.parametrize("symbol", ["a=b", "x" * 3_000])
async def test_what_only_a_key_may_have_in_it_is_no_subject(server, symbol):
    out = {"publish": "alerts.{symbol}", "listener": "out", "payload_class": Price}
    async with organism(server.url, subjects=[out]) as pump:
        with pytest.raises(ValidationError):
            await pump.request("out", Price(1.0, symbol))


async def test_what_is_published_here_does_not_come_back(server, peer, ticker):
    pump = organism(
        server.url,
        subjects=[
            {"subscribe": "prices.{symbol}", "to": "ticker", "payload_class": Price},
            {"publish": "prices.{symbol}", "listener": "out", "payload_class": Price},
        ],
    )
    pump.register("ticker", ticker.take, Price)
    async with pump:
        await pump.inject("out", Price(1.0, "own"))
        await pump.wait_idle()
        await pump.attachments[0].mesh.parts.link.flush(5.0)
        await peer.publish("prices.foreign", b'{"value": 1}')
        assert (await ticker.taken.get())[0].symbol == "foreign"


def both_ways(url, ticker, name="org", **more):
    entry = {"subscribe": "prices.{symbol}", "to": "ticker", "payload_class": Price, **more}
    pump = organism(
        url, name, subjects=[entry, {"publish": "prices.{symbol}", "listener": "out", "payload_class": Price}]
    )
    pump.register("ticker", ticker.take, Price)
    return pump


async def test_nor_to_another_node_of_the_organism(server, peer, ticker):
    other = Ticker()
    async with (
        both_ways(server.url, ticker) as pump,
        both_ways(server.url, ticker),
        both_ways(server.url, other, "other organism"),
    ):
        await pump.inject("out", Price(1.0, "own"))
        assert (await other.taken.get())[0].symbol == "own"
        await pump.attachments[0].mesh.parts.link.flush(5.0)
        await peer.publish("prices.foreign", b'{"value": 1}')
        assert [(await ticker.taken.get())[0].symbol for _ in range(2)] == ["foreign", "foreign"]
        assert (await other.taken.get())[0].symbol == "foreign"


async def test_it_does_where_that_is_wanted(server, ticker):
    other = Ticker()
    async with both_ways(server.url, ticker, echo=True) as pump, both_ways(server.url, other, echo=True):
        await pump.inject("out", Price(1.0, "own"))
        assert (await ticker.taken.get())[0].symbol == "own"
        assert (await other.taken.get())[0].symbol == "own"


ROUNDS = 5


@pytest.mark.parametrize("queue", ["", "q"])
@pytest.mark.parametrize(("is_wanted", "rounds"), [(True, ROUNDS), (False, 1)])
async def test_what_is_published_in_answer_goes_round_only_where_that_is_wanted(server, peer, queue, is_wanted, rounds):
    seen = []

    async def raise_it(price: Price, metadata: HandlerMetadata) -> HandlerResponse | None:
        seen.append(price.value)
        return HandlerResponse(Price(price.value + 1, price.symbol), "out") if price.value < ROUNDS else None

    entry = {"subscribe": "prices.{symbol}", "to": "raise", "payload_class": Price, "queue": queue, "echo": is_wanted}
    out = {"publish": "prices.{symbol}", "listener": "out", "payload_class": Price}
    pump = organism(server.url, subjects=[entry, out])
    pump.register("raise", raise_it, Price)
    async with pump:
        tap = await Tap.on(peer, "prices.>")
        await peer.publish("prices.abc", b'{"value": 1}')
        last = ROUNDS if is_wanted else 2
        assert [json.loads((await tap.next()).data)["value"] for _ in range(last)] == list(range(1, last + 1))
        await peer.publish("prices.last", b'{"value": 9}')
        await spin(lambda: 9 in seen)
        assert seen == [*range(1, rounds + 1), 9]


async def test_a_publisher_is_a_source(server, mesh, ticker):
    pump = organism(server.url, agents=[{"subscribe": "feed.prices", "to": "ticker", "payload_class": Price}])
    pump.register("ticker", ticker.take, Price)
    async with pump:
        await pump.attachments[0].mesh.parts.link.flush(5.0)

        @mesh.agent(AgentSpec(name="feed.prices"))
        async def prices() -> AsyncIterator[dict]:
            yield {"value": 1, "symbol": "a"}
            yield {"value": 2, "symbol": "b"}

        await until_names(mesh, "feed.prices")
        assert [(await ticker.taken.get())[0].symbol for _ in range(2)] == ["a", "b"]
        assert pump.dead_letters.list() == []


async def test_a_listener_without_input_that_streams_is_a_publisher(server, mesh):
    @dataclass
    class Go:
        pass

    async def tick(go: Go, metadata: HandlerMetadata):
        for number in range(3):
            yield HandlerResponse.respond(Price(number))

    pump = organism(server.url, expose=[{"listener": "tick", "as": "feed.tick"}])
    pump.register("tick", tick, Go)
    tapped = asyncio.Event()

    async def first_three():
        subscription = mesh.subscribe(subject="mesh.agent.feed.tick.events")
        task = asyncio.ensure_future(anext(subscription))
        await mesh.parts.link.flush(5.0)
        tapped.set()
        return [await task, await anext(subscription), await anext(subscription)]

    events = asyncio.create_task(first_three())
    await tapped.wait()
    async with pump:
        await until_names(mesh, "feed.tick")
        assert [event["value"] for event in await events] == [0, 1, 2]
        entry = mesh.parts.catalog.entry("feed.tick")
        assert (entry.invocable, entry.streaming) == (False, True)
