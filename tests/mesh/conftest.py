from __future__ import annotations

import functools

import pytest

from tests.mesh.hosting import hosting as hosting_from
from tests.mesh.kit import plain_peer
from xml_pipeline.mesh import AgentMesh, EmbeddedServer, bucket_watch, kv_cursor


@pytest.fixture
def quick_heartbeat(monkeypatch):
    """Watches find out quickly that they hear nothing any more; to be named before whatever begins them."""
    monkeypatch.setattr(bucket_watch, "_HEARTBEAT", 0.2)
    monkeypatch.setattr(kv_cursor, "_HEARTBEAT", 0.2)


@pytest.fixture
def server(shared_server):
    """A server that has nothing of the tests before."""
    shared_server.forget()
    return shared_server


@pytest.fixture
async def own_server():
    """A server of the test's own, which it may hold up and kill."""
    async with EmbeddedServer() as server:
        yield server


@pytest.fixture
async def lasting_server(tmp_path):
    """A server that can be killed and started again on the same files and port."""
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def hosting(zygote):
    """Runs a host of agents as a process of its own."""
    return functools.partial(hosting_from, zygote)


@pytest.fixture
async def peer(server):
    """A plain NATS client."""
    async with plain_peer(server.url) as client:
        yield client


@pytest.fixture
def host(server):
    """A mesh object to serve agents, not entered yet."""
    return AgentMesh(server.url, drain_timeout=5.0)


@pytest.fixture
async def mesh(server):
    """A mesh object that asks."""
    async with AgentMesh(server.url, drain_timeout=5.0) as mesh:
        yield mesh
