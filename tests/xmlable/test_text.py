from __future__ import annotations

import pytest
from lxml import etree

from third_party.xmlable import DecodeError, EncodeError
from third_party.xmlable.text import children, collapse, escape, text_of


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", ""),
        ("plain", "plain"),
        ("a & b < c > d", "a &amp; b &lt; c &gt; d"),
        ("&amp;", "&amp;amp;"),
        ("\t\n", "\t\n"),
        ("\r\n", "&#xD;\n"),
        ("]]>", "]]&gt;"),
        ("\"'", "\"'"),
        ("\x7f\x85\xa0\u2028\ufdd0\ufffd\U0001fffe", "\x7f\x85\xa0\u2028\ufdd0\ufffd\U0001fffe"),
    ],
)
def test_escape(text: str, written: str) -> None:
    assert escape(text) == written


@pytest.mark.parametrize("padding", ["", "é", "x" * 1000], ids=["short", "not ascii", "long"])
@pytest.mark.parametrize("code", [0, 1, 8, 0xB, 0xC, 0xE, 0x1B, 0x1F, 0xD800, 0xDFFF, 0xFFFE, 0xFFFF])
def test_escape_refuses_what_xml_cannot_carry(code: int, padding: str) -> None:
    with pytest.raises(EncodeError) as caught:
        escape(padding + chr(code) + "&")
    assert str(caught.value) == (
        f"character U+{code:04X} at index {len(padding)} cannot be carried by XML 1.0; "
        "remove or replace it, or declare the field as bytes"
    )


def test_escape_finds_the_first_of_many() -> None:
    with pytest.raises(EncodeError, match=r"U\+0001 at index 2"):
        escape("ab\x01\x02")


def _element(text: str, **options: bool) -> etree._Element:
    return etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, **options))


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        ("<a/>", ""),
        ("<a>x</a>", "x"),
        ("<a>1<!-- 2 -->3<?p 4?>5</a>", "135"),
        ("<a><!-- c --></a>", ""),
        ("<a>1<![CDATA[&2]]>3</a>", "1&23"),
        ("<a><!-- c --> x </a>", " x "),
    ],
)
def test_text_is_read_whole(xml: str, text: str) -> None:
    assert text_of(_element(xml)) == text
    assert text_of(_element(xml, strip_cdata=False)) == text


def test_text_has_no_elements_in_it() -> None:
    with pytest.raises(DecodeError, match="found an element <b> inside, expected text only"):
        text_of(_element("<a>1<b/>2</a>"))


def test_entities_are_refused_not_dropped() -> None:
    element = _element('<!DOCTYPE a [<!ENTITY e "x">]><a>1&e;2</a>')
    with pytest.raises(DecodeError, match="found the entity reference &e;"):
        text_of(element)
    with pytest.raises(DecodeError, match="found the entity reference &e;"):
        children(element)


def test_children_are_the_elements() -> None:
    element = _element("<a>x<b/><!-- c --><?p i?><c/></a>")
    assert [child.tag for child in children(element)] == ["b", "c"]
    assert children(_element("<a>x</a>")) == []


@pytest.mark.parametrize(
    ("text", "collapsed"), [("a", "a"), (" a ", "a"), ("a  b\n\tc", "a b c"), ("\xa0a", "\xa0a"), ("", "")]
)
def test_collapse(text: str, collapsed: str) -> None:
    assert collapse(text) == collapsed
