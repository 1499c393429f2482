"""Signature wrapping: a good signature is kept, and something else is put where the reader looks.

The layouts follow the usual catalogue of attacks on SAML ("On Breaking SAML: Be Whoever You Want to Be", Somorovsky and
others, 2012), as far as they can be written in an envelope: the forged part before, behind, around and inside the
original; the signature moved, copied, and left where it was.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xml_pipeline.crypto import Policy, Reason, SignatureRefused, TrustStore
from xml_pipeline.crypto.signature import SIGNATURE_NAMESPACE
from xml_pipeline.envelope import ENVELOPE_NAMESPACE
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

from .kit import HERE, SHOP, SMALL, USUAL, Door, envelope, signed, trusting

GOOD = signed(message_id="m-1")
EVIL = envelope("shop.boss", "pay 9999")
SIG = canonical_bytes(parse_strict(GOOD)[0][-1])
ENV = f'xmlns="{ENVELOPE_NAMESPACE}"'.encode()
META = GOOD[GOOD.index(b"<meta>") : GOOD.index(b"</meta>") + len(b"</meta>")]
PAYLOAD = b'<Ping xmlns=""><Text>hello</Text></Ping>'
EVIL_PAYLOAD = b'<Ping xmlns=""><Text>pay 9999</Text></Ping>'
EVIL_META = EVIL[EVIL.index(b"<meta>") : EVIL.index(b"</meta>") + len(b"</meta>")]


def within(outer: bytes, where: bytes, inner: bytes) -> bytes:
    assert where in outer
    return outer.replace(where, inner + where)


LAYOUTS = {
    "the original inside a forged payload": within(EVIL, b"</Ping>", GOOD),
    "the original beside a forged payload": within(EVIL, b"</message>", GOOD),
    "the original before a forged meta": within(EVIL, b"<meta>", GOOD),
    "the original as an extension of a forged meta": within(EVIL, b"</meta>", b'<x xmlns="urn:x">' + GOOD + b"</x>"),
    "the original inside the signature": within(EVIL, b"</meta>", SIG.replace(b"</sig>", GOOD + b"</sig>")),
    "a forged one inside the signature": GOOD.replace(b"</sig>", EVIL + b"</sig>"),
    "a forged one inside the original": within(GOOD, b"</Ping>", EVIL),
    "a forged one beside the original payload": within(GOOD, b"</message>", EVIL),
    "a forged one before the original": within(GOOD, b"<meta>", EVIL),
    "a forged meta before the original one": within(GOOD, b"<meta>", EVIL_META),
    "a forged meta behind the original one": within(GOOD, PAYLOAD, EVIL_META),
    "a forged meta at the end": within(GOOD, b"</message>", EVIL_META),
    "a forged meta inside the original one": within(GOOD, b"<sig", EVIL_META),
    "a second from": within(GOOD, b"<sig", b"<from>shop.boss</from>"),
    "a from before": within(GOOD, b"<from>", b"<from>shop.boss</from>"),
    "a second payload": within(GOOD, b"</message>", EVIL_PAYLOAD),
    "a payload before": within(GOOD, PAYLOAD, EVIL_PAYLOAD),
    "the payload exchanged": GOOD.replace(PAYLOAD, EVIL_PAYLOAD),
    "the payload removed": GOOD.replace(PAYLOAD, b""),
    "the meta exchanged, the signature kept": GOOD.replace(META, EVIL_META.replace(b"</meta>", SIG + b"</meta>")),
    "the signature in a forged envelope": within(EVIL, b"</meta>", SIG),
    "the signature twice": within(GOOD, b"</meta>", SIG),
    "the signature twice, apart": within(GOOD, b"<from>", SIG),
    "another, empty, in the payload": within(GOOD, b"</Ping>", f'<sig xmlns="{SIGNATURE_NAMESPACE}"/>'.encode()),
    "the signature first in meta": GOOD.replace(SIG, b"").replace(b"<from>", SIG + b"<from>"),
    "the signature in the middle of meta": GOOD.replace(SIG, b"").replace(b"<thread>", SIG + b"<thread>"),
    "the signature before another extension": within(GOOD, b"</meta>", b'<x xmlns="urn:x"></x>'),
    "the signature behind meta": GOOD.replace(SIG, b"").replace(PAYLOAD, SIG + PAYLOAD),
    "the signature at the end": GOOD.replace(SIG, b"").replace(b"</message>", SIG + b"</message>"),
    "the signature in the payload": GOOD.replace(SIG, b"").replace(b"</Ping>", SIG + b"</Ping>"),
    "the signature in another extension": GOOD.replace(SIG, b'<x xmlns="urn:x">' + SIG + b"</x>"),
    "the signature in from": GOOD.replace(SIG, b"").replace(b"</from>", SIG + b"</from>"),
    "the signature around meta": GOOD.replace(SIG, b"")
    .replace(b"<meta>", SIG.replace(b"</sig>", b"<meta " + ENV + b">"))
    .replace(b"</meta>", b"</meta></sig>"),
    "the signature as the root": SIG.replace(b"</sig>", GOOD.replace(SIG, b"") + b"</sig>"),
    "the signature under another name": GOOD.replace(b"<sig ", b"<sag ").replace(b"</sig>", b"</sag>"),
    "text behind the signature": GOOD.replace(b"</sig>", b"</sig> "),
    "an envelope around": b"<message " + ENV + b">" + META + GOOD + b"</message>",
    "another root element": b"<x>" + GOOD + b"</x>",
    "two roots": GOOD + EVIL,
    "another element of the namespace": within(GOOD, b"</meta>", f'<x xmlns="{SIGNATURE_NAMESPACE}"></x>'.encode()),
}  # fmt: skip


@pytest.mark.parametrize("wire", LAYOUTS.values(), ids=list(LAYOUTS))
def test_a_signature_is_good_for_its_own_envelope_at_its_own_place_only(wire):
    """As it came, and in canonical form, whatever may be wrong with the form."""
    assert wire != GOOD
    for raw in {wire, canonical(wire)}:
        door = Door()
        reason = door.refuses(raw)
        assert reason in (Reason.WRAPPED, Reason.MALFORMED, Reason.BAD_SIGNATURE, Reason.NOT_CANONICAL), reason
        assert door.takes(GOOD).is_proven, "the original can still come in"


@pytest.mark.parametrize("wire", LAYOUTS.values(), ids=list(LAYOUTS))
@pytest.mark.parametrize("policy", [Policy.ACCEPT, Policy.IGNORE])
def test_where_signatures_are_not_required_a_forged_envelope_is_at_least_not_proven(wire, policy):
    for raw in {wire, canonical(wire)}:
        door = Door(trusting((SHOP, "shop shop.*", policy), default=policy))
        try:
            verified = door.verify(raw, HERE)
        except SignatureRefused:
            continue
        assert policy is Policy.IGNORE and not verified.is_proven
        assert SIGNATURE_NAMESPACE.encode() not in verified.envelope


def canonical(wire: bytes) -> bytes:
    try:
        return canonical_bytes(parse_strict(wire))
    except Exception:
        return wire


def test_the_signature_can_be_moved_nowhere():
    """To every place in the tree there is: before, behind and inside each element."""
    places = len(list(parse_strict(GOOD).iter()))
    tried = 0
    for number in range(places):
        for how in ("before", "behind", "first inside", "last inside"):
            root = parse_strict(GOOD)
            elements = list(root.iter())
            sig, target = root[0][-1], elements[number]
            if target is sig or (target is root and how in ("before", "behind")):
                continue
            move(sig, target, how)
            wire = canonical_bytes(root)
            if wire == GOOD:
                continue
            tried += 1
            assert Door().refuses(wire) is Reason.WRAPPED, (how, target.tag)
            assert Door(TrustStore((), Policy.IGNORE)).refuses(wire) is Reason.WRAPPED
    assert tried > 20


def move(sig: etree._Element, target: etree._Element, how: str) -> None:
    match how:
        case "before":
            target.addprevious(sig)
        case "behind":
            target.addnext(sig)
        case "first inside":
            target.insert(0, sig)
        case _:
            target.append(sig)


PIECES = st.sampled_from(
    [SIG, META, EVIL_META, PAYLOAD, EVIL_PAYLOAD, GOOD, EVIL, b'<x xmlns="urn:x"></x>', b" ", b"text"]
)
PLACES = [place for place in range(len(GOOD)) if GOOD[place : place + 1] == b"<"]


@given(st.lists(st.tuples(st.sampled_from(PLACES), PIECES), min_size=1, max_size=4))
def test_whatever_is_put_in_wherever_is_refused(insertions):
    wire = GOOD
    for place, piece in sorted(insertions, key=lambda pair: pair[0], reverse=True):
        wire = wire[:place] + piece + wire[place:]
    for raw in {wire, canonical(wire)}:
        if raw != GOOD:
            Door(USUAL).refuses(raw)


def test_comments_do_not_split_a_name():
    """``admin<!-- -->.evil`` verified under XML-DSig and was read as ``admin`` by ``.text``."""
    raw = envelope("shop.clerk.evil")
    wire = signed(raw).replace(b"shop.clerk.evil", b"shop.clerk<!-- -->.evil")
    assert Door().refuses(wire) is Reason.NOT_CANONICAL
    assert Door().takes(signed(raw)).sender == "shop.clerk.evil"


def test_ids_and_references_mean_nothing():
    wire = signed(SMALL.replace(b"<Text>", b'<Text Id="m-1" xml:id="m-1">').replace(b"hello", b"#m-1"))
    assert Door().takes(wire).is_proven
    xml_dsig = b'<Signature xmlns="http://www.w3.org/2000/09/xmldsig#"></Signature>'
    assert Door().refuses(SMALL.replace(b"</meta>", xml_dsig + b"</meta>")) is Reason.UNSIGNED
