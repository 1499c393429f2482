"""`Host`: the agents that this mesh object serves at the moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xml_pipeline.mesh.emitter import Emitter
from xml_pipeline.mesh.service import Service
from xml_pipeline.mesh.subjects import CANCELS, tail_of

if TYPE_CHECKING:
    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.replies import Replies

__all__ = ["Host"]

# What an emitter may take for the event it is at, however long the requests may take.
_LONGEST_EVENT = 1.0


class Host:
    """The agents served.

    Args:
        link: the connection.
        replies: where the server says that nobody listens to a stream.
        instance_id: this mesh object.
    """

    def __init__(self, link: Link, replies: Replies, instance_id: str) -> None:
        self._link = link
        self._replies = replies
        self._instance_id = instance_id
        self._services: dict[str, Service] = {}
        self._emitters: dict[str, Emitter] = {}
        self._cancels: Subscription | None = None

    @property
    def names(self) -> set[str]:
        """The agents that are served."""
        return self._services.keys() | self._emitters.keys()

    def service(self, name: str) -> Service | None:
        """The agent, if it is served here and takes requests."""
        return self._services.get(name)

    async def activate(self, agent: Agent) -> None:
        """Begin to serve an agent, in the place of an earlier one of its name.

        Raises:
            MeshError: there is no connection.
        """
        earlier = (self._services.get(agent.name), self._emitters.pop(agent.name, None))
        if agent.handler.shape.invocable:
            if self._cancels is None:
                self._cancels = await self._link.subscribe(CANCELS + "*", self._cancelled)
            service = Service(agent, self._link, self._replies, self._instance_id)
            await service.start()
            self._services[agent.name] = service
        else:
            self._services.pop(agent.name, None)
            emitter = Emitter(agent, self._link, self._instance_id)
            await emitter.start()
            self._emitters[agent.name] = emitter
        for one in earlier:
            if one is not None:
                await one.stop(_LONGEST_EVENT)

    async def deactivate(self, name: str, timeout: float) -> None:
        """Serve an agent no more.

        Args:
            name: of the agent; none of this name is served: nothing happens.
            timeout: seconds to finish what it has begun; see `Service.stop` and `Emitter.stop`.
        """
        emitter = self._emitters.pop(name, None)
        if emitter is not None:
            await emitter.stop(min(timeout, _LONGEST_EVENT))
        service = self._services.get(name)
        if service is not None:
            await service.stop(timeout)  # it can be told of cancellations as long as it has requests
            if self._services.get(name) is service:
                del self._services[name]

    async def drain(self, timeout: float) -> None:
        """Serve nobody any more: first the emitters end, then the requests that were taken.

        Args:
            timeout: seconds for all of it; what is left then is cancelled, and answered.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        await asyncio.gather(*(self.deactivate(name, timeout) for name in list(self._emitters)))
        left = max(0.0, deadline - loop.time())
        await asyncio.gather(*(self.deactivate(name, left) for name in list(self._services)))
        cancels, self._cancels = self._cancels, None
        if cancels is not None:
            await cancels.close()

    def _cancelled(self, message: Message) -> None:
        request_id = tail_of(message.subject, CANCELS)
        for service in self._services.values():
            service.cancel(request_id)
