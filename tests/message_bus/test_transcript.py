"""`Transcript`: conversations put together from events."""

from __future__ import annotations

import pytest

from xml_pipeline.message_bus.events import (
    AgentStateEvent,
    MessageReceivedEvent,
    MessageSentEvent,
    OutcomeEvent,
    ThreadEvent,
)
from xml_pipeline.message_bus.transcript import Transcript, milliseconds, printable, summary


def received(message, to, payload, time, conversation="c"):
    ids = {"parent": message, "conversation_id": conversation, "time": time}
    return MessageReceivedEvent(conversation, "me", to, type(payload).__name__, payload, **ids)


def sent(message, source, to, payload, time, conversation="c"):
    ids = {"parent": message, "conversation_id": conversation, "time": time}
    return MessageSentEvent(conversation, source, to, type(payload).__name__, payload, **ids)


def ended(message, source, to, time, outcome="handled", conversation="c", **more):
    return OutcomeEvent(message, outcome, conversation, source, to, "", **more, conversation_id=conversation, time=time)


def test_a_message_is_followed_from_sending_to_its_outcome():
    transcript = Transcript()
    message = transcript(sent("m", "a", "b", "hello", 1.0))
    assert (message.from_id, message.to_id, message.payload, message.result) == ("a", "b", "hello", "waiting")
    assert transcript(received("m", "b", "hello", 1.5)) is message
    assert (message.is_running, message.result, message.seconds) == (True, "running", None)
    assert transcript(ended("m", "a", "b", 3.5, "answered")) is message
    assert (message.is_running, message.seconds, message.result) == (False, 2.0, "answered in 2.0 s")
    assert (message.seen, message.received, message.ended) == (1.0, 1.5, 3.5)
    assert transcript.message("m") is message
    assert transcript.message("other") is None


def test_a_failure_says_what_and_why():
    transcript = Transcript()
    transcript(received("m", "b", "x", 1.0))
    message = transcript(ended("m", "a", "b", 1.25, "failed", code="handler", detail="it\nbroke"))
    assert message.has_failed
    assert message.result == "failed in 250 ms, handler: it broke"
    refused = transcript(ended("n", "a", "z", 1.3, "failed", code="routing", detail="no z"))
    assert (refused.seconds, refused.payload) == (None, None)
    assert refused.format(1.0) == "  300 ms  a -> z  (no payload)  [failed, routing: no z]"


def test_who_got_a_message_to_a_group_is_told_by_who_received_it():
    transcript = Transcript()
    transcript(received("m", "group.one", "x", 1.0))
    message = transcript(ended("m", "me", "group", 2.0))
    assert message.to_id == "group.one"


def test_conversations_are_kept_apart_with_status_and_path():
    transcript = Transcript()
    transcript(ThreadEvent("c", "created", conversation_id="c"))
    transcript(received("1", "a", "x", 1.0))
    transcript(sent("2", "a", "b", "y", 1.1))
    transcript(received("9", "z", "x", 1.2, conversation="other"))
    transcript(received("2", "b", "y", 1.3))
    transcript(received("3", "a", "y", 1.4))
    transcript(sent("4", "a", "me", "y", 1.5))
    transcript(ThreadEvent("c", "killed", ["a"], "stopped", conversation_id="c"))
    assert list(transcript.conversations) == ["c", "other"]
    record = transcript.conversations["c"]
    assert record.path == ["a", "b", "a"]
    assert (record.status, record.error) == ("killed", "stopped")
    assert transcript.conversations["other"].path == ["z"]


def test_a_conversation_reads_as_a_sequence():
    transcript = Transcript()
    transcript(received("1", "a", "hi", 10.0))
    transcript(ended("1", "me", "a", 10.002))
    transcript(sent("2", "a", "me", "ho", 10.001))
    transcript(ThreadEvent("c", "completed", conversation_id="c"))
    assert transcript.conversations["c"].format().splitlines() == [
        "conversation c: completed",
        "    0.0 ms  me -> a  'hi'  [handled in 2.0 ms]",
        "    1.0 ms  a -> me  'ho'  [waiting]",
    ]


def test_outcomes_are_kept_in_order_and_other_events_are_passed_over():
    transcript = Transcript()
    first, second = ended("1", "a", "b", 1.0), ended("2", "a", "b", 2.0, "failed")
    assert transcript(first) is not None
    assert transcript(AgentStateEvent("a", "idle")) is None
    transcript(second)
    assert transcript.outcomes == [first, second]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0.0 ms"), (0.00034, "0.3 ms"), (0.0123, "12 ms"), (0.9, "900 ms"), (61.26, "61.3 s")]
)
def test_durations_are_short(seconds, text):
    assert milliseconds(seconds) == text


def test_what_a_terminal_would_act_on_is_not_shown():
    assert printable("a\x1b[31m\r\nb") == "a [31m  b"
    assert summary(b"<a>\x1b</a>") == "<a> </a>"
    assert len(summary("x" * 1_000)) == 100
