"""`Journal`: the logs of all agents of this host, each with the level that holds for its agent at the moment."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from xml_pipeline.mesh.agent_log import AgentLog
from xml_pipeline.mesh.bucket_watch import BucketWatch
from xml_pipeline.mesh.errors import ConnectionLost, MeshError
from xml_pipeline.mesh.log_levels import LogLevels

if TYPE_CHECKING:
    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.kv_entry import KVEntry
    from xml_pipeline.mesh.link import Link

__all__ = ["Journal"]

_log = logging.getLogger(__name__)


class Journal:
    """The logs of one mesh object.

    Args:
        link: the connection.
        instance_id: this mesh object.
        bucket: `bucket.OBSERVABILITY`.
    """

    def __init__(self, link: Link, instance_id: str, bucket: Bucket) -> None:
        self._link = link
        self._instance_id = instance_id
        self._levels = LogLevels()
        self._logs: dict[str, AgentLog] = {}
        self._watch = BucketWatch(link, bucket, ">", self.apply, self._reset)
        self._is_following = False

    async def open(self) -> None:
        """Begin to follow the levels, before the first agent is served; safe twice, not at the same time.

        Where they cannot be read, agents are served all the same, with the default level.

        Raises:
            ConnectionLost: there is no connection.
        """
        if self._is_following:
            return
        self._is_following = True
        try:
            await self._watch.start()
        except ConnectionLost:
            self._is_following = False
            raise
        except MeshError as error:
            _log.warning("the levels of log events cannot be read: %s", error)
        except BaseException:
            self._is_following = False
            raise

    async def close(self) -> None:
        """Follow them no more."""
        self._is_following = False
        await self._watch.stop()

    def log(self, agent: str) -> AgentLog:
        """The log of an agent of this host."""
        log = self._logs.get(agent)
        if log is None:
            level = self._levels.of(agent).log_level
            log = self._logs[agent] = AgentLog(self._link, agent, self._instance_id, level)
        return log

    def forget(self, agent: str) -> None:
        """An agent is not served here any more. Whoever still has its log may go on writing to it."""
        self._logs.pop(agent, None)

    def apply(self, entry: KVEntry[bytes]) -> None:
        """A level was set, or taken away."""
        if self._is_following and self._levels.apply(entry):
            self._set_levels()

    def _reset(self) -> None:
        self._levels.clear()
        self._set_levels()

    def _set_levels(self) -> None:
        for agent, log in self._logs.items():
            log.set_level(self._levels.of(agent).log_level)
