"""What was refused at the border: each time an event and a line in the log, with the reason, and counted.

It is no dead letter: whoever reaches the server could fill the store with such letters, and drop those of others.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xml_pipeline.message_bus.events import PumpEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xml_pipeline.crypto import SignatureRefused
    from xml_pipeline.message_bus.events import EventHub

__all__ = ["EnvelopeRefusedEvent", "Refused"]

_log = logging.getLogger(__name__)


@dataclass
class EnvelopeRefusedEvent(PumpEvent):
    """A request or an answer that came over the mesh was not accepted; nobody has seen it.

    Args:
        reason: why, as `xml_pipeline.crypto.Reason` names it.
        agent: the agent that was asked: one of ours, or for an answer somebody else's.
        is_answer: it was an answer to a call of ours.
        key_id: the key that it names, if that is trusted; else empty.
        message_id: its id, if its signature was good; else empty.
    """

    reason: str
    agent: str
    is_answer: bool = False
    key_id: str = ""
    message_id: str = ""


class Refused:
    """Records refusals.

    Args:
        events: is told of each.
    """

    def __init__(self, events: EventHub) -> None:
        self._events = events
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many, by reason."""
        return dict(self._counts)

    def record(self, refused: SignatureRefused, agent: str, *, is_answer: bool) -> None:
        """One more was refused."""
        reason = str(refused.reason)
        self._counts[reason] += 1
        what = "an answer of" if is_answer else "a request to"
        _log.warning("%s the agent %s was refused: %s", what, agent, refused.detail)
        if self._events.active:
            self._events.emit(EnvelopeRefusedEvent(reason, agent, is_answer, refused.key_id, refused.message_id))
