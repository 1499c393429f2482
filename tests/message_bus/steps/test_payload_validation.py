from dataclasses import dataclass

import pytest

from third_party.xmlable import codec_of
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.steps.payload_validation import (
    make_xsd_validation,
    validate_payload,
    xsd_validation_step,
)
from xml_pipeline.message_bus.steps.step import run_step
from xml_pipeline.strict_xml import parse_strict


@dataclass
class AddRequest:
    left: int
    right: int


VALID = b"<AddRequest><Left>2</Left><Right>3</Right></AddRequest>"
XSI = b' xmlns:i="http://www.w3.org/2001/XMLSchema-instance"'
INVALID = {
    "attribute": b'<AddRequest a="1"><Left>2</Left><Right>3</Right></AddRequest>',
    "other order": b"<AddRequest><Right>3</Right><Left>2</Left></AddRequest>",
    "child missing": b"<AddRequest><Left>2</Left></AddRequest>",
    "lower case": b"<AddRequest><left>2</left><Right>3</Right></AddRequest>",
    "lower-case root": b"<addrequest><Left>2</Left><Right>3</Right></addrequest>",
    "no number": b"<AddRequest><Left>2</Left><Right>x</Right></AddRequest>",
    "text": b"<AddRequest>x<Left>2</Left><Right>3</Right></AddRequest>",
    "other root": b"<Other/>",
    "namespace": b'<AddRequest xmlns="urn:x"><Left>2</Left><Right>3</Right></AddRequest>',
    "extra child": b"<AddRequest><Left>2</Left><Right>3</Right><Evil/></AddRequest>",
    "nil": b"<AddRequest" + XSI + b'><Left i:nil="true"/><Right>3</Right></AddRequest>',
    "retyped": b"<AddRequest" + XSI + b' i:type="Evil"><Left>2</Left><Right>3</Right></AddRequest>',
}


def by_codec(state):
    return run_step(lambda each: validate_payload(each, codec_of(AddRequest)), state)


@pytest.fixture(params=["codec", "made", "metadata"])
def validate(request):
    async def run(state):
        if request.param == "codec":
            return by_codec(state)
        if request.param == "made":
            return await make_xsd_validation(codec_of(AddRequest).schema)(state)
        state.metadata["schema"] = codec_of(AddRequest).schema
        return await xsd_validation_step(state)

    return run


async def test_a_valid_payload_passes(validate):
    state = await validate(MessageState(payload_tree=parse_strict(VALID)))
    assert state.error is None


@pytest.mark.parametrize("raw", INVALID.values(), ids=INVALID)
async def test_an_invalid_payload_is_refused(validate, raw):
    state = await validate(MessageState(payload_tree=parse_strict(raw)))
    first, *lines = state.error.splitlines()
    assert first == "XSD validation failed"
    assert lines
    assert len(state.error) < 4000


async def test_a_payload_inside_an_envelope_is_validated_alone(validate):
    tree = parse_strict(b'<m xmlns="urn:m">' + VALID.replace(b"<AddRequest", b'<AddRequest xmlns=""') + b"<other/></m>")
    state = await validate(MessageState(payload_tree=tree[0]))
    assert state.error is None


async def test_missing_payload_tree(validate):
    assert "no payload_tree" in (await validate(MessageState())).error


async def test_missing_schema_is_no_permission():
    state = await xsd_validation_step(MessageState(payload_tree=parse_strict(VALID)))
    assert "no schema" in state.error
