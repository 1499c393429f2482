"""What arrives on a subscription, as the rest of the mesh sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Message", "OnMessage"]


class Message(Protocol):
    """One message.

    Args:
        subject: where it was published.
        reply: where an answer goes; empty for nowhere.
        data: its body.
        headers: its headers, or ``None`` where it has none.
    """

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None


# Called for each message, in order, in the event loop; it must not wait. What it raises is logged.
OnMessage = Callable[[Message], None]
