"""Classes made from the schemas of models: what a model takes, the class takes, and writes as the model takes it."""

from __future__ import annotations

import enum
import json
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from third_party.xmlable import codec_of
from xml_pipeline.bridge.classes import class_of, classes_of
from xml_pipeline.bridge.forms import JsonForm
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.mesh import AgentContract


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


CARRIED = st.text(
    st.characters(exclude_categories=["Cs"]).filter(lambda c: c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff")),
    max_size=8,
)
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, CARRIED),
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (Mood, st.sampled_from([mood.value for mood in Mood])),
    (Size, st.sampled_from([size.value for size in Size])),
    (Literal["a", "b c", 7], st.sampled_from(["a", "b c", 7])),
    (Literal["one"], st.just("one")),
]
Typed = tuple[Any, st.SearchStrategy[Any]]
NAMES = ["text", "user_id", "camelCase", "größe", "kind", "value", "size", "URL"]
MODELS = iter(range(10**9))


def union(pair: tuple[Typed, Typed]) -> Typed:
    (one, first), (other, second) = pair
    return one | other, st.one_of(first, second)


def model(fields: dict[str, tuple[Typed, str]]) -> Typed:
    """A model, and JSON that it takes."""
    said: dict[str, Any] = {}
    needed, optional = {}, {}
    for name, ((annotation, values), need) in fields.items():
        if need == "needed":
            said[name], needed[name] = (annotation, ...), values
        elif need == "nullable":
            said[name], needed[name] = (annotation | None, ...), st.none() | values
        elif need == "absent":
            said[name], optional[name] = (annotation | None, None), st.none() | values
        else:
            said[name], optional[name] = (list[annotation], []), st.lists(values, max_size=2)  # type: ignore[valid-type]
    made = pydantic.create_model(f"Model{next(MODELS)}", **said)
    return made, st.fixed_dictionaries(needed, optional=optional)


def _deeper(typed: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    needs = st.sampled_from(["needed", "nullable", "absent", "default"])
    return st.one_of(
        typed.map(lambda one: (list[one[0]], st.lists(one[1], max_size=3))),  # type: ignore[name-defined]
        typed.map(lambda one: (dict[str, one[0]], st.dictionaries(CARRIED, one[1], max_size=2))),  # type: ignore[misc]
        st.sampled_from([(LEAVES[0], LEAVES[1]), (LEAVES[1], LEAVES[3]), (LEAVES[0], LEAVES[3])]).map(union),
        st.dictionaries(st.sampled_from(NAMES), st.tuples(typed, needs), min_size=1, max_size=4).map(model),
    )


TYPED = st.recursive(st.sampled_from(LEAVES), _deeper, max_leaves=6)
MODEL = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(TYPED, st.sampled_from(["needed", "nullable", "absent", "default"])),
    min_size=1,
    max_size=4,
).map(model)


@st.composite
def models_with_json(draw: st.DrawFn) -> tuple[Any, list[Any]]:
    made, values = draw(MODEL)
    return made, draw(st.lists(values, min_size=1, max_size=3))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(models_with_json())
def test_what_a_model_takes_its_class_takes_and_writes_back(drawn: tuple[Any, list[Any]]) -> None:
    made, values = drawn
    codec = codec_of(class_of(made.model_json_schema(), "Input"))
    form = JsonForm([codec])
    for data in values:
        body = json.dumps(data).encode()
        meant = made.model_validate_json(body)
        payload = form.read(body)
        assert made.model_validate_json(form.write(payload)) == meant
        text = codec.encode(payload)
        assert codec.schema.validate(etree.fromstring(text.encode())), codec.schema.error_log
        assert made.model_validate_json(form.write(codec.decode_text(text))) == meant


@pytest.mark.parametrize(
    ("annotation", "right"),
    [
        (int, [1]),
        (list[str], [["a"], []]),
        (str | None, [None, "a"]),
        (dict[str, int], [{"a": 1}]),
        (list[dict[str, list[int]]], [[{"a": [1]}]]),
    ],
)
def test_what_is_no_object_is_a_value(annotation: Any, right: list[Any]) -> None:
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
    form = JsonForm([codec_of(class_of(adapter.json_schema(), "Input"))])
    for data in right:
        payload = form.read(json.dumps(data).encode())
        assert type(payload).__name__ == "Value"
        assert json.loads(form.write(payload)) == data


def test_what_need_not_be_there_is_not_written_where_it_is_not() -> None:
    text, maybe = {"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    inner = {"type": "object", "properties": {"a": text}}
    lists = {"inside": {"type": "array", "items": inner}, "by_name": {"type": "object", "additionalProperties": inner}}
    schema = {"type": "object", "properties": {"a": text, "b": maybe, **lists}}
    form = JsonForm([codec_of(class_of(schema, "Input"))])
    for data in ({"b": None}, {"a": "x", "b": "y"}, {"b": None, "inside": [{}, {"a": "x"}], "by_name": {"n": {}}}):
        assert json.loads(form.write(form.read(json.dumps(data).encode()))) == data


class Node(pydantic.BaseModel):
    children: list[Node] = []


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (Node.model_json_schema(), "contains itself"),
        ({}, "allows anything"),
        (True, "allows anything, or nothing"),
        ({"type": "object"}, "allows any object"),
        ({"type": "array"}, "must say what is in it"),
        ({"type": "array", "prefixItems": [{}], "items": {"type": "string"}}, "must say what is in it"),
        ({"enum": [1.5]}, "a choice must be"),
        ({"enum": []}, "a choice must be"),
        ({"enum": "abc"}, "a choice must be"),
        ({"const": None}, "a choice must be"),
        ({"$ref": "#/$defs/Gone"}, "which is not in it"),
        ({"$ref": "https://example.org/schema"}, "which is not in it"),
        ({"$ref": 5}, "which is not in it"),
        ({"anyOf": []}, "cannot be said"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "cannot be said"),
        ({"type": "object", "properties": []}, "allows any object"),
        ({"type": "object", "properties": [1]}, "are no object"),
        ({"type": "object", "properties": {"a-b": {"type": "string"}}}, "'a-b' is not one that a Python field"),
        ({"type": "object", "properties": {"class": {"type": "string"}}}, "'class' is not one that a Python field"),
        ({"type": "object", "properties": {"_x": {"type": "string"}}}, "'_x' is not one that a Python field"),
        ({"type": "object", "properties": {"user": {"type": "string"}, "User": {"type": "string"}}}, "would both be"),
        ({"type": "object", "properties": {f"f{n}": {"type": "string"} for n in range(2000)}}, "too many properties"),
        ({"type": "fish"}, "allows anything"),
        ({"type": 5}, "allows anything"),
        ({"type": []}, "allows anything"),
    ],
)
def test_what_no_class_can_say_is_refused(schema: Any, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        class_of(schema, "Input")


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        class_of(schema, "Input")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["string", "object", "array", "a", "#/$defs/a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "items",
                    "enum",
                    "const",
                    "anyOf",
                    "$ref",
                    "$defs",
                    "required",
                    "default",
                    "title",
                    "a",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_any_schema_gives_a_class_or_is_refused(schema: Any) -> None:
    try:
        cls = class_of(schema, "Input")
    except ConfigurationError:
        return
    JsonForm([codec_of(cls)]).schema()


def test_the_classes_of_a_contract() -> None:
    contract = AgentContract(
        name="nlp.word-count",
        description="Counts.",
        input_schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        output_schema={"type": "integer"},
    )
    takes, gives = classes_of(contract)
    assert (takes.__name__, gives and gives.__name__) == ("WordCountInput", "Value")
    assert classes_of(contract.model_copy(update={"output_schema": None}))[1] is None
    streaming = contract.model_copy(update={"streaming": True, "chunk_schema": {"type": "string"}})
    assert classes_of(streaming)[1] is not None
    assert not codec_of(classes_of(contract.model_copy(update={"input_schema": None}))[0]).json_schema()["properties"]
