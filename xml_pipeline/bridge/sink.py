"""`Sink`: a listener whose messages leave the organism under a name with holes: as a key's value, or on a subject.

Nobody knows of a value that the server has not confirmed in time whether it was stored. It is not sent again, for by
then the key may have been given another one; whoever sent it is told so, and decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.bridge.failures import to_pump
from xml_pipeline.bridge.forms import json_of
from xml_pipeline.bridge.outward import Outward
from xml_pipeline.bridge.templates import Template
from xml_pipeline.bridge.waiting import until_connected
from xml_pipeline.errors import ValidationError
from xml_pipeline.mesh import MeshError
from xml_pipeline.mesh import headers as h
from xml_pipeline.message_bus.listener import make_listener
from xml_pipeline.message_bus.message_state import HandlerMetadata

if TYPE_CHECKING:
    from xml_pipeline.config.mesh import KVConfig, SubjectConfig
    from xml_pipeline.mesh import AgentMesh

__all__ = ["Send", "Sink", "publish", "put"]

Send = Callable[["AgentMesh", str, bytes, str, float], Awaitable[object]]
"""Sends a body to a key or subject, under the name by which the organism knows its own, within so many seconds."""

_JSON: Final = {h.CONTENT_TYPE: "application/json"}
_MOMENT: Final = 0.1
"""Seconds before its end at which a handler gives up by itself, for it can say more than that it took too long."""
_SHARE: Final = 0.1
"""That moment, as a share of the time there is, at most."""


class Sink:
    """One entry of ``mesh.kv`` with ``put``, or of ``mesh.subjects`` with ``publish``: a listener that answers nothing.

    Args:
        entry: what the configuration says, with its class and its timeout.
        template: the key or subject.
        send: `put` or `publish`.
        lending: what to enter while the server is waited for.
        origin: gives the name that is sent with each body.

    Attributes:
        part: what the bridge has of it.
    """

    def __init__(
        self,
        entry: KVConfig | SubjectConfig,
        template: str,
        send: Send,
        lending: Callable[[], AbstractContextManager[None]],
        origin: Callable[[], str],
    ) -> None:
        assert isinstance(entry.payload_class, type) and entry.listener is not None and entry.timeout is not None
        self._template = Template(template)
        self._send = send
        self._kind = "key" if send is put else "subject"
        self._origin = origin
        self.part = Outward(template, lending)
        listener = make_listener(
            entry.listener,
            self._handle,
            entry.payload_class,
            description=entry.description or f"Sends to {template} on the mesh.",
            timeout=entry.timeout,
            trusted=True,
            attached=True,
        )
        self.part.listeners = (listener,)

    async def _handle(self, payload: Any, metadata: HandlerMetadata) -> None:
        mesh = self.part.mesh
        place, body = self._template.fill(payload), json_of(payload)
        loop = asyncio.get_running_loop()
        left = metadata.deadline - loop.time()
        deadline = metadata.deadline - min(_MOMENT, left * _SHARE)
        try:
            with self.part.under_way, self.part.lending():
                await until_connected(mesh, deadline)
                await self._send(mesh, place, body, self._origin(), max(0.0, deadline - loop.time()))
        except ValueError as error:
            raise ValidationError(str(error), step="mesh", target=place) from error
        except MeshError as error:
            raise to_pump(error, place, self._kind) from error


async def put(mesh: AgentMesh, key: str, value: bytes, origin: str, timeout: float) -> None:
    """As the value of a key."""
    await mesh.kv.put(key, value, origin=origin, timeout=timeout)


async def publish(mesh: AgentMesh, subject: str, body: bytes, origin: str, _: float) -> None:
    """On a subject, where nothing is confirmed."""
    await mesh.publish(subject, body, {**_JSON, h.ORIGIN: origin})
