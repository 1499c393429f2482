"""What the log says of connections that are lost, or not made again: each reason once, however often it is tried."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from xml_pipeline.mesh.errors import ConnectionDenied

if TYPE_CHECKING:
    from xml_pipeline.mesh.errors import MeshError

__all__ = ["Setbacks"]

_MOST = 256  # reasons; a server could make up ever new ones


class Setbacks:
    """Those of one link, from one connection that lasted to the next."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._told: set[str] = set()

    def lost(self, error: MeshError, *, lasted: bool) -> None:
        """A connection is lost.

        Args:
            error: why, see `Connection`.
            lasted: whether it had been there for a while: then it is news, whatever was told before.
        """
        if lasted:
            self._told.clear()
        why = f"{error.details.get('server', '')}: {error.details.get('reason', '')}"
        self._log.log(self._level(why), "the connection to the mesh is lost (%s); it will be made again", why)

    def refused(self, error: MeshError) -> None:
        """It was not made again. That a server cannot be reached yet is no news; that it does not take us is."""
        why = str(error).rstrip(".")
        level = self._level(why) if isinstance(error, ConnectionDenied) else logging.DEBUG
        self._log.log(level, "the connection to the mesh is not made again yet: %s; it is tried on", why)

    def _level(self, why: str) -> int:
        if why in self._told or len(self._told) == _MOST:
            return logging.DEBUG
        self._told.add(why)
        return logging.WARNING
