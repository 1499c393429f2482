"""`ContextBuffer`: the history of a pump's conversations, one slot per message.

Every message is recorded once, on the frame it is delivered on. It can be read by frame (``get_thread``), by agent
within a conversation (``by_agent``: what the agent sent or received, over all its frames), and by conversation.

What bounds it:

- per conversation, ``max_history_bytes``: beyond it the oldest slots are dropped, and ``on_trimmed`` is told;
- closed conversations, ``max_threads``: beyond it the one closed first is deleted. Open ones are never evicted;
- ``max_slots_per_thread``, for programs that append to the buffer themselves: beyond it `append` raises.

When a conversation is closed, and after what time its history is deleted, is for the pump to say.
Use it from one thread. Everything of a conversation is freed by reference count when it is deleted.
"""

from __future__ import annotations

import sys
from collections import Counter
from time import time
from typing import TYPE_CHECKING, Any, Final, overload
from weakref import WeakValueDictionary

from xml_pipeline.memory.slots import BufferSlot, Opener, Record, SlotMetadata, seal, size_of
from xml_pipeline.message_bus.message_state import HandlerMetadata
from xml_pipeline.runtime import current_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "SLOT_OVERHEAD",
    "BufferSlot",
    "ContextBuffer",
    "SlotMetadata",
    "ThreadContext",
    "get_context_buffer",
    "reset_context_buffer",
    "slot_to_handler_metadata",
]

SLOT_OVERHEAD: Final = 200
"""Bytes that a slot counts for besides its payload: about what the record takes in memory, so that the limit also
holds for a conversation of very many very small messages."""

_DATA: Final = 4
"""Where a record has its payload."""
_TRIM_SHARE: Final = 64
"""A long history is trimmed by 1/64 at a time, so that dropping costs little per message however long it is."""


class _Conversation(list[Record]):
    """The records of a conversation. A list itself, for many are kept, and one object is half of two for the garbage
    collector."""

    __slots__ = ("closed", "id", "mixed", "size")

    def __init__(self, conversation_id: str) -> None:
        self.id = conversation_id
        self.size = 0
        self.closed = False
        self.mixed = False
        """Has had slots of frames other than the first one."""

    def of_thread(self, thread_id: str) -> list[Record]:
        if not self.mixed:
            return self
        return [record for record in self if record[0] == thread_id]


class ContextBuffer:
    """The history of all conversations of one pump.

    Args:
        max_slots_per_thread: most slots that `append` puts into one thread.
        max_threads: most closed conversations kept.
        max_history_bytes: most bytes kept per conversation; every slot counts its payload and `SLOT_OVERHEAD`.
        on_trimmed: called with conversation id, number of slots and number of bytes whenever old slots are dropped.
    """

    def __init__(
        self,
        *,
        max_slots_per_thread: int = 10_000,
        max_threads: int = 1_000,
        max_history_bytes: int = 16_777_216,
        on_trimmed: Callable[[str, int, int], object] | None = None,
    ) -> None:
        self.max_slots_per_thread = max_slots_per_thread
        self.max_threads = max_threads
        self.max_history_bytes = max_history_bytes
        self.on_trimmed = on_trimmed
        self.dropped_slots = 0
        """How many slots were dropped for ``max_history_bytes`` so far."""
        self._conversations: dict[str, _Conversation] = {}
        self._frames: dict[str, _Conversation] = {}
        """Frames that have slots, except those that are a conversation's first: these have its id."""
        self._closed: dict[str, None] = {}
        """Ids of closed conversations, the one closed first in front."""
        self._views: WeakValueDictionary[str, ThreadContext] = WeakValueDictionary()

    @property
    def is_shared(self) -> bool:
        """Whether other processes see this history."""
        return False

    def record(
        self,
        conversation_id: str,
        thread_id: str,
        payload_xml: str | bytes,
        codec: Opener | None,
        from_id: str,
        to_id: str,
        payload_type: str,
        own_name: str | None = None,
        is_self_call: bool = False,
        usage_instructions: str = "",
        todo_nudge: str = "",
    ) -> None:
        """Add one message. The pump's way in; opens the conversation (again) if need be, and never refuses.

        Args:
            conversation_id: the conversation.
            thread_id: the frame the message is delivered on.
            payload_xml: the canonical form of the payload element.
            codec: reads them, when somebody looks; ``None`` shows the bytes themselves.
            from_id: who sent it.
            to_id: the listener that gets it.
            payload_type: name of the payload class.
            own_name: as the handler sees it; so are the following.
            is_self_call: the sender is the listener itself.
            usage_instructions: how to call the listener's peers.
            todo_nudge: reminder of raised todos.
        """
        record = (
            thread_id, from_id, to_id, payload_type, payload_xml, codec, own_name, is_self_call, usage_instructions,
            todo_nudge, time(),
        )  # fmt: skip
        self.add(conversation_id, record)

    def add(self, conversation_id: str, record: Record) -> None:
        """`record`, for whoever has the record made: the pump, for every message.

        Args:
            conversation_id: the conversation.
            record: what is kept of the message.
        """
        conversation = self._conversations.get(conversation_id)
        if conversation is None or conversation.closed:
            conversation = self._open(conversation_id)
        conversation.append(record)
        thread_id = record[0]
        if thread_id != conversation_id and thread_id not in self._frames:
            self._frames[thread_id] = conversation
            conversation.mixed = True
        data = record[_DATA]
        # The usual case of `size_of`, without the call.
        size = len(data) if type(data) is str and data.isascii() else size_of(data)
        size = conversation.size = conversation.size + size + SLOT_OVERHEAD
        if size > self.max_history_bytes:
            self._trim(conversation)

    def append(
        self,
        thread_id: str,
        payload: Any,
        from_id: str,
        to_id: str,
        own_name: str | None = None,
        is_self_call: bool = False,
        usage_instructions: str = "",
        todo_nudge: str = "",
    ) -> BufferSlot:
        """Add a payload object to a thread, for programs that keep a history of their own.

        Args:
            thread_id: a frame with history belongs to its conversation; an unknown id begins one.
            payload: serialised now; later changes to the object do not show.
            from_id: who sent it.
            to_id: who got it.
            own_name: see `SlotMetadata`, as for the following.
            is_self_call: see `SlotMetadata`.
            usage_instructions: see `SlotMetadata`.
            todo_nudge: see `SlotMetadata`.

        Returns:
            The slot it became.

        Raises:
            MemoryError: the thread has ``max_slots_per_thread`` slots.
        """
        conversation = self._get_or_open(thread_id)
        index = len(conversation.of_thread(thread_id))
        if index >= self.max_slots_per_thread:
            raise MemoryError(f"thread {thread_id} exceeded max slots ({self.max_slots_per_thread})")
        data, codec = seal(payload)
        kind = type(payload).__name__
        record = (
            thread_id, from_id, to_id, kind, data, codec, own_name, is_self_call, usage_instructions, todo_nudge, time()
        )  # fmt: skip
        conversation.append(record)
        conversation.size += len(data) + SLOT_OVERHEAD
        if conversation.size > self.max_history_bytes:
            index -= self._trim(conversation, thread_id)
        return BufferSlot.of(record, max(index, 0))

    def get_or_create_thread(self, thread_id: str) -> ThreadContext:
        """The history of a thread; an unknown id begins one. The same object for as long as somebody holds it."""
        self._get_or_open(thread_id)
        return self._view(thread_id)

    def get_thread(self, thread_id: str) -> ThreadContext | None:
        """The history of one frame, or ``None`` if there is none."""
        return self._view(thread_id) if self.thread_exists(thread_id) else None

    def get_thread_slots(self, thread_id: str) -> list[BufferSlot]:
        """The slots of one frame, oldest first; empty for an unknown one."""
        return [BufferSlot.of(record, index) for index, record in enumerate(self._records(thread_id))]

    def thread_exists(self, thread_id: str) -> bool:
        """Whether anything is kept for this frame."""
        if thread_id in self._frames:
            return True
        conversation = self._conversations.get(thread_id)
        return conversation is not None and (not conversation.mixed or bool(conversation.of_thread(thread_id)))

    def by_conversation(self, conversation_id: str) -> list[BufferSlot]:
        """All slots of a conversation, oldest first; empty for an unknown one."""
        return list(self._slots(conversation_id, None))

    def by_agent(self, conversation_id: str, agent: str) -> list[BufferSlot]:
        """What ``agent`` sent or received within a conversation, on whatever frame, oldest first.

        Args:
            conversation_id: the conversation.
            agent: the listener's registered name, exactly.
        """
        return list(self._slots(conversation_id, agent))

    def close_conversation(self, conversation_id: str) -> bool:
        """Say that a conversation has ended: its history stays, and may be evicted when more than ``max_threads`` have.

        The next `record` opens it again.

        Returns:
            Whether it was known and open.
        """
        conversation = self._conversations.get(conversation_id)
        if conversation is None or conversation.closed:
            return False
        conversation.closed = True
        self._closed[conversation_id] = None
        while len(self._closed) > self.max_threads:
            self._evict()
        return True

    def delete_conversation(self, conversation_id: str) -> bool:
        """Free the history of a conversation, all its frames included.

        Returns:
            Whether there was one.
        """
        conversation = self._conversations.pop(conversation_id, None)
        if conversation is None:
            return False
        self._closed.pop(conversation_id, None)
        if conversation.mixed:
            for record in conversation:
                self._frames.pop(record[0], None)
        return True

    def delete_thread(self, thread_id: str) -> bool:
        """Free the slots of one frame, and its conversation too if that leaves it empty.

        Returns:
            Whether there was anything.
        """
        if not self.thread_exists(thread_id):
            return False
        conversation = self._find(thread_id)
        assert conversation is not None
        kept = [record for record in conversation if record[0] != thread_id]
        if not kept:
            self.delete_conversation(conversation.id)
        else:
            conversation[:] = kept
            conversation.size = sum(map(_size, kept))
        self._frames.pop(thread_id, None)
        return True

    def get_stats(self) -> dict[str, Any]:
        """Counts, as a dict: ``thread_count``, ``total_slots``, ``max_threads``, ``max_slots_per_thread``, ``threads``
        (slots per thread id), ``backend``, ``conversation_count``, ``closed_count``, ``total_bytes``,
        ``dropped_slots``. Takes time in proportion to the number of slots."""
        threads: Counter[str] = Counter()
        for conversation in self._conversations.values():
            if not conversation:
                threads[conversation.id] = 0
            threads.update(record[0] for record in conversation)
        return {
            "thread_count": len(threads),
            "total_slots": threads.total(),
            "max_threads": self.max_threads,
            "max_slots_per_thread": self.max_slots_per_thread,
            "threads": dict(threads),
            "backend": "local",
            "conversation_count": len(self._conversations),
            "closed_count": len(self._closed),
            "total_bytes": sum(conversation.size for conversation in self._conversations.values()),
            "dropped_slots": self.dropped_slots,
        }

    def clear(self) -> None:
        """Free everything; limits stay."""
        self._conversations.clear()
        self._frames.clear()
        self._closed.clear()
        self._views.clear()

    def _find(self, thread_id: str) -> _Conversation | None:
        conversation = self._frames.get(thread_id)
        return self._conversations.get(thread_id) if conversation is None else conversation

    def _records(self, thread_id: str) -> list[Record]:
        conversation = self._find(thread_id)
        return [] if conversation is None else conversation.of_thread(thread_id)

    def _slots(self, conversation_id: str, agent: str | None) -> Iterator[BufferSlot]:
        conversation = self._conversations.get(conversation_id)
        if conversation is None:
            return
        seen: Counter[str] = Counter()
        for record in conversation:
            thread_id = record[0]
            if agent is None or agent in (record[1], record[2]):
                yield BufferSlot.of(record, seen[thread_id])
            seen[thread_id] += 1

    def _view(self, thread_id: str) -> ThreadContext:
        view = self._views.get(thread_id)
        if view is None:
            view = self._views[thread_id] = ThreadContext(thread_id, buffer=self)
        return view

    def _get_or_open(self, thread_id: str) -> _Conversation:
        conversation = self._find(thread_id)
        if conversation is not None and not conversation.closed:
            return conversation
        if conversation is None and self._closed and len(self._conversations) >= self.max_threads:
            self._evict()
        return self._open(thread_id if conversation is None else conversation.id)

    def _open(self, conversation_id: str) -> _Conversation:
        conversation = self._conversations.get(conversation_id)
        if conversation is None:
            conversation = self._conversations[conversation_id] = _Conversation(conversation_id)
        elif conversation.closed:
            conversation.closed = False
            del self._closed[conversation_id]
        return conversation

    def _evict(self) -> None:
        self.delete_conversation(next(iter(self._closed)))

    def _trim(self, conversation: _Conversation, thread_id: str = "") -> int:
        """Drop the oldest slots until the limit is kept; returns how many were of ``thread_id``."""
        excess = conversation.size - self.max_history_bytes
        least = len(conversation) // _TRIM_SHARE
        count = freed = 0
        while count < len(conversation) and (freed < excess or count < least):
            freed += _size(conversation[count])
            count += 1
        dropped = conversation[:count]
        del conversation[:count]
        conversation.size -= freed
        if conversation.mixed:
            for gone in {record[0] for record in dropped} - {record[0] for record in conversation}:
                self._frames.pop(gone, None)
        self.dropped_slots += count
        if self.on_trimmed is not None:
            self.on_trimmed(conversation.id, count, freed)
        return sum(record[0] == thread_id for record in dropped)


class ThreadContext:
    """The history of one frame, as a read-only sequence of `BufferSlot` that always shows the present state.

    Reading takes time in proportion to the length of the conversation.

    Args:
        thread_id: the frame's id.
        buffer: where its slots are kept; default: an unlimited one of its own.
    """

    __slots__ = ("__weakref__", "_buffer", "thread_id")

    def __init__(self, thread_id: str, *, buffer: ContextBuffer | None = None) -> None:
        self.thread_id = thread_id
        self._buffer = buffer or ContextBuffer(max_slots_per_thread=sys.maxsize, max_history_bytes=sys.maxsize)

    def append(
        self,
        payload: Any,
        from_id: str,
        to_id: str,
        own_name: str | None = None,
        is_self_call: bool = False,
        usage_instructions: str = "",
        todo_nudge: str = "",
    ) -> BufferSlot:
        """Add a payload object; see `ContextBuffer.append`."""
        return self._buffer.append(
            self.thread_id, payload, from_id, to_id, own_name, is_self_call, usage_instructions, todo_nudge
        )

    def get_slice(self, start: int = 0, end: int | None = None) -> list[BufferSlot]:
        """Slots ``start`` to before ``end``, as slicing a list does."""
        return self._buffer.get_thread_slots(self.thread_id)[start:end]

    def get_by_type(self, payload_type: str) -> list[BufferSlot]:
        """Slots whose payload class has exactly this name."""
        return [slot for slot in self if slot.metadata.payload_type == payload_type]

    def get_from(self, from_id: str) -> list[BufferSlot]:
        """Slots that exactly this sender sent."""
        return [slot for slot in self if slot.metadata.from_id == from_id]

    def __len__(self) -> int:
        return len(self._buffer._records(self.thread_id))

    @overload
    def __getitem__(self, index: int) -> BufferSlot: ...
    @overload
    def __getitem__(self, index: slice) -> list[BufferSlot]: ...
    def __getitem__(self, index: int | slice) -> BufferSlot | list[BufferSlot]:
        if isinstance(index, slice):
            return self._buffer.get_thread_slots(self.thread_id)[index]
        records = self._buffer._records(self.thread_id)
        return BufferSlot.of(records[index], range(len(records))[index])

    def __iter__(self) -> Iterator[BufferSlot]:
        """Over a copy: appending meanwhile does not disturb."""
        return iter(self._buffer.get_thread_slots(self.thread_id))

    def __repr__(self) -> str:
        return f"<ThreadContext {self.thread_id}: {len(self)} slots>"


def _size(record: Record) -> int:
    return size_of(record[_DATA]) + SLOT_OVERHEAD


def slot_to_handler_metadata(slot: BufferSlot) -> HandlerMetadata:
    """What the handler of this message was told about it."""
    meta = slot.metadata
    return HandlerMetadata(
        thread_id=meta.thread_id,
        from_id=meta.from_id,
        own_name=meta.own_name,
        is_self_call=meta.is_self_call,
        usage_instructions=meta.usage_instructions,
        todo_nudge=meta.todo_nudge,
    )


def get_context_buffer() -> ContextBuffer:
    """The context buffer of the current runtime."""
    return current_runtime().get(ContextBuffer)


def reset_context_buffer() -> None:
    """Give the current runtime a fresh context buffer, on its next use."""
    current_runtime().discard(ContextBuffer)
