"""One server for many tests, each of which finds it as if it had just been started.

Starting a server takes longer than most tests of the mesh. So one runs for the whole session, in a process of its own,
which is this program: it writes where the server is, and makes it forget whatever it has when it is told to. Tests that
stop, kill or hold up a server, or look at all of it, have one of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from tests.mesh.kit import plain_peer
from xml_pipeline.mesh import EmbeddedServer
from xml_pipeline.mesh.server_config import MESH_USER

__all__ = ["SharedServer"]

_ROOT = Path(__file__).parents[2]
_TIMEOUT = 20.0
_NAME = "shared-server"
_MEMORY = "/dev/shm"
_ROOM = 2 << 30


class SharedServer:
    """Starts it, and says where it is.

    Args:
        url: where members of the mesh connect.
        system_url: where the system account connects.
        port: on the loopback.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mesh.shared_server"],
            cwd=_ROOT,
            env={**os.environ, **_in_memory()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        place = self._answer()
        self.url: str = place["url"]
        self.system_url: str = place["system_url"]
        self.port: int = place["port"]

    def forget(self) -> None:
        """End whatever is connected, and delete whatever is kept."""
        assert self._process.stdin is not None
        self._process.stdin.write("forget\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server that the tests share is gone"
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Stop it."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


def _in_memory() -> dict[str, str]:
    """What has the server keep its files in memory, if there is room; that is a third less work."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_MEMORY).free > _ROOM:
            return {"TMPDIR": _MEMORY}
    return {}


async def _serve() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer())
        system = await stack.enter_async_context(plain_peer(server.system_url))
        member = Client()
        await member.connect(server.url, name=_NAME)
        stack.push_async_callback(member.close)
        _say({"url": server.url, "system_url": server.system_url, "port": server.port})
        while await asyncio.to_thread(sys.stdin.readline):
            await _end_connections(system)
            await _delete_streams(member)
            _say({})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _end_connections(system: Client) -> None:
    while True:
        found = await _ask(system, "$SYS.REQ.SERVER.PING.CONNZ", {"auth": True, "limit": 1024})
        server = found["server"]["id"]
        others = [
            connection["cid"]
            for connection in found["data"]["connections"]
            if connection.get("authorized_user") == MESH_USER and connection.get("name") != _NAME
        ]
        if not others:
            return
        for number in others:
            await _ask(system, f"$SYS.REQ.SERVER.{server}.KICK", {"cid": number})


async def _delete_streams(member: Client) -> None:
    while names := (await _ask(member, "$JS.API.STREAM.NAMES", {}))["streams"]:
        for name in names:
            await _ask(member, f"$JS.API.STREAM.DELETE.{name}", {})


async def _ask(client: Client, subject: str, question: dict[str, Any]) -> Any:
    return json.loads((await client.request(subject, json.dumps(question).encode(), timeout=_TIMEOUT)).data)


if __name__ == "__main__":
    asyncio.run(_serve())
