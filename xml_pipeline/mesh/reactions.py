"""`Reactions`: the sources of all agents that are active on this host."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.kv_cursor import Cursor
from xml_pipeline.mesh.kv_watch import KVWatch
from xml_pipeline.mesh.source_input import SourceInput
from xml_pipeline.mesh.source_runner import Events, SourceRunner
from xml_pipeline.mesh.sources import KVSource, SubjectSource
from xml_pipeline.mesh.subject_feed import SubjectFeed

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.journal import Journal
    from xml_pipeline.mesh.kv_entry import KVEntry
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.replies import Replies
    from xml_pipeline.mesh.source_runner import SourceStatistics
    from xml_pipeline.mesh.sources import Source
    from xml_pipeline.mesh.watches import Feed

__all__ = ["Reactions"]


class Reactions:
    """The sources at work.

    Args:
        link: the connection.
        replies: how requests are answered.
        bucket: `bucket.CONTEXT`, of whose keys sources are made.
        instance_id: this host.
        journal: what is said about the agents.
    """

    def __init__(self, link: Link, replies: Replies, bucket: Bucket, instance_id: str, journal: Journal) -> None:
        self._link = link
        self._replies = replies
        self._bucket = bucket
        self._instance_id = instance_id
        self._journal = journal
        self._agents: dict[str, Agent] = {}
        self._running: dict[str, list[SourceRunner]] = {}
        self._leaving: dict[str, list[SourceRunner]] = {}

    @property
    def names(self) -> set[str]:
        """The agents whose sources are at work."""
        return set(self._running)

    def statistics(self, name: str) -> list[SourceStatistics]:
        """What the sources of an agent have done since it was activated."""
        return [runner.statistics for runner in self._running.get(name, [])]

    async def start(self, agent: Agent, timeout: float) -> None:
        """Begin with the sources of an agent, when those of an earlier one of its name are done with what they have.

        Args:
            agent: which; if its sources are at work already, they go on.
            timeout: seconds for the earlier ones.
        """
        if self._running.get(agent.name) and self._agents.get(agent.name) is agent:
            return
        await self.stop(agent.name, timeout)
        leaving = self._leaving.get(agent.name, [])
        after = [runner.task for runner in leaving if runner.task is not None and not runner.task.done()]
        runners = [self._runner(agent, source) for source in agent.sources]
        if runners:
            self._running[agent.name] = runners
            self._agents[agent.name] = agent
        await asyncio.gather(*(runner.start(after) for runner in runners))

    def stop(self, name: str, timeout: float) -> Coroutine[Any, Any, None]:
        """End the sources of an agent, each after the event that it is at.

        Args:
            name: of the agent.
            timeout: seconds for that; what runs then is cancelled.

        Returns:
            To be awaited, until they have ended. They have left when this returns.
        """
        runners = self._running.pop(name, [])
        self._agents.pop(name, None)
        if runners:
            self._leaving.setdefault(name, []).extend(runners)
        return self._end(name, runners, timeout)

    async def _end(self, name: str, runners: list[SourceRunner], timeout: float) -> None:
        leaving = self._leaving.get(name, [])
        try:
            await asyncio.gather(*(runner.stop(timeout) for runner in runners))
        finally:
            for runner in runners:
                leaving.remove(runner)
            if not leaving and self._leaving.get(name) is leaving:
                del self._leaving[name]

    async def close(self, timeout: float) -> None:
        """End all of them, also those that are being ended with more patience.

        Args:
            timeout: in seconds.
        """
        leaving = [runner for runners in self._leaving.values() for runner in runners]
        await asyncio.gather(
            *(self.stop(name, timeout) for name in list(self._running)), *(runner.stop(timeout) for runner in leaving)
        )

    # -- what kinds there are

    def _runner(self, agent: Agent, source: Source) -> SourceRunner:
        given = SourceInput(agent.handler)
        if isinstance(source, SubjectSource):
            events = Events(partial(self._messages, source), given.of_message, _message_details, is_lasting=False)
        else:
            events = Events(partial(self._changes, source), given.of_entry, _change_details, is_lasting=True)
        return SourceRunner(agent, str(source), events, self._link, self._instance_id, self._journal.log(agent.name))

    def _messages(self, source: SubjectSource) -> Feed[Message]:
        return SubjectFeed(self._link, source.subject, source.queue_group or "", source.max_waiting)

    def _changes(self, source: KVSource) -> Feed[KVEntry[bytes]]:
        skip = source.on_init == "skip"
        if source.cursor is None:
            return KVWatch(self._link, self._bucket, source.pattern, skip=skip)
        return Cursor(self._link, self._replies, self._bucket, source.pattern, source.cursor, skip=skip)


def _message_details(message: Message) -> dict[str, Any]:
    return {"subject": message.subject}


def _change_details(entry: KVEntry[bytes]) -> dict[str, Any]:
    return {"key": entry.key, "revision": entry.revision}
