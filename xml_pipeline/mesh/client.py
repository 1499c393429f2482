"""`Client`: asking agents: one answer, a stream of chunks, or a request whose answer goes elsewhere."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.credit import WINDOW, Window
from xml_pipeline.mesh.errors import AgentDied, ConnectionLost, MeshError, NotAvailable, NotFound
from xml_pipeline.mesh.inbound import Inbound
from xml_pipeline.mesh.inflow import Inflow
from xml_pipeline.mesh.job import Lending, current_job
from xml_pipeline.mesh.payload import encode
from xml_pipeline.mesh.protocol import Reply, ReplyKind, Request
from xml_pipeline.mesh.seconds import check_seconds
from xml_pipeline.mesh.subjects import agent_subject, cancel_subject, new_id, stream_subject
from xml_pipeline.mesh.typed import ResultTypes
from xml_pipeline.mesh.usage import collect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from xml_pipeline.mesh.directory import Directory
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.replies import Expected, Replies

__all__ = ["Client"]

_log = logging.getLogger(__name__)

_AGAIN = 0.1  # seconds until a request is made again where nobody serves the agent
_RAW: Any = object()  # the result is the body itself


class _Asked(NamedTuple):
    """A stream that was asked for."""

    request_id: str
    inflow: Inflow
    inbound: Inbound
    expected: Expected

    @property
    def is_heard(self) -> bool:
        """Whether somebody may have heard of it."""
        outcome = self.expected.outcome
        if outcome is None or isinstance(outcome, MeshError):
            return True
        return Reply.read(outcome.headers, outcome.data).kind is not ReplyKind.NO_RESPONDERS


class Client:
    """Asks agents.

    Args:
        link: the connection.
        replies: where answers come.
        directory: what is known of agents.
        instance_id: this mesh object.
    """

    def __init__(self, link: Link, replies: Replies, directory: Directory, instance_id: str) -> None:
        self._link = link
        self._replies = replies
        self._directory = directory
        self._instance_id = instance_id
        self._types = ResultTypes()

    def subject_of(self, name: str) -> str:
        """Where requests to an agent go.

        Raises:
            NotFound: no agent can have this name.
        """
        try:
            return agent_subject(name)
        except ValueError as error:
            raise NotFound(str(error), agent=str(name)) from error

    # -- one answer

    async def call(
        self, name: str, payload: Any, timeout: float, *, result_type: Any = None, idempotent: bool = False
    ) -> Any:
        """Ask an agent, and wait for its answer; see `AgentMesh.call`."""
        subject = self.subject_of(name)
        self._directory.check("call", name)
        body = encode(payload)
        return await self._call(name, subject, body, timeout, result_type, idempotent)

    async def ask(
        self,
        name: str,
        write: Callable[[], bytes],
        timeout: float,
        *,
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
    ) -> bytes:
        """`call` for those who write and read the bodies themselves.

        Args:
            name: of the agent.
            write: gives the body; called for each attempt.
            timeout: in seconds.
            headers: further ones.
            idempotent: as for `call`.
        """
        subject = self.subject_of(name)
        self._directory.check("call", name)
        answer: bytes = await self._call(name, subject, write, timeout, _RAW, idempotent, headers)
        return answer

    async def _call(
        self,
        name: str,
        subject: str,
        body: bytes | Callable[[], bytes],
        timeout: float,
        result_type: Any,
        idempotent: bool,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        deadline = asyncio.get_running_loop().time() + check_seconds(timeout)
        job = current_job()
        if job is None:
            return await self._call_until(name, subject, body, deadline, result_type, idempotent, headers)
        if job.deadline is not None:
            deadline = min(deadline, job.deadline)
        async with Lending(job):
            return await self._call_until(name, subject, body, deadline, result_type, idempotent, headers)

    async def _call_until(
        self,
        name: str,
        subject: str,
        body: bytes | Callable[[], bytes],
        deadline: float,
        result_type: Any,
        idempotent: bool,
        headers: Mapping[str, str] | None,
    ) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            left = deadline - loop.time()
            try:
                written = body if isinstance(body, bytes) else body()
                request_id, message = await self._ask_once(name, subject, written, left, headers)
                reply = Reply.read(message.headers, message.data)
                if reply.kind is ReplyKind.NO_RESPONDERS and self._may_come_back(name, deadline):
                    await asyncio.sleep(_AGAIN)  # nobody has heard it, so that it is not made twice
                    continue
                return self._result(reply, message, name, request_id, result_type)
            except (ConnectionLost, NotAvailable, AgentDied, NotFound) as error:
                if not idempotent or deadline - loop.time() < _AGAIN:
                    raise
                if isinstance(error, NotFound) and not self._directory.may_return(name):
                    raise
                await self._until_worth_trying(deadline)

    async def _until_worth_trying(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        if self._link.is_up:
            await asyncio.sleep(_AGAIN)
        else:
            await self._link.wait_up(deadline - loop.time())

    def _may_come_back(self, name: str, deadline: float) -> bool:
        """Whether the server was away until a moment ago, and nobody takes requests yet for an agent that was there."""
        is_known = isinstance(self._directory.absent(name), NotAvailable)
        return self._link.is_fresh and is_known and deadline - asyncio.get_running_loop().time() >= _AGAIN

    async def _ask_once(
        self, name: str, subject: str, body: bytes, timeout: float, headers: Mapping[str, str] | None
    ) -> tuple[str, Message]:
        """One attempt; its request's id, and what came."""
        request_id = new_id()
        with self._replies.expect(subject, name) as expected:
            request = Request(request_id, instance_id=self._instance_id, deadline=timeout, accept=expected.inbox)
            try:
                expected.begin(timeout)
                await self._link.publish(subject, body, expected.inbox, _with(headers, request), timeout=timeout)
                return request_id, await expected.wait()
            except asyncio.CancelledError:
                self._cancel(request_id)
                raise
            except MeshError as error:
                error.agent, error.request_id = name, request_id
                raise

    def _result(self, reply: Reply, message: Message, name: str, request_id: str, result_type: Any) -> Any:
        """What an answer says.

        Raises:
            MeshError: it is an error, or cannot be read.
        """
        if reply.kind is ReplyKind.ANSWER:
            if reply.usage:
                collect(reply.usage)
            if result_type is _RAW:
                return message.data
            return self._types.read(message.data, result_type, agent=name, request_id=request_id)
        raise self._refusal(reply, message, name, request_id)

    def _refusal(self, reply: Reply, message: Message, name: str, request_id: str) -> MeshError:
        if reply.kind is ReplyKind.NO_RESPONDERS:
            return self._directory.absent(name, request_id)
        return MeshError.from_wire(message.data, agent=name, request_id=request_id)

    def _cancel(self, request_id: str) -> None:
        """Tell the host that nobody waits any more; plain peers do not hear it."""
        try:
            self._link.publish_now(cancel_subject(request_id), b"")
        except MeshError as error:
            _log.debug("cancelling %s: %s", request_id, error)

    # -- a stream of chunks

    def ask_stream(
        self, name: str, body: bytes, timeout: float, *, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """`stream` for those who write and read the bodies themselves.

        Args:
            name: of the agent.
            body: of the request.
            timeout: as for `stream`.
            headers: further ones.
        """
        return self.stream(name, body, timeout, result_type=_RAW, headers=headers)

    async def stream(
        self,
        name: str,
        payload: Any,
        timeout: float,
        *,
        result_type: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Ask an agent, and yield its chunks; see `AgentMesh.stream`."""
        subject = self.subject_of(name)
        self._directory.check("stream", name)
        body = encode(payload)
        timeout = check_seconds(timeout)
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            has_begun = False
            async with self._asked(name, subject, body, timeout, headers) as asked:
                try:
                    while (chunk := await self._next(asked.inflow, asked.inbound)) is not None:
                        has_begun = True
                        if result_type is _RAW:
                            yield chunk
                        else:
                            yield self._types.read(chunk, result_type, agent=name, request_id=asked.request_id)
                    return
                except (NotAvailable, NotFound):
                    if has_begun or asked.is_heard or not self._may_come_back(name, deadline):
                        raise
            await asyncio.sleep(_AGAIN)

    @asynccontextmanager
    async def _asked(
        self, name: str, subject: str, body: bytes, timeout: float, headers: Mapping[str, str] | None
    ) -> AsyncIterator[_Asked]:
        """One attempt to have a stream, which is over when this is left."""
        request_id = new_id()
        inbound = Inbound(f"the stream of {name}")
        inflow = Inflow(name, request_id, inbound, timeout, Window(self._link, request_id))
        with self._replies.expect(subject, name) as expected:
            expected.add_done_callback(lambda: self._stop_stream(inbound, expected, name, request_id))

            def arrived(message: Message) -> None:
                if not expected.instance_id and message.headers:  # a plain host never says that it has the request
                    expected.instance_id = message.headers.get(h.INSTANCE_ID, "")
                inbound.put(message)

            def denied(error: MeshError) -> None:
                error.agent, error.request_id = name, request_id
                inbound.fail(error)

            subscription = await self._link.subscribe(stream_subject(request_id), arrived, on_denied=denied)
            request = Request(request_id, True, instance_id=self._instance_id, accept=expected.inbox, credit=WINDOW)
            try:
                await self._link.publish(subject, body, expected.inbox, _with(headers, request), timeout=timeout)
                yield _Asked(request_id, inflow, inbound, expected)
            finally:
                if not inflow.is_over:
                    self._cancel(request_id)
                await subscription.close()

    async def _next(self, inflow: Inflow, inbound: Inbound) -> bytes | None:
        """The next chunk; a handler that has to wait for it lends its slot, as one that waits for an answer."""
        job = current_job()
        if job is None or len(inbound):
            return await inflow.next()
        async with Lending(job):
            return await inflow.next()

    def _stop_stream(self, inbound: Inbound, expected: Expected, name: str, request_id: str) -> None:
        """What comes to the reply inbox of a stream is never a chunk: it says why there will be none."""
        outcome = expected.outcome
        if isinstance(outcome, MeshError):
            outcome.request_id = request_id
            inbound.fail(outcome)
        elif outcome is not None:
            reply = Reply.read(outcome.headers, outcome.data)
            if reply.kind in (ReplyKind.NO_RESPONDERS, ReplyKind.ERROR):
                inbound.fail(self._refusal(reply, outcome, name, request_id))


def _with(headers: Mapping[str, str] | None, request: Request) -> dict[str, str]:
    own = request.to_headers()
    return own if headers is None else {**headers, **own}
