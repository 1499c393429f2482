"""What an agent says about itself as a NATS micro service; ADR-32 of the NATS architecture is the specification.

An agent is a service, and its instances are the hosts that serve it. It has one endpoint, named after the verb it is
used with, ``call`` or ``stream``; an agent that takes no requests has none.

What the specification wants and agents do not have:

* The name of a service has no dots: they become ``_``, as in the names of tools. Two agents whose names differ in
  nothing else, ``a.b`` and ``a_b``, are instances of one service then; their subjects and metadata tell them apart.
* A version is one of Semantic Versioning: see `semantic_version`. The agent's own is in the metadata.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.subjects import agent_subject, events_subject, queue_group

if TYPE_CHECKING:
    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.service import Service

__all__ = ["MicroDocument", "semantic_version", "service_name"]

_TYPE = "io.nats.micro.v1.{}_response"
_PARTS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_NUMBER = r"(?:0|[1-9][0-9]*)"
_PRE_RELEASE_PART = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_PRE_RELEASE = rf"{_PRE_RELEASE_PART}(?:\.{_PRE_RELEASE_PART})*"
_SEMANTIC = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PRE_RELEASE})?(?:\+{_PARTS})?")
_NEARLY = re.compile(r"[vV]?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?(.*)", re.DOTALL)
_LONGEST_VERSION = 128


def service_name(agent: str) -> str:
    """The name of the service that an agent is."""
    return agent.replace(".", "_")


def semantic_version(version: str) -> str:
    """The version as Semantic Versioning has it.

    One that is such a version is left as it is. Of another one, the numbers it begins with are taken, 0 for those that
    are missing, and what follows becomes its build: ``1`` is ``1.0.0``, ``v2.1rc1`` is ``2.1.0+rc1``, ``latest`` is
    ``0.0.0+latest``.
    """
    version = version[:_LONGEST_VERSION]
    if _SEMANTIC.fullmatch(version):
        return version
    found = _NEARLY.fullmatch(version)
    *numbers, rest = found.groups() if found else (None, None, None, version)
    build = ".".join(part for part in re.split(r"[^0-9A-Za-z-]+", rest) if part)
    plain = ".".join((number or "").lstrip("0") or "0" for number in numbers)
    return f"{plain}+{build}" if build else plain


class MicroDocument:
    """The answers of one agent on this host.

    Args:
        agent: which.
        service: what takes its requests, and counts them; ``None`` for one that takes none.
        instance_id: this host, which is the instance of the service, too.
        started: when it began to be served, in UTC: ISO 8601 with milliseconds and ``Z``.
    """

    def __init__(self, agent: Agent, service: Service | None, instance_id: str, started: str) -> None:
        self._description = agent.contract.description
        self._service = service
        self._started = started
        shape = agent.handler.shape
        self._common = {
            "name": service_name(agent.name),
            "id": instance_id,
            "version": semantic_version(agent.spec.version),
            "metadata": self._metadata(agent),
        }
        self._endpoint: dict[str, Any] = {
            "name": "stream" if shape.streaming else "call",
            "subject": agent_subject(agent.name),
            "queue_group": queue_group(agent.name),
        }

    def _metadata(self, agent: Agent) -> dict[str, str]:
        """All values are texts, and none changes while the service is there."""
        shape = agent.handler.shape
        found = {
            "agent": agent.name,
            "version": agent.spec.version,
            "shape": shape.name.lower(),
            "tags": ",".join(agent.spec.tags),
            "contract": f"$KV.mesh-registry.{agent.name}",
        }
        if shape.streaming and not shape.invocable:
            found["events"] = events_subject(agent.name)
        return found

    @property
    def name(self) -> str:
        """Of the service."""
        return str(self._common["name"])

    def answer(self, verb: str) -> dict[str, Any] | None:
        """The answer to ``PING``, ``INFO`` or ``STATS``; ``None`` for another verb."""
        if verb == "PING":
            return {"type": _TYPE.format("ping"), **self._common}
        if verb == "INFO":
            endpoints = [{**self._endpoint, "metadata": self._common["metadata"]}]
            return {
                "type": _TYPE.format("info"),
                **self._common,
                "description": self._description,
                "endpoints": endpoints if self._service is not None else [],
            }
        if verb == "STATS":
            return {
                "type": _TYPE.format("stats"),
                **self._common,
                "started": self._started,
                "endpoints": [self._figures(self._service)] if self._service is not None else [],
            }
        return None

    def _figures(self, service: Service) -> dict[str, Any]:
        tally = service.tally
        return {
            **self._endpoint,
            "num_requests": tally.requests,
            "num_errors": tally.errors,
            "last_error": tally.last_error,
            "processing_time": tally.nanoseconds,
            "average_processing_time": tally.average,
            "data": {"running": service.running, "waiting": service.waiting},
        }
