"""Objects that go along with a request, past the XML, when requester and listener are in one process.

``pump.sequence`` and ``pump.map`` put the caller's payload objects here and find the results here, so that neither is
written into a text inside of a message. What travels in the message is a key, which nobody can guess and which is good
for one use.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from xml_pipeline.errors import PipelineError
from xml_pipeline.message_bus.join import JoinResult
from xml_pipeline.runtime import current_runtime

__all__ = ["Handover", "Handovers", "get_handovers"]


@dataclass(slots=True, eq=False)
class Handover:
    """What goes along with one request.

    Args:
        key: names it in the message.
        payloads: what is to be sent.
        results: what came back, once the request has been answered.
        causes: what the errors among the results came of, by their index. Results are for handlers, too, and their
            errors tell no more than handlers may know.
    """

    key: str
    payloads: Sequence[Any]
    results: Sequence[JoinResult | None] = ()
    causes: dict[int, PipelineError] = field(default_factory=dict)


class Handovers:
    """The handovers of one pump that wait to be claimed."""

    def __init__(self) -> None:
        self._waiting: dict[str, Handover] = {}

    @contextmanager
    def offer(self, payloads: Sequence[Any]) -> Iterator[Handover]:
        """Have objects go along with the request that is made inside of the ``with`` block.

        Args:
            payloads: payload objects.
        """
        handover = Handover(str(uuid.uuid4()), payloads)
        self._waiting[handover.key] = handover
        try:
            yield handover
        finally:
            self._waiting.pop(handover.key, None)

    def claim(self, key: str) -> Handover | None:
        """Take what goes along with a request; ``None`` for a key that nobody offered, or that was used."""
        return self._waiting.pop(key, None)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)


def get_handovers() -> Handovers:
    """The handovers of the current pump."""
    return current_runtime().get(Handovers)
