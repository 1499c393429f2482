"""Peer tables: narrower lists of peers, for the conversations that are begun under them.

A table lists for some listeners whom they may call. It can only take away: what it lists must be allowed by every table
on its chain of parents, and by the listener's own peers. A table that has no entry for a listener stands for an empty
list, unless the listener is a tool that never said whom it calls: for it that table is not there. So it is enough to
hold each list against the nearest one above it, which is held against the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, PlainValidator

from xml_pipeline.config.base import ConfigModel, StrictModel
from xml_pipeline.config.crosscheck import ListenerFacts, known_names_of
from xml_pipeline.config.fields import Name, Peers
from xml_pipeline.config.names import ALWAYS_REACHED, reserved_fault
from xml_pipeline.config.problems import Hints, KeyPath, Problem, quoted

__all__ = [
    "EntryFacts",
    "PeerEntrySection",
    "PeerTableConfig",
    "PeerTableSection",
    "TableFacts",
    "check_peer_tables",
]

_MOST_NAMED: Final = 8


def _lists(value: Any) -> dict[str, list[str]]:
    wrong = "must be a mapping of listeners' names to lists of names"
    if not isinstance(value, Mapping):
        raise ValueError(wrong)
    lists = {}
    for name, peers in value.items():
        if not isinstance(name, str) or isinstance(peers, str) or not isinstance(peers, Iterable):
            raise ValueError(wrong)
        lists[name] = list(peers)
        if not all(isinstance(peer, str) for peer in lists[name]):
            raise ValueError(wrong)
    return lists


class PeerEntrySection(StrictModel):
    """One entry of a table."""

    listener: Name = Field(description="The listener whose peers are listed.")
    peers: Peers = Field(description="Whom it may call, of those it may call anyway. Empty: nobody.")


class PeerTableSection(StrictModel):
    """One entry of ``peer_tables``."""

    name: Name = Field(description="The table's name, unlike every other table's.")
    parent: Name | None = Field(default=None, description="The table that this one narrows further; null for none.")
    entries: list[PeerEntrySection] = Field(
        default=[], description="Lists of peers; an agent that has none here reaches nobody."
    )


class PeerTableConfig(ConfigModel):
    """One peer table, immutable.

    Args:
        name: unique among the tables; case counts.
        peers: for each listener whom it may call; empty lists, and an empty table, allow agents nobody.
        parent: the table that it narrows; ``None``, the default, for none.

    Raises:
        InvalidConfiguration: an argument is unknown, missing, or wrong.
    """

    model_config = ConfigDict(frozen=True)

    name: Name
    peers: Annotated[dict[str, list[str]], PlainValidator(_lists)] = Field(default_factory=dict)
    parent: Name | None = None

    @classmethod
    def of(cls, section: PeerTableSection) -> PeerTableConfig:
        """The configuration that a section of the file describes."""
        peers = {entry.listener: list(entry.peers or ()) for entry in section.entries}
        return cls(name=section.name, peers=peers, parent=section.parent)

    def facts(self, index: int) -> TableFacts:
        """What the rules look at; ``index`` is its position among the tables."""
        path: KeyPath = ("peer_tables", index, "peers")
        entries = [EntryFacts(name, tuple(peers), path, (*path, name)) for name, peers in self.peers.items()]
        return TableFacts(index, self.name, self.parent, tuple(entries))


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """What the rules look at in one list of peers; ``None`` for what is wrong in itself.

    Args:
        listener: whose list it is.
        peers: the list.
        at_listener: where the listener is named.
        at_peers: where the list stands.
    """

    listener: str | None
    peers: tuple[str | None, ...]
    at_listener: KeyPath
    at_peers: KeyPath


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What the rules look at in one table; ``None`` for what is wrong in itself.

    Args:
        index: position in the list of tables.
        name: its name.
        parent: its parent's name; ``None`` also when it has none.
        entries: its lists.
        is_whole: all its entries could be read, so that what it does not list is not listed.
    """

    index: int
    name: str | None
    parent: str | None = None
    entries: tuple[EntryFacts, ...] = ()
    is_whole: bool = True

    @property
    def path(self) -> KeyPath:
        """Where it stands in the configuration."""
        return ("peer_tables", self.index)


def check_peer_tables(
    tables: Sequence[TableFacts],
    listeners: Sequence[ListenerFacts],
    hints: Hints,
    known_names: frozenset[str] | None,
) -> list[Problem]:
    """Check tables against each other and against listeners.

    Args:
        tables: all of them.
        listeners: all listeners of the organism.
        hints: for suggestions.
        known_names: other names that tables may use; ``None`` if any may be registered later.
    """
    by_name: dict[str, TableFacts] = {}
    for table in tables:
        if table.name is not None:
            by_name.setdefault(table.name, table)
    problems = _names(tables, by_name) + _parents(tables, by_name, hints)
    rings = list(_rings(tables, by_name))
    problems += [_circular(ring) for ring in rings]
    problems += [problem for table in tables for problem in _entries(table)]
    if known_names is not None:
        problems += _unknown(tables, listeners, hints, known_names)
    circular = {table.index for ring in rings for table in ring}
    ceilings = _Ceilings(by_name, listeners, known_names)
    return problems + [
        problem for table in tables if table.index not in circular for problem in ceilings.exceeded_by(table)
    ]


def _names(tables: Sequence[TableFacts], by_name: Mapping[str, TableFacts]) -> list[Problem]:
    return [
        Problem(
            f"a peer table called {quoted(table.name)} is already registered, see peer_tables[{other.index}]",
            (*table.path, "name"),
        )
        for table in tables
        if table.name is not None and (other := by_name[table.name]) is not table
    ]


def _parents(tables: Sequence[TableFacts], by_name: Mapping[str, TableFacts], hints: Hints) -> list[Problem]:
    return [
        Problem(
            f"{quoted(table.parent)} is referenced as parent but not defined"
            f"{hints.did_you_mean(table.parent, by_name, 'peer table')}",
            (*table.path, "parent"),
        )
        for table in tables
        if table.parent is not None and table.parent not in by_name
    ]


def _rings(tables: Sequence[TableFacts], by_name: Mapping[str, TableFacts]) -> Iterator[list[TableFacts]]:
    """Each chain of parents that ends in itself, once, beginning with the first of its tables."""
    done: set[int] = set()
    for table in tables:
        chain: dict[int, TableFacts] = {}
        each: TableFacts | None = table
        while each is not None and each.index not in done and each.index not in chain:
            chain[each.index] = each
            each = by_name.get(each.parent) if each.parent is not None else None
        if each is not None and each.index in chain:
            indices = list(chain)
            ring = indices[indices.index(each.index) :]
            first = ring.index(min(ring))
            yield [chain[index] for index in ring[first:] + ring[:first]]
        done.update(chain)


def _circular(ring: Sequence[TableFacts]) -> Problem:
    names = [quoted(table.name or "") for table in [*ring, ring[0]]]
    if len(names) > _MOST_NAMED:
        names = [*names[: _MOST_NAMED - 2], "...", names[-1]]
    return Problem(f"Circular peer table parent chain: {' -> '.join(names)}", (*ring[0].path, "parent"))


def _entries(table: TableFacts) -> list[Problem]:
    seen: set[str] = set()
    problems = []
    for entry in table.entries:
        if entry.listener is None:
            continue
        if entry.listener in seen:
            problems.append(
                Problem(f"{quoted(entry.listener)} has an entry in this table already; join them", entry.at_listener)
            )
        seen.add(entry.listener)
    return problems


def _unknown(
    tables: Sequence[TableFacts], listeners: Sequence[ListenerFacts], hints: Hints, known_names: frozenset[str]
) -> list[Problem]:
    targets = known_names_of(listeners, known_names)
    groups = {listener.group for listener in listeners} - {listener.name for listener in listeners}
    callers = targets - groups
    ordered, ordered_callers = sorted(targets), sorted(callers)
    problems = []
    for entry in (entry for table in tables for entry in table.entries):
        if entry.listener is not None and entry.listener not in callers:
            near = hints.did_you_mean(entry.listener, ordered_callers, "listener of a peer table")
            hint = "; it is a broadcast group, list its members" if entry.listener in groups else near
            problems.append(Problem(f"no listener is called {quoted(entry.listener)}{hint}", entry.at_listener))
        problems += [
            Problem(
                f"no listener or group is called {quoted(peer)}{hints.did_you_mean(peer, ordered, 'peer')}",
                (*entry.at_peers, index),
            )
            for index, peer in enumerate(entry.peers)
            if peer is not None and peer not in targets
        ]
    return problems


class _Ceilings:
    """What a table's lists must lie under."""

    def __init__(
        self,
        tables: Mapping[str, TableFacts],
        listeners: Sequence[ListenerFacts],
        known_names: frozenset[str] | None,
    ) -> None:
        self._tables = tables
        self._listeners = {listener.name: listener for listener in listeners}
        self._builtin = (known_names or frozenset()) - self._listeners.keys()
        self._targets = None if known_names is None else known_names_of(listeners, known_names)
        self._lists = {
            name: {entry.listener: frozenset(entry.peers) for entry in table.entries} for name, table in tables.items()
        }

    def exceeded_by(self, table: TableFacts) -> list[Problem]:
        """A problem for every peer in ``table`` that its ceiling does not have."""
        problems = []
        for entry in table.entries:
            if entry.listener is None or not any(entry.peers):
                continue
            caller = self._caller(entry.listener)
            for index, peer in enumerate(entry.peers):
                if peer is not None and (reason := self._refusal(table, entry.listener, caller, peer)):
                    problems.append(Problem(f"{quoted(peer)} exceeds ceiling: {reason}", (*entry.at_peers, index)))
        return problems

    def _caller(self, name: str) -> ListenerFacts | None:
        if name in self._builtin:
            return ListenerFacts(index=-1, name=name)  # a tool
        listener = self._listeners.get(name)
        return None if listener is None or listener.is_agent is None else listener

    def _refusal(self, table: TableFacts, name: str, caller: ListenerFacts | None, peer: str) -> str:
        """Why ``name`` may not call ``peer``; an empty string if it may, or if that cannot be told."""
        if self._targets is not None and peer not in self._targets:
            return ""
        if peer == name or (peer in ALWAYS_REACHED and (caller is None or caller.is_agent)):
            return ""
        binds_unlisted = caller is not None and (caller.is_agent or caller.peers is not None)
        seen = {table.index}
        while table.parent is not None:
            parent = self._tables.get(table.parent)
            if parent is None or parent.index in seen:
                break  # what is above is not known, but the listener's own peers are at the top of it
            listed = self._lists[table.parent].get(name)
            if listed is None and binds_unlisted and parent.is_whole:
                listed = frozenset()
            if listed is not None:
                allowed = peer in listed or None in listed  # with an unreadable name in it, anybody may be meant
                return "" if allowed else f"table {quoted(table.parent)} does not list it for {quoted(name)}"
            seen.add(parent.index)
            table = parent
        if caller is None or name in self._builtin or _allows(caller, peer):
            return ""
        return f"the YAML peers of {quoted(name)} do not allow it"


def _allows(caller: ListenerFacts, peer: str) -> bool:
    """Whether a listener's own peers let it call ``peer``, by the rule that calls are held to."""
    if caller.peers is None:
        return not caller.is_agent and reserved_fault(peer) is None
    return peer in caller.peers or None in caller.peers
