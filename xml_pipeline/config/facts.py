"""What the rules look at, taken from raw data: a part that is wrong in itself is ``None`` there, and left alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from xml_pipeline.config.agents import MODEL_CALL_KEYS, AgentFacts, ModelFacts
from xml_pipeline.config.crosscheck import ListenerFacts
from xml_pipeline.config.entries import Entry
from xml_pipeline.config.interpolation import reread
from xml_pipeline.config.peer_tables import EntryFacts, TableFacts
from xml_pipeline.config.problems import KeyPath, Problem

__all__ = ["agent_facts", "backend_names", "listener_facts", "model_facts", "table_facts"]

_AGENT_KEYS: Final = ("model", "handler_sha256", *MODEL_CALL_KEYS)


def listener_facts(entry: Entry) -> ListenerFacts:
    """For the rules between listeners."""
    name, section = entry.sound("name"), entry.section
    classes = entry.objects.get("payload_class")
    if classes is None and section is not None:
        classes = section.payload_class or None
    broadcast = section.broadcast if section is not None else entry.sound("broadcast")
    return ListenerFacts(
        index=entry.index,
        name=str(name) if isinstance(name, str) else None,
        is_agent=_is_agent(entry),
        peers=_names(entry.raw["peers"], entry.faulty, (*entry.path, "peers")) if "peers" in entry.raw else None,
        broadcast=broadcast if isinstance(broadcast, bool | str) else False,
        classes=classes,
    )


def agent_facts(entry: Entry) -> AgentFacts:
    """For the rules about agents without a handler."""
    prompt = entry.sound("prompt") if "prompt" in entry.raw else ""
    return AgentFacts(
        path=entry.path,
        is_agent=_is_agent(entry),
        has_handler="handler" in entry.raw,
        prompt=prompt if isinstance(prompt, str) else None,
        given=frozenset(key for key in _AGENT_KEYS if key in entry.raw),
    )


def model_facts(raw: Any, problems: Sequence[Problem]) -> ModelFacts:
    """For what such agents need of the organism.

    Args:
        raw: the ``llm`` section.
        problems: what is wrong with the file in itself.
    """
    if raw is None or not isinstance(raw, dict) or any(_is_misspelt(problem) for problem in problems):
        return ModelFacts(None, None)
    backends, model = raw.get("backends", []), raw.get("model", "")
    return ModelFacts(
        has_backends=len(backends) > 0 if isinstance(backends, list) else None,
        has_model=bool(model) if isinstance(model, str) else None,
    )


def backend_names(raw: Any, problems: Sequence[Problem]) -> list[str | None]:
    """What the backends of the ``llm`` section ``raw`` are called."""
    backends = raw.get("backends") if isinstance(raw, dict) else None
    faulty = {problem.path for problem in problems}
    names: list[str | None] = []
    for index, backend in enumerate(backends if isinstance(backends, list) else []):
        key = "name" if isinstance(backend, dict) and "name" in backend else "provider"
        value = backend.get(key) if isinstance(backend, dict) else None
        sound = isinstance(value, str) and ("llm", "backends", index, key) not in faulty
        names.append(str(value) if sound else None)
    return names


def table_facts(raw: Any, problems: Sequence[Problem]) -> list[TableFacts]:
    """For the rules about peer tables.

    Args:
        raw: the ``peer_tables`` of the file.
        problems: what is wrong with the file in itself.
    """
    faulty = {problem.path for problem in problems if problem.path[:1] == ("peer_tables",)}
    return [_table(table, index, faulty) for index, table in enumerate(raw if isinstance(raw, list) else [])]


def _table(raw: Any, index: int, faulty: set[KeyPath]) -> TableFacts:
    path: KeyPath = ("peer_tables", index)
    if not isinstance(raw, dict):
        return TableFacts(index, None, is_whole=False)
    entries = raw.get("entries", [])
    found = [
        EntryFacts(
            listener=_text(entry.get("listener"), faulty, (*path, "entries", number, "listener")),
            peers=_names(entry.get("peers"), faulty, (*path, "entries", number, "peers")),
            at_listener=(*path, "entries", number, "listener"),
            at_peers=(*path, "entries", number, "peers"),
        )
        for number, entry in enumerate(entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
    ]
    is_whole = (
        isinstance(entries, list)
        and len(found) == len(entries)
        and all(entry.listener is not None for entry in found)
        and not any(fault[:2] == path and len(fault) == 3 for fault in faulty)
    )
    return TableFacts(
        index=index,
        name=_text(raw.get("name"), faulty, (*path, "name")),
        parent=_text(raw.get("parent"), faulty, (*path, "parent")),
        entries=tuple(found),
        is_whole=is_whole,
    )


def _is_misspelt(problem: Problem) -> bool:
    """Whether a key of the ``llm`` section is unknown: it may have been meant as any other."""
    return problem.at_key and len(problem.path) == 2 and problem.path[0] == "llm"


def _is_agent(entry: Entry) -> bool | None:
    value = reread(entry.raw.get("agent", False))
    return value if isinstance(value, bool) else None


def _names(value: Any, faulty: Iterable[KeyPath], path: KeyPath) -> tuple[str | None, ...]:
    """A list of names; blank is empty, and what is no list may have been meant as any."""
    if value is None:
        return ()
    if not isinstance(value, list):
        return (None,)
    wrong = {fault[len(path)] for fault in faulty if len(fault) > len(path) and fault[: len(path)] == path}
    return tuple(str(name) if isinstance(name, str) and i not in wrong else None for i, name in enumerate(value))


def _text(value: Any, faulty: set[KeyPath], path: KeyPath) -> str | None:
    return str(value) if isinstance(value, str) and path not in faulty else None
