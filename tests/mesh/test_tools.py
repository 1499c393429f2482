"""Contracts as tools: what providers demand of them, and calling an agent with what a model gave.

The rules that are checked here are those that the providers answer requests with when they are broken.
"""

from __future__ import annotations

import copy
import json
import re
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from tests.examples import examples
from xml_pipeline.mesh import AgentContract, AgentMesh, AgentSpec
from xml_pipeline.mesh.agent import Agent

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
STRICT_WORDS = {"type", "description", "enum", "properties", "required", "additionalProperties", "items", "anyOf"}


def contract_for(annotation: Any, name: str = "shop.order") -> AgentContract:
    async def handler(given):
        return None

    handler.__annotations__ = {"given": annotation}
    return Agent.of(AgentSpec(name=name, description="Orders."), handler).contract


# -- the rules


def check_arguments(schema: dict[str, Any]) -> None:
    """What every provider demands at the top."""
    assert schema["type"] == "object"
    assert not {"$ref", "anyOf", "oneOf", "allOf", "not", "enum", "const"} & schema.keys()
    check_references(schema, schema)


def check_references(node: Any, root: dict[str, Any]) -> None:
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str):
            assert reference.removeprefix("#/$defs/") in root["$defs"]
        for member in node.values():
            check_references(member, root)
    elif isinstance(node, list):
        for member in node:
            check_references(member, root)


def check_strict(node: dict[str, Any]) -> None:
    """What OpenAI demands of every part of a strict tool."""
    for definition in node.get("$defs", {}).values():
        check_strict(definition)
    if "$ref" in node:
        assert set(node) == {"$ref"}, "nothing may be beside a reference"
        return
    assert not node.keys() - STRICT_WORDS - {"$defs"}
    if "anyOf" in node:
        assert not node.keys() - {"anyOf", "description"}
        for choice in node["anyOf"]:
            check_strict(choice)
        return
    assert "type" in node or "enum" in node
    if node.get("type") == "object" or "properties" in node:
        assert node["additionalProperties"] is False
        assert node["required"] == sorted(node["properties"])
        for member in node["properties"].values():
            check_strict(member)
    if node.get("type") == "array" or "items" in node:
        check_strict(node["items"])


KINDS = {"string": str, "boolean": bool, "null": type(None), "array": list, "object": dict}


def is_of(value: Any, node: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a model that keeps to a strict schema can give this value."""
    if "$ref" in node:
        return is_of(value, root["$defs"][node["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in node:
        return any(is_of(value, choice, root) for choice in node["anyOf"])
    kinds = node["type"] if isinstance(node.get("type"), list) else [node.get("type")]
    if "type" in node and not any(is_kind(value, kind) for kind in kinds):
        return False
    if "enum" in node:
        return value in node["enum"]
    if isinstance(value, dict):
        members = node["properties"]
        return value.keys() == members.keys() and all(is_of(value[name], members[name], root) for name in members)
    return not isinstance(value, list) or all(is_of(item, node["items"], root) for item in value)


def is_kind(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):
        numbers = (int,) if kind == "integer" else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, KINDS[kind])


# -- any model


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str | None = None


class Tree(BaseModel):
    label: str = "x"
    children: list[Tree] = []
    best: Tree | None = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    note: str = ""


scalars = [
    (int, st.integers(-(2**53), 2**53)),
    (str, st.text(max_size=5)),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (Literal["only"], st.just("only")),
    (Colour, st.sampled_from(["red", "blue"])),
    (Cat, st.fixed_dictionaries({"kind": st.just("cat")}, optional={"lives": st.integers(0, 9)})),
    (
        Cat | Dog,
        st.fixed_dictionaries({"kind": st.just("cat")}, optional={"lives": st.integers(0, 9)})
        | st.fixed_dictionaries({"kind": st.just("dog")}, optional={"name": st.none() | st.text(max_size=3)}),
    ),
    (
        Tree,
        st.recursive(
            st.fixed_dictionaries({}, optional={"label": st.text(max_size=3)}),
            lambda trees: st.fixed_dictionaries({}, optional={"children": st.lists(trees, max_size=2), "best": trees}),
            max_leaves=4,
        ),
    ),
    (Open, st.fixed_dictionaries({}, optional={"note": st.text(max_size=3)})),
]

# Each: an annotation, and the JSON values of it that a caller may give.
kinds = st.recursive(
    st.sampled_from(scalars),
    lambda inner: st.one_of(
        inner.map(lambda kind: (list[kind[0]], st.lists(kind[1], max_size=3))),
        inner.map(lambda kind: (kind[0] | None, st.none() | kind[1])),
        # Of objects, a strict tool cannot say which is to come first.
        st.tuples(st.sampled_from(scalars[:7]), inner).map(
            lambda both: (tuple[both[0][0], both[1][0]], st.tuples(both[0][1], both[1][1]).map(list))
        ),
    ),
    max_leaves=3,
)


@st.composite
def models(draw: st.DrawFn, depth: int = 1) -> tuple[type[BaseModel], st.SearchStrategy[dict[str, Any]]]:
    fields: dict[str, Any] = {}
    needed, optional = {}, {}
    for name in draw(st.lists(st.sampled_from(["a", "b", "c_d", "e1"]), unique=True, max_size=4)):
        annotation, values = draw(models(depth - 1) if depth and draw(st.booleans()) else kinds)
        described = draw(st.sampled_from([{}, {"description": "said"}, {"title": "T", "description": "said"}]))
        if draw(st.booleans()):
            needed[name] = values
            fields[name] = (annotation, Field(**described))
        else:
            optional[name] = values
            fields[name] = (annotation, Field(default=None, **described))  # pydantic does not check defaults
    return create_model("Made", **fields), st.fixed_dictionaries(needed, optional=optional)


def filled(value: Any, node: dict[str, Any], root: dict[str, Any]) -> Any:
    """As a model gives it to a strict tool: with ``null`` for what is left out."""
    if "$ref" in node:
        return filled(value, root["$defs"][node["$ref"].removeprefix("#/$defs/")], root)
    for choice in node.get("anyOf", []):
        found = filled(value, choice, root)
        if is_of(found, choice, root) and not (isinstance(value, dict) and value.keys() - found.keys()):
            return found
    if isinstance(value, dict) and "properties" in node:
        return {name: filled(value.get(name), member, root) for name, member in node["properties"].items()}
    if isinstance(value, list) and "items" in node:
        return [filled(item, node["items"], root) for item in value]
    return value


@given(models(), st.data())
@settings(max_examples=examples(60), deadline=None)
def test_any_model_is_a_tool_and_its_arguments_a_payload(made, data):
    model, values = made
    contract = contract_for(model)
    before = copy.deepcopy(contract.input_schema)
    check_arguments(contract.to_anthropic_tool()["input_schema"])
    check_arguments(contract.to_openai_tool()["function"]["parameters"])
    strict = contract.to_openai_tool(strict=True)["function"]["parameters"]
    check_arguments(strict)
    check_strict(strict)
    assert contract.input_schema == before, "the contract is left alone"

    value = data.draw(values)
    expected = model.model_validate(value)
    assert model.model_validate(contract.tool_payload(value)) == expected
    arguments = filled(value, strict, strict)
    assert is_of(arguments, strict, strict), "a strict tool can be given everything that the agent takes"
    assert model.model_validate(contract.tool_payload(arguments)) == expected
    assert model.model_validate(contract.tool_payload(json.dumps(arguments))) == expected


@given(kinds, st.data())
@settings(max_examples=examples(40), deadline=None)
def test_any_other_input_is_a_tool_too(kind, data):
    annotation, values = kind
    contract = contract_for(annotation)
    schema = contract.to_tool_schema()["input_schema"]
    check_arguments(schema)
    strict = contract.to_openai_tool(strict=True, api="responses")["parameters"]
    check_arguments(strict)
    check_strict(strict)
    value = data.draw(values)
    is_object = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    arguments = filled(value if is_object else {"value": value}, strict, strict)
    assert is_of(arguments, strict, strict)
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    assert adapter.validate_python(contract.tool_payload(arguments)) == adapter.validate_python(value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["type", "$ref", "anyOf", "allOf", "properties", "items", "enum", "required", "$defs", "a"]), x
)))  # fmt: skip
@settings(max_examples=examples(100), deadline=None)
def test_a_foreign_schema_is_a_tool_or_an_error(schema):
    """Contracts come from anybody."""
    if not isinstance(schema, dict):
        return
    contract = AgentContract(name="a.b", description="", input_schema=schema)
    for make in (contract.to_tool_schema, contract.to_anthropic_tool, lambda: contract.to_openai_tool(strict=True)):
        try:
            make()
        except ValueError as error:
            assert str(error)
    try:
        contract.tool_payload({"value": {"a": None}})
    except ValueError as error:
        assert str(error)


# -- one by one


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, {"type": "integer"}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Literal["x"], {"const": "x", "type": "string"}),
    ],
)
def test_what_is_no_object_becomes_the_value_of_one(annotation, expected):
    contract = contract_for(annotation)
    assert contract.to_tool_schema()["input_schema"] == {
        "type": "object",
        "properties": {"value": expected},
        "required": ["value"],
    }
    assert contract.tool_payload({"value": 7}) == 7
    with pytest.raises(ValueError, match="must have 'value'"):
        contract.tool_payload({"valeu": 7})


def test_a_recursive_model_stands_at_the_top_itself():
    schema = contract_for(Tree).to_tool_schema()["input_schema"]
    assert schema["type"] == "object"
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert "Tree" in schema["$defs"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ((Colour, Colour.RED), {"anyOf": [{"$ref": "#/$defs/Colour"}, {"type": "null"}]}),
        ((Literal["a", "b"], "a"), {"type": ["string", "null"], "enum": ["a", "b", None]}),
        ((Cat | Dog | None, None), {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}, {"type": "null"}]}),
        (
            (Cat | Dog, Field(discriminator="kind")),
            {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]},
        ),
        ((Cat, Field(description="a cat")), {"anyOf": [{"$ref": "#/$defs/Cat"}], "description": "a cat"}),
        ((int, Field(ge=1, multiple_of=2, description="even")), {"type": "integer", "description": "even"}),
        ((tuple[int, str], ...), {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}}),
        ((set[int], ...), {"type": "array", "items": {"type": "integer"}}),
    ],
)
def test_how_it_is_said_in_a_strict_tool(field, expected):
    contract = contract_for(create_model("Made", it=field))
    assert contract.to_openai_tool(strict=True)["function"]["parameters"]["properties"]["it"] == expected


@pytest.mark.parametrize(
    ("annotation", "where"),
    [
        (dict[str, int], "the input"),
        (create_model("Made", labels=(dict[str, str], ...)), r"the input\.labels"),
        (create_model("Made", any=(Any, ...)), r"the input\.any"),
        (create_model("Made", many=(list, ...)), r"the input\.many\[\]"),
        (list[dict], r"the input\.value\[\]"),
    ],
)
def test_what_a_strict_tool_cannot_say_is_an_error_that_says_where(annotation, where):
    contract = contract_for(annotation)
    check_arguments(contract.to_openai_tool()["function"]["parameters"])
    with pytest.raises(ValueError, match=rf"^{where} .*not strict"):
        contract.to_openai_tool(strict=True)


def test_old_forms_of_references_are_understood():
    """As pydantic wrote them before 2.9, and others write definitions that hold references only."""
    schema = {
        "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"type": "object", "properties": {"x": {"type": "integer"}}}},
        "type": "object",
        "properties": {"a": {"allOf": [{"$ref": "#/$defs/A"}], "description": "said", "default": {}}},
    }
    contract = AgentContract(name="a.b", description="", input_schema=schema)
    strict = contract.to_openai_tool(strict=True)["function"]["parameters"]
    check_strict(strict)
    assert contract.tool_payload({"a": {"x": None}}) == {"a": {}}
    assert contract.tool_payload({"a": None}) == {}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/Nowhere"},
        {"$ref": "https://elsewhere/x"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"$ref": 7},
    ],
)
def test_a_reference_that_leads_nowhere_is_an_error(schema):
    contract = AgentContract(name="a.b", description="", input_schema=schema)
    with pytest.raises(ValueError, match="leads nowhere"):
        contract.to_tool_schema()


def test_keys_that_anthropic_does_not_take():
    contract = contract_for(create_model("Made", x=(int, Field(alias="$top"))))
    assert contract.to_openai_tool()["function"]["parameters"]["properties"].keys() == {"$top"}
    with pytest.raises(ValueError, match=r"'\$top' is no name for a property"):
        contract.to_anthropic_tool()


@pytest.mark.parametrize("arguments", ["[]", "{", "7", "null", [1]])
def test_what_are_no_arguments(arguments):
    with pytest.raises(ValueError):
        contract_for(Cat).tool_payload(arguments)


def test_what_does_not_fit_is_left_for_the_agent_to_refuse():
    contract = contract_for(create_model("Made", pet=(Cat | Dog, ...), many=(list[Cat], ...)))
    wrong = {"pet": {"kind": "cow", "lives": None}, "many": {"kind": None}, "more": None}
    assert contract.tool_payload(wrong) == wrong


@given(st.from_regex(r"[A-Za-z0-9_-]{1,12}(\.[A-Za-z0-9_-]{1,12}){0,6}", fullmatch=True))
def test_a_name_is_one_for_tools_or_too_long(name):
    contract = AgentContract(name=name, description="")
    if len(name) > 64:
        with pytest.raises(ValueError, match="too long"):
            contract.to_tool_schema()
    else:
        assert NAME.fullmatch(contract.to_tool_schema()["name"])


def test_a_trigger_takes_no_arguments():
    contract = AgentContract(name="a.b", description="")
    for parameters in (contract.to_openai_tool()["function"]["parameters"], contract.to_tool_schema()["input_schema"]):
        assert parameters == {"type": "object", "properties": {}}
    strict = contract.to_openai_tool(strict=True)["function"]["parameters"]
    assert strict == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert contract.tool_payload("") == {}


async def test_a_model_calls_an_agent(server):
    """All of it together: discovered, offered, called with what a strict tool gives, refused where it must be."""
    async with AgentMesh(server.url) as mesh:

        @mesh.agent(AgentSpec(name="pets.feed", description="Feeds."))
        async def feed(pet: Cat | Dog) -> str:
            return repr(pet)

        contract = next(one for one in await mesh.discover() if one.name == "pets.feed")
        tool = contract.to_openai_tool(strict=True, api="responses")
        assert (tool["name"], tool["strict"]) == ("pets_feed", True)
        payload = contract.tool_payload('{"value": {"kind": "cat", "lives": null}}')
        assert await mesh.call("pets.feed", payload) == repr(Cat(kind="cat"))
