"""From the raw data of an organism file to its configuration, collecting every problem on the way.

Sections are validated one by one, so that a mistake in one does not hide the mistakes in the next, and what is wrong in
itself is left out of the rules between listeners.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from xml_pipeline.config.agents import DEFAULT_CLASSES, check_agent, check_models
from xml_pipeline.config.crosscheck import check_listeners
from xml_pipeline.config.document import ListenerSection, OrganismDocument
from xml_pipeline.config.entries import Entry, import_classes, import_entry
from xml_pipeline.config.facts import agent_facts, backend_names, listener_facts, model_facts, table_facts
from xml_pipeline.config.imports import Importer
from xml_pipeline.config.interpolation import reread
from xml_pipeline.config.limits import LimitFields
from xml_pipeline.config.llm import LLMConfig, LLMFields, name_problems
from xml_pipeline.config.mesh import MeshConfig, with_classes, with_files
from xml_pipeline.config.mesh_rules import MeshNames, check_mesh, mesh_warnings, python_names
from xml_pipeline.config.model import ListenerConfig, OrganismConfig
from xml_pipeline.config.names import BUILTIN_NAMES
from xml_pipeline.config.peer_tables import PeerTableConfig, check_peer_tables
from xml_pipeline.config.problems import Hints, InvalidConfiguration, KeyPath, Problem
from xml_pipeline.config.sections import place_of
from xml_pipeline.config.wording import describe, kind_of, missing

__all__ = ["Parsed", "parse_document", "parse_listener"]

_SAME_NAMES: Final = (
    "name",
    "description",
    "broadcast",
    "prompt",
    "model",
    "temperature",
    "max_tokens",
    "max_model_calls",
    "max_history_chars",
    "concurrency",
    "rate",
    "ordered",
    "joins",
    "cpu_bound",
    "repair",
    "handler_sha256",
)
"""What a listener's section and its configuration call alike."""


_BUDGET: Final = "max_tokens_per_thread"
"""The limit that may stand under 'organism', too."""


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
    own = tuple(parsed.problems)
    entries = [_entry(entry, index, hints, parsed) for index, entry in enumerate(_listeners(raw, parsed))]
    if importer is not None:
        for entry in entries:
            parsed.problems += import_entry(entry, importer)
    mesh = _mesh(document, importer, parsed)
    _check(raw, own, entries, hints, builtin_names, parsed)
    if mesh is not None:
        _check_mesh(mesh, raw, own, entries, hints, parsed)
    if document is not None and not parsed.problems:
        parsed.config = _config(document, entries, mesh)
    return parsed


def _mesh(document: OrganismDocument | None, importer: Importer | None, parsed: Parsed) -> MeshConfig | None:
    """The section with its classes imported, and its files found."""
    mesh = None if document is None else document.mesh
    if mesh is None or importer is None:
        return mesh
    classes, problems = import_classes(mesh.class_paths(), importer)
    mesh, missing_files = with_files(with_classes(mesh, classes), importer.directory)
    parsed.problems += [problem.under(("mesh",)) for problem in (*problems, *missing_files)]
    return mesh


def _check_mesh(
    mesh: MeshConfig,
    raw: dict[str, Any],
    own: tuple[Problem, ...],
    entries: list[Entry],
    hints: Hints,
    parsed: Parsed,
) -> None:
    organism = raw.get("organism")
    name = organism.get("name") if isinstance(organism, dict) else None
    tables = [table.name for table in table_facts(raw.get("peer_tables"), own) if table.name is not None]
    facts = [listener_facts(entry) for entry in entries]
    problems = check_mesh(mesh, name if isinstance(name, str) else "", facts, tables, hints, complete=True)
    parsed.problems += [problem.under(("mesh",)) for problem in problems]
    parsed.warnings += [warning.under(("mesh",)) for warning in mesh_warnings(mesh)]


def _check(
    raw: dict[str, Any],
    own: tuple[Problem, ...],
    entries: list[Entry],
    hints: Hints,
    builtin_names: frozenset[str],
    parsed: Parsed,
) -> None:
    """Hold parts against each other; ``own`` is what is wrong with the file in itself, its listeners left aside."""
    # A name that is wrong in itself is known all the same: its listener's callers are not to blame.
    claimed = {name.strip() for entry in entries if isinstance(name := entry.raw.get("name"), str)}
    listeners, llm, tables = [listener_facts(entry) for entry in entries], raw.get("llm", {}), raw.get("peer_tables")
    table_peers = [peer for table in table_facts(tables, own) for entry in table.entries for peer in entry.peers]
    peers = [peer for listener in listeners for peer in listener.peers or ()]
    known = builtin_names | claimed | MeshNames.of(raw.get("mesh")).known([*peers, *table_peers])
    problems, warnings = check_listeners(listeners, hints, known)
    parsed.problems += problems
    if isinstance(raw.get("listeners", []), list):  # what is no list may have been meant as one
        parsed.warnings += warnings
    parsed.problems += [problem.under(("llm",)) for problem in name_problems(backend_names(llm, own))]
    parsed.problems += check_models([agent_facts(entry) for entry in entries], model_facts(llm, own))
    parsed.problems += check_peer_tables(table_facts(tables, own), listeners, hints, known)


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
        raise InvalidConfiguration(dataclasses.replace(problem, path=problem.path[2:]) for problem in parsed.problems)
    return ListenerConfig(**_listener_arguments(section, LimitFields(), LLMConfig()))


def _document(raw: dict[str, Any], hints: Hints, parsed: Parsed) -> OrganismDocument | None:
    top = {key: value for key, value in raw.items() if key != "listeners"}
    parsed.problems += [problem.under(("mesh",)) for problem in python_names(raw.get("mesh"))]
    try:
        return OrganismDocument.model_validate(top)
    except ValidationError as error:
        parsed.problems += describe(error, OrganismDocument, top, hints, elsewhere=place_of)
        return None


def _listeners(raw: dict[str, Any], parsed: Parsed) -> list[Any]:
    listeners = raw.get("listeners", [])
    if isinstance(listeners, list):
        return listeners
    # A blank value is what a file looks like that is written just now; taking it for "none" would remove them all.
    what = "is blank, write [] for none" if listeners is None else f"must be a list, not {kind_of(listeners)}"
    parsed.problems.append(Problem(what, ("listeners",)))
    return []


def _entry(raw: Any, index: int, hints: Hints, parsed: Parsed) -> Entry:
    path: KeyPath = ("listeners", index)
    if not isinstance(raw, dict):
        parsed.problems.append(Problem(f"must be a mapping of keys to values, not {kind_of(raw)}", path))
        return Entry(index, {}, None, {path})
    is_agent = reread(raw.get("agent", False))
    if is_agent is True and "handler" not in raw:
        raw = {**DEFAULT_CLASSES, **raw}
    section = None
    problems: list[Problem] = []
    try:
        section = ListenerSection.model_validate(raw)
    except ValidationError as error:
        problems = describe(error, ListenerSection, raw, hints, path, place_of)
    # What was, or may have been, meant as an agent without a handler needs neither.
    if is_agent is False or raw.get("handler") is not None:
        problems += [Problem(missing(key), (*path, key)) for key in ("payload_class", "handler") if key not in raw]
    entry = Entry(index, raw, section, {problem.path for problem in problems})
    parsed.problems += problems + check_agent(agent_facts(entry))
    return entry


def _config(document: OrganismDocument, entries: list[Entry], mesh: MeshConfig | None) -> OrganismConfig:
    listeners = [
        ListenerConfig(**_listener_arguments(entry.section, document, document.llm), **entry.arguments())
        for entry in entries
        if entry.section is not None
    ]
    organism = document.organism
    return OrganismConfig(
        name=organism.name,
        port=organism.port,
        description=organism.description,
        version=organism.version,
        identity_path=organism.identity,
        import_roots=document.import_roots,
        listeners=listeners,
        llm_config=LLMConfig.of(document.llm),
        peer_tables=[PeerTableConfig.of(section) for section in document.peer_tables],
        mesh=mesh,
        **{name: getattr(document, name) for name in LimitFields.model_fields} | {_BUDGET: document.token_budget},
    )


def _listener_arguments(section: ListenerSection, limits: LimitFields, llm: LLMFields) -> dict[str, Any]:
    arguments: dict[str, Any] = {name: getattr(section, name) for name in _SAME_NAMES}
    default_timeout = limits.timeout if section.handler else llm.timeout
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
