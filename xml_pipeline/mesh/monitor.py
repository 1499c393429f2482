"""`Monitor`: notices within moments that a host is gone, because the server says so.

The server tells its system account of every connection that ends. Hosts name their connections after themselves, so
that the monitor knows who that was::

    disconnected --a moment passes--> connected again: nothing
                                 \\--> no record: it has left properly
                                  \\-> buried

When the server itself was away, nobody is connected at first. So whatever was noticed before is forgotten then, and all
records are looked at when the hosts have had the time to come back.

Since it can ask the server who subscribes to what, it also knows more than the records do: an agent that a peer of
another kind still serves stays in the catalog.

It is made for a mesh with one server, such as `EmbeddedServer`; in a cluster it buries only those whose end it was told
of.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh import bucket as buckets
from xml_pipeline.mesh.bucket import Bucket
from xml_pipeline.mesh.burial import Burial
from xml_pipeline.mesh.catalog import Catalog
from xml_pipeline.mesh.errors import MeshError
from xml_pipeline.mesh.instances import Instances
from xml_pipeline.mesh.jetstream import JetStream
from xml_pipeline.mesh.link import Link
from xml_pipeline.mesh.options import ConnectionOptions
from xml_pipeline.mesh.registry import Registry
from xml_pipeline.mesh.replies import Replies
from xml_pipeline.mesh.subjects import agent_subject, new_id, queue_group

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from xml_pipeline.mesh.message import Message

__all__ = ["Monitor"]

_log = logging.getLogger(__name__)

_DISCONNECTS = "$SYS.ACCOUNT.*.DISCONNECT"
_CONNECTIONS = "$SYS.REQ.SERVER.PING.CONNZ"
_SUBSCRIPTIONS = "$SYS.REQ.SERVER.PING.SUBSZ"
_HOST = "oam-host-"
_PAGE = 256
_TIMEOUT = 5.0
_MOMENT = 0.15  # a host whose connection was cut comes back at once
_SETTLED = 5.0  # after a start of the server, all hosts have come back by then
_AGAIN = 1.0
_sleep = asyncio.sleep


class Monitor:
    """Looks after the dead of one server; an asynchronous context manager.

    Args:
        options: how to connect as a member of the mesh.
        system: how to connect to the server's system account.
        on_buried: told of each host that was buried: its instance id, and the agents that left with it.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        system: ConnectionOptions,
        on_buried: Callable[[str, set[str]], object] | None = None,
    ) -> None:
        self._link = Link(options)
        self._system = Link(system)
        replies = Replies(self._link)
        jetstream = JetStream(replies)
        self._replies = (replies, Replies(self._system))
        self._catalog = Catalog(self._link, Bucket(jetstream, buckets.CATALOG))
        self._instances = Instances(self._link, Bucket(jetstream, buckets.INSTANCES))
        registry = Registry(Bucket(jetstream, buckets.REGISTRY))
        self._burial = Burial(self._link, self._catalog, registry, self._instances, self.unserved)
        if on_buried is not None:
            self._burial.on_buried = on_buried
        self._gone: set[str] = set()  # hosts whose connection has ended
        self._look_at_all = False
        self._restored = asyncio.Event()
        self._noticed = asyncio.Event()
        self._closing = AsyncExitStack()

    @classmethod
    def of(cls, url: str, system_url: str) -> Monitor:
        """A monitor that names its connections after what it is."""
        name = f"oam-monitor-{new_id()}"
        return cls(ConnectionOptions(url=url, name=name), ConnectionOptions(url=system_url, name=name))

    async def __aenter__(self) -> Monitor:
        try:
            await self._open(self._closing)
        except BaseException:
            await self._closing.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    async def _open(self, closing: AsyncExitStack) -> None:
        for link, replies in zip((self._link, self._system), self._replies, strict=True):
            await link.open()
            closing.push_async_callback(link.close)
            await replies.open()
            closing.push_async_callback(replies.close)
        await self._catalog.open()
        closing.push_async_callback(self._catalog.close)
        self._system.on_lost.append(self._forget)
        self._system.on_restored.append(self._restored.set)
        await self._system.subscribe(_DISCONNECTS, self._disconnected)
        tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._settle())]

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        closing.push_async_callback(end)

    # -- noticing

    def _disconnected(self, message: Message) -> None:
        try:
            client = json.loads(message.data)["client"]
            name = client.get("name", "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if isinstance(name, str) and name.startswith(_HOST):
            self._gone.add(name[len(_HOST) :])
            self._noticed.set()

    def _forget(self, _: MeshError) -> None:
        self._gone.clear()
        self._look_at_all = False

    async def _settle(self) -> None:
        """What happened while nobody looked: at a start, and whenever the server was away."""
        while True:
            self._restored.clear()
            losses = self._system.losses
            if self._system.is_up:
                await _sleep(_SETTLED)
                if self._system.losses != losses:
                    continue
                self._look_at_all = True
                self._noticed.set()
            await self._restored.wait()

    async def _look(self) -> None:
        while True:
            await self._noticed.wait()
            await asyncio.sleep(_MOMENT)
            self._noticed.clear()
            gone, self._gone = self._gone, set()
            everybody, self._look_at_all = self._look_at_all, False
            losses = self._system.losses
            try:
                await self._look_for(gone, everybody)
            except MeshError as error:
                _log.warning("looking for hosts that are gone: %s", error)
                await asyncio.sleep(_AGAIN)
                if self._system.losses == losses:
                    self._gone |= gone
                    self._look_at_all |= everybody
                    self._noticed.set()

    async def _look_for(self, gone: set[str], everybody: bool) -> None:
        losses = self._system.losses
        connected, is_alone = await self._connected()
        if everybody and is_alone:
            gone = gone | set(await self._instances.all())
        dead = gone - connected
        if dead and self._system.losses == losses:  # else who is not connected may be about to be
            await self._burial.bury(dead)

    # -- asking the server

    async def unserved(self, names: Collection[str]) -> set[str]:
        """Those of the agents that nobody takes requests for.

        Raises:
            MeshError: the server does not say.
        """
        return {name for name in names if not await self._is_served(name)}

    async def _is_served(self, name: str) -> bool:
        offset = 0
        while True:
            asked = {"subscriptions": True, "test": agent_subject(name), "offset": offset, "limit": _PAGE}
            found = (await self._ask(_SUBSCRIPTIONS, asked))[0].get("subscriptions_list") or ()
            if any(one.get("qgroup") == queue_group(name) for one in found):
                return True
            if len(found) < _PAGE:
                return False
            offset += _PAGE

    async def _connected(self) -> tuple[set[str], bool]:
        """The hosts that are connected, and whether this server has no others beside it."""
        names: set[str] = set()
        offset = 0
        while True:
            data, server = await self._ask(_CONNECTIONS, {"offset": offset, "limit": _PAGE})
            found = data.get("connections") or ()
            names.update(one.get("name", "")[len(_HOST) :] for one in found if one.get("name", "").startswith(_HOST))
            if len(found) < _PAGE:
                return names, not server.get("cluster")
            offset += _PAGE

    async def _ask(self, subject: str, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        message = await self._replies[1].ask(subject, json.dumps(body).encode(), _TIMEOUT)
        try:
            answer = json.loads(message.data)
            return answer["data"], answer["server"]
        except (ValueError, KeyError, TypeError) as error:
            raise MeshError(message=f"The system account does not answer as it should: {error}") from error
