"""What is signed, and the one form of the element."""

from __future__ import annotations

import base64
import itertools
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xml_pipeline.crypto.refusals import Reason, SignatureRefused
from xml_pipeline.crypto.signature import SIGNATURE_NAMESPACE, Signature, find_signature, format_time, is_message_id
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

from .kit import NOON, SHOP, SMALL, signed

ROOT = Path(__file__).resolve().parents[2]
GOOD = Signature(SHOP.key_id, format_time(NOON), "m-1", "billing", bytes(range(64)))

XML_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="".join(map(chr, range(32))))
    | st.sampled_from("\t\n\r"),
    max_size=20,
)
SIGNATURES = st.builds(
    Signature,
    st.binary(min_size=32, max_size=32).map(lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")),
    st.floats(-6e10, 2.5e11).map(format_time),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}", fullmatch=True),
    XML_TEXT,
    st.binary(min_size=64, max_size=64),
)


def test_the_bytes_that_are_signed_are_these():
    """Written out, so that somebody else can write them too."""
    key, created = SHOP.key_id.encode(), b"2027-01-15T08:00:00.000Z"
    assert GOOD.signed_bytes(SMALL) == (
        b"xml-pipeline envelope signature v1\0"
        + b"\0\0\0\x2b" + key
        + b"\0\0\0\x18" + created
        + b"\0\0\0\x03" + b"m-1"
        + b"\0\0\0\x07" + b"billing"
        + len(SMALL).to_bytes(8, "big") + SMALL
    )  # fmt: skip


@given(SIGNATURES, st.binary(max_size=50), SIGNATURES, st.binary(max_size=50))
def test_no_two_messages_are_signed_as_the_same_bytes(one, first, two, second):
    same = replace(one, value=b"") == replace(two, value=b"") and first == second
    assert (one.signed_bytes(first) == two.signed_bytes(second)) is same


@given(st.text("ab", max_size=3), st.text("ab", max_size=3), st.text("ab", max_size=3), st.text("ab", max_size=3))
def test_nothing_moves_from_one_part_to_the_next(one, two, three, four):
    """Also where the parts together are the same text."""
    texts = set(itertools.permutations([one, two, three, four]))
    assert len({Signature(*parts).signed_bytes(b"") for parts in texts}) == len(texts)


@given(SIGNATURES)
def test_what_is_written_is_read(signature):
    element = parse_strict(canonical_bytes(signature.element()))
    assert Signature.read(element) == signature


@given(st.integers(0, 7_258_118_400_000).map(lambda number: number / 1000))
def test_times_until_2200_are_exact_to_the_millisecond(seconds):
    signature = replace(GOOD, created=format_time(seconds))
    assert Signature.read(signature.element()).time == seconds
    assert format_time(signature.time + 0.0004) == signature.created


@given(st.integers(-62_135_596_800, 253_402_300_799))
def test_other_times_can_be_written_too(seconds):
    assert Signature.read(replace(GOOD, created=format_time(seconds)).element()).time == seconds


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 1e18, -1e18])
def test_what_is_no_time_cannot_be_written(seconds):
    with pytest.raises(ValueError, match="no time between"):
        format_time(seconds)


def element_of(text: str = "", **attributes: str) -> etree._Element:
    given = {"created": GOOD.created, "id": GOOD.message_id, "key": GOOD.key_id, "to": GOOD.destination, **attributes}
    kept = {name: value for name, value in given.items() if value != "-"}
    element = etree.Element(f"{{{SIGNATURE_NAMESPACE}}}sig", kept, nsmap={None: SIGNATURE_NAMESPACE})
    element.text = text or VALUE
    return element


VALUE = base64.b64encode(GOOD.value).decode()
OTHER_SPELLING = VALUE[:-3] + chr(ord(VALUE[-3]) + 1) + "=="


def test_the_other_spelling_is_one():
    assert base64.b64decode(OTHER_SPELLING) == GOOD.value and OTHER_SPELLING != VALUE


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "=",
        VALUE[:-1],
        VALUE[:-2],
        VALUE + "=",
        " " + VALUE,
        VALUE + "\n",
        VALUE[:40] + "\n" + VALUE[40:],
        VALUE.replace("+", "-").replace("/", "_"),
        OTHER_SPELLING,
        base64.b64encode(bytes(63)).decode(),
        base64.b64encode(bytes(65)).decode(),
        base64.b64encode(b"").decode() or "A",
        "é" * 88,
        "A" * 1_000_000,
    ],
)
def test_a_value_that_is_none(text):
    with pytest.raises(ValueError, match="base64"):
        Signature.read(element_of(text))


@pytest.mark.parametrize(
    "attributes",
    [
        {"key": "-"},
        {"to": "-"},
        {"id": "-"},
        {"created": "-"},
        {"more": "1"},
        {"to": "-", "To": "billing"},
        {"{urn:x}to": "billing"},
        {"key": ""},
        {"key": GOOD.key_id + "="},
        {"key": GOOD.key_id[:-1]},
        {"key": "é" * 43},
        {"id": ""},
        {"id": "a b"},
        {"id": "m-1\n"},
        {"id": "-m"},
        {"id": "m" * 129},
        {"created": ""},
        {"created": "2027-01-15T08:00:00Z"},
        {"created": "2027-01-15T08:00:00.000+00:00"},
        {"created": "2027-01-15T08:00:00.000000Z"},
        {"created": "2027-01-15 08:00:00.000Z"},
        {"created": "2027-01-15t08:00:00.000z"},
        {"created": "2027-01-15T24:00:00.000Z"},
        {"created": "2027-02-30T08:00:00.000Z"},
        {"created": "0000-01-01T00:00:00.000Z"},
        {"created": "2027-01-15T08:00:60.000Z"},
        {"created": "٢٠٢٧-01-15T08:00:00.000Z"},
        {"created": "1800000000"},
    ],
)
def test_attributes_that_are_not_those(attributes):
    with pytest.raises(ValueError):
        Signature.read(element_of(**attributes))


def test_an_element_in_it_is_not_read_over():
    element = element_of()
    etree.SubElement(element, "more")
    with pytest.raises(ValueError, match="holds elements"):
        Signature.read(element)


def test_a_prefix_is_another_spelling():
    with pytest.raises(ValueError, match="prefix"):
        Signature.read(
            parse_strict(
                canonical_bytes(GOOD.element()).replace(b"<sig xmlns", b"<s:sig xmlns:s").replace(b"/sig", b"/s:sig")
            )
        )


@pytest.mark.parametrize("destination", ["\0", "\x1b", "\ud800", "\ufffe"])
def test_a_destination_that_xml_cannot_carry(destination):
    with pytest.raises(ValueError, match=r"XML compatible|surrogates"):
        replace(GOOD, destination=destination).element()


@pytest.mark.parametrize("text", ["1", "7c0d3d5e-8f6c-4f0e-9a57-0d9f6c1b2a34", "run:1.2_3", "a" * 128])
def test_message_ids(text):
    assert is_message_id(text) and not is_message_id(text + "\n") and not is_message_id(" " + text)


# -- where it stands


def test_it_is_found_at_its_place():
    root = parse_strict(signed())
    element = find_signature(root)
    assert element is root[0][-1]
    assert find_signature(parse_strict(SMALL)) is None


@pytest.mark.parametrize("text", [b"<a/>", b'<message xmlns="urn:x"><meta/></message>', SMALL])
def test_nothing_is_found_where_nothing_is(text):
    assert find_signature(parse_strict(text)) is None


def test_that_it_is_elsewhere_is_refused():
    root = parse_strict(signed())
    root.append(root[0][-1])
    with pytest.raises(SignatureRefused) as caught:
        find_signature(root)
    assert caught.value.reason is Reason.WRAPPED


def test_text_behind_it_is_refused_and_not_lost():
    """Taking an element out of a tree takes the text behind it, too."""
    root = parse_strict(signed())
    root[0][-1].tail = "of nobody"
    with pytest.raises(SignatureRefused, match="text behind") as caught:
        find_signature(root)
    assert caught.value.reason is Reason.WRAPPED


def test_the_room_is_usable_without_the_pump():
    """It stands in the lowest row: importing it brings neither event loop nor streams."""
    heavy = ("asyncio", "aiostream", "nats", "pydantic")
    code = f"import sys, xml_pipeline.crypto; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
