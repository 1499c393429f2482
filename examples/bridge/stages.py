"""The stages of the pipeline: what they take, and what they do. Where they run is said in the organism files.

raw --extract--> extracted --count--> counted --report--> report
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from xml_pipeline import HandlerMetadata, HandlerResponse

SECONDS = 0.2  # that each document takes at each stage


@dataclass
class Document:
    """A document as somebody has written it; its id is the part of its key that the file calls so."""

    id: str
    text: str


@dataclass
class Extracted:
    """Without needless space."""

    id: str
    text: str


@dataclass
class Counted:
    """How many words it has."""

    id: str
    words: int


@dataclass
class Report:
    """What is to be read about it."""

    id: str
    text: str


async def extract(document: Document, metadata: HandlerMetadata) -> HandlerResponse:
    """Takes needless space out."""
    await _work("extract", document.id)
    return HandlerResponse(Extracted(document.id, " ".join(document.text.split())), to="keys.extracted")


async def count(extracted: Extracted, metadata: HandlerMetadata) -> HandlerResponse:
    """Counts the words."""
    await _work("count", extracted.id)
    return HandlerResponse(Counted(extracted.id, len(extracted.text.split())), to="keys.counted")


async def report(counted: Counted, metadata: HandlerMetadata) -> HandlerResponse:
    """Says how many there are."""
    await _work("report", counted.id)
    return HandlerResponse(Report(counted.id, f"{counted.id} has {counted.words} words"), to="keys.report")


async def _work(stage: str, document: str) -> None:
    print(f"  {stage:>7}: {document}", flush=True)  # noqa: T201
    await asyncio.sleep(SECONDS)
