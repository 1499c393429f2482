from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from xml_pipeline.llm.real_calls import FORBID_REAL_CALLS

from .bad_server import BadServer


@pytest.fixture(autouse=True)
def real_calls_are_not_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says: the servers here are our own."""
    monkeypatch.delenv(FORBID_REAL_CALLS, raising=False)


@pytest.fixture
async def server() -> AsyncIterator[BadServer]:
    async with BadServer() as server:
        yield server
