"""The help desk's payloads and handlers. Nothing here knows that the speller is somewhere else."""

# ruff: noqa: T201

from __future__ import annotations

from dataclasses import dataclass

from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.message_bus.message_state import SystemError


@dataclass
class Question:
    """What others ask."""

    subject: str


@dataclass
class Reply:
    """What they are told."""

    text: str


@dataclass
class Word:
    """What the speller is asked."""

    text: str


@dataclass
class Spelling:
    """What it answers."""

    letters: list[str]


@dataclass
class Tick:
    """What the clock says."""

    number: int


async def answer(message: Question | Spelling | SystemError, metadata: HandlerMetadata) -> HandlerResponse:
    """Asks the speller, and answers when that has, or could not."""
    match message:
        case Question(subject):
            return HandlerResponse(Word(subject), to="speller")
        case Spelling(letters):
            return HandlerResponse.respond(Reply(f"It is spelled {'-'.join(letters)}."))
        case _:
            # An agent gets every error of a call that it has made as a message, from wherever it comes.
            return HandlerResponse.respond(Reply(f"Sorry: {message.code}."))


async def tick(tick: Tick, metadata: HandlerMetadata) -> None:
    """Takes note of it."""
    print(f"  the organism was told: {tick.number}", flush=True)
