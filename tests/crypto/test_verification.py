"""The door: what is let in, what is refused and why, and that nothing of a refusal tells more than it should."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.crypto import (
    Policy,
    Reason,
    ReplayWindow,
    Seen,
    SignatureRefused,
    TrustStore,
    Verifier,
    may_be_signed,
    sign,
)
from xml_pipeline.crypto.signature import SIGNATURE_NAMESPACE, Signature
from xml_pipeline.envelope import ENVELOPE_NAMESPACE, escape_text
from xml_pipeline.errors import ValidationError
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

from .kit import BANK, HERE, NOON, SHOP, SMALL, STRANGER, USUAL, Door, envelope, signed, trusting

REQUIRE, ACCEPT, IGNORE = Policy.REQUIRE, Policy.ACCEPT, Policy.IGNORE


def test_what_is_good_is_let_in():
    verified = Door().takes(signed(message_id="m-1"))
    assert verified.envelope == SMALL
    assert verified.sender == "shop.clerk" and verified.key_id == SHOP.key_id and verified.is_proven
    assert verified.message_id == "m-1" and verified.created == NOON


@given(text=st.text(max_size=200), sender=st.sampled_from(["shop", "shop.clerk", "shop.größe 1"]))
def test_the_bytes_that_were_signed_are_those_that_come_out(text, sender):
    try:
        raw = envelope(sender, escape_text(text))
    except ValidationError:  # XML cannot carry it
        return
    verified = Door().takes(signed(raw))
    assert (verified.envelope, verified.sender) == (raw, sender)


# -- tampering


def refused_for(door: Verifier, raw: bytes) -> Reason | None:
    try:
        door.verify(raw, HERE)
    except SignatureRefused as refused:
        return refused.reason
    return None


@pytest.mark.parametrize(
    "trust", [USUAL, trusting((SHOP, "shop.*", ACCEPT), default=ACCEPT)], ids=["require", "accept"]
)
def test_every_bit_of_a_signed_envelope_that_is_flipped_is_noticed(trust):
    """Under `accept`, too, where no signature is needed: what is not as it was signed is not taken for unsigned.

    But for the flips that leave no signature: those in the declaration of its namespace.
    """
    wire = sign(envelope(text="hi"), SHOP, destination=HERE, message_id="m", created=NOON)
    door = Door(trust)
    good = []
    for place, bit in itertools.product(range(len(wire)), range(8)):
        flipped = bytearray(wire)
        flipped[place] ^= 1 << bit
        if refused_for(door, bytes(flipped)) is None:
            good.append(place)
    declaration = f'xmlns="{SIGNATURE_NAMESPACE}"'.encode()
    begin = wire.index(declaration)
    assert good == [] if trust is USUAL else set(good) <= set(range(begin, begin + len(declaration)))
    assert door.takes(wire).is_proven, "none of them used up the id"


def test_a_flip_that_leaves_no_signature_proves_nothing():
    """Nobody can keep others from taking a signature off; what is left is unsigned, and treated so."""
    wire = signed().replace(b"/ns/sig/v1", b"/ns/sig/v2")
    assert Door().refuses(wire) is Reason.UNSIGNED
    verified = Door(trusting((SHOP, "shop.*", ACCEPT))).takes(wire)
    assert not verified.is_proven and verified.key_id is None


def test_every_byte_that_is_left_out_or_doubled_is_noticed():
    wire, door = signed(), Door()
    for place in range(len(wire)):
        assert refused_for(door, wire[:place] + wire[place + 1 :]) is not None or wire[place] == wire[place - 1]
        assert refused_for(door, wire[:place] + wire[place : place + 1] + wire[place:]) is not None
        assert refused_for(door, wire[:place]) is not None
    assert door.takes(wire).is_proven


@given(st.data())
def test_no_part_of_one_message_can_be_put_into_another(data):
    """Any field, or the value, of a second good message in place of the first one's."""
    one = signed(envelope(text="1"), message_id="m-one", created=NOON - 1)
    two = signed(envelope(text="2"), message_id="m-two", destination="x" + HERE)
    first, second = (parse_strict(wire) for wire in (one, two))
    names = data.draw(st.sets(st.sampled_from(["created", "id", "to", "text"]), min_size=1, max_size=3))
    for name in names:
        if name == "text":
            first[0][-1].text = second[0][-1].text
        else:
            first[0][-1].set(name, second[0][-1].get(name) or "")
    assert (
        Door().refuses(canonical_bytes(first), data.draw(st.sampled_from([HERE, "x" + HERE]))) is Reason.BAD_SIGNATURE
    )


@pytest.mark.parametrize("value", [bytes(64), b"\xff" * 64, b"\x01" + bytes(63), bytes(32) + b"\x01" + bytes(31)])
def test_signatures_of_special_values(value):
    said = Signature(SHOP.key_id, "2027-01-15T08:00:00.000Z", "m", HERE, value)
    root = parse_strict(SMALL)
    root[0].append(said.element())
    assert Door().refuses(canonical_bytes(root)) is Reason.BAD_SIGNATURE


def test_what_another_key_signed_is_not_taken_for_this_ones():
    """The key that is named is part of what is signed."""
    wire = signed(SMALL, BANK)
    assert Door().refuses(wire.replace(BANK.key_id.encode(), SHOP.key_id.encode())) is Reason.BAD_SIGNATURE


def test_what_was_signed_for_another_purpose_is_no_signature_of_an_envelope():
    said = Signature(SHOP.key_id, "2027-01-15T08:00:00.000Z", "m", HERE)
    for data in (SMALL, said.signed_bytes(SMALL).removeprefix(b"xml-pipeline"), b"other" + said.signed_bytes(SMALL)):
        root = parse_strict(SMALL)
        root[0].append(dataclasses.replace(said, value=SHOP.sign(data)).element())
        assert Door().refuses(canonical_bytes(root)) is Reason.BAD_SIGNATURE


# -- form


@pytest.mark.parametrize(
    "change",
    [
        lambda wire: b"\xef\xbb\xbf" + wire,
        lambda wire: b'<?xml version="1.0" encoding="UTF-8"?>\n' + wire,
        lambda wire: wire + b"\n",
        lambda wire: b"\n" + wire,
        lambda wire: wire + b"<!-- more -->",
        lambda wire: wire.replace(b"hello", b"hel<!-- -->lo"),
        lambda wire: wire.replace(b"shop.clerk", b"shop.clerk<!---->"),
        lambda wire: wire.replace(b"hello", b"hel<?pi?>lo"),
        lambda wire: wire.replace(b"hello", b"<![CDATA[hello]]>"),
        lambda wire: wire.replace(b"hello", b"h&#101;llo"),
        lambda wire: wire.replace(b"shop.clerk", b"shop&#46;clerk"),
        lambda wire: wire.replace(b"<Text>", b"<Text >"),
        lambda wire: wire.replace(b"<Text>", b'<Text xmlns="">'),
        lambda wire: wire.replace(b"<message ", b'<message xmlns:x="urn:x" '),
        lambda wire: wire.replace(b'xmlns=""', b"xmlns=''"),
        lambda wire: wire.replace(b'to="', b'\n to="'),
        lambda wire: wire.replace(b"</sig>", b"</sig >"),
        lambda wire: wire.replace(b"</sig>", b"<!-- --></sig>"),
        lambda wire: wire.replace(b'to="billing"', b'to="bill&#105;ng"'),
        lambda wire: wire.replace(b"<sig xmlns=", b"<s:sig xmlns:s=").replace(b"</sig>", b"</s:sig>"),
        lambda wire: wire.replace(b"hello", b"hello\r"),
    ],
)
@pytest.mark.parametrize("trust", [USUAL, TrustStore((), IGNORE)], ids=["require", "ignore"])
def test_another_spelling_of_the_same_is_refused(change, trust):
    wire = signed()
    changed = change(wire)
    assert changed != wire
    assert Door(trust).refuses(changed) in (Reason.NOT_CANONICAL, Reason.MALFORMED)


_HIDDEN = [
    lambda wire: wire.replace(b"/ns/sig/", b"/ns/s&#105;g/"),
    lambda wire: wire.replace(b"/ns/sig/", b"/ns/s&#x69;g/"),
    lambda wire: wire.decode().encode("utf-16"),
    lambda wire: (
        b'<?xml version="1.0" encoding="utf-16"?>'.decode().encode("utf-16") + wire.decode().encode("utf-16le")
    ),
    lambda wire: SMALL,
]


def test_what_is_signed_says_so_in_its_bytes():
    assert may_be_signed(signed())


@pytest.mark.parametrize("hide", _HIDDEN)
@pytest.mark.parametrize("policy", Policy)
def test_what_does_not_say_so_in_its_bytes_never_proves_its_sender(hide, policy):
    """Whoever goes by the bytes alone does not miss a signature that counts, nor one that came before."""
    raw, door = hide(signed()), Door(trusting((SHOP, "shop.*", policy), default=policy))
    assert not may_be_signed(raw)
    try:
        assert not door.takes(raw).is_proven
    except SignatureRefused as refused:
        assert refused.reason in (Reason.NOT_CANONICAL, Reason.MALFORMED, Reason.UNSIGNED)
    assert len(door.window) == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"<",
        b"hello",
        b'{"a": 1}',
        b"\0" * 100,
        b"\xff\xfe<\0",
        b"<a/>",
        b"<message/>",
        b'<message xmlns="%s"><meta/></message>' % ENVELOPE_NAMESPACE.encode(),
        SMALL.replace(b"<from>shop.clerk</from>", b""),
        SMALL.replace(b"<from>shop.clerk</from>", b"<from></from>"),
        SMALL.replace(b"<from>shop.clerk</from>", b"<from>a</from><from>shop.clerk</from>"),
        SMALL[:-3],
        SMALL * 2,
        b"<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>" + SMALL.replace(b"hello", b"&e;"),
        SMALL.replace(b"hello", b"&undeclared;"),
        SMALL.replace(b'xmlns=""', b'xmlns="relative"'),
        SMALL.replace(b"hello", b"\xff"),
        SMALL.decode().encode("utf-16"),
        b'<?xml version="1.0" encoding="UTF-7"?>' + SMALL,
    ],
)
@pytest.mark.parametrize("policy", Policy)
def test_what_is_no_envelope_is_refused_under_any_policy(raw, policy):
    assert Door(TrustStore((), policy)).refuses(raw) is Reason.MALFORMED


def test_text_is_not_bytes():
    with pytest.raises(TypeError, match="as bytes, not str"):
        Door().verify(signed().decode(), HERE)  # type: ignore[arg-type]


# -- size


def test_too_many_bytes_are_not_even_read():
    wire = signed()
    assert Door(max_bytes=len(wire)).takes(wire).is_proven
    assert Door(max_bytes=len(wire) - 1).refuses(wire) is Reason.TOO_LARGE
    assert Door().refuses(b"<" * 2_000_000) is Reason.TOO_LARGE


def test_a_large_envelope_is_let_in():
    raw = envelope(text="x" * 900_000)
    assert Door().takes(signed(raw)).envelope == raw


@pytest.mark.parametrize(
    "payload",
    [
        "<P " + " ".join(f'a{n}="1"' for n in range(257)) + "/>",
        "<P " + " ".join(f'xmlns:n{n}="urn:{n}"' for n in range(257)) + "/>",
        "".join(f'<P xmlns:n{n}="urn:{n}">' for n in range(130)) + "".join("</P>" for _ in range(130)),
    ],
    ids=["attributes", "prefixes", "nested prefixes"],
)
def test_the_shape_is_looked_at_before_the_canonical_form_is_made(payload, monkeypatch):
    more = payload if "n129" not in payload else payload.replace("<P ", "<P xmlns:m='urn:m' xmlns:o='urn:o' ")
    raw = signed().replace(b"<Text>", f"{more}<Text>".encode())
    monkeypatch.setattr("xml_pipeline.crypto.verification.canonical_bytes", lambda element: pytest.fail("too late"))
    assert Door().refuses(raw) is Reason.TOO_LARGE


def test_many_equal_signs_are_no_attributes():
    raw = envelope(text="a=b " * 1000)
    assert Door().takes(signed(raw)).envelope == raw
    many = signed(SMALL.replace(b"<Text>", b"".join(b'<A a="1" b="2"></A>' for _ in range(300)) + b"<Text>"))
    assert Door().takes(many).is_proven


# -- who, to whom, when


def test_another_name_than_the_keys():
    door = Door()
    assert door.refuses(signed(envelope("bank"))) is Reason.NAME_NOT_ALLOWED
    assert door.refuses(signed(envelope("shopping"))) is Reason.NAME_NOT_ALLOWED
    assert door.refuses(signed(envelope("Shop.clerk"))) is Reason.NAME_NOT_ALLOWED
    assert door.refuses(signed(envelope("system"))) is Reason.NAME_NOT_ALLOWED
    assert door.takes(signed(envelope("bank"), BANK)).sender == "bank"


@pytest.mark.parametrize("destination", ["other", "Billing", "billing.x", " billing", "", "bïlling"])
def test_another_destination(destination):
    assert Door().refuses(signed(destination=destination)) is Reason.WRONG_DESTINATION
    assert Door().refuses(signed(), destination) is Reason.WRONG_DESTINATION


def test_to_does_not_decide_the_destination():
    """`to` is a listener of the receiver, and may be left out; the signature says who may take it."""
    assert Door().takes(signed(envelope(to=None))).is_proven
    assert Door().refuses(signed(envelope(to=HERE), destination="other")) is Reason.WRONG_DESTINATION


def test_too_late_and_too_early():
    door = Door()
    door.clock.now = NOON + 91
    assert door.refuses(signed()) is Reason.EXPIRED
    door.clock.now = NOON - 31
    assert door.refuses(signed()) is Reason.FROM_THE_FUTURE
    for offset in (-30, 90):
        door.clock.now = NOON + offset
        assert door.takes(signed()).is_proven


@pytest.mark.parametrize("jump", [3600, -3600, 315_576_000])
def test_a_clock_that_is_wrong(jump):
    """An hour, and ten years: refused with a reason of its own while it is wrong, let in when it is right again."""
    door = Door()
    wire = signed()
    door.clock.now = NOON + jump
    assert door.refuses(wire) is (Reason.EXPIRED if jump > 0 else Reason.FROM_THE_FUTURE)
    door.clock.now = NOON
    assert door.takes(wire).is_proven


def test_a_second_time():
    door = Door()
    wire = signed()
    assert door.takes(wire).is_proven
    assert [door.refuses(wire) for _ in range(3)] == [Reason.REPLAYED] * 3
    assert door.refuses(signed(envelope(text="other"), message_id=door_id(wire))) is Reason.REPLAYED


def door_id(wire: bytes) -> str:
    found = parse_strict(wire)[0][-1].get("id")
    assert found is not None
    return found


def test_what_is_refused_uses_up_no_id():
    door = Door()
    wire = signed()
    for bad in (wire.replace(b"hello", b"hullo"), wire.replace(b'to="billing"', b'to="other"')):
        assert door.refuses(bad) is Reason.BAD_SIGNATURE
    assert door.refuses(wire, "other") is Reason.WRONG_DESTINATION
    assert door.takes(wire).is_proven


def test_a_full_window():
    clock = Door().clock
    door = Verifier(USUAL, ReplayWindow(clock=clock, floor=-math.inf, capacity=2))
    assert all(door.verify(signed(), HERE).is_proven for _ in range(2))
    with pytest.raises(SignatureRefused) as caught:
        door.verify(signed(), HERE)
    assert caught.value.reason is Reason.WINDOW_FULL and caught.value.reason.retry_allowed


def test_a_fresh_process():
    door = Verifier(USUAL, ReplayWindow())
    with pytest.raises(SignatureRefused) as caught:
        door.verify(sign(SMALL, SHOP, destination=HERE), HERE)
    assert caught.value.reason is Reason.NOT_REMEMBERED and caught.value.reason.retry_allowed
    door = Verifier(USUAL, ReplayWindow(floor=-math.inf))
    assert door.verify(sign(SMALL, SHOP, destination=HERE), HERE).created == pytest.approx(time.time(), abs=3600)


# -- policies

SIGNED_BAD = signed().replace(b"hello", b"hullo")


@pytest.mark.parametrize(
    ("policy", "default", "raw", "expected"),
    [
        # signed with the key
        (REQUIRE, IGNORE, signed(), "proven"),
        (ACCEPT, IGNORE, signed(), "proven"),
        (IGNORE, REQUIRE, signed(), "unproven"),
        # signed, and changed
        (REQUIRE, IGNORE, SIGNED_BAD, Reason.BAD_SIGNATURE),
        (ACCEPT, IGNORE, SIGNED_BAD, Reason.BAD_SIGNATURE),
        (IGNORE, REQUIRE, SIGNED_BAD, "unproven"),
        # unsigned, from a name of the key
        (REQUIRE, IGNORE, SMALL, Reason.UNSIGNED),
        (ACCEPT, REQUIRE, SMALL, "unproven"),
        (IGNORE, REQUIRE, SMALL, "unproven"),
        # unsigned, from a name that collides with one of the key's
        (REQUIRE, IGNORE, envelope("SHOP.Clerk"), Reason.UNSIGNED),
        # unsigned, from anybody else
        (REQUIRE, REQUIRE, envelope("else"), Reason.UNSIGNED),
        (ACCEPT, REQUIRE, envelope("else"), Reason.UNSIGNED),
        (REQUIRE, ACCEPT, envelope("else"), "unproven"),
        (REQUIRE, IGNORE, envelope("else"), "unproven"),
        # signed with a key that nobody knows
        (REQUIRE, REQUIRE, signed(envelope("else"), STRANGER), Reason.UNTRUSTED_KEY),
        (REQUIRE, ACCEPT, signed(envelope("else"), STRANGER), Reason.UNTRUSTED_KEY),
        (REQUIRE, IGNORE, signed(envelope("else"), STRANGER), "unproven"),
        # the same, in the name of somebody whose messages must be signed
        (REQUIRE, REQUIRE, signed(SMALL, STRANGER), Reason.UNTRUSTED_KEY),
        (REQUIRE, IGNORE, signed(SMALL, STRANGER), Reason.UNSIGNED),
        (ACCEPT, IGNORE, signed(SMALL, STRANGER), "unproven"),
        # signed with the key, in the name of somebody else
        (REQUIRE, IGNORE, signed(envelope("else")), Reason.NAME_NOT_ALLOWED),
        (ACCEPT, IGNORE, signed(envelope("else")), Reason.NAME_NOT_ALLOWED),
        (IGNORE, ACCEPT, signed(envelope("else")), "unproven"),
        (IGNORE, REQUIRE, signed(envelope("else")), Reason.UNSIGNED),
    ],
)
def test_policies(policy, default, raw, expected):
    door = Door(trusting((SHOP, "shop.*", policy), default=default))
    if isinstance(expected, Reason):
        assert door.refuses(raw) is expected
        return
    verified = door.takes(raw)
    assert verified.is_proven is (expected == "proven")
    assert SIGNATURE_NAMESPACE.encode() not in verified.envelope, "the pump never sees a signature"
    if not verified.is_proven:
        assert (verified.key_id, verified.message_id, verified.created) == (None, "", 0.0)
        assert door.takes(raw) == verified, "what proves nothing is not remembered"


def test_an_unsigned_message_stays_as_it_is():
    untidy = b'<?xml version="1.0"?>\n' + SMALL.replace(b"<Text>", b"<Text ><!-- x -->")
    assert Door(TrustStore((), ACCEPT)).takes(untidy).envelope == untidy


def test_a_key_is_changed_without_a_gap():
    """The new key is added, then used, then the old one is removed."""
    door = Door(trusting((SHOP, "shop.*", REQUIRE)))
    assert door.takes(signed()).key_id == SHOP.key_id
    assert door.refuses(signed(SMALL, BANK)) is Reason.UNTRUSTED_KEY
    door.trust = trusting((SHOP, "shop.*", REQUIRE), (BANK, "shop.*", REQUIRE))
    assert door.takes(signed()).key_id == SHOP.key_id
    last = signed()
    assert door.takes(signed(SMALL, BANK)).key_id == BANK.key_id
    door.trust = trusting((BANK, "shop.*", REQUIRE))
    assert door.refuses(last) is Reason.UNTRUSTED_KEY
    assert door.takes(signed(SMALL, BANK)).is_proven
    assert door.refuses(SMALL) is Reason.UNSIGNED


def test_a_key_that_is_taken_out_and_put_in_again_has_not_been_forgotten():
    door = Door()
    wire = signed()
    assert door.takes(wire).is_proven
    door.trust = TrustStore()
    assert door.refuses(wire) is Reason.UNTRUSTED_KEY
    door.trust = USUAL
    assert door.refuses(wire) is Reason.REPLAYED


# -- what a refusal tells


def refusals() -> dict[Reason, SignatureRefused]:
    secret = "4111-1111-1111-1111\x1b[31m".replace("\x1b", "")
    door = Door()
    seen = signed(envelope(text=secret))
    door.takes(seen)
    wires = [
        (b"x" * 2_000_000, HERE),
        (envelope(text=secret) + b"<evil", HERE),
        (seen + b" ", HERE),
        (signed(envelope(text=secret)).replace(b"</meta>", b"</meta><!-- -->"), HERE),
        (signed().replace(b"hello", signed()[signed().index(b"<sig") : signed().index(b"</meta>")]), HERE),
        (envelope(text=secret), HERE),
        (signed(envelope(text=secret), STRANGER), HERE),
        (signed(envelope(text=secret)).replace(b"4111", b"4112"), HERE),
        (signed(envelope("evil" + secret)), HERE),
        (signed(envelope(text=secret), destination=secret), HERE),
        (signed(envelope(text=secret), created=0.0), HERE),
        (signed(envelope(text=secret), created=NOON * 2), HERE),
        (seen, HERE),
    ]
    found = {}
    for wire, destination in wires:
        with pytest.raises(SignatureRefused) as caught:
            door.verify(wire, destination)
        found[caught.value.reason] = caught.value
    return found


def test_a_refusal_says_to_the_sender_nothing_and_to_the_log_no_more_than_was_checked():
    found = refusals()
    assert set(Reason) - set(found) <= {Reason.NOT_REMEMBERED, Reason.WINDOW_FULL, Reason.WINDOW_UNUSABLE}
    assert {str(refused) for refused in found.values()} == {"The message was not accepted."}
    for reason, refused in found.items():
        told = f"{refused!r} {refused.detail} {refused.__notes__} {refused.key_id} {refused.message_id}"
        assert "4111" not in told and "evil" not in told and "clerk" not in told and STRANGER.key_id not in told
        assert refused.detail.startswith(f"{reason}: ") and refused.detail.isprintable() and len(refused.detail) < 250
        assert refused.code == "validation" and refused.__cause__ is None


def test_a_refusal_names_the_message_only_when_its_signature_was_good():
    authentic = {
        Reason.NAME_NOT_ALLOWED,
        Reason.WRONG_DESTINATION,
        Reason.EXPIRED,
        Reason.FROM_THE_FUTURE,
        Reason.REPLAYED,
    }
    for reason, refused in refusals().items():
        assert bool(refused.message_id) is (reason in authentic)
        assert bool(refused.key_id) is (reason in authentic | {Reason.BAD_SIGNATURE})


def test_nothing_is_logged_and_printed(caplog, capsys):
    with caplog.at_level(logging.DEBUG):
        refusals()
    assert caplog.text == "" and capsys.readouterr() == ("", "")


# -- many at once


def test_of_many_copies_one_comes_in():
    door = Door()
    wires = [signed() for _ in range(40)]
    results: list[Reason | None] = []
    start = threading.Barrier(6)

    def enter() -> None:
        start.wait()
        results.extend(refused_for(door, wire) for wire in wires)

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(None) == 40 and results.count(Reason.REPLAYED) == 200


async def test_trust_can_be_replaced_while_messages_come_in():
    """Each message is judged by one store: never by the key of one and the policy of the other."""
    door = Door()
    stores = [trusting((SHOP, "shop.*", REQUIRE)), trusting((BANK, "shop.*", REQUIRE)), TrustStore()]
    stop = threading.Event()

    def replace() -> None:
        for store in itertools.cycle(stores):
            door.trust = store
            if stop.is_set():
                return

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        jobs = (asyncio.to_thread(refused_for, door, signed(SMALL, who)) for who in (SHOP, BANK) * 50)
        results = await asyncio.gather(*jobs)
    finally:
        stop.set()
        thread.join()
    assert set(results) <= {None, Reason.UNTRUSTED_KEY}


def test_a_guard_of_ones_own():
    """Say, one that asks a store that several nodes share."""
    asked = []

    class Guard:
        def admit(self, seen: Seen) -> Reason | None:
            asked.append(seen)
            return Reason.WINDOW_UNUSABLE

    door = Verifier(USUAL, Guard())
    with pytest.raises(SignatureRefused) as caught:
        door.verify(signed(message_id="m-1"), HERE)
    assert caught.value.reason is Reason.WINDOW_UNUSABLE
    assert asked == [Seen(SHOP.key_id, "m-1", NOON)]
