"""`LogEvent`: what a host says about an agent on ``mesh.logs.<agent>``.

======================  =====  ======================================================================================
Event                   Level  Says that
======================  =====  ======================================================================================
``agent_registered``    info   a host has made the agent known
``agent_deregistered``  info   a host has taken leave
``agent_activated``     info   a host has begun to serve it
``agent_deactivated``   info   a host has stopped serving it
``usage_reported``      info   a request has cost something; ``data`` is the `Usage`
``request_received``    debug  a request has arrived
``request_completed``   debug  it was answered; ``data`` has ``duration_ms``
``request_failed``      warn   it was not, or a publisher or a background task has failed; ``data`` has the ``code``
``validation_error``    warn   its payload is not what the agent accepts; ``data`` has the ``code``
======================  =====  ======================================================================================
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from xml_pipeline.mesh.log_levels import SEVERITIES
from xml_pipeline.mesh.subjects import tail_of

__all__ = ["LOGS", "LogEvent"]

LOGS = "mesh.logs."


def _now() -> str:
    return datetime.now(UTC).isoformat()


class LogEvent(BaseModel):
    """One event.

    Args:
        timestamp: when, in ISO 8601 with an offset.
        level: ``debug``, ``info``, ``warn`` or ``error``.
        agent: the agent.
        event: what; see the module.
        request_id: of the request; empty where it is about none.
        message: a sentence for whoever reads it.
        data: more, for programs.
    """

    timestamp: str = Field(default_factory=_now)
    level: str
    agent: str
    event: str
    request_id: str = ""
    message: str = ""
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def severity(self) -> int:
        """Of its level, as a number; 0 for a level that nobody knows."""
        return SEVERITIES.get(self.level, 0)

    def to_json(self) -> bytes:
        """The body as it is sent."""
        return self.__pydantic_serializer__.to_json(self)

    @classmethod
    def read(cls, subject: str, body: bytes) -> LogEvent | None:
        """What came; ``None`` if that is no event.

        Args:
            subject: where; it says which agent is meant, whatever the body does.
            body: anything.
        """
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or not _text(found.get("event")):
            return None
        data = found.get("data")
        texts = {name: _text(found.get(name)) for name in ("timestamp", "level", "event", "request_id", "message")}
        return cls(**texts, agent=tail_of(subject, LOGS), data=data if isinstance(data, dict) else {})


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
