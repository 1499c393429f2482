import threading
import time
from xml.parsers import expat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from xml_pipeline import strict_xml
from xml_pipeline.errors import ValidationError
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

XXE = b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>'
LAUGHS = (
    b'<!DOCTYPE a [<!ENTITY a "haha">'
    + b"".join(b'<!ENTITY %c "%s">' % (c, b"&%c;" % (c - 1) * 10) for c in range(ord("b"), ord("m")))
    + b"]><a>&l;</a>"
)

REFUSED = {
    "nothing": (b"", "empty"),
    "blanks": (b" \n ", "not well-formed"),
    "text only": (b"hello", "not well-formed"),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "not UTF-8"),
    "cut in a tag": (b"<a><b", "not well-formed"),
    "cut in text": (b"<a>10", "not well-formed"),
    "two roots": (b"<a/><b/>", "Extra content"),
    "text before the root": (b"hello <a/>", "not well-formed"),
    "text behind the root": (b"<a/> hello", "Extra content"),
    "stray end tag": (b"<a></zzz></a>", "mismatch"),
    "stray ampersand": (b"<a>R&D</a>", "not well-formed"),
    "unknown entity": (b"<a>&nbsp;</a>", "nbsp"),
    "stray less-than": (b"<a>x<5</a>", "not well-formed"),
    "]]> in text": (b"<a>]]></a>", "not allowed in content"),
    "unclosed CDATA": (b"<a><![CDATA[x</a>", "not well-formed"),
    "unclosed comment": (b"<a><!-- x</a>", "not well-formed"),
    "-- in a comment": (b"<a><!-- -- --></a>", "comment"),
    "NUL": (b"<a>\x00</a>", "not well-formed"),
    "control character": (b"<a>\x01</a>", "not well-formed"),
    "reference to a control character": (b"<a>&#1;</a>", "not well-formed"),
    "reference to a surrogate": (b"<a>&#xD800;</a>", "not well-formed"),
    "U+FFFF": ("<a>\uffff</a>".encode(), "not well-formed"),
    "duplicate attribute": (b'<a b="1" b="2"/>', "redefined"),
    "duplicate attribute by two prefixes": (b'<a xmlns:p="u:1" xmlns:q="u:1" p:b="1" q:b="2"/>', "redefined"),
    "unquoted attribute": (b'<m from=a to="b">1</m>', "not well-formed"),
    "undeclared prefix": (b"<x:a/>", "not defined"),
    "undeclared prefix of an attribute": (b'<a x:b="1"/>', "not defined"),
    "prefix undeclared by an empty name": (b'<a xmlns:p=""/>', "Empty XML namespace"),
    "relative namespace": (b'<a xmlns="foo"/>', "relative"),
    "relative namespace of an unused prefix": (b'<a xmlns:p="foo"/>', "relative"),
    "relative namespace behind a reference": (b'<a xmlns="&#102;oo"/>', "relative"),
    "relative namespace in single quotes": (b"<a xmlns\n=\n'../foo'/>", "relative"),
    "ampersand in a namespace": (b'<a xmlns="u:a&amp;b"/>', "not a URI"),
    "ampersand twice escaped in a namespace": (b'<a xmlns="u:&amp;lt;"/>', "not a URI"),
    "document type": (b"<!DOCTYPE a><a/>", "document type"),
    "document type behind a comment": (b"<?xml version='1.0'?>\n<!-- - -->\n<!DOCTYPE a><a/>", "document type"),
    "external document type": (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type"),
    "external parameter entity": (b'<!DOCTYPE a [<!ENTITY % p SYSTEM "http://127.0.0.1/x">%p;]><a/>', "document type"),
    "entity of a local file": (XXE, "document type"),
    "billion laughs": (LAUGHS, "document type"),
    "quadratic blow-up": (
        b'<!DOCTYPE a [<!ENTITY e "' + b"x" * 100_000 + b'">]><a>' + b"&e;" * 30_000,
        "document type",
    ),
    "attribute default": (b'<!DOCTYPE a [<!ATTLIST a to CDATA "evil">]><a/>', "document type"),
    "UTF-16": ("<a/>".encode("utf-16"), "not UTF-8"),
    "UTF-16 without mark": ("<a/>".encode("utf-16-le"), "not well-formed"),
    "UTF-16 without mark, in ASCII bytes": ('<?xml version="1.0"?><a/>'.encode("utf-16-le"), "not well-formed"),
    "UTF-32": ("<a/>".encode("utf-32"), "not UTF-8"),
    "EBCDIC": ("<a/>".encode("cp037"), "not UTF-8"),
    "UTF-7": (b"+ADw-a/+AD4-", "not well-formed"),
    "declared UTF-7": (b'<?xml version="1.0" encoding="UTF-7"?><a>+ADw-evil/+AD4-</a>', "declares"),
    "declared Shift JIS": (b"<?xml version='1.0' encoding='shift_jis'?><a/>", "declares"),
    "declared HZ behind a mark": (b"\xef\xbb\xbf<?xml version='1.0' encoding='hz'?><a/>", "declares"),
    "declared UTF-16": (b'<?xml version="1.0" encoding="UTF-16"?><a/>', "declares"),
    "overlong UTF-8": (b"<a>\xc0\xbc</a>", "not UTF-8"),
    "surrogate in UTF-8": (b"<a>\xed\xa0\x80</a>", "not UTF-8"),
    "broken UTF-8 in a comment": (b"<a><!-- \xff --></a>", "not UTF-8"),
    "300 levels": (b"<a>" * 300 + b"</a>" * 300, "depth"),
    "a million unclosed tags": (b"<a>" * 1_000_000, "not well-formed"),
    "11 MB in one text": (b"<a>" + b"x" * 11_000_000 + b"</a>", "not well-formed"),
}

ACCEPTED = {
    "empty element": (b"<a/>", b"<a></a>"),
    "byte order mark": (b"\xef\xbb\xbf<a/>", b"<a></a>"),
    "declaration": (b'<?xml version="1.0" encoding="utf-8" standalone="yes"?>\n<a/>\n', b"<a></a>"),
    "declaration in capitals": (b"\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?><a/>", b"<a></a>"),
    "attribute order": (b'<a c="1" b="2"/>', b'<a b="2" c="1"></a>'),
    "CDATA": (b"<a>1<![CDATA[ < ]]>2</a>", b"<a>1 &lt; 2</a>"),
    "document type in CDATA": (b"<a><![CDATA[<!DOCTYPE a>]]></a>", b"<a>&lt;!DOCTYPE a&gt;</a>"),
    "document type in a comment": (b"<!-- <!DOCTYPE a> --><a/>", b"<a></a>"),
    "relative namespace in text": (b'<a>xmlns="foo"</a>', b'<a>xmlns="foo"</a>'),
    "namespace in single quotes": (b"<p:a xmlns:p = 'urn:x'/>", b'<p:a xmlns:p="urn:x"></p:a>'),
    "default namespace taken back": (b"<a xmlns='urn:x'><b xmlns=''/></a>", b'<a xmlns="urn:x"><b xmlns=""></b></a>'),
    "comment in text": (b"<a>admin<!-- -->.evil</a>", b"<a>admin.evil</a>"),
    "instruction in text": (b"<a>admin<?x y?>.evil</a>", b"<a>admin.evil</a>"),
    "carriage return": (b"<a>1\r\n2&#13;3</a>", b"<a>1\n2&#xD;3</a>"),
    "beyond the basic plane": ("<a>\U0001f600\u0085</a>".encode(), "<a>\U0001f600\u0085</a>".encode()),
    "100 levels": (b"<a>" * 100 + b"</a>" * 100, b"<a>" * 100 + b"</a>" * 100),
    "XInclude, inert": (
        b'<i:include xmlns:i="http://www.w3.org/2001/XInclude" href="/etc/passwd" parse="text"/>',
        b'<i:include xmlns:i="http://www.w3.org/2001/XInclude" href="/etc/passwd" parse="text"></i:include>',
    ),
    "prefix used in a value only": (
        b'<a xmlns:p="urn:p" xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:type="p:T"/>',
        b'<a xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:type="p:T"></a>',
    ),
}


@pytest.mark.parametrize(("raw", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_with_a_reason_and_the_parser_stays_usable(raw, reason):
    began = time.perf_counter()
    with pytest.raises(ValidationError) as caught:
        parse_strict(raw)
    assert reason in caught.value.detail
    assert len(caught.value.detail) < 500
    assert time.perf_counter() - began < 1
    assert canonical_bytes(parse_strict(b"<a>1</a>")) == b"<a>1</a>"


@pytest.mark.parametrize(("raw", "canonical"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_and_canonicalised(raw, canonical):
    assert canonical_bytes(parse_strict(raw)) == canonical
    assert canonical_bytes(parse_strict(canonical)) == canonical


def test_comments_and_instructions_leave_text_whole():
    root = parse_strict(b"<a>1<!-- x -->2<?y?>3<b/><!-- x --></a>")
    assert root.text == "123"
    assert [child.tag for child in root] == ["b"]


def test_an_interrupted_parse_is_not_continued_by_the_next(monkeypatch):
    parser = strict_xml._new_parser()

    class Interrupted:
        def feed(self, raw):
            parser.feed(raw)
            raise KeyboardInterrupt

    monkeypatch.setattr(strict_xml._local, "parser", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        parse_strict(b"<a>")
    assert canonical_bytes(parse_strict(b"<b/>")) == b"<b></b>"


def test_every_thread_has_a_parser_of_its_own():
    wrong = []

    def work(number):
        for turn in range(200):
            text = b"<a>%d-%d</a>" % (number, turn)
            if canonical_bytes(parse_strict(text)) != text:
                wrong.append(text)
            try:
                parse_strict(b"<a>")
            except ValidationError:
                continue
            wrong.append(b"accepted")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_canonical_form_leaves_out_the_tail_and_takes_along_namespaces():
    root = parse_strict(b'<a xmlns:p="urn:p"> <p:b/> tail </a>')
    assert canonical_bytes(root[0]) == b'<p:b xmlns:p="urn:p"></p:b>'


@pytest.mark.parametrize("text", [b'<a xmlns="foo"/>', b'<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>'])
def test_what_has_no_canonical_form_is_refused_never_empty(text):
    root = etree.fromstring(text, etree.XMLParser(resolve_entities=False))
    with pytest.raises(ValidationError, match="not valid"):
        canonical_bytes(root)


FRAGMENTS = [
    *(b"&amp; &lt; &nbsp; &#1; &#x41; & < > </ /> <b> </b> <!-- --> <![CDATA[ ]]> <?p?> ' \" =".split()),
    *(b' xmlns="foo"| xmlns=""| xmlns:p="u:1"|p:| c="1" c="2"|<!DOCTYPE a>| xmlns:q="u:&amp;"'.split(b"|")),
    b"\xff",
    b"\x00",
    b"\r",
    b"\xc3\xa9",
]
SEED = b'<?xml version="1.0"?><a xmlns="urn:x" c="1"><p:b xmlns:p="urn:p">text</p:b><!-- c --><d xmlns="">1</d></a>'


@st.composite
def mutants(draw, seed=SEED):
    raw = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        if draw(st.booleans()):
            raw[at:at] = draw(st.sampled_from(FRAGMENTS))
        else:
            del raw[at : at + draw(st.integers(1, 12))]
    return bytes(raw)


@settings(max_examples=1500, deadline=None)
@given(mutants())
def test_a_mutant_is_refused_or_has_a_strict_canonical_form_that_others_read_alike(raw):
    try:
        root = parse_strict(raw)
    except ValidationError:
        return
    canonical = canonical_bytes(root)
    assert canonical_bytes(parse_strict(canonical)) == canonical
    assert seen_by_expat(canonical) == seen_by_lxml(parse_strict(canonical))


def seen_by_expat(text):
    seen = []
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler = lambda name, attributes: seen.append((name, sorted(attributes.items())))
    parser.CharacterDataHandler = seen.append
    parser.EndElementHandler = lambda name: seen.append(f"/{name}")
    parser.Parse(text, True)
    return seen


def seen_by_lxml(element):
    name = element.tag.removeprefix("{")
    seen = [(name, sorted((key.removeprefix("{"), value) for key, value in element.items()))]
    seen += [element.text] if element.text else []
    for child in element:
        seen += seen_by_lxml(child)
        seen += [child.tail] if child.tail else []
    return [*seen, f"/{name}"]
