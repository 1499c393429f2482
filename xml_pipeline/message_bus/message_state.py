"""What flows through the pump, and the contract between the pump and a handler.

`MessageState` is one message on its way through the pipeline. `HandlerMetadata` is what a handler is told about it,
`HandlerResponse` what it may return, `SystemError` how it learns of a failure.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from third_party.xmlable import xmlify
from xml_pipeline.errors import PipelineError, from_code

if TYPE_CHECKING:
    from lxml.etree import _Element

    from third_party.xmlable import Codec
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.thread_registry import Conversation, Frame

__all__ = [
    "RESPOND_TO_CALLER",
    "ROUTING_ERROR",
    "TIMEOUT_ERROR",
    "HandlerMetadata",
    "HandlerResponse",
    "MessageState",
    "Origin",
    "Outcome",
    "SystemError",
]


class Outcome(enum.StrEnum):
    """How a message ended. Every accepted message ends in exactly one of these."""

    HANDLED = "handled"
    """A handler took it and sent nothing, or it was delivered to whoever asked."""
    ANSWERED = "answered"
    """Its handler answered the caller."""
    FORWARDED = "forwarded"
    """Its handler called, or handed over to, somebody else."""
    FAILED = "failed"
    """It failed, and the calling frame or the waiting caller was told."""
    DEAD_LETTERED = "dead-lettered"
    """It failed and nobody was waiting: kept in the dead-letter store."""
    EXPIRED = "expired"
    """It came too late: the frame or the request it belongs to was closed already."""
    CANCELLED = "cancelled"
    """Its conversation was cancelled, or the pump stopped, before it was handled."""


class Origin(enum.IntEnum):
    """Where a message came from; it decides who vouches for sender and thread."""

    DETACHED = 0
    """No pump: a state somebody made by hand, to run single steps."""
    EXTERNAL = 1
    """Admitted through an ingress, which decided who the sender is."""
    INTERNAL = 2
    """Made by the pump itself from what a handler returned."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class MessageState:
    """One message on its way through the pipeline. Steps read and write it in place.

    The first ten fields are the documented ones; what follows belongs to the pump. Slots, because a message's fields
    are written and read some forty times on its way, and a slot costs a third of an attribute of an instance's dict.
    """

    raw_bytes: bytes | None = None
    """The envelope as it came; cleared once it is parsed."""
    envelope_tree: _Element | None = None
    payload_tree: _Element | None = None
    payload: Any = None
    """The payload object handed to the handler."""
    thread_id: str | None = None
    """The id of the frame this message is delivered on."""
    from_id: str | None = None
    to_id: str | None = None
    target_listeners: list[Listener] | None = None
    error: str | None = None
    """Why it failed, in the operator's words; ``None`` while all is well."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Notes of steps: ``diagnostics`` (list of str); free for users' own stages."""

    failure: PipelineError | None = field(default=None, init=False, repr=False)
    """The first failure, typed; ``error`` is its text."""
    wire: bytes | None = field(default=None, init=False, repr=False)
    """The envelope's canonical bytes, once canonicalisation has seen it."""
    text: str = field(default="", init=False, repr=False)
    """The payload's canonical text as the pump wrote it into the envelope; empty for an envelope from elsewhere."""
    own: bytes | None = field(default=None, init=False, repr=False)
    """The envelope as the pump wrote it. While ``wire`` is this very object, the sender, receiver and thread in it are
    those of this state, and nothing in it is foreign."""
    origin: Origin = field(default=Origin.DETACHED, init=False, repr=False)
    repairs: tuple[str, ...] = field(default=(), init=False, repr=False)
    """What repair changed, in words; empty for a message that was well-formed."""
    conversation: Conversation | None = field(default=None, init=False, repr=False)
    frame: Frame | None = field(default=None, init=False, repr=False)
    """The frame it is delivered on; ``None`` for an answer on its way out of the organism."""
    sender: Frame | None = field(default=None, init=False, repr=False)
    """The frame that sent it; ``None`` for a message from outside."""
    codec: Codec[Any] | None = field(default=None, init=False, repr=False)
    """The payload's codec, where it was decided when the message was made."""
    listener: Listener | None = field(default=None, init=False, repr=False)
    """The one listener it will be dispatched to."""
    number: int = field(default=0, init=False, repr=False)
    """Its number within this pump."""
    message_id: str = field(default="", init=False, repr=False)
    tag: str = field(default="", init=False, repr=False)
    """The tag of the call that this message answers."""
    group_size: int = field(default=0, init=False, repr=False)
    deadline: float = field(default=0.0, init=False, repr=False)
    """Loop time by which it must have been handled; 0 for none."""
    is_answer: bool = field(default=False, init=False, repr=False)
    in_pipe: bool = field(default=False, init=False, repr=False)
    """Counted by the scheduler as being inside the XML stages."""
    window: Any = field(default=None, init=False, repr=False)
    """The scheduler's per-target record that counts this message, until it is dispatched."""
    outcome: Outcome | None = field(default=None, init=False, repr=False)
    envelope_is_valid: bool = field(default=False, init=False, repr=False)
    """It was checked against the envelope's schema."""
    valid_under: Codec[Any] | None = field(default=None, init=False, repr=False)
    """The codec whose schema the payload was checked against together with the envelope."""
    payload_is_valid: bool = field(default=False, init=False, repr=False)
    """Its payload was checked against its class's schema, or is for a listener that takes any."""

    def fail(self, failure: PipelineError) -> None:
        """Record a failure. The first one wins: a later one is a consequence."""
        if self.failure is None:
            self.failure = failure
            self.error = failure.detail or str(failure)


@dataclass(slots=True)
class HandlerMetadata:
    """What the pump tells a handler about the message it is given.

    Args:
        thread_id: the frame's id. Opaque; the same for every turn of one call.
        from_id: who sent the message: the caller's name, or the answering listener's.
        own_name: the listener's own registered name; set for agents only.
        is_self_call: the sender is this very listener.
        usage_instructions: for agents: how to call each peer, with schema and example.
        todo_nudge: for agents: a reminder of raised todos, or empty.
        tag: for an answer or error: the tag its call was made with.
        conversation_id: the id shared by all frames of the conversation.
        message_id: unique over all pumps and processes; handlers use it to recognise a repeated delivery.
        deadline: event-loop time (``loop.time()``, seconds) by which the handler must be done; 0.0 for none.
        group_size: how many members of a broadcast group got this message; 0 when it was not a broadcast.
    """

    thread_id: str
    from_id: str
    own_name: str | None = None
    is_self_call: bool = False
    usage_instructions: str = ""
    todo_nudge: str = ""
    tag: str = field(default="", kw_only=True)
    conversation_id: str = field(default="", kw_only=True)
    message_id: str = field(default="", kw_only=True)
    deadline: float = field(default=0.0, kw_only=True)
    group_size: int = field(default=0, kw_only=True)


class _Marker(str):
    """A target that is an instruction to the pump, not a name. A type of its own, so that no listener can be called
    like it, and so that it survives pickling."""

    __slots__ = ()


RESPOND_TO_CALLER: Final = _Marker("<caller>")


class _Kind(enum.IntEnum):
    SEND = 0
    RESPOND = 1
    CALL = 2
    DELEGATE = 3


@dataclass(slots=True)
class HandlerResponse:
    """One thing a handler wants sent. Return one, a list of them, or yield them from an async generator.

    Args:
        payload: an instance of a payload class (dataclass or pydantic model), or any object with ``to_xml() -> str``.
        to: the target's registered name. The listener's own name continues in the same frame; the name of the
            frame's caller is an answer; anything else is a call in a new frame. ``None`` calls the only broadcast group
            that takes this payload.
        tag: comes back in ``metadata.tag`` of every answer to, and error of, this call.
        expect_answer: when the called frame ends without an answer, deliver ``SystemError("no-answer")``.
        as_caller: make the call subject to the peers of this listener *and* of its caller.
        timeout: seconds after which the call is cancelled with everything below it, and ``SystemError("timeout")``
            comes in place of its answer; 0 for no limit but those of the listeners. Of calls only.
    """

    payload: Any
    to: str | None
    tag: str = field(default="", kw_only=True)
    expect_answer: bool = field(default=False, kw_only=True)
    as_caller: bool = field(default=False, kw_only=True)
    timeout: float = field(default=0.0, kw_only=True)
    kind: _Kind = field(default=_Kind.SEND, kw_only=True, repr=False)

    @classmethod
    def respond(cls, payload: Any) -> HandlerResponse:
        """Answer the caller of this frame; the frame closes at the end of the turn."""
        return cls(payload, RESPOND_TO_CALLER, kind=_Kind.RESPOND)

    @classmethod
    def call(
        cls,
        payload: Any,
        to: str,
        *,
        tag: str = "",
        expect_answer: bool = False,
        as_caller: bool = False,
        timeout: float = 0.0,
    ) -> HandlerResponse:
        """Call ``to`` in a new frame, even when ``to`` is this frame's caller."""
        return cls(
            payload,
            to,
            tag=tag,
            expect_answer=expect_answer,
            as_caller=as_caller,
            timeout=timeout,
            kind=_Kind.CALL,
        )

    @classmethod
    def delegate(cls, payload: Any, to: str) -> HandlerResponse:
        """Hand this frame over to ``to``, who answers this frame's caller; this frame closes."""
        return cls(payload, to, kind=_Kind.DELEGATE)

    @property
    def is_response(self) -> bool:
        """Whether this is an answer to the caller (decided by type, never by comparing names)."""
        return isinstance(self.to, _Marker)

    @property
    def is_delegation(self) -> bool:
        """Whether this hands the frame over."""
        return self.kind is _Kind.DELEGATE

    @property
    def is_fresh_call(self) -> bool:
        """Whether this must open a new frame, whoever the target is."""
        return self.kind is _Kind.CALL


@xmlify
@dataclass(frozen=True, slots=True)
class SystemError:
    """A failure, delivered as a payload. Shadows the builtin of that name: import it explicitly.

    Its text is generic, the same for every cause of one code, so that it tells nothing about what the reader may not
    know.

    Args:
        code: one of ``routing validation timeout handler hops budget overloaded cancelled no-answer``.
        message: one sentence, for people and models.
        retry_allowed: whether sending the same again may succeed.
    """

    code: str = field(metadata={"xml_name": "code"})
    message: str = field(metadata={"xml_name": "message"})
    retry_allowed: bool = field(default=True, metadata={"xml_name": "retry-allowed"})

    @classmethod
    def of(cls, failure: PipelineError) -> SystemError:
        """The payload that tells of ``failure``."""
        return cls(failure.code, failure.public_message, failure.retry_allowed)

    def to_error(self, detail: str = "") -> PipelineError:
        """The exception for an in-process caller."""
        return from_code(self.code, detail)


ROUTING_ERROR: Final = SystemError("routing", from_code("routing").public_message, True)
TIMEOUT_ERROR: Final = SystemError("timeout", from_code("timeout").public_message, True)
