"""`SubjectPublished`: messages, published to a subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.bridge.failures import to_pump
from xml_pipeline.bridge.forms import json_of
from xml_pipeline.bridge.templates import Template
from xml_pipeline.bridge.waiting import until_connected
from xml_pipeline.errors import RoutingError, ValidationError
from xml_pipeline.mesh import MeshError
from xml_pipeline.mesh import headers as h
from xml_pipeline.message_bus.listener import Listener, make_listener
from xml_pipeline.message_bus.message_state import HandlerMetadata

if TYPE_CHECKING:
    from xml_pipeline.config.mesh import SubjectConfig
    from xml_pipeline.mesh import AgentMesh

__all__ = ["SubjectPublished"]

_JSON: Final = {h.CONTENT_TYPE: "application/json"}


class SubjectPublished:
    """One entry of ``mesh.subjects`` with ``publish``: a listener that answers nothing.

    Args:
        entry: what the configuration says, with its class.
        lending: what to enter while the server is waited for.
        origin: gives the name that is sent with each message, by which the organism knows its own.
    """

    def __init__(
        self, entry: SubjectConfig, lending: Callable[[], AbstractContextManager[None]], origin: Callable[[], str]
    ) -> None:
        assert isinstance(entry.payload_class, type) and entry.listener is not None
        self.entry = entry
        self._lending = lending
        self._origin = origin
        self._mesh: AgentMesh | None = None
        self._template = Template(entry.publish)
        listener = make_listener(
            entry.listener,
            self._handle,
            entry.payload_class,
            description=entry.description or f"Publishes to {entry.publish} on the mesh.",
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
            raise RoutingError("the mesh is not open", step="mesh", target=self.entry.publish)
        subject, body = self._template.fill(payload), json_of(payload)
        try:
            with self._lending():
                await until_connected(mesh, metadata.deadline)
                await mesh.publish(subject, body, {**_JSON, h.ORIGIN: self._origin()})
        except ValueError as error:
            raise ValidationError(str(error), step="mesh", target=subject) from error
        except MeshError as error:
            raise to_pump(error, subject) from error
