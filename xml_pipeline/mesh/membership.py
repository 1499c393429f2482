"""`Membership`: how the agents of this mesh object become known to others, stay known, and leave.

Joining: contracts, then the catalog, then the instance record. After a lost connection, and when our entries disappear,
everything is written again, for others may have taken us for dead. Leaving: the record first, so that nobody counts on
us; then whatever no other mesh object serves leaves the catalog, its contract is deleted, and those who wait for it are
told.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from xml_pipeline.mesh.deaths import FAREWELL, DeathNotice
from xml_pipeline.mesh.errors import ConnectionDenied, MeshError
from xml_pipeline.mesh.subjects import death_subject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from xml_pipeline.mesh.catalog import Catalog
    from xml_pipeline.mesh.contract import AgentContract
    from xml_pipeline.mesh.instances import Instances
    from xml_pipeline.mesh.journal import Journal
    from xml_pipeline.mesh.leases import Leases
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.registry import Registry

__all__ = ["Membership"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_MENDED_WITHIN = 0.2
_DELETED_WITHIN = 1.0


class Membership:
    """The membership of one mesh object.

    Args:
        link: the connection.
        instance_id: this mesh object.
        catalog: where its entries are.
        registry: where its contracts are.
        instances: where its record is.
        leases: where it says that it is still there.
        journal: what is said about its agents.
    """

    def __init__(
        self,
        link: Link,
        instance_id: str,
        catalog: Catalog,
        registry: Registry,
        instances: Instances,
        leases: Leases,
        journal: Journal,
    ) -> None:
        self._link = link
        self._instance_id = instance_id
        self._catalog = catalog
        self._registry = registry
        self._instances = instances
        self._leases = leases
        self._journal = journal
        self._contracts: dict[str, AgentContract] = {}
        self._staying: asyncio.Future[None] | None = None
        self._needed: Callable[[], Awaitable[None]] | None = None
        link.on_restored.append(self._restored)
        catalog.on_dropped = self._dropped
        leases.on_buried = self._restored

    @property
    def names(self) -> set[str]:
        """The agents that are known to be served here."""
        return set(self._contracts)

    async def join(self, contracts: Collection[AgentContract]) -> None:
        """Make agents known.

        Args:
            contracts: theirs; those of an earlier `join` stay known.

        Raises:
            MeshError: it could not be written; nothing of it counts as known.
        """
        await self._registry.put(contracts)
        try:
            await self._catalog.put([contract.to_catalog_entry() for contract in contracts])
        except ConnectionDenied:
            self._catalog.forget(contract.name for contract in contracts)
            raise
        self._contracts.update({contract.name: contract for contract in contracts})
        for contract in contracts:
            self._journal.log(contract.name).registered()
        await self._record()

    async def _record(self) -> None:
        """It is for those who look after the dead; a mesh without them works as well. The lease comes first, for a
        record without one is never taken away."""
        try:
            await self._leases.hold(self._contracts)
            await self._instances.put(self._instance_id, self._contracts)
        except MeshError as error:
            _log.warning("the instance record could not be written: %s", error)

    # -- staying

    def _restored(self) -> None:
        self._stay(self._rejoin)

    def _dropped(self) -> None:
        self._stay(self._mend)

    def _stay(self, how: Callable[[], Awaitable[None]]) -> None:
        if not self._contracts:
            return
        self._needed = how  # also where it runs already, for it may be past what is to be done again
        if self._staying is None or self._staying.done():
            self._staying = asyncio.ensure_future(self._stay_on())

    async def _stay_on(self) -> None:
        while self._needed is not None:
            how, self._needed = self._needed, None
            await how()

    async def _rejoin(self) -> None:
        """Write everything again, until that has succeeded."""
        pause = _FIRST_PAUSE
        while self._contracts and self._link.is_up:
            try:
                await self._registry.put(list(self._contracts.values()))
                await self._catalog.restore()
                await self._record()
            except ConnectionDenied as error:
                _log.error("this host is not permitted to be known any more: %s", error)
                return
            except MeshError as error:
                _log.debug("joining again: %s", error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # spreads load, hides nothing
                pause = min(_LONGEST_PAUSE, pause * 2)
            else:
                return

    async def _mend(self) -> None:
        """Somebody takes us for gone: another host of the agent that left, or a monitor. It is about to delete our
        contracts and record too, so they are looked after twice."""
        for patience in (_MENDED_WITHIN, _DELETED_WITHIN):
            # All hosts of the agent notice in the same moment; one of them is enough to write the catalog.
            await asyncio.sleep(patience * random.uniform(0.5, 1.0))
            await self._rejoin()

    async def stop_staying(self) -> None:
        """Write nothing again any more."""
        if self._restored in self._link.on_restored:
            self._link.on_restored.remove(self._restored)
        self._catalog.on_dropped = self._leases.on_buried = None
        task, self._staying, self._needed = self._staying, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    # -- leaving

    async def leave(self, timeout: float) -> None:
        """Make it known that nobody is served here any more. What cannot be written is logged.

        Args:
            timeout: seconds for all of it.
        """
        await self.stop_staying()
        contracts, self._contracts = self._contracts, {}
        await self._part_with(set(contracts), timeout)

    async def unlist(self, names: Collection[str], timeout: float) -> None:
        """Offer agents no more, before they are withdrawn: they still finish what they have, and nobody new is to find
        them. What those need who look after the dead stays, in case that this host dies meanwhile; and so does the
        entry of an agent that others serve.

        Args:
            names: of the agents; those that are not known to be served here are passed over.
            timeout: seconds for all of it. What cannot be done in time is left to `withdraw`.
        """
        known = self._contracts.keys() & names
        if not known:
            return
        try:
            async with asyncio.timeout(timeout):
                orphans = known - await self._served_by_others()
                if orphans:
                    await self._catalog.remove(orphans, timeout)
        except (MeshError, TimeoutError) as error:
            _log.debug("%s cannot leave the catalog yet: %s", ", ".join(sorted(known)), error or type(error).__name__)

    async def withdraw(self, names: Collection[str], timeout: float) -> None:
        """Make it known that some agents are not served here any more; the others stay known.

        Args:
            names: of the agents; those that were not known to be served here are passed over.
            timeout: seconds for all of it.
        """
        await self._part_with({name for name in names if self._contracts.pop(name, None) is not None}, timeout)

    async def _part_with(self, names: set[str], timeout: float) -> None:
        if not names:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._deregister(names, timeout)
        except (MeshError, TimeoutError) as error:
            _log.warning("leaving the mesh was not told completely: %s", error or type(error).__name__)
            return
        for name in names:
            self._journal.log(name).deregistered()

    async def _deregister(self, names: set[str], timeout: float) -> None:
        self._catalog.forget(names)
        served: set[str] = set()
        try:
            if self._contracts:
                await self._record()
            else:
                await self._instances.remove(self._instance_id)
                await self._leases.let_go()
            served = await self._served_by_others()
        except ConnectionDenied as error:  # then there is none of ours; what others serve they put back
            _log.debug("leaving the instance records: %s", error)
            await self._leases.let_go()
        orphans = names - served
        if not orphans:
            return
        await self._catalog.remove(orphans, timeout)
        await self._registry.remove(orphans)
        for name in orphans:
            self._say_farewell(name)

    async def _served_by_others(self) -> set[str]:
        served: set[str] = set()
        for instance_id, agents in (await self._instances.all()).items():
            if instance_id != self._instance_id and not self._leases.is_overdue(instance_id):
                served |= agents
        return served

    def _say_farewell(self, name: str) -> None:
        notice = DeathNotice(name, FAREWELL, self._instance_id)
        self._link.publish_now(death_subject(name), notice.to_json())
