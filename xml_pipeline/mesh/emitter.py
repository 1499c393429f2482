"""`Emitter`: an agent that nobody calls: a publisher, whose events anybody may subscribe to, or a background task."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import ConnectionLost, HandlerError, MeshError, for_peers
from xml_pipeline.mesh.feeds import Feeds
from xml_pipeline.mesh.protocol import Frame, FrameKind
from xml_pipeline.mesh.subjects import errors_subject, events_subject

if TYPE_CHECKING:
    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.agent_log import AgentLog
    from xml_pipeline.mesh.link import Link

__all__ = ["Emitter"]

_log = logging.getLogger(__name__)

_PATIENCE = 86_400.0
_FAREWELL = 2.0


class Emitter:
    """One publisher or background task, running.

    A publisher waits while there is no connection, and goes on with the event it had. When it ends, however that is,
    its subscribers are told.

    ::

        running --told to stop--> publishing what it has yielded --> ended
           |                  \\--> in a loop over what the mesh delivers: handling what it has --> ended
           |                   \\--> anything else: cancelled --> ended
           \\--ends, fails--> ended

    What it has in its hands is known if it is an event that it has yielded, or an entry or message that a loop of its
    own has taken (of `AgentMesh.subscribe`, or `KV.watch`): that is finished, and then it ends by itself. Otherwise it
    may be idle, or about to make an event; only its own code knows, and is told by a cancellation, at once. What it
    does about that, it may do until the deadline.

    Args:
        agent: which.
        link: the connection.
        instance_id: this host.
        log: of the agent.
    """

    def __init__(self, agent: Agent, link: Link, instance_id: str, log: AgentLog) -> None:
        self.agent = agent
        self.log = log
        self._link = link
        self._instance_id = instance_id
        self._sent = 0
        self._feeds = Feeds()
        self._stopping = False
        self._is_sending = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    def tell(self) -> None:
        """Tell it to stop. Safe twice."""
        if self._stopping or self._task is None:
            return
        self._stopping = True
        self._feeds.end()
        # What is ready by now comes first: e.g. the event that it was waiting for.
        asyncio.get_running_loop().call_soon(self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._task is not None and not self._feeds.were_ended and not self._is_sending:
            self._task.cancel()

    async def stop(self, timeout: float) -> None:
        """Tell it to stop, and let it finish what it has in its hands.

        Args:
            timeout: seconds for that; afterwards it is cancelled, again if need be.
        """
        self.tell()
        task = self._task
        if task is None:
            return
        await asyncio.wait([task], timeout=timeout)
        task.cancel()
        _, stubborn = await asyncio.wait([task], timeout=_FAREWELL)
        if stubborn:
            _log.warning("%s does not end when it is cancelled", self.agent.name)

    async def _run(self) -> None:
        self._feeds.adopt()
        error = await self._outcome()
        try:
            if error is not None:
                await self._tell(error)
            elif self.agent.handler.shape.streaming:
                await self._emit(FrameKind.END, b"")
        except MeshError as lost:
            _log.warning("the end of %s could not be told: %s", self.agent.name, lost)

    async def _outcome(self) -> MeshError | None:
        try:
            if self.agent.handler.shape.streaming:
                await self._publish()
            else:
                await self.agent.handler.function()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            while task is not None and task.cancelling():
                task.uncancel()  # it has still to say that this is the end
            if self._stopping:
                return None
            _log.error("%s raised CancelledError itself, or was cancelled by others", self.agent.name)
            return HandlerError("The agent was cancelled.")
        except KeyboardInterrupt:
            raise
        except MeshError as error:
            _log.warning("%s failed: %s", self.agent.name, error)
            return error
        except BaseException as error:  # also SystemExit: an agent must not end its host
            _log.exception("%s failed", self.agent.name, exc_info=error)
            return HandlerError()
        return None

    async def _publish(self) -> None:
        handler = self.agent.handler
        events = handler.function()
        try:
            async for event in events:
                self._is_sending = True
                await self._emit(FrameKind.CHUNK, handler.body_of(event))
                self._is_sending = False
                self._sent += 1
                if self._stopping and not self._feeds.were_ended:
                    return
        finally:
            await events.aclose()

    async def _emit(self, kind: FrameKind, body: bytes) -> None:
        headers = Frame(kind, self._sent, instance_id=self._instance_id).to_headers()
        while True:
            try:
                return await self._link.publish(events_subject(self.agent.name), body, headers=headers)
            except ConnectionLost:
                if self._stopping and kind is FrameKind.END:
                    raise
                await self._link.wait_up(_PATIENCE)

    async def _tell(self, error: MeshError) -> None:
        told = for_peers(error, agent=self.agent.name, request_id="")
        self.log.failed("", told)
        body = told.to_json()
        frame = Frame(FrameKind.ERROR, instance_id=self._instance_id).to_headers()
        if self.agent.handler.shape.streaming:
            await self._link.publish(events_subject(self.agent.name), body, headers=frame)
        headers = {name: value for name, value in frame.items() if name != "X-Mesh-Stream-End"}
        await self._link.publish(errors_subject(self.agent.name), body, headers=headers)
