"""Agent cards, as the SDK of A2A takes them, in its present version and in the form of version 0.3."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.mesh.kit import Ask, Chunk, Told
from xml_pipeline.mesh import AgentContract, AgentSpec
from xml_pipeline.mesh.agent import Agent

pytest.importorskip("a2a")

from a2a.client.card_resolver import A2ACardResolver, parse_agent_card
from a2a.client.client_factory import ClientFactory
from a2a.compat.v0_3.types import AgentCard as OldAgentCard
from a2a.utils.errors import InvalidParamsError
from a2a.utils.proto_utils import validate_proto_required_fields

URL = "https://gateway.example/agents/shop"


async def responder(ask: Ask) -> Told:
    """Answers."""
    return Told(reply=ask.message)


async def streamer(ask: Ask) -> AsyncIterator[Chunk]:
    yield Chunk(delta=ask.message)


async def trigger() -> int:
    return 1


async def publisher() -> AsyncIterator[int]:
    yield 1


async def background() -> None:
    return None


SHAPES = [responder, streamer, trigger, publisher, background]


def contract_of(function, **spec) -> AgentContract:
    return Agent.of(AgentSpec(name="shop.agent", **spec), function).contract


def read_again(contract: AgentContract) -> AgentContract:
    """As others have it."""
    return AgentContract.from_registry_json(contract.name, contract.to_registry_json())


@pytest.mark.parametrize("function", SHAPES)
@pytest.mark.parametrize("form", [lambda contract: contract, read_again], ids=["own", "read"])
def test_every_card_has_what_the_sdk_requires(function, form):
    card = form(contract_of(function)).to_agent_card(URL)
    parsed = parse_agent_card(copy.deepcopy(card))
    validate_proto_required_fields(parsed)
    assert (parsed.name, parsed.version) == ("shop.agent", "0.1.0")
    assert parsed.capabilities.streaming is (function in (streamer, publisher))
    interface = parsed.supported_interfaces[0]
    assert (interface.url, interface.protocol_binding, interface.protocol_version) == (URL, "JSONRPC", "1.0")
    assert [skill.id for skill in parsed.skills] == ["shop.agent"]
    assert json.loads(json.dumps(card)) == card


@pytest.mark.parametrize("function", SHAPES)
def test_every_card_is_one_of_version_0_3_too(function):
    card = OldAgentCard.model_validate(contract_of(function, tags=["x"]).to_agent_card(URL, protocol_version="0.3.0"))
    assert (card.url, card.preferred_transport, card.protocol_version) == (URL, "JSONRPC", "0.3.0")
    assert card.skills[0].tags == ["x"]


async def test_it_is_found_where_clients_look_and_a_client_is_made_from_it():
    card = contract_of(responder).to_agent_card(URL)

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith("/.well-known/agent-card.json")
        return httpx.Response(200, json=card)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        found = await A2ACardResolver(http, URL).get_agent_card()
    client = ClientFactory().create(found)
    await client.close()


def test_without_an_address_it_is_a_card_to_show():
    parsed = parse_agent_card(contract_of(responder).to_agent_card())
    assert parsed.description == "Answers."
    with pytest.raises(InvalidParamsError) as caught:
        validate_proto_required_fields(parsed)
    assert [error["field"] for error in caught.value.data["errors"]] == ["supported_interfaces"]
    with pytest.raises(ValueError, match="transports"):
        ClientFactory().create(parsed)


def test_it_has_what_the_document_has():
    contract = contract_of(responder, tags=["a", "b"])
    document = json.loads(contract.to_registry_json())
    del document["x-agentmesh"]
    card = contract.to_agent_card(URL)
    assert {name: card[name] for name in document} == document
    assert card["url"] == URL
    assert set(card) - set(document) == {
        "url",
        "preferredTransport",
        "protocolVersion",
        "supportedInterfaces",
        "defaultInputModes",
        "defaultOutputModes",
    }


def test_what_must_be_said_and_was_not():
    card = AgentContract(name="shop.agent", description="", version="").to_agent_card(URL)
    validate_proto_required_fields(parse_agent_card(copy.deepcopy(card)))
    assert (card["description"], card["version"]) == ("shop.agent", "0.0.0")
    assert (card["skills"][0]["description"], card["skills"][0]["tags"]) == ("shop.agent", ["shop"])


def test_a_gateway_may_speak_otherwise():
    card = contract_of(responder).to_agent_card(URL, binding="HTTP+JSON", protocol_version="1.1")
    assert card["supportedInterfaces"] == [{"url": URL, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.1"}]


def test_the_card_is_no_part_of_the_contract():
    contract = contract_of(responder, tags=["a"])
    before = contract.model_copy(deep=True)
    card = contract.to_agent_card(URL)
    card["skills"][0]["tags"].append("b")
    card["skills"][0]["inputSchema"].clear()
    assert contract == before
