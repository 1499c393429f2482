from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pydantic
import pytest
from lxml import etree

from third_party.xmlable import DecodeError, EncodeError, codec_of

from .helpers import accepts, survives, through_xml


@dataclass
class Line:
    product: str
    price: float = 1.5


@dataclass
class Order:
    number: int
    lines: list[Line]
    note: str | None = None
    main: Line = field(default_factory=lambda: Line("none"))


ORDER = Order(1, [Line("tea")], "ok")


def test_nested_classes_survive() -> None:
    survives(ORDER)


def test_what_is_absent_takes_its_default_afresh() -> None:
    codec = codec_of(Order)
    xml = "<Order><Number>1</Number><Lines></Lines></Order>"
    assert accepts(codec, xml)
    first, second = codec.decode_text(xml), codec.decode_text(xml)
    assert first == second == Order(1, [])
    assert first.main is not second.main


def test_an_empty_string_is_not_absence() -> None:
    assert through_xml(Order(1, [], "")).note == ""
    assert through_xml(Order(1, [], None)).note is None


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<Number>1</Number>", "Order.lines: the element <Lines> is missing"),
        ("<Number>1</Number><Number>1</Number><Lines/>", "Order.number: found the element <Number> twice"),
        ("<Number>1</Number><Lines/><Nmber/>", "Order: the element <Nmber> is unknown; did you mean 'Number'?"),
        ("<Number>1</Number><lines/>", "Order: the element <lines> is unknown; did you mean 'Lines'?"),
        (
            '<Number xmlns="urn:x">1</Number><Lines/>',
            "Order: the element <{urn:x}Number> is in a namespace, expected none",
        ),
        ("<Number>x</Number><Lines/>", "Order.number: found 'x', expected a whole number"),
        ("<Number><N>1</N></Number><Lines/>", "Order.number: found an element <N> inside, expected text only"),
        ("<Number>1</Number><Lines><Line><Product/><Price>x</Price></Line></Lines>", "Order.lines[0].price: found 'x'"),
    ],
)
def test_wrong_elements_are_refused(xml: str, message: str) -> None:
    xml = f"<Order>{xml}</Order>"
    assert not accepts(codec_of(Order), xml)
    with pytest.raises(DecodeError, match=re.escape(message)):
        codec_of(Order).decode_text(xml)


PATIENT = {
    "order": "<Lines><Line><Price>1.5</Price><Product>x</Product></Line></Lines><Number>7</Number>",
    "comments between": "<!----><Number>7</Number><?p?><Lines><Line><Product>x</Product></Line></Lines>",
    "comments inside": "<Number>7</Number><Lines><Line><Product>x<?p?></Product><Price>1<?p?>.5</Price></Line></Lines>",
    "attributes": "<Number a='1'>7</Number><Lines><Line><Product>x</Product><Price>1.5</Price></Line></Lines>",
    "white space": "\n<Number>7</Number> <Lines> <Line> <Product>x</Product><Price>1.5</Price>\n</Line></Lines>",
    "CDATA": "<Number>7</Number><Lines><Line><Product><![CDATA[x]]></Product><Price>1.5</Price></Line></Lines>",
}


@pytest.mark.parametrize("xml", PATIENT.values(), ids=PATIENT.keys())
def test_the_decoder_is_patient(xml: str) -> None:
    assert codec_of(Order).decode(etree.fromstring(f"<Order>{xml}</Order>")) == Order(7, [Line("x", 1.5)])


def test_an_instance_is_of_exactly_the_class() -> None:
    @dataclass
    class Rush(Order):
        fee: int = 1

    for write in (codec_of(Order).encode, codec_of(Order).encode_payload, codec_of(Order).to_json):
        with pytest.raises(EncodeError, match=r"^Order: found 'x' \(str\), expected Order$"):
            write("x")  # type: ignore[arg-type]
        with pytest.raises(EncodeError, match=r"^Order: .*; a subclass would come back as its base"):
            write(Rush(1, []))
        with pytest.raises(EncodeError, match=r"^Order.lines\[1\]: found None \(NoneType\), expected Line$"):
            write(Order(1, [Line("x"), None]))  # type: ignore[list-item]


@dataclass
class Ratio:
    part: int
    whole: int = 100

    def __post_init__(self) -> None:
        if self.part > self.whole:
            raise ValueError("more than the whole")


@pytest.mark.parametrize("xml", ["<Part>101</Part><Whole>100</Whole>", "<Part>101</Part>"], ids=["compiled", "loose"])
def test_post_init_runs_and_its_objection_is_a_decode_error(xml: str) -> None:
    with pytest.raises(DecodeError, match=r"^Ratio: the class refused the values: ValueError: more than the whole$"):
        codec_of(Ratio).decode_text(f"<Ratio>{xml}</Ratio>")
    with pytest.raises(DecodeError, match=r"^Ratio: the class refused the values: ValueError"):
        codec_of(Ratio).from_json({"part": 101})


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=1)
    age: int = pydantic.Field(default=18, ge=0)
    tags: list[str] = pydantic.Field(default_factory=list)


def test_models_survive() -> None:
    survives(Person(name="Ada", age=36, tags=["a", "b"]))
    assert codec_of(Person).decode_text("<Person><Name>Ada</Name></Person>") == Person(name="Ada")


@pytest.mark.parametrize("xml", ["<Name></Name><Age>-1</Age><Tags/>", "<Name></Name><Age>-1</Age>"])
def test_a_models_objections_are_decode_errors(xml: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec_of(Person).decode_text(f"<Person>{xml}</Person>")
    assert str(caught.value) == (
        "Person: the class refused the values: name: String should have at least 1 character; "
        "age: Input should be greater than or equal to 0"
    )
    assert isinstance(caught.value.__cause__, pydantic.ValidationError)


def test_extra_fields_of_a_model_would_be_lost_and_are_refused() -> None:
    class Open(pydantic.BaseModel, extra="allow"):
        name: str

    survives(Open(name="x"))
    for write in (codec_of(Open).encode, codec_of(Open).to_json):
        with pytest.raises(EncodeError, match=r"Open: extra fields have no XML form: age"):
            write(Open(name="x", age=1))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "Order: found [] (list), expected an object for Order"),
        ({"number": 1}, "Order.lines: the key 'lines' is missing"),
        ({"number": 1, "lines": [], "nots": 1}, "Order: the key 'nots' is unknown; did you mean 'note'?"),
        ({"number": 1, "lines": [{"product": 1}]}, "Order.lines[0].product: found 1 (int), expected text"),
        ({"number": 1, "lines": None}, "Order.lines: found None (NoneType), expected an array"),
        ({"number": None, "lines": []}, "Order.number: found None (NoneType), expected a whole number"),
    ],
)
def test_wrong_json_is_refused(data: Any, message: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(message)):
        codec_of(Order).from_json(data)


def test_json_may_leave_out_and_null_what_is_optional() -> None:
    assert codec_of(Order).from_json({"number": 1, "lines": []}) == Order(1, [])
    assert codec_of(Order).from_json({"number": 1, "lines": [], "note": None}) == Order(1, [])


def test_a_value_that_contains_itself_is_refused() -> None:
    @dataclass
    class Loop:
        inner: list[Loop]

    loop = Loop([])
    loop.inner.append(loop)
    for write in (codec_of(Loop).encode, codec_of(Loop).encode_payload, codec_of(Loop).to_json):
        with pytest.raises(EncodeError, match=r"^Loop.*: it is nested too deeply, or contains itself$"):
            write(loop)


def test_json_too_deep_to_read_is_refused() -> None:
    @dataclass
    class Deep:
        inner: list[Deep]

    data: dict[str, Any] = {"inner": []}
    for _ in range(5_000):
        data = {"inner": [data]}
    with pytest.raises(DecodeError, match=r"^Deep.*: it is nested too deeply$"):
        codec_of(Deep).from_json(data)


def test_a_missing_attribute_is_refused() -> None:
    line = Line("x")
    del line.product
    for write in (codec_of(Line).encode, codec_of(Line).encode_payload, codec_of(Line).to_json):
        with pytest.raises(EncodeError, match=r"^Line: an attribute is missing: .*product"):
            write(line)
