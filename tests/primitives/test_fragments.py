"""Payloads as XML text inside of other payloads."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree
from pydantic import BaseModel

from third_party.xmlable import codec_of
from xml_pipeline import StreamPump
from xml_pipeline.envelope import escape_text, message_text
from xml_pipeline.errors import ValidationError
from xml_pipeline.primitives.fragments import check_fan_out, check_size, parse_payloads, payload_text
from xml_pipeline.runtime import use_runtime
from xml_pipeline.strict_xml import canonical_bytes

WRITABLE = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"))
LAYOUT = st.text(alphabet=" \t\n", max_size=3)
BETWEEN = st.sampled_from(["", "\n", "  ", "\n\n\t", "<!-- between -->", "\n<!-- <Note/> -->\n", "<?pi between?>"])


@dataclass
class Note:
    text: str = ""
    count: int = 0
    names: list[str] = field(default_factory=list)


class Model(BaseModel):
    text: str = ""


class Foreign:
    """Writes itself."""

    def __init__(self, text: str | bytes) -> None:
        self._text = text

    def to_xml(self) -> str | bytes:
        return self._text


@given(st.lists(st.builds(Note, WRITABLE, st.integers(-5, 5), st.lists(WRITABLE, max_size=3))), BETWEEN, BETWEEN)
def test_what_is_written_is_read_in_any_layout(notes: list[Note], around: str, between: str) -> None:
    text = around + between.join(payload_text(note) for note in notes) + around
    assert [codec_of(Note).decode(element) for element in parse_payloads(text)] == notes


@given(st.data(), st.lists(WRITABLE.filter(bool), min_size=1, max_size=4))
def test_white_space_between_elements_is_layout(data: st.DataObject, names: list[str]) -> None:
    note = Note("x", 1, names)
    pieces = payload_text(note).replace("><", ">\0<").split("\0")
    (element,) = parse_payloads("".join(data.draw(LAYOUT) + piece for piece in pieces))
    assert codec_of(Note).decode(element) == note


def test_every_kind_of_payload_can_be_written() -> None:
    assert payload_text(Model(text="<&>")) == "<Model><Text>&lt;&amp;&gt;</Text></Model>"
    assert payload_text(Foreign("<!-- c --><A b='1'  ><C/></A>")) == '<A b="1"><C></C></A>'
    assert payload_text(Note(' xmlns=""')) == '<Note><Text> xmlns=""</Text><Count>0</Count><Names></Names></Note>'
    assert payload_text(Foreign("<A>ü</A>".encode())) == "<A>ü</A>"
    assert payload_text(etree.fromstring("<A  b='1'/>")) == '<A b="1"></A>'


def test_an_element_is_written_without_what_surrounds_it() -> None:
    tree = etree.fromstring("<R xmlns:p='urn:p' xmlns:q='urn:q'>before<A p:b='1'>text</A>after</R>")
    tree[0].attrib.clear()
    assert payload_text(tree[0]) == "<A>text</A>"
    with pytest.raises(ValidationError, match="not valid"):
        payload_text(etree.fromstring("<A xmlns='urn:a'/>"))


@dataclass
class Looks:
    """A payload class with the fields that elements have."""

    tag: str = "A"
    nsmap: str = "none"


def test_a_payload_that_looks_like_an_element_is_none() -> None:
    assert payload_text(Looks()) == "<Looks><Tag>A</Tag><Nsmap>none</Nsmap></Looks>"


@pytest.mark.parametrize("value", [5, "text", None, object(), [Note()]])
def test_what_is_no_payload_cannot_be_written(value: object) -> None:
    with pytest.raises(TypeError):
        payload_text(value)


@pytest.mark.parametrize("text", ["", "<A>", "<A/><B/>", "<!DOCTYPE A><A/>"])
def test_what_writes_itself_wrongly_cannot_be_written(text: str) -> None:
    with pytest.raises(ValidationError):
        payload_text(Foreign(text))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<A>", "not well-formed"),
        ("<A/></payloads><payloads><B/>", "not well-formed"),
        ("<A/><!--", "not well-formed"),
        ("<A/>]]>", "not well-formed"),
        ("<?xml version='1.0'?><A/>", "not well-formed"),
        ("<!DOCTYPE A><A/>", "not well-formed"),
        ("<A>&b;</A>", "not well-formed"),
        ("<A>\x00</A>", "not well-formed"),
        ("\ud800<A/>", "cannot be written"),
        ("a<A/>", "text outside of the payloads: 'a'"),
        ("<A/>b<B/>", "text outside of the payloads: 'b'"),
        ("<A/><B/>" + "c" * 1_000, f"text outside of the payloads: '{'c' * 80}'"),
        ("<![CDATA[d]]><A/>", "text outside of the payloads: 'd'"),
        ("&#101;<A/>", "text outside of the payloads: 'e'"),
        ("<A xmlns='urn:x'/>", "no namespace"),
        ("<x:A xmlns:x='urn:x'/>", "no namespace"),
        ("<A xmlns='relative'/>", "relative"),
    ],
)
def test_what_is_no_list_of_payloads_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_payloads(text)
    assert told in caught.value.detail
    assert len(caught.value.detail) < 500


@given(st.text(max_size=60) | st.text(alphabet="<>/AB ='!-[]?&;\"x:", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        elements = parse_payloads(text)
    except ValidationError:
        return
    for element in elements:
        assert etree.fromstring(canonical_bytes(element)).tag == element.tag


def test_the_bounds_of_messages_hold_for_what_is_written_in_their_text() -> None:
    """A text counts as one element in the message around it; what is in it is bounded by itself."""
    pump = StreamPump(max_fan_out=5, max_attributes=4, max_elements=50, max_element_depth=7)
    with use_runtime(pump.runtime):
        assert len(parse_payloads("<A/>" * 5)) == 5
        for text, bound in (
            ("<A/>" * 6, "more than 5 payloads (max_fan_out)"),
            ("<A a='' b='' c='' d='' e=''/>", "max_attributes"),
            ("<A>" + "<B/>" * 60 + "</A>", "max_elements"),
            ("<A>" * 8 + "</A>" * 8, "max_element_depth"),
        ):
            with pytest.raises(ValidationError) as caught:
                parse_payloads(text)
            assert bound in caught.value.detail


def test_the_number_of_calls_that_one_message_asks_for_is_bounded() -> None:
    with use_runtime(StreamPump(max_fan_out=5).runtime):
        check_fan_out(5, "things")
        with pytest.raises(ValidationError) as caught:
            check_fan_out(6, "things")
    assert caught.value.detail == "more than 5 things (max_fan_out)"


async def test_the_bounds_are_those_in_force() -> None:
    pump = StreamPump(max_fan_out=5)
    pump.engine.apply(pump.config.with_limits(max_fan_out=7).limits)
    with use_runtime(pump.runtime):
        check_fan_out(7, "things")


@given(st.text(alphabet="a&<ü\r\U0001f600", max_size=300), st.text(alphabet="a&ü", min_size=1, max_size=20))
@example("&" * 290, "a")
@example("\U0001f600" * 300, "a")
@example("a" * 290, "a")
def test_what_passes_the_check_of_its_size_fits_into_a_message(text: str, to: str) -> None:
    """And what is clearly too large does not pass it."""
    pump = StreamPump(max_message_bytes=1_500)
    note = Model(text=text)
    wire = message_text(codec_of(Model).encode_payload(note), "system.sequence", escape_text(to), "0" * 36)
    with use_runtime(pump.runtime):
        try:
            check_size(note, to, text)
        except ValidationError as error:
            assert len(wire) > 1_500 - 1_024
            assert "max_message_bytes" in error.detail
        else:
            assert len(wire) <= 1_500
