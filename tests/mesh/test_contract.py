from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tests.mesh.kit import Ask, Chunk, Told
from xml_pipeline.mesh import AgentContract, AgentSpec, CatalogEntry, InvalidReply
from xml_pipeline.mesh.agent import Agent


async def echo(ask: Ask) -> Told:
    """Says it again."""
    return Told(reply=ask.message)


async def chunks(ask: Ask) -> AsyncIterator[Chunk]:
    yield Chunk(delta=ask.message)


async def ticks() -> AsyncIterator[int]:
    yield 1


def contract_of(function, name="demo.echo", **spec) -> AgentContract:
    return Agent.of(AgentSpec(name=name, **spec), function).contract


def test_the_document_of_a_responder():
    contract = contract_of(echo, tags=["a", "b"], version="1.2.3")
    document = json.loads(contract.to_registry_json())
    assert document.pop("x-agentmesh") == {
        "subject": "mesh.agent.demo.echo",
        "tags": ["a", "b"],
        "registered_at": contract.registered_at.isoformat(),
    }
    assert document == {
        "name": "demo.echo",
        "description": "Says it again.",
        "version": "1.2.3",
        "capabilities": {"streaming": False, "invocable": True},
        "skills": [
            {
                "id": "demo.echo",
                "name": "demo.echo",
                "description": "Says it again.",
                "tags": ["a", "b"],
                "inputSchema": Ask.model_json_schema(),
                "outputSchema": Told.model_json_schema(),
            }
        ],
    }


def test_the_document_of_a_streamer_has_the_schema_of_a_chunk():
    document = json.loads(contract_of(chunks).to_registry_json())
    assert "outputSchema" not in document["skills"][0]
    assert document["x-agentmesh"]["chunk_schema"] == Chunk.model_json_schema()
    assert document["capabilities"] == {"streaming": True, "invocable": True}


def test_a_publisher_takes_nothing():
    document = json.loads(contract_of(ticks).to_registry_json())
    assert "inputSchema" not in document["skills"][0]
    assert document["capabilities"] == {"streaming": True, "invocable": False}


@pytest.mark.parametrize("function", [echo, chunks, ticks])
def test_a_document_is_read_as_it_was_written(function):
    contract = contract_of(function, tags=["x"])
    read = AgentContract.from_registry_json(contract.name, contract.to_registry_json())
    assert read.model_copy(update={"registered_at": contract.registered_at}) == contract


@pytest.mark.parametrize(
    "document", [b"", b"{", b"[]", b'"x"', b'{"skills": [1]}', b'{"skills": 3}', b'{"tags": 1, "x-agentmesh": []}']
)
def test_what_is_no_contract_is_a_typed_error(document):
    with pytest.raises(InvalidReply, match=r"contract of a\.b"):
        AgentContract.from_registry_json("a.b", document)


def test_a_bare_document_has_defaults():
    read = AgentContract.from_registry_json("a.b", b'{"name": "other"}')
    assert (read.name, read.invocable, read.streaming, read.subject) == ("a.b", True, False, "mesh.agent.a.b")


def test_its_line_of_the_catalog():
    entry = contract_of(chunks, tags=["t"], description="d").to_catalog_entry()
    assert json.loads(entry.model_dump_json()) == {
        "name": "demo.echo",
        "description": "d",
        "version": "0.1.0",
        "tags": ["t"],
        "invocable": True,
        "streaming": True,
    }


# -- specs and entries


@pytest.mark.parametrize("name", ["", "a..b", "a b", ".a", "a.*"])
def test_a_spec_has_a_name(name):
    with pytest.raises(ValidationError, match="name of an agent"):
        AgentSpec(name=name)


@pytest.mark.parametrize("wrong", [{"max_concurrency": 0}, {"max_queue": -1}, {"timeout": 0}])
def test_a_spec_has_limits_that_make_sense(wrong):
    with pytest.raises(ValidationError):
        AgentSpec(name="a", **wrong)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_element_of_the_catalog_is_an_entry_or_none(element):
    entry = CatalogEntry.read(element)
    assert entry is None or isinstance(entry.name, str)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, True),
        ({"channel": "a"}, True),
        ({"channel": "a.b"}, True),
        ({"channel": "a.b.c"}, False),
        ({"channel": "x"}, False),
        ({"tags": ["t"]}, True),
        ({"tags": ["t", "u"]}, True),
        ({"tags": ["t", "v"]}, False),
        ({"streaming": False}, True),
        ({"streaming": True}, False),
        ({"invocable": False}, False),
    ],
)
def test_what_matches(asked, found):
    entry = CatalogEntry(name="a.b", description="", tags=["t", "u"])
    every = {"channel": None, "tags": None, "streaming": None, "invocable": None}
    assert entry.matches(**{**every, **asked}) is found


# -- tools


class Line(BaseModel):
    text: str = "x"


class Order(BaseModel):
    lines: list[Line]
    note: str | None = None
    count: int = 1


async def order(order: Order) -> Told:
    """Orders."""
    return Told(reply="")


def test_a_tool_says_what_it_returns():
    tool = contract_of(order, "shop.order").to_anthropic_tool()
    assert tool["name"] == "shop_order"
    assert tool["description"] == "Orders.\nReturns: reply."
    assert tool["input_schema"] == Order.model_json_schema()


def test_the_two_formats_of_openai():
    contract = contract_of(order, "shop.order")
    chat = contract.to_openai_tool()
    assert chat["type"] == "function"
    assert chat["function"]["parameters"] == Order.model_json_schema()
    responses = contract.to_openai_tool(api="responses")
    assert responses == {"type": "function", **chat["function"], "strict": False}


def test_a_strict_tool_requires_everything_and_permits_nothing_else():
    contract = contract_of(order, "shop.order")
    function = contract.to_openai_tool(strict=True)["function"]
    assert function["strict"] is True
    parameters = function["parameters"]
    assert (parameters["required"], parameters["additionalProperties"]) == (["count", "lines", "note"], False)
    assert parameters["properties"]["count"] == {"type": ["integer", "null"]}
    line = parameters["$defs"]["Line"]
    assert line == {
        "type": "object",
        "properties": {"text": {"type": ["string", "null"]}},
        "required": ["text"],
        "additionalProperties": False,
    }
    assert contract.input_schema == Order.model_json_schema(), "the contract itself is left alone"


def test_what_takes_no_requests_is_no_tool():
    with pytest.raises(ValueError, match="not invocable"):
        contract_of(ticks).to_tool_schema()
    with pytest.raises(ValueError, match="too long"):
        contract_of(echo, "x" * 65).to_tool_schema()
