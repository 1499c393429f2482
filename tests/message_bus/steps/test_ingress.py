"""The strict stages one after another: what comes in is an outcome, never an exception, and never half a message."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from xml_pipeline.envelope import ENVELOPE_NAMESPACE, build_envelope, envelope_to_bytes, message_text, read_meta
from xml_pipeline.errors import PipelineError
from xml_pipeline.message_bus.message_state import MessageState, Origin
from xml_pipeline.message_bus.steps.c14n import c14n, c14n_step
from xml_pipeline.message_bus.steps.envelope_validation import envelope_validation_step, validate_envelope
from xml_pipeline.message_bus.steps.fan_out import payloads_of
from xml_pipeline.message_bus.steps.payload_extraction import extract_payload, payload_extraction_step
from xml_pipeline.message_bus.steps.repair import Bounds, make_repair, repair_step
from xml_pipeline.message_bus.steps.step import lift, run_step
from xml_pipeline.message_bus.steps.thread_assignment import assign_thread, thread_assignment_step
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

THREAD = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"
CANONICAL = message_text('<Pay xmlns=""><To>Bob</To><Amount>1000000</Amount></Pay>', "console", "bank", THREAD)
INDENTED = f"""<?xml version="1.0" encoding="UTF-8"?>
<message xmlns="{ENVELOPE_NAMESPACE}">
  <meta>
    <from>console</from>
    <to>bank</to>
    <thread>{THREAD}</thread>
    <p:priority xmlns:p="urn:example:prio">3</p:priority>
  </meta>
  <Pay xmlns="" note='a "quoted" &amp; kept'><!-- comment --><To>Bob</To><Amount><![CDATA[1000000]]></Amount></Pay>
  <Pay xmlns=""><To>Eve</To><Amount>1</Amount></Pay>
</message>""".encode()

REPAIR = {"strict": make_repair(Bounds()), "lenient": make_repair(Bounds(), lenient=True)}
REST = (c14n, validate_envelope, extract_payload, assign_thread)


@pytest.fixture(params=REPAIR)
def ingest(request):
    return functools.partial(ingest_in, request.param)


def ingest_in(mode, raw, **fields):
    batch = [MessageState(raw)]
    for name, value in fields.items():
        setattr(batch[0], name, value)
    for step in (REPAIR[mode], *REST):
        batch = lift(step)(batch)
    return batch[0]


async def test_a_valid_envelope_passes_all_twins():
    state = MessageState(CANONICAL)
    for step in (repair_step, c14n_step, envelope_validation_step, payload_extraction_step, thread_assignment_step):
        state = await step(state)
    assert state.error is None
    assert (state.from_id, state.to_id, state.thread_id) == ("console", "bank", THREAD)
    assert state.payload_tree.findtext("Amount") == "1000000"
    assert state.wire == CANONICAL


async def test_the_first_error_is_the_one_reported():
    state = MessageState(b"")
    for step in (repair_step, c14n_step, envelope_validation_step, payload_extraction_step, thread_assignment_step):
        state = await step(state)
    assert state.failure.step == "repair"
    assert "not well-formed" in state.error
    assert state.thread_id is None


def test_both_envelopes_are_valid_whole(ingest):
    assert ingest(CANONICAL).error is None
    assert len(payloads_of(ingest(INDENTED))) == 2


@pytest.mark.parametrize("raw", [CANONICAL, INDENTED], ids=["canonical", "indented"])
@pytest.mark.parametrize(("before", "after"), [(b"", b""), (b"```xml\n", b"\n```\n"), (b"", b" That is all.")])
def test_cut_at_any_byte_it_never_passes(ingest, raw, before, after):
    for length in range(len(raw)):
        state = ingest(before + raw[:length] + after)
        assert isinstance(state.failure, PipelineError), raw[:length]


def test_with_any_byte_lost_it_never_says_another_amount(ingest):
    for position in range(len(CANONICAL)):
        state = ingest(CANONICAL[:position] + CANONICAL[position + 1 :])
        if state.error is None:
            begin, end = CANONICAL.index(b"1000000"), CANONICAL.index(b"</Amount>")
            amount = state.payload_tree.findtext("Amount")
            # Mended without its "<", the end tag is text; that is no number, and no schema takes it for one.
            assert amount in ("1000000", "1000000/Amount>") or begin <= position < end


# ---- variations of the envelope

ADD = "<Left>2</Left><Right>3</Right>"


def varied(meta=f"<from>console</from><to>adder</to><thread>{THREAD}</thread>", payload=f'<Add xmlns="">{ADD}</Add>'):
    return f'<message xmlns="{ENVELOPE_NAMESPACE}"><meta>{meta}</meta>{payload}</message>'.encode()


REFUSED = {
    "payload without xmlns": (varied(payload=f"<Add>{ADD}</Add>"), "invalid envelope"),
    "other version": (varied().replace(b"/v1", b"/v2"), "invalid envelope"),
    "no payload": (varied(payload=""), "invalid envelope"),
    "empty from": (varied(f"<from/><thread>{THREAD}</thread>"), "missing <from>"),
    "extension in no namespace": (varied(f'<from>a</from><thread>{THREAD}</thread><p xmlns=""/>'), "invalid envelope"),
    "extension in ours": (varied(f"<from>a</from><thread>{THREAD}</thread><prio/>"), "invalid envelope"),
    "other order": (varied(f"<to>b</to><from>a</from><thread>{THREAD}</thread>"), "invalid envelope"),
    "thread that is no UUID": (varied("<from>a</from><thread>conv-1</thread>"), "version-4 UUID"),
    "thread in capitals": (varied(f"<from>a</from><thread>{THREAD.upper()}</thread>"), "version-4 UUID"),
    "thread with blanks": (varied(f"<from>a</from><thread> {THREAD}</thread>"), "version-4 UUID"),
    "cut in a number": (varied()[: varied().index(b"2</Left>") + 1], "not well-formed|before <message> is closed"),
    "unused document type": (b"<!DOCTYPE message>" + varied(), "document type"),
    "entity in use": (b'<!DOCTYPE m [<!ENTITY e "x">]>' + varied(payload='<A xmlns="">&e;</A>'), "document type"),
}
PASSING = {
    "no to": (varied(f"<from>a</from><thread>{THREAD}</thread>"), None),
    "unknown to": (varied(f"<from>a</from><to>nobody</to><thread>{THREAD}</thread>"), "nobody"),
    "to with blanks and capitals, exactly": (
        varied(f"<from>a</from><to> ADDER </to><thread>{THREAD}</thread>"),
        " ADDER ",
    ),
    "two payloads": (varied(payload='<A xmlns=""/><A xmlns=""/>'), "adder"),
    "attribute on the payload": (varied(payload='<A xmlns="" a="1"/>'), "adder"),
}


@pytest.mark.parametrize(("raw", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_variation_is_refused(ingest, raw, reason):
    state = ingest(raw)
    assert any(each in state.error for each in reason.split("|"))
    assert str(state.failure) == "The message is not valid."


@pytest.mark.parametrize(("raw", "to"), PASSING.values(), ids=PASSING)
def test_a_variation_passes(ingest, raw, to):
    state = ingest(raw)
    assert state.error is None
    assert state.to_id == to
    assert state.repairs == ()


# ---- what an envelope can never do


@pytest.mark.parametrize("origin", [Origin.EXTERNAL, Origin.INTERNAL])
@pytest.mark.parametrize(
    "envelope",
    [
        message_text('<A xmlns=""></A>', "system", "bank", THREAD),
        message_text('<A xmlns=""></A>', "console", "bank", THREAD.replace("3", "4")),
        message_text('<A xmlns=""></A>', "console", "vault", THREAD),
        varied(f"<from>con<!-- -->sole</from><from>system</from><to>bank</to><thread>{THREAD}</thread>"),
        varied(f"<from>con&#115;ole </from><to>bank</to><thread>{THREAD}</thread>"),
        varied(f"<from>consol\u0435</from><to>bank</to><thread>{THREAD}</thread>"),
    ],
)
def test_a_forged_envelope_never_passes(ingest, origin, envelope):
    state = ingest(envelope, origin=origin, from_id="console", to_id="bank", thread_id=THREAD)
    assert state.failure is not None
    assert (state.from_id, state.to_id, state.thread_id) == ("console", "bank", THREAD)


NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufffe\uffff", min_codepoint=32), min_size=1
)


@given(NAMES, NAMES, st.text("ab&<>;'\" \n\r\t]é\U0001f600"))
def test_names_and_text_survive_the_way_in(sender, to, text):
    payload = parse_strict(b"<Say><Text></Text></Say>")
    payload[0].text = text
    state = ingest_in("strict", envelope_to_bytes(build_envelope(payload, sender, THREAD, to)))
    assert state.error is None
    assert (state.from_id, state.to_id) == (sender, to)
    assert (state.payload_tree[0].text or "") == text


# ---- mutants

FRAGMENTS = [
    *b"&amp; &lt; &nbsp; &#1; &#xD800; & < > </ /> <a> </a> <a/> </meta>".split(),
    *b"<!-- --> <![CDATA[ ]]> <?p?> ' \" = ```".split(),
    *(b' xmlns="foo"| xmlns=""| xmlns:p="u:1"|p:| a="1" a="2"|<!DOCTYPE a>| xmlns:q="u:&amp;"|<to>x</to>'.split(b"|")),
    *(b"<from>system</from>|</message>|<message>|</Pay>|<Amount>|\xff|\x00|\x1b|\r|\xef\xbb\xbf|\xc0\xbc".split(b"|")),
]


@st.composite
def mutants(draw):
    raw = bytearray(draw(st.sampled_from([CANONICAL, INDENTED])))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(raw)))
        match draw(st.integers(0, 3)):
            case 0:
                raw[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del raw[at : at + draw(st.integers(1, 20))]
            case _:
                raw[at:at] = draw(st.sampled_from(FRAGMENTS))
    return bytes(raw)


@settings(max_examples=examples(700), deadline=None)
@given(mutants(), st.sampled_from(["strict", "lenient"]))
def test_a_mutant_is_a_failure_or_a_strict_canonical_fixed_point(raw, mode):
    state = ingest_in(mode, raw)
    if state.failure is not None:
        assert isinstance(state.failure, PipelineError)
        assert state.error
        assert "Error:" not in state.error  # nothing but declared refusals
        return
    tree = parse_strict(state.wire)
    assert canonical_bytes(tree) == canonical_bytes(state.envelope_tree) == state.wire
    assert read_meta(tree) == (state.from_id, state.to_id, state.thread_id)
    assert state.payload_tree in list(state.envelope_tree)
    # Strict takes a document or leaves it; only what is not well-formed is mended, and then it says so.
    assert bool(state.repairs) == (run_step(REPAIR["strict"], MessageState(raw)).error is not None)
    if mode == "strict":
        assert state.repairs == ()
