"""`AgentLog`: the log events of one agent of this host.

They are for whoever happens to look. So nothing here waits or raises: an event is dropped while there is no connection,
and one that comes with every request also while too much waits to be written.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.errors import InvalidInput, MeshError
from xml_pipeline.mesh.log_events import LogEvent
from xml_pipeline.mesh.log_levels import DEBUG, SEVERITIES
from xml_pipeline.mesh.payload import json_safe
from xml_pipeline.mesh.subjects import logs_subject

if TYPE_CHECKING:
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.log_levels import LogLevel
    from xml_pipeline.mesh.usage import Usage

__all__ = ["AgentLog"]

_log = logging.getLogger(__name__)


class AgentLog:
    """The log of one agent.

    Args:
        link: the connection.
        agent: its name.
        instance_id: this host.
        level: what is sent at least.

    Attributes:
        is_debug: whether events are sent that come with every request. Who has such an event looks here first, for most
            of the time it is not wanted, and making it costs something.
    """

    __slots__ = ("_agent", "_headers", "_link", "_subject", "_threshold", "is_debug")

    def __init__(self, link: Link, agent: str, instance_id: str, level: LogLevel) -> None:
        self._link = link
        self._agent = agent
        self._subject = logs_subject(agent)
        self._headers = {h.INSTANCE_ID: instance_id}
        self.set_level(level)

    def set_level(self, level: LogLevel) -> None:
        """Send events of this level and above from now on."""
        self._threshold = SEVERITIES[level]
        self.is_debug = self._threshold <= DEBUG

    # -- the agent

    def registered(self) -> None:
        """It was made known."""
        self._write("info", "agent_registered", "Agent registered")

    def deregistered(self) -> None:
        """It was taken leave of."""
        self._write("info", "agent_deregistered", "Agent deregistered")

    def activated(self) -> None:
        """It is served."""
        self._write("info", "agent_activated", "Agent activated")

    def deactivated(self) -> None:
        """It is served no more."""
        self._write("info", "agent_deactivated", "Agent deactivated")

    # -- its requests

    def received(self, request_id: str) -> None:
        """A request arrived."""
        self._write("debug", "request_received", "Request received", request_id)

    def completed(self, request_id: str, seconds: float) -> None:
        """A request was answered, so many seconds after it arrived."""
        milliseconds = int(seconds * 1000)
        message = f"Request completed in {milliseconds}ms"
        self._write("debug", "request_completed", message, request_id, {"duration_ms": milliseconds})

    def used(self, request_id: str, usage: Usage) -> None:
        """A request cost something."""
        self._write("info", "usage_reported", "Usage reported", request_id, usage.to_dict())

    def failed(self, request_id: str, error: MeshError) -> None:
        """A request was refused, or the agent failed; the error is as others are told of it."""
        event = "validation_error" if error.code == InvalidInput.default_code else "request_failed"
        self._write("warn", event, error.message, request_id, {"code": error.code})

    def noted(
        self, level: LogLevel, event: str, message: str, request_id: str = "", data: dict[str, Any] | None = None
    ) -> None:
        """Something else happened that is worth a line.

        Args:
            level: how much it matters.
            event: what it is called.
            message: a sentence.
            request_id: the request concerned, if one is.
            data: more, for programs.
        """
        self._write(level, event, message, request_id, data)

    def _write(
        self, level: LogLevel, event: str, message: str, request_id: str = "", data: dict[str, Any] | None = None
    ) -> None:
        severity = SEVERITIES[level]
        if severity < self._threshold or (severity <= DEBUG and self._link.is_congested):
            return
        said = LogEvent(
            level=level,
            agent=self._agent,
            event=event,
            request_id=json_safe(request_id),
            message=json_safe(message),
            data=json_safe(data or {}),
        )
        try:
            self._link.publish_now(self._subject, said.to_json(), headers=self._headers)
        except MeshError as error:
            _log.debug("a log event of %s was dropped: %s", self._agent, error)
