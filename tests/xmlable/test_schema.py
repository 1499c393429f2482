from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from lxml import etree

from third_party.xmlable import codec_of

from .helpers import accepts

XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


@dataclass
class Leaf:
    size: int


@dataclass
class Tree:
    name: str
    leaf: Leaf
    trees: list[Tree] = field(default_factory=list)
    note: str = field(default="", metadata={"description": "What else."})


def test_shape() -> None:
    root = codec_of(Tree).xsd().getroot()
    assert dict(root.attrib) == {"id": "Tree", "elementFormDefault": "qualified", "blockDefault": "#all"}
    assert [(etree.QName(child).localname, child.get("name")) for child in root] == [
        ("complexType", "Leaf"),
        ("complexType", "Tree"),
        ("element", "Tree"),
    ]
    assert "nillable" not in etree.tostring(root).decode()


def test_fields_with_a_default_are_optional() -> None:
    [fields] = codec_of(Tree).xsd().getroot()[1]
    assert [(element.get("name"), element.get("minOccurs")) for element in fields] == [
        ("Name", None),
        ("Leaf", None),
        ("Trees", "0"),
        ("Note", "0"),
    ]


def test_descriptions_become_documentation() -> None:
    assert "<xs:documentation>What else.</xs:documentation>" in etree.tostring(codec_of(Tree).xsd()).decode()


VALID = "<Tree><Name>x</Name><Leaf><Size>1</Size></Leaf></Tree>"


@pytest.mark.parametrize(
    "xml",
    [
        "<tree><Name>x</Name><Leaf><Size>1</Size></Leaf></tree>",
        "<Tree><Leaf><Size>1</Size></Leaf><Name>x</Name></Tree>",
        "<Tree a='1'><Name>x</Name><Leaf><Size>1</Size></Leaf></Tree>",
        "<Tree>text<Name>x</Name><Leaf><Size>1</Size></Leaf></Tree>",
        '<Tree xmlns="urn:x"><Name>x</Name><Leaf><Size>1</Size></Leaf></Tree>',
        f"<Tree {XSI}><Name>x</Name><Leaf xsi:nil='true'/></Tree>",
        f"<Tree {XSI}><Name>x</Name><Leaf xsi:type='Tree'><Name>y</Name><Leaf><Size>1</Size></Leaf></Leaf></Tree>",
        "<Leaf><Size>1</Size></Leaf>",
    ],
)
def test_the_schema_is_strict(xml: str) -> None:
    assert accepts(codec_of(Tree), VALID)
    assert not accepts(codec_of(Tree), xml)


def test_classes_of_one_name_keep_their_own_types() -> None:
    def other() -> type:
        @dataclass
        class Leaf:
            color: str

        return Leaf

    Other = other()  # noqa: N806 - a class

    @dataclass
    class Both:
        mine: Leaf
        other: Other  # type: ignore[valid-type]

    both = Both(Leaf(1), Other("red"))
    codec = codec_of(Both)
    assert accepts(codec, codec.encode(both))
    assert codec.decode_text(codec.encode(both)) == both
    assert set(codec.json_schema()["$defs"]) == {"Leaf", "Leaf_"}


def test_name_namespaces_and_imports() -> None:
    schema = codec_of(Leaf).xsd("Blatt", {"x": "urn:x"}, {"urn:x": "x.xsd"}).getroot()
    assert schema.get("id") == "Blatt"
    assert schema.nsmap["x"] == "urn:x"
    assert schema[0].attrib == {"namespace": "urn:x", "schemaLocation": "x.xsd"}
    assert schema[-1].attrib == {"name": "Blatt", "type": "Leaf"}


def test_names_that_only_newer_standards_know_are_refused_at_decoration() -> None:
    cls = dataclass(type("Ƕ", (), {"__annotations__": {"a": int}}))
    with pytest.raises(ValueError, match="a name has letters that XML Schema does not know"):
        codec_of(cls)


@pytest.mark.parametrize("name", ["Größe", "Имя", "名前", "Ώρα"])
def test_names_of_other_scripts(name: str) -> None:
    cls = dataclass(type(name, (), {"__annotations__": {"größe": int}}))
    codec = codec_of(cls)
    assert accepts(codec, codec.encode(cls(1)))  # type: ignore[call-arg]
    assert codec.decode_text(codec.encode(cls(1))) == cls(1)  # type: ignore[call-arg]
