"""Where the three take turns: one event loop, one server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from benchmarks.measure import Sample
from benchmarks.mesh.ours import Ours
from benchmarks.mesh.peer import Peer
from benchmarks.mesh.raw import Raw
from xml_pipeline.mesh import EmbeddedServer

__all__ = ["OPENAGENTMESH", "OURS", "RAW", "Stage"]

OURS = "ours"
RAW = "raw"
OPENAGENTMESH = "openagentmesh"

Measurement = Callable[[Peer], Coroutine[Any, Any, Sample]]


class Stage:
    """A server, and all that are installed connected to it, until it is left.

    Attributes:
        peers: by name; ours first.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._server = EmbeddedServer()
        self.peers: dict[str, Peer] = {}

    def __enter__(self) -> Stage:
        try:
            self._runner.run(self._open())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._runner:
            self._runner.run(self._close())

    async def _open(self) -> None:
        await self._server.start()
        try:
            self.peers[OURS] = await Ours.connect(self._server.url)
            self.peers[RAW] = await Raw.connect(self._server.url)
            if find_spec(OPENAGENTMESH) is not None:
                theirs = import_module("benchmarks.mesh.theirs").Theirs
                self.peers[OPENAGENTMESH] = await theirs.connect(self._server.url)
        except BaseException:
            await self._close()
            raise

    async def _close(self) -> None:
        for peer in reversed(self.peers.values()):
            await peer.close()
        self.peers.clear()
        await self._server.stop()

    def measuring(self, name: str, measurement: Measurement) -> Callable[[], Sample]:
        """Measures one of them."""
        peer = self.peers[name]
        return lambda: self._runner.run(measurement(peer))
