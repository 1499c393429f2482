"""`Sink`: a listener whose messages leave the organism under a name with holes: as a key's value, or on a subject."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.bridge.failures import to_pump
from xml_pipeline.bridge.forms import json_of
from xml_pipeline.bridge.templates import Template
from xml_pipeline.bridge.waiting import UnderWay, until_connected
from xml_pipeline.errors import RoutingError, ValidationError
from xml_pipeline.mesh import MeshError
from xml_pipeline.mesh import headers as h
from xml_pipeline.message_bus.listener import Listener, make_listener
from xml_pipeline.message_bus.message_state import HandlerMetadata

if TYPE_CHECKING:
    from xml_pipeline.config.mesh import KVConfig, SubjectConfig
    from xml_pipeline.mesh import AgentMesh

__all__ = ["Send", "Sink", "publish", "put"]

Send = Callable[["AgentMesh", str, bytes, str], Awaitable[object]]
"""Sends a body to a key or subject; the last one is the name by which the organism knows its own."""

_JSON: Final = {h.CONTENT_TYPE: "application/json"}


class Sink:
    """One entry of ``mesh.kv`` with ``put``, or of ``mesh.subjects`` with ``publish``: a listener that answers nothing.

    Args:
        entry: what the configuration says, with its class and its timeout.
        template: the key or subject.
        send: `put` or `publish`.
        lending: what to enter while the server is waited for.
        origin: gives the name that is sent with each body.
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
        self._lending = lending
        self._origin = origin
        self._under_way = UnderWay()
        self._mesh: AgentMesh | None = None
        listener = make_listener(
            entry.listener,
            self._handle,
            entry.payload_class,
            description=entry.description or f"Sends to {template} on the mesh.",
            timeout=entry.timeout,
            trusted=True,
            attached=True,
        )
        self.listeners: Sequence[Listener] = (listener,)

    async def start(self, mesh: AgentMesh) -> None:
        """From now on it can be called."""
        self.open(mesh)

    def open(self, mesh: AgentMesh) -> None:
        """`start`, for whoever cannot wait."""
        self._mesh = mesh

    async def refresh(self) -> None:
        """Nothing of it depends on other listeners."""

    async def stop(self, timeout: float) -> None:
        """It brings nothing in; it can be called as long as there is a mesh."""

    async def _handle(self, payload: Any, metadata: HandlerMetadata) -> None:
        mesh = self._mesh
        if mesh is None:
            raise RoutingError("the mesh is not open", step="mesh", target=self._template.text)
        place, body = self._template.fill(payload), json_of(payload)
        try:
            with self._under_way, self._lending():
                await until_connected(mesh, metadata.deadline)
                await self._send(mesh, place, body, self._origin())
        except ValueError as error:
            raise ValidationError(str(error), step="mesh", target=place) from error
        except MeshError as error:
            raise to_pump(error, place) from error


async def put(mesh: AgentMesh, key: str, value: bytes, origin: str) -> None:
    """As the value of a key."""
    await mesh.kv.put(key, value, origin=origin)


async def publish(mesh: AgentMesh, subject: str, body: bytes, origin: str) -> None:
    """On a subject."""
    await mesh.publish(subject, body, {**_JSON, h.ORIGIN: origin})
