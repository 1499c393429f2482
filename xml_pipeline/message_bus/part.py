"""One payload, or one group member's copy, of an external message that led to several messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xml_pipeline.envelope import build_envelope, envelope_to_bytes, extensions

if TYPE_CHECKING:
    from lxml.etree import _Element

__all__ = ["Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """What a dead letter of one of them must hold: another one's success must not be repeated with it.

    Args:
        envelope: the root of the external message.
        payload: its payload.
        from_id: who sent it.
        to_id: to whom; ``None`` where no target was named.
    """

    envelope: _Element
    payload: _Element
    from_id: str
    to_id: str | None

    def wire(self, conversation_id: str) -> bytes:
        """The payload in an envelope of its own; made when it is needed, which is rarely."""
        envelope = build_envelope(self.payload, self.from_id, conversation_id, self.to_id, extensions(self.envelope))
        return envelope_to_bytes(envelope, declaration=False)
