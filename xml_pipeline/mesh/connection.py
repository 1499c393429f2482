"""One connection to a server, from connecting until it is closed or lost. The only module that knows the NATS client.

A `Connection` is never repaired. When it is lost it says so once, through ``on_loss``, and whoever holds it
(`link.Link`) makes a new one: there is one way for every kind of loss, also for those after which the NATS client
itself would give up for good, and nothing that was published while the server was away is sent by surprise when it is
back.

What the NATS client does differently from what is wanted, and what is done about it here:

* its ``publish`` can block for ten seconds, swallow a cancellation, and then report success: here it never waits, for
  its own limit is out of reach, and `Link` makes publishers wait before that;
* its ``flush`` asks the server before it has sent what it asks about: here the question waits its turn;
* ``flush`` succeeds on a dead connection, swallows a cancellation that comes together with the answer, and ends the
  reading for good where the answer comes after its timeout: here it is waited for in another way;
* a loss can end its tasks without any callback: the one method that sees every loss is overridden, and if a later
  version has no such method, the signs of life below find out within seconds;
* it sends passwords and tokens in the clear where TLS was asked for, if the server does not insist on TLS: here it is
  refused before;
* it makes small letters of what the server says, also of subjects, and keeps to itself why a connection is ended: here
  the server's own words are kept, and are the reason;
* it gives up when the first server that can be reached does not take us, or hangs up: here the others are tried, too;
* it takes whatever follows its greeting for a connection: here it must be what a server says;
* it reads only the first word about the largest message: here also the later ones;
* its errors come in several shapes: all leave this module as `MeshError`;
* it has a queue and a task for every subscription, a future for every write, and looks at every character of every
  header: what goes over the wire often is written in `commands` and read in `arrivals`, and is handed over at once.

It is left to connect, to log in, to read, to deal with what the server says besides messages, and to close.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.client import PING_PROTO, Client, RawCredentials
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from xml_pipeline.mesh.arrivals import Arrivals
from xml_pipeline.mesh.commands import publish_command, subscribe_command, unsubscribe_command
from xml_pipeline.mesh.errors import (
    ConnectionDenied,
    ConnectionLost,
    MeshError,
    MeshTimeout,
    PayloadTooLarge,
)
from xml_pipeline.mesh.refusals import Failure, Refusal, complaint_in, refusal_in, why_not
from xml_pipeline.mesh.url import without_password

if TYPE_CHECKING:
    from nats.aio.client import Srv

    from xml_pipeline.mesh.arrivals import Received
    from xml_pipeline.mesh.message import OnMessage
    from xml_pipeline.mesh.options import ConnectionOptions

__all__ = ["Connection", "OnDenied", "OnLoss"]

_log = logging.getLogger(__name__)

OnLoss = Callable[[MeshError], None]
# What was not permitted: the subject, and the error to raise for it; see `refusals.is_about`.
OnDenied = Callable[[str, ConnectionDenied], None]

_OUT_OF_REACH = 1 << 30
_HEADER_LINE = 12  # its first and its last
_AT_ONCE = 32_768  # bytes that are written without waiting for more
_NEVER = 86_400 * 365
_FAREWELL = 1.0
_COMPLAINT = b"-ERR"
_PERMISSION = "permissions violation"
# What the client raises where there is no server; the last ones come of what it makes of a stranger's greeting.
_NOT_MADE = (nats.errors.Error, OSError, ValueError, ImportError, AttributeError, TypeError, LookupError)


class _Complaint(nats.errors.Error):
    """What a server says against us; the text is its own."""

    def __str__(self) -> str:
        return complaint_in(str(self.args[0])) or "nothing"


class _Stranger(nats.errors.ProtocolError):
    """This is not what a server says."""


class _Transport(TcpTransport):
    """A connection whose greeting is looked at: lines are read, and single commands written, only until the server has
    let us in.

    What is written waits until something is to be read: the second of two writes to a server that has complained and
    gone fails, and with it goes the complaint.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._held: list[bytes] = []

    def __bool__(self) -> bool:
        """Whether the base class need not make another one."""
        return True

    def write(self, payload: bytes) -> None:
        self._held.append(payload)

    async def drain(self) -> None:
        if not self._held:
            await super().drain()  # type: ignore[no-untyped-call]

    async def readline(self) -> bytes:
        if self._held:
            self.writelines([b"".join(self._held)])  # type: ignore[no-untyped-call]
            self._held.clear()
        try:
            line: bytes = await super().readline()  # type: ignore[no-untyped-call]
        except ValueError as error:  # it is too long
            raise _Stranger from error
        if line.startswith(_COMPLAINT):
            raise _Complaint(_words_of(line))
        if not line:
            raise ConnectionResetError("it hung up")
        return line


class _Parser(Parser):
    """Hands on messages and complaints at once, and has the base class read what is neither."""

    def __init__(self, client: _Client) -> None:
        super().__init__(client)
        self._client = client
        self._arrivals = Arrivals(client.deliver)

    async def parse(self, data: bytes = b"") -> None:
        try:
            while (line := self._arrivals.feed(data)) is not None:
                if line.startswith(_COMPLAINT):
                    await self._client.hear(_words_of(line))
                else:
                    await super().parse(line)
                data = b""
        except ValueError as error:
            raise nats.errors.ProtocolError(str(error)) from error


class _Client(Client):
    """A NATS client that tells about every loss before it deals with it, asks in order, and wastes no time.

    What it overrides and uses are the private names of version 2.16, on which the project depends.
    """

    on_loss: Callable[[Exception], None]
    on_denied: OnDenied
    must_encrypt = False

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Parser(self)
        self._takers: dict[int, OnMessage] = {}
        self._will_write = False

    def _connect_command(self) -> bytes:
        """What says who we are, which that of the base class also sends where nothing is encrypted."""
        if self.must_encrypt and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()

    @property
    def asks_for_certificate(self) -> bool:
        """Whether the server wants everybody to show a certificate."""
        return isinstance(self._server_info, dict) and bool(self._server_info.get("tls_verify"))

    async def _connect_to_server(self, s: Srv) -> None:
        if s.uri.scheme not in ("ws", "wss"):
            self._transport = _Transport()
        await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        if not self.is_connected:  # else it would go on as if there were a server, and never send anything
            raise _Stranger

    async def _process_info(self, info: object, initial_connection: bool = False) -> None:
        """That of the base class is for the addresses of other servers, which are not used here."""
        size = info.get("max_payload", self._max_payload) if isinstance(info, dict) else None
        if not isinstance(size, int):
            raise _Stranger
        if size > 0 and size != self._max_payload and not initial_connection:
            _log.info("the server takes messages of %s bytes from now on, not of %s", size, self._max_payload)
            self._max_payload = size

    async def hear(self, said: str) -> None:
        """Deal with a complaint; for the parser."""
        denied = refusal_in(said)
        if denied is not None:
            self.on_denied(denied.details["subject"], denied)  # the connection stays
        elif _PERMISSION in said.lower():  # e.g. of where answers are to go
            _log.debug("nats: %s", complaint_in(said))
        else:
            await self._process_op_err(_Complaint(said))

    async def _process_op_err(self, e: Exception) -> None:
        self.on_loss(e)
        try:
            await super()._process_op_err(e)
        except OSError as error:  # it writes to the connection that is lost, in a task whose errors nobody sees
            _log.debug("ending a lost connection: %s", error)

    # -- out

    def push(self, command: bytes) -> None:
        """Send a command soon: with everything else that is sent in this turn of the loop."""
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self._pending_data_size > _AT_ONCE:
            self._write()
        elif not self._will_write:
            self._will_write = True
            asyncio.get_running_loop().call_soon(self._write_now)

    def _write_now(self) -> None:
        self._will_write = False
        self._write()

    def _write(self) -> None:
        """Write what waits, unless earlier bytes are still waiting in the transport: then the task that waits for it
        writes, and so `pending` grows until publishers wait."""
        if not self._pending_data_size or not self.is_connected:
            return
        writer = getattr(self._transport, "_io_writer", None)  # a web socket has none
        if writer is not None and not writer.transport.is_closing() and not writer.transport.get_write_buffer_size():
            pending, self._pending = self._pending, []
            self._pending_data_size = 0
            writer.transport.write(b"".join(pending))
        elif self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """That of the base class overtakes what still waits to be written, so that the answer to it proves nothing:
        after a drain, requests that the server had sent before it knew of the drain would be lost."""
        self.ask(future)

    def ask(self, answer: asyncio.Future[bool] | None = None) -> asyncio.Future[bool]:
        """Ask for a sign of life, which comes after everything that the server has sent until it is asked."""
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
        self._pongs.append(answer)
        self.push(PING_PROTO)
        return answer

    def expect_no_answers(self) -> None:
        """Let go whoever waits for an answer: none will come."""
        for answer in self._pongs:
            if not answer.done():
                answer.set_result(False)

    async def _process_pong(self) -> None:
        """That of the base class ends all reading when whoever asked has given up meanwhile."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    # -- in

    def attach(self, subject: str, queue: str, on_message: OnMessage) -> int:
        """Subscribe. Returns the number of the subscription."""
        self._sid += 1
        self._takers[self._sid] = on_message
        self.push(subscribe_command(subject, queue, self._sid))
        return self._sid

    def detach(self, number: int) -> None:
        """Tell the server that it may send no more; what it has sent is still delivered, until `forget`."""
        self.push(unsubscribe_command(number))

    def forget(self, number: int) -> None:
        """Deliver no more."""
        self._takers.pop(number, None)

    def deliver(self, number: int, message: Received) -> None:
        """Hand a message to who takes it; for the parser."""
        take = self._takers.get(number)
        if take is None:
            return
        try:
            take(message)
        except Exception:
            _log.exception("a callback of a subscription failed")


class Connection:
    """One connection, made by `open`.

    Args:
        options: see there.
        url: of the server.
        on_loss: called once when it is lost, not when it is closed.
        on_denied: called when the server does not permit a subject.
    """

    def __init__(self, options: ConnectionOptions, url: str, on_loss: OnLoss, on_denied: OnDenied) -> None:
        self._options = options
        self._url = url
        self._on_loss: OnLoss | None = on_loss
        self._client = _Client()
        self._client.must_encrypt = options.must_encrypt
        self._client.on_loss = self._lost
        self._client.on_denied = on_denied
        self._pinger: asyncio.Task[None] | None = None
        self._last_error: Exception | None = None

    @classmethod
    async def open(cls, options: ConnectionOptions, on_loss: OnLoss, on_denied: OnDenied) -> Connection:
        """Connect, in one attempt at each server, in any order, until one takes us.

        Raises:
            ConnectionFailed: there is no server, or no way to it.
            ConnectionDenied: the server does not take the credentials.
        """
        urls, settings = options.urls, _settings(options)
        asked_to_stop = _asked_to_stop()
        failures: list[Failure] = []
        for url in random.sample(urls, len(urls)):  # lest everybody goes to the first
            connection = cls(options, url, on_loss, on_denied)
            failure = await connection._open(settings)
            if failure is None:
                return connection
            if _asked_to_stop() > asked_to_stop:
                raise asyncio.CancelledError  # which got lost in the NATS client
            failures.append(failure)
            if failure.kind is Refusal.NO_KEYS:
                break
        raise why_not(failures, options)

    async def _open(self, settings: dict[str, Any]) -> Failure | None:
        """Connect. Returns why not, if so."""
        try:
            # Each of its steps may take as long as all of them.
            async with asyncio.timeout(self._options.connect_timeout):
                await self._client.connect(
                    servers=[self._url], error_cb=self._failed, closed_cb=self._closed, **settings
                )
        except _NOT_MADE as error:
            self._on_loss = None
            await self._abandon()
            reason = self._last_error if isinstance(error, nats.errors.NoServersError) and self._last_error else error
            return Failure(self._url, self._kind_of(reason), reason)
        except BaseException:
            self._on_loss = None
            await self._abandon()
            raise
        self._pinger = asyncio.create_task(self._look_for_life())
        return None

    def _kind_of(self, error: Exception) -> Refusal:
        if isinstance(error, ImportError):
            return Refusal.NO_KEYS
        if isinstance(error, _Complaint):
            return Refusal.COMPLAINT
        if isinstance(error, nats.errors.SecureConnWantedError):
            return Refusal.NOT_ENCRYPTED
        if isinstance(error, ssl.SSLCertVerificationError):
            return Refusal.CERTIFICATE
        if self._client.asks_for_certificate and isinstance(error, OSError):
            return Refusal.OUR_CERTIFICATE  # with the present TLS, the server simply hangs up
        if isinstance(error, ssl.SSLError):
            return Refusal.TLS
        is_stranger = isinstance(error, nats.errors.ProtocolError | AttributeError | TypeError | LookupError)
        return Refusal.STRANGER if is_stranger or "info " in str(error).lower() else Refusal.UNKNOWN

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
        command = publish_command(subject, body, reply, headers) if len(body) <= self.max_payload else None
        if command is None or len(command) > self.max_payload:  # else what is in it is smaller, too
            self._check_size(body, headers or {})
        if command is not None:
            self._client.push(command)
            return
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

    def subscribe(self, subject: str, on_message: OnMessage, queue: str = "") -> int:
        """Subscribe to a subject, which must have been checked.

        Returns:
            What `unsubscribe` and `drain` take.

        Raises:
            ConnectionLost: there is no connection any more.
        """
        if not self.is_alive:
            raise ConnectionLost
        return self._client.attach(subject, queue, on_message)

    def unsubscribe(self, key: int) -> None:
        """End a subscription; what has not been delivered is not. On a lost connection it does nothing."""
        self._client.forget(key)
        if self.is_alive:
            self._client.detach(key)

    async def drain(self, key: int, timeout: float) -> None:
        """End a subscription after everything that the server has sent to it was delivered.

        Args:
            key: from `subscribe`.
            timeout: seconds to wait for the server.
        """
        try:
            if self.is_alive:
                self._client.detach(key)
                await self.flush(timeout)
        except MeshError as error:
            _log.debug("draining a subscription: %s", error)
        finally:
            self._client.forget(key)

    async def flush(self, timeout: float) -> None:
        """Wait until the server has everything that was published so far.

        Raises:
            ConnectionLost: there is no connection any more.
            MeshTimeout: the server did not say so in time.
        """
        if self.is_alive:
            answer = self._client.ask()
            try:
                async with asyncio.timeout(timeout):
                    await answer
            except TimeoutError as error:
                raise MeshTimeout(message="The server did not answer in time.", timeout=timeout) from error
        if not self.is_alive:
            raise ConnectionLost

    async def close(self) -> None:
        """Send what is waiting, and close. It takes a second at most, and is safe twice."""
        self._on_loss = None
        self._client.expect_no_answers()
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
        if isinstance(error, nats.errors.StaleConnectionError):  # its subclass, the end of the input, too
            self._lost(error)
        elif not isinstance(error, nats.errors.Error | OSError):
            _log.error("a callback of a subscription failed", exc_info=error)
        else:
            _log.debug("nats: %s", error)

    async def _closed(self) -> None:
        self._lost(self._last_error or nats.errors.ConnectionClosedError())

    def _lost(self, error: Exception) -> None:
        on_loss, self._on_loss = self._on_loss, None
        self._client.expect_no_answers()
        if on_loss is None or self._pinger is None:
            return
        said = "the server said: " if isinstance(error, _Complaint) else ""
        reason = f"{said}{error}" or type(error).__name__
        _log.debug("the connection is lost: %s", reason)
        on_loss(ConnectionLost(details={"reason": reason, "server": without_password(self._url)}))

    async def _abandon(self) -> None:
        """Close what can be closed; of a client that hangs in it, cancel what it left."""
        if self._pinger is not None and self._pinger is not asyncio.current_task():
            self._pinger.cancel()
        try:
            async with asyncio.timeout(_FAREWELL):
                await self._client.close()
        except (nats.errors.Error, OSError, TimeoutError, AssertionError) as error:  # the last: it never began
            _log.debug("closing: %s", error)
        transport = getattr(self._client, "_transport", None)
        if transport is not None:
            transport.close()


def _settings(options: ConnectionOptions) -> dict[str, Any]:
    """What the NATS client is told, whatever the server.

    Raises:
        ConnectionFailed: a file that is named cannot be used.
    """
    context, credentials = options.tls_context(), options.credentials()
    settings: dict[str, Any] = {
        "name": options.name or None,
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0,
        "connect_timeout": options.connect_timeout,
        "ping_interval": _NEVER,
        "pending_size": _OUT_OF_REACH,
    }
    if context is not None:
        settings["tls"] = context
    if credentials is not None and credentials.jwt:
        settings["user_credentials"] = RawCredentials(credentials.to_file())
    elif credentials is not None:
        settings["nkeys_seed_str"] = credentials.seed
    return settings


def _asked_to_stop() -> int:
    """How often the task that runs was asked to stop, without having done so."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _words_of(line: bytes) -> str:
    """What a line says that is a complaint."""
    return line[len(_COMPLAINT) :].decode("utf-8", "replace").strip()


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
