"""What is sent around."""

from __future__ import annotations

from pydantic import BaseModel

__all__ = ["SLOW", "Ask", "Chunk", "Told", "answer_to", "chunk_of"]

SLOW = 0.05
"""Seconds that the slow handler waits."""


class Ask(BaseModel):
    """A request."""

    message: str
    number: int


class Told(BaseModel):
    """An answer, and what is kept under keys."""

    reply: str


class Chunk(BaseModel):
    """A part of a stream."""

    delta: str


def answer_to(ask: Ask) -> Told:
    """What every handler answers."""
    return Told(reply=f"{ask.message} {ask.number}")


def chunk_of(ask: Ask, number: int) -> Chunk:
    """What every stream consists of."""
    return Chunk(delta=f"{ask.message} {number}")
