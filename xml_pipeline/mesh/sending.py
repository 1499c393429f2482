"""`Sending`: requests whose sender does not wait: nobody wants the answer, or a callback or another subject gets it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.errors import MeshError, MeshTimeout
from xml_pipeline.mesh.inbound import Inbound
from xml_pipeline.mesh.payload import encode
from xml_pipeline.mesh.protocol import Reply, ReplyKind, Request
from xml_pipeline.mesh.seconds import check_seconds
from xml_pipeline.mesh.subjects import check_filter, new_id, results_subject
from xml_pipeline.mesh.typed import ResultTypes
from xml_pipeline.mesh.usage import collect

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.mesh.client import Client
    from xml_pipeline.mesh.directory import Directory
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.permits import Permits
    from xml_pipeline.mesh.replies import Expected, Replies

__all__ = ["Sending"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A reply that a callback is to get, and what is to be undone when it is there."""

    closing: AsyncExitStack
    subject: str
    inbound: Inbound
    name: str
    request_id: str
    timeout: float


class Sending:
    """Sends requests without waiting for their answers.

    Args:
        link: the connection.
        permits: what may be published.
        replies: where hosts say that they have a request.
        client: knows where requests go.
        directory: what is known of agents.
        instance_id: this mesh object.
    """

    def __init__(
        self,
        link: Link,
        permits: Permits,
        replies: Replies,
        client: Client,
        directory: Directory,
        instance_id: str,
    ) -> None:
        self._link = link
        self._permits = permits
        self._replies = replies
        self._client = client
        self._directory = directory
        self._instance_id = instance_id
        self._types = ResultTypes()
        self._waiting: set[asyncio.Task[None]] = set()

    async def send(
        self,
        name: str,
        payload: Any,
        *,
        on_reply: Callable[[Any], Any] | None,
        on_error: Callable[[MeshError], Any] | None,
        reply_to: str | None,
        timeout: float,
    ) -> None:
        """Send a request; see `AgentMesh.send`."""
        if on_reply is not None and reply_to is not None:
            raise ValueError("'on_reply' and 'reply_to' are mutually exclusive")
        timeout = check_seconds(timeout)
        subject = self._client.subject_of(name)
        self._directory.check("send", name)
        body = encode(payload)
        request_id = new_id()
        if on_reply is not None:
            waiting = await self._ask(name, subject, body, request_id, timeout)
            task = asyncio.create_task(self._tell(waiting, on_reply, on_error))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
            return
        target = check_filter(reply_to) if reply_to else ""
        request = Request(request_id, reply_to=target, instance_id=self._instance_id)
        await self._permits.publish(subject, body, target, request.to_headers())

    async def _ask(self, name: str, subject: str, body: bytes, request_id: str, timeout: float) -> _Waiting:
        """Send a request whose reply is waited for."""
        reply = results_subject(request_id)
        inbound = Inbound(f"the reply of {name}")
        async with AsyncExitStack() as stack:
            expected = stack.enter_context(self._replies.expect(subject, name))
            expected.add_done_callback(lambda: _give_up(inbound, expected, request_id))
            # Before the request: its answer may be quick.
            subscription = await self._link.subscribe(reply, inbound.put, on_denied=inbound.fail)
            stack.push_async_callback(subscription.close)
            request = Request(request_id, instance_id=self._instance_id, deadline=timeout, accept=expected.inbox)
            await self._permits.publish(subject, body, reply, request.to_headers())
            return _Waiting(stack.pop_all(), reply, inbound, name, request_id, timeout)

    async def close(self) -> None:
        """Wait for no reply any more."""
        for task in list(self._waiting):
            task.cancel()
        if self._waiting:
            await asyncio.wait(self._waiting)

    async def _tell(
        self, waiting: _Waiting, on_reply: Callable[[Any], Any], on_error: Callable[[MeshError], Any] | None
    ) -> None:
        try:
            try:
                value = await self._one_reply(waiting)
            except MeshError as error:
                if on_error is None:
                    _log.warning("the reply of %s to send(): [%s] %s", waiting.name, error.code, error)
                    return
                told = on_error(error)
            else:
                told = on_reply(value)
            if inspect.isawaitable(told):
                await told
        except Exception:
            _log.exception("a callback of send() to %s failed", waiting.name)

    async def _one_reply(self, waiting: _Waiting) -> Any:
        name, request_id = waiting.name, waiting.request_id
        try:
            message = await waiting.inbound.get(waiting.timeout)
        finally:
            await waiting.closing.aclose()
        if message is None:
            raise MeshTimeout(subject=waiting.subject, timeout=waiting.timeout, agent=name, request_id=request_id)
        reply = Reply.read(message.headers, message.data)
        if reply.kind is ReplyKind.NO_RESPONDERS:
            raise self._directory.absent(name, request_id)
        if reply.kind is ReplyKind.ERROR:
            raise MeshError.from_wire(message.data, agent=name, request_id=request_id)
        if reply.usage:
            collect(reply.usage)
        return self._types.read(message.data, None, agent=name, request_id=request_id)


def _give_up(inbound: Inbound, expected: Expected, request_id: str) -> None:
    """What comes to the inbox of a host that has the request is no reply; but why there will be none is heard there."""
    outcome = expected.outcome
    if isinstance(outcome, MeshError):
        outcome.request_id = request_id
        inbound.fail(outcome)
