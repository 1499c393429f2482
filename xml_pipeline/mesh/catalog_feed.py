"""`CatalogFeed`: the changes of the catalog, for a loop of a user that ends with the mesh object."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from xml_pipeline.mesh.catalog import differences

if TYPE_CHECKING:
    from xml_pipeline.mesh.catalog import Catalog, CatalogChange
    from xml_pipeline.mesh.catalog_entry import CatalogEntry

__all__ = ["CatalogFeed"]


class CatalogFeed:
    """First every agent as new, then every change; of quick changes of one agent maybe the last only.

    Args:
        catalog: whose.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._seen: dict[str, CatalogEntry] = {}
        self._due: deque[CatalogChange] = deque()
        self._news = asyncio.Event()
        self._is_over = False

    async def start(self) -> None:
        """Begin."""
        self._catalog.on_changed.append(self._news.set)

    async def next(self) -> CatalogChange | None:
        """The next change; ``None`` after `end`.

        Raises:
            ConnectionDenied: the server does not permit to read the catalog.
        """
        while not self._is_over:
            if self._due:
                return self._due.popleft()
            self._news.clear()
            before, self._seen = self._seen, self._catalog.entries
            self._due.extend(differences(before, self._seen))
            if not self._due:
                await self._news.wait()
        return None

    def end(self) -> None:
        """Give no more changes, also to who waits for one."""
        self._is_over = True
        self._news.set()

    async def stop(self) -> None:
        """Follow it no more. Safe twice."""
        self.end()
        if self._news.set in self._catalog.on_changed:
            self._catalog.on_changed.remove(self._news.set)
