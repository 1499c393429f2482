import pytest

from xml_pipeline.envelope import message_text
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.steps.envelope_validation import envelope_validation_step, validate_envelope
from xml_pipeline.message_bus.steps.step import run_step
from xml_pipeline.strict_xml import parse_strict

THREAD = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"
ENVELOPE = message_text('<Say xmlns=""><Text>hello</Text></Say>', "a", "b", THREAD)


async def test_a_valid_envelope_passes():
    state = await envelope_validation_step(MessageState(envelope_tree=parse_strict(ENVELOPE)))
    assert state.error is None


async def test_missing_tree():
    state = await envelope_validation_step(MessageState())
    assert "no envelope_tree" in state.error
    assert state.failure.step == "validate_envelope"


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        (b"<other/>", "other"),
        (ENVELOPE.replace(b"<from>a</from>", b""), "from"),
        (ENVELOPE.replace(b'<Say xmlns="">', b"<Say>"), "Say"),
        (ENVELOPE.replace(b"/v1", b"/v2"), "/v2"),
        (ENVELOPE[: ENVELOPE.index(b"<Say")] + b"</message>", "Missing child"),
    ],
)
def test_an_invalid_envelope_is_refused_with_a_line_per_error(raw, hint):
    state = run_step(validate_envelope, MessageState(envelope_tree=parse_strict(raw)))
    first, *lines = state.error.splitlines()
    assert first == "invalid envelope"
    assert any(hint in line for line in lines)
    assert "envelope" not in str(state.failure)


def test_a_flood_of_errors_is_cut():
    extras = b"".join(b' a%d="%s"' % (number, b"x" * 1000) for number in range(50))
    raw = ENVELOPE.replace(b"<meta>", b"<meta" + extras + b">")
    state = run_step(validate_envelope, MessageState(envelope_tree=parse_strict(raw)))
    assert len(state.error.splitlines()) == 12
    assert state.error.endswith("... and 40 more")
    assert len(state.error) < 4000
