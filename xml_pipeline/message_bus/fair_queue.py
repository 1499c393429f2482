"""A queue that serves its keys, here conversations, fairly."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First in, first out per key; among keys by the scheduling mode.

    Args:
        depth_first: ``False`` (breadth-first): one item of each key in turn. ``True``: keys pushed as *started* before
            the others, and each key until it is empty.
    """

    __slots__ = ("_depth_first", "_fresh", "_started", "size")

    def __init__(self, depth_first: bool = False) -> None:
        self._depth_first = depth_first
        # A key with one item, by far the most frequent case, maps to the item itself; with more, to a deque.
        # An OrderedDict, because taking the first key of a plain dict again and again is quadratic.
        self._fresh: OrderedDict[Hashable, T | deque[T]] = OrderedDict()
        self._started: OrderedDict[Hashable, T | deque[T]] = OrderedDict()
        self.size = 0
        """Items in all; ``len()`` of the queue, without the call."""

    def __len__(self) -> int:
        return self.size

    def push(self, key: Hashable, item: T, started: bool = False) -> None:
        """Append an item to its key's line."""
        lines = self._fresh
        if self._depth_first and (started or key in self._started):
            lines = self._started
            if key in self._fresh:
                lines[key] = self._fresh.pop(key)  # what came before stays before
        self.size += 1
        line = lines.setdefault(key, item)
        if line is item:
            return
        if type(line) is deque:
            line.append(item)
        else:
            lines[key] = deque((line, item))  # type: ignore[arg-type]

    def pop(self) -> T:
        """Take the next item.

        Raises:
            IndexError: the queue is empty.
        """
        if not self.size:
            raise IndexError("pop from an empty FairQueue")
        lines = self._started or self._fresh
        key, line = lines.popitem(last=False)
        self.size -= 1
        if type(line) is not deque:
            return line  # type: ignore[return-value]
        item = line.popleft()
        if line:
            lines[key] = line if len(line) > 1 else line[0]
            if self._depth_first:
                lines.move_to_end(key, last=False)
        return item

    def discard(self, key: Hashable, wanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the items of a key that ``wanted`` picks."""
        removed: list[T] = []
        for lines in (self._started, self._fresh):
            line = lines.get(key)
            if line is None:
                continue
            items: list[T] = list(line) if isinstance(line, deque) else [line]
            kept: list[T] = []
            for item in items:
                (removed if wanted(item) else kept).append(item)
            if not kept:
                del lines[key]
            else:
                lines[key] = deque(kept) if len(kept) > 1 else kept[0]
        self.size -= len(removed)
        return removed

    def drain(self) -> Iterator[T]:
        """Take everything."""
        while self.size:
            yield self.pop()
