"""What listens where a server should, and is none: real ones cannot be made to do this."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

__all__ = ["GREETING", "HANG_UP", "stranger"]

GREETING = b'INFO {"server_id": "X", "version": "2.12.0", "proto": 1, "headers": true, "max_payload": 1048576}\r\n'
HANG_UP = b"hang up"


@contextlib.asynccontextmanager
async def stranger(*says: bytes) -> AsyncIterator[str]:
    """Listen, and say this to whoever comes; then say nothing, and stay.

    Args:
        says: one after the other; each but the first after a line has come. `HANG_UP` ends the connection.

    Yields:
        Where it listens, as host and port.
    """
    writers = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(OSError):
            for number, text in enumerate(says):
                if number and not await reader.readline():
                    break
                if text is HANG_UP:
                    writer.close()
                    return
                writer.write(text)
            await reader.read()
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for writer in writers:
            writer.close()
        for writer in writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
