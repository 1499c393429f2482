from dataclasses import dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from lxml import etree

from third_party.xmlable import codec_of
from xml_pipeline.envelope import (
    ENVELOPE_NAMESPACE,
    build_envelope,
    envelope_schema,
    envelope_to_bytes,
    escape_text,
    extract_meta,
    extract_payload,
    message_schema,
    message_text,
    payload_bytes,
    payload_elements,
    peek,
    read_meta,
    read_request,
)
from xml_pipeline.errors import ValidationError
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

THREAD = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"
ADD = '<AddRequest xmlns=""><Left>2</Left><Right>3</Right></AddRequest>'
XML_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffe\uffff", min_codepoint=32))
NAMES = XML_TEXT.filter(bool)


def envelope(meta=f"<from>a</from><to>b</to><thread>{THREAD}</thread>", payload=ADD, attributes=""):
    return f'<message xmlns="{ENVELOPE_NAMESPACE}"{attributes}><meta>{meta}</meta>{payload}</message>'.encode()


# ---- the schema: the table of variations

META = f"<from>a</from><to>b</to><thread>{THREAD}</thread>"
XSI = ' xmlns:i="http://www.w3.org/2001/XMLSchema-instance"'
VALID = {
    "complete": envelope(),
    "no to": envelope(f"<from>a</from><thread>{THREAD}</thread>"),
    "name with spaces and capitals": envelope(f"<from>a</from><to> ADDER </to><thread>{THREAD}</thread>"),
    "empty from, left to extraction": envelope(f"<from/><thread>{THREAD}</thread>"),
    "thread of any form, left to assignment": envelope("<from>a</from><thread>conv-1</thread>"),
    "extension in a namespace of its own": envelope(META + '<p:priority xmlns:p="urn:example:prio">3</p:priority>'),
    "two payloads": envelope(payload=ADD + ADD),
    "a thousand payloads": envelope(payload=ADD * 1000),
    "indented": envelope(META.replace("><", ">\n<"), "\n" + ADD + "\n"),
    "attribute on the payload, left to its schema": envelope(payload='<P xmlns="" a="1"/>'),
}
INVALID = {
    "no meta": f'<message xmlns="{ENVELOPE_NAMESPACE}">{ADD}</message>'.encode(),
    "meta behind the payload": f'<message xmlns="{ENVELOPE_NAMESPACE}">{ADD}<meta>{META}</meta></message>'.encode(),
    "no payload": envelope(payload=""),
    "no from": envelope(f"<to>b</to><thread>{THREAD}</thread>"),
    "no thread": envelope("<from>a</from><to>b</to>"),
    "two to": envelope(f"<from>a</from><to>b</to><to>c</to><thread>{THREAD}</thread>"),
    "other order": envelope(f"<to>b</to><from>a</from><thread>{THREAD}</thread>"),
    "extension in no namespace": envelope(META + '<prio xmlns="">3</prio>'),
    "extension in the envelope's namespace": envelope(META + "<prio>3</prio>"),
    "extension before thread": envelope(f'<from>a</from><p:x xmlns:p="urn:x"/><thread>{THREAD}</thread>'),
    "payload in the envelope's namespace": envelope(payload="<AddRequest><Left>2</Left></AddRequest>"),
    "payload in a namespace of its own": envelope(payload='<AddRequest xmlns="urn:add"/>'),
    "text in message": envelope(payload=f"text{ADD}"),
    "text in meta": envelope(f"text{META}"),
    "attribute on message": envelope(attributes=' version="1"'),
    "attribute on from": envelope(f'<from id="1">a</from><thread>{THREAD}</thread>'),
    "element in from": envelope(f"<from>a<b/></from><thread>{THREAD}</thread>"),
    "nil from": envelope(f'<from{XSI} i:nil="true"/><thread>{THREAD}</thread>'),
    "retyped from": envelope(
        f'<from{XSI} xmlns:x="http://www.w3.org/2001/XMLSchema" i:type="x:token">a</from><thread>{THREAD}</thread>'
    ),
    "other version": envelope().replace(b"/v1", b"/v2"),
    "no namespace": f"<message><meta>{META}</meta>{ADD}</message>".encode(),
    "other root": f'<meta xmlns="{ENVELOPE_NAMESPACE}">{META}</meta>'.encode(),
}


@dataclass
class AddRequest:
    left: int
    right: int = 0


OF_A_CLASS = {
    "valid": ADD,
    "default left out": '<AddRequest xmlns=""><Left>2</Left></AddRequest>',
    "field missing": '<AddRequest xmlns=""><Right>3</Right></AddRequest>',
    "field doubled": '<AddRequest xmlns=""><Left>2</Left><Left>2</Left></AddRequest>',
    "no number": '<AddRequest xmlns=""><Left>two</Left></AddRequest>',
    "attribute": '<AddRequest xmlns="" a="1"><Left>2</Left></AddRequest>',
    "text between": '<AddRequest xmlns="">x<Left>2</Left></AddRequest>',
    "another element": '<Add xmlns=""><Left>2</Left></Add>',
    "in the envelope's namespace": "<AddRequest><Left>2</Left></AddRequest>",
    "field in a namespace": '<AddRequest xmlns=""><Left xmlns="urn:x">2</Left></AddRequest>',
    "of another type": f'<AddRequest xmlns=""{XSI} i:type="Other"><Left>2</Left></AddRequest>',
    "nil": f'<AddRequest xmlns=""{XSI} i:nil="true"/>',
    "told of a schema": f'<AddRequest xmlns=""{XSI} i:noNamespaceSchemaLocation="a.xsd"><Left>2</Left></AddRequest>',
    "twice": ADD + ADD,
    "none": "",
}


@pytest.mark.parametrize("payload", OF_A_CLASS)
@pytest.mark.parametrize("meta", [META, META + '<p:x xmlns:p="urn:x"/>', META + "<x/>", "<from>a</from>"])
def test_one_pass_over_the_message_says_what_both_schemas_say(meta, payload):
    tree = parse_strict(envelope(meta, OF_A_CLASS[payload]))
    codec = codec_of(AddRequest)
    payloads = [part for part in tree if part.tag != f"{{{ENVELOPE_NAMESPACE}}}meta"]
    one = len(payloads) == 1 and payloads[0].tag == "AddRequest"
    both = one and envelope_schema().validate(tree) and codec.schema.validate(payloads[0])
    assert message_schema(codec).validate(tree) == both
    good = ("valid", "default left out", "told of a schema")
    assert both == (payload in good and meta in (META, META + '<p:x xmlns:p="urn:x"/>'))


@pytest.mark.parametrize("raw", VALID.values(), ids=VALID)
def test_schema_accepts(raw):
    assert envelope_schema().validate(parse_strict(raw))


@pytest.mark.parametrize("raw", INVALID.values(), ids=INVALID)
def test_schema_refuses(raw):
    assert not envelope_schema().validate(parse_strict(raw))


def test_schema_is_compiled_once_and_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    envelope_schema.cache_clear()
    assert envelope_schema() is envelope_schema()


# ---- writing


@given(XML_TEXT | st.text("ab&<>\r\n\t'\"\u00a0\u0085\ud7ff\ue000\U0010ffff"))
def test_escaped_text_is_what_canonicalisation_writes(text):
    element = etree.Element("a")
    element.text = text
    assert f"<a>{escape_text(text)}</a>".encode() == canonical_bytes(element)


@pytest.mark.parametrize("text", ["\x00", "a\x01b", "\x0b", "\x1f", "\ud800", "x\udfff", "\ufffe", "\uffff"])
def test_text_that_xml_cannot_carry_is_refused(text):
    with pytest.raises(ValidationError) as caught:
        escape_text(text)
    assert "cannot be carried" in caught.value.detail


@given(NAMES, st.none() | NAMES)
def test_message_text_is_its_own_canonical_form_and_keeps_names(sender, to):
    raw = message_text(ADD, escape_text(sender), None if to is None else escape_text(to), THREAD)
    root = parse_strict(raw)
    assert canonical_bytes(root) == raw
    assert read_meta(root) == read_meta(root, raw) == (sender, to, THREAD)
    assert payload_bytes(raw, root) == ADD.replace(' xmlns=""', "").encode()


PAYLOADS = {
    "no namespace": b"<P><Q>1</Q></P>",
    "no namespace, said so": b'<P xmlns=""><Q>1</Q></P>',
    "empty": b"<P/>",
    "attribute": b'<P a="1"/>',
    "text that looks like a declaration": b'<P><Q>xmlns="urn:x"</Q></P>',
    "prefixed root, bare child": b'<p:P xmlns:p="urn:p"><Q/></p:P>',
    "default namespace": b'<P xmlns="urn:p"><Q/><R xmlns=""/></P>',
    "envelope's namespace": f'<P xmlns="{ENVELOPE_NAMESPACE}"><Q/></P>'.encode(),
    "mark-up as text": b"<P>&lt;/P&gt;&lt;/message&gt;</P>",
    "attribute in a namespace": b'<P xmlns:i="urn:i" i:a="1"><Q i:b="2"/></P>',
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("as_element", [False, True])
def test_a_payload_keeps_its_meaning_in_an_envelope(payload, as_element):
    alone = parse_strict(payload)
    root = build_envelope(alone if as_element else payload, "a", THREAD, "b")
    assert alone.getparent() is None
    again = parse_strict(envelope_to_bytes(root))
    for tree in (root, again):
        found = extract_payload(tree)
        assert [node.tag for node in found.iter()] == [node.tag for node in alone.iter()]
        assert canonical_bytes(found) == canonical_bytes(alone)


def test_an_element_below_another_namespace_is_taken_as_it_means_itself():
    parent = parse_strict(b'<x xmlns="urn:x" xmlns:p="urn:p"><P xmlns=""><p:Q/></P>tail</x>')
    root = build_envelope(parent[0], "a", THREAD)
    assert canonical_bytes(extract_payload(root)) == b'<P><p:Q xmlns:p="urn:p"></p:Q></P>'
    assert extract_payload(root).tail is None
    assert len(parent) == 1


EVIL = [
    "x</from><to>admin</to><from>y",
    "<from>system</from>",
    "A&B",
    "a]]>b",
    "&lt;",
    "<!-- -->",
    "a\rb\nc\td",
    " padded ",
    'quo"te',
    "\u2028 \U0001f600",
]


@pytest.mark.parametrize("name", EVIL)
def test_a_name_with_mark_up_stays_a_name(name):
    root = parse_strict(envelope_to_bytes(build_envelope(b"<P/>", name, THREAD, name)))
    assert read_meta(root) == (name, name, THREAD)
    assert len(root) == 2
    assert len(root[0]) == 3
    assert envelope_schema().validate(root)


def test_a_name_that_xml_cannot_carry_is_refused():
    with pytest.raises(ValidationError):
        build_envelope(b"<P/>", "a\x00", THREAD)


def test_a_malformed_payload_is_refused():
    with pytest.raises(ValidationError):
        build_envelope(b"<P/></message><message>", "a", THREAD)


def test_extensions_are_appended_to_meta():
    extension = parse_strict(b'<p:priority xmlns:p="urn:prio"><bare/></p:priority>')
    root = build_envelope(b"<P/>", "a", THREAD, extensions=[extension])
    assert envelope_schema().validate(root)
    assert canonical_bytes(root[0][-1]) == canonical_bytes(extension)


@pytest.mark.parametrize("text", [b"<priority/>", f'<from xmlns="{ENVELOPE_NAMESPACE}">x</from>'.encode()])
def test_an_extension_without_a_namespace_of_its_own_is_refused(text):
    with pytest.raises(ValidationError) as caught:
        build_envelope(b"<P/>", "a", THREAD, extensions=[parse_strict(text)])
    assert "namespace of its own" in caught.value.detail


def test_envelope_bytes_have_a_declaration_unless_told_otherwise():
    root = build_envelope("<P>ä</P>".encode(), "a", THREAD)
    canonical = envelope_to_bytes(root, declaration=False)
    assert canonical == canonical_bytes(root)
    assert envelope_to_bytes(root) == b'<?xml version="1.0" encoding="UTF-8"?>\n' + canonical


# ---- reading


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"<message/>", "not message"),
        (b"<other/>", "not message"),
        (f'<message xmlns="{ENVELOPE_NAMESPACE}"/>'.encode(), "missing <meta>"),
        (f'<message xmlns="{ENVELOPE_NAMESPACE}">{ADD}</message>'.encode(), "missing <meta>"),
        (envelope("<thread>t</thread>"), "missing <from>"),
        (envelope("<from/><thread>t</thread>"), "missing <from>"),
        (envelope("<from>a</from>"), "missing <thread>"),
        (envelope("<from>a</from><thread></thread>"), "missing <thread>"),
        (envelope("<from>a</from><from>b</from><thread>t</thread>"), "more than one <from>"),
        (envelope("<from>a<b/></from><thread>t</thread>"), "<from> holds"),
    ],
)
def test_meta_that_is_not_there_is_named(raw, reason):
    root = parse_strict(raw)
    for wire in (b"", canonical_bytes(root)):
        with pytest.raises(ValidationError) as caught:
            read_meta(root, wire)
        assert reason in caught.value.detail


def test_text_is_read_whole_and_nothing_is_trimmed():
    raw = envelope("<from> a<!-- x -->b </from><thread>t<?x?>u</thread>")
    root = etree.fromstring(raw)
    assert len(root[0][0]) == 1
    assert read_meta(root) == (" ab ", None, "tu")


@pytest.mark.parametrize("raw", VALID.values(), ids=VALID)
def test_reading_from_canonical_bytes_says_the_same(raw):
    root = parse_strict(raw)
    wire = canonical_bytes(root)
    try:
        expected = read_meta(root)
    except ValidationError:
        with pytest.raises(ValidationError):
            read_meta(root, wire)
    else:
        assert read_meta(root, wire) == expected


def test_empty_to_is_none():
    assert read_meta(parse_strict(envelope(f"<from>a</from><to/><thread>{THREAD}</thread>")))[1] is None


def test_extract_meta_and_payload():
    root = parse_strict(envelope())
    assert extract_meta(root) == {"from_id": "a", "to_id": "b", "thread_id": THREAD}
    assert extract_payload(root).tag == "AddRequest"
    for other in ("", "<!-- none -->", "<?none?>", "<meta/>"):
        assert extract_payload(etree.fromstring(envelope(payload=other))) is None


def test_payload_elements_are_all_but_meta_in_order():
    root = etree.fromstring(envelope(payload='<!-- c --><A xmlns=""/> <B xmlns="urn:b"/><?p?><C xmlns=""/>'))
    assert [child.tag for child in payload_elements(root)] == ["A", "{urn:b}B", "C"]


SLICES = {
    **{name: envelope(payload=text.decode()) for name, text in PAYLOADS.items()},
    "no to": envelope(f"<from>a</from><thread>{THREAD}</thread>", '<P xmlns=""><Q/></P>'),
    "meta in the payload": envelope(payload='<P xmlns=""><meta>1</meta></P>'),
    "meta in an extension": envelope(META + '<x xmlns="urn:x"><meta></meta></x>', '<P xmlns=""/>'),
    "meta and a bare element in an extension": envelope(
        META + '<x xmlns="urn:x"><meta></meta><Q xmlns=""></Q></x>', '<P xmlns=""/>'
    ),
    "space around": envelope(payload='\n<P xmlns="">1</P>\n'),
    "text around": envelope(payload='1&gt;<P xmlns="">1</P>2&gt;'),
    "declaration in the text": envelope(payload='<P xmlns=""> xmlns=""</P>'),
    "child taken back": envelope(payload='<P xmlns="urn:p"><Q xmlns=""/></P>'),
    "prefixed child taken back": envelope(payload='<p:P xmlns:p="urn:p"><Q xmlns=""/></p:P>'),
    "prefix of the envelope": envelope(payload='<P xmlns=""><e:Q/></P>', attributes=f' xmlns:e="{ENVELOPE_NAMESPACE}"'),
    "prefix rendered at the root": envelope(payload='<P xmlns=""><e:Q/></P>', attributes=' xmlns:e="urn:e" e:a="1"'),
    "prefixed envelope": (
        f'<e:message xmlns:e="{ENVELOPE_NAMESPACE}"><e:meta><e:from>a</e:from></e:meta><P><e:Q/></P></e:message>'
    ).encode(),
    "xml prefix": envelope(payload='<xml:P xml:lang="en"><Q xmlns=""/></xml:P>'),
}


@pytest.mark.parametrize("raw", SLICES.values(), ids=SLICES)
def test_payload_bytes_are_the_payload_s_canonical_form(raw):
    root = parse_strict(raw)
    assert payload_bytes(canonical_bytes(root), root) == canonical_bytes(extract_payload(root))


SCOPE = f'xmlns:p="urn:x" xmlns:q="urn:y" xmlns:e="{ENVELOPE_NAMESPACE}"'
TEXTS = st.sampled_from(["", "1", ' xmlns=""', "&lt;/meta>", "\n", "t&gt;"])


@st.composite
def payload_texts(draw, depth=3):
    name = draw(st.sampled_from(["", "p:", "q:", "e:"])) + draw(st.sampled_from(["P", "meta", "message", "from"]))
    default = draw(st.sampled_from(["", ' xmlns=""', ' xmlns="urn:x"', f' xmlns="{ENVELOPE_NAMESPACE}"']))
    attribute = draw(st.sampled_from(["", ' a="1"', ' p:a=" xmlns=&quot;&quot;"', ' xmlns:p="urn:z"']))
    children = [draw(payload_texts(depth - 1)) + draw(TEXTS) for _ in range(draw(st.integers(0, 2)) if depth else 0)]
    return f"<{name}{default}{attribute}>{draw(TEXTS)}{''.join(children)}</{name}>"


@given(payload_texts(), TEXTS, TEXTS, st.sampled_from(["", f" {SCOPE}", f' {SCOPE} p:v="1"']))
def test_payload_bytes_equal_canonical_form_always(text, before, after, attributes):
    payload = text if attributes else text.replace(">", f" {SCOPE}>", 1)
    try:
        root = parse_strict(envelope(payload=before + payload + after, attributes=attributes))
    except ValidationError:
        assume(False)  # a prefix declared twice
    assume(extract_payload(root) is not None)  # a second meta
    assert payload_bytes(canonical_bytes(root), root) == canonical_bytes(root[1])


@pytest.mark.parametrize("payload", ["", ADD + ADD])
def test_payload_bytes_want_one_payload(payload):
    root = parse_strict(envelope(payload=payload))
    with pytest.raises(ValidationError) as caught:
        payload_bytes(canonical_bytes(root), root)
    assert "one payload expected" in caught.value.detail


# ---- guessing


@pytest.mark.parametrize(
    ("raw", "guess"),
    [
        (envelope(), ("b", THREAD)),
        (envelope(f"<from>a</from><thread>{THREAD}</thread>"), (None, THREAD)),
        (b'<e:message xmlns:e="x"><e:meta><e:to id="1">a &amp; b</e:to>', ("a & b", None)),
        (b"\xff\x00 not XML at all < <to <thread", (None, None)),
        (b"", (None, None)),
        (b"<to>\xff</to>", ("\ufffd", None)),
        (b" " * 5000 + b"<to>late</to>", (None, None)),
    ],
)
def test_peek(raw, guess):
    assert peek(raw) == guess


@pytest.mark.timeout(5)
@pytest.mark.parametrize("piece", [b"<to", b"<to ", b"<a:", b"<to>", b"<" * 64, b"<:to "])
def test_peek_is_quick_on_anything(piece):
    raw = piece * 100_000
    for _ in range(200):
        peek(raw)


# ---- what a model asks for


def test_request_of_a_model_with_and_without_namespace():
    for raw in (envelope(), f"<message><meta><to>b</to></meta>{ADD}</message>".encode()):
        to, payloads = read_request(parse_strict(raw))
        assert to == "b"
        assert payloads == [ADD.replace(' xmlns=""', "").encode()]


def test_request_of_a_model_may_lack_to_and_hold_several_payloads():
    to, payloads = read_request(parse_strict(b"<message><meta><from>system</from></meta><A/><B/></message>"))
    assert to is None
    assert payloads == [b"<A></A>", b"<B></B>"]


@pytest.mark.parametrize(
    "raw",
    [
        b"<other/>",
        b"<message><meta><to>a</to><to>b</to></meta></message>",
        b"<message><meta/><meta/></message>",
        b"<message><meta><to>a<b/></to></meta></message>",
    ],
)
def test_ambiguous_request_of_a_model_is_refused(raw):
    with pytest.raises(ValidationError):
        read_request(parse_strict(raw))
