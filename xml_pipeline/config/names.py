"""Rules for the names of listeners and broadcast groups."""

from __future__ import annotations

import re
from typing import Final

from xml_pipeline.config.problems import quoted

__all__ = ["ALWAYS_REACHED", "BUILTIN_NAMES", "broadcast_group", "name_fault", "reserved_fault", "text_fault"]

BUILTIN_NAMES: Final = frozenset(
    {
        "system.boot",
        "system.todo",
        "system.todo-complete",
        "system.sequence",
        "system.sequence.factory",
        "system.buffer",
    }
)
"""The listeners that every organism has. Users' listeners may name them as peers, and cannot be called like them."""

ALWAYS_REACHED: Final = frozenset({"system.todo", "system.todo-complete"})
"""The listeners that agents reach whatever their peers are."""

_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
# XML 1.0, production 2 (Char): what a document cannot carry, escaped or not.
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def name_fault(name: str) -> str | None:
    """Why ``name`` cannot be the name of a listener or group, or ``None`` if it can.

    Dots, spaces inside, and any language are fine. Control characters and line breaks are not: a name is part of the
    XML of every message, and of every line of a log.
    """
    if not name.strip():
        return "a name must not be empty"
    if name != name.strip():
        return f"a name must not begin or end with white space: {quoted(name)}"
    bad = _CONTROLS.search(name)
    if bad is not None:
        return f"a name must not contain the character U+{ord(bad[0]):04X}"
    return None


def reserved_fault(name: str) -> str | None:
    """Why users' listeners and groups cannot be called ``name``, or ``None`` if they can.

    Names that differ in case only collide, hence ``External`` is as reserved as ``external``.
    """
    lower = name.lower()
    if lower == "external":
        return f"the name {quoted(name)} is reserved for senders outside the organism"
    if lower.startswith("mesh:"):
        return f"names that begin with 'mesh:' are reserved for mesh agents: {quoted(name)}"
    if lower == "system" or lower.startswith("system."):
        return f"the name 'system' and names that begin with 'system.' are reserved: {quoted(name)}"
    return None


def broadcast_group(name: str, broadcast: bool | str) -> str | None:
    """The broadcast group of the listener ``name``.

    Args:
        name: the listener's name.
        broadcast: ``True`` for the group named by ``name`` up to its last dot, or the group's name.

    Returns:
        The group's name; ``None`` when it is in no group, also when ``broadcast`` is ``True`` and ``name`` has no dot.
    """
    if isinstance(broadcast, str):
        return broadcast
    return (name.rpartition(".")[0] or None) if broadcast else None


def text_fault(text: str) -> str | None:
    """Why ``text`` cannot be written into XML, or ``None`` if it can."""
    bad = _NOT_XML.search(text)
    return f"the character U+{ord(bad[0]):04X} cannot be written in XML" if bad else None
