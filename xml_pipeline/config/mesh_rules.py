"""Rules between the ``mesh`` section and the rest of an organism: known listeners, free names, and none twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import combinations
from typing import Any, Final, get_origin, get_type_hints

from xml_pipeline.config.base import ConfigModel
from xml_pipeline.config.crosscheck import ListenerFacts
from xml_pipeline.config.mesh import (
    FILES,
    ExposeConfig,
    KVConfig,
    MeshAgentConfig,
    MeshConfig,
    SubjectConfig,
    agent_name_fault,
    fields_in,
    pattern_matches,
)
from xml_pipeline.config.names import reserved_fault
from xml_pipeline.config.problems import Hints, KeyPath, Problem, quoted

__all__ = ["MeshNames", "check_mesh", "mesh_warnings", "python_names"]

_LISTS: Final = ("agents", "kv", "subjects")
_RENAMED: Final[dict[str, type[ConfigModel]]] = {"expose": ExposeConfig, "agents": MeshAgentConfig}
_OUTWARD: Final = ("put", "publish")
_NO_SEGMENTS: Final = (bool, bytes, list, dict, set, frozenset, tuple)
_TEMPLATES: Final = {"kv": ("watch", "put"), "subjects": ("subscribe", "publish")}


@dataclass(frozen=True, slots=True)
class MeshNames:
    """What the mesh adds to the names that listeners may call.

    Args:
        names: of agents and of what puts keys and publishes.
        patterns: of agents that are found as they appear.
    """

    names: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()

    @classmethod
    def of(cls, raw: Any) -> MeshNames:
        """The names in a section as it stands in the file, as far as they can be read."""
        names, patterns = set(), []
        for entry in _raw_entries(raw):
            found = entry.get("as") or entry.get("local_name") or entry.get("name") or entry.get("listener")
            if isinstance(found, str):
                names.add(found)
            if isinstance(entry.get("pattern"), str):
                patterns.append(entry["pattern"])
        return cls(frozenset(names), tuple(patterns))

    def known(self, peers: Iterable[str | None]) -> frozenset[str]:
        """The names, and those among ``peers`` that a pattern fits."""
        return self.names | {
            peer for peer in peers if peer is not None and any(pattern_matches(each, peer) for each in self.patterns)
        }


def check_mesh(
    mesh: MeshConfig,
    organism: str,
    listeners: Sequence[ListenerFacts],
    tables: Iterable[str],
    hints: Hints,
    *,
    complete: bool,
) -> list[Problem]:
    """What does not fit, with paths that begin at the section.

    Args:
        mesh: the section.
        organism: its name, empty if that is not known.
        listeners: of the organism.
        tables: the names of its peer tables.
        hints: for suggestions.
        complete: no more listeners will come, so that a name that none of these has is wrong.
    """
    by_name = {each.name: each for each in listeners if each.name is not None}
    problems = _own_names(mesh, by_name) + _exposed(mesh, organism) + _cursors(mesh) + _trusted(mesh) + _fields(mesh)
    if complete:
        groups = {each.group for each in listeners if each.group}
        problems += _targets(mesh, by_name, groups, hints)
        problems += _tables(mesh, set(tables), hints)
    return problems + _classes(mesh, by_name)


def mesh_warnings(mesh: MeshConfig) -> list[Problem]:
    """What may be meant as it is, with paths that begin at the section."""
    unused = [
        Problem("is for a server that is not 'local': say 'url', or 'run --mesh'", (key,))
        for key in FILES
        if mesh.url == "local" and getattr(mesh, key)
    ]
    puts = [(f"kv[{index}] puts", entry.put) for index, entry in enumerate(mesh.kv) if entry.put]
    echoes = _echoes("kv", "watch", mesh.kv, puts)
    return unused + echoes + _echoes("subjects", "subscribe", mesh.subjects, list(_sent(mesh)))


def _sent(mesh: MeshConfig) -> Iterator[tuple[str, str]]:
    """What sends to subjects, and where to."""
    for index, entry in enumerate(mesh.subjects):
        if entry.publish:
            yield f"subjects[{index}] publishes", entry.publish
        if entry.durable:
            yield f"subjects[{index}] gives up", entry.dead_letter_subject


def _echoes(
    kind: str, key: str, entries: Sequence[KVConfig | SubjectConfig], sent: Sequence[tuple[str, str]]
) -> list[Problem]:
    """Entries that may wait for what the organism sends itself, where they do not say whether they want it."""
    return [
        Problem(f"what {what} may fit, and does not come back to this organism without 'echo: true'", path)
        for index, entry in enumerate(entries)
        if getattr(entry, key) and "echo" not in entry.model_fields_set
        for what, template in sent
        if _may_fit(template, getattr(entry, key))
        for path in [(kind, index, key)]
    ]


def python_names(raw: Any) -> list[Problem]:
    """Keys that are what Python calls a field, as ``as`` is no name there; files have one name for a thing.

    Args:
        raw: the section as it stands in the file.
    """
    return [
        Problem(f"unknown key, did you mean {quoted(field.alias)}?", (kind, index, name), at_key=True)
        for kind, model in _RENAMED.items()
        for index, entry in _entries_of(raw, kind)
        for name, field in model.model_fields.items()
        if field.alias is not None and name in entry and field.alias not in entry  # with both, the model objects
    ]


def _may_fit(put: str, watch: str) -> bool:
    """Whether there is a key that is made by the one template and watched by the other."""
    made, wanted = put.split("."), watch.split(".")
    for index, segment in enumerate(wanted):
        if segment == ">":
            return len(made) > index
        if index >= len(made) or not ("{" in segment + made[index] or segment in ("*", made[index])):
            return False
    return len(made) == len(wanted)


def _raw_entries(raw: Any) -> Iterator[Mapping[str, Any]]:
    for key in _LISTS:
        yield from (entry for _, entry in _entries_of(raw, key))


def _entries_of(raw: Any, key: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    entries = raw.get(key) if isinstance(raw, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            yield index, entry


def _own_names(mesh: MeshConfig, listeners: Mapping[str, ListenerFacts]) -> list[Problem]:
    taken = {name.lower(): f"listeners[{each.index}]" for name, each in listeners.items()}
    taken.update({each.group.lower(): "a broadcast group" for each in listeners.values() if each.group})
    problems = []
    for path, name in mesh.listener_names():
        fault = reserved_fault(name)
        other = taken.setdefault(name.lower(), "mesh." + _text(path[:-1]))
        if fault is not None:
            problems.append(Problem(fault, path))
        elif other != "mesh." + _text(path[:-1]):
            problems.append(Problem(f"the name {quoted(name)} is taken by {other}", path))
    return problems


def _exposed(mesh: MeshConfig, organism: str) -> list[Problem]:
    problems = []
    first: dict[str, int] = {}
    for index, entry in enumerate(mesh.expose):
        if not entry.name and not organism:
            continue
        name = entry.name or f"{organism}.{entry.listener}"
        path: KeyPath = ("expose", index, "as" if entry.name else "listener")
        fault = agent_name_fault(name)
        if fault is not None:
            problems.append(Problem(f"needs 'as', the name that it has on the mesh: {fault}", path))
        other = first.setdefault(name, index)
        if other != index:
            problems.append(Problem(f"the name {quoted(name)} is that of expose[{other}] too", path))
    own = {name: mesh.expose[index].listener for name, index in first.items()}
    return problems + [
        Problem(
            f"is the organism's own listener {quoted(own[entry.name])}: that one can be called anyway; "
            "with 'payload_class' it is called over the mesh",
            ("agents", index, "name"),
        )
        for index, entry in enumerate(mesh.agents)
        if entry.name in own and entry.payload_class is None
    ]


def _cursors(mesh: MeshConfig) -> list[Problem]:
    """A place that the server remembers belongs to one entry."""
    durable = _twice("subjects", "durable", [each.durable for each in mesh.subjects])
    return _twice("kv", "resume", [each.resume for each in mesh.kv]) + durable + _same_consumers(mesh.subjects)


def _same_consumers(entries: Sequence[SubjectConfig]) -> list[Problem]:
    """Different names of which the server makes one, as those of its consumers have no dots."""
    durable = [(index, entry) for index, entry in enumerate(entries) if entry.durable]
    return [
        Problem(
            f"{quoted(entry.durable)}, and {quoted(earlier.durable)} of subjects[{other}], are both "
            f"{quoted(_consumer(entry))} on the server; each needs one of its own",
            ("subjects", index, "durable"),
        )
        for (other, earlier), (index, entry) in combinations(durable, 2)
        if earlier.durable != entry.durable and _consumer(earlier) == _consumer(entry)
        # On different streams they are kept apart.
        if not (earlier.stream and entry.stream) or earlier.stream == entry.stream
    ]


def _consumer(entry: SubjectConfig) -> str:
    return entry.durable.replace(".", "_")


def _trusted(mesh: MeshConfig) -> list[Problem]:
    """A key speaks for one organism."""
    first: dict[str, int] = {}
    return [
        Problem(f"is the same as that of trust[{other}]", ("trust", index, "key"))
        for index, entry in enumerate(mesh.trust)
        if (other := first.setdefault(entry.key, index)) != index
    ]


def _twice(kind: str, key: str, names: Sequence[str]) -> list[Problem]:
    first: dict[str, int] = {}
    return [
        Problem(f"{quoted(name)} is that of {kind}[{other}] too; each needs one of its own", (kind, index, key))
        for index, name in enumerate(names)
        if name and (other := first.setdefault(name, index)) != index
    ]


def _targets(mesh: MeshConfig, listeners: Mapping[str, ListenerFacts], groups: set[str], hints: Hints) -> list[Problem]:
    known = {*listeners, *groups, *(name for _, name in mesh.listener_names())}
    candidates = sorted(known)
    problems = []
    for path, name in mesh.targets():
        if path[0] == "expose" and name in groups:
            problems.append(Problem(f"{quoted(name)} is a broadcast group; list its members", path))
        elif path[0] == "expose" and name not in listeners:
            hint = hints.did_you_mean(name, sorted(listeners), "listener")
            problems.append(Problem(f"no listener is called {quoted(name)}{hint}", path))
        elif name not in known and name not in listeners:
            hint = hints.did_you_mean(name, candidates, "listener")
            problems.append(Problem(f"no listener is called {quoted(name)}{hint}", path))
    return problems


def _tables(mesh: MeshConfig, tables: set[str], hints: Hints) -> list[Problem]:
    candidates = sorted(tables)
    return [
        Problem(
            f"no peer table is called {quoted(entry.peer_table)}"
            f"{hints.did_you_mean(entry.peer_table, candidates, 'peer table')}",
            ("expose", index, "peer_table"),
        )
        for index, entry in enumerate(mesh.expose)
        if entry.peer_table is not None and entry.peer_table not in tables
    ]


def _classes(mesh: MeshConfig, listeners: Mapping[str, ListenerFacts]) -> list[Problem]:
    """What comes in must be of a class that its listener takes."""
    problems = []
    for kind in _LISTS:
        for index, entry in enumerate(getattr(mesh, kind)):
            target = listeners.get(entry.to) if entry.to is not None else None
            if target is None or target.classes is None or entry.payload_class is None:
                continue
            if not _accepts(target.classes, entry.payload_class):
                problems.append(
                    Problem(
                        f"is not a class that the listener {quoted(entry.to)} takes", (kind, index, "payload_class")
                    )
                )
    return problems


def _fields(mesh: MeshConfig) -> list[Problem]:
    """What a template names must be a field of the class, once that is imported, and one that a segment can be."""
    return [
        Problem(fault, (kind, index, key))
        for kind, keys in _TEMPLATES.items()
        for index, entry in enumerate(getattr(mesh, kind))
        for key in keys
        for name in fields_in(getattr(entry, key))
        if isinstance(entry.payload_class, type)
        for fault in _field_faults(entry.payload_class, name, goes=key in _OUTWARD)
    ]


def _field_faults(cls: type, name: str, *, goes: bool) -> list[str]:
    if name not in _field_names(cls):
        return [f"{cls.__name__} has no field {quoted(name)}"]
    kind = _field_types(cls).get(name)
    if kind in _NO_SEGMENTS or get_origin(kind) in _NO_SEGMENTS or (goes and kind is float):
        return [f"{cls.__name__}.{name} can be no part of a name: that is a text, or a whole number"]
    return []


def _field_names(cls: type) -> set[str]:
    if is_dataclass(cls):
        return {each.name for each in fields(cls)}
    return set(getattr(cls, "model_fields", ()))


def _field_types(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except Exception:  # whatever stands there: whether it is a payload class is looked at elsewhere
        return {}


def _accepts(classes: Sequence[object], cls: type | str) -> bool:
    if isinstance(cls, str) or any(not isinstance(each, type) for each in classes):
        # By their paths, as long as they are not imported; one class may have several.
        name = _last(cls)
        return any(_last(each) == name for each in classes)
    return cls in classes


def _last(cls: object) -> str:
    return cls.__name__ if isinstance(cls, type) else str(cls).replace(":", ".").rpartition(".")[2]


def _text(path: KeyPath) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in path)
