"""The messages that everything here sends: ``Ping`` and ``Pong``, a text and a number, in envelopes of a given size."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from third_party.xmlable import codec_of, xmlify
from xml_pipeline.envelope import message_text

__all__ = ["FIRST", "LARGE", "SMALL", "Ping", "Pong", "envelope_of", "text_for"]

SMALL = 300
"""Bytes of an envelope with a small payload."""
LARGE = 2_000
FIRST = 100_000
"""The number in the first message; all numbers have as many digits."""


@xmlify
@dataclass
class Ping:
    """Begins a conversation."""

    text: str
    n: int


@xmlify
@dataclass
class Pong:
    """What a listener makes of a `Ping`."""

    text: str
    n: int


def envelope_of(payload: Ping | Pong, to: str, sender: str = "external", thread: str = "") -> tuple[bytes, str]:
    """A finished envelope, and the new thread's id in it."""
    thread = thread or str(uuid.uuid4())
    return message_text(codec_of(type(payload)).encode_payload(payload), sender, to, thread), thread


def text_for(size: int) -> str:
    """The text with which the envelope of a `Ping` from ``external`` to ``a`` has ``size`` bytes."""
    bare, _ = envelope_of(Ping("", FIRST), "a")
    return "x" * (size - len(bare))
