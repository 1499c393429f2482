"""What changed between two configurations of one organism."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from xml_pipeline.config.model import ListenerConfig, OrganismConfig

__all__ = ["ReloadDiff", "diff"]

_OBJECTS: Final = {
    "handler": "handler_path",
    "payload_class": "payload_class_path",
    "output_class": "output_class_path",
}
"""Fields that hold what the import path in another field names."""
_SPECIAL: Final = frozenset({"name", "peers", "timeout", *_OBJECTS, *_OBJECTS.values()})


@dataclass(frozen=True, slots=True)
class ReloadDiff:
    """What changed, by listeners' names.

    Args:
        added: listeners that are new, in the new order.
        removed: listeners that are gone, in the old order.
        updated: listeners that changed, in the new order.
        changes: for each updated listener, the names of the fields that changed.
        settings: the fields of `OrganismConfig` other than ``listeners`` that changed.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    settings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.updated or self.settings)


def diff(old: OrganismConfig, new: OrganismConfig) -> ReloadDiff:
    """Compare two configurations. Changes neither.

    A listener changed when any of its fields did: import paths, and the imported objects where both sides have them, so
    that a module that was loaded anew counts. The order of peers does not matter; having none and not saying does.

    Args:
        old: the configuration that is in force.
        new: the configuration that is to replace it.
    """
    before = {listener.name: listener for listener in old.listeners}
    after = {listener.name: listener for listener in new.listeners}
    changes = {
        name: changed
        for name, listener in after.items()
        if name in before and (changed := _changed(before[name], listener, old, new))
    }
    return ReloadDiff(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        updated=tuple(changes),
        changes=MappingProxyType(changes),
        settings=tuple(
            name
            for name in OrganismConfig.model_fields
            if name != "listeners" and getattr(old, name) != getattr(new, name)
        ),
    )


def _changed(one: ListenerConfig, two: ListenerConfig, old: OrganismConfig, new: OrganismConfig) -> tuple[str, ...]:
    changed = [
        name
        for name in ListenerConfig.model_fields
        if name not in _SPECIAL and getattr(one, name) != getattr(two, name)
    ]
    changed += [name for name, path in _OBJECTS.items() if _object_changed(one, two, name, path)]
    if _as_set(one.peers) != _as_set(two.peers):
        changed.append("peers")
    if old.timeout_of(one) != new.timeout_of(two):
        changed.append("timeout")
    return tuple(changed)


def _object_changed(one: ListenerConfig, two: ListenerConfig, name: str, path: str) -> bool:
    if getattr(one, path) != getattr(two, path):
        return True
    before, after = _identity(getattr(one, name)), _identity(getattr(two, name))
    return before is not None and after is not None and before != after


def _identity(value: Any) -> Any:
    """What two objects are compared by: not their own idea of equality, which a handler may have."""
    if value is None:
        return None
    return tuple(map(id, value)) if isinstance(value, tuple) else _method_identity(value)


def _method_identity(value: Any) -> Any:
    # A bound method is a new object each time it is taken from its instance.
    function, owner = getattr(value, "__func__", None), getattr(value, "__self__", None)
    return (id(function), id(owner)) if function is not None else id(value)


def _as_set(peers: list[str] | None) -> frozenset[str] | None:
    return None if peers is None else frozenset(peers)
