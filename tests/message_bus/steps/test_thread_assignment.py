import uuid

import pytest

from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.message_state import MessageState, Origin
from xml_pipeline.message_bus.steps.thread_assignment import assign_thread, is_thread_id, thread_assignment_step

CANONICAL = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"


async def test_a_canonical_id_is_kept():
    state = await thread_assignment_step(MessageState(thread_id=CANONICAL))
    assert state.thread_id == CANONICAL
    assert state.error is None
    assert state.metadata == {}


def test_a_missing_id_is_made():
    ids = {assign_thread(MessageState()).thread_id for _ in range(100)}
    assert len(ids) == 100
    assert all(is_thread_id(each) and str(uuid.UUID(each)) == each for each in ids)


@pytest.mark.parametrize(
    "thread",
    [
        "",
        "conv-1",
        "not-a-uuid",
        CANONICAL.upper(),
        CANONICAL.replace("-", ""),
        "{" + CANONICAL + "}",
        "urn:uuid:" + CANONICAL,
        CANONICAL + "\n",
        " " + CANONICAL,
        CANONICAL[:-1],
        CANONICAL + "0",
        CANONICAL.replace("-4c60-", "-1c60-"),
        CANONICAL.replace("-8f0a-", "-cf0a-"),
        CANONICAL.replace("3", "\u0663"),
        "e3ae1440-e5cc-11f1-8ee1-02fc00000001",
        "00000000-0000-0000-0000-000000000000",
        "system.pump.x" * 1000,
    ],
)
async def test_any_other_id_is_refused_with_a_note_never_replaced(thread):
    state = await thread_assignment_step(MessageState(thread_id=thread, metadata={"diagnostics": ["before"]}))
    assert type(state.failure) is ValidationError
    assert state.failure.step == "assign_thread"
    assert state.thread_id == thread
    before, note = state.metadata["diagnostics"]
    assert before == "before"
    assert "not a canonical version-4 UUID" in note
    assert len(note) < 200
    assert not is_thread_id(thread)


def test_the_pump_s_own_id_is_not_looked_at():
    state = MessageState(thread_id="frame")
    state.origin = Origin.INTERNAL
    assert assign_thread(state).thread_id == "frame"
