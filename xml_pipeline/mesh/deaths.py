"""Deaths: who has left or is gone, as everybody is told, and what that means for those who wait.

A plain peer is told on ``mesh.death.<agent>`` when the last known host of an agent is gone, and takes the agent for
dead. That says nothing of a host that leaves others of the same agent behind. So there is a second subject here,
``mesh.death.instance.<instance id>``, which plain peers do not hear: every host that is gone is announced there, and
whoever waits for one that this host had accepted is told at once, while those who wait for another one go on waiting.

Anybody can publish a notice, and the notices of others know less than it seems: a host may serve an agent without
having ever been recorded. Hence a notice concerns nobody but those whose request is known to be with the host that it
names; the one exception is a notice whose sender asked the server whether anybody is left (``is_last``), for then
nobody will ever answer.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.errors import AgentDied
from xml_pipeline.mesh.subjects import DEATHS

if TYPE_CHECKING:
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.replies import Expected, Replies

__all__ = ["DISCONNECT", "FAREWELL", "DeathNotice", "Deaths"]

DISCONNECT = "disconnect"
FAREWELL = "graceful_shutdown"


def _now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass(frozen=True, slots=True)
class DeathNotice:
    """What is said of a host that is gone.

    Args:
        agent: the agent that has lost its last known host; empty where only the host is meant.
        reason: ``disconnect`` or ``graceful_shutdown``.
        detected_at: when, in ISO 8601 with an offset.
        instance_id: the host.
        is_last: whether the server itself said that nobody takes requests for the agent any more.
    """

    agent: str
    reason: str
    instance_id: str
    detected_at: str = field(default_factory=_now)
    is_last: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The notice as it is sent; ``is_last`` only where it says something, for it is ours."""
        found = asdict(self)
        if not self.is_last:
            del found["is_last"]
        return found

    def to_json(self) -> bytes:
        """`to_dict` as bytes."""
        return json.dumps(self.to_dict()).encode()

    @classmethod
    def read(cls, body: bytes) -> DeathNotice | None:
        """What came; ``None`` if that is no notice, or names no host."""
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        texts = {name: _text(found.get(name)) for name in ("agent", "reason", "instance_id", "detected_at")}
        return cls(**texts, is_last=found.get("is_last") is True) if texts["instance_id"] else None

    def concerns(self, expected: Expected) -> bool:
        """Whether what is waited for cannot come any more."""
        if expected.instance_id:
            # A host may take its leave of one agent and go on with the others.
            parted = self.reason == FAREWELL and expected.agent != self.agent
            return expected.instance_id == self.instance_id and not parted
        return self.is_last and bool(self.agent) and expected.agent == self.agent


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


class Deaths:
    """The notices, for one mesh object; a single subscription, however much it waits for.

    Args:
        link: the connection.
        replies: what this mesh object waits for.
    """

    def __init__(self, link: Link, replies: Replies) -> None:
        self._link = link
        self._replies = replies
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Begin to listen."""
        self._subscription = await self._link.subscribe(DEATHS + ">", self._arrived)

    async def close(self) -> None:
        """Listen no more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    def _arrived(self, message: Message) -> None:
        notice = DeathNotice.read(message.data)
        if notice is not None:
            self._replies.fail_where(
                notice.concerns, lambda expected: AgentDied(agent=expected.agent, details=notice.to_dict())
            )
