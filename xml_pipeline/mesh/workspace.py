"""`Workspace`: files that everybody on the mesh shares, of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xml_pipeline.mesh.object_store import ObjectStore

__all__ = ["Workspace"]


class Workspace:
    """The files; ``mesh.workspace``. A name is any text of up to 500 characters.

    Every verb raises `KVInvalidKey` for what is no name, `ConnectionFailed` where there is no connection, and
    `MeshTimeout` where the server does not answer.

    Args:
        store: where they are.
        ready: awaited before everything.
    """

    def __init__(self, store: ObjectStore, ready: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._ready = ready

    async def put(self, key: str, data: bytes | str) -> None:
        """Store a file, in the place of an earlier one. Until this returns, readers get the earlier one.

        Args:
            key: its name.
            data: its content; text is stored as UTF-8.

        Raises:
            TypeError: the content is something else.
        """
        if isinstance(data, str):
            data = data.encode()
        elif isinstance(data, bytearray | memoryview):
            data = bytes(data)
        elif not isinstance(data, bytes):
            raise TypeError(f"the content of a file is bytes or a str, not {type(data).__name__}")
        await self._ready()
        await self._store.put(key, data)

    async def get(self, key: str) -> bytes:
        """The content of a file.

        Raises:
            ObjectNotFound: there is none of this name.
            StorageError: it is damaged.
        """
        await self._ready()
        return await self._store.get(key)

    async def delete(self, key: str) -> None:
        """Remove a file.

        Raises:
            ObjectNotFound: there is none of this name.
        """
        await self._ready()
        await self._store.delete(key)
