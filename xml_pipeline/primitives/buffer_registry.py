"""The buffers that are under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xml_pipeline.message_bus.join import Join
from xml_pipeline.primitives.handover import Handover
from xml_pipeline.runtime import current_runtime

__all__ = ["BufferItemResult", "BufferRegistry", "BufferState", "get_buffer_registry", "reset_buffer_registry"]


@dataclass(frozen=True, slots=True)
class BufferItemResult:
    """How one item ended.

    Args:
        index: the item's place, from 0.
        result: its answer, or the error that came in its place.
        success: whether it was answered.
        error: what went wrong, in a sentence.
    """

    index: int
    result: Any
    success: bool = True
    error: str | None = None


@dataclass(slots=True, eq=False)
class BufferState:
    """How far a buffer has come.

    Args:
        buffer_id: as the requester named it.
        total_items: how many items it has.
        return_to: who gets the results.
        thread_id: the frame that it runs on.
        from_id: who asked for it.
        target: who gets the items.
        collect: the results are collected.
        results: of the items that have ended, by index.
    """

    buffer_id: str
    total_items: int
    return_to: str
    thread_id: str
    from_id: str
    target: str
    collect: bool = True
    results: dict[int, BufferItemResult] = field(default_factory=dict)
    successful_count: int = 0
    """Items that were answered."""
    handover: Handover | None = field(default=None, repr=False)
    """What the requester handed over inside of the process."""
    join: Join | None = field(default=None, repr=False)
    """Its calls."""

    @property
    def completed_count(self) -> int:
        """Items that have ended."""
        return len(self.results)

    @property
    def is_complete(self) -> bool:
        """Whether all items have ended."""
        return len(self.results) >= self.total_items

    @property
    def pending_count(self) -> int:
        """Items that have not ended."""
        return self.total_items - len(self.results)

    def get_ordered_results(self) -> list[BufferItemResult | None]:
        """The results in the order of the items; ``None`` for one that has not ended."""
        return [self.results.get(index) for index in range(self.total_items)]


class BufferRegistry:
    """The buffers of one pump that are under way.

    Each is kept under a key of its own. Requesters' names for their buffers may be the same in two conversations; the
    pump keeps each buffer under the id of its frame.
    """

    def __init__(self) -> None:
        self._states: dict[str, BufferState] = {}

    def create(
        self,
        buffer_id: str,
        total_items: int,
        return_to: str,
        thread_id: str,
        from_id: str,
        target: str,
        collect: bool = True,
        *,
        key: str = "",
    ) -> BufferState:
        """Keep a new buffer; see `BufferState`.

        Args:
            key: what it is kept under; default: ``buffer_id``.

        Raises:
            ValueError: the key is taken.
        """
        key = key or buffer_id
        if key in self._states:
            raise ValueError(f"buffer {key!r} is under way already")
        state = BufferState(buffer_id, total_items, return_to, thread_id, from_id, target, collect)
        self._states[key] = state
        return state

    def get(self, key: str) -> BufferState | None:
        """The buffer kept under ``key``."""
        return self._states.get(key)

    def record_result(
        self, key: str, index: int, result: Any, success: bool = True, error: str | None = None
    ) -> BufferState | None:
        """An item has ended. A second result for an index changes nothing.

        Returns:
            The buffer; ``None`` if there is none.

        Raises:
            IndexError: the buffer has no item of this index.
        """
        state = self._states.get(key)
        if state is None:
            return None
        if not 0 <= index < state.total_items:
            raise IndexError(f"buffer {key!r} has {state.total_items} items, and none with the index {index}")
        if index not in state.results:
            state.results[index] = BufferItemResult(index, result, success, error)
            state.successful_count += success
        return state

    def remove(self, key: str) -> bool:
        """Forget a buffer; returns whether there was one."""
        return self._states.pop(key, None) is not None

    def list_active(self) -> list[str]:
        """The keys of all buffers under way."""
        return list(self._states)

    def clear(self) -> None:
        """Forget all."""
        self._states.clear()

    def __len__(self) -> int:
        return len(self._states)


def get_buffer_registry() -> BufferRegistry:
    """The buffer registry of the current pump."""
    return current_runtime().get(BufferRegistry)


def reset_buffer_registry() -> None:
    """Forget all buffers of the current pump."""
    get_buffer_registry().clear()
