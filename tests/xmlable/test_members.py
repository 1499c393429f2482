from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from lxml import etree, objectify

from third_party.xmlable import DecodeError, codec_of, xmlify
from third_party.xmlable.members import MEMBER_NAMES


@dataclass
class _Inner:
    x: int


@xmlify
@dataclass
class _Outer:
    text: str
    inner: _Inner


Outer: Any = _Outer  # the members are put on at run time, where type checkers do not see them
OUTER = _Outer("007", _Inner(1))


def test_all_members_are_there() -> None:
    assert all(callable(getattr(Outer, name)) for name in MEMBER_NAMES)


def test_xsd() -> None:
    assert isinstance(Outer.xsd(), etree._ElementTree)
    assert etree.tostring(Outer.xsd()) == etree.tostring(codec_of(Outer).xsd())
    assert Outer.xsd(id="Other", namespaces={}, imports={}).getroot()[-1].get("name") == "Other"


def test_xml_is_a_template() -> None:
    root = Outer.xml().getroot()
    assert root.tag == "_Outer"
    assert isinstance(root[0][0], etree._Comment)
    assert "other.xsd" in etree.tostring(Outer.xml(schema_name="other")).decode()


def test_xml_value_is_a_document() -> None:
    document = Outer.xml_value(OUTER)
    assert isinstance(document, etree._ElementTree)
    assert etree.tostring(document).decode() == codec_of(_Outer).encode(OUTER)
    named = OUTER.xml_value(id="Named")  # type: ignore[attr-defined]
    assert named.getroot().tag == "Named"
    assert etree.XMLSchema(Outer.xsd(id="Named")).validate(named)


def test_parse_takes_objectify_and_lxml_whatever_the_name() -> None:
    text = codec_of(_Outer).encode(OUTER).replace("_Outer", "Any")
    assert Outer.parse(objectify.fromstring(text)) == OUTER
    assert Outer.parse(etree.fromstring(text)) == OUTER
    with pytest.raises(DecodeError, match=r"^_Outer.text: the element <Text> is missing"):
        Outer.parse(etree.Element("x"))


def test_internals() -> None:
    assert Outer.get_xobject() is codec_of(_Outer)
    assert Outer.xsd_dependencies() == {_Inner}
    assert Outer.xsd_forward({"x": "urn:x"}).get("name") == "_Outer"
    assert Outer.xsd_forward({"x": "urn:x"}).nsmap["x"] == "urn:x"
