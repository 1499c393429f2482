"""The way of chunks from a host to whoever asked for a stream: numbered frames, and one last word.

::

    sending --no credit left--> paused --credit--> sending
       |                          |--nobody listens any more, or nothing was taken for too long--> given up
       |--nobody listens any more--> given up
       \\--end, error--> over

There is no round trip per chunk. Whether anybody still listens is found out on the way: some of the frames name an
inbox for answers, which nobody uses but the server, to say that it had nobody to give the frame to.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING

from xml_pipeline.mesh.credit import Credit
from xml_pipeline.mesh.errors import AgentDied, CallCancelled, MeshError, MeshTimeout
from xml_pipeline.mesh.job import Lending, current_job
from xml_pipeline.mesh.protocol import Frame, FrameKind, Reply, ReplyKind
from xml_pipeline.mesh.subjects import credit_subject, stream_subject

if TYPE_CHECKING:
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.protocol import Request
    from xml_pipeline.mesh.replies import Expected, Replies

__all__ = ["Outflow"]

_PATIENCE = 300.0
_PROBE_FRAMES = 16
_PROBE_SECONDS = 0.25
_PROBE_PAUSED = 1.0


class Outflow:
    """One stream, as its host sees it; to send chunks, it must be entered.

    Args:
        link: the connection.
        replies: where the server says that nobody listens.
        request: what asks for it; its id must be one that can stand in a subject.
        instance_id: this host.
        patience: seconds without any progress of a consumer after which it is given up.
    """

    def __init__(
        self, link: Link, replies: Replies, request: Request, instance_id: str, patience: float = _PATIENCE
    ) -> None:
        self._link = link
        self._replies = replies
        self._request_id = request.request_id
        self._consumer = request.instance_id
        self._subject = stream_subject(request.request_id)
        self._instance_id = instance_id
        self._patience = patience
        self._credit = Credit(request.credit) if request.credit is not None else None
        self._credits: Subscription | None = None
        self._probe: Expected | None = None
        self._probed = (0, 0.0)  # the last frame with an inbox, and when that was
        self.sent = 0

    async def __aenter__(self) -> Outflow:
        self._probe = self._replies.expect(self._subject)
        self._probe.instance_id = self._consumer  # who may be said to be gone, too
        self._probed = (0, asyncio.get_running_loop().time())
        if self._credit is not None:
            self._probe.add_done_callback(self._credit.wake)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._probe is not None:
            self._probe.__exit__(None, None, None)
        credits, self._credits = self._credits, None
        if credits is not None:
            await credits.close()

    def _frame(self, kind: FrameKind, usage: str = "") -> dict[str, str]:
        return Frame(kind, self.sent, self._request_id, self._instance_id, usage).to_headers()

    async def send(self, chunk: bytes) -> None:
        """Send a chunk, which must not be empty; waits for credit, where the consumer gives it.

        Raises:
            CallCancelled: nobody listens any more.
            MeshTimeout: the consumer took nothing for too long.
            ConnectionLost: the connection is lost, and with it the stream.
            PayloadTooLarge: the server takes no messages of this size.
        """
        self._check()
        credit = self._credit
        if credit is not None:
            if self._credits is None and credit.is_awaited:
                self._credits = await self._link.subscribe(credit_subject(self._request_id), credit.arrived)
            if credit.is_used_up:
                await self._pause(credit)
        await self._link.publish(self._subject, chunk, self._inbox(), self._frame(FrameKind.CHUNK))
        self.sent += 1
        if credit is not None:
            credit.sent(len(chunk))

    def _inbox(self) -> str:
        """The inbox for this frame, if it is to have one."""
        frame, at = self._probed
        now = asyncio.get_running_loop().time()
        if self._probe is None or (self.sent - frame < _PROBE_FRAMES and now - at < _PROBE_SECONDS):
            return ""
        self._probed = (self.sent, now)
        return self._probe.inbox

    def _check(self) -> None:
        outcome = self._probe.outcome if self._probe is not None else None
        if outcome is None:
            return
        if isinstance(outcome, MeshError) and not isinstance(outcome, AgentDied):
            raise outcome
        if isinstance(outcome, AgentDied) or (
            Reply.read(outcome.headers, outcome.data).kind is ReplyKind.NO_RESPONDERS
        ):
            raise CallCancelled("Nobody listens to the stream any more.", request_id=self._request_id)

    async def _pause(self, credit: Credit) -> None:
        """Wait for credit. Meanwhile others may have the slot, or a few slow consumers would stop the agent."""
        loop = asyncio.get_running_loop()
        job = current_job()
        allowed, since = credit.allowed, loop.time()
        async with Lending(job) if job is not None else nullcontext():
            while credit.is_used_up:
                self._check()
                if credit.allowed > allowed:
                    allowed, since = credit.allowed, loop.time()
                left = since + self._patience - loop.time()
                if left <= 0:
                    text = f"The consumer of the stream took nothing for {self._patience:g} s."
                    raise MeshTimeout(message=text, timeout=self._patience, request_id=self._request_id)
                # Without a body it is no chunk, and everybody ignores it; the server answers where nobody is.
                inbox = self._probe.inbox if self._probe is not None else ""
                await self._link.publish(self._subject, b"", inbox, self._frame(FrameKind.CHUNK))
                await credit.wait(min(left, _PROBE_PAUSED))

    async def end(self, usage: str = "") -> None:
        """Say that this was all, and how many there were.

        Args:
            usage: compact JSON of what it cost, or empty.
        """
        await self._link.publish(self._subject, b"", headers=self._frame(FrameKind.END, usage))
