"""Messages of a subject, each of which is given to somebody until one has handled it.

On the server there is a stream that keeps what is published, and a durable consumer that remembers what was handled.
The readers of one consumer, in whatever processes, share its messages::

    stored --given--> held --done--> confirmed
                       |  \\--again--> given once more, after a while, to any reader
                       |  \\--give up--> never given again
                       \\--its reader is silent for `ack_wait`--> given once more

A reader asks for as many messages as it has room for, and says in time that it still works at what it holds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from typing import TYPE_CHECKING, Final

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.delivered import Delivered
from xml_pipeline.mesh.durable_consumer import DurableConsumer, Owner
from xml_pipeline.mesh.durable_stream import OVERLAP, DurableStream
from xml_pipeline.mesh.errors import ConnectionLost, MeshError, MeshTimeout, StorageError
from xml_pipeline.mesh.kv_write import Pauses

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.mesh.jetstream import JetStream
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.replies import Replies

__all__ = ["Delivery", "Durable"]

_log = logging.getLogger(__name__)

_NANOSECONDS: Final = 1_000_000_000
_EXPIRES: Final = 30.0
_HEARTBEAT: Final = 2.0
_SILENCE: Final = 2.5  # signs of life that may be missing
_TIMEOUT: Final = 5.0
_FAREWELL: Final = 2.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_NOTHING_YET: Final = ("404", "408", "409")
_DELETED: Final = "Consumer Deleted"

_DONE: Final = b"+ACK"
_AT_WORK: Final = b"+WPI"
_GIVEN_UP: Final = b"+TERM"


class Delivery:
    """One message that the server has given to us, until one of the three is said.

    Args:
        message: as it came.
        times: how often it was given to somebody, this time included.
    """

    __slots__ = ("_durable", "is_settled", "message", "times")

    def __init__(self, durable: Durable, message: Message, times: int) -> None:
        self._durable = durable
        self.message = message
        self.times = times
        self.is_settled = False

    async def done(self) -> None:
        """It was handled. Said until the server has heard it; if it never does, the message comes again."""
        await self._durable.confirm(self)

    def again(self, delay: float = 0.0) -> None:
        """It is to be given once more.

        Args:
            delay: seconds, at least.
        """
        word = "-NAK" if delay <= 0 else f'-NAK {{"delay": {int(delay * _NANOSECONDS)}}}'
        self._durable.settle(self, word.encode())

    def give_up(self) -> None:
        """It is never to be given again."""
        self._durable.settle(self, _GIVEN_UP)


class Durable:
    """One reader of a durable consumer.

    Args:
        link: the connection.
        replies: how requests are answered.
        jetstream: what the server stores.
        subject: which messages; it must have been checked. May have wildcards.
        name: of the consumer.
        on_message: called for each message; must not wait.
        stream: that holds the subject; empty to find it, or to make one.
        owner: whose consumer it is, lest others change it; ``None`` to leave no mark.
        ack_wait: seconds after which the server gives up a reader that says nothing.
        max_in_flight: messages held at a time.
    """

    def __init__(
        self,
        link: Link,
        replies: Replies,
        jetstream: JetStream,
        subject: str,
        name: str,
        on_message: Callable[[Delivery], None],
        *,
        stream: str = "",
        owner: Owner | None = None,
        ack_wait: float = 30.0,
        max_in_flight: int = 64,
    ) -> None:
        self._link = link
        self._replies = replies
        self._subject = subject
        self._name = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        self._on_message = on_message
        self._stream = ""
        self._streams = DurableStream(jetstream, subject, self._name, stream)
        self._consumer = DurableConsumer(jetstream, self._name, subject, ack_wait, owner)
        self._ack_wait = ack_wait
        self._max_in_flight = max_in_flight
        self._inbox = link.inbox()
        self._subscription: Subscription | None = None
        self._held: dict[str, Delivery] = {}
        self._requests = 0
        self._asked = 0  # messages that the request under way may still bring
        self._trouble: MeshError | None = None
        self._told = ""
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_over = False

    async def start(self) -> None:
        """Begin.

        Raises:
            MeshError: it cannot begin, e.g. because no stream keeps the whole subject.
        """
        self._subscription = await self._link.subscribe(self._inbox + ".*", self._arrived)
        self._link.on_lost.append(self._lost)
        self._link.on_restored += [self._news.set, self._streams.look]
        try:
            await self._make()
        except BaseException:
            await self.stop(0.0)
            raise
        self._reading = asyncio.create_task(self._read())
        self._tending = asyncio.create_task(self._tend())
        self._watching = asyncio.create_task(self._watch())

    async def stop(self, timeout: float) -> None:
        """Ask for nothing more, wait until what is held is settled, and hand the rest back. Safe twice.

        Args:
            timeout: seconds for what is held.
        """
        self._is_over = True
        self._news.set()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        subscription, self._subscription = self._subscription, None
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        if subscription is not None:
            await subscription.drain(_FAREWELL)  # a message may be on its way
        while self._held and loop.time() < deadline:
            self._news.clear()
            try:
                async with asyncio.timeout(deadline - loop.time()):
                    await self._news.wait()
            except TimeoutError:
                break
        await self._leave()

    async def _leave(self) -> None:
        for task in (self._tending, self._watching):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._lost in self._link.on_lost:
            self._link.on_lost.remove(self._lost)
            self._link.on_restored.remove(self._news.set)
            self._link.on_restored.remove(self._streams.look)
        for held in list(self._held.values()):
            held.again()
        try:
            await self._link.flush(_FAREWELL)
        except MeshError as error:
            _log.debug("handing back messages of %s: %s", self._subject, error)

    # -- on the server

    async def _make(self) -> None:
        try:
            await self._make_on_stream()
        except StorageError as error:
            if error.details.get("err_code") != OVERLAP:
                raise
            await self._make_on_stream()  # another one was made at the same time: that one is found now

    async def _make_on_stream(self) -> None:
        found = await self._streams.find()
        # Asked for first, kept then: so it is there for the consumer, and a stream is not changed for nothing.
        is_awaited = found.config is not None and await self._consumer.reach(found.name)
        await self._streams.prepare(found, is_awaited=is_awaited)
        await self._consumer.make(found.name)
        await self._streams.keep_less()
        self._streams.begun(found)
        self._stream = found.name

    async def _read(self) -> None:
        """Ask, and ask again, for ever."""
        pauses = Pauses(math.inf, _FIRST_PAUSE, _LONGEST_PAUSE)
        while not self._is_over:
            try:
                if not self._stream:
                    await self._make()
                await self._ask()
                await self._until_answered()
                pauses, self._told = Pauses(math.inf, _FIRST_PAUSE, _LONGEST_PAUSE), ""
            except ConnectionLost:
                await self._until_up()
            except MeshError as error:
                # It may last: until somebody gives back what is his, or permits what is needed.
                level = logging.DEBUG if str(error) == self._told else logging.WARNING
                _log.log(level, "reading %s from %s: %s", self._subject, self._stream or "the server", error)
                self._told = str(error)
                self._stream, self._asked = "", 0  # it may have been removed: look for it, or make it, again
                await pauses.pause()

    async def _ask(self) -> None:
        room = self._max_in_flight - len(self._held)
        if self._asked or room <= 0:
            return
        self._requests += 1
        self._asked = room
        body = {
            "batch": room,
            "expires": int(_EXPIRES * _NANOSECONDS),
            "idle_heartbeat": int(_HEARTBEAT * _NANOSECONDS),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        try:
            await self._link.publish(subject, json.dumps(body).encode(), f"{self._inbox}.{self._requests}")
        except BaseException:
            self._asked = 0
            raise

    async def _until_answered(self) -> None:
        """Wait for news of any kind; a request that brings not even a sign of life is over."""
        self._news.clear()
        try:
            async with asyncio.timeout(_HEARTBEAT * _SILENCE):
                await self._news.wait()
        except TimeoutError:
            if self._asked:
                self._asked = 0
                raise MeshTimeout(message="The server gave no sign of life.") from None
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble

    async def _until_up(self) -> None:
        while not self._link.is_up and not self._is_over:
            self._news.clear()
            await self._news.wait()

    def _lost(self, _: MeshError) -> None:
        self._asked, self._told = 0, ""
        self._news.set()

    # -- what it sends

    def _arrived(self, message: Message) -> None:
        status = (message.headers or {}).get(h.SERVER_STATUS)
        if status and message.subject.startswith(self._inbox):
            if message.subject == f"{self._inbox}.{self._requests}" and status != "100":
                self._asked = 0
                said = (message.headers or {}).get("Description", "")
                if status not in _NOTHING_YET or said == _DELETED:  # somebody else may have made one of its name
                    self._trouble = StorageError(f"The server ended a request: {status} {said}")
            self._news.set()
            return
        numbers = Delivered.of(message.reply)
        if numbers is None:
            return  # somebody else wrote to our inbox
        self._asked = max(0, self._asked - 1)
        self._news.set()
        known = self._held.get(_place_of(message.reply))
        if known is not None:
            # Given to us again while we work at it, for we could not say so in time: what we say counts for both.
            known.message, known.times = message, numbers.times
            return
        delivery = self._held[_place_of(message.reply)] = Delivery(self, message, numbers.times)
        self._on_message(delivery)

    # -- what it is told

    async def confirm(self, held: Delivery) -> None:
        """See `Delivery.done`."""
        while not held.is_settled:
            try:
                await self._replies.ask(held.message.reply, _DONE, _TIMEOUT)
            except ConnectionLost:
                if self._is_over:
                    break
                await self._until_up()
                continue
            except MeshError as error:
                level = logging.DEBUG if isinstance(error, MeshTimeout) else logging.WARNING
                text = "a message of %s was handled, and comes again, as that cannot be confirmed: %s"
                _log.log(level, text, self._subject, error)
            break
        self._forget(held)

    def settle(self, held: Delivery, word: bytes) -> None:
        """See `Delivery.again` and `Delivery.give_up`."""
        if held.is_settled:
            return
        try:
            self._link.publish_now(held.message.reply, word)
        except MeshError as error:
            _log.debug("settling a message of %s: %s", self._subject, error)
        self._forget(held)

    def _forget(self, held: Delivery) -> None:
        held.is_settled = True
        place = _place_of(held.message.reply)
        if self._held.get(place) is held:
            del self._held[place]
        self._news.set()

    async def _tend(self) -> None:
        """Say of what is held that it is still worked at."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            for held in list(self._held.values()):
                try:
                    self._link.publish_now(held.message.reply, _AT_WORK)
                except MeshError as error:
                    _log.debug("tending messages of %s: %s", self._subject, error)
                    break

    async def _watch(self) -> None:
        """Look now and then whether it is still what was asked for that is read, and our own."""
        while True:
            try:
                await self._streams.watch()
                if self._stream:
                    await self._consumer.check(self._stream)
            except StorageError as error:
                self._trouble = error
                self._news.set()
            except MeshError as error:
                _log.debug("looking at what keeps %s: %s", self._subject, error)


def _place_of(reply: str) -> str:
    """The message's number in the stream, as text."""
    numbers = Delivered.of(reply)
    return "" if numbers is None else str(numbers.revision)
