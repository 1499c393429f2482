"""`Burial`: what is to be done about hosts that are gone without having said so.

First everybody is told, so that nobody waits longer than necessary. Then the agents that nobody else serves leave the
catalog and their contracts are deleted. The record goes last: whoever does this may be killed in the middle, and then
another one finds it and does it again. Several who do it at the same time do no harm.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from xml_pipeline.mesh.deaths import DISCONNECT, DeathNotice
from xml_pipeline.mesh.errors import KVInvalidKey
from xml_pipeline.mesh.subjects import death_subject, instance_death_subject, is_agent_name, is_request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from xml_pipeline.mesh.catalog import Catalog
    from xml_pipeline.mesh.instances import Instances
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.registry import Registry

__all__ = ["Burial"]

_log = logging.getLogger(__name__)


class Burial:
    """Buries hosts.

    Args:
        link: the connection.
        catalog: where their entries are.
        registry: where their contracts are.
        instances: where their records are.
        unserved: tells which of the agents really nobody takes requests for, by asking the server; ``None`` where it
            cannot be asked, and the records are all there is.

    Attributes:
        on_buried: called for each host that was buried, with its instance id and the agents that left with it.
    """

    def __init__(
        self,
        link: Link,
        catalog: Catalog,
        registry: Registry,
        instances: Instances,
        unserved: Callable[[Collection[str]], Awaitable[set[str]]] | None = None,
    ) -> None:
        self._link = link
        self._catalog = catalog
        self._registry = registry
        self._instances = instances
        self._unserved = unserved
        self.on_buried: Callable[[str, set[str]], object] = lambda instance_id, agents: None

    async def bury(self, dead: Collection[str], *, ours: Collection[str] = ()) -> None:
        """Tell of these hosts, and take away what they left.

        Args:
            dead: their instance ids; those without a record have left properly, or were buried already.
            ours: agents that are served here, whatever the records say.

        Raises:
            MeshError: something could not be written; it can be tried again.
        """
        records = await self._instances.all()
        found = {instance_id: records[instance_id] for instance_id in dead if instance_id in records}
        if not found:
            return
        for instance_id in found:
            self._tell_of(instance_id)
        names = {name for agents in found.values() for name in agents if is_agent_name(name)}
        served = set(ours).union(*(agents for other, agents in records.items() if other not in found))
        orphans = names - served
        if orphans and self._unserved is not None:
            orphans = await self._unserved(orphans)
        for instance_id, agents in found.items():
            _log.warning("the host %s of %s is gone", instance_id, ", ".join(sorted(agents)[:5]))
            for name in sorted(orphans & agents):
                self._tell_of(instance_id, name)
        if orphans:
            await self._catalog.remove(orphans)
            await self._registry.remove(orphans)
        for instance_id in found:
            try:
                await self._instances.remove(instance_id)
            except KVInvalidKey as error:  # somebody else's key: it serves nothing and hides nothing
                _log.debug("a record that cannot be deleted: %s", error)
            self.on_buried(instance_id, orphans & found[instance_id])

    def _tell_of(self, instance_id: str, name: str = "") -> None:
        """Of the host, or that it was the last one of an agent."""
        if not name and not is_request_id(instance_id):
            return
        notice = DeathNotice(name, DISCONNECT, instance_id, is_last=bool(name) and self._unserved is not None)
        subject = death_subject(name) if name else instance_death_subject(instance_id)
        self._link.publish_now(subject, notice.to_json())
