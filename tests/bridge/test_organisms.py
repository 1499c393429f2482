"""Organisms that call each other."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import pytest
from lxml import etree

from tests.bridge.kit import Ask, Told, count, echo
from tests.bridge.pair import bank_of, met, shop_of, wiretapped
from tests.mesh.kit import echo_on, until
from third_party.xmlable import codec_of
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.bridge.extensions import MESH_NAMESPACE
from xml_pipeline.bridge.forms import ENVELOPE_KEY, XSD_KEY, JsonForm, envelope_names
from xml_pipeline.bridge.letters import write_request
from xml_pipeline.envelope import ENVELOPE_NAMESPACE, extract_meta
from xml_pipeline.errors import BudgetExhausted, HandlerError, ValidationError
from xml_pipeline.mesh import AgentContract, MeshError
from xml_pipeline.message_bus.budget_registry import get_budget_registry

ASKED = codec_of(Ask).encode_payload(Ask("x"))
THREAD = "7c0d3d5e-8f6c-4f0e-9a57-0d9f6c1b2a34"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def bank(server):
    pump = bank_of(server.url)
    pump.register("clerk", echo, Ask, output_class=Told)
    return pump


@pytest.fixture
def shop(server):
    return shop_of(server.url)


@contextlib.asynccontextmanager
async def open_for_business(bank, shop, *names):
    async with bank, shop:
        await met(shop, *(names or ("bank.clerk",)))
        yield


async def test_the_contract_says_that_envelopes_are_taken(bank, mesh):
    async with bank:
        await met(bank, "bank.clerk")
        contract = await mesh.contract("bank.clerk")
        assert contract.input_schema[ENVELOPE_KEY] == ENVELOPE_NAMESPACE


async def test_they_speak_xml(server, bank, shop):
    async with open_for_business(bank, shop), wiretapped(server.url) as wire:
        assert await shop.request("bank.clerk", Ask("hi", 2)) == Told("hihi")
        asked = await wire.next()
        assert asked.headers["X-Mesh-Content-Type"] == "application/xml"
        meta = extract_meta(etree.fromstring(asked.data))
        assert meta["from_id"] == "shop.external"
        assert meta["to_id"] == "bank.clerk"
        assert codec_of(Ask).encode_payload(Ask("hi", 2)).encode() in asked.data


async def test_the_answer_is_an_envelope_too(server, bank, shop):
    async with open_for_business(bank, shop), wiretapped(server.url, "_INBOX.>") as wire:
        await shop.request("bank.clerk", Ask("hi"))
        answer = await wire.next()
        while not answer.data.startswith(b"<message"):
            answer = await wire.next()
        meta = extract_meta(etree.fromstring(answer.data))
        assert (meta["from_id"], meta["to_id"]) == ("bank.clerk", "shop.external")


async def test_the_class_of_the_answer_may_have_another_name_here(server, bank):
    @dataclass
    class Said:
        reply: str

    shop = shop_of(server.url, agents=[{"name": "bank.clerk", "payload_class": Ask, "output_class": Said}])
    async with open_for_business(bank, shop):
        assert await shop.request("bank.clerk", Ask("hi")) == Said("hi")


async def test_a_class_that_is_not_theirs_is_sent_as_json(server, bank):
    @dataclass
    class Question:
        message: str
        n: int = 1

    shop = shop_of(server.url, agents=[{"name": "bank.clerk", "payload_class": Question, "output_class": Told}])
    async with open_for_business(bank, shop), wiretapped(server.url) as wire:
        assert await shop.request("bank.clerk", Question("hi")) == Told("hi")
        assert (await wire.next()).data == b'{"message":"hi","n":1}'


async def test_an_agent_that_is_no_organism_gets_json(server, mesh):
    echo_on(mesh)
    shop = shop_of(server.url, agents=[{"name": "demo.echo", "payload_class": Ask, "output_class": Told}])
    async with shop, wiretapped(server.url) as wire:
        await met(shop, "demo.echo")
        assert await shop.request("demo.echo", Ask("hi")) == Told("hi")
        asked = await wire.next()
        assert asked.data == b'{"message":"hi","n":1}'
        assert "X-Mesh-Content-Type" not in asked.headers
        assert asked.headers["X-Mesh-Budget"] == "100000"


async def test_an_agent_that_becomes_one_of_an_organism_gets_envelopes_from_then_on(server, bank, shop, mesh):
    echo_on(mesh, "bank.clerk")
    async with shop, wiretapped(server.url) as wire:
        await met(shop, "bank.clerk")
        assert await shop.request("bank.clerk", Ask("hi")) == Told("hi")
        assert (await wire.next()).data.startswith(b"{")
        await mesh.withdraw("bank.clerk", 5.0)
        await until(shop.attachments[0].mesh, lambda entries: "bank.clerk" not in entries)
        async with bank:
            await met(shop, "bank.clerk")
            assert await shop.request("bank.clerk", Ask("hi")) == Told("hi")
            assert (await wire.next()).data.startswith(b"<message")


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"anyOf": "x"},
        {"anyOf": [None, 1, {ENVELOPE_KEY: ENVELOPE_NAMESPACE}]},
        {ENVELOPE_KEY: "x", XSD_KEY: "<Ask/>"},
        {ENVELOPE_KEY: ENVELOPE_NAMESPACE},
        {ENVELOPE_KEY: ENVELOPE_NAMESPACE, XSD_KEY: 5},
        {ENVELOPE_KEY: ENVELOPE_NAMESPACE, XSD_KEY: "<"},
        {ENVELOPE_KEY: ENVELOPE_NAMESPACE, XSD_KEY: "\ud800"},
        {ENVELOPE_KEY: ENVELOPE_NAMESPACE, XSD_KEY: "<Ask/>"},
    ],
)
def test_a_contract_that_makes_no_sense_takes_no_envelopes(schema):
    assert envelope_names(AgentContract(name="a.b", description="", input_schema=schema)) == frozenset()


def test_a_contract_names_all_classes_that_it_takes():
    contract = AgentContract(
        name="a.b", description="", input_schema=JsonForm([codec_of(Ask), codec_of(Told)]).schema()
    )
    assert envelope_names(contract) == {"Ask", "Told"}


async def test_they_take_json_from_others(bank, shop, mesh):
    async with open_for_business(bank, shop):
        await met(bank, "bank.clerk")
        assert await mesh.call("bank.clerk", {"message": "hi"}) == {"reply": "hi"}


async def test_chunks_come_as_envelopes_in_their_order(server, shop):
    bank = bank_of(server.url)
    bank.register("clerk", count, Ask)
    async with open_for_business(bank, shop), wiretapped(server.url, "mesh.stream.*") as wire:
        answers = [answer async for answer in shop.stream("bank.clerk", Ask("c", 40))]
        assert answers == [Told(f"c{number}") for number in range(40)]
        for number in range(40):
            assert f'<answer xmlns="{MESH_NAMESPACE}">{number}</answer>'.encode() in (await wire.next()).data
        assert f'<end xmlns="{MESH_NAMESPACE}">40</end>'.encode() in (await wire.next()).data


async def test_no_chunks_are_no_answers(server, shop):
    bank = bank_of(server.url)
    bank.register("clerk", count, Ask)
    async with open_for_business(bank, shop):
        assert [answer async for answer in shop.stream("bank.clerk", Ask("c", 0))] == []


async def test_errors_over_there_are_errors_here(server, shop):
    async def fail(ask: Ask, metadata: HandlerMetadata) -> None:
        raise ValueError("secret")

    bank = bank_of(server.url)
    bank.register("clerk", fail, Ask)
    async with open_for_business(bank, shop):
        with pytest.raises(HandlerError) as caught:
            await shop.request("bank.clerk", Ask("hi"))
        assert "secret" not in caught.value.detail


async def test_the_schema_over_there_decides(server):
    @dataclass(kw_only=True)
    class Asked:
        message: str
        n: int = 1
        more: str

    Asked.__name__ = Asked.__qualname__ = "Ask"
    bank = bank_of(server.url)
    bank.register("clerk", echo, Ask)
    shop = shop_of(server.url, agents=[{"name": "bank.clerk", "payload_class": Asked, "output_class": Told}])
    async with open_for_business(bank, shop):
        with pytest.raises(ValidationError):
            await shop.request("bank.clerk", Asked(message="hi", more="x"))


async def test_who_called_is_kept_and_is_nobody_here(server, shop):
    senders, threads = [], []

    async def remember(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        senders.append(metadata.from_id)
        threads.append(metadata.thread_id)
        return HandlerResponse.respond(Told(""))

    bank = bank_of(server.url)
    bank.register("clerk", remember, Ask)
    async with open_for_business(bank, shop), wiretapped(server.url) as wire:
        taken = bank.engine.gateway.begin
        origins = []

        def look(arrival, taker):
            origins.extend(etree.tostring(element).decode() for element in arrival.extensions)
            return taken(arrival, taker)

        bank.engine.gateway.begin = look
        await shop.request("bank.clerk", Ask("hi"))
        thread = extract_meta(etree.fromstring((await wire.next()).data))["thread_id"]
        assert senders == [f"mesh:{shop.attachments[0].mesh.instance_id}"]
        assert threads != [thread]
        assert origins == [
            f'<caller xmlns="{MESH_NAMESPACE}"><from>shop.external</from><thread>{thread}</thread></caller>'
        ]


@pytest.mark.parametrize("claimed", ["clerk", "system", "system.todo", "external", "mesh:abc", "bank.clerk", "bank"])
async def test_nobody_passes_as_somebody_else(server, claimed):
    senders = []

    async def remember(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        senders.append(metadata.from_id)
        return HandlerResponse.respond(Told(""))

    bank = bank_of(server.url)
    bank.register("clerk", remember, Ask)
    async with bank, wiretapped(server.url) as wire:
        await met(bank, "bank.clerk")
        letter = write_request(ASKED, claimed, "bank.clerk", THREAD)
        assert (await wire.send(letter, instance_id=claimed)).headers["X-Mesh-Status"] == "ok"
        assert senders == ["mesh:anonymous"]


async def test_nobody_gets_onto_anybodys_thread(server, bank):
    """The ids of a conversation that is under way, and of its frames, are of no use to anybody outside."""
    begun, go, seen = asyncio.Event(), asyncio.Event(), []

    async def wait(told: Told, metadata: HandlerMetadata) -> HandlerResponse:
        seen.append(metadata)
        begun.set()
        await go.wait()
        return HandlerResponse.respond(told)

    async def remember(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        seen.append(metadata)
        return HandlerResponse.respond(Told(ask.message))

    bank.register("waits", wait, Told)
    bank.register("other", remember, Ask)
    bank.unregister_listener("clerk")
    bank.register("clerk", remember, Ask)
    async with bank, wiretapped(server.url) as wire:
        await met(bank, "bank.clerk")
        asking = asyncio.create_task(bank.request("waits", Told("mine"), from_id="mallory"))
        await begun.wait()
        thread = seen[0].thread_id
        letter = write_request(ASKED, "mallory", "bank.clerk", thread)
        await wire.send(letter, thread=thread)
        await wire.client.request(
            "mesh.agent.bank.clerk", b'{"message": "x"}', timeout=20, headers={"X-Mesh-Thread": thread}
        )
        assert len({each.conversation_id for each in seen}) == len({each.thread_id for each in seen}) == 3
        go.set()
        assert await asking == Told("mine")


async def test_several_payloads_are_handled_side_by_side(server):
    seen = []

    async def remember(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        seen.append(ask.message)
        return HandlerResponse.respond(Told(ask.message))

    bank = bank_of(server.url)
    bank.register("clerk", remember, Ask)
    async with bank, wiretapped(server.url) as wire:
        await met(bank, "bank.clerk")
        payloads = "".join(codec_of(Ask).encode_payload(Ask(letter)) for letter in "abc")
        await wire.send(write_request(payloads, "shop.a", "bank.clerk", THREAD))
        await bank.wait_idle()
        assert sorted(seen) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<",
        b"{}",
        b"<message/>",
        b'<message xmlns="https://xml-pipeline.org/ns/envelope/v1"/>',
        write_request("", "shop.a", "bank.clerk", THREAD),
        write_request(ASKED, "shop.a", "bank.clerk", "thread"),
        write_request(ASKED, "shop.a", "bank.clerk", ""),
        write_request(ASKED, "shop.a", "bank.teller", THREAD),
        write_request('<Ask xmlns=""><N>1</N></Ask>', "shop.a", "bank.clerk", THREAD),
        write_request(codec_of(Told).encode_payload(Told("x")), "shop.a", "bank.clerk", THREAD),
        write_request(ASKED.replace('xmlns=""', 'xmlns="urn:x"'), "shop.a", "bank.clerk", THREAD),
        write_request(ASKED.replace(' xmlns=""', ""), "shop.a", "bank.clerk", THREAD),
        b"<!DOCTYPE a><a/>",
        b"\xff<message/>",
    ],
)
async def test_what_does_not_fit_is_refused_and_never_handled(server, body):
    handled = []

    async def remember(ask: Ask, metadata: HandlerMetadata) -> None:
        handled.append(ask)

    bank = bank_of(server.url)
    bank.register("clerk", remember, Ask)
    async with bank, wiretapped(server.url) as wire:
        await met(bank, "bank.clerk")
        reply = await wire.send(body)
        assert MeshError.from_wire(reply.data).code in ("invalid_input", "handler_error")
        assert handled == []


# -- what crosses


async def test_the_callee_uses_no_more_than_is_left_to_its_caller(server, shop):
    limits = []

    async def spend(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        limits.append(get_budget_registry().get_budget(metadata.thread_id).max_tokens)
        get_budget_registry().reserve(metadata.thread_id, ask.n).settle(ask.n)
        return HandlerResponse.respond(Told("spent"))

    async def agent(told: Told, metadata: HandlerMetadata) -> HandlerResponse:
        if told.reply == "spent":
            return HandlerResponse.respond(told)
        get_budget_registry().consume(metadata.thread_id, 99_000)
        return HandlerResponse.call(Ask("x", int(told.reply)), "bank.clerk")

    bank = bank_of(server.url)
    bank.register("clerk", spend, Ask)
    shop.register("agent", agent, Told)
    async with open_for_business(bank, shop):
        assert await shop.request("agent", Told("1000")) == Told("spent")
        with pytest.raises(BudgetExhausted):
            await shop.request("agent", Told("1001"))
        assert limits == [1000, 1000]
        await bank.wait_idle()
        assert bank.engine.budgets.get_all_usage() == {}


async def test_a_caller_cannot_raise_a_budget(server):
    limits = []

    async def look(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        limits.append(get_budget_registry().get_budget(metadata.thread_id).max_tokens)
        return HandlerResponse.respond(Told(""))

    bank = bank_of(server.url)
    bank.register("clerk", look, Ask)
    async with bank, wiretapped(server.url) as wire:
        await met(bank, "bank.clerk")
        letter = write_request(ASKED, "shop.a", "bank.clerk", THREAD)
        for said in ("999999999", "0", "-1", "x", "1e3", "9" * 400):
            await wire.send(letter, budget=said)
        assert limits == [100_000, 0, 100_000, 100_000, 100_000, 100_000]


async def test_the_trace_goes_on_with_every_call_of_the_conversation(server, bank):
    async def pass_on(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.delegate(ask, "bank.clerk")

    shop = shop_of(server.url, expose=[{"listener": "desk"}])
    shop.register("desk", pass_on, Ask)
    async with open_for_business(bank, shop, "bank.clerk", "shop.desk"):
        async with wiretapped(server.url, "mesh.agent.bank.clerk") as wire:
            for trace in (TRACE, "", TRACE.replace("00-", "ff-"), "x", TRACE + "-\u00e9"):
                headers = {"traceparent": trace} if trace else None
                await wire.client.request("mesh.agent.shop.desk", b'{"message": "x"}', timeout=20, headers=headers)
            assert [(await wire.next()).headers.get("traceparent", "") for _ in range(5)] == [TRACE, "", "", "", ""]
        await shop.wait_idle()
        assert len(shop.attachments[0]._baggage) == 0


async def test_the_deadline_ends_the_work_over_there(server):
    cancelled = asyncio.Event()

    async def hang(ask: Ask, metadata: HandlerMetadata) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    bank = bank_of(server.url)
    bank.register("clerk", hang, Ask)
    agents = [{"name": "bank.clerk", "payload_class": Ask, "output_class": Told, "timeout": 0.3}]
    shop = shop_of(server.url, agents=agents)
    async with open_for_business(bank, shop):
        with pytest.raises(Exception, match="time"):
            await shop.request("bank.clerk", Ask("x"))
        await cancelled.wait()


async def test_cancelling_here_cancels_there(server, shop):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(ask: Ask, metadata: HandlerMetadata) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    bank = bank_of(server.url)
    bank.register("clerk", hang, Ask)
    async with open_for_business(bank, shop):
        thread = await shop.inject("bank.clerk", Ask("x"))
        await begun.wait()
        assert shop.cancel(thread)
        await cancelled.wait()
