"""One listener's objects: imported by their paths, and checked for what they must be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xml_pipeline.config.agents import DEFAULT_CLASSES
from xml_pipeline.config.document import ListenerSection
from xml_pipeline.config.handlers import handler_fault, integrity_fault, payload_class_fault
from xml_pipeline.config.imports import Importer, resolve
from xml_pipeline.config.model import ListenerConfig
from xml_pipeline.config.problems import InvalidConfiguration, KeyPath, Problem

__all__ = ["Entry", "import_classes", "import_entry", "resolve_listener"]


@dataclass(slots=True)
class Entry:
    """One listener on its way from the file to its configuration.

    Args:
        index: position in the list of listeners.
        raw: what the file says; empty when it is no mapping.
        section: the same, validated; ``None`` when it is wrong.
        faulty: the paths of what is wrong in it.
        objects: what was imported, by the key that names it.
    """

    index: int
    raw: Mapping[str, Any]
    section: ListenerSection | None
    faulty: set[KeyPath]
    objects: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def path(self) -> KeyPath:
        """Where it stands in the configuration."""
        return ("listeners", self.index)

    def sound(self, key: str) -> Any:
        """The raw value of ``key``, or ``None`` if it is absent or wrong."""
        path = (*self.path, key)
        return None if any(fault[: len(path)] == path for fault in self.faulty) else self.raw.get(key)

    def arguments(self) -> dict[str, Any]:
        """The imported objects, as arguments of `ListenerConfig`."""
        return {key: found if key == "payload_class" else found[0] for key, found in self.objects.items()}


def import_entry(entry: Entry, importer: Importer) -> list[Problem]:
    """Import what ``entry`` names into its ``objects``, as far as it is sound, and check it.

    Returns:
        What is wrong.
    """
    problems: list[Problem] = []
    for key in ("payload_class", "handler", "output_class"):
        value = entry.sound(key)
        paths = value if isinstance(value, list | tuple) else [value] if value else []
        found = []
        for index, path in enumerate(paths):
            where = (*entry.path, key, index) if isinstance(value, list) else (*entry.path, key)
            try:
                found.append(_import_one(key, path, importer, entry.sound("handler_sha256")))
            except InvalidConfiguration as error:
                if not importer.was_told(str(error)):
                    problems += [problem.under(where) for problem in error.problems]
        if found and len(found) == len(paths):
            entry.objects[key] = tuple(found)
    return problems


def import_classes(
    paths: Iterable[tuple[KeyPath, str]], importer: Importer
) -> tuple[dict[KeyPath, type], list[Problem]]:
    """Import payload classes that are named somewhere else than in a listener.

    Args:
        paths: where each is named, and its import path.
        importer: resolves import paths.

    Returns:
        The classes by where they are named, and what is wrong.
    """
    classes: dict[KeyPath, type] = {}
    problems: list[Problem] = []
    for where, path in paths:
        try:
            classes[where] = _import_one("payload_class", path, importer, "")
        except InvalidConfiguration as error:
            if not importer.was_told(str(error)):
                problems += [problem.under(where) for problem in error.problems]
    return classes, problems


def resolve_listener(listener: ListenerConfig, importer: Importer) -> None:
    """Import what ``listener`` names by path and does not have yet, and check what it has.

    Args:
        listener: changed in place, only if all is well.
        importer: resolves import paths.

    Raises:
        InvalidConfiguration: everything that is wrong with it.
    """
    raw = {
        "handler": listener.handler_path if listener.handler is None else None,
        "payload_class": listener.payload_class_paths if listener.payload_class is None else None,
        "output_class": listener.output_class_path if listener.output_class is None else None,
    }
    entry = Entry(0, {**raw, "handler_sha256": listener.handler_sha256}, None, set())
    problems = import_entry(entry, importer)
    problems += [Problem(fault, entry.path) for fault in _ready_faults(listener)]
    if problems:
        # A listener on its own has no index; its name says more.
        raise InvalidConfiguration(
            Problem(f"listener {listener.name!r}: {problem.text}", problem.path[2:]) for problem in problems
        )
    for name, value in entry.arguments().items():
        setattr(listener, name, value)


def _import_one(key: str, path: str, importer: Importer, sha256: Any) -> Any:
    # Our own classes are not the organism's code, so its import roots say nothing about them.
    value = resolve(path) if path in DEFAULT_CLASSES.values() else importer.resolve(str(path))
    if key == "handler":
        fault = handler_fault(value) or integrity_fault(value, sha256 if isinstance(sha256, str) else "")
    else:
        fault = payload_class_fault(value)
    if fault is not None:
        raise InvalidConfiguration(fault)
    return value


def _ready_faults(listener: ListenerConfig) -> list[str]:
    """What is wrong with the objects that a listener has already."""
    classes = [*listener.payload_classes, *([] if listener.output_class is None else [listener.output_class])]
    faults = [payload_class_fault(cls) for cls in classes]
    if listener.handler is not None:
        faults.append(handler_fault(listener.handler) or integrity_fault(listener.handler, listener.handler_sha256))
    return [fault for fault in faults if fault is not None]
