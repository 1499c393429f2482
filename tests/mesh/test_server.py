from __future__ import annotations

import asyncio
import stat
import sys
import textwrap
from pathlib import Path

import nats
import pytest

from tests.mesh.kit import plain_peer, spin
from xml_pipeline.mesh import ConnectionFailed, EmbeddedServer, ServerMissing
from xml_pipeline.mesh import server as server_module


async def test_it_serves_jetstream_on_the_loopback(server):
    assert server.url.startswith("nats://127.0.0.1:")
    async with plain_peer(server.url) as peer:
        assert (await peer.jetstream().account_info()).streams == 0


async def test_the_system_account_sees_who_leaves(server):
    async with plain_peer(server.system_url) as system:
        left = await system.subscribe("$SYS.ACCOUNT.*.DISCONNECT")
        await system.flush()
        client = await nats.connect(server.url, name="somebody")
        await client.close()
        message = await left.next_msg(10)
        assert b'"somebody"' in message.data


async def test_everything_of_it_is_removed_with_it():
    server = EmbeddedServer()
    await server.start()
    await server.start()
    folder = server._folder
    assert stat.S_IMODE((folder / "nats.conf").stat().st_mode) == 0o600, "it holds the password of the system account"
    await server.stop()
    await server.stop()
    assert not folder.exists()
    assert not server.is_running


async def test_what_is_to_be_kept_is_kept_across_a_crash(lasting_server):
    async with plain_peer(lasting_server.url) as peer:
        bucket = await peer.jetstream().create_key_value(bucket="kept")
        await bucket.put("key", b"value")
    url = lasting_server.url
    lasting_server.kill()
    await lasting_server.wait()
    await lasting_server.stop()
    await lasting_server.start()
    assert lasting_server.url == url
    async with plain_peer(url) as peer:
        bucket = await peer.jetstream().key_value("kept")
        assert (await bucket.get("key")).value == b"value"


async def test_a_port_that_is_taken_is_a_typed_error(server):
    second = EmbeddedServer(port=server.port)
    with pytest.raises(ConnectionFailed, match="did not start"):
        await second.start()
    assert not second.is_running


async def test_without_a_binary_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(server_module.importlib.metadata, "files", lambda name: None)
    monkeypatch.setattr(server_module.sysconfig, "get_path", lambda name: "/nowhere")
    monkeypatch.setattr(server_module.sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerMissing, match=r"xml-pipeline\[nats\]"):
        server_module.find_server()


async def test_the_one_on_path_is_taken_too(monkeypatch, tmp_path):
    binary = tmp_path / "nats-server"
    binary.write_text("")
    binary.chmod(0o755)
    monkeypatch.setattr(server_module.importlib.metadata, "files", lambda name: None)
    monkeypatch.setattr(server_module.sysconfig, "get_path", lambda name: "/nowhere")
    monkeypatch.setattr(server_module.sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server_module.find_server() == str(binary)


PARENT = """
    import asyncio, sys
    from xml_pipeline.mesh import EmbeddedServer

    async def main():
        server = EmbeddedServer()
        await server.start()
        print(server.pid, server.port, server._folder, flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
"""


async def test_it_dies_with_a_parent_that_is_killed():
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(PARENT),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    pid, port, folder = (await parent.stdout.readline()).decode().split()
    gone = asyncio.Event()

    async def closed() -> None:
        gone.set()

    async def ignore(error: Exception) -> None: ...

    url = f"nats://127.0.0.1:{port}"
    client = await nats.connect(url, allow_reconnect=False, closed_cb=closed, error_cb=ignore)
    parent.kill()
    await parent.wait()
    await asyncio.wait_for(gone.wait(), 10)
    await client.close()
    # Its end cannot be awaited: it is nobody's child any more.
    await spin(lambda: not Path(f"/proc/{pid}").exists() and not Path(folder).exists())
