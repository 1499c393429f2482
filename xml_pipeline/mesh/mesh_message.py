"""`MeshMessage`: a message of any subject, with everything that came with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["MeshMessage"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MeshMessage(Generic[T]):
    """One message, as a handler gets it that asks for it.

    Args:
        subject: where it was published.
        headers: its headers; empty where it had none.
        payload: its body; ``None`` for an empty one that is read as JSON.
    """

    subject: str
    headers: dict[str, str] = field(default_factory=dict)
    payload: T | None = None
