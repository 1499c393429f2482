"""A place in the changes of a bucket that the server remembers under a name, also while nobody reads.

On the server it is a durable consumer. Readers of the same name, in whatever processes, get each change once between
them: a reader asks for one change, handles it, and asks for the next, which says that the one before was handled::

    idle --next--> asking --a change comes--> at work --next--> confirming --confirmed--> asking
                                                 \\--stop--> handed back, and another reader gets it

A change that a reader has, and neither confirms nor hands back, because its process died, is given to another reader
after ``patience``. While the reader lives it says so in time, however long it works.

The server writes down a little later what it has given out, and what was confirmed. When it crashes, it may remember an
earlier state than that: then changes that were handled just before are given out again. A reader passes over those that
it has confirmed itself; another one gets them. Changes themselves are stored before their writers are told, so that a
crash of the server loses none; a power failure may lose the newest, unless the server syncs each. Since it then finds
its cursors ahead of its changes, and sets them back, what is written afterwards is not passed over.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import logging
import math
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.bucket import operation_of, origin_of
from xml_pipeline.mesh.delivered import Delivered
from xml_pipeline.mesh.errors import ConnectionDenied, ConnectionLost, MeshError, MeshTimeout, StorageError
from xml_pipeline.mesh.kv_entry import KVEntry
from xml_pipeline.mesh.kv_write import Pauses

if TYPE_CHECKING:
    from xml_pipeline.mesh.bucket import Bucket
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.replies import Replies

__all__ = ["Cursor", "consumer_name"]

_log = logging.getLogger(__name__)

_NANOSECONDS = 1_000_000_000
_PATIENCE = 10.0
_EXPIRES = 30.0
_HEARTBEAT = 2.0
_SILENCE = 2.5  # signs of life that may be missing
_TIMEOUT = 5.0
_FAREWELL = 2.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_REMEMBERED = 1024
_LONGEST_NAME = 200

_HANDLED = b"+ACK"
_BACK = b"-NAK"
_AT_WORK = b"+WPI"
_NOTHING_YET = ("404", "408")
_IS_THERE = 10148  # the server's error for a consumer that was made by somebody who said something else about it


def consumer_name(name: str, pattern: str) -> str:
    """What the server calls the cursor: one name may be used for several patterns.

    Raises:
        ValueError: the name is empty, or too long.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise ValueError(
            f"the name of a cursor (`resume=`) must have 1 to {_LONGEST_NAME} characters, not {name!r:.80}"
        )
    digest = hashlib.sha256(f"{name}\n{pattern}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:40]}-{digest}"


@dataclass(frozen=True, slots=True)
class _Held:
    """A change that the server has given to us."""

    entry: KVEntry[bytes]
    reply: str  # where to say what became of it
    created: Any  # of the bucket that it is of
    losses: int  # of connections until then


class Cursor:
    """One reader at a cursor.

    Args:
        link: the connection.
        replies: how requests are answered.
        bucket: what to follow.
        pattern: which keys; it must have been checked.
        name: of the cursor.
        patience: seconds after which the server gives up a reader that says nothing.
        skip: whether a cursor that is new on the server begins after the keys as they are then.

    Raises:
        ValueError: the name cannot be one.
    """

    def __init__(
        self,
        link: Link,
        replies: Replies,
        bucket: Bucket,
        pattern: str,
        name: str,
        patience: float = _PATIENCE,
        *,
        skip: bool = False,
    ) -> None:
        self._link = link
        self._replies = replies
        self._bucket = bucket
        self._pattern = pattern
        self._consumer = consumer_name(name, pattern)
        self._patience = patience
        self._skip = skip
        self._created: Any = None  # of the bucket
        self._is_made = False
        self._asked = f"$JS.API.CONSUMER.MSG.NEXT.{bucket.stream}.{self._consumer}"
        self._inbox = link.inbox()
        self._subscription: Subscription | None = None
        self._requests = 0
        self._is_asking = False
        self._waiting: deque[_Held] = deque()
        self._at_work: _Held | None = None
        self._confirming: _Held | None = None
        self._handled: dict[int, None] = {}  # the last ones, lest one comes again whose confirmation was lost
        self._trouble: MeshError | None = None
        self._news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False
        self._stopping = asyncio.Lock()

    # -- as a feed

    async def start(self) -> None:
        """Begin.

        Raises:
            MeshError: it cannot begin.
        """
        self._subscription = await self._link.subscribe(self._inbox + ".*", self._arrived)
        self._link.on_lost.append(self._lost)
        self._link.on_denied.append(self._denied)
        self._link.on_restored.append(self._news.set)
        await self._make()

    async def next(self) -> KVEntry[bytes] | None:
        """The next change, after the one before was confirmed; ``None`` after `end`.

        Raises:
            ConnectionDenied: the server does not permit it.
        """
        done, self._at_work = self._at_work, None
        if done is not None:
            await self._confirm(done)
        while True:
            held = await self._fetch()
            if held is None:
                return None
            if held.entry.revision not in self._handled:
                self._at_work = held
                return held.entry
            await self._confirm(held)

    def end(self) -> None:
        """Give no more changes."""
        self._is_over = True
        self._news.set()

    async def stop(self) -> None:
        """Hand back what is not handled. Safe twice."""
        self.end()
        async with self._stopping:
            subscription, self._subscription = self._subscription, None
            if subscription is None:
                return
            if self._lost in self._link.on_lost:
                self._link.on_lost.remove(self._lost)
                self._link.on_denied.remove(self._denied)
                self._link.on_restored.remove(self._news.set)
            try:
                await subscription.drain(_FAREWELL)  # a change may be on its way
            finally:
                self._hand_back()
            try:
                await self._link.flush(_FAREWELL)
            except MeshError as error:
                _log.debug("handing back changes of %s: %s", self._bucket.name, error)

    def _hand_back(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held = [*self._waiting, self._at_work]
        self._waiting.clear()
        self._at_work = None
        for one in held:
            self._say(one, _BACK)
        self._say(self._confirming, _HANDLED)
        self._confirming = None

    # -- the cursor on the server

    async def _make(self) -> None:
        """See to it that it is there; one that is stays as it is."""
        info = await self._bucket.open()
        stream = self._bucket.stream
        config: dict[str, Any] = {
            "name": self._consumer,
            "durable_name": self._consumer,
            "ack_policy": "explicit",
            "ack_wait": int(self._patience * _NANOSECONDS),
            # In another bucket of the same name, everything is new.
            "deliver_policy": "new" if self._skip and self._created is None else "last_per_subject",
            "filter_subject": self._bucket.prefix + self._pattern,
            "max_deliver": -1,
            "replay_policy": "instant",
        }
        creation = {"stream_name": stream, "config": config, "action": "create"}
        try:
            await self._bucket.jetstream.api(f"CONSUMER.CREATE.{stream}.{self._consumer}", creation)
        except StorageError as error:
            if error.details.get("err_code") != _IS_THERE:
                raise
        if info.get("created") != self._created or info["state"]["last_seq"] < max(self._handled, default=0):
            self._created = info.get("created")  # the revisions of another bucket mean something else
            self._handled.clear()
        self._is_made = True

    async def _fetch(self) -> _Held | None:
        pauses = Pauses(math.inf, _FIRST_PAUSE, _LONGEST_PAUSE)
        while not self._is_over:
            if self._waiting:
                return self._waiting.popleft()
            try:
                await self._ask()
                await self._until_answered()
            except ConnectionDenied:
                raise
            except ConnectionLost:
                await self._until_up()
            except MeshError as error:
                _log.debug("reading %s of %s: %s", self._pattern, self._bucket.name, error)
                await pauses.pause()
        return None

    async def _ask(self) -> None:
        if self._is_asking:
            return
        if not self._is_made:
            await self._make()
        self._requests += 1
        self._is_asking = True
        body = {
            "batch": 1,
            "expires": int(_EXPIRES * _NANOSECONDS),
            "idle_heartbeat": int(_HEARTBEAT * _NANOSECONDS),
        }
        try:
            await self._link.publish(self._asked, json.dumps(body).encode(), f"{self._inbox}.{self._requests}")
        except BaseException:
            self._is_asking = False
            raise

    async def _until_answered(self) -> None:
        """Wait until there is a change, or the server has none, or it is over."""
        while self._is_asking and not self._waiting and not self._is_over:
            self._news.clear()
            try:
                async with asyncio.timeout(_HEARTBEAT * _SILENCE):
                    await self._news.wait()
            except TimeoutError:
                self._is_asking = self._is_made = False
                raise MeshTimeout(message="The server gave no sign of life.") from None
        trouble, self._trouble = self._trouble, None
        if trouble is not None and not self._waiting:
            raise trouble

    async def _until_up(self) -> None:
        while not self._link.is_up and not self._is_over:
            self._news.clear()
            await self._news.wait()

    def _lost(self, _: MeshError) -> None:
        self._is_asking = self._is_made = False
        self._news.set()

    def _denied(self, subject: str, error: ConnectionDenied) -> None:
        if subject == self._asked:
            self._is_asking = False
            self._trouble = copy.copy(error)
            self._news.set()

    # -- what it sends

    def _arrived(self, message: Message) -> None:
        status = (message.headers or {}).get(h.SERVER_STATUS)
        if status and message.subject.startswith(self._inbox):
            if message.subject == f"{self._inbox}.{self._requests}":
                self._controlled(status, message.headers or {})
            return
        numbers = Delivered.of(message.reply)
        if numbers is None or not message.subject.startswith(self._bucket.prefix):
            return  # somebody else wrote to our inbox
        key = message.subject[len(self._bucket.prefix) :]
        operation, origin = operation_of(message.headers), origin_of(message.headers)
        entry = KVEntry(key, message.data, numbers.revision, operation, origin)
        self._waiting.append(_Held(entry, message.reply, self._created, self._link.losses))
        self._is_asking = False
        self._news.set()
        if self._timer is None:
            self._tend_later()

    def _controlled(self, status: str, headers: dict[str, str]) -> None:
        """A sign of life, or that the request has ended without a change."""
        if status != "100":
            self._is_asking = False
            if status not in _NOTHING_YET:
                self._is_made = False
                self._trouble = StorageError(f"The server ended the request: {status} {headers.get('Description', '')}")
        self._news.set()

    # -- what it is told

    def _say(self, held: _Held | None, what: bytes) -> None:
        if held is not None:
            try:
                self._link.publish_now(held.reply, what)
            except MeshError as error:
                _log.debug("telling %s of %s: %s", what, held.entry.key, error)

    def _tend_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._patience / 3, self._tend)

    def _tend(self) -> None:
        """Say that what we have is still being worked at, or will be."""
        self._timer = None
        held = [one for one in (*self._waiting, self._at_work, self._confirming) if one is not None]
        for one in held:
            self._say(one, _AT_WORK)
        if held:
            self._tend_later()

    async def _confirm(self, held: _Held) -> None:
        """Say that it was handled until the server has heard it, for otherwise it would come again."""
        self._confirming = held
        self._handled[held.entry.revision] = None
        if len(self._handled) > _REMEMBERED:
            del self._handled[next(iter(self._handled))]
        while held.created == self._created and await self._is_known(held):
            try:
                await self._replies.ask(held.reply, _HANDLED, _TIMEOUT)
                break
            except (ConnectionLost, MeshTimeout) as error:
                _log.debug("confirming %s: %s", held.entry.key, error)
                if self._is_over:
                    return  # `stop` says it once more
                if isinstance(error, MeshTimeout):
                    break
        self._confirming = None

    async def _is_known(self, held: _Held) -> bool:
        """Whether the server knows that it gave this to us.

        A server that crashed may have forgotten the last things it did. It does not answer what is said about them; it
        will give the change to us again, or to another reader.
        """
        while self._link.losses != held.losses and not self._is_over:
            await self._until_up()
            try:
                info = await self._bucket.jetstream.api(f"CONSUMER.INFO.{self._bucket.stream}.{self._consumer}")
            except ConnectionLost:
                continue
            except MeshError as error:
                _log.debug("looking for the cursor: %s", error)
                return False
            return bool(info["delivered"]["stream_seq"] >= held.entry.revision)
        return True
