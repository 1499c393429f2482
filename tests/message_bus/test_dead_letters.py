"""`xml_pipeline.message_bus.dead_letters`: a bounded store, and retrying from it."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from typing import Any

import pytest

from xml_pipeline import HandlerMetadata, StreamPump
from xml_pipeline.errors import Overloaded
from xml_pipeline.message_bus.dead_letters import DeadLetter, DeadLetters
from xml_pipeline.message_bus.message_state import MessageState

from .helpers import Ask, audited


def put(store: DeadLetters, wire: bytes = b"<message/>", **changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "wire": wire,
        "target": "clerk",
        "from_id": "external",
        "thread_id": "t",
        "conversation_id": "c",
        "code": "routing",
    }
    return store.add(**(fields | changes))


def test_a_letter_keeps_what_it_was_given_and_is_frozen() -> None:
    store = DeadLetters()
    letter = put(store, detail="no such target", step="routing", attempts=2)
    assert store.get(letter.id) is letter
    assert (letter.wire, letter.target, letter.from_id) == (b"<message/>", "clerk", "external")
    assert (letter.thread_id, letter.conversation_id) == ("t", "c")
    assert (letter.code, letter.detail, letter.step, letter.attempts) == ("routing", "no such target", "routing", 2)
    assert letter.time > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        letter.code = "handler"  # type: ignore[misc]


def test_list_iteration_length_and_membership() -> None:
    store = DeadLetters()
    letters = [put(store) for _ in range(3)]
    assert store.list() == list(store) == letters
    assert len(store) == 3
    assert letters[1].id in store
    assert "x" not in store


def test_iterating_while_letters_come_and_go() -> None:
    store = DeadLetters()
    letters = [put(store) for _ in range(3)]
    seen = []
    for letter in store:
        seen.append(letter)
        put(store)
        store.clear()
    assert seen == letters


def test_get_of_an_unknown_id_says_what_may_have_happened() -> None:
    with pytest.raises(KeyError, match=r"no dead letter 'x'.*retried or cleared"):
        DeadLetters().get("x")


def test_the_oldest_goes_when_the_capacity_is_reached() -> None:
    store = DeadLetters(capacity=2)
    first, second, third = (put(store) for _ in range(3))
    assert store.list() == [second, third]
    assert first.id not in store
    assert store.dropped == 1


def test_the_oldest_go_when_there_are_too_many_bytes() -> None:
    store = DeadLetters(max_bytes=100)
    put(store, b"a" * 40)
    put(store, b"b" * 40, detail="d" * 10)
    kept = put(store, b"c" * 45)
    assert [letter.wire[:1] for letter in store] == [b"b", b"c"]
    assert store.total_bytes == 95
    big = put(store, b"e" * 101)
    assert big.id not in store
    assert kept.id not in store
    assert (len(store), store.total_bytes, store.dropped) == (0, 0, 4)


def test_a_store_without_capacity_keeps_nothing() -> None:
    store = DeadLetters(capacity=0)
    put(store)
    assert (len(store), store.dropped) == (0, 1)


@pytest.mark.parametrize(("capacity", "max_bytes"), [(-1, 1), (1, -1)])
def test_negative_limits_are_refused(capacity: int, max_bytes: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        DeadLetters(capacity, max_bytes)


def test_clear_counts_and_is_not_a_drop() -> None:
    store = DeadLetters()
    put(store)
    put(store)
    assert store.clear() == 2
    assert store.clear() == 0
    assert (len(store), store.total_bytes, store.dropped) == (0, 0, 0)


async def test_retry_hands_the_letter_over_and_removes_it() -> None:
    handed: list[DeadLetter] = []

    async def resend(letter: DeadLetter) -> str:
        handed.append(letter)
        assert letter.id in store, "not removed before it is accepted"
        return "new-thread"

    store = DeadLetters(resend=resend)
    letter = put(store)
    assert await store.retry(letter.id) == "new-thread"
    assert handed == [dataclasses.replace(letter, attempts=1)]
    assert (len(store), store.total_bytes, store.dropped) == (0, 0, 0)


async def test_resend_may_be_synchronous_and_set_later() -> None:
    store = DeadLetters()
    letter = put(store)
    with pytest.raises(RuntimeError, match="no running pump"):
        await store.retry(letter.id)
    store.resend = lambda letter: "t2"
    assert await store.retry(letter.id) == "t2"


async def test_a_refused_letter_is_kept_in_its_place_and_counts_the_attempt() -> None:
    def refuse(letter: DeadLetter) -> str:
        raise Overloaded("queue of clerk is full")

    store = DeadLetters(resend=refuse)
    first, second = put(store), put(store)
    for attempt in (1, 2):
        with pytest.raises(Overloaded):
            await store.retry(first.id)
        assert store.get(first.id).attempts == attempt
    assert [letter.id for letter in store] == [first.id, second.id]


async def test_retrying_an_unknown_letter_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        await DeadLetters(resend=lambda letter: "t").retry("x")


async def test_a_letter_is_not_sent_twice_by_two_retries_at_once() -> None:
    accept: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    store = DeadLetters(resend=lambda letter: accept)
    letter = put(store)
    first = asyncio.create_task(store.retry(letter.id))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="being retried"):
        await store.retry(letter.id)
    accept.set_result("t2")
    assert await first == "t2"
    assert len(store) == 0


async def test_a_cancelled_retry_keeps_the_letter() -> None:
    forever: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    store = DeadLetters(resend=lambda letter: forever)
    letter = put(store)
    task = asyncio.create_task(store.retry(letter.id))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.get(letter.id).attempts == 1


@pytest.mark.parametrize("accepted", [True, False])
async def test_clearing_while_a_retry_is_under_way(accepted: bool) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    store = DeadLetters(resend=lambda letter: answer)
    letter = put(store)
    task = asyncio.create_task(store.retry(letter.id))
    await asyncio.sleep(0)
    store.clear()
    if accepted:
        answer.set_result("t2")
        assert await task == "t2"
    else:
        answer.set_exception(Overloaded("full"))
        with pytest.raises(Overloaded):
            await task
    assert (len(store), store.total_bytes) == (0, 0)


# --- in a pump --------------------------------------------------------------------------------------------------------


class Fails:
    """Fails for the texts it is told to, and remembers what it handled."""

    def __init__(self, *texts: str) -> None:
        self.texts = set(texts)
        self.handled: list[str] = []

    async def __call__(self, payload: Ask, metadata: HandlerMetadata) -> None:
        self.handled.append(payload.text)
        if payload.text in self.texts:
            raise RuntimeError("not now")


def three_payloads(thread: str, extension: str = "") -> bytes:
    payloads = "".join(f'<Ask xmlns=""><Text>{text}</Text></Ask>' for text in "abc")
    return (
        '<message xmlns="https://xml-pipeline.org/ns/envelope/v1">'
        f"<meta><from>bob</from><to>tool</to><thread>{thread}</thread>{extension}</meta>{payloads}</message>"
    ).encode()


async def test_each_payload_of_an_envelope_has_a_letter_of_its_own_and_is_retried_alone() -> None:
    tool = Fails("a", "c")
    thread = str(uuid.uuid4())
    pump = StreamPump()
    pump.register("tool", tool, Ask)
    async with audited(pump) as audit:
        await pump.inject(three_payloads(thread), thread, "bob")
        await audit.idle()
        letters = pump.dead_letters.list()
        assert {(letter.conversation_id, letter.from_id, letter.target) for letter in letters} == {
            (thread, "bob", "tool")
        }
        assert len(letters) == 2
        tool.texts.clear()
        tool.handled.clear()
        for letter in letters:
            await pump.dead_letters.retry(letter.id)
        await audit.idle()
        assert sorted(tool.handled) == ["a", "c"]
        assert len(pump.dead_letters) == 0


async def test_a_member_of_a_group_is_retried_alone() -> None:
    good, bad = Fails(), Fails("x")
    pump = StreamPump()
    pump.register("crowd.good", good, Ask, broadcast=True)
    pump.register("crowd.bad", bad, Ask, broadcast=True)
    async with audited(pump) as audit:
        await pump.inject("crowd", Ask("x"))
        await audit.idle()
        (letter,) = pump.dead_letters.list()
        assert letter.target == "crowd.bad"
        bad.texts.clear()
        await pump.dead_letters.retry(letter.id)
        await audit.idle()
        assert (good.handled, bad.handled) == (["x"], ["x", "x"])
        assert len(pump.dead_letters) == 0


async def test_a_letter_that_fails_again_is_one_letter_with_one_attempt_more() -> None:
    tool = Fails("b")
    thread = str(uuid.uuid4())
    pump = StreamPump()
    pump.register("tool", tool, Ask)
    async with audited(pump) as audit:
        await pump.inject(three_payloads(thread), thread, "bob")
        await audit.idle()
        for attempts in range(3):
            (letter,) = pump.dead_letters.list()
            assert letter.attempts == attempts
            await pump.dead_letters.retry(letter.id)
            await audit.idle()
    assert tool.handled == ["a", "b", "c", "b", "b", "b"]


@pytest.mark.parametrize("payloads", [1, 3])
async def test_extensions_survive_a_retry(payloads: int) -> None:
    metas: list[list[str]] = []

    class Looking(StreamPump):
        def _validate_and_deserialize(self, state: MessageState) -> MessageState:
            if state.from_id == "bob":
                assert state.envelope_tree is not None
                metas.append([str(child.tag) for child in state.envelope_tree[0]])
            return super()._validate_and_deserialize(state)

    thread = str(uuid.uuid4())
    raw = three_payloads(thread, '<x:key xmlns:x="urn:x">k</x:key>')
    if payloads == 1:
        raw = raw.replace(b'<Ask xmlns=""><Text>b</Text></Ask><Ask xmlns=""><Text>c</Text></Ask>', b"")
    pump = Looking()
    pump.register("tool", Fails("a"), Ask)
    async with audited(pump) as audit:
        await pump.inject(raw, thread, "bob")
        await audit.idle()
        metas.clear()
        (letter,) = pump.dead_letters.list()
        await pump.dead_letters.retry(letter.id)
        await audit.idle()
    assert len(metas) == 1
    assert "{urn:x}key" in metas[0]
