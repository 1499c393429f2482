"""`SharedMemory`: which signed requests came in already, to any node of the organism.

A node remembers by itself what came in through it (`xml_pipeline.crypto.replay`); but the nodes of an organism take
their requests from one queue, and a node that starts remembers nothing. So each good request's id is also taken on the
server, once, for as long as the request is fresh. Where the server cannot say whether it was taken, the request is
refused.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from typing import TYPE_CHECKING, Final

from xml_pipeline.crypto import Reason, ReplayWindow
from xml_pipeline.crypto.replay import MAX_AGE, TOLERANCE
from xml_pipeline.mesh import MeshError
from xml_pipeline.mesh.once import Forgotten, Once

if TYPE_CHECKING:
    from xml_pipeline.crypto import Verified
    from xml_pipeline.mesh import AgentMesh

__all__ = ["SharedMemory"]

_log = logging.getLogger(__name__)

_BUCKET: Final = "mesh-seen"
_KEPT: Final = MAX_AGE + 2 * TOLERANCE + 30.0
"""From ``TOLERANCE`` before its time of signing a request is fresh until ``MAX_AGE + TOLERANCE`` after it."""


class SharedMemory:
    """Remembers, here and on the server.

    Attributes:
        window: what came in here; for a `Verifier`. It lets in what the server has still to be asked about.
    """

    def __init__(self) -> None:
        self.window = ReplayWindow(floor=-math.inf)
        self._once: Once | None = None
        self._is_open = False

    def use(self, mesh: AgentMesh) -> None:
        """Remember on the server of this mesh object from now on."""
        self._once = Once(mesh.parts.jetstream, _BUCKET, _KEPT)
        self._is_open = False

    async def take(self, verified: Verified) -> Reason | None:
        """Remember a request that is good in every other respect.

        Returns:
            ``None`` if it may come in; else why not.
        """
        once = self._once
        if once is None:
            return Reason.WINDOW_UNUSABLE
        name = hashlib.sha256(verified.message_id.encode()).hexdigest()
        try:
            if not self._is_open:
                await once.open()
                self._is_open = True
            is_first = await once.take(f"{verified.key_id}.{name}")
        except Forgotten:
            # What was signed until now may have come in to another node, or to this one before it started.
            self.window = ReplayWindow(floor=time.time())
            _log.warning("the bucket %s was removed; what was signed before this is refused", _BUCKET)
            return Reason.NOT_REMEMBERED
        except MeshError as error:
            _log.error("the server cannot say whether a signed request came in before: %s", error)
            return Reason.WINDOW_UNUSABLE
        return None if is_first else Reason.REPLAYED
