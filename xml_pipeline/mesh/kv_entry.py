"""`KVEntry`: a key of a bucket, with its value and what happened to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["KVEntry"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KVEntry(Generic[T]):
    """One key at one moment.

    Args:
        key: its name.
        value: its value; of a deleted one, the empty value.
        revision: a number that grows with every change in the bucket.
        operation: ``PUT``, ``DEL`` or ``PURGE``.
        origin: what whoever put it said of himself (`KV.put`); empty for nothing. Anybody can say anything.
    """

    key: str
    value: T
    revision: int
    operation: str = "PUT"
    origin: str = ""

    @property
    def is_deleted(self) -> bool:
        """Whether the key has no value any more."""
        return self.operation != "PUT"
