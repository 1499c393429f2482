"""`Listening`: following publishers and plain subjects, and publishing to plain subjects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.errors import MeshError, MeshTimeout, NotFound
from xml_pipeline.mesh.inbound import Inbound
from xml_pipeline.mesh.payload import encode
from xml_pipeline.mesh.protocol import Frame, FrameKind
from xml_pipeline.mesh.subjects import channel_subject, check_filter, check_subject, events_subject, new_id
from xml_pipeline.mesh.typed import ResultTypes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from xml_pipeline.mesh.directory import Directory
    from xml_pipeline.mesh.errors import ConnectionDenied
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.message import Message

__all__ = ["Listening"]


class Listening:
    """Follows and publishes.

    Args:
        link: the connection.
        directory: what is known of agents.
        instance_id: this mesh object.
    """

    def __init__(self, link: Link, directory: Directory, instance_id: str) -> None:
        self._link = link
        self._directory = directory
        self._instance_id = instance_id
        self._types = ResultTypes()

    async def subscribe(
        self, *, agent: str | None, channel: str | None, subject: str | None, timeout: float | None, result_type: Any
    ) -> AsyncGenerator[Any, None]:
        """Yield what comes; see `AgentMesh.subscribe`."""
        resolved = await self._resolve(agent, channel, subject)
        inbound = Inbound(resolved)

        def denied(what: str, error: ConnectionDenied) -> None:
            if what == resolved:
                inbound.fail(error)

        self._link.on_denied.append(denied)
        subscription = await self._link.subscribe(resolved, inbound.put)
        is_channel = agent is None and subject is None
        try:
            while True:
                message = await inbound.get(timeout)
                if message is None:
                    raise MeshTimeout(subject=resolved, timeout=timeout or 0.0, agent=agent or "")
                frame = Frame.read(message.headers, message.data)
                if is_channel and (frame.kind in (FrameKind.END, FrameKind.ERROR) or _is_request(message)):
                    continue  # one agent of many has ended, or is asked something
                if frame.kind is FrameKind.ERROR:
                    raise MeshError.from_wire(message.data, agent=agent or "")
                if message.data:
                    yield self._types.read(message.data, result_type, agent=message.subject, request_id="")
                if frame.kind is FrameKind.END:
                    return
        finally:
            self._link.on_denied.remove(denied)
            await subscription.close()

    async def _resolve(self, agent: str | None, channel: str | None, subject: str | None) -> str:
        if agent is not None and subject is not None:
            raise ValueError("'agent' and 'subject' are mutually exclusive")
        if subject is not None:
            return check_filter(subject)
        if agent is not None:
            try:
                resolved = events_subject(agent)
            except ValueError as error:
                raise NotFound(str(error), agent=str(agent)) from error
            self._directory.check("subscribe", agent)
            await self._directory.must_exist(agent)
            return resolved
        if channel is not None:
            return channel_subject(channel)
        raise ValueError("one of 'agent', 'channel' and 'subject' is needed")

    async def publish(self, subject: str, payload: Any, headers: dict[str, str] | None) -> None:
        """Publish; see `AgentMesh.publish`."""
        check_subject(subject)
        if isinstance(payload, bytes):
            kind, body = "application/octet-stream", payload
        elif isinstance(payload, str):
            kind, body = "text/plain", payload.encode()
        elif isinstance(payload, BaseModel):
            kind, body = "application/json", encode(payload)
        else:
            raise TypeError(f"a model, bytes or a str can be published, not {type(payload).__name__}")
        found = {h.REQUEST_ID: new_id(), h.CONTENT_TYPE: kind, h.INSTANCE_ID: self._instance_id}
        await self._link.publish(subject, body, headers={**found, **(headers or {})})


def _is_request(message: Message) -> bool:
    """Whether this is somebody's request to an agent of the channel, and no event."""
    headers = message.headers or {}
    return (
        h.STREAM_END not in headers and h.CONTENT_TYPE not in headers and bool(message.reply or h.REQUEST_ID in headers)
    )
