"""The listeners of the pipeline's three stages, as each node has them. What is begun is written down."""

from __future__ import annotations

import os
from dataclasses import dataclass

from xml_pipeline import HandlerMetadata, HandlerResponse


@dataclass
class Document:
    id: str
    text: str


@dataclass
class Extracted:
    id: str
    words: list[str]


@dataclass
class Counted:
    id: str
    count: int


@dataclass
class Summary:
    id: str
    text: str


def _begun(stage: str, what: str) -> None:
    # A line of one write, at the end of the file: whole, also if the node is killed the next moment.
    with open(os.environ["BRIDGE_PROOF_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{stage} {what}\n")


async def extract(document: Document, metadata: HandlerMetadata) -> HandlerResponse:
    """First stage."""
    _begun("extract", document.id)
    return HandlerResponse(Extracted(document.id, document.text.split()), "out")


async def count(extracted: Extracted, metadata: HandlerMetadata) -> HandlerResponse:
    """Second stage."""
    _begun("count", extracted.id)
    return HandlerResponse(Counted(extracted.id, len(extracted.words)), "out")


async def summarise(counted: Counted, metadata: HandlerMetadata) -> HandlerResponse:
    """Third stage."""
    _begun("summarise", counted.id)
    return HandlerResponse(Summary(counted.id, f"{counted.count} words"), "out")
