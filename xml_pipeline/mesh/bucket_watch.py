"""Following a bucket: first every key as it is, then every change, across whatever happens to the connection.

The server sends to an inbox, through a *consumer* that belongs to this watch alone. Consumers do not survive much; a
watch makes itself a new one when the connection is back, when a number is missing, when the signs of life stop, and
when
the bucket was deleted::

    attaching --made--> following --lost, gap, silence--> attaching (after a pause, if it failed)

The new one continues after the last revision that was seen; where that means nothing any more, because the bucket is
another one of the same name, everything is sent again after ``on_reset``.
"""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.bucket import operation_of, origin_of
from xml_pipeline.mesh.delivered import Delivered
from xml_pipeline.mesh.errors import ConnectionDenied, ConnectionLost, MeshError
from xml_pipeline.mesh.kv_entry import KVEntry
from xml_pipeline.mesh.subjects import new_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message

__all__ = ["BucketWatch"]

_log = logging.getLogger(__name__)

_NANOSECONDS = 1_000_000_000
_HEARTBEAT = 2.0
_SILENCE = 2.5  # signs of life that may be missing
_ABANDONED = 60
_FLOW_CONTROL = "$JS.FC."
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_FAREWELL = 1.0


class BucketWatch:
    """One watch.

    Args:
        link: the connection.
        bucket: what to follow; it is made when it is not there.
        pattern: which keys: a key, or a pattern with ``*`` and ``>``; it must have been checked.
        on_entry: called for each entry in the order of revisions, deletions too; must not wait or raise.
        on_reset: called before everything is sent again because the bucket is another one.
        heartbeat: seconds between signs of life; ``None`` for two.
        on_refused: called when the server does not permit it any more; it is tried again all the same.
    """

    def __init__(
        self,
        link: Link,
        bucket: Bucket,
        pattern: str,
        on_entry: Callable[[KVEntry[bytes]], None],
        on_reset: Callable[[], None] = lambda: None,
        heartbeat: float | None = None,
        on_refused: Callable[[ConnectionDenied], None] = lambda _: None,
    ) -> None:
        self._link = link
        self._bucket = bucket
        self._pattern = pattern
        self._on_entry = on_entry
        self._on_reset = on_reset
        self._heartbeat = _HEARTBEAT if heartbeat is None else heartbeat
        self._on_refused = on_refused
        self._subscription: Subscription | None = None
        self._created: Any = None  # of the stream that the revision belongs to
        self._revision = 0
        self._consumer = 0
        self._expected = 1  # number of the next message of this consumer
        self._heard = 0.0
        self._flow_control = True
        self._keeping_up = ""  # where it was last said that we keep up
        self._trouble = asyncio.Event()
        self._complete = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._name = ""  # of the consumer, as long as it may be there
        self._stopping = asyncio.Lock()

    @property
    def is_complete(self) -> bool:
        """Whether every key as it was at the start has been delivered."""
        return self._complete.is_set()

    async def skip(self) -> None:
        """Before `start`: leave out what is there now. If the bucket is another one by then, nothing is left out.

        Raises:
            MeshError: the server cannot be asked.
        """
        info = await self._bucket.open()
        self._created, self._revision = info.get("created"), info["state"]["last_seq"]

    async def start(self) -> None:
        """Begin, and return when every key as it is now was delivered.

        Raises:
            MeshError: it cannot begin.
        """
        self._link.on_denied.append(self._denied)
        self._link.on_restored.append(self._trouble.set)
        try:
            await self._attach()
            self._task = asyncio.create_task(self._keep())
            await self._complete.wait()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End it, also on the server. Safe twice, and at the same time."""
        async with self._stopping:
            if self._denied in self._link.on_denied:
                self._link.on_denied.remove(self._denied)
                self._link.on_restored.remove(self._trouble.set)
            task, self._task = self._task, None
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            await self._detach()
            await self._forget()

    async def _forget(self) -> None:
        """Delete the consumer, which the server would keep for a while."""
        name, self._name = self._name, ""
        if name and self._link.is_up:
            try:
                async with asyncio.timeout(_FAREWELL):
                    await self._bucket.jetstream.api(f"CONSUMER.DELETE.{self._bucket.stream}.{name}")
            except (MeshError, TimeoutError) as error:  # the server forgets it by itself, a little later
                _log.debug("removing a consumer of %s: %s", self._bucket.name, error)

    # -- the consumer

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await self._until_trouble()
            self._trouble.clear()
            if not self._link.is_up:
                continue  # `on_restored` tells when it is worth trying
            try:
                await self._attach()
                pause = _FIRST_PAUSE
            except ConnectionLost:
                continue
            except MeshError as error:
                if isinstance(error, ConnectionDenied):
                    self._on_refused(error)
                _log.debug("watching %s of %s: %s", self._pattern, self._bucket.name, error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # spreads load, hides nothing
                pause = min(_LONGEST_PAUSE, pause * 2)
                self._trouble.set()

    async def _until_trouble(self) -> None:
        patience = self._heartbeat * _SILENCE
        loop = asyncio.get_running_loop()
        while not self._trouble.is_set():
            try:
                async with asyncio.timeout(max(0.1, self._heard + patience - loop.time())):
                    await self._trouble.wait()
            except TimeoutError:
                if loop.time() >= self._heard + patience:
                    return

    async def _attach(self) -> None:
        await self._detach()
        info = await self._bucket.open()
        self._heard = asyncio.get_running_loop().time()
        is_new = info.get("created") != self._created or info["state"]["last_seq"] < self._revision
        if is_new and self._created is not None:
            self._on_reset()
        if is_new:
            self._created, self._revision = info.get("created"), 0
        self._expected = 1
        self._consumer += 1
        inbox = self._link.inbox()
        # The first messages may come before the answer to the request that makes the consumer.
        self._subscription = await self._link.subscribe(inbox, partial(self._arrived, self._consumer))
        made = await self._bucket.jetstream.api(*self._creation(inbox))
        if not made.get("num_pending") and self._expected == 1:
            self._complete.set()

    def _creation(self, inbox: str) -> tuple[str, dict[str, Any]]:
        name = self._name = new_id()
        config: dict[str, Any] = {
            "name": name,
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "filter_subject": self._bucket.prefix + self._pattern,
            "flow_control": self._flow_control,
            "idle_heartbeat": int(self._heartbeat * _NANOSECONDS),
            "inactive_threshold": _ABANDONED * _NANOSECONDS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        if self._revision:
            config.update(deliver_policy="by_start_sequence", opt_start_seq=self._revision + 1)
        else:
            config.update(deliver_policy="last_per_subject")
        stream = self._bucket.stream
        return f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config}

    async def _detach(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    # -- what it sends

    def _arrived(self, consumer: int, message: Message) -> None:
        if consumer != self._consumer:
            return  # of one that was given up
        self._heard = asyncio.get_running_loop().time()
        headers = message.headers
        if headers and headers.get(h.SERVER_STATUS):
            self._controlled(message, headers)
            return
        numbers = Delivered.of(message.reply)
        if numbers is None or not message.subject.startswith(self._bucket.prefix):
            return  # somebody else wrote to our inbox
        if numbers.number != self._expected:
            self._trouble.set()
            return
        self._expected += 1
        self._revision = numbers.revision
        key = message.subject[len(self._bucket.prefix) :]
        self._on_entry(KVEntry(key, message.data, numbers.revision, operation_of(headers), origin_of(headers)))
        if numbers.pending == 0:
            self._complete.set()

    def _controlled(self, message: Message, headers: dict[str, str]) -> None:
        """A sign of life, which says what number was sent last, a question whether we keep up, or a farewell."""
        if headers[h.SERVER_STATUS] != "100":
            self._trouble.set()
            return
        try:
            asked = message.reply or headers.get("Nats-Consumer-Stalled", "")
            if asked.startswith(_FLOW_CONTROL):  # and not where somebody else wants us to publish
                self._keeping_up = asked
                self._link.publish_now(asked, b"")
        except MeshError:
            return
        last = headers.get("Nats-Last-Consumer")
        if last is not None and last.isdigit() and int(last) != self._expected - 1:
            self._trouble.set()

    def _denied(self, subject: str, _: ConnectionDenied) -> None:
        """Where we may not say that we keep up, the server would stop after some megabytes, and wait for it."""
        if subject == self._keeping_up:
            self._flow_control = False
            self._trouble.set()
