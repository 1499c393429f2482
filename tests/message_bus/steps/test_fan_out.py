import pytest

from xml_pipeline.envelope import ENVELOPE_NAMESPACE
from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.message_state import MessageState, Origin
from xml_pipeline.message_bus.steps.fan_out import extract_payloads, payloads_of
from xml_pipeline.message_bus.steps.payload_extraction import extract_payload
from xml_pipeline.strict_xml import parse_strict

THREAD = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"


def envelope(payloads):
    meta = f"<meta><from>a</from><to>b</to><thread>{THREAD}</thread></meta>"
    return f'<message xmlns="{ENVELOPE_NAMESPACE}">{meta}{payloads}</message>'.encode()


def extracted(payloads, repairs=()):
    state = MessageState(envelope_tree=parse_strict(envelope(payloads)))
    state.wire = envelope(payloads)
    state.repairs = repairs
    return extract_payload(state)


async def all_of(state):
    return [each async for each in extract_payloads(state)]


def test_one_payload_is_the_state_itself():
    state = extracted('<A xmlns=""/>')
    assert payloads_of(state) == [state]


def test_each_payload_becomes_a_state_in_order():
    state = extracted('<A xmlns=""/><B xmlns=""/>\n<C xmlns=""/>', repairs=("mended",))
    state.metadata["key"] = "value"
    state.number, state.in_pipe, state.message_id = 7, True, "m-7"
    states = payloads_of(state)
    assert states[0] is state
    assert [each.payload_tree.tag for each in states] == ["A", "B", "C"]
    for each in states[1:]:
        assert (each.from_id, each.to_id, each.thread_id) == ("a", "b", THREAD)
        assert each.wire is state.wire
        assert each.origin is Origin.DETACHED
        assert each.repairs == ("mended",)
        assert each.metadata == {"key": "value"}
        assert each.metadata is not state.metadata
        assert (each.number, each.in_pipe, each.message_id) == (0, False, "")


def test_the_number_of_payloads_is_bounded():
    state = extracted('<A xmlns=""/>' * 5)
    assert len(payloads_of(state, max_fan_out=5)) == 5
    with pytest.raises(ValidationError) as caught:
        payloads_of(state, max_fan_out=4)
    assert "5 payloads; at most 4" in caught.value.detail
    with pytest.raises(ValidationError):
        payloads_of(extracted('<A xmlns=""/>' * 1001))


@pytest.mark.parametrize("raw", [b"<A/>", b" <A/> \n"])
async def test_one_root_one_state(raw):
    state = MessageState(raw, thread_id=THREAD, from_id="a")
    (only,) = await all_of(state)
    assert only.payload_tree.tag == "A"
    assert (only.thread_id, only.from_id) == (THREAD, "a")


async def test_three_roots_three_states():
    state = MessageState(b"<A/><B>1</B>and<C/>", thread_id=THREAD, from_id="a", to_id="b", metadata={"key": "value"})
    states = await all_of(state)
    assert [each.payload_tree.tag for each in states] == ["A", "B", "C"]
    for each in states:
        assert (each.thread_id, each.from_id, each.to_id) == (THREAD, "a", "b")
        assert each.metadata == {"key": "value"}
        assert each.metadata is not state.metadata
        assert "root elements kept apart (3)" in each.repairs
    assert state.raw_bytes is not None


@pytest.mark.parametrize("raw", [b"", b"  ", b"no element", b"<A>", b"<A/>" * 1001])
async def test_what_holds_no_payload_is_one_failed_state(raw):
    state = MessageState(raw)
    assert await all_of(state) == [state]
    assert isinstance(state.failure, ValidationError)


async def test_an_envelope_is_fanned_out_too():
    assert len(await all_of(extracted('<A xmlns=""/><B xmlns=""/>'))) == 2


async def test_a_state_with_nothing_and_a_failed_state_pass():
    empty = MessageState()
    assert await all_of(empty) == [empty]
    failed = MessageState(b"<A/><B/>", error="before")
    assert await all_of(failed) == [failed]
    assert failed.error == "before"
