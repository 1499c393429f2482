"""Gates: agents that serve only while a condition holds (`active_when=`).

::

    closed --true--> opening --> open --false--> closing --drained, or given up--> closed
                                  ^                 |
                                  +----- true ------+   (what it had still finishes)

What the condition says last is what counts, however quickly it changes its mind: nothing is queued. Others see the
agent in the catalog all the time; while it is closed, nobody answers, and that is what callers are told.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Protocol

from xml_pipeline.mesh.bucket_watch import BucketWatch
from xml_pipeline.mesh.conditions import KVCondition, SubjectCondition
from xml_pipeline.mesh.errors import ConnectionLost, MeshError, MeshTimeout
from xml_pipeline.mesh.kv_write import Pauses

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.host import Host
    from xml_pipeline.mesh.kv_entry import KVEntry
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message

__all__ = ["Gate", "Gates"]

_log = logging.getLogger(__name__)

_READ_WITHIN = 5.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 10.0
_LONG = 86_400.0


class _Signal(Protocol):
    """Where the values come from that a predicate is asked about."""

    async def start(self) -> None:
        """Tell the value there is now, and follow it across all connections to come.

        Raises:
            MeshError: it cannot be followed.
        """

    async def stop(self) -> None:
        """Follow it no more. Safe twice, and if it has not begun."""


class _Key:
    """The value of a key; ``None`` where it has none."""

    def __init__(self, link: Link, bucket: Bucket, key: str, tell: Callable[[bytes | None], None]) -> None:
        self._tell = tell
        self._is_told = False
        self._watch = BucketWatch(link, bucket, key, self._changed, self._replaced)

    async def start(self) -> None:
        try:
            async with asyncio.timeout(_READ_WITHIN):
                await self._watch.start()
        except MeshTimeout:
            raise
        except TimeoutError:
            raise MeshTimeout(message="The server did not send the value in time.", timeout=_READ_WITHIN) from None
        if not self._is_told:
            self._tell(None)

    async def stop(self) -> None:
        await self._watch.stop()

    def _changed(self, entry: KVEntry[bytes]) -> None:
        self._is_told = True
        self._tell(None if entry.is_deleted else entry.value)

    def _replaced(self) -> None:
        self._tell(None)


class _Subject:
    """The body of each message."""

    def __init__(self, link: Link, subject: str, tell: Callable[[bytes], None]) -> None:
        self._link = link
        self._subject = subject
        self._tell = tell
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self._link.subscribe(self._subject, self._arrived)

    async def stop(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    def _arrived(self, message: Message) -> None:
        self._tell(message.data)


class Gate:
    """The gate of one agent.

    Args:
        agent: which; it has a condition.
        condition: which.
        host: where it is activated and deactivated.
        link: the connection.
        bucket: `bucket.CONTEXT`, of whose keys conditions are made.
    """

    def __init__(
        self, agent: Agent, condition: KVCondition | SubjectCondition, host: Host, link: Link, bucket: Bucket
    ) -> None:
        self._agent = agent
        self._condition = condition
        self._host = host
        self._link = link
        self._bucket = bucket
        self._signal: _Signal = self._new_signal()
        self._wanted = condition.initial
        self._is_open = False
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closings: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether the agent serves."""
        return self._is_open

    async def start(self) -> None:
        """Look at the condition, and open if it holds; then follow it.

        Raises:
            MeshError: it holds, and the agent cannot be activated.
        """
        begun = await self._begin()
        if self._wanted:
            await self._open()
        self._tasks.append(asyncio.create_task(self._work()))
        if not begun:
            self._tasks.append(asyncio.create_task(self._begin_at_last()))

    async def stop(self) -> None:
        """Follow the condition no more; the agent stays as it is, and what is being closed goes on. Safe twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._signal.stop()

    async def close(self) -> None:
        """After `stop`: give up what is still being closed."""
        for task in self._closings:
            task.cancel()
        if self._closings:
            await asyncio.wait(self._closings)

    # -- the condition

    def _new_signal(self) -> _Signal:
        condition = self._condition
        if isinstance(condition, KVCondition):
            return _Key(self._link, self._bucket, condition.key, self._judge)
        return _Subject(self._link, condition.subject, self._judge)

    def _judge(self, value: bytes | None) -> None:
        try:
            verdict = bool(self._condition.predicate(value))  # type: ignore[arg-type]  # each gets what it is for
        except Exception as error:
            _log.exception(
                "the condition of %s (%s) failed; it stays as it is", self._agent.name, self._condition, exc_info=error
            )
            return
        self._wanted = verdict
        self._news.set()

    async def _begin(self) -> bool:
        try:
            await self._signal.start()
        except MeshError as error:
            _log.warning(
                "the condition of %s (%s) cannot be read, so it is %s for now: %s",
                self._agent.name,
                self._condition,
                "met" if self._wanted else "not met",
                error,
            )
            await self._signal.stop()
            return False
        return True

    async def _begin_at_last(self) -> None:
        pauses = Pauses(math.inf, _FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            await pauses.pause()
            await self._link.wait_up(_LONG)
            self._signal = self._new_signal()
            if await self._begin():
                return

    # -- doing what it says

    async def _work(self) -> None:
        pauses = Pauses(math.inf, _FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            await self._news.wait()
            self._news.clear()
            if self._wanted is self._is_open:
                continue
            if not self._wanted:
                self._close()
                continue
            try:
                await self._open()
            except ConnectionLost:
                await self._link.wait_up(_LONG)
                self._news.set()
            except MeshError as error:
                _log.warning("%s could not be activated, which is tried again: %s", self._agent.name, error)
                await pauses.pause()
                self._news.set()

    async def _open(self) -> None:
        if self._closings and not self._agent.handler.shape.invocable:
            # Its events have an order and an end. Requests have not: new ones need not wait for the old.
            await asyncio.wait(self._closings)
        await self._host.activate(self._agent)
        self._is_open = True

    def _close(self) -> None:
        """Begin to close; it may take as long as the requests do, and is not waited for. Its first step, after which
        whoever activates the agent begins anew, is done before the next change can come."""
        self._is_open = False
        task = asyncio.create_task(self._deactivate())
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    async def _deactivate(self) -> None:
        try:
            await self._host.deactivate(self._agent.name, max(0.0, self._condition.drain_timeout))
        except MeshError as error:
            _log.debug("deactivating %s: %s", self._agent.name, error)


class Gates:
    """The gates of all agents of this mesh object.

    Args:
        host: where agents are activated.
        link: the connection.
        bucket: `bucket.CONTEXT`.
    """

    def __init__(self, host: Host, link: Link, bucket: Bucket) -> None:
        self._host = host
        self._link = link
        self._bucket = bucket
        self._gates: dict[str, Gate] = {}

    def gate(self, name: str) -> Gate | None:
        """The gate of an agent; ``None`` if it has none."""
        return self._gates.get(name)

    async def admit(self, agent: Agent) -> None:
        """Serve an agent: always, or as its condition says; in the place of an earlier one of its name.

        Raises:
            MeshError: it cannot be activated.
        """
        earlier = self._gates.pop(agent.name, None)
        if earlier is not None:
            await earlier.stop()
        if agent.condition is None:
            await self._host.activate(agent)
            return
        gate = self._gates[agent.name] = Gate(agent, agent.condition, self._host, self._link, self._bucket)
        await gate.start()
        if not gate.is_open:
            await self._host.deactivate(agent.name, agent.condition.drain_timeout)

    async def stop(self) -> None:
        """From now on, no agent begins or ceases to serve because of its condition."""
        await asyncio.gather(*(gate.stop() for gate in self._gates.values()))

    async def close(self) -> None:
        """Give up what is still being closed."""
        await asyncio.gather(*(gate.close() for gate in self._gates.values()))
        self._gates.clear()
