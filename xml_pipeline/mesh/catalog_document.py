"""The catalog's one value: an array with an element per agent, which all hosts write together.

Whatever somebody else put there stays as it is, also what makes no sense to us, and it hides nothing but itself. Only a
value that is no array at all is replaced, for nobody could register any more otherwise.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.catalog_entry import CatalogEntry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["elements_of", "entries_of", "merged", "value_of"]


def elements_of(value: bytes) -> list[Any]:
    """The elements of the stored value; of one that is no array of JSON, none."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def entries_of(elements: Iterable[Any]) -> dict[str, CatalogEntry]:
    """The agents; elements that make no sense are left out, and of several with one name the last counts."""
    entries = (CatalogEntry.read(element) for element in elements)
    return {entry.name: entry for entry in entries if entry is not None}


def merged(
    elements: list[Any], mine: Collection[CatalogEntry], gone: Collection[str], over: Collection[str]
) -> list[Any]:
    """The elements after a host has changed its own.

    Args:
        elements: as they are.
        mine: entries that are to be there; one that was not is put at the end.
        gone: names that are not to be there.
        over: names of those of ``mine`` that take the place of another host's entry for the same agent. The others
            leave it alone, lest two hosts write over each other for ever.

    Returns:
        The same list if nothing had to be changed.
    """
    wanted = {entry.name: entry.model_dump() for entry in mine}
    kept, found = [], set()
    for element in elements:
        name = element.get("name") if isinstance(element, dict) else None
        if not isinstance(name, str) or (name not in wanted and name not in gone):
            kept.append(element)
        elif name in wanted and name not in found and _stays(element, wanted[name], name in over):
            found.add(name)
            kept.append(element)
    kept.extend(entry for name, entry in wanted.items() if name not in found)
    return elements if kept == elements else kept


def _stays(element: Any, wanted: dict[str, Any], is_over: bool) -> bool:
    return element == wanted or (not is_over and CatalogEntry.read(element) is not None)


def value_of(elements: list[Any]) -> bytes:
    """The value to store."""
    return json.dumps(elements).encode()
