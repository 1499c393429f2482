import pytest
from lxml import etree

from xml_pipeline.envelope import message_text
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.steps.c14n import c14n, c14n_step
from xml_pipeline.message_bus.steps.repair import repair
from xml_pipeline.message_bus.steps.step import run_step
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

THREAD = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"
ENVELOPE = message_text('<Say xmlns=""><Text>hello</Text></Say>', "a", "b", THREAD)


async def test_missing_tree():
    state = await c14n_step(MessageState())
    assert "no envelope_tree" in state.error
    assert state.failure.step == "c14n"


def test_canonical_input_is_not_parsed_again():
    state = repair(MessageState(ENVELOPE))
    tree = state.envelope_tree
    c14n(state)
    assert state.envelope_tree is tree
    assert state.wire == ENVELOPE


@pytest.mark.parametrize(
    "raw",
    [
        b'<?xml version="1.0"?>' + ENVELOPE,
        ENVELOPE + b"\n",
        ENVELOPE.replace(b"<meta>", b"<meta >"),
        ENVELOPE.replace(b"hello", b"<!-- x -->hello"),
        ENVELOPE.replace(b"hello", b"<![CDATA[hello]]>"),
        ENVELOPE.replace(b"<message ", b'<message xmlns:unused="urn:x" '),
    ],
)
def test_other_input_is_replaced_by_the_tree_of_its_canonical_bytes(raw):
    state = repair(MessageState(raw))
    tree = state.envelope_tree
    c14n(state)
    assert state.wire == ENVELOPE
    assert state.envelope_tree is not tree
    assert state.envelope_tree.findtext(".//Text") == "hello"


def test_attribute_order_does_not_matter_afterwards():
    one, two = (
        c14n(repair(MessageState(b"<a %s/>" % attributes))).wire
        for attributes in (b'x="1" y="2" z="3"', b'z="3" x="1" y="2"')
    )
    assert one == two


def test_a_prefix_used_in_a_value_only_is_gone_from_tree_and_bytes_alike():
    raw = b'<a xmlns:p="urn:p" xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><i:b i:type="p:T"/></a>'
    state = c14n(repair(MessageState(raw)))
    assert b"urn:p" not in state.wire
    assert "p" not in state.envelope_tree[0].nsmap


def test_a_tree_that_somebody_made_is_cleaned_of_comments_and_instructions():
    tree = etree.fromstring(b"<a>1<!-- x -->2<?p q?>3</a>")
    assert tree.text == "1"
    state = c14n(MessageState(envelope_tree=tree))
    assert state.envelope_tree.text == "123"
    assert canonical_bytes(state.envelope_tree) == state.wire == b"<a>123</a>"


def test_the_wire_is_its_own_canonical_form():
    for raw in (ENVELOPE, b"<a> <b\n/>\r\n</a>", b"<p:a xmlns:p='urn:p' xmlns='urn:q'><b/></p:a>"):
        state = c14n(repair(MessageState(raw)))
        assert canonical_bytes(parse_strict(state.wire)) == canonical_bytes(state.envelope_tree) == state.wire


@pytest.mark.parametrize(
    "text",
    [
        b'<a xmlns="foo"/>',
        b'<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>',
        b'<a xmlns="u:&amp;"/>',
        b'<a xmlns="u:&amp;lt;"/>',
    ],
    ids=["relative namespace", "entity node", "namespace no longer XML", "namespace with another meaning"],
)
def test_a_tree_without_a_canonical_form_of_its_own_is_refused(text):
    tree = etree.fromstring(text, etree.XMLParser(resolve_entities=False))
    state = run_step(c14n, MessageState(envelope_tree=tree))
    assert state.error
    assert state.wire is None


def test_a_tree_that_text_would_not_stand_for_is_refused():
    tree = etree.Element("P")
    tree.set("{urn:x}a", "1")
    child = etree.Element("{urn:y}Q")
    child.set("{urn:x}a", "1")
    tree.append(child)  # lxml gives both namespaces the prefix ns0 here
    assert run_step(c14n, MessageState(envelope_tree=tree)).error
