"""`Observe`: looking at what agents do, and setting how much they say about it."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from xml_pipeline.mesh.event_feed import EventFeed
from xml_pipeline.mesh.kv_entry import KVEntry
from xml_pipeline.mesh.log_events import LOGS, LogEvent
from xml_pipeline.mesh.log_levels import GLOBAL, OFF, SEVERITIES, LogLevels, check_level, stored_level
from xml_pipeline.mesh.subjects import check_agent_name, logs_subject

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.journal import Journal
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.log_levels import ObserveConfig
    from xml_pipeline.mesh.watches import Watches

__all__ = ["Observe"]


class Observe:
    """Log events, and their levels; ``mesh.observe``.

    Every verb raises `ConnectionFailed` where there is no connection, `ConnectionDenied` where the server does not
    permit it, and `MeshTimeout` where it does not answer.

    Args:
        link: the connection.
        bucket: `bucket.OBSERVABILITY`.
        journal: the logs of this mesh object.
        watches: where loops are entered.
        ready: awaited before everything.
    """

    def __init__(
        self, link: Link, bucket: Bucket, journal: Journal, watches: Watches, ready: Callable[[], Awaitable[None]]
    ) -> None:
        self._link = link
        self._bucket = bucket
        self._journal = journal
        self._watches = watches
        self._ready = ready

    # -- events

    async def logs(self, agent: str | None = None, level: str | None = None) -> AsyncGenerator[LogEvent, None]:
        """The events of agents from now on, across whatever happens to the connection, until this mesh object is left.

        What is sent while there is no connection is lost, as is all that nobody looks at.

        Args:
            agent: only those of this one.
            level: only those of this level and above. It can only leave out: what agents send is set with `set`.

        Yields:
            The events, as `LogEvent`. What comes there and is none is left out.

        Raises:
            ValueError: this is no level of an event, or no agent can have this name.
        """
        threshold = SEVERITIES[check_level(level)] if level is not None else 0
        if threshold >= OFF:
            raise ValueError("no event has the level 'off'")
        subject = LOGS + ">" if agent is None else logs_subject(agent)
        await self._ready()
        feed = EventFeed(self._link, subject, agent or "", None, None)
        async with aclosing(self._watches.follow(feed)) as messages:
            async for message, _ in messages:
                event = LogEvent.read(message.subject, message.data)
                if event is not None and event.severity >= threshold:
                    yield event

    # -- levels

    async def get(self, agent: str) -> ObserveConfig:
        """The level that holds for an agent, and where that was said.

        Raises:
            ValueError: no agent can have this name.
        """
        check_agent_name(agent)
        await self._ready()
        levels = LogLevels()
        for key in (agent, GLOBAL):
            if (entry := await self._bucket.get(key)) is not None:
                levels.apply(entry)
        return levels.of(agent)

    async def set(self, agent: str, *, log_level: str) -> None:
        """Have all hosts of an agent send its events of this level and above. They are told at once.

        Args:
            agent: its name; nobody need serve it yet.
            log_level: ``debug``, ``info``, ``warn``, ``error`` or ``off``.

        Raises:
            ValueError: this is no level, or no agent can have this name.
        """
        await self._put(_key_of(agent), log_level)

    async def set_global(self, *, log_level: str) -> None:
        """The same for all agents that have no level of their own. Raises as `set`."""
        await self._put(GLOBAL, log_level)

    async def unset(self, agent: str) -> None:
        """Take an agent's own level away, so that the one for all holds. Raises as `set`."""
        await self._delete(_key_of(agent))

    async def unset_global(self) -> None:
        """Take the level for all away, so that the default holds, which is ``info``."""
        await self._delete(GLOBAL)

    async def _put(self, key: str, level: str) -> None:
        value = stored_level(check_level(level))
        await self._ready()
        revision = await self._bucket.put(key, value)
        # Our own agents need not wait until the server tells us.
        self._journal.apply(KVEntry(key, value, revision))

    async def _delete(self, key: str) -> None:
        await self._ready()
        await self._bucket.delete(key)


def _key_of(agent: str) -> str:
    if check_agent_name(agent) == GLOBAL:
        raise ValueError(f"the key {GLOBAL!r} is for all agents: use set_global or unset_global")
    return agent
