"""`Listening`: following publishers and plain subjects, and publishing to plain subjects."""

from __future__ import annotations

import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.errors import MeshError, NotFound
from xml_pipeline.mesh.event_feed import EventFeed
from xml_pipeline.mesh.payload import encode
from xml_pipeline.mesh.protocol import FrameKind
from xml_pipeline.mesh.seconds import check_seconds
from xml_pipeline.mesh.subjects import channel_subject, check_filter, check_subject, events_subject, new_id
from xml_pipeline.mesh.typed import ResultTypes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from xml_pipeline.mesh.directory import Directory
    from xml_pipeline.mesh.gap import Gap
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.permits import Permits
    from xml_pipeline.mesh.watches import Watches

__all__ = ["Listening"]


class Listening:
    """Follows and publishes.

    Args:
        link: the connection.
        permits: what may be published.
        directory: what is known of agents.
        watches: where loops are entered.
        instance_id: this mesh object.
    """

    def __init__(self, link: Link, permits: Permits, directory: Directory, watches: Watches, instance_id: str) -> None:
        self._link = link
        self._permits = permits
        self._directory = directory
        self._watches = watches
        self._instance_id = instance_id
        self._types = ResultTypes()

    async def subscribe(
        self,
        *,
        agent: str | None,
        channel: str | None,
        subject: str | None,
        timeout: float | None,
        result_type: Any,
        on_gap: Callable[[Gap], Any] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Yield what comes; see `AgentMesh.subscribe`."""
        if inspect.iscoroutinefunction(on_gap):
            raise TypeError("on_gap must be a plain function: it is called where nothing can be awaited")
        if timeout is not None:
            timeout = check_seconds(timeout)
        resolved = await self._resolve(agent, channel, subject)
        is_channel = agent is None and subject is None
        feed = EventFeed(self._link, resolved, agent or "", timeout, on_gap)
        async with aclosing(self._watches.follow(feed)) as messages:
            async for message, frame in messages:
                if is_channel and (frame.kind in (FrameKind.END, FrameKind.ERROR) or _is_request(message)):
                    continue  # one agent of many has ended, or is asked something
                if frame.kind is FrameKind.ERROR:
                    raise MeshError.from_wire(message.data, agent=agent or "")
                if message.data:
                    yield self._types.read(message.data, result_type, agent=message.subject, request_id="")
                if frame.kind is FrameKind.END:
                    return

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
        for name, value in (headers or {}).items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise TypeError(f"a header and its value are str, not {name!r}: {value!r}")
        if isinstance(payload, bytes):
            kind, body = "application/octet-stream", payload
        elif isinstance(payload, str):
            kind, body = "text/plain", payload.encode()
        elif isinstance(payload, BaseModel):
            kind, body = "application/json", encode(payload)
        else:
            raise TypeError(f"a model, bytes or a str can be published, not {type(payload).__name__}")
        found = {h.REQUEST_ID: new_id(), h.CONTENT_TYPE: kind, h.INSTANCE_ID: self._instance_id}
        await self._permits.publish(subject, body, headers={**found, **(headers or {})})


def _is_request(message: Message) -> bool:
    """Whether this is somebody's request to an agent of the channel, and no event."""
    headers = message.headers or {}
    return (
        h.STREAM_END not in headers and h.CONTENT_TYPE not in headers and bool(message.reply or h.REQUEST_ID in headers)
    )
