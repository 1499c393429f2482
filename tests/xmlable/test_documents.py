from __future__ import annotations

from dataclasses import dataclass

import pytest
from lxml import etree, objectify

from third_party.xmlable import DecodeError, XError, parse_bytes, parse_element, parse_string


@dataclass
class Text:
    text: str
    more: str = ""


@dataclass
class Word:
    word: str


TEXT = Text("007", "é")
XML = "<Text><Text>007</Text><More>é</More></Text>"


def test_three_ways_to_read() -> None:
    assert parse_string(Text, XML) == TEXT
    assert parse_bytes(Text, XML.encode()) == TEXT
    assert parse_element(Text, etree.fromstring(XML)) == TEXT


def test_an_objectify_element_is_read_as_its_text_stands() -> None:
    assert parse_element(Text, objectify.fromstring(XML)) == TEXT
    assert parse_element(Word, objectify.fromstring("<Word><Word>x</Word></Word>")) == Word("x")


def test_an_element_inside_a_tree() -> None:
    payload = XML.replace("<Text>", '<Text xmlns="">', 1)
    envelope = etree.fromstring(f'<m xmlns="urn:x">{payload}tail</m>')
    assert parse_element(Text, envelope[0]) == TEXT


@pytest.mark.parametrize("xml", ["<Text/>", "<Word><Word>x</Word></Word>", "<Text"])
def test_what_describes_no_instance_is_refused(xml: str) -> None:
    with pytest.raises(DecodeError):
        parse_string(Text, xml)
    with pytest.raises(DecodeError):
        parse_bytes(Text, xml.encode())


def test_a_class_that_cannot_be_mapped_is_refused() -> None:
    for function, argument in (
        (parse_string, "<int/>"),
        (parse_bytes, b"<int/>"),
        (parse_element, etree.Element("int")),
    ):
        with pytest.raises(XError, match="int is neither a dataclass nor a pydantic model"):
            function(int, argument)  # type: ignore[operator]
