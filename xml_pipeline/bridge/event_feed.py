"""`EventFeed`: the pump's events on the mesh, for dashboards that have nothing but a connection.

Each event is one JSON object on ``mesh.pump.<organism>.events``::

    {"event": "MessageReceivedEvent", "organism": "shop", "instance_id": "...", "seq": 17, "time": 1763733000.1,
     "conversation_id": "...", "thread_id": "...", "from_id": "external", "to_id": "clerk", "payload_type": "Order",
     "payload": "<Order>...</Order>"}

with the fields of the event's class. What failed is besides a log event of its listener, ``message_failed`` of level
``warn``, on ``mesh.logs.<organism>.<listener>``; its level is set like that of every agent. What did not reach a
listener, as there is none of that name, it may not be reached or does not take it, is one of the organism.

Nobody waits for this: what cannot be sent at the moment is dropped, and a gap in ``seq`` says how much was.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from lxml import etree

from third_party.xmlable import XError, codec_of
from xml_pipeline.mesh import MeshError
from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.subjects import is_agent_name
from xml_pipeline.message_bus.events import EventHub, OutcomeEvent, PumpEvent, SealedPayload

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["EventFeed", "event_facts", "events_of"]

logger = logging.getLogger(__name__)

_SUBJECTS: Final = "mesh.pump."
_FAILED: Final = frozenset({"failed", "dead-lettered", "expired"})
_LONGEST: Final = 262_144
"""Bytes of one event; a larger payload is left out."""
_MOST_LOGS: Final = 1_000
"""Listeners that have a log of their own; each is kept as long as there is a mesh."""


def segment_of(name: str) -> str:
    """A name as one or more segments of a subject: what cannot stand there becomes ``-``."""
    return ".".join(re.sub(r"[^A-Za-z0-9_-]", "-", part) or "-" for part in name.split("."))


def events_of(organism: str) -> str:
    """The subject of an organism's events; of all of them, for ``*``."""
    return f"{_SUBJECTS}{'>' if organism == '*' else segment_of(organism) + '.events'}"


class EventFeed:
    """The events of one pump.

    Args:
        hub: where they are.
        organism: whose they are.
        origin: gives the name that is sent with each, by which the organism knows its own.
    """

    listeners: Sequence[Listener] = ()

    def __init__(self, hub: EventHub, organism: str, origin: Callable[[], str]) -> None:
        self._hub = hub
        self._organism = organism
        self._origin = origin
        self._sending: asyncio.Task[None] | None = None
        self._logs: set[str] = set()

    async def start(self, mesh: AgentMesh) -> None:
        """Begin."""
        await mesh.parts.journal.open()  # nobody else does, where nothing is exposed
        self._sending = asyncio.create_task(self._send(mesh))

    async def refresh(self) -> None:
        """Nothing of it depends on listeners."""

    async def stop(self, timeout: float) -> None:
        """End it."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, mesh: AgentMesh) -> None:
        subject = events_of(self._organism)
        headers = {h.INSTANCE_ID: mesh.instance_id, h.ORIGIN: self._origin(), h.CONTENT_TYPE: "application/json"}
        about = {"organism": self._organism, "instance_id": mesh.instance_id}
        async with aclosing(self._hub.events()) as events:
            async for event in events:
                try:
                    # Where the server takes nothing, what comes meanwhile waits at the hub, which drops the oldest.
                    await mesh.parts.link.publish(subject, _body(event, about), headers=headers)
                    if isinstance(event, OutcomeEvent) and event.outcome in _FAILED:
                        self._log(mesh, event)
                except MeshError as error:
                    logger.debug("an event was dropped: %s", error)
                except Exception:  # whatever is in it: those behind it are sent
                    logger.exception("an event could not be sent")

    def _log(self, mesh: AgentMesh, event: OutcomeEvent) -> None:
        data = {
            "code": event.code,
            "thread_id": event.thread_id,
            "dead_letter_id": event.dead_letter_id,
            "listener": event.to_id,
        }
        text = f"A message from {event.from_id} ended as {event.outcome}"
        log = mesh.parts.journal.log(self._log_name(event))
        log.noted("warn", "message_failed", text, event.message_id, data)

    def _log_name(self, event: OutcomeEvent) -> str:
        """Whose log it is: the listener's, or the organism's for a name that a handler may have made up."""
        name = segment_of(f"{self._organism}.{event.to_id}")
        if name in self._logs:
            return name
        if not event.to_id or event.code == "routing" or not is_agent_name(name) or len(self._logs) >= _MOST_LOGS:
            return segment_of(self._organism)
        self._logs.add(name)
        return name


def event_facts(event: PumpEvent) -> dict[str, Any]:
    """An event in terms of JSON; a payload is its XML text."""
    facts: dict[str, Any] = {"event": type(event).__name__}
    for field in dataclasses.fields(event):
        facts[field.name] = _payload(event) if field.name == "payload" else getattr(event, field.name)
    return facts


def _payload(event: Any) -> str | None:
    payload = event._payload if hasattr(event, "_payload") else event.payload
    try:
        if isinstance(payload, SealedPayload):
            return payload.data.decode()
        if isinstance(payload, etree._Element):
            return etree.tostring(payload, encoding="unicode", with_tail=False)
        return codec_of(type(payload)).encode(payload)
    except XError:
        return None


def _body(event: PumpEvent, about: dict[str, str]) -> bytes:
    facts = {**event_facts(event), **about}
    body = _json(facts)
    return _json({**facts, "payload": None}) if len(body) > _LONGEST and "payload" in facts else body


def _json(facts: dict[str, Any]) -> bytes:
    try:
        return json.dumps(facts, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:  # a name that a handler made up may hold half a character
        return json.dumps(facts, default=str).encode()
