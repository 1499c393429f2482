"""One message of the history, as it is kept and as it is shown.

It is kept as a `Record`: a plain tuple around the serialised payload, because one is made for every message and most
are never looked at. It is shown as a `BufferSlot`, which decodes the payload whenever it is asked for, so that nobody
can change the history through an object it handed out.
"""

from __future__ import annotations

import copy
import dataclasses
from contextlib import suppress
from dataclasses import FrozenInstanceError, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from third_party.xmlable import codec_of

if TYPE_CHECKING:
    from collections.abc import Sized

__all__ = ["BufferSlot", "Opener", "Record", "SlotMetadata", "seal", "size_of"]


class Opener(Protocol):
    """What makes a payload of its serialised form; a payload codec is one."""

    def decode_text(self, data: Any, /) -> Any:
        """A fresh object."""
        ...


Record = tuple[str, str, str, str, "Sized", Opener | None, str | None, bool, str, str, float]
"""thread_id, from_id, to_id, payload_type, data, codec, own_name, is_self_call, usage_instructions, todo_nudge, seconds
since the epoch."""


@dataclass(frozen=True, slots=True)
class SlotMetadata:
    """What is known about a message in the history.

    Args:
        thread_id: the frame it was delivered on.
        from_id: who sent it.
        to_id: the listener that got it.
        slot_index: its place among the slots of its thread that are still stored, from 0.
        timestamp: when it was recorded, ISO 8601 in UTC.
        payload_type: name of the payload class.
        own_name: as its handler saw it; so are the following.
        is_self_call: the sender is the listener itself.
        usage_instructions: how to call the listener's peers.
        todo_nudge: reminder of raised todos.
    """

    thread_id: str
    from_id: str
    to_id: str
    slot_index: int
    timestamp: str
    payload_type: str
    own_name: str | None = None
    is_self_call: bool = False
    usage_instructions: str = ""
    todo_nudge: str = ""


class BufferSlot:
    """One message of the history. Immutable: `payload` is a new object, equal to what was sent, on every access.

    Args:
        payload: a payload object; it is serialised, and later changes to it do not show.
        metadata: what is known about the message.
    """

    __slots__ = ("_codec", "_data", "metadata")

    metadata: SlotMetadata
    _data: Any
    _codec: Opener | None

    def __init__(self, payload: Any, metadata: SlotMetadata) -> None:
        data, codec = seal(payload)
        _fill(self, data, codec, metadata)

    @classmethod
    def of(cls, record: Record, index: int) -> BufferSlot:
        """The slot that shows ``record``, which is number ``index`` of its thread."""
        thread_id, from_id, to_id, payload_type, data, codec, own_name, is_self_call, usage, nudge, time = record
        when = datetime.fromtimestamp(time, UTC).isoformat()
        slot = cls.__new__(cls)
        metadata = SlotMetadata(
            thread_id, from_id, to_id, index, when, payload_type, own_name, is_self_call, usage, nudge
        )
        _fill(slot, data, codec, metadata)
        return slot

    @property
    def payload(self) -> Any:
        """The payload, decoded anew; its bytes, for a message that was recorded without a codec."""
        data = self._data
        if self._codec is not None:
            return self._codec.decode_text(data)
        return data.encode() if isinstance(data, str) else data

    @property
    def thread_id(self) -> str:
        return self.metadata.thread_id

    @property
    def from_id(self) -> str:
        return self.metadata.from_id

    @property
    def to_id(self) -> str:
        return self.metadata.to_id

    @property
    def index(self) -> int:
        return self.metadata.slot_index

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BufferSlot):
            return NotImplemented
        return self.metadata == other.metadata and bool(self.payload == other.payload)

    def __hash__(self) -> int:
        return hash(self.metadata)

    def __repr__(self) -> str:
        return f"BufferSlot(payload={self.payload!r}, metadata={self.metadata!r})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return BufferSlot, (self.payload, self.metadata)


def _fill(slot: BufferSlot, data: Any, codec: Opener | None, metadata: SlotMetadata) -> None:
    put = object.__setattr__
    put(slot, "_data", data)
    put(slot, "_codec", codec)
    put(slot, "metadata", metadata)


def size_of(data: Any) -> int:
    """The bytes that a slot's data takes."""
    if type(data) is str and not data.isascii():
        return len(data.encode())
    return len(data)


def seal(payload: Any) -> tuple[Sized, Opener | None]:
    """The immutable form of a payload object, and what opens it again.

    Args:
        payload: an instance of a payload class is serialised; anything that has no XML form (a string, a dict, a
            class with fields of unsupported types, text with control characters) is copied instead.
    """
    cls = type(payload)
    if dataclasses.is_dataclass(payload) or hasattr(cls, "model_fields"):
        with suppress(TypeError, ValueError):
            codec = codec_of(cls)
            return codec.encode(payload).encode(), codec
    return _Kept(payload), _COPIES


class _Kept:
    """A private copy of an object without an XML form. Its length stands for its size, as that of bytes does."""

    __slots__ = ("_size", "value")

    def __init__(self, value: Any) -> None:
        self.value = copy.deepcopy(value)
        self._size = len(repr(value))

    def __len__(self) -> int:
        return self._size


class _Copies:
    """Opens a `_Kept`."""

    __slots__ = ()

    def decode_text(self, data: Any, /) -> Any:
        return copy.deepcopy(data.value)


_COPIES = _Copies()
