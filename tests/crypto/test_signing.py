"""Signing: bytes and trees, copies and in place, and what cannot be signed."""

from __future__ import annotations

import base64
import math
import uuid

import pytest
from hypothesis import given
from lxml import etree

from xml_pipeline.crypto import Policy
from xml_pipeline.crypto.refusals import SignatureError
from xml_pipeline.crypto.signature import Signature, find_signature
from xml_pipeline.crypto.signing import (
    SIGNATURE_NAMESPACE,
    extract_signature,
    is_signed,
    sign,
    sign_envelope,
    strip_signature,
    verify_envelope,
    verify_envelope_with_identity,
)
from xml_pipeline.envelope import (
    ENVELOPE_NAMESPACE,
    build_envelope,
    envelope_schema,
    envelope_to_bytes,
    escape_text,
    extract_meta,
    message_text,
)
from xml_pipeline.errors import ValidationError
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

from .kit import BANK, HERE, NOON, SHOP, SMALL, THREAD, Door, envelope, signed, trusting
from .test_signature import XML_TEXT


def tree(payload: bytes = b"<Ping><Text>hello</Text></Ping>", to: str | None = "billing") -> etree._Element:
    return build_envelope(payload, "shop.clerk", THREAD, to)


def signature_in(wire: bytes) -> Signature:
    found = find_signature(parse_strict(wire))
    assert found is not None
    return Signature.read(found)


# -- bytes


def test_what_is_sent_is_canonical_valid_and_holds_the_envelope_as_it_was():
    wire = sign(SMALL, SHOP, destination=HERE, message_id="m-1", created=NOON)
    root = parse_strict(wire)
    assert canonical_bytes(root) == wire
    assert envelope_schema().validate(root)  # the schema allows it, so that also older peers let it pass
    text = canonical_bytes(root[0][-1])
    assert wire.replace(text, b"") == SMALL
    said = signature_in(wire)
    assert (said.key_id, said.created, said.message_id, said.destination) == (
        SHOP.key_id,
        "2027-01-15T08:00:00.000Z",
        "m-1",
        HERE,
    )
    assert SHOP.verify(said.value, said.signed_bytes(SMALL))


def test_signing_is_deterministic():
    once, twice = (sign(SMALL, SHOP, destination=HERE, message_id="m-1", created=NOON) for _ in range(2))
    assert once == twice


def test_each_sending_has_an_id_and_the_time_of_now(monkeypatch):
    monkeypatch.setattr("time.time", lambda: NOON)
    one, two = (signature_in(sign(SMALL, SHOP, destination=HERE)) for _ in range(2))
    assert one.message_id != two.message_id and uuid.UUID(one.message_id).version == 4
    assert one.time == two.time == NOON


@given(sender=XML_TEXT.filter(len), to=XML_TEXT, text=XML_TEXT, destination=XML_TEXT.filter(len))
def test_whatever_can_be_said_can_be_signed(sender, to, text, destination):
    raw = message_text(f'<P xmlns="">{escape_text(text)}</P>', escape_text(sender), escape_text(to), THREAD)
    wire = signed(raw, destination=destination)
    name = sender if sender.strip() == sender and "*" not in sender else ""
    if name:
        door = Door(trusting((SHOP, "x", Policy.REQUIRE)))
        object.__setattr__(door.trust.keys[0], "names", (name,))
        assert door.takes(wire, destination).envelope == raw
    assert canonical_bytes(strip_signature(parse_strict(wire))) == raw
    assert verify_envelope(parse_strict(wire), SHOP.public_key)


def test_what_is_not_canonical_is_made_so():
    untidy = SMALL.replace(b"<Text>", b"<Text  ><!-- not signed -->").replace(b"<meta>", b"<?pi not signed?>\n<meta >")
    wire = signed(b'<?xml version="1.0"?>\n' + untidy)
    assert canonical_bytes(parse_strict(wire)) == wire and b"not signed" not in wire
    assert Door().takes(wire).envelope == canonical_bytes(parse_strict(untidy))


@pytest.mark.parametrize(
    "raw",
    [
        SMALL.replace(b"<meta>", b"<meta>\n  ").replace(b"</meta>", b"\n</meta>"),
        SMALL.replace(b"</meta>", b'<x xmlns="urn:x"><meta></meta></x></meta>'),
        SMALL.replace(b"</meta>", b'<x xmlns="urn:x" a="&lt;/meta>">&lt;sig&gt;</x> text of nobody </meta>'),
        SMALL.replace(b"hello", SIGNATURE_NAMESPACE.encode()),
        b'<e:message xmlns:e="%s"><e:meta><e:from>shop.clerk</e:from><e:thread>t</e:thread></e:meta><P></P></e:message>'
        % ENVELOPE_NAMESPACE.encode(),
        SMALL.replace(b'<Ping xmlns="">', b'<Ping xmlns="">\xf0\x9f\x90\x8d&#xD;'),
    ],
    ids=["indented", "another meta", "mark-up as text", "its namespace as text", "prefixed", "astral"],
)
def test_an_envelope_in_another_shape_comes_out_as_it_went_in(raw):
    assert canonical_bytes(parse_strict(raw)) == raw
    assert Door().takes(signed(raw)).envelope == raw


def test_a_declaration_of_the_namespace_that_nothing_uses_does_not_give_the_element_a_prefix():
    raw = SMALL.replace(b"<message", b'<message xmlns:s="%s"' % SIGNATURE_NAMESPACE.encode())
    assert Door().takes(signed(raw)).envelope == SMALL
    with pytest.raises(SignatureError, match="declares a prefix"):
        signed(raw.replace(b"https://xml-pipeline.org/ns/sig", b"&#104;ttps://xml-pipeline.org/ns/sig"))
    root = parse_strict(raw)
    with pytest.raises(SignatureError, match="declares a prefix"):
        sign_envelope(root, SHOP, in_place=True)
    assert canonical_bytes(root) == SMALL


def test_signing_again_replaces():
    again = signed(signed(), BANK)
    assert again.count(b"<sig ") == 1 and signature_in(again).key_id == BANK.key_id
    assert Door(trusting((BANK, "shop.*", Policy.REQUIRE))).takes(again).envelope == SMALL


@pytest.mark.parametrize(
    "raw",
    [
        b"<message/>",
        b'<message xmlns="%s"></message>' % ENVELOPE_NAMESPACE.encode(),
        b'<message xmlns="%s"><Ping xmlns=""/><meta/></message>' % ENVELOPE_NAMESPACE.encode(),
        b'<message xmlns="urn:other"><meta/></message>',
    ],
)
def test_what_is_no_envelope_cannot_be_signed(raw):
    with pytest.raises(SignatureError, match="missing <meta>"):
        signed(raw)


@pytest.mark.parametrize("raw", [b"", b"<message>", b"\xff", b"<!DOCTYPE a><a/>"])
def test_what_is_no_document_cannot_be_signed(raw):
    with pytest.raises(ValidationError):
        signed(raw)


def test_a_signature_in_a_payload_cannot_be_signed():
    inner = signed()
    with pytest.raises(SignatureError, match="signature is not the last"):
        signed(SMALL.replace(b"hello", inner))
    with pytest.raises(SignatureError, match="more than one"):
        signed(signed().replace(b"hello", inner))


@pytest.mark.parametrize("message_id", ["", "a b", "x" * 129, "-", "ü", "m\n"])
def test_an_id_that_is_none(message_id):
    with pytest.raises(SignatureError, match="a message id is up to 128"):
        signed(message_id=message_id)


@pytest.mark.parametrize("created", [math.nan, math.inf, 1e300, -1e300])
def test_a_time_that_is_none(created):
    with pytest.raises(SignatureError, match="the time cannot be written"):
        signed(created=created)


@pytest.mark.parametrize("destination", ["\0", "\ud800"])
def test_a_destination_that_is_none(destination):
    with pytest.raises(SignatureError, match="the destination cannot be written"):
        signed(destination=destination)


# -- trees


def test_a_copy_is_signed_unless_it_is_said_otherwise():
    plain = tree()
    before = canonical_bytes(plain)
    copy = sign_envelope(plain, SHOP)
    assert is_signed(copy) and not is_signed(plain) and canonical_bytes(plain) == before
    assert sign_envelope(plain, SHOP, in_place=True) is plain
    assert is_signed(plain)


def test_verifying_a_tree():
    done = sign_envelope(tree(), SHOP)
    assert verify_envelope(done, SHOP.public_key) and verify_envelope_with_identity(done, SHOP)
    assert not verify_envelope(done, BANK.public_key) and not verify_envelope_with_identity(done, BANK)
    assert not verify_envelope(tree(), SHOP.public_key)
    again = parse_strict(envelope_to_bytes(done))
    assert verify_envelope(again, SHOP.public_key) and envelope_to_bytes(done).startswith(b"<?xml")


def test_what_is_signed_as_a_tree_comes_in_as_bytes():
    plain = tree()
    wire = canonical_bytes(sign_envelope(plain, SHOP, destination=HERE, created=NOON))
    assert Door().takes(wire).envelope == canonical_bytes(plain)


def test_a_tree_without_a_destination_is_for_nobody():
    wire = canonical_bytes(sign_envelope(tree(), SHOP, created=NOON))
    assert Door().refuses(wire) == "wrong-destination"
    assert Door().refuses(wire, "") == "wrong-destination"


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root[1][0].__setattr__("text", "other"),
        lambda root: root[0][0].__setattr__("text", "shop.boss"),
        lambda root: root[0][-1].set("to", "other"),
        lambda root: root[0][-1].set("id", "other"),
        lambda root: root[0][-1].set("created", "2027-01-15T08:00:00.001Z"),
        lambda root: root[0][-1].set("key", BANK.key_id),
        lambda root: root[0][-1].set("more", ""),
        lambda root: root[0][-1].__setattr__("text", "no"),
        lambda root: root[1].append(etree.Comment("x")),
        lambda root: root[1].append(etree.ProcessingInstruction("x")),
        lambda root: root[1].append(etree.Entity("x")),
        lambda root: root.append(root[0][-1]),
        lambda root: root[0].insert(0, root[0][-1]),
        lambda root: root[0].append(etree.fromstring(canonical_bytes(root[0][-1]))),
        lambda root: etree.SubElement(root[0], "{urn:x}more"),
    ],
)
def test_a_tree_that_was_changed_is_not_good(change):
    done = sign_envelope(tree(), SHOP, message_id="m-1", created=NOON)
    assert verify_envelope(done, SHOP.public_key)
    change(done)
    assert not verify_envelope(done, SHOP.public_key)


def test_the_old_kind_of_signature_is_none():
    """Over the canonical envelope alone, with nothing beside it; older versions wrote it."""
    root = tree()
    element = etree.SubElement(root[0], f"{{{SIGNATURE_NAMESPACE}}}sig")
    element.text = ""
    root[0].remove(element)
    element.text = SHOP.sign_base64(canonical_bytes(root))
    root[0].append(element)
    assert not verify_envelope(root, SHOP.public_key)
    assert Door().refuses(canonical_bytes(root)) == "malformed"


def test_empty_payloads_are_fine():
    assert verify_envelope(sign_envelope(tree(b"<Ping/>"), SHOP), SHOP.public_key)


def test_a_tree_without_meta():
    with pytest.raises(SignatureError, match="missing <meta>"):
        sign_envelope(etree.Element(f"{{{ENVELOPE_NAMESPACE}}}message"), SHOP)


def test_what_splits_a_text_is_not_signed_in_place():
    root = tree()
    root[0][0].append(etree.Comment("x"))
    with pytest.raises(SignatureError, match="comments or processing instructions"):
        sign_envelope(root, SHOP, in_place=True)
    assert not is_signed(root)
    assert extract_meta(sign_envelope(root, SHOP))["from_id"] == "shop.clerk"


def test_extracting():
    value = extract_signature(sign_envelope(tree(), SHOP))
    assert value is not None and len(base64.b64decode(value)) == 64
    assert extract_signature(tree()) is None
    twice = sign_envelope(tree(), SHOP)
    twice[1].append(parse_strict(canonical_bytes(twice[0][-1])))
    assert extract_signature(twice) is None and not is_signed(twice)


def test_stripping():
    plain = tree()
    done = sign_envelope(plain, SHOP)
    assert canonical_bytes(strip_signature(done)) == canonical_bytes(plain)
    assert is_signed(done)
    assert strip_signature(done, in_place=True) is done and not is_signed(done)
    assert canonical_bytes(strip_signature(plain)) == canonical_bytes(plain)
    done = sign_envelope(plain, SHOP)
    done.append(done[0][-1])
    with pytest.raises(SignatureError, match="not the last"):
        strip_signature(done)


def test_an_envelope_from_elsewhere_is_not_changed_by_signing():
    raw = envelope(text="a &amp; b")
    before = bytes(raw)
    signed(raw)
    assert raw == before
