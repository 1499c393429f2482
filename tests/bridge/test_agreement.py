"""JSON Schema, XML Schema and decoder say the same of every value that JSON and XML can both carry."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, make_dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import jsonschema
import pydantic
import pytest
from lxml import etree

from tests.bridge.agreement import Made, NotCarried, anything, made_class, mixed
from third_party.xmlable import Codec, EncodeError, codec_of
from xml_pipeline.bridge.forms import JsonForm
from xml_pipeline.errors import ValidationError

CLASSES = 50 * int(os.environ.get("XML_PIPELINE_AGREEMENT", "1"))
"""Set to more, for other classes."""
VALUES = 200


def _pattern(validator: Any, pattern: str, data: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """As JSON Schema has it: in ECMA-262 ``$`` is the end, in Python it may have a line feed behind it."""
    if isinstance(data, str) and re.search(re.sub(r"\$$", r"\\Z", pattern), data) is None:
        yield jsonschema.ValidationError(f"{data!r} does not match {pattern!r}")


Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})


class Judges:
    """All who say whether a value is one of a class.

    Args:
        made: the class.
    """

    def __init__(self, made: Made) -> None:
        self._made = made
        self._codec: Codec[Any] = codec_of(made.annotation)
        self._form = JsonForm([self._codec])
        schema = self._form.schema()
        assert schema is not None
        jsonschema.Draft202012Validator.check_schema(schema)
        self._json_schema = Validator(schema)
        self._xsd = etree.XMLSchema(etree.fromstring(schema["x-xml-schema"]))
        self.said = Counter[str]()

    def ask(self, data: Any) -> None:
        """Ask all, and fail where they do not say the same."""
        try:
            value, of_json = self._form.read(json.dumps(data).encode()), True
        except ValidationError as error:
            value, of_json = error.detail, False
        if self._json_schema.is_valid(data) != of_json:
            raise AssertionError(f"JSON Schema says {not of_json}, the decoder {of_json}: {data!r}: {value}")
        try:
            xml = f"<{self._codec.name}>{self._made.xml(data)}</{self._codec.name}>"
        except NotCarried:
            self.said["not carried"] += 1
            return
        self._ask_of_xml(data, xml, value, of_json)

    def _ask_of_xml(self, data: Any, xml: str, value: Any, of_json: bool) -> None:
        of_xsd = self._xsd.validate(etree.fromstring(xml))
        assert of_xsd == of_json, f"XSD says {of_xsd}, JSON {of_json}: {data!r}: {xml}: {value}: {self._xsd.error_log}"
        if of_xsd:
            assert self._codec.decode_text(xml) == value, xml
        self.said["right" if of_xsd else "wrong"] += 1


@pytest.mark.parametrize("seed", range(CLASSES))
def test_all_say_the_same_of_values_of_a_class(seed: int) -> None:
    rng = Random(seed)
    made = made_class(rng)
    judges = Judges(made)
    for number in range(VALUES):
        make = (made.right, made.near, made.near, mixed(made), anything)[number % 10 % 5 if number % 10 else 4]
        judges.ask(make(rng))
    assert judges.said["right"] >= VALUES // 5, judges.said
    assert judges.said["wrong"] >= VALUES // 10, judges.said
    assert judges.said["not carried"] <= VALUES // 3, judges.said


# -- what only the decoder can check ----------------------------------------------------------------------------------


@dataclass
class Whole:
    n: int


@dataclass
class Real:
    n: float


@dataclass
class Sums:
    n: set[Decimal]


@dataclass
class ByNumber:
    n: dict[int, str]


@dataclass
class Moment:
    n: datetime


@dataclass
class Span:
    n: timedelta


@dataclass
class Checked:
    n: str

    def __post_init__(self) -> None:
        if not self.n:
            raise ValueError("it is empty")


class Bounded(pydantic.BaseModel):
    n: int = pydantic.Field(ge=1)


@pytest.mark.parametrize(
    ("cls", "body"),
    [
        (Whole, b'{"n": 1e300}'),  # beyond 2**53, where a number with an exponent may have lost digits
        (Whole, b'{"n": 9007199254740994.0}'),
        (Real, b'{"n": 1%s}' % (b"0" * 400)),
        (Sums, b'{"n": ["1.0", "1.00"]}'),
        (ByNumber, b'{"n": [{"key": 1, "value": "a"}, {"key": 1, "value": "b"}]}'),
        (Moment, b'{"n": "9999-12-31T24:00:00"}'),
        (Span, b'{"n": "P1000000000D"}'),
        (Checked, b'{"n": ""}'),
        (Bounded, b'{"n": 0}'),
    ],
)
def test_what_only_the_decoder_can_check_is_refused_by_it(cls: type, body: bytes) -> None:
    form = JsonForm([codec_of(cls)])
    assert Validator(form.schema()).is_valid(json.loads(body))
    with pytest.raises(ValidationError):
        form.read(body)


@dataclass
class Text:
    n: str


@pytest.mark.parametrize("text", ["\0", "\x1b", "\ufffe"])
def test_characters_that_xml_does_not_have_are_read_and_cannot_be_written(text: str) -> None:
    form = JsonForm([codec_of(Text)])
    body = json.dumps({"n": text}).encode()
    assert Validator(form.schema()).is_valid(json.loads(body))
    with pytest.raises(EncodeError, match="character U"):
        codec_of(Text).encode(form.read(body))


@pytest.mark.parametrize("body", [b'{"n": NaN}', b'{"n": Infinity}', b'{"n": -Infinity}', b'{"n": 1', b"{'n': 1}"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationError, match="not valid") as caught:
        JsonForm([codec_of(Real)]).read(body)
    assert "is not JSON" in caught.value.detail


@pytest.mark.parametrize("text", ["INF", "-INF", "NaN"])
def test_numbers_that_json_does_not_have_are_texts(text: str) -> None:
    form = JsonForm([codec_of(Real)])
    assert repr(form.read(json.dumps({"n": text}).encode()).n) == repr(float(text.replace("INF", "inf")))
    assert not Validator(form.schema()).is_valid({"n": text})


@pytest.mark.parametrize(("cls", "data"), [(Moment, " 2025-01-31T12:00:00"), (Span, "PT1S\n")])
def test_white_space_around_a_value_is_none_of_it_in_xml_and_wrong_in_json(cls: type, data: str) -> None:
    form, codec = JsonForm([codec_of(cls)]), codec_of(cls)
    xml = f"<{codec.name}><N>{data}</N></{codec.name}>"
    assert codec.schema.validate(etree.fromstring(xml)) and codec.decode_text(xml)
    assert not Validator(form.schema()).is_valid({"n": data})
    with pytest.raises(ValidationError):
        form.read(json.dumps({"n": data}).encode())


# -- several classes, bare values, classes that hold themselves --------------------------------------------------------


@dataclass
class Tree:
    name: str
    branches: list[Tree] = field(default_factory=list)


def value_of(annotation: Any) -> type:
    return make_dataclass("Value", [("value", annotation)])


@pytest.mark.parametrize(
    ("classes", "right", "wrong"),
    [
        ([value_of(int)], [1, 2.0, 10**20], ["1", None, 1.5, {"value": 1}, [1]]),
        ([value_of(list[str])], [[], ["a"]], ["a", {}, [1], {"value": []}]),
        ([value_of(Tree)], [{"name": "a", "branches": [{"name": "b"}]}], [{}, {"name": "a", "branches": [{}]}]),
        ([value_of(dict[str, float])], [{}, {"a": 1}, {"value": 1.5}], [[], {"a": "x"}, 1]),
        ([Tree], [{"name": "a", "branches": [{"name": "b", "branches": []}]}], [{"name": 1}, {"branches": []}, []]),
        ([Whole, Tree], [{"n": 1}, {"name": "a"}], [{}, {"n": "1"}, {"n": 1, "name": "a"}, 1]),
        ([Whole, value_of(str)], [{"n": 1}, "a"], [{"n": "a"}, 1, {"value": "a"}, None]),
    ],
)
def test_other_forms_of_a_payload(classes: list[type], right: list[Any], wrong: list[Any]) -> None:
    form = JsonForm([codec_of(cls) for cls in classes])
    schema = Validator(form.schema())
    for data in right:
        schema.validate(data)
        payload = form.read(json.dumps(data).encode())
        assert type(payload) in classes
        schema.validate(json.loads(form.write(payload)))
        assert form.read(form.write(payload)) == payload
        codec = codec_of(type(payload))
        assert codec.schema.validate(etree.fromstring(codec.encode(payload)))
    for data in wrong:
        assert not schema.is_valid(data), data
        with pytest.raises(ValidationError):
            form.read(json.dumps(data).encode())
