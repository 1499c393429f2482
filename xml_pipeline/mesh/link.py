"""The lasting link to the mesh: it outlives its connections.

::

    closed --open--> up --lost--> down --connected again--> up
      ^______________close_______________________________/

While it is down, everything that needs the server is refused at once (`ConnectionLost`), nothing is kept to be sent
later; a new connection is tried with growing, jittered pauses for as long as it takes. Subscriptions survive: they are
made again on the new connection before anybody is told that the link is up.

Parts of the mesh that have to do something about it (fail what waits, write a record again, look what a watch has
missed) add a callback to `on_lost` and `on_restored`. Callbacks are called in the order in which they were added, must
not wait, and must not raise.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from typing import TYPE_CHECKING

from xml_pipeline.mesh.connection import Connection
from xml_pipeline.mesh.errors import ConnectionDenied, ConnectionFailed, ConnectionLost, MeshError, MeshTimeout
from xml_pipeline.mesh.refusals import SUBSCRIBE, is_about
from xml_pipeline.mesh.setbacks import Setbacks
from xml_pipeline.mesh.subjects import new_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.mesh.message import OnMessage
    from xml_pipeline.mesh.options import ConnectionOptions

__all__ = ["Link", "Subscription"]

_log = logging.getLogger(__name__)

_FLUSH_TIMEOUT = 10.0
_MOST_DENIALS = 256
_SETTLING = 1.0  # seconds that connecting may take, beyond the longest pause before it


class Subscription:
    """Interest in a subject, for as long as it is not closed and whatever happens to the connection.

    Made by `Link.subscribe`.
    """

    def __init__(
        self, link: Link, subject: str, on_message: OnMessage, queue: str, on_denied: Callable[[ConnectionDenied], None]
    ) -> None:
        self.subject = subject
        self.queue = queue
        self.on_denied = on_denied
        self._link = link
        self._on_message = on_message
        self._connection: Connection | None = None
        self._key = 0

    def attach(self, connection: Connection) -> None:
        """Make it known to this connection; for `Link`."""
        self._key = connection.subscribe(self.subject, self._on_message, self.queue)
        self._connection = connection

    async def close(self) -> None:
        """End it. Messages that have not been delivered yet are not."""
        self._link.forget(self)
        if self._connection is not None:
            self._connection.unsubscribe(self._key)

    async def drain(self, timeout: float) -> None:
        """End it after everything that the server has sent for it was delivered.

        Args:
            timeout: seconds to wait for the server.
        """
        self._link.forget(self)
        if self._connection is not None:
            await self._connection.drain(self._key, timeout)


class Link:
    """The link of one mesh object.

    Args:
        options: where and how to connect.
    """

    def __init__(self, options: ConnectionOptions) -> None:
        self.options = options
        self.on_lost: list[Callable[[MeshError], None]] = []
        self.on_restored: list[Callable[[], None]] = []
        self.on_denied: list[Callable[[str, ConnectionDenied], None]] = []
        self.losses = 0
        self._denials: set[str] = set()  # those that were told
        self._setbacks = Setbacks(_log)
        self._connection: Connection | None = None
        self._subscriptions: dict[Subscription, None] = {}  # a dict, because they are made again in order
        self._up = asyncio.Event()
        self._reconnecting: asyncio.Task[None] | None = None
        self._relief: asyncio.Task[None] | None = None
        self._waiting = 0
        self._delay = 0.0  # before the next attempt to connect
        self._since = 0.0  # when there was a connection, in the loop's time
        self._is_open = False

    # -- from the first connection to the last

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not closed, be it up or down."""
        return self._is_open

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self._up.is_set()

    @property
    def waiting(self) -> int:
        """How many wait for a connection, see `wait_up`."""
        return self._waiting

    @property
    def is_fresh(self) -> bool:
        """Whether the connection was made again only a moment ago, so that others may not be back yet."""
        moment = self.options.longest_delay + _SETTLING
        return self.losses > 0 and self.is_up and asyncio.get_running_loop().time() < self._since + moment

    @property
    def max_payload(self) -> int:
        """The most bytes of headers and body in one message; 0 before the first connection."""
        return self._connection.max_payload if self._connection is not None else 0

    async def open(self) -> None:
        """Connect for the first time, in one attempt at each server, until one takes us.

        Raises:
            ConnectionFailed: there is no server there.
            ConnectionDenied: none takes us, and one of them says why: most often the credentials.
        """
        self._connection = await Connection.open(self.options, self._lost, self._denied)
        self._is_open = True
        self._since = asyncio.get_running_loop().time()
        self._up.set()

    async def close(self) -> None:
        """Send what waits to be sent, and close for good. Safe twice, and while it is down."""
        self._is_open = False
        self._up.clear()
        for task in (self._reconnecting, self._relief):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        self._reconnecting = self._relief = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        self._subscriptions.clear()

    async def wait_up(self, timeout: float) -> None:
        """Wait until there is a connection.

        Raises:
            ConnectionLost: there was none in time.
        """
        self._check_open()
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout):  # `wait_for` may swallow a cancellation
                await self._up.wait()
        except TimeoutError:
            raise ConnectionLost from None
        finally:
            self._waiting -= 1

    @property
    def _has_lasted(self) -> bool:
        """Whether the connection there is, or was, was made more than a moment ago. A server that ends every connection
        soon, e.g. for too many subscriptions, is not to be asked without a pause."""
        return asyncio.get_running_loop().time() - self._since > self.options.longest_delay

    def _lost(self, error: MeshError) -> None:
        if not self._is_open:
            return
        self._up.clear()
        self.losses += 1
        self._setbacks.lost(error, lasted=self._has_lasted)
        for tell in list(self.on_lost):
            tell(error)
        self._reconnecting = asyncio.create_task(self._reconnect())

    def _denied(self, subject: str, error: ConnectionDenied) -> None:
        kind = f"{error.details.get('operation')} {subject.rpartition('.')[0]}"  # many end with an id
        _log.log(logging.DEBUG if kind in self._denials else logging.WARNING, "%s", error)
        if len(self._denials) < _MOST_DENIALS:
            self._denials.add(kind)
        if is_about(error, SUBSCRIBE):
            for subscription in list(self._subscriptions):
                if subscription.subject == subject:
                    subscription.on_denied(copy.copy(error))  # each may raise its own
        for tell in list(self.on_denied):
            tell(subject, error)

    async def _reconnect(self) -> None:
        lost, self._connection = self._connection, None
        if lost is not None:
            await lost.close()
        if self._has_lasted:
            self._delay = 0.0
        while self._is_open:  # else it was closed, and cancelling this got lost in the NATS client
            # Half of the pause is chance, lest everybody comes back in the same moment.
            await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))
            self._delay = min(self.options.longest_delay, max(self.options.first_delay, self._delay * 2))
            if await self._try_again():
                return

    async def _try_again(self) -> bool:
        try:
            connection = await Connection.open(self.options, self._lost_again, self._denied)
        except MeshError as error:
            self._setbacks.refused(error)
            return False
        try:
            for subscription in list(self._subscriptions):
                subscription.attach(connection)
            await connection.flush(_FLUSH_TIMEOUT)
        except MeshError as error:
            _log.debug("making the subscriptions again: %s", error)
            await connection.close()
            return False
        except BaseException:
            await connection.close()
            raise
        if not self._is_open:  # it was closed, and cancelling this got lost in the NATS client
            await connection.close()
            return True
        self._connection = connection
        self._since = asyncio.get_running_loop().time()
        self._up.set()
        _log.info("the connection to the mesh is there again")
        for tell in list(self.on_restored):
            tell()
        return True

    def _lost_again(self, error: MeshError) -> None:
        """A later connection is lost; while it is being set up, `_try_again` finds out by itself."""
        if self._up.is_set():
            self._lost(error)

    # -- messages

    def _check_open(self) -> None:
        if not self._is_open:
            raise ConnectionFailed("There is no connection to the mesh yet: use `async with mesh:` first.")

    def connection(self) -> Connection:
        """The connection there is now.

        Raises:
            ConnectionFailed: the link was never opened, or is closed.
            ConnectionLost: it is down.
        """
        connection = self._connection
        if connection is None or not self._up.is_set():
            self._check_open()
            raise ConnectionLost("There is no connection to the mesh at the moment; nothing was sent.")
        return connection

    @property
    def is_congested(self) -> bool:
        """Whether so much waits to be written that `publish` would wait."""
        return self._connection is not None and self._connection.pending > self.options.high_water

    async def publish(
        self,
        subject: str,
        body: bytes,
        reply: str = "",
        headers: dict[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Publish; waits while too much waits to be written.

        Args:
            subject: where; it must have been checked.
            body: the payload.
            reply: where answers go; empty for nowhere.
            headers: see `xml_pipeline.mesh.headers`.
            timeout: seconds that it may wait; ``None`` for as long as there is a connection.

        Raises:
            ConnectionLost: there is no connection at the moment; the message was not sent.
            MeshTimeout: too much waited for too long; the message was not sent.
            ConnectionFailed: the link is not open.
            PayloadTooLarge: the server takes no messages of this size.
        """
        if self.is_congested:
            await self._until_relieved(timeout)
        self.connection().publish(subject, body, reply, headers)

    def publish_now(self, subject: str, body: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """The same without waiting, for callbacks that send little. Raises the same."""
        self.connection().publish(subject, body, reply, headers)

    async def flush(self, timeout: float = _FLUSH_TIMEOUT) -> None:
        """Wait until the server has everything that was published so far.

        Args:
            timeout: in seconds.

        Raises:
            ConnectionLost: there is no connection any more.
            MeshTimeout: the server did not say so in time.
        """
        await self.connection().flush(timeout)

    async def _until_relieved(self, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                while self.is_congested:
                    await self._relieved()
        except TimeoutError:
            text = "The server takes nothing at the moment; nothing was sent."
            raise MeshTimeout(message=text, timeout=timeout or 0.0) from None

    async def _relieved(self) -> None:
        """Wait until what waits was written; one round trip serves all who wait."""
        if self._relief is None or self._relief.done():
            self._relief = asyncio.create_task(self._relieve())
        await asyncio.shield(self._relief)
        self.connection()

    async def _relieve(self) -> None:
        try:
            await self.flush()
        except MeshTimeout:
            _log.warning("the server takes %s bytes only slowly", self._connection and self._connection.pending)
        except MeshError as error:
            _log.debug("while waiting for the server: %s", error)

    async def subscribe(
        self,
        subject: str,
        on_message: OnMessage,
        queue: str = "",
        on_denied: Callable[[ConnectionDenied], None] = lambda _: None,
    ) -> Subscription:
        """Subscribe, across all connections to come.

        Args:
            subject: where; it must have been checked. May have wildcards.
            on_message: called for each message; must not wait.
            queue: the group in which each message goes to one member only; empty for none.
            on_denied: called when the server does not permit it, now or after a reconnection; must not wait.

        Raises:
            ConnectionFailed: see `publish`.
        """
        connection = self.connection()
        subscription = Subscription(self, subject, on_message, queue, on_denied)
        self._subscriptions[subscription] = None
        try:
            subscription.attach(connection)
        except BaseException:
            self.forget(subscription)
            raise
        return subscription

    def forget(self, subscription: Subscription) -> None:
        """Do not make it again; for `Subscription`."""
        self._subscriptions.pop(subscription, None)

    @staticmethod
    def inbox() -> str:
        """A fresh subject for answers."""
        return f"_INBOX.{new_id()}"
