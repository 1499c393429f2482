from __future__ import annotations

from dataclasses import dataclass

import pytest
from lxml import etree

from third_party.xmlable import DecodeError, EncodeError
from third_party.xmlable.build import record_of
from third_party.xmlable.compile import compiled


@dataclass
class Pair:
    left: int
    right: int = 0


def test_five_functions() -> None:
    functions = compiled(record_of(Pair))
    pair = Pair(1, 2)
    assert functions.write(pair) == "<Left>1</Left><Right>2</Right>"
    assert functions.encode(pair) == "<Pair><Left>1</Left><Right>2</Right></Pair>"
    assert functions.encode_payload(pair) == '<Pair xmlns=""><Left>1</Left><Right>2</Right></Pair>'
    assert functions.read(etree.fromstring("<Any><Left>1</Left><Right>2</Right></Any>")) == pair
    assert functions.decode(etree.fromstring("<Pair><Left>1</Left><Right>2</Right></Pair>")) == pair


@pytest.mark.parametrize("name", ["Other", "pair", "{urn:x}Pair"])
def test_decode_looks_at_the_roots_name(name: str) -> None:
    element = etree.Element(name)
    etree.SubElement(element, "Left").text = "1"
    with pytest.raises(DecodeError, match=rf"^Pair: found the element <{name}>, expected <Pair>"):
        compiled(record_of(Pair)).decode(element)


def test_only_the_outer_functions_name_the_class() -> None:
    functions = compiled(record_of(Pair))
    with pytest.raises(EncodeError, match=r"^left: found"):
        functions.write(Pair("x"))  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match=r"^Pair.left: found"):
        functions.encode(Pair("x"))  # type: ignore[arg-type]


def test_a_tree_too_deep_to_read_is_refused() -> None:
    @dataclass
    class Deep:
        inner: Deep | None = None

    root = element = etree.Element("Deep")
    for _ in range(5_000):
        element = etree.SubElement(element, "Inner")
    with pytest.raises(DecodeError, match=r"it is nested too deeply"):
        compiled(record_of(Deep)).decode(root)
