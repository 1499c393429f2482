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
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.delivered import Delivered
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
_IS_THERE: Final = 10148  # the consumer was made by somebody who said something else about it
_CHANGING: Final = ("filter_subject", "ack_wait")  # what may be another than when it was made

_OURS: Final = "Made for a durable consumer of the mesh."

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
        ack_wait: float = 30.0,
        max_in_flight: int = 64,
    ) -> None:
        self._link = link
        self._replies = replies
        self._jetstream = jetstream
        self._subject = subject
        self._name = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        self._on_message = on_message
        self._said_stream = stream
        self._stream = ""
        self._made: dict[str, Any] | None = None  # a stream of our own that keeps more than it need
        self._ack_wait = ack_wait
        self._max_in_flight = max_in_flight
        self._inbox = link.inbox()
        self._subscription: Subscription | None = None
        self._held: dict[str, Delivery] = {}
        self._requests = 0
        self._asked = 0  # messages that the request under way may still bring
        self._trouble: MeshError | None = None
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None
        self._is_over = False

    async def start(self) -> None:
        """Begin.

        Raises:
            MeshError: it cannot begin.
        """
        self._subscription = await self._link.subscribe(self._inbox + ".*", self._arrived)
        self._link.on_lost.append(self._lost)
        self._link.on_restored.append(self._news.set)
        try:
            await self._make()
        except BaseException:
            await self.stop(0.0)
            raise
        self._reading = asyncio.create_task(self._read())
        self._tending = asyncio.create_task(self._tend())

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
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait([self._tending])
        if self._lost in self._link.on_lost:
            self._link.on_lost.remove(self._lost)
            self._link.on_restored.remove(self._news.set)
        for held in list(self._held.values()):
            held.again()
        try:
            await self._link.flush(_FAREWELL)
        except MeshError as error:
            _log.debug("handing back messages of %s: %s", self._subject, error)

    # -- on the server

    async def _make(self) -> None:
        self._stream = self._said_stream or await self._find_stream()
        config: dict[str, Any] = {
            "name": self._name,
            "durable_name": self._name,
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait * _NANOSECONDS),
            "deliver_policy": "all",
            "filter_subject": self._subject,
            "max_deliver": -1,
            "replay_policy": "instant",
        }
        place = f"{self._stream}.{self._name}"
        try:
            await self._jetstream.api(f"CONSUMER.CREATE.{place}", self._creation(config, "create"))
        except StorageError as error:
            if error.details.get("err_code") != _IS_THERE:
                raise
            found = (await self._jetstream.api(f"CONSUMER.INFO.{place}"))["config"]
            changing = ("filter_subject",) if found.get("backoff") else _CHANGING  # that goes before `ack_wait`
            await self._change(found, {key: config[key] for key in changing if found.get(key)})
        await self._keep_less()

    def _creation(self, config: dict[str, Any], action: str) -> dict[str, Any]:
        return {"stream_name": self._stream, "config": config, "action": action}

    async def _change(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        """Have a consumer that was made for something else give what is wanted now. One that filters nothing, or in
        another way, was made by somebody who knows, and stays so."""
        if all(found[key] == value for key, value in wanted.items()):
            return
        before = found.get("filter_subject")
        if before and before != self._subject:
            _log.warning("the consumer %s of %s gave %s; now %s", self._name, self._stream, before, self._subject)
        changed = self._creation({**found, **wanted}, "update")
        await self._jetstream.api(f"CONSUMER.CREATE.{self._stream}.{self._name}", changed)

    async def _find_stream(self) -> str:
        """The stream that keeps the subject; one that keeps each message until all consumers have handled it is made
        if there is none."""
        name = f"mesh-{self._name}"
        found = await self._jetstream.api("STREAM.NAMES", {"subject": self._subject})
        names = found.get("streams") or [name]
        if names != [name]:
            return str(names[0])
        # With "interest", what is stored before there is the first consumer is confirmed and gone: see `_keep_less`.
        config = {"subjects": [self._subject], "retention": "limits", "storage": "file", "description": _OURS}
        made = (await self._jetstream.bind_or_create(name, config))["config"]
        self._made = made if made.get("description") == _OURS and made.get("retention") == "limits" else None
        kept = made.get("subjects") or []
        if not any(_holds(each, self._subject) for each in kept):
            # It was made for another subject, which others may still need.
            subjects = [each for each in kept if not _holds(self._subject, each)] + [self._subject]
            await self._jetstream.api(f"STREAM.UPDATE.{name}", {**made, "subjects": subjects})
        return name

    async def _keep_less(self) -> None:
        """Now that there is a consumer, a stream of our own need not keep what all consumers have handled."""
        made, self._made = self._made, None
        if made is None:
            return
        found = await self._jetstream.stream(self._stream)
        config = made if found is None else found["config"]
        try:
            await self._jetstream.api(f"STREAM.UPDATE.{self._stream}", {**config, "retention": "interest"})
        except MeshError as error:
            text = "the stream %s keeps everything for ever, until its retention is set to interest: %s"
            _log.warning(text, self._stream, error)

    async def _read(self) -> None:
        """Ask, and ask again, for ever."""
        pauses = Pauses(math.inf, _FIRST_PAUSE, _LONGEST_PAUSE)
        while not self._is_over:
            try:
                if not self._stream:
                    await self._make()
                await self._ask()
                await self._until_answered()
                pauses = Pauses(math.inf, _FIRST_PAUSE, _LONGEST_PAUSE)
            except ConnectionLost:
                await self._until_up()
            except MeshError as error:
                _log.warning("reading %s from %s: %s", self._subject, self._stream or "the server", error)
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
        self._asked = 0
        self._news.set()

    # -- what it sends

    def _arrived(self, message: Message) -> None:
        status = (message.headers or {}).get(h.SERVER_STATUS)
        if status and message.subject.startswith(self._inbox):
            if message.subject == f"{self._inbox}.{self._requests}" and status != "100":
                self._asked = 0
                if status not in _NOTHING_YET:  # e.g. because the consumer was removed
                    self._trouble = StorageError(f"The server ended a request: {status}")
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
            except MeshTimeout as error:
                _log.debug("confirming a message of %s: %s", self._subject, error)
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


def _place_of(reply: str) -> str:
    """The message's number in the stream, as text."""
    numbers = Delivered.of(reply)
    return "" if numbers is None else str(numbers.revision)


def _holds(wide: str, narrow: str) -> bool:
    """Whether all that one pattern of subjects fits, another one fits, too."""
    ours, theirs = wide.split("."), narrow.split(".")
    for index, token in enumerate(ours):
        if token == ">":
            return len(theirs) > index
        if index >= len(theirs) or theirs[index] == ">" or token not in ("*", theirs[index]):
            return False
    return len(ours) == len(theirs)
