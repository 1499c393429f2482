"""`Host`: the agents that this mesh object serves at the moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xml_pipeline.mesh.emitter import Emitter
from xml_pipeline.mesh.micro import Micro
from xml_pipeline.mesh.service import Service
from xml_pipeline.mesh.subjects import CANCELS, tail_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.journal import Journal
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.reactions import Reactions
    from xml_pipeline.mesh.replies import Replies

__all__ = ["Host"]

# What an agent may take for what it is at when another one of its name takes its place.
_LONGEST_EVENT = 1.0
# The same for requests, which have deadlines of their own, and callers that wait for them.
_LONGEST_REQUEST = 3600.0


class Host:
    """The agents served.

    Args:
        link: the connection.
        replies: where the server says that nobody listens to a stream.
        instance_id: this mesh object.
        journal: what is said about them.
        reactions: their sources.
    """

    def __init__(self, link: Link, replies: Replies, instance_id: str, journal: Journal, reactions: Reactions) -> None:
        self._link = link
        self._replies = replies
        self._instance_id = instance_id
        self._journal = journal
        self._reactions = reactions
        self._micro = Micro(link, instance_id)
        self._services: dict[str, Service] = {}
        self._leaving: dict[Service, None] = {}  # out of their groups, and with requests that they have still
        self._emitters: dict[str, Emitter] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._cancels: Subscription | None = None

    @property
    def names(self) -> set[str]:
        """The agents that are served."""
        return self._services.keys() | self._emitters.keys() | self._reactions.names

    def service(self, name: str) -> Service | None:
        """The agent, if it is served here and takes requests, or has still some."""
        leaving = (service for service in reversed(self._leaving) if service.agent.name == name)
        return self._services.get(name) or next(leaving, None)

    async def activate(self, agent: Agent) -> None:
        """Begin to serve an agent, in the place of an earlier one of its name.

        Raises:
            MeshError: there is no connection.
        """
        log = self._journal.log(agent.name)
        before, emitter_before = self._services.get(agent.name), self._emitters.pop(agent.name, None)
        if agent.handler.shape.invocable:
            if self._cancels is None:
                self._cancels = await self._link.subscribe(CANCELS + "*", self._cancelled)
            service = Service(agent, self._link, self._replies, self._instance_id, log)
            await service.start()
            self._services[agent.name] = service
        else:
            self._services.pop(agent.name, None)
            if not agent.sources:
                emitter = Emitter(agent, self._link, self._instance_id, log)
                await emitter.start()
                self._emitters[agent.name] = emitter
        await self._reactions.start(agent, _LONGEST_EVENT)
        log.activated()
        if emitter_before is not None:
            await emitter_before.stop(_LONGEST_EVENT)
        if before is not None:
            await self._retire(before)
        await self._micro.offer(agent, self._services.get(agent.name))

    async def _retire(self, service: Service) -> None:
        """Another one has its place. What it has taken it finishes: who waits for that knows nothing of a change."""
        self._leaving[service] = None
        try:
            await service.leave(_LONGEST_EVENT)
        finally:
            task = asyncio.create_task(service.stop(_LONGEST_REQUEST))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
            task.add_done_callback(lambda _: self._leaving.pop(service, None))

    async def confirm(self, names: Iterable[str]) -> None:
        """Hear what the server says about agents that were activated.

        Raises:
            ConnectionDenied: it does not permit to take requests for one of them.
        """
        await self._link.flush()
        for name in names:
            service = self._services.get(name)
            if service is not None and service.denied is not None:
                raise service.denied

    async def deactivate(self, name: str, timeout: float) -> None:
        """Serve an agent no more.

        Args:
            name: of the agent; none of this name is served: nothing happens.
            timeout: seconds to finish what it has begun; see `Service.stop`, `Emitter.stop` and `Reactions.stop`.
        """
        if name not in self.names:
            return
        # Whoever activates it from now on, before all of this is done, begins anew.
        retiring = [each for each in self._leaving if each.agent.name == name]
        service, emitter = self._services.pop(name, None), self._emitters.pop(name, None)
        ending = [self._micro.withdraw(name), self._reactions.stop(name, timeout)]
        ending += [each.stop(timeout) for each in retiring]
        if emitter is not None:
            ending.append(emitter.stop(timeout))
        if service is not None:
            self._leaving[service] = None  # it can be told of cancellations as long as it has requests
            ending.append(service.stop(timeout))
        try:
            await asyncio.gather(*ending)
        finally:
            if service is not None:
                self._leaving.pop(service, None)
        if name not in self.names:
            self._journal.log(name).deactivated()

    def tell(self) -> None:
        """Tell publishers and background tasks that they are to stop, before `drain`."""
        for emitter in self._emitters.values():
            emitter.tell()

    async def drain(self, timeout: float) -> None:
        """Serve nobody any more: first the emitters and sources end, then the requests that were taken.

        Args:
            timeout: seconds for all of it; what is left then is cancelled, and answered.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        unasked = [name for name in self.names if name not in self._services]
        await asyncio.gather(*(self.deactivate(name, timeout) for name in unasked), self._reactions.close(timeout))
        left = max(0.0, deadline - loop.time())
        leaving = [service.stop(left) for service in self._leaving]
        await asyncio.gather(*leaving, *(self.deactivate(name, left) for name in list(self._services)))
        for task in self._retiring:
            task.cancel()  # all that it could wait for is over, or does not end
        await asyncio.gather(*self._retiring, return_exceptions=True)
        cancels, self._cancels = self._cancels, None
        if cancels is not None:
            await cancels.close()
        await self._micro.close()

    def _cancelled(self, message: Message) -> None:
        request_id = tail_of(message.subject, CANCELS)
        for service in (*self._services.values(), *self._leaving):
            service.cancel(request_id)
