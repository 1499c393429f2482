"""Conversations and their frames.

A *conversation* begins with an external message. Every call inside it opens a *frame*: a record with an id of its own,
the frame it was called from, the caller's and the callee's name. The id of a frame is the ``thread_id`` a handler sees;
the id of the conversation is the id of its first frame. Nothing is ever found by a path of names, so names may contain
dots, and two conversations over the same listeners share nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from xml_pipeline.errors import ForgedMessage
from xml_pipeline.message_bus.conversation import (
    Conversation,
    ConversationStatus,
    Frame,
    FrameRecord,
    FrameState,
    Hold,
)
from xml_pipeline.message_bus.identifiers import IdPool
from xml_pipeline.message_bus.steps.thread_assignment import is_thread_id
from xml_pipeline.runtime import current_runtime

if TYPE_CHECKING:
    from xml_pipeline.message_bus.exchange import Exchange
    from xml_pipeline.message_bus.listener import Listener

__all__ = [
    "Conversation",
    "ConversationStatus",
    "Frame",
    "FrameRecord",
    "FrameState",
    "Hold",
    "ThreadRegistry",
    "get_registry",
    "reset_registry",
]

logger = logging.getLogger(__name__)

_NO_FRAMES: Any = frozenset()
_OPEN = FrameState.OPEN  # a look-up in the enum costs more than the comparison


class ThreadRegistry:
    """The frames and conversations of one pump: those that are open, and for a while those that are complete.

    Args:
        thread_idle_ttl: seconds for which a complete conversation is remembered (for its next turn, its history).
        max_threads: how many complete conversations are remembered at most; the oldest go first. Open ones are never
            evicted.
        clock: monotonic seconds.
    """

    is_shared = False

    def __init__(
        self,
        *,
        thread_idle_ttl: float = 600.0,
        max_threads: int = 1_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.thread_idle_ttl = thread_idle_ttl
        self.max_threads = max_threads
        self.ids = IdPool()
        self.on_forget: Callable[[str], object] = _nothing
        """Called with the id of each conversation that is no longer remembered."""
        self.on_hold_released: Callable[[Frame], None] = _nothing
        self._clock = clock
        self._frames: dict[str, Frame] = {}
        self._conversations: dict[str, Conversation] = {}
        self._retained: OrderedDict[str, Conversation] = OrderedDict()
        self._root: Frame | None = None
        self.held = 0
        """Holds that have not been released; the pump's own frame is not counted."""

    # -- conversations ------------------------------------------------------------------------------------------

    def begin(self, owner: str, conversation_id: str | None = None) -> Conversation:
        """Begin a conversation, or continue one with its next turn.

        Args:
            owner: the external sender.
            conversation_id: ``None`` for a new id; an unknown canonical version-4 UUID begins a conversation with
                that id; the id of an open or remembered conversation of the same owner continues it.

        Raises:
            ForgedMessage: the id is not such a UUID, or belongs to somebody else's conversation or to a frame.
        """
        if conversation_id is None:
            return self._add(Conversation(self.ids.next(), owner))
        known = self.find(conversation_id)
        if known is not None:
            if known.owner != owner:
                raise ForgedMessage(
                    f"thread {conversation_id!r} belongs to another sender than {owner!r}", step="admission"
                )
            if not known.open:
                return self._recall(known)
            if known.status is ConversationStatus.KILLED:
                # What was cancelled is closed, and those who waited were told; this is its next turn.
                known.status = ConversationStatus.CREATED
                known.failure = None
                known.is_end_told = False
                known.exchanges = ()
            return known
        if not is_thread_id(conversation_id):
            raise ForgedMessage(
                f"thread id {conversation_id!r} is not a canonical lower-case version-4 UUID; "
                "leave it out to have one made",
                step="admission",
            )
        if conversation_id in self._frames:
            raise ForgedMessage(f"thread {conversation_id!r} is not the sender's", step="admission")
        return self._add(Conversation(conversation_id, owner))

    def find(self, conversation_id: str) -> Conversation | None:
        """The open or remembered conversation of this id."""
        return self._conversations.get(conversation_id) or self._peek_retained(conversation_id)

    def retire(self, conversation: Conversation) -> None:
        """Remember a complete conversation for a while; forget the oldest beyond the limit."""
        conversation.open = False
        conversation.finished_at = self._clock()
        conversation.children = _NO_FRAMES  # what is kept for long is kept small
        del self._conversations[conversation.id]
        retained = self._retained
        retained[conversation.id] = conversation
        if len(retained) > self.max_threads:
            self.on_forget(retained.popitem(last=False)[0])

    def abandon(self, conversation: Conversation) -> None:
        """Forget a conversation at once, e.g. one whose first message was refused."""
        conversation.open = False
        self._conversations.pop(conversation.id, None)
        self.on_forget(conversation.id)

    def expire(self) -> float | None:
        """Forget complete conversations whose time is over; returns seconds until the next one's, if any is left."""
        now = self._clock()
        for conversation_id, conversation in list(self._retained.items()):
            left = conversation.finished_at + self.thread_idle_ttl - now
            if left > 0:
                return left
            del self._retained[conversation_id]
            self.on_forget(conversation_id)
        return None

    def _add(self, conversation: Conversation) -> Conversation:
        self._conversations[conversation.id] = conversation
        return conversation

    def _recall(self, conversation: Conversation) -> Conversation:
        """Open a remembered conversation again, for its next turn."""
        del self._retained[conversation.id]
        conversation.open = True
        conversation.status = ConversationStatus.CREATED
        conversation.is_end_told = False
        conversation.children = set()
        conversation.failure = None
        conversation.exchanges = ()
        return self._add(conversation)

    def _peek_retained(self, conversation_id: str) -> Conversation | None:
        conversation = self._retained.get(conversation_id)
        if conversation is not None and conversation.finished_at + self.thread_idle_ttl <= self._clock():
            del self._retained[conversation_id]
            self.on_forget(conversation_id)
            return None
        return conversation

    @property
    def open_conversations(self) -> int:
        """How many conversations are not complete."""
        return len(self._conversations)

    @property
    def retained_conversations(self) -> int:
        """How many complete conversations are remembered."""
        return len(self._retained)

    def conversations(self) -> Iterator[Conversation]:
        """The open conversations, as a snapshot."""
        return iter(list(self._conversations.values()))

    # -- frames -------------------------------------------------------------------------------------------------

    def open_root(self, conversation: Conversation, callee: str, exchange: Exchange | None = None) -> Frame:
        """Open a frame for an external message; the first one of a conversation has the conversation's id."""
        conversation_id = conversation.id
        frame_id = conversation_id
        if conversation_id in self._frames or conversation.participants:
            frame_id = self.ids.next()
        frame = Frame(frame_id, conversation, conversation.owner, callee, None, 1, None, exchange)
        self._frames[frame_id] = frame
        conversation.children.add(frame)
        return frame

    def open_child(
        self, parent: Frame, listener: Listener, caller: str, tag: str = "", expect_answer: bool = False
    ) -> Frame:
        """Open a frame for a call made on ``parent``."""
        conversation = parent.conversation
        frame_id = self.ids.next()
        frame = Frame(
            frame_id, conversation, caller, listener.name, parent, parent.depth + 1, listener, parent.exchange
        )
        if tag:
            frame.tag = tag
        if expect_answer:
            frame.expect_answer = True
        _hang_below(parent, frame)
        self._frames[frame_id] = frame
        return frame

    def hand_over(self, frame: Frame, listener: Listener) -> Frame:
        """Open the frame that takes over from ``frame`` in a delegation: same caller, same tag, one hop deeper."""
        successor = Frame(
            self.ids.next(),
            frame.conversation,
            frame.caller,
            listener.name,
            frame.parent,
            frame.depth + 1,
            listener,
            frame.exchange,
        )
        successor.tag = frame.tag
        successor.expect_answer = frame.expect_answer
        successor.as_caller = frame.as_caller
        handed_over_by = frame.listener
        if handed_over_by is None or handed_over_by.is_system:
            successor.delegators = frame.delegators
        else:
            successor.delegators = (*frame.delegators, handed_over_by)
        successor.alias = frame.alias
        if frame.parent is not None:
            frame.parent.open_children += 1
        holder = successor.holder = frame.holder  # not the parent, which may have ended
        if holder.children is None:
            holder.children = set()
        holder.children.add(successor)
        self._frames[successor.id] = successor
        return successor

    def close(self, frame: Frame, state: FrameState) -> None:
        """Close one frame. Its children are not touched; whoever closes it decides about them."""
        if frame.state is not _OPEN:
            return
        frame.state = state
        self._frames.pop(frame.id, None)
        conversation = frame.conversation
        holder = frame.holder
        if holder.children is not None:
            holder.children.discard(frame)
        if frame.children:
            _hand_children_to(holder, frame)
        if frame.holds:
            conversation.holds -= frame.holds
            if frame is not self._root:
                self.held -= frame.holds
        if frame.parent is not None:
            frame.parent.open_children -= 1
        if frame.expiry is not None:
            frame.expiry.cancel()
            frame.expiry = None
        if frame.on_close is not None:
            callbacks, frame.on_close = frame.on_close, None
            for callback in callbacks:
                _called(callback)

    def on_close(self, thread_id: str, callback: Callable[[], object]) -> None:
        """Have something called when a frame closes, however it closes: the place to free what a handler keeps for it.

        Args:
            thread_id: ``metadata.thread_id`` of the handler's frame.
            callback: a plain function without arguments. What it raises is logged.

        Raises:
            KeyError: the frame is not open.
        """
        frame = self._frames.get(thread_id)
        if frame is None:
            raise KeyError(f"thread {thread_id!r} is not open")
        if frame.on_close is None:
            frame.on_close = []
        frame.on_close.append(callback)

    def frame(self, frame_id: str) -> Frame | None:
        """The open frame of this id."""
        return self._frames.get(frame_id)

    def hold(self, thread_id: str, reason: str = "") -> Hold:
        """Keep a frame open while its handler waits for something outside the pump.

        Args:
            thread_id: ``metadata.thread_id`` of the handler's frame.
            reason: for operators.

        Raises:
            KeyError: the frame is not open.
        """
        frame = self._frames.get(thread_id)
        if frame is None:
            raise KeyError(f"thread {thread_id!r} is not open")
        frame.holds += 1
        frame.conversation.holds += 1
        self.held += 1
        return Hold(frame, reason, self._released)

    def _released(self, frame: Frame) -> None:
        self.held -= 1
        self.on_hold_released(frame)

    @property
    def open_frames(self) -> int:
        """How many frames are open."""
        return len(self._frames)

    # -- the documented interface -------------------------------------------------------------------------------

    def initialize_root(self, organism_name: str = "organism") -> str:
        """Open the frame on which the pump itself speaks (boot); later calls return the first one's id."""
        if self._root is None:
            conversation = self._add(Conversation(self.ids.next(), "system"))
            self._root = self.open_root(conversation, organism_name)
            self._root.holds = conversation.holds = 1  # it stays open for the life of the pump
        return self._root.id

    @property
    def root_uuid(self) -> str | None:
        """The id of the pump's own frame, once initialised."""
        return self._root.id if self._root else None

    @property
    def root_chain(self) -> str:
        """``system.<organism>`` once initialised, else ``system``."""
        return self._root.chain() if self._root else "system"

    @property
    def root(self) -> Frame | None:
        """The pump's own frame."""
        return self._root

    def register_thread(self, thread_id: str, initiator: str, target: str) -> str:
        """Begin a conversation of ``initiator`` with ``target`` under a given id; returns the id.

        Raises:
            ForgedMessage: see `begin`.
        """
        if thread_id in self._frames:
            return thread_id
        return self.open_root(self.begin(initiator, thread_id), target).id

    def extend_chain(self, current_uuid: str, next_hop: str) -> str:
        """Open a frame below an open one, always a new one; returns its id.

        Raises:
            KeyError: ``current_uuid`` is not open.
        """
        parent = self._frames.get(current_uuid)
        if parent is None:
            raise KeyError(f"thread {current_uuid!r} is not open")
        frame = Frame(
            self.ids.next(),
            parent.conversation,
            parent.callee,
            next_hop,
            parent,
            parent.depth + 1,
            None,
            parent.exchange,
        )
        _hang_below(parent, frame)
        self._frames[frame.id] = frame
        return frame.id

    def prune_for_response(self, thread_id: str) -> tuple[str, str] | tuple[None, None]:
        """Close a frame; returns its caller's name and the caller's frame id, or ``(None, None)`` at the root."""
        frame = self._frames.get(thread_id)
        if frame is None:
            return (None, None)
        self.close(frame, FrameState.ENDED)
        if frame.parent is None:
            return (None, None)
        return (frame.caller, frame.parent.id)

    def lookup(self, thread_id: str) -> FrameRecord | None:
        """What is known of a frame, or of a remembered conversation by its id; ``None`` if nothing is."""
        frame = self._frames.get(thread_id)
        if frame is not None:
            parent_id = frame.parent.id if frame.parent else None
            return FrameRecord(
                frame.id, parent_id, frame.conversation.id, frame.caller, frame.callee, frame.depth, frame.state
            )
        conversation = self.find(thread_id)
        if conversation is None:
            return None
        callee = conversation.participants[0] if conversation.participants else ""
        return FrameRecord(thread_id, None, thread_id, conversation.owner, callee, 1, FrameState.ENDED)

    def cleanup(self, thread_id: str) -> None:
        """Forget a frame, and the conversation if it was its last one."""
        frame = self._frames.get(thread_id)
        if frame is None:
            return
        self.close(frame, FrameState.CANCELLED)
        conversation = frame.conversation
        if conversation.open and not conversation.children and not conversation.pending:
            self.abandon(conversation)

    def debug_dump(self) -> dict[str, str]:
        """Open frame ids and their dotted chains; a copy, for operators."""
        return {frame_id: frame.chain() for frame_id, frame in self._frames.items()}

    def clear(self) -> None:
        """Forget everything, in tests."""
        for conversation_id in [*self._conversations, *self._retained]:
            self.on_forget(conversation_id)
        self._frames.clear()
        self._conversations.clear()
        self._retained.clear()
        self._root = None


def _hang_below(parent: Frame, child: Frame) -> None:
    parent.open_children += 1
    if parent.children is None:
        parent.children = {child}
    else:
        parent.children.add(child)


def _hand_children_to(holder: Frame | Conversation, frame: Frame) -> None:
    """The children of a frame that ends run on; they must still be found from above."""
    children = frame.children or set()
    frame.children = None
    for child in children:
        child.holder = holder
    if holder.children is None:
        holder.children = children
    else:
        holder.children |= children


def _called(callback: Callable[[], object]) -> None:
    try:
        callback()
    except (Exception, asyncio.CancelledError):  # it is no task's own: nothing is awaited here
        logger.exception("what was to be done when a frame closed failed")


def _nothing(_: Any) -> None:
    """The default of the registry's callbacks."""


def get_registry() -> ThreadRegistry:
    """The thread registry of the current pump."""
    return current_runtime().get(ThreadRegistry)


def reset_registry() -> None:
    """Forget everything in the current pump's thread registry."""
    get_registry().clear()
