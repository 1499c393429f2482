"""One connection to a server, from connecting until it is closed or lost. The only module that knows the NATS client.

A `Connection` is never repaired. When it is lost it says so once, through ``on_loss``, and whoever holds it
(`link.Link`) makes a new one: there is one way for every kind of loss, also for those after which the NATS client
itself would give up for good, and nothing that was published while the server was away is sent by surprise when it is
back.

What the NATS client does differently from what is wanted, and what is done about it here:

* its ``publish`` can block for ten seconds, swallow a cancellation, and then report success: here it never waits, for
  its own limit is out of reach, and `Link` makes publishers wait before that;
* its ``flush`` asks the server before it has sent what it asks about: here the question waits its turn;
* ``flush`` succeeds on a dead connection: `Connection.flush` looks whether it is alive afterwards;
* a loss can end its tasks without any callback: the one method that sees every loss is overridden, and if a later
  version has no such method, the signs of life below find out within seconds;
* its errors come in several shapes: all leave this module as `MeshError`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.client import PING_PROTO, Client

from xml_pipeline.mesh.errors import (
    ConnectionDenied,
    ConnectionFailed,
    ConnectionLost,
    MeshError,
    MeshTimeout,
    PayloadTooLarge,
)

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from xml_pipeline.mesh.message import OnMessage
    from xml_pipeline.mesh.options import ConnectionOptions

__all__ = ["Connection", "OnDenied", "OnLoss"]

_log = logging.getLogger(__name__)

OnLoss = Callable[[MeshError], None]
# What was not permitted: the subject, and the error to raise for it.
OnDenied = Callable[[str, ConnectionDenied], None]

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)
_REFUSED = re.compile(r"authorization violation|authentication (expired|revoked|timeout)|account", re.IGNORECASE)
# Printable ASCII: what the NATS client lets through, less the control characters.
_HEADER_NAME = re.compile(rb"[!-9;-~]*")
_OUT_OF_REACH = 1 << 30
# Only a message that comes near the limit, or has unusual headers, has to be measured.
_USUAL_HEADERS = 65_536
_MANY_HEADERS = 16
_HEADER_LINE = 12  # its first and its last
_NEVER = 86_400 * 365
_FAREWELL = 1.0


class _Client(Client):
    """A NATS client that tells about every loss before it deals with it, asks in order, and reads headers quickly.

    These methods are its own business; in a version that has none of these names, they are simply never called.
    """

    on_loss: Callable[[Exception], None]

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """That of the base class overtakes what still waits to be written, so that the answer to it proves nothing:
        after a drain, requests that the server had sent before it knew of the drain would be lost."""
        self._pongs.append(future if future is not None else asyncio.get_running_loop().create_future())
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """The same as that of the base class, which looks at every character of every name: it takes most of the time
        of a small message."""
        found = {}
        for line in raw.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon and _HEADER_NAME.fullmatch(name := name.strip()):
                found[name.decode("ascii")] = value.strip().decode("utf-8", "replace")
        return found

    async def _process_op_err(self, e: Exception) -> None:
        self.on_loss(e)
        await super()._process_op_err(e)


class Connection:
    """One connection, made by `open`.

    Args:
        options: see there.
        on_loss: called once when it is lost, not when it is closed.
        on_denied: called when the server does not permit a subject.
    """

    def __init__(self, options: ConnectionOptions, on_loss: OnLoss, on_denied: OnDenied) -> None:
        self._options = options
        self._on_loss: OnLoss | None = on_loss
        self._on_denied = on_denied
        self._client = _Client()
        self._client.on_loss = self._lost
        self._subscriptions: dict[int, Subscription] = {}
        self._pinger: asyncio.Task[None] | None = None
        self._last_error: Exception | None = None

    @classmethod
    async def open(cls, options: ConnectionOptions, on_loss: OnLoss, on_denied: OnDenied) -> Connection:
        """Connect, in one attempt.

        Raises:
            ConnectionFailed: there is no server, or no way to it.
            ConnectionDenied: the server does not take the credentials.
        """
        connection = cls(options, on_loss, on_denied)
        await connection._open()
        return connection

    async def _open(self) -> None:
        options = self._options
        settings: dict[str, Any] = {}
        if (context := options.tls_context()) is not None:
            settings["tls"] = context
        if (creds := options.credentials_file()) is not None:
            settings["user_credentials"] = str(creds)
        try:
            await self._client.connect(
                servers=options.urls,
                name=options.name or None,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=options.connect_timeout,  # type: ignore[arg-type]  # seconds, also parts of one
                ping_interval=_NEVER,
                pending_size=_OUT_OF_REACH,
                error_cb=self._failed,
                closed_cb=self._closed,
                **settings,
            )
        except (nats.errors.Error, OSError, ValueError, ImportError) as error:
            self._on_loss = None
            await self._abandon()
            raise self._why_not(error) from error
        except BaseException:
            self._on_loss = None
            await self._abandon()
            raise
        self._pinger = asyncio.create_task(self._look_for_life())

    def _why_not(self, error: Exception) -> MeshError:
        reason = self._last_error if isinstance(error, nats.errors.NoServersError) and self._last_error else error
        where = without_password(self._options.url)
        if isinstance(error, ImportError):
            return ConnectionFailed(f"Credentials files need the package nkeys: pip install 'nats-py[nkeys]' ({error})")
        if isinstance(reason, nats.errors.AuthorizationError) or _REFUSED.search(str(reason)):
            return ConnectionDenied(f"The server at {where} refused the credentials: {reason}")
        text = str(reason) or type(reason).__name__
        return ConnectionFailed(f"There is no connection to the mesh at {where}: {text}. Is it running?")

    # -- what the server says

    @property
    def is_alive(self) -> bool:
        """Whether it is connected, as far as is known."""
        return self._on_loss is not None and self._client.is_connected

    @property
    def max_payload(self) -> int:
        """The most bytes of headers and body in one message."""
        return self._client.max_payload

    @property
    def pending(self) -> int:
        """Bytes that wait to be written."""
        return self._client.pending_data_size

    # -- verbs

    def publish(self, subject: str, body: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Hand a message to the connection; it does not wait for anything.

        Raises:
            ConnectionLost: there is no connection any more.
            PayloadTooLarge: headers and body are larger than `max_payload`.
        """
        if not self.is_alive:
            raise ConnectionLost
        if len(body) + _USUAL_HEADERS > self.max_payload or len(headers or ()) > _MANY_HEADERS:
            self._check_size(body, headers or {})
        step = self._client.publish(subject, body, reply, headers)
        try:
            step.send(None)
        except StopIteration:
            return
        except nats.errors.Error as error:
            raise translated(error) from error
        step.close()  # it wants to wait; the message is in the buffer, and goes out with the next flush

    def _check_size(self, body: bytes, headers: dict[str, str]) -> None:
        size = len(body) + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())
        if headers:
            size += _HEADER_LINE
        if size > self.max_payload:
            raise PayloadTooLarge(f"A message of {size} bytes is larger than the {self.max_payload} the server allows.")

    async def subscribe(self, subject: str, on_message: OnMessage, queue: str = "") -> int:
        """Subscribe.

        Returns:
            What `unsubscribe` and `drain` take.

        Raises:
            ConnectionLost: there is no connection any more.
        """
        if not self.is_alive:
            raise ConnectionLost

        async def deliver(message: Msg) -> None:
            on_message(message)

        try:
            subscription = await self._client.subscribe(subject, queue, deliver, pending_bytes_limit=0)
        except nats.errors.Error as error:
            raise translated(error) from error
        self._subscriptions[id(subscription)] = subscription
        return id(subscription)

    async def unsubscribe(self, key: int) -> None:
        """End a subscription; what has not been delivered is not. On a lost connection it does nothing."""
        subscription = self._subscriptions.pop(key, None)
        if subscription is not None and self.is_alive:
            try:
                await subscription.unsubscribe()
            except (nats.errors.Error, OSError) as error:
                _log.debug("unsubscribing: %s", error)

    async def drain(self, key: int, timeout: float) -> None:
        """End a subscription after everything that the server has sent to it was delivered.

        Args:
            key: from `subscribe`.
            timeout: seconds to wait for the server.
        """
        subscription = self._subscriptions.pop(key, None)
        if subscription is not None and self.is_alive:
            try:
                await asyncio.wait_for(subscription.drain(), timeout)  # type: ignore[no-untyped-call]
            except (nats.errors.Error, OSError, TimeoutError) as error:
                _log.debug("draining a subscription: %s", error)

    async def flush(self, timeout: float) -> None:
        """Wait until the server has everything that was published so far.

        Raises:
            ConnectionLost: there is no connection any more.
            MeshTimeout: the server did not say so in time.
        """
        if self.is_alive:
            try:
                await self._client.flush(timeout)  # type: ignore[arg-type]  # seconds, also parts of one
            except nats.errors.TimeoutError as error:
                raise MeshTimeout("The server did not answer in time.", timeout=timeout) from error
            except (nats.errors.Error, OSError) as error:
                raise translated(error) from error
        if not self.is_alive:
            raise ConnectionLost

    async def close(self) -> None:
        """Send what is waiting, and close. It takes a second at most, and is safe twice."""
        self._on_loss = None
        await self._abandon()

    # -- how it ends

    async def _look_for_life(self) -> None:
        missing = 0
        while True:
            await asyncio.sleep(self._options.ping_interval if not missing else 0)
            try:
                await self.flush(self._options.ping_timeout)
                missing = 0
            except MeshTimeout:
                # One may be missing because this process was stopped for a while, and its clock ran on.
                missing += 1
                if missing == 2:
                    return self._lost(nats.errors.StaleConnectionError())
            except MeshError as error:
                return self._lost(error)

    async def _failed(self, error: Exception) -> None:
        """Whatever the client reports outside of a call: most of it belongs to the log."""
        self._last_error = error
        if denied := _DENIED.search(str(error)):
            operation, subject = denied.groups()
            self._on_denied(subject, denied_error(operation.lower(), subject))
        elif isinstance(error, nats.errors.StaleConnectionError):  # its subclass, the end of the input, too
            self._lost(error)
        elif not isinstance(error, nats.errors.Error | OSError):
            _log.error("a callback of a subscription failed", exc_info=error)
        else:
            _log.debug("nats: %s", error)

    async def _closed(self) -> None:
        self._lost(self._last_error or nats.errors.ConnectionClosedError())

    def _lost(self, error: Exception) -> None:
        on_loss, self._on_loss = self._on_loss, None
        if on_loss is None or self._pinger is None:
            return
        _log.debug("the connection is lost: %s", error)
        on_loss(ConnectionLost(details={"reason": str(error) or type(error).__name__}))

    async def _abandon(self) -> None:
        """Close what can be closed; of a client that hangs in it, cancel what it left."""
        if self._pinger is not None and self._pinger is not asyncio.current_task():
            self._pinger.cancel()
        try:
            await asyncio.wait_for(self._client.close(), _FAREWELL)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            _log.debug("closing: %s", error)
        for subscription in self._subscriptions.values():
            task = getattr(subscription, "_wait_for_msgs_task", None)
            if task is not None:
                task.cancel()
        self._subscriptions.clear()
        transport = getattr(self._client, "_transport", None)
        if transport is not None:
            transport.close()


def translated(error: Exception) -> MeshError:
    """The error of the NATS client as one of ours."""
    if isinstance(error, nats.errors.MaxPayloadError):
        return PayloadTooLarge()
    if isinstance(error, nats.errors.TimeoutError):
        return MeshTimeout()
    if isinstance(error, nats.errors.AuthorizationError):
        return ConnectionDenied(str(error))
    if isinstance(error, nats.errors.BadSubjectError | nats.errors.BadHeaderError):
        return MeshError(message=str(error) or "A header cannot be sent.")
    return ConnectionLost(details={"reason": str(error) or type(error).__name__})


def denied_error(operation: str, subject: str) -> ConnectionDenied:
    """The error of a subject that the server does not permit."""
    verb = "publish to" if operation == "publish" else "subscribe to"
    return ConnectionDenied(
        f"The server does not permit to {verb} {subject}.", details={"operation": operation, "subject": subject}
    )


def without_password(url: str) -> str:
    """The URL as it may stand in a log or an error."""
    return re.sub(r"//[^@/,]*@", "//***@", url)
