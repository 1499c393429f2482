import gzip
import time

import pytest

from xml_pipeline.envelope import message_text
from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.message_state import MessageState, Origin
from xml_pipeline.message_bus.steps.c14n import c14n
from xml_pipeline.message_bus.steps.repair import Bounds, make_repair, repair, repair_step
from xml_pipeline.message_bus.steps.step import run_step

THREAD = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"
ENVELOPE = message_text('<Say xmlns=""><Text>hello</Text></Say>', "a", "b", THREAD)
NAMESPACE = "https://xml-pipeline.org/ns/envelope/v1"

strict = make_repair(Bounds())
lenient = make_repair(Bounds(), lenient=True)


async def test_a_valid_envelope_becomes_a_tree():
    state = await repair_step(MessageState(ENVELOPE))
    assert state.error is None
    assert state.envelope_tree.tag == f"{{{NAMESPACE}}}message"
    assert state.raw_bytes is None
    assert state.wire == ENVELOPE
    assert state.repairs == ()


async def test_missing_bytes():
    state = await repair_step(MessageState())
    assert "no raw_bytes" in state.error
    assert state.failure.step == "repair"


async def test_malformed_bytes_are_an_error_never_an_exception():
    state = await repair_step(MessageState(b"<message><unclosed>"))
    assert "not well-formed" in state.error
    assert state.envelope_tree is None
    assert state.raw_bytes == b"<message><unclosed>"


@pytest.mark.parametrize("origin", Origin)
@pytest.mark.parametrize("raw", [ENVELOPE[:-1], ENVELOPE.replace(b"hello", b"R&D"), b"<!DOCTYPE a>" + ENVELOPE])
def test_every_origin_takes_the_same_path(origin, raw):
    state = MessageState(raw, from_id="a", to_id="b", thread_id=THREAD)
    state.origin = origin
    assert run_step(repair, state).error


@pytest.mark.parametrize("origin", Origin)
@pytest.mark.parametrize("step", [strict, lenient])
def test_a_well_formed_envelope_is_left_alone_in_every_mode(origin, step):
    raw = b'<?xml version="1.0"?>\n<!-- x -->' + ENVELOPE.replace(b"hello", b"a &amp; b<!-- c -->!") + b"\n"
    state = MessageState(raw)
    state.origin = origin
    run_step(step, state)
    assert state.error is None
    assert state.wire == raw
    assert state.repairs == ()
    assert state.envelope_tree.findtext(".//Text") == "a & b!"


# ---- bounds, before anything is canonicalised

ATTACKS = {
    "a megabyte and one": b"<a>" + b"x" * (1_048_577 - 7) + b"</a>",
    "100 MB in pieces of text": b"<a>" + (b"x" * 9_000_000 + b"<b/>") * 11 + b"</a>",
    "a million empty elements": b"<a>" + b"<b/>" * 1_000_000 + b"</a>",
    "as many empty elements as fit": b"<a>" + b"<b/>" * 262_000 + b"</a>",
    "500,000 instructions": b"<a>" + b"<?p?>" * 500_000 + b"</a>",
    "distinct names": b"<a>" + b"".join(b"<n%d/>" % number for number in range(60_000)) + b"</a>",
    "101 levels": b"<a>" * 101 + b"</a>" * 101,
    "3,000 levels": b"<a>" * 3000 + b"</a>" * 3000,
    "a million levels, unclosed": b"<a>" * 349_000,
    "40,000 attributes": b"<a " + b" ".join(b'a%d=""' % number for number in range(40_000)) + b"/>",
    "257 attributes": b"<a " + b" ".join(b'a%d=""' % number for number in range(257)) + b"/>",
    "1,000 namespaces": b"<a " + b" ".join(b'xmlns:n%d="u:%d"' % (n, n) for n in range(1000)) + b"/>",
    "namespaces along a path": b"".join(
        b"<a " + b" ".join(b'xmlns:n%d-%d="u:%d" n%d-%d:x=""' % (d, n, n, d, n) for n in range(200)) + b">"
        for d in range(90)
    )
    + b"</a>" * 90,
    "billion laughs": b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><a>&b;</a>',
    "gzip": gzip.compress(ENVELOPE),
    "UTF-16": ENVELOPE.decode().encode("utf-16"),
    "UTF-7": b'<?xml version="1.0" encoding="UTF-7"?>+ADw-a/+AD4-',
}


@pytest.mark.parametrize("step", [strict, lenient])
@pytest.mark.parametrize("raw", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_in_no_time(raw, step):
    state = MessageState(raw)
    began = time.process_time()
    run_step(step, state)
    assert time.process_time() - began < 0.5
    assert isinstance(state.failure, ValidationError)
    assert state.envelope_tree is None
    assert len(state.error) < 500


@pytest.mark.parametrize(
    "raw",
    [
        b"<a>" * 100 + b"</a>" * 100,
        b"<a>" + b"<b/>" * 49_999 + b"</a>",
        b"<a " + b" ".join(b'a%d=""' % number for number in range(256)) + b"/>",
        b"<a>" + b"x" * (1_048_576 - 7) + b"</a>",
    ],
    ids=["depth", "elements", "attributes", "bytes"],
)
def test_what_is_just_within_bounds_is_taken_and_canonicalised_in_no_time(raw):
    state = MessageState(raw)
    began = time.process_time()
    c14n(repair(state))
    assert time.process_time() - began < 0.5


def test_bounds_are_the_ingress_s_own():
    tight = make_repair(Bounds(max_message_bytes=len(ENVELOPE) - 1))
    assert "max_message_bytes" in run_step(tight, MessageState(ENVELOPE)).error
    flat = make_repair(Bounds(max_element_depth=2))
    assert "max_element_depth" in run_step(flat, MessageState(ENVELOPE)).error


# ---- lenient


def test_lenient_mends_and_records():
    raw = b"Sure:\n```xml\n" + ENVELOPE.replace(b"hello", b"R&D: x < 5\x01") + b"\n```"
    state = MessageState(raw)
    state.repairs = ("before",)
    run_step(lenient, state)
    assert state.error is None
    assert state.envelope_tree.findtext(".//Text") == "R&D: x < 5\ufffd"
    assert state.repairs[0] == "before"
    assert len(state.repairs) == 6
    assert c14n(state).wire.count(b"R&amp;D: x &lt; 5\xef\xbf\xbd") == 1


def test_strict_mends_nothing():
    state = run_step(strict, MessageState(ENVELOPE.replace(b"hello", b"R&D")))
    assert "not well-formed" in state.error
    assert state.repairs == ()


@pytest.mark.parametrize("raw", [ENVELOPE + ENVELOPE, ENVELOPE + b"<x/>"])
def test_lenient_wants_one_root(raw):
    assert "one root element expected, 2 found" in run_step(lenient, MessageState(raw)).error


def test_lenient_bounds_hold_after_mending_too():
    bounds = Bounds(max_message_bytes=1000)
    state = run_step(make_repair(bounds, lenient=True), MessageState(b"<a>" + b"&" * 900 + b"</a>"))
    assert "max_message_bytes" in state.error
