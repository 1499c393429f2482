"""A peer that writes bytes to the server, and need not keep to what a client library lets through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

__all__ = ["Wire", "wire"]

_CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n'


class Wire:
    """One connection.

    Args:
        reader: from the server.
        writer: to the server.
        take: called with the subject, the block of headers and the body of each message.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        take: Callable[[str, bytes, bytes], None] = lambda *_: None,
    ) -> None:
        self.errors: list[str] = []
        self._reader = reader
        self._writer = writer
        self._take = take
        self._pongs: list[asyncio.Future[None]] = []
        self.reading = asyncio.create_task(self._read())
        self.write(_CONNECT)

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def settle(self) -> None:
        """Wait until the server has dealt with everything."""
        with contextlib.suppress(ConnectionError):  # the server has ended it, as the reader finds out too
            await self._writer.drain()
        self._pongs.append(pong := asyncio.get_running_loop().create_future())
        self.write(b"PING\r\n")
        await asyncio.wait({pong, self.reading}, return_when=asyncio.FIRST_COMPLETED)

    def subscribe(self, subject: str, number: int) -> None:
        """Have messages come."""
        self.write(b"SUB %s %d\r\n" % (subject.encode(), number))

    def request(self, subject: bytes, reply: bytes, block: bytes, body: bytes) -> None:
        """Publish; an empty block of headers is none."""
        to = subject + (b" " + reply if reply else b"")
        if block:
            self.write(b"HPUB %s %d %d\r\n%s%s\r\n" % (to, len(block), len(block) + len(body), block, body))
        else:
            self.write(b"PUB %s %d\r\n%s\r\n" % (to, len(body), body))

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while line := (await self._reader.readuntil(b"\r\n"))[:-2]:
                verb, _, rest = line.partition(b" ")
                if verb in (b"MSG", b"HMSG"):
                    *to, size = rest.split(b" ")
                    head = int(to.pop()) if verb == b"HMSG" else 0
                    data = (await self._reader.readexactly(int(size) + 2))[:-2]
                    self._take(to[0].decode(), data[:head], data[head:])
                elif verb == b"PING":
                    self.write(b"PONG\r\n")
                elif verb == b"PONG" and self._pongs:
                    self._pongs.pop(0).set_result(None)
                elif verb == b"-ERR":
                    self.errors.append(rest.decode())

    async def close(self) -> None:
        """End it."""
        self.reading.cancel()
        await asyncio.wait([self.reading])
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def wire(port: int, take: Callable[[str, bytes, bytes], None] = lambda *_: None) -> AsyncIterator[Wire]:
    """Connect to a server of this machine, until the end of the block."""
    found = Wire(*await asyncio.open_connection("127.0.0.1", port, limit=16 << 20), take)
    try:
        yield found
    finally:
        await found.close()
