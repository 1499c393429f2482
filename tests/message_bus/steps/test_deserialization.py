from dataclasses import dataclass

import pytest

from third_party.xmlable import codec_of
from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.steps.deserialization import deserialization_step, deserialize, make_deserialization
from xml_pipeline.message_bus.steps.step import run_step
from xml_pipeline.strict_xml import parse_strict


@dataclass
class Share:
    part: int
    whole: int

    def __post_init__(self):
        if not self.whole:
            raise ZeroDivisionError("whole is zero")


def element(part="1", whole="2"):
    return parse_strict(f"<Share><Part>{part}</Part><Whole>{whole}</Whole></Share>".encode())


@pytest.fixture(params=["codec", "made", "metadata"])
def decode(request):
    async def run(state):
        if request.param == "codec":
            return run_step(lambda each: deserialize(each, codec_of(Share)), state)
        if request.param == "made":
            return await make_deserialization(Share)(state)
        state.metadata["payload_class"] = Share
        return await deserialization_step(state)

    return run


async def test_a_payload_becomes_an_object(decode):
    state = await decode(MessageState(payload_tree=element()))
    assert state.error is None
    assert state.payload == Share(1, 2)


@pytest.mark.parametrize("tree", [element("x"), element(whole="0"), parse_strict(b"<Other/>")])
async def test_what_cannot_become_one_is_the_messages_fault(decode, tree, caplog):
    state = await decode(MessageState(payload_tree=tree))
    assert "Deserialization failed" in state.error
    assert type(state.failure) is ValidationError
    assert state.payload is None
    assert caplog.text == ""


async def test_missing_payload_tree(decode):
    assert "no payload_tree" in (await decode(MessageState())).error


async def test_missing_class():
    assert "no class" in (await deserialization_step(MessageState(payload_tree=element()))).error
