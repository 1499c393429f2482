"""A conversation and its frames: the records, without the registry that keeps them.

A frame moves through three states::

    OPEN ──── responded, delegated, or nothing left to do ────> ENDED      late answers to it expire
      └────── failed, cancelled, deadline, shutdown ──────────> CANCELLED  its queued turns and children are cancelled

A frame has *nothing left to do* when no message is queued for it or running on it, none of its children is open, and
nobody holds it. A conversation is *complete* when that holds for all of its messages. These are counters, kept where
messages are made and finished; no scan decides it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xml_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from collections import deque

    from xml_pipeline.message_bus.exchange import Exchange
    from xml_pipeline.message_bus.expiries import Expiry
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.message_state import MessageState
    from xml_pipeline.message_bus.part import Part

__all__ = ["Conversation", "ConversationStatus", "Frame", "FrameRecord", "FrameState", "Hold"]


class FrameState(enum.IntEnum):
    """See the module's drawing."""

    OPEN = 0
    ENDED = 1
    CANCELLED = 2


class ConversationStatus(enum.StrEnum):
    """The ``status`` of a `ThreadEvent`."""

    CREATED = "created"
    ACTIVE = "active"
    COMPLETED = "completed"
    ERROR = "error"
    KILLED = "killed"


# Looking a member up in its enum costs more than an assignment.
_OPEN = FrameState.OPEN
_CREATED = ConversationStatus.CREATED


class Conversation:
    """All frames that one external message led to, and the turns that followed it."""

    __slots__ = (
        "children",
        "deadline_timer",
        "exchanges",
        "failure",
        "finished_at",
        "holds",
        "id",
        "is_end_told",
        "open",
        "owner",
        "participants",
        "peer_table",
        "pending",
        "status",
    )

    def __init__(self, conversation_id: str, owner: str) -> None:
        self.id = conversation_id
        self.owner = owner
        """Who began it. Only the owner may send its next turn."""
        self.peer_table: str | None = None
        """The name of the peer table that narrows it, given when it began."""
        self.pending = 0
        """Messages queued or running."""
        self.holds = 0
        self.open = True
        self.status = _CREATED
        self.failure: PipelineError | None = None
        self.finished_at = 0.0
        self.deadline_timer: Any = None
        self.is_end_told = False
        """Its last event was emitted before it was complete."""
        self.children: set[Frame] = set()
        """Open frames that no open frame stands above: roots, and what was called from frames that have ended."""
        # Tuples, for conversations are remembered, and every list would be one object more for the collector to visit.
        self.participants: tuple[str, ...] = ()
        self.exchanges: Sequence[Exchange] = ()
        """What the outside gets back, one for each external message since it was last complete."""

    def __repr__(self) -> str:
        return f"<Conversation {self.id} of {self.owner!r}, {self.status}, {self.pending} messages pending>"

    def expect(self, exchange: Exchange) -> None:
        """Add to `exchanges`."""
        if not self.exchanges:
            self.exchanges = (exchange,)
        elif isinstance(self.exchanges, list):
            self.exchanges.append(exchange)
        else:
            self.exchanges = [*self.exchanges, exchange]  # there may be any number, until it is complete

    @property
    def frames(self) -> set[Frame]:
        """All open frames, as a set."""
        return set(self.open_frames())

    def open_frames(self) -> list[Frame]:
        """All open frames, callers before callees."""
        return _with_all_below(list(self.children))


class Frame:
    """One call: who called whom, on whose behalf, and what is still to come."""

    __slots__ = (
        "alias",
        "answered",
        "as_caller",
        "callee",
        "caller",
        "children",
        "conversation",
        "delegators",
        "depth",
        "exchange",
        "expect_answer",
        "expiry",
        "group_size",
        "holder",
        "holds",
        "id",
        "listener",
        "on_close",
        "open_children",
        "parent",
        "part",
        "pending",
        "queue",
        "running",
        "state",
        "tag",
        "turns",
    )

    def __init__(
        self,
        frame_id: str,
        conversation: Conversation,
        caller: str,
        callee: str,
        parent: Frame | None,
        depth: int,
        listener: Listener | None,
        exchange: Exchange | None,
    ) -> None:
        self.id = frame_id
        self.conversation = conversation
        self.parent = parent
        self.holder: Frame | Conversation = conversation if parent is None else parent
        """Whose ``children`` it is among: its parent, or who took over when that ended."""
        self.caller = caller
        self.callee = callee
        self.alias = callee
        """The name its answers are delivered under: the one its caller used, also after a delegation."""
        self.depth = depth
        self.listener = listener
        """The listener as it was when the frame was opened; a reload does not change it."""
        self.exchange = exchange
        self.state = _OPEN
        self.answered = False
        self.delegators: tuple[Listener, ...] = ()
        """Listeners that had this call before, and handed it over: what is called for their caller is for them, too."""
        self.as_caller = False
        """It was opened by a call on behalf of the caller's caller, too, whose peers bind such calls of its own."""
        self.expect_answer = False
        self.tag = ""
        self.pending = 0
        """Messages for this frame, queued or running."""
        self.running = 0
        self.queue: deque[MessageState] | None = None
        """Messages that wait for this frame's turn."""
        self.open_children = 0
        self.children: set[Frame] | None = None
        """Open frames below it that no other open frame stands between."""
        self.holds = 0
        self.turns = 0
        self.group_size = 0
        self.expiry: Expiry | None = None
        """Cancels it at the time its caller gave the call."""
        self.on_close: list[Callable[[], object]] | None = None
        """Called when it closes, however it closes."""
        self.part: Part | None = None
        """Of a root frame: what it was opened for, where the external message led to several."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to do on it."""
        return self.pending == 0 and self.open_children == 0 and self.holds == 0

    def is_below(self, ancestor: Frame) -> bool:
        """Whether this frame was called, directly or not, from ``ancestor``, or is it."""
        frame: Frame | None = self
        while frame is not None:
            if frame is ancestor:
                return True
            frame = frame.parent
        return False

    def subtree(self) -> list[Frame]:
        """This frame and all open ones below it, callers before callees."""
        return _with_all_below([self])

    def chain(self) -> str:
        """Names from the first caller to this callee, joined by dots. For people only: names may contain dots."""
        names = [self.callee]
        frame = self
        while frame.parent is not None:
            frame = frame.parent
            names.append(frame.callee)
        names.append(frame.caller)
        return ".".join(reversed(names))

    def __repr__(self) -> str:
        return f"<Frame {self.id} {self.caller!r} -> {self.callee!r}, {self.state.name}>"


def _with_all_below(frames: list[Frame]) -> list[Frame]:
    for frame in frames:  # grows while it is walked over
        if frame.children:
            frames.extend(frame.children)
    return frames


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """What the registry tells about a frame. A copy: it does not change when the frame does."""

    id: str
    parent_id: str | None
    conversation_id: str
    caller: str
    callee: str
    depth: int
    state: FrameState


class Hold:
    """Keeps a frame, and so its conversation, open while something outside the pump is awaited.

    Made by `ThreadRegistry.hold`; a context manager, or call `release` (twice is harmless).
    """

    __slots__ = ("_frame", "_on_release", "reason")

    def __init__(self, frame: Frame, reason: str, on_release: Callable[[Frame], None]) -> None:
        self._frame: Frame | None = frame
        self._on_release = on_release
        self.reason = reason

    def release(self) -> None:
        """Let the frame end, if nothing else keeps it."""
        frame, self._frame = self._frame, None
        if frame is None or frame.state is not FrameState.OPEN:
            return  # released already, or given back when the frame was closed
        frame.holds -= 1
        frame.conversation.holds -= 1
        self._on_release(frame)

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
