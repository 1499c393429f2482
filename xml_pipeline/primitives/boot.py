"""The first message of every organism."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from third_party.xmlable import xmlify
from xml_pipeline.message_bus.message_state import HandlerMetadata

__all__ = ["Boot", "handle_boot"]

logger = logging.getLogger(__name__)


@xmlify
@dataclass(frozen=True, slots=True)
class Boot:
    """Sent once, from ``system`` to ``system.boot``, before anything else.

    Args:
        organism_name: the organism's name.
        timestamp: when it started, ISO 8601 in UTC.
        listener_count: listeners registered at that moment, the pump's own left out.
    """

    organism_name: str = ""
    timestamp: str = ""
    listener_count: int = 0


async def handle_boot(payload: Boot, metadata: HandlerMetadata) -> None:
    """Log the start."""
    logger.info("organism %r started with %d listeners", payload.organism_name, payload.listener_count)
