"""`PeerTables`: named sets of peers that narrow what the listeners of a conversation may call.

A conversation is given a table when it begins, and keeps it for life. A table can only take away: a call must be
allowed by the listener's own peers, by the table, by the table's parent, and so on up (`permissions` has the rule). So
what a table may list is bounded, too: by its parent, or by the listener's own peers where there is no parent. That
*ceiling* is checked when a table is registered and when a peer is granted; and as every call asks the whole chain,
revoking a peer from a parent takes it from the children at once.

A table comes from organism.yaml, and is replaced by every reload, or from the program, and stays until it is removed.
A reload may take away a table while conversations run under it: nobody in them may call anybody then.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from xml_pipeline.config import name_fault
from xml_pipeline.message_bus.permissions import always_allowed, may_call, table_allows
from xml_pipeline.runtime import current_runtime

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["PeerTable", "PeerTables", "TableConfig", "get_peer_tables"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PeerTable:
    """One table, as it is at one moment; a change makes a new record.

    Args:
        name: matched exactly.
        peers: for each listener that has an entry, whom it may call. An empty entry means nobody.
        parent: the name of the table that bounds it, if there is one.
        configured: it came from organism.yaml, so that a reload may change or remove it.
        version: different for every record that a registry made.
    """

    name: str
    peers: Mapping[str, tuple[str, ...]]
    parent: str | None = None
    configured: bool = False
    version: int = field(default=0, compare=False)


class TableConfig(Protocol):
    """What `PeerTables.load` needs to know of a table."""

    @property
    def name(self) -> str: ...
    @property
    def peers(self) -> Mapping[str, Iterable[str]]: ...
    @property
    def parent(self) -> str | None: ...


class PeerTables:
    """The peer tables of one pump.

    Args:
        listeners: gives the registered listeners by name; their peers are the ceiling of tables without a parent.
    """

    def __init__(self, listeners: Callable[[], Mapping[str, Listener]] = dict) -> None:
        self.on_modified: Callable[[str, str, bool], None] = lambda name, listener_name, changed: None
        """Called after `modify_peer_table`: with the table, the listener, and whether anything is different now."""
        self._listeners = listeners
        self._tables: dict[str, PeerTable] = {}
        self._versions = itertools.count(1)
        self._missed: set[str] = set()
        """Tables that were asked for when they were gone; each is logged once."""

    @property
    def tables(self) -> Mapping[str, PeerTable]:
        """All tables by name; read-only, a snapshot."""
        return MappingProxyType(dict(self._tables))

    def __contains__(self, name: object) -> bool:
        return name in self._tables

    # -- changing -----------------------------------------------------------------------------------------------

    def register_peer_table(
        self, name: str, peers: Mapping[str, Iterable[str]], parent: str | None = None
    ) -> PeerTable:
        """Register a table.

        Args:
            name: any text that a listener could be called.
            peers: for each listener, whom it may call. Listeners that are left out: see `permissions`.
            parent: the name of a registered table.

        Returns:
            The table.

        Raises:
            KeyError: the name is taken, or the parent is not registered.
            ValueError: the name is no name; a peer is beyond the ceiling; the parent is, by its own parents, below it.
            TypeError: ``peers`` is not a mapping from names to lists of names.
        """
        table = self._make(name, peers, parent, configured=False)
        if name in self._tables:
            raise KeyError(f"peer table {name!r} is already registered")
        if parent is not None and parent not in self._tables:
            raise KeyError(f"Parent table {parent!r} not registered")
        tables = {**self._tables, name: table}
        _check_chains((table,), tables)
        _check_ceiling(table, tables, self._listeners())
        self.install(tables)
        return table

    def modify_peer_table(
        self,
        name: str,
        listener_name: str,
        *,
        grant: Iterable[str] | None = None,
        revoke: Iterable[str] | None = None,
    ) -> list[str]:
        """Change whom a listener may call; the next call in every conversation under the table is held to it.

        A listener without an entry gets one. What is granted and revoked at once is revoked. Peers that are there
        already, or not there, are left as they are.

        Args:
            name: the table.
            listener_name: whose entry.
            grant: names to add; they must be within the ceiling.
            revoke: names to take away.

        Returns:
            The listener's peers in this table, as they are now.

        Raises:
            KeyError: the table is not registered.
            ValueError: a granted peer is beyond the ceiling; nothing was changed.
            TypeError: an argument is not a list of names.
        """
        table = self._tables.get(name)
        if table is None:
            raise KeyError(f"peer table {name!r} is not registered")
        granted = _names("grant", () if grant is None else grant)
        revoked = _names("revoke", () if revoke is None else revoke)
        if not isinstance(listener_name, str):
            raise TypeError(f"a listener's name must be text, not {type(listener_name).__name__}")
        _require_within(table, listener_name, granted, self._tables, self._listeners().get(listener_name))
        before = table.peers.get(listener_name)
        after = tuple(peer for peer in dict.fromkeys((*(before or ()), *granted)) if peer not in revoked)
        changed = after != before and bool(granted or revoked)
        if changed:
            peers = MappingProxyType({**table.peers, listener_name: after})
            self._tables[name] = replace(table, peers=peers, version=next(self._versions))
        self.on_modified(name, listener_name, changed)
        return list(after)

    def remove_peer_table(self, name: str) -> bool:
        """Remove a table. In conversations that run under it, nobody may call anybody from now on.

        Returns:
            Whether it was registered.

        Raises:
            ValueError: it is the parent of another one.
        """
        if name not in self._tables:
            return False
        children = [table.name for table in self._tables.values() if table.parent == name]
        if children:
            raise ValueError(f"peer table {name!r} is the parent of {', '.join(map(repr, children))}")
        del self._tables[name]
        return True

    # -- the tables of organism.yaml ----------------------------------------------------------------------------

    def load(self, configs: Iterable[TableConfig]) -> None:
        """Replace all tables of the configuration, or none. Those that the program registered stay.

        Args:
            configs: in any order.

        Raises:
            KeyError: a name is given twice, or taken by the program; a parent is not defined.
            ValueError: parents go in a circle; a peer is beyond its ceiling.
            TypeError: peers are not lists of names.
        """
        self.install(self.prepare(configs, self._listeners()))

    def prepare(self, configs: Iterable[TableConfig], listeners: Mapping[str, Listener]) -> dict[str, PeerTable]:
        """What `load` would put in force with these listeners; changes nothing. For `install`."""
        tables = {name: table for name, table in self._tables.items() if not table.configured}
        loaded = []
        for config in configs:
            if config.name in tables:
                raise KeyError(f"peer table {config.name!r} is already registered")
            table = tables[config.name] = self._make(config.name, config.peers, config.parent, configured=True)
            loaded.append(table)
        for table in loaded:
            if table.parent is not None and table.parent not in tables:
                raise KeyError(f"peer table {table.parent!r} is referenced as parent but not defined")
        _check_chains(tables.values(), tables)
        for table in loaded:
            _check_ceiling(table, tables, listeners)
        return tables

    def install(self, prepared: Mapping[str, PeerTable]) -> None:
        """Put in force what `prepare` returned; nothing may have been changed in between."""
        self._tables = dict(prepared)
        self._missed -= self._tables.keys()

    def _make(
        self, name: str, peers: Mapping[str, Iterable[str]], parent: str | None, *, configured: bool
    ) -> PeerTable:
        if not isinstance(name, str):
            raise TypeError(f"a peer table's name must be text, not {type(name).__name__}")
        fault = name_fault(name)
        if fault is not None:
            raise ValueError(f"peer table: {fault}")
        if parent is not None and not isinstance(parent, str):
            raise TypeError(f"peer table {name!r}: the parent must be a name, not {type(parent).__name__}")
        entries = MappingProxyType(_entries(f"peer table {name!r}", peers))
        return PeerTable(name, entries, parent, configured, next(self._versions))

    # -- asking -------------------------------------------------------------------------------------------------

    def refused_by(self, name: str, caller: Listener, to: str) -> str | None:
        """The first table of a chain that does not let ``caller`` call ``to``; ``None`` if all do.

        Args:
            name: the conversation's table.
            caller: its record in force.
            to: the name of a listener or group.
        """
        asked: str | None = name
        while asked is not None:
            table = self._tables.get(asked)
            if table is None:
                self._miss(asked)
                return None if always_allowed(caller, to) else asked
            if not table_allows(table, caller, to):
                return asked
            asked = table.parent
        return None

    def versions(self, name: str) -> tuple[int, ...]:
        """A value that is different whenever a table of a chain is; 0 stands for one that is gone."""
        found: list[int] = []
        asked: str | None = name
        while asked is not None:
            table = self._tables.get(asked)
            found.append(0 if table is None else table.version)
            asked = None if table is None else table.parent
        return tuple(found)

    def _miss(self, name: str) -> None:
        if name not in self._missed:
            self._missed.add(name)
            logger.error("peer table %r is gone; in conversations under it nobody may call anybody (said once)", name)


def _entries(where: str, peers: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    if not isinstance(peers, Mapping):
        raise TypeError(f"{where}: peers must map listeners to lists of names, not be {type(peers).__name__}")
    for listener_name in peers:
        if not isinstance(listener_name, str):
            raise TypeError(f"{where}: {listener_name!r} is not a listener's name")
    return {name: _names(f"{where}, listener {name!r}", names) for name, names in peers.items()}


def _names(what: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
        raise TypeError(f"{what}: must be a list of names, not {type(names).__name__}")
    listed = tuple(dict.fromkeys(names))
    for name in listed:
        if not isinstance(name, str):
            raise TypeError(f"{what}: {name!r} is not a name")
    return listed


def _check_chains(some: Iterable[PeerTable], tables: Mapping[str, PeerTable]) -> None:
    """Refuse tables that are above themselves. A chain may end in a table that is gone: what is below it is closed."""
    sound: set[str] = set()
    for table in some:
        chain = {table.name: None}  # a dict, because the error tells the order
        parent = table.parent
        while parent is not None and parent in tables and parent not in sound:
            if parent in chain:
                told = " -> ".join(map(repr, [*chain, parent]))
                raise ValueError(f"Circular peer table parent chain: {told}")
            chain[parent] = None
            parent = tables[parent].parent
        sound.update(chain)


def _check_ceiling(table: PeerTable, tables: Mapping[str, PeerTable], listeners: Mapping[str, Listener]) -> None:
    for listener_name, peers in table.peers.items():
        _require_within(table, listener_name, peers, tables, listeners.get(listener_name))


def _require_within(
    table: PeerTable,
    listener_name: str,
    peers: Iterable[str],
    tables: Mapping[str, PeerTable],
    listener: Listener | None,
) -> None:
    """Refuse peers beyond the ceiling: the nearest table above that restricts the listener, or its own peers."""
    above = _restricting(table.parent, listener_name, tables, listener)
    beyond = [
        peer for peer in peers if peer != listener_name and not _is_within(peer, listener_name, above, tables, listener)
    ]
    if not beyond:
        return
    told = f"peer table {table.name!r}: for listener {listener_name!r}, {_listed(beyond)} exceeds ceiling of "
    if above is None:
        declared = "which is not registered" if listener is None else f"which are {_listed(listener.peers or ())}"
        raise ValueError(f"{told}its own peers, {declared}")
    allowed = tables[above].peers.get(listener_name, ()) if above in tables else ()
    raise ValueError(f"{told}table '{above}', which has {_listed(allowed)}")


def _restricting(
    name: str | None, listener_name: str, tables: Mapping[str, PeerTable], listener: Listener | None
) -> str | None:
    """The first table of a chain that says something of a listener, which all do unless it may call everybody."""
    is_open = listener is not None and not listener.is_agent and listener.peers is None
    while is_open and name is not None and name in tables and listener_name not in tables[name].peers:
        name = tables[name].parent
    return name


def _is_within(
    peer: str, listener_name: str, above: str | None, tables: Mapping[str, PeerTable], listener: Listener | None
) -> bool:
    if above is None:
        return listener is not None and may_call(listener, peer)
    parent = tables.get(above)
    if parent is None:
        return False
    if listener is None:
        return peer in parent.peers.get(listener_name, ())
    return table_allows(parent, listener, peer)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nobody"


def get_peer_tables() -> PeerTables:
    """The peer tables of the current pump."""
    return current_runtime().get(PeerTables)
