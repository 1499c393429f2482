"""`Parts`: everything a mesh object consists of while it is connected, started and stopped in order."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from xml_pipeline.mesh import bucket as buckets
from xml_pipeline.mesh.bucket import Bucket
from xml_pipeline.mesh.burial import Burial
from xml_pipeline.mesh.catalog import Catalog
from xml_pipeline.mesh.client import Client
from xml_pipeline.mesh.deaths import Deaths
from xml_pipeline.mesh.directory import Directory
from xml_pipeline.mesh.errors import ConnectionDenied
from xml_pipeline.mesh.gates import Gates
from xml_pipeline.mesh.host import Host
from xml_pipeline.mesh.instances import Instances
from xml_pipeline.mesh.jetstream import JetStream
from xml_pipeline.mesh.journal import Journal
from xml_pipeline.mesh.kv import KV
from xml_pipeline.mesh.leases import Leases
from xml_pipeline.mesh.link import Link
from xml_pipeline.mesh.listening import Listening
from xml_pipeline.mesh.membership import Membership
from xml_pipeline.mesh.object_store import ObjectStore
from xml_pipeline.mesh.observe import Observe
from xml_pipeline.mesh.permits import Permits
from xml_pipeline.mesh.reactions import Reactions
from xml_pipeline.mesh.registry import Registry
from xml_pipeline.mesh.replies import Replies
from xml_pipeline.mesh.sending import Sending
from xml_pipeline.mesh.url import is_loopback
from xml_pipeline.mesh.watches import Watches
from xml_pipeline.mesh.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.options import ConnectionOptions

__all__ = ["Parts"]

_log = logging.getLogger(__name__)

_FAREWELL = 5.0


class Parts:
    """The parts of one mesh object, from entering to leaving.

    Args:
        options: how to connect.
        instance_id: the mesh object.
        own: its agents by name, read whenever somebody asks for one.
        ready: awaited before the state that all share is used.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        instance_id: str,
        own: Mapping[str, Agent],
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        self.link = Link(options)
        self.replies = Replies(self.link)
        self.jetstream = JetStream(self.replies)
        self.catalog = Catalog(self.link, Bucket(self.jetstream, buckets.CATALOG))
        self.registry = Registry(Bucket(self.jetstream, buckets.REGISTRY))
        self.instances = Instances(self.link, Bucket(self.jetstream, buckets.INSTANCES))
        burial = Burial(self.link, self.catalog, self.registry, self.instances)
        self.leases = Leases(self.link, instance_id, Bucket(self.jetstream, buckets.LEASES), burial)
        levels = Bucket(self.jetstream, buckets.OBSERVABILITY)
        self.journal = Journal(self.link, instance_id, levels)
        self.membership = Membership(
            self.link, instance_id, self.catalog, self.registry, self.instances, self.leases, self.journal
        )
        self.deaths = Deaths(self.link, self.replies)
        self.directory = Directory(own, self.catalog, self.registry)
        permits = Permits(self.link)
        self.client = Client(self.link, self.replies, self.directory, instance_id)
        self.watches = Watches()
        self.observe = Observe(self.link, levels, self.journal, self.watches, ready)
        self.listening = Listening(self.link, permits, self.directory, self.watches, instance_id)
        self.sending = Sending(self.link, permits, self.replies, self.client, self.directory, instance_id)
        context = Bucket(self.jetstream, buckets.CONTEXT)
        self.reactions = Reactions(self.link, self.replies, context, instance_id, self.journal)
        self.host = Host(self.link, self.replies, instance_id, self.journal, self.reactions)
        self.gates = Gates(self.host, self.link, context)
        self.kv = KV(self.link, self.replies, context, self.watches, ready)
        self.workspace = Workspace(ObjectStore(self.link, self.jetstream, buckets.ARTIFACTS), ready)
        self._closing = AsyncExitStack()

    async def open(self) -> None:
        """Connect, and begin to follow the mesh. If that fails, nothing stays behind.

        Raises:
            ConnectionFailed: there is no server.
            ConnectionDenied: it does not take the credentials.
            StorageError: it has no JetStream.
        """
        options = self.link.options
        try:
            await self.link.open()
            self._closing.push_async_callback(self.link.close)
            if options.is_open:
                # On this machine, only those who can run programs here reach it anyway.
                level = logging.INFO if is_loopback(options.url) else logging.WARNING
                where = options.place
                _log.log(level, "this mesh is open (%s): whoever reaches the server can say to be anybody", where)
            await self.replies.open()
            self._closing.push_async_callback(self.replies.close)
            self._closing.push_async_callback(self.sending.close)
            await self._make_buckets()
            await self.catalog.open()
            self._closing.push_async_callback(self.catalog.close)
            self._closing.push_async_callback(self.journal.close)
            await self.deaths.open()
            self._closing.push_async_callback(self.deaths.close)
            await self.leases.open()
            self._closing.push_async_callback(self.leases.close)
            self._closing.push_async_callback(self.gates.close)
        except BaseException:
            await self._closing.aclose()
            raise

    async def _make_buckets(self) -> None:
        """In the order in which every peer makes them."""
        for name in (buckets.CATALOG, buckets.REGISTRY, buckets.INSTANCES, buckets.OBSERVABILITY, buckets.CONTEXT):
            try:
                await Bucket(self.jetstream, name).open()
            except ConnectionDenied as error:  # it may well be there; whoever needs it is told
                _log.debug("the bucket %s: %s", name, error)

    async def close(self, timeout: float) -> None:
        """Finish what runs, leave, and disconnect.

        Args:
            timeout: seconds for what runs.
        """
        try:
            await self.gates.stop()
            self.host.tell()
            await self.host.drain(await self.watches.close(timeout))
            await self.membership.leave(_FAREWELL)
        finally:
            await self._closing.aclose()
