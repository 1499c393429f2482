from __future__ import annotations

import pytest

from tests.mesh.kit import plain_peer
from xml_pipeline.mesh import AgentMesh


@pytest.fixture
def server(shared_server):
    """A server that has nothing of the tests before."""
    shared_server.forget()
    return shared_server


@pytest.fixture
async def mesh(server):
    """A mesh object that is no organism."""
    async with AgentMesh(server.url, drain_timeout=5.0) as mesh:
        yield mesh


@pytest.fixture
async def peer(server):
    """A plain NATS client."""
    async with plain_peer(server.url) as client:
        yield client
