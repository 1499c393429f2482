"""`Transcript`: the conversations of a pump, put together from its events, for people to read.

It is what ``xml-pipeline send`` shows and what `TestPump` lists. Subscribe it like any callback::

    transcript = Transcript()
    pump.subscribe_events(transcript)
    ...
    print(transcript.conversations[thread].format())

It keeps everything it is told: for a test, a command, or the last minutes of a dashboard, not for the life of a server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xml_pipeline.message_bus.events import (
    MessageReceivedEvent,
    MessageSentEvent,
    OutcomeEvent,
    PumpEvent,
    ThreadEvent,
)

__all__ = ["ConversationRecord", "MessageRecord", "Transcript", "milliseconds", "printable", "summary"]

_LONGEST_SUMMARY = 100


@dataclass(slots=True, eq=False)
class MessageRecord:
    """One message.

    Attributes:
        id: its message id.
        thread_id: the frame it is delivered on.
        from_id: who sent it.
        to_id: its target.
        payload_type: name of the payload class; empty when it was never read that far.
        seen: when it was first heard of, in seconds since the epoch.
        received: when a handler got it; ``None`` while none has.
        ended: when it had its outcome; ``None`` until then.
        outcome: a value of `Outcome`; empty until it is known.
        code: error code, for a message that failed.
        detail: the first cause, for the operator.
        repairs: what repair changed in it, in words.
    """

    id: str
    thread_id: str = ""
    from_id: str = ""
    to_id: str = ""
    payload_type: str = ""
    seen: float = 0.0
    received: float | None = None
    ended: float | None = None
    outcome: str = ""
    code: str = ""
    detail: str = ""
    repairs: tuple[str, ...] = ()
    source: MessageReceivedEvent | MessageSentEvent | None = field(default=None, repr=False)

    @property
    def payload(self) -> Any:
        """The payload, a new object on every access; ``None`` when it was never read that far."""
        return None if self.source is None else self.source.payload

    @property
    def seconds(self) -> float | None:
        """How long the handler took; ``None`` if none got it, or it is still at work."""
        if self.received is None or self.ended is None:
            return None
        return self.ended - self.received

    @property
    def is_running(self) -> bool:
        """Whether a handler is at work on it."""
        return self.received is not None and self.ended is None

    @property
    def has_failed(self) -> bool:
        """Whether it ended in an error."""
        return bool(self.code)

    def format(self, start: float) -> str:
        """One line of text.

        Args:
            start: the time from which its own is counted, in seconds since the epoch.
        """
        time, route = milliseconds(self.seen - start), f"{printable(self.from_id)} -> {printable(self.to_id)}"
        return f"{time:>8}  {route}  {self.content}  [{self.result}]"

    @property
    def content(self) -> str:
        """The payload in one line."""
        return summary(self.payload) if self.source is not None else self.payload_type or "(no payload)"

    @property
    def result(self) -> str:
        """What became of it, in one line."""
        if not self.outcome:
            return "running" if self.is_running else "waiting"
        text = self.outcome if self.seconds is None else f"{self.outcome} in {milliseconds(self.seconds)}"
        if not self.code:
            return text
        return f"{text}, {self.code}: {printable(self.detail)}" if self.detail else f"{text}, {self.code}"


@dataclass(slots=True, eq=False)
class ConversationRecord:
    """One conversation.

    Attributes:
        id: the conversation's id.
        status: the last of ``created``, ``active``, ``completed``, ``error``, ``killed``.
        error: what happened, if it ended in an error or was killed.
        messages: in the order in which they were first heard of.
    """

    id: str
    status: str = "created"
    error: str = ""
    messages: list[MessageRecord] = field(default_factory=list)

    @property
    def path(self) -> list[str]:
        """Who handled messages, in order: one name for each call of a handler."""
        handled = [message for message in self.messages if message.received is not None]
        return [message.to_id for message in sorted(handled, key=lambda message: message.received or 0.0)]

    def format(self) -> str:
        """Several lines of text: the status, and each message with its time, payload and outcome."""
        start = self.messages[0].seen if self.messages else 0.0
        head = f"conversation {self.id}: {self.status}{f' ({self.error})' if self.error else ''}"
        return "\n".join([head, *(f"  {message.format(start)}" for message in self.messages)])


class Transcript:
    """Folds events into conversations.

    Attributes:
        conversations: by id, in the order in which they began.
        outcomes: every `OutcomeEvent`, in order.
    """

    def __init__(self) -> None:
        self.conversations: dict[str, ConversationRecord] = {}
        self.outcomes: list[OutcomeEvent] = []
        self._messages: dict[str, MessageRecord] = {}

    def __call__(self, event: PumpEvent) -> MessageRecord | None:
        """Take one event.

        Returns:
            The message it was about, as it is now; ``None`` if it was about something else.
        """
        if isinstance(event, ThreadEvent):
            conversation = self._conversation(event.thread_id)
            conversation.status = event.status
            conversation.error = event.error or ""
            return None
        if isinstance(event, MessageReceivedEvent | MessageSentEvent):
            return self._message_event(event)
        if isinstance(event, OutcomeEvent):
            return self._outcome(event)
        return None

    def message(self, message_id: str) -> MessageRecord | None:
        """The message with this id, if it was heard of."""
        return self._messages.get(message_id)

    def _message_event(self, event: MessageReceivedEvent | MessageSentEvent) -> MessageRecord:
        message = self._message(event.parent, event)
        message.thread_id, message.from_id, message.to_id = event.thread_id, event.from_id, event.to_id
        message.payload_type = event.payload_type
        message.source = event
        if isinstance(event, MessageReceivedEvent):
            message.received = event.time
        return message

    def _outcome(self, event: OutcomeEvent) -> MessageRecord:
        self.outcomes.append(event)
        message = self._message(event.message_id, event)
        if message.received is None:  # else it is known which listener got it, also where a group was addressed
            message.thread_id, message.from_id, message.to_id = event.thread_id, event.from_id, event.to_id
        message.payload_type = event.payload_type or message.payload_type
        message.outcome, message.code, message.detail = event.outcome, event.code, event.detail
        message.repairs = event.repairs
        message.ended = event.time
        return message

    def _message(self, message_id: str, event: PumpEvent) -> MessageRecord:
        message = self._messages.get(message_id)
        if message is None:
            message = self._messages[message_id] = MessageRecord(message_id, seen=event.time)
            self._conversation(event.conversation_id).messages.append(message)
        return message

    def _conversation(self, conversation_id: str) -> ConversationRecord:
        conversation = self.conversations.get(conversation_id)
        if conversation is None:
            conversation = self.conversations[conversation_id] = ConversationRecord(conversation_id)
        return conversation


def milliseconds(seconds: float) -> str:
    """A duration as people read it: ``0.3 ms``, ``120 ms``, ``2.5 s``."""
    if seconds >= 1.0:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def summary(payload: object) -> str:
    """A payload in one line, cut to a readable length, without characters that a terminal would act on."""
    text = printable(payload.decode(errors="replace") if isinstance(payload, bytes) else repr(payload))
    return text if len(text) <= _LONGEST_SUMMARY else text[: _LONGEST_SUMMARY - 3] + "..."


def printable(text: str) -> str:
    """``text`` on one line, without characters that a terminal would act on."""
    return "".join(char if char.isprintable() else " " for char in text)
