import pytest
from lxml import etree

from xml_pipeline.envelope import ENVELOPE_NAMESPACE, message_text
from xml_pipeline.errors import ForgedMessage
from xml_pipeline.message_bus.message_state import MessageState, Origin
from xml_pipeline.message_bus.steps.c14n import c14n
from xml_pipeline.message_bus.steps.payload_extraction import extract_payload, payload_extraction_step
from xml_pipeline.message_bus.steps.step import run_step
from xml_pipeline.strict_xml import parse_strict

THREAD = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"
OTHER = "7d5b1e2a-0c4f-4b3a-9a51-0d8f3c2e6b70"
PAYLOAD = '<Say xmlns=""><Text>hello</Text></Say>'


def state_of(raw=None, **fields):
    raw = message_text(PAYLOAD, "a", "b", THREAD) if raw is None else raw
    state = MessageState(envelope_tree=parse_strict(raw))
    for name, value in fields.items():
        setattr(state, name, value)
    return state


def parts(meta=f"<from>a</from><to>b</to><thread>{THREAD}</thread>", payload=PAYLOAD):
    return f'<message xmlns="{ENVELOPE_NAMESPACE}">{meta and f"<meta>{meta}</meta>"}{payload}</message>'.encode()


async def test_a_detached_state_takes_everything_from_the_envelope():
    state = await payload_extraction_step(state_of(from_id="old", to_id="old", thread_id="old"))
    assert (state.from_id, state.to_id, state.thread_id) == ("a", "b", THREAD)
    assert state.payload_tree.tag == "Say"
    assert state.payload_tree.findtext("Text") == "hello"


def test_names_are_taken_exactly():
    state = extract_payload(state_of(parts(f"<from> A.b </from><to> ÄDDER </to><thread>{THREAD}</thread>")))
    assert (state.from_id, state.to_id) == (" A.b ", " ÄDDER ")


def test_to_may_be_missing():
    assert extract_payload(state_of(message_text(PAYLOAD, "a", None, THREAD))).to_id is None


def test_the_first_of_several_payloads_is_taken_and_the_others_stay_in_the_tree():
    state = extract_payload(state_of(parts(payload=PAYLOAD + '<Other xmlns=""/>')))
    assert state.payload_tree.tag == "Say"
    assert len(state.envelope_tree) == 3


def test_a_payload_in_a_namespace_is_extracted_from_a_tree_nobody_validated():
    assert extract_payload(state_of(parts(payload='<x:Do xmlns:x="urn:x"/>'))).payload_tree.tag == "{urn:x}Do"


def test_a_tree_with_comments_is_read_whole():
    tree = etree.fromstring(
        parts(f"<!-- c --><from>admin<!-- -->.evil</from><thread>{THREAD}</thread>", "<!-- c --><P/>")
    )
    state = extract_payload(MessageState(envelope_tree=tree))
    assert state.from_id == "admin.evil"
    assert isinstance(state.payload_tree.tag, str)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"<Other/>", "not message"),
        (b"<message/>", "not message"),
        (parts(meta=""), "missing <meta>"),
        (parts(meta="<to>b</to>"), "missing <from>"),
        (parts(meta="<from/><thread>t</thread>"), "missing <from>"),
        (parts(meta="<from>a</from>"), "missing <thread>"),
        (parts(payload=""), "no payload"),
        (parts(payload="<!-- none -->"), "no payload"),
    ],
)
async def test_what_is_missing_is_named(raw, reason):
    state = await payload_extraction_step(state_of(raw))
    assert reason in state.error
    assert state.failure.step == "extract_payload"
    assert state.payload_tree is None


async def test_missing_tree():
    assert "no envelope_tree" in (await payload_extraction_step(MessageState())).error


CLAIMED = {"from_id": "a", "to_id": "b", "thread_id": THREAD}


@pytest.mark.parametrize("origin", [Origin.EXTERNAL, Origin.INTERNAL])
def test_a_true_claim_passes(origin):
    state = extract_payload(state_of(origin=origin, **CLAIMED))
    assert state.error is None
    assert state.payload_tree is not None


@pytest.mark.parametrize("origin", [Origin.EXTERNAL, Origin.INTERNAL])
@pytest.mark.parametrize(
    "fact",
    [
        {"from_id": "system"},
        {"from_id": "A"},
        {"from_id": "a "},
        {"from_id": None},
        {"thread_id": OTHER},
        {"thread_id": THREAD.upper()},
        {"thread_id": None},
        {"to_id": "B"},
        {"to_id": "c"},
    ],
)
@pytest.mark.parametrize("canonical", [False, True])
def test_a_false_claim_is_refused_and_changes_nothing(origin, fact, canonical):
    facts = CLAIMED | fact
    state = state_of(origin=origin, **facts)
    if canonical:
        c14n(state)
    run_step(extract_payload, state)
    assert type(state.failure) is ForgedMessage
    assert {name: getattr(state, name) for name in facts} == facts
    assert state.payload_tree is None
    assert "claims" not in str(state.failure)


def test_an_external_envelope_requests_its_target():
    state = extract_payload(state_of(origin=Origin.EXTERNAL, **CLAIMED | {"to_id": None}))
    assert state.to_id == "b"


def test_an_internal_envelope_has_no_say_in_its_target():
    state = run_step(extract_payload, state_of(origin=Origin.INTERNAL, **CLAIMED | {"to_id": None}))
    assert type(state.failure) is ForgedMessage
    assert state.to_id is None


@pytest.mark.parametrize("origin", [Origin.EXTERNAL, Origin.INTERNAL])
def test_an_envelope_without_to_does_not_match_an_admitted_target(origin):
    state = state_of(message_text(PAYLOAD, "a", None, THREAD), origin=origin, **CLAIMED)
    assert type(run_step(extract_payload, state).failure) is ForgedMessage
