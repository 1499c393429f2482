"""`xml_pipeline.memory.context_buffer`: one immutable slot per message."""

from __future__ import annotations

import dataclasses
import gc
import pickle
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from third_party.xmlable import codec_of, xmlify
from xml_pipeline.memory import (
    BufferSlot,
    ContextBuffer,
    SlotMetadata,
    ThreadContext,
    get_context_buffer,
    reset_context_buffer,
    slot_to_handler_metadata,
)
from xml_pipeline.memory.context_buffer import SLOT_OVERHEAD
from xml_pipeline.message_bus.message_state import HandlerMetadata
from xml_pipeline.runtime import Runtime, use_runtime


@xmlify
@dataclass
class Note:
    text: str


@xmlify
@dataclass
class Lines:
    lines: list[str]


@pytest.fixture
def buffer() -> ContextBuffer:
    return ContextBuffer()


def record(buffer: ContextBuffer, conversation: str, thread: str, text: str, sender: str = "a", to: str = "b") -> None:
    codec = codec_of(Note)
    buffer.record(conversation, thread, codec.encode(Note(text)).encode(), codec, sender, to, "Note")


def texts(slots: Any) -> list[str]:
    return [slot.payload.text for slot in slots]


# --- slots ------------------------------------------------------------------------------------------------------------


def test_slot_and_metadata_are_frozen(buffer: ContextBuffer) -> None:
    slot = buffer.append("t", Note("hello"), "a", "b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        slot.metadata = slot.metadata
    with pytest.raises(dataclasses.FrozenInstanceError):
        slot.payload = Note("forged")  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del slot.metadata
    with pytest.raises(dataclasses.FrozenInstanceError):
        slot.metadata.from_id = "forged"  # type: ignore[misc]


def test_nobody_can_change_the_history(buffer: ContextBuffer) -> None:
    payload = Lines(["one"])
    slot = buffer.append("t", payload, "a", "b")
    payload.lines.append("changed by the sender")
    slot.payload.lines.append("changed by a reader")
    thread = buffer.get_thread("t")
    assert thread is not None
    assert thread[0].payload == slot.payload == Lines(["one"])
    assert slot.payload is not slot.payload


def test_payloads_without_an_xml_form_are_copied(buffer: ContextBuffer) -> None:
    @dataclass
    class Odd:
        anything: Any

    odd, plain = Odd({"key": [1]}), {"list": [1]}
    first = buffer.append("t", odd, "a", "b")
    second = buffer.append("t", plain, "a", "b")
    odd.anything["key"].append(2)
    plain["list"].append(2)
    first.payload.anything["key"].append(3)
    assert first.payload == Odd({"key": [1]})
    assert second.payload == {"list": [1]}
    assert second.metadata.payload_type == "dict"
    assert buffer.append("t", "text", "a", "b").payload == "text"
    assert buffer.append("t", Note("control \x01"), "a", "b").payload == Note("control \x01")


def test_metadata_of_a_slot(buffer: ContextBuffer) -> None:
    slot = buffer.append("t", Note("hi"), "anna", "bert", "bert", True, "how to call peers", "remember")
    meta = slot.metadata
    when = datetime.fromisoformat(meta.timestamp)
    assert when.tzinfo == UTC
    assert dataclasses.replace(meta, timestamp="") == SlotMetadata(
        "t", "anna", "bert", 0, "", "Note", "bert", True, "how to call peers", "remember"
    )
    assert (slot.thread_id, slot.from_id, slot.to_id, slot.index) == ("t", "anna", "bert", 0)


def test_slots_compare_hash_pickle_and_show(buffer: ContextBuffer) -> None:
    slot = buffer.append("t", Note("hi"), "a", "b")
    same = BufferSlot(Note("hi"), slot.metadata)
    assert slot == same == pickle.loads(pickle.dumps(slot))
    assert hash(slot) == hash(same)
    assert slot != BufferSlot(Note("ho"), slot.metadata)
    assert slot != Note("hi")
    assert "hi" in repr(slot)


def test_the_metadata_adapter_copies_all_six_handler_fields(buffer: ContextBuffer) -> None:
    slot = buffer.append("t", Note("hi"), "anna", "bert", "bert", True, "how", "remember")
    assert slot_to_handler_metadata(slot) == HandlerMetadata("t", "anna", "bert", True, "how", "remember")


def test_a_message_recorded_without_a_codec_shows_its_bytes(buffer: ContextBuffer) -> None:
    buffer.record("c", "c", b"<Raw/>", None, "a", "b", "Raw")
    assert buffer.get_thread_slots("c")[0].payload == b"<Raw/>"


# --- a thread's history -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False])
def test_a_thread_is_a_sequence(own: bool, buffer: ContextBuffer) -> None:
    thread = ThreadContext("t") if own else buffer.get_or_create_thread("t")
    assert len(thread) == 0
    slots = [thread.append(Note(text), sender, "b") for text, sender in (("x", "a"), ("y", "c"), ("z", "a"))]
    slots.append(thread.append(Lines([]), "a", "b"))
    assert [slot.index for slot in slots] == [0, 1, 2, 3]
    assert len(thread) == 4
    assert list(thread) == slots
    assert (thread[0], thread[-1]) == (slots[0], slots[3])
    assert thread[1:3] == thread.get_slice(1, 3) == slots[1:3]
    assert thread.get_slice() == slots
    assert thread.get_slice(2) == slots[2:]
    assert texts(thread.get_by_type("Note")) == ["x", "y", "z"]
    assert thread.get_by_type("note") == []
    assert thread.get_from("a") == [slots[0], slots[2], slots[3]]
    with pytest.raises(IndexError):
        thread[4]
    assert repr(thread) == "<ThreadContext t: 4 slots>"


def test_appending_while_iterating(buffer: ContextBuffer) -> None:
    thread = buffer.get_or_create_thread("t")
    thread.append(Note("x"), "a", "b")
    for slot in thread:
        thread.append(slot.payload, "a", "b")
    assert len(thread) == 2


def test_the_same_object_for_the_same_thread(buffer: ContextBuffer) -> None:
    thread = buffer.get_or_create_thread("t")
    assert buffer.get_or_create_thread("t") is thread
    assert buffer.get_thread("t") is thread
    assert buffer.get_thread("other") is None


def test_threads_are_isolated(buffer: ContextBuffer) -> None:
    one, other = buffer.get_or_create_thread("one"), buffer.get_or_create_thread("other")
    one.append(Note("x"), "a", "b")
    assert (len(one), len(other)) == (1, 0)


def test_delete_thread(buffer: ContextBuffer) -> None:
    thread = buffer.get_or_create_thread("t")
    thread.append(Note("x"), "a", "b")
    assert buffer.thread_exists("t")
    assert buffer.delete_thread("t")
    assert not buffer.thread_exists("t")
    assert not buffer.delete_thread("t")
    assert buffer.get_thread("t") is None
    assert buffer.get_thread_slots("t") == []
    assert len(thread) == 0


# --- a conversation's history -----------------------------------------------------------------------------------------


@pytest.fixture
def busy() -> ContextBuffer:
    """Two conversations; in the first, a desk called a clerk twice, on two frames."""
    buffer = ContextBuffer()
    record(buffer, "c", "c", "order", "external", "desk")
    record(buffer, "c", "f1", "find", "desk", "clerk")
    record(buffer, "d", "d", "other", "external", "desk")
    record(buffer, "c", "f2", "count", "desk", "clerk")
    record(buffer, "c", "c", "found", "clerk", "desk")
    record(buffer, "c", "f1", "thanks", "desk", "clerk")
    return buffer


def test_history_by_frame(busy: ContextBuffer) -> None:
    assert texts(busy.get_thread_slots("c")) == ["order", "found"]
    assert texts(busy.get_thread_slots("f1")) == ["find", "thanks"]
    assert texts(busy.get_thread_slots("f2")) == ["count"]
    assert [slot.index for slot in busy.get_thread_slots("f1")] == [0, 1]
    frame = busy.get_thread("f1")
    assert frame is not None
    assert [frame[0].index, frame[-1].index] == [0, 1]


def test_history_by_conversation(busy: ContextBuffer) -> None:
    slots = busy.by_conversation("c")
    assert texts(slots) == ["order", "find", "count", "found", "thanks"]
    assert [(slot.thread_id, slot.index) for slot in slots] == [("c", 0), ("f1", 0), ("f2", 0), ("c", 1), ("f1", 1)]
    assert busy.by_conversation("f1") == []


def test_history_by_agent_spans_its_frames_within_the_conversation(busy: ContextBuffer) -> None:
    assert texts(busy.by_agent("c", "clerk")) == ["find", "count", "found", "thanks"]
    assert texts(busy.by_agent("c", "external")) == ["order"]
    assert texts(busy.by_agent("d", "desk")) == ["other"]
    assert busy.by_agent("c", "cler") == []
    assert busy.by_agent("x", "clerk") == []
    assert [slot.index for slot in busy.by_agent("c", "clerk")] == [0, 0, 1, 1]


def test_appending_to_a_frame_joins_its_conversation(busy: ContextBuffer) -> None:
    slot = busy.append("f1", Note("more"), "a", "b")
    assert slot.index == 2
    assert texts(busy.by_conversation("c"))[-1] == "more"


def test_deleting_a_conversation_deletes_its_frames_only(busy: ContextBuffer) -> None:
    assert busy.delete_conversation("c")
    assert not busy.delete_conversation("c")
    assert not any(map(busy.thread_exists, ("c", "f1", "f2")))
    assert texts(busy.get_thread_slots("d")) == ["other"]


def test_deleting_frames_one_by_one_frees_the_conversation(busy: ContextBuffer) -> None:
    assert busy.delete_thread("f1")
    assert texts(busy.by_conversation("c")) == ["order", "count", "found"]
    assert busy.delete_thread("c")
    assert not busy.thread_exists("c")
    assert busy.get_thread("c") is None
    assert busy.delete_thread("f2")
    assert busy.get_stats()["conversation_count"] == 1
    assert busy.get_stats()["total_bytes"] == SLOT_OVERHEAD + len(codec_of(Note).encode(Note("other")))


def test_statistics(busy: ContextBuffer) -> None:
    busy.get_or_create_thread("empty")
    busy.close_conversation("d")
    stats = busy.get_stats()
    total = sum(len(codec_of(Note).encode(slot.payload)) for c in "cd" for slot in busy.by_conversation(c))
    assert stats == {
        "thread_count": 5,
        "total_slots": 6,
        "max_threads": 1000,
        "max_slots_per_thread": 10000,
        "threads": {"c": 2, "f1": 2, "f2": 1, "d": 1, "empty": 0},
        "backend": "local",
        "conversation_count": 3,
        "closed_count": 1,
        "total_bytes": total + 6 * SLOT_OVERHEAD,
        "dropped_slots": 0,
    }
    assert not busy.is_shared


def test_clear(busy: ContextBuffer) -> None:
    held = busy.get_thread("c")
    busy.close_conversation("d")
    busy.clear()
    assert held is not None
    assert len(held) == 0
    assert busy.get_stats()["threads"] == {}
    assert busy.get_stats()["closed_count"] == 0
    assert busy._frames == {}


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_append_refuses_more_than_max_slots_per_thread() -> None:
    buffer = ContextBuffer(max_slots_per_thread=2)
    buffer.append("t", Note("x"), "a", "b")
    buffer.append("t", Note("y"), "a", "b")
    with pytest.raises(MemoryError, match="exceeded max slots"):
        buffer.append("t", Note("z"), "a", "b")
    buffer.append("other", Note("x"), "a", "b")
    assert len(buffer.get_or_create_thread("t")) == 2


def test_record_never_refuses() -> None:
    buffer = ContextBuffer(max_slots_per_thread=1)
    for text in "xyz":
        record(buffer, "c", "c", text)
    assert len(buffer.by_conversation("c")) == 3


def size(*slots: str) -> int:
    return sum(len(codec_of(Note).encode(Note(text))) + SLOT_OVERHEAD for text in slots)


def test_beyond_max_history_bytes_the_oldest_slots_go_and_somebody_is_told() -> None:
    told: list[tuple[str, int, int]] = []
    buffer = ContextBuffer(max_history_bytes=size("a", "b", "c"))
    buffer.on_trimmed = lambda conversation, slots, freed: told.append((conversation, slots, freed))
    for text in "abc":
        record(buffer, "c", "c", text)
    record(buffer, "d", "d", "other")
    assert told == []
    record(buffer, "c", "c", "d")
    assert texts(buffer.by_conversation("c")) == ["b", "c", "d"]
    assert told == [("c", 1, size("a"))]
    slots = buffer.get_thread_slots("c")
    assert [slot.index for slot in slots] == [0, 1, 2]
    assert buffer.append("c", Note("e"), "a", "b").index == 2
    assert texts(buffer.by_conversation("c")) == ["c", "d", "e"]
    assert buffer.dropped_slots == 2
    assert texts(buffer.by_conversation("d")) == ["other"]


def test_a_message_larger_than_the_whole_history_is_not_kept() -> None:
    buffer = ContextBuffer(max_history_bytes=size("abc"))
    record(buffer, "c", "c", "abc")
    record(buffer, "c", "c", "abcd")
    assert buffer.by_conversation("c") == []
    assert buffer.append("c", Note("abcd"), "a", "b").index == 0
    assert buffer.get_stats()["total_bytes"] == 0
    record(buffer, "c", "c", "abc")
    assert texts(buffer.by_conversation("c")) == ["abc"]


def test_frames_whose_slots_were_all_dropped_are_forgotten() -> None:
    buffer = ContextBuffer(max_history_bytes=size("x") * 3)
    for number in range(1000):
        record(buffer, "c", f"f{number}", "x")
    assert set(buffer._frames) == {"f997", "f998", "f999"}
    assert buffer.get_thread("f0") is None


def test_a_long_history_is_trimmed_in_portions() -> None:
    told: list[int] = []
    buffer = ContextBuffer(max_history_bytes=size("x") * 640, on_trimmed=lambda _, n, __: told.append(n))
    for _ in range(640 + 25):
        record(buffer, "c", "c", "x")
    assert told == [10, 10, 10]
    assert len(buffer.by_conversation("c")) == 640 + 25 - 30


def test_open_conversations_are_never_evicted() -> None:
    buffer = ContextBuffer(max_threads=2)
    for number in range(5):
        record(buffer, f"c{number}", f"c{number}", "x")
        buffer.append(f"d{number}", Note("x"), "a", "b")
    assert buffer.get_stats()["conversation_count"] == 10


def test_of_the_closed_conversations_the_one_closed_first_goes() -> None:
    buffer = ContextBuffer(max_threads=2)
    for name in ("a", "b", "c", "open"):
        record(buffer, name, name, "x")
        record(buffer, name, f"frame of {name}", "x")
    for name in ("b", "a"):
        assert buffer.close_conversation(name)
        assert not buffer.close_conversation(name)
    assert all(map(buffer.thread_exists, "abc"))
    assert buffer.close_conversation("c")
    assert not buffer.thread_exists("b")
    assert not buffer.thread_exists("frame of b")
    assert all(map(buffer.thread_exists, ("a", "c", "open", "frame of a")))
    assert not buffer.close_conversation("unknown")


def test_opening_a_thread_oneself_makes_room_among_the_closed() -> None:
    buffer = ContextBuffer(max_threads=3)
    for name in "abc":
        buffer.append(name, Note("x"), "a", "b")
    buffer.close_conversation("b")
    buffer.append("d", Note("x"), "a", "b")
    assert [name for name in "abcd" if buffer.thread_exists(name)] == ["a", "c", "d"]


@pytest.mark.parametrize("how", ["record", "append", "get_or_create_thread"])
def test_the_next_turn_opens_a_closed_conversation_again(how: str) -> None:
    buffer = ContextBuffer(max_threads=1)
    record(buffer, "c", "c", "x")
    record(buffer, "c", "f", "y")
    buffer.close_conversation("c")
    if how == "record":
        record(buffer, "c", "g", "z")
    elif how == "append":
        buffer.append("f", Note("z"), "a", "b")
    else:
        buffer.get_or_create_thread("f")
    for name in "de":
        record(buffer, name, name, "x")
        buffer.close_conversation(name)
    assert texts(buffer.by_conversation("c"))[:2] == ["x", "y"]
    assert not buffer.thread_exists("d")
    assert buffer.close_conversation("c")


def test_everything_of_a_conversation_is_freed_without_the_collector() -> None:
    class Codec:
        def decode_text(self, data: bytes) -> bytes:
            return data

    codec = Codec()
    gone = weakref.ref(codec)
    buffer = ContextBuffer(max_threads=1)
    for conversation in ("a", "b"):
        for frame in (conversation, f"frame of {conversation}"):
            buffer.record(conversation, frame, b"<x/>", codec, "a", "b", "X")
    del codec
    gc.collect()
    gc.disable()
    try:
        thread = buffer.get_thread("a")
        assert thread is not None
        assert len(list(thread)) == 1
        buffer.close_conversation("a")
        buffer.close_conversation("b")
        assert gone() is not None
        buffer.delete_conversation("b")
        assert gone() is None
        assert buffer._frames == {}
    finally:
        gc.enable()


# --- against a model --------------------------------------------------------------------------------------------------

conversations = st.sampled_from(["c", "d"])
frames = st.sampled_from(["", "/1", "/2"])
actions = st.one_of(
    st.tuples(st.just("record"), conversations, frames, st.sampled_from(["", "xx", "x" * 40])),
    st.tuples(st.just("delete thread"), conversations, frames, st.just("")),
    st.tuples(st.just("delete"), conversations, frames, st.just("")),
)


@given(st.integers(1, 6), st.lists(actions, max_size=60))
def test_it_agrees_with_a_list_of_messages(slots: int, steps: list[tuple[str, str, str, str]]) -> None:
    buffer = ContextBuffer(max_history_bytes=size("xx") * slots)
    model: dict[str, list[tuple[str, str]]] = {"c": [], "d": []}
    for action, conversation, frame, text in steps:
        kept = model[conversation]
        if action == "record":
            record(buffer, conversation, conversation + frame, text)
            kept.append((conversation + frame, text))
            while size(*(text for _, text in kept)) > buffer.max_history_bytes:
                kept.pop(0)
        elif action == "delete thread":
            buffer.delete_thread(conversation + frame)
            kept[:] = [item for item in kept if item[0] != conversation + frame]
        else:
            buffer.delete_conversation(conversation)
            kept.clear()
        for name, items in model.items():
            assert [(s.thread_id, s.payload.text) for s in buffer.by_conversation(name)] == items
            for thread in (name, f"{name}/1", f"{name}/2"):
                mine = [text for where, text in items if where == thread]
                assert texts(buffer.get_thread_slots(thread)) == mine
                assert buffer.thread_exists(thread) or not mine
        assert buffer.get_stats()["total_bytes"] == sum(size(*(t for _, t in items)) for items in model.values())
        assert set(buffer._frames) == {where for items in model.values() for where, _ in items if "/" in where}


# --- accessors --------------------------------------------------------------------------------------------------------


def test_the_accessor_gives_each_runtime_its_own_buffer() -> None:
    one, other = Runtime(), Runtime()
    with use_runtime(one):
        mine = get_context_buffer()
        assert get_context_buffer() is mine
        reset_context_buffer()
        assert get_context_buffer() is not mine
    with use_runtime(other):
        assert get_context_buffer() is not mine
