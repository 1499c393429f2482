"""`Answers`: what an agent sends to those who asked it: one answer or one error for each request.

Errors are copied to ``mesh.errors.<agent>``. A request that names no subject for its answer gets none, and one that was
answered gets nothing more.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import ConnectionLost, HandlerError, MeshError, PayloadTooLarge, for_peers
from xml_pipeline.mesh.protocol import Frame, FrameKind, Reply, ReplyKind
from xml_pipeline.mesh.subjects import answerable, errors_subject, stream_subject

if TYPE_CHECKING:
    from xml_pipeline.mesh.agent_log import AgentLog
    from xml_pipeline.mesh.job import Job
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.tally import Tally

__all__ = ["Answers"]

_log = logging.getLogger(__name__)

RESEND = 5.0
"""Seconds for which an answer outlives a lost connection, when its caller named no deadline."""


class Answers:
    """The answers of one agent.

    Args:
        name: of the agent.
        link: the connection.
        instance_id: this host.
        log: of the agent.
        tally: of the agent.
    """

    def __init__(self, name: str, link: Link, instance_id: str, log: AgentLog, tally: Tally) -> None:
        self._name = name
        self._link = link
        self._instance_id = instance_id
        self._log = log
        self._tally = tally

    def accept(self, job: Job) -> None:
        """Say that this host has the request, if its caller asked for that and was told nothing yet."""
        if job.request.accept and not job.answered and not job.is_over:
            headers = Reply(ReplyKind.ACCEPTED, job.request.request_id, instance_id=self._instance_id).to_headers()
            try:
                self._link.publish_now(job.request.accept, b"", headers=headers)
            except MeshError as error:
                _log.debug("accepting a request: %s", error)

    async def send(self, job: Job, body: bytes) -> None:
        """Send the answer; where the connection is lost at this moment, when it is back, if that is in time.

        Raises:
            MeshError: it could not be sent.
        """
        if inbox := answerable(job.message.reply):
            await self._publish(job, inbox, body, self._headers(job))
        job.answered = True

    def send_now(self, job: Job, body: bytes) -> bool:
        """`send` without waiting.

        Returns:
            Whether it was sent; if not, `send` may have to wait for what is missing, or says why it cannot be.
        """
        if self._link.is_congested:
            return False
        if inbox := answerable(job.message.reply):
            try:
                self._link.publish_now(inbox, body, headers=self._headers(job))
            except MeshError:
                return False
        job.answered = True
        return True

    def _headers(self, job: Job) -> dict[str, str]:
        usage = "" if job.usage is None else job.usage.to_header()
        return Reply(ReplyKind.ANSWER, job.request.request_id, self._name, self._instance_id, usage).to_headers()

    async def fail(self, job: Job, error: MeshError) -> None:
        """Tell of an error, unless an answer was sent, or another error. Never raises `MeshError`."""
        if job.answered:
            return
        job.answered = True
        told = for_peers(error, agent=self._name, request_id=job.request.request_id)
        self._log.failed(job.request.request_id, told)
        self._tally.failed(told)
        try:
            try:
                await self._tell(job, told)
            except PayloadTooLarge:
                short = for_peers(HandlerError(), agent=self._name, request_id=job.request.request_id)
                await self._tell(job, short)
        except MeshError as lost:
            _log.warning("a caller of %s could not be told of its error: %s", self._name, lost)

    async def _tell(self, job: Job, error: MeshError) -> None:
        request = job.request
        headers = Reply(ReplyKind.ERROR, request.request_id, instance_id=self._instance_id).to_headers()
        body = error.to_json()
        if request.streaming and request.can_stream:
            frame = Frame(FrameKind.ERROR, 0, request.request_id, self._instance_id)
            await self._publish(job, stream_subject(request.request_id), body, frame.to_headers())
        elif inbox := answerable(job.message.reply):
            await self._publish(job, inbox, body, headers)
        await self._link.publish(errors_subject(self._name), body, headers=headers)

    async def _publish(self, job: Job, subject: str, body: bytes, headers: dict[str, str]) -> None:
        loop = asyncio.get_running_loop()
        deadline = job.deadline if job.deadline is not None else loop.time() + RESEND
        while True:
            try:
                return await self._link.publish(subject, body, headers=headers)
            except ConnectionLost:
                await self._link.wait_up(max(0.0, deadline - loop.time()))
