"""From the raw data of an organism file to its configuration, collecting every problem on the way.

Sections are validated one by one, so that a mistake in one does not hide the mistakes in the next, and what is wrong in
itself is left out of the rules between listeners.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from xml_pipeline.config.crosscheck import ListenerFacts, check_listeners
from xml_pipeline.config.document import ListenerSection, OrganismDocument
from xml_pipeline.config.handlers import handler_fault, integrity_fault, payload_class_fault
from xml_pipeline.config.imports import Importer
from xml_pipeline.config.limits import LimitFields
from xml_pipeline.config.model import ListenerConfig, OrganismConfig
from xml_pipeline.config.names import BUILTIN_NAMES
from xml_pipeline.config.problems import Hints, InvalidConfiguration, KeyPath, Problem
from xml_pipeline.config.wording import describe, kind_of

__all__ = ["Parsed", "parse_document", "parse_listener", "resolve_listener"]

_SAME_NAMES: Final = (
    "name",
    "description",
    "broadcast",
    "prompt",
    "concurrency",
    "rate",
    "ordered",
    "cpu_bound",
    "repair",
    "handler_sha256",
)
"""What a listener's section and its configuration call alike."""


@dataclass(slots=True)
class Parsed:
    """What came of reading.

    Args:
        config: the configuration; ``None`` when there are problems.
        problems: what must be mended.
        warnings: what may be meant as it is.
    """

    config: OrganismConfig | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class _Entry:
    """One listener on its way: its raw data, its validated section, its imported objects."""

    index: int
    raw: Mapping[str, Any]
    section: ListenerSection | None
    faulty: set[KeyPath]
    """The paths of what is wrong in it."""
    objects: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def path(self) -> KeyPath:
        return ("listeners", self.index)

    def sound(self, key: str) -> Any:
        """The raw value of ``key``, or ``None`` if it is absent or wrong."""
        path = (*self.path, key)
        return None if any(fault[: len(path)] == path for fault in self.faulty) else self.raw.get(key)


def parse_document(
    raw: Any, *, hints: Hints, builtin_names: frozenset[str] = BUILTIN_NAMES, importer: Importer | None = None
) -> Parsed:
    """Make a configuration of raw data. Never raises for what the data says.

    Args:
        raw: plain data with the keys of ``organism.yaml``.
        hints: for suggestions.
        builtin_names: listeners that exist without being described; they may be named as peers.
        importer: resolves import paths; ``None`` to leave them as text.
    """
    if not isinstance(raw, dict):
        return Parsed(problems=[Problem(f"must be a mapping of keys to values, not {kind_of(raw)}")])
    parsed = Parsed()
    document = _document(raw, hints, parsed)
    entries = [_entry(entry, index, hints, parsed) for index, entry in enumerate(_listeners(raw, parsed))]
    if importer is not None:
        for entry in entries:
            _import_entry(entry, importer, parsed)
    # A name that is wrong in itself is known all the same: its listener's callers are not to blame.
    claimed = {name.strip() for entry in entries if isinstance(name := entry.raw.get("name"), str)}
    problems, warnings = check_listeners([_facts(entry) for entry in entries], hints, builtin_names | claimed)
    parsed.problems += problems
    parsed.warnings += warnings
    if document is not None and not parsed.problems:
        parsed.config = _config(document, entries)
    return parsed


def parse_listener(raw: Any, *, hints: Hints) -> ListenerConfig:
    """Make one listener's configuration of raw data, without importing anything.

    Args:
        raw: a mapping with the keys of an entry of ``listeners``.
        hints: for suggestions.

    Raises:
        InvalidConfiguration: everything that is wrong with it.
    """
    parsed = Parsed()
    section = _entry(raw, 0, hints, parsed).section
    if section is None or parsed.problems:
        raise InvalidConfiguration(parsed.problems)
    return ListenerConfig(**_listener_arguments(section, default_timeout=30.0))


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
    entry = _Entry(0, {**raw, "handler_sha256": listener.handler_sha256}, None, set())
    parsed = Parsed()
    _import_entry(entry, importer, parsed)
    problems = parsed.problems + [Problem(fault, entry.path) for fault in _ready_faults(listener)]
    if problems:
        # A listener on its own has no index; its name says more.
        raise InvalidConfiguration(
            Problem(f"listener {listener.name!r}: {problem.text}", problem.path[2:]) for problem in problems
        )
    for name, value in _object_arguments(entry).items():
        setattr(listener, name, value)


def _ready_faults(listener: ListenerConfig) -> list[str]:
    """What is wrong with the objects that a listener has already."""
    classes = [*listener.payload_classes, *([] if listener.output_class is None else [listener.output_class])]
    faults = [payload_class_fault(cls) for cls in classes]
    if listener.handler is not None:
        faults.append(handler_fault(listener.handler) or integrity_fault(listener.handler, listener.handler_sha256))
    return [fault for fault in faults if fault is not None]


def _document(raw: dict[str, Any], hints: Hints, parsed: Parsed) -> OrganismDocument | None:
    top = {key: value for key, value in raw.items() if key != "listeners"}
    try:
        return OrganismDocument.model_validate(top)
    except ValidationError as error:
        parsed.problems += describe(error, OrganismDocument, top, hints)
        return None


def _listeners(raw: dict[str, Any], parsed: Parsed) -> list[Any]:
    listeners = raw.get("listeners", [])
    if isinstance(listeners, list):
        return listeners
    # A blank value is what a file looks like that is written just now; taking it for "none" would remove them all.
    what = "is blank, write [] for none" if listeners is None else f"must be a list, not {kind_of(listeners)}"
    parsed.problems.append(Problem(what, ("listeners",)))
    return []


def _entry(raw: Any, index: int, hints: Hints, parsed: Parsed) -> _Entry:
    path: KeyPath = ("listeners", index)
    section = None
    problems: list[Problem] = []
    if isinstance(raw, dict):
        try:
            section = ListenerSection.model_validate(raw)
        except ValidationError as error:
            problems = describe(error, ListenerSection, raw, hints, path)
    else:
        problems = [Problem(f"must be a mapping of keys to values, not {kind_of(raw)}", path)]
    parsed.problems += problems
    faulty = {problem.path for problem in problems}
    return _Entry(index, raw if isinstance(raw, dict) else {}, section, faulty)


def _facts(entry: _Entry) -> ListenerFacts:
    name, peers = entry.sound("name"), entry.raw.get("peers")
    classes = entry.objects.get("payload_class")
    if classes is None and entry.section is not None:
        classes = entry.section.payload_class
    section = entry.section
    broadcast = section.broadcast if section is not None else entry.sound("broadcast")
    return ListenerFacts(
        index=entry.index,
        name=str(name) if isinstance(name, str) else None,
        is_agent=section.agent if section is not None else False,
        peers=_peer_facts(entry, peers),
        broadcast=broadcast if isinstance(broadcast, bool | str) else False,
        classes=classes,
    )


def _peer_facts(entry: _Entry, peers: Any) -> tuple[str | None, ...] | None:
    if "peers" not in entry.raw:
        return None
    if not isinstance(peers, list):
        return ()
    faulty = {fault[3] for fault in entry.faulty if len(fault) == 4 and fault[2] == "peers"}
    return tuple(
        str(peer) if isinstance(peer, str) and index not in faulty else None for index, peer in enumerate(peers)
    )


def _import_entry(entry: _Entry, importer: Importer, parsed: Parsed) -> None:
    """Import what the entry names and check it, as far as the entry is sound."""
    for key in ("payload_class", "handler", "output_class"):
        value = entry.sound(key)
        paths = value if isinstance(value, list | tuple) else [value] if value else []
        found = []
        for index, path in enumerate(paths):
            where = (*entry.path, key, index) if isinstance(value, list) else (*entry.path, key)
            try:
                found.append(_import_one(key, path, importer, entry.sound("handler_sha256")))
            except InvalidConfiguration as error:
                parsed.problems += [problem.under(where) for problem in error.problems]
        if found and len(found) == len(paths):
            entry.objects[key] = tuple(found)


def _import_one(key: str, path: str, importer: Importer, sha256: Any) -> Any:
    value = importer.resolve(str(path))
    if key == "handler":
        fault = handler_fault(value) or integrity_fault(value, sha256 if isinstance(sha256, str) else "")
    else:
        fault = payload_class_fault(value)
    if fault is not None:
        raise InvalidConfiguration(fault)
    return value


def _config(document: OrganismDocument, entries: list[_Entry]) -> OrganismConfig:
    listeners = [
        ListenerConfig(**_listener_arguments(entry.section, document.timeout), **_object_arguments(entry))
        for entry in entries
        if entry.section is not None
    ]
    organism = document.organism
    return OrganismConfig(
        name=organism.name,
        port=organism.port,
        description=organism.description,
        version=organism.version,
        import_roots=document.import_roots,
        listeners=listeners,
        **{name: getattr(document, name) for name in LimitFields.model_fields},
    )


def _listener_arguments(section: ListenerSection, default_timeout: float) -> dict[str, Any]:
    arguments: dict[str, Any] = {name: getattr(section, name) for name in _SAME_NAMES}
    timeout = section.timeout if section.timeout is not None else section.timeout_seconds
    return {
        **arguments,
        "payload_class_path": section.payload_class,
        "handler_path": section.handler,
        "output_class_path": section.output_class or "",
        "is_agent": section.agent,
        "peers": section.peers,
        "timeout": default_timeout if timeout is None else timeout,
    }


def _object_arguments(entry: _Entry) -> dict[str, Any]:
    """The imported objects, as arguments of `ListenerConfig`."""
    arguments: dict[str, Any] = {}
    for key, found in entry.objects.items():
        arguments[key] = found if key == "payload_class" else found[0]
    return arguments
