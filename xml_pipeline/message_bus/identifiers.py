"""Random identifiers, made in batches: one ``uuid.uuid4()`` per message costs half as much as parsing the message."""

from __future__ import annotations

import os
import weakref
from typing import Final

__all__ = ["IdPool"]

_WIDTH: Final = 37
"""A canonical UUID and the space after it."""
_COLUMNS: Final = tuple(
    column for start, end in ((0, 8), (9, 13), (14, 18), (19, 23), (24, 36)) for column in range(start, end)
)
"""Where each of the 32 hexadecimal digits stands in the text."""
_VERSION: Final = 12
_VARIANT: Final = 16
_TO_VARIANT: Final = bytes.maketrans(b"0123456789abcdef", b"89ab89ab89ab89ab")
"""Keeps the two random bits of the variant digit and sets the other two to 10 (RFC 9562, 4.1)."""


class IdPool:
    """An endless supply of version-4 UUIDs (RFC 9562, 5.4) in canonical text: lower case, with hyphens.

    The randomness is the operating system's. A forked child starts with an empty pool, so that it never hands out an
    identifier that its parent hands out too. May be used from several threads.

    Args:
        batch: how many identifiers are made at once.

    Raises:
        ValueError: ``batch`` is less than 1.
    """

    __slots__ = ("__weakref__", "_batch", "_ids")

    def __init__(self, batch: int = 256) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        self._batch = batch
        self._ids: list[str] = []
        if hasattr(os, "register_at_fork"):
            # Such a registration lasts as long as the process, hence the weak reference.
            os.register_at_fork(after_in_child=_Forget(weakref.ref(self)))

    def next(self) -> str:
        """A fresh identifier."""
        try:
            return self._ids.pop()
        except IndexError:
            fresh = _make(self._batch)
            identifier = fresh.pop()
            self._ids.extend(fresh)
            return identifier

    def clear(self) -> None:
        """Throw away what is prepared; the next identifier comes from fresh randomness."""
        self._ids.clear()


class _Forget:
    """Clears a pool, if it still exists."""

    __slots__ = ("_pool",)

    def __init__(self, pool: weakref.ref[IdPool]) -> None:
        self._pool = pool

    def __call__(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool.clear()


def _make(count: int) -> list[str]:
    # Column by column over all identifiers: 64 slice operations per batch instead of several per identifier.
    digits = os.urandom(16 * count).hex().encode("ascii")
    text = bytearray(b"-" * (_WIDTH - 1) + b" ") * count
    for digit, column in enumerate(_COLUMNS):
        text[column::_WIDTH] = digits[digit::32]
    text[_COLUMNS[_VERSION] :: _WIDTH] = b"4" * count
    text[_COLUMNS[_VARIANT] :: _WIDTH] = digits[_VARIANT::32].translate(_TO_VARIANT)
    return text.decode("ascii").split()
