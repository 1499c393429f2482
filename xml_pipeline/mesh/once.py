"""`Once`: names that are taken once, by whoever comes first, on any node that shares the server.

Each name is a message of its own in a bucket, which the server keeps for a while and takes only where there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xml_pipeline.mesh.bucket import check_key
from xml_pipeline.mesh.errors import StorageError
from xml_pipeline.mesh.jetstream import STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE

if TYPE_CHECKING:
    from xml_pipeline.mesh.jetstream import JetStream

__all__ = ["Forgotten", "Once"]


class Once:
    """Names that are taken once.

    Args:
        jetstream: how to reach the server.
        name: of the bucket.
        seconds: how long a name stays taken.
    """

    def __init__(self, jetstream: JetStream, name: str, seconds: float) -> None:
        self._jetstream = jetstream
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._seconds = seconds

    async def open(self) -> None:
        """Make the bucket if it is not there.

        Raises:
            MeshError: it cannot be made.
        """
        await self._jetstream.bind_or_create(
            self._stream,
            {
                "subjects": [f"{self._prefix}>"],
                "max_consumers": -1,
                "max_msgs": -1,
                "max_bytes": -1,
                "max_age": int(self._seconds * 1e9),
                "max_msgs_per_subject": 1,
                "num_replicas": 1,
                "storage": "file",
                "retention": "limits",
                "discard": "new",
                "deny_delete": True,
                "allow_rollup_hdrs": False,
            },
        )

    async def take(self, key: str) -> bool:
        """Take a name; returns whether nobody had.

        Args:
            key: as for any bucket.

        Raises:
            Forgotten: the bucket was gone, and with it all that was taken. It is made again.
            MeshError: it is not known whether somebody had.
        """
        try:
            await self._jetstream.publish_if(self._prefix + check_key(key), b"", 0)
        except StorageError as error:
            code = error.details.get("err_code", STREAM_NOT_FOUND)
            if code == WRONG_LAST_SEQUENCE:
                return False
            if code != STREAM_NOT_FOUND:
                raise
            await self.open()
            raise Forgotten("The bucket was gone, with everything that was taken.") from error
        return True


class Forgotten(StorageError):
    """What was taken is not known any more."""
