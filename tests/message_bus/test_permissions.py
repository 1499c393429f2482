"""`xml_pipeline.message_bus.permissions`: the rule, against tables of examples and against an independent model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from xml_pipeline.errors import RoutingError
from xml_pipeline.message_bus.conversation import Frame
from xml_pipeline.message_bus.listener import Listener, make_generic_listener, make_listener
from xml_pipeline.message_bus.peer_tables import PeerTable, PeerTables
from xml_pipeline.message_bus.permissions import Permissions, may_call, table_allows
from xml_pipeline.message_bus.routing import CurrentTable, RoutingTable
from xml_pipeline.message_bus.thread_registry import ThreadRegistry

from .helpers import Ask, Reply, echo


def listener(name: str, kind: str, peers: Sequence[str] | None) -> Listener:
    return make_listener(
        name, echo, Ask, agent=kind == "agent", system=kind == "system", peers=peers, output_class=Reply
    )


class World:
    """Listeners, peer tables, and the permissions over them."""

    def __init__(self, *listeners: Listener) -> None:
        self.current = CurrentTable(RoutingTable(listeners))
        self.tables = PeerTables(lambda: self.current.table.listeners)
        self.permissions = Permissions(self.current, self.tables)

    def chain(self, *calls: str | tuple[str, bool], peer_table: str | None = None) -> Frame:
        """The last frame of a chain of calls: names of listeners, with whether they were called ``as_caller``."""
        registry = ThreadRegistry()
        conversation = registry.begin("external")
        conversation.peer_table = peer_table
        frame: Frame | None = None
        for call in calls:
            name, as_caller = call if isinstance(call, tuple) else (call, False)
            record = self.current.table.listeners[name]
            if frame is None:
                frame = registry.open_root(conversation, name)
                frame.listener = record
            else:
                frame = registry.open_child(frame, record, frame.callee)
            frame.as_caller = as_caller
        assert frame is not None
        return frame

    def may(self, frame: Frame, to: str, as_caller: bool = False) -> bool:
        try:
            self.permissions.check(frame, to, as_caller=as_caller)
        except RoutingError as error:
            assert str(error) == RoutingError.public_message
            assert repr(to) in error.detail
            assert self.permissions.refusal(frame, to, as_caller=as_caller) == error.detail
            return False
        assert self.permissions.refusal(frame, to, as_caller=as_caller) is None
        return True


# -- a listener's own peers


@pytest.mark.parametrize("to", ["other", "system.boot", "system.todo", "me"])
def test_one_of_the_pumps_own_may_call_everybody(to: str) -> None:
    assert may_call(listener("system.x", "system", None), to)


def test_a_generic_listener_is_a_tool_without_peers() -> None:
    generic = make_generic_listener("join", echo)
    assert may_call(generic, "other")
    assert not may_call(generic, "system.boot")
    assert not may_call(generic, "System")


def test_sending_to_oneself_needs_no_peer_and_no_table() -> None:
    world = World(listener("me", "agent", []))
    world.tables.register_peer_table("narrow", {})
    assert world.may(world.chain("me", peer_table="narrow"), "me")


def test_the_peers_are_those_in_force_and_not_those_of_the_frame() -> None:
    world = World(listener("me", "agent", ["friend"]))
    frame = world.chain("me")
    assert world.may(frame, "friend")
    world.current.table = RoutingTable([listener("me", "agent", ["other"])])
    assert not world.may(frame, "friend")
    assert world.may(frame, "other")
    world.current.table = RoutingTable()
    assert world.may(frame, "friend")  # it is not registered any more, and is served with what it had


def test_a_frame_without_a_listener_calls_nobody() -> None:
    world = World()
    registry = ThreadRegistry()
    frame = registry.open_root(registry.begin("external"), "made by hand")
    assert not world.may(frame, "anybody")


# -- peer tables


@pytest.mark.parametrize(
    ("kind", "peers", "entry", "to", "allowed"),
    [
        ("agent", ["a"], ["a"], "a", True),
        ("agent", ["a"], ["a"], "A", False),
        ("agent", ["a"], [], "a", False),
        ("agent", ["a"], None, "a", False),
        ("agent", ["a"], [], "system.todo", True),
        ("agent", ["a"], None, "system.todo-complete", True),
        ("tool", ["a"], ["a"], "a", True),
        ("tool", ["a"], [], "a", False),
        ("tool", ["a"], None, "a", False),
        ("tool", [], None, "system.todo", False),
        ("tool", None, ["a"], "a", True),
        ("tool", None, ["a"], "b", False),
        ("tool", None, [], "a", False),
        ("tool", None, None, "a", True),
        ("system", None, None, "a", True),
        ("system", None, ["a"], "b", False),
    ],
)
def test_what_one_table_allows(
    kind: str, peers: list[str] | None, entry: list[str] | None, to: str, allowed: bool
) -> None:
    name = "system.me" if kind == "system" else "me"
    table = PeerTable("t", {} if entry is None else {name: tuple(entry)})
    assert table_allows(table, listener(name, kind, peers), to) is allowed


def test_a_table_takes_away_and_never_gives() -> None:
    world = World(listener("me", "agent", ["a", "b"]))
    world.tables.install({"wide": PeerTable("wide", {"me": ("a", "c")})})
    frame = world.chain("me", peer_table="wide")
    assert {to for to in "abc" if world.may(frame, to)} == {"a"}


def test_every_table_of_the_chain_must_allow_the_call() -> None:
    world = World(listener("me", "agent", ["a", "b"]))
    world.tables.register_peer_table("top", {"me": ["a", "b"]})
    world.tables.register_peer_table("middle", {"me": ["a", "b"]}, parent="top")
    world.tables.register_peer_table("low", {"me": ["a", "b"]}, parent="middle")
    frame = world.chain("me", peer_table="low")
    assert world.may(frame, "a")
    world.tables.modify_peer_table("top", "me", revoke=["a"])
    assert not world.may(frame, "a")
    refusal = world.permissions.refusal(frame, "a")
    assert refusal is not None and "'top'" in refusal
    assert world.may(frame, "b")


@pytest.mark.parametrize("kind", ["agent", "tool", "system"])
def test_a_table_that_is_gone_allows_nobody_anything_but_reminders(kind: str) -> None:
    name = "system.me" if kind == "system" else "me"
    world = World(listener(name, kind, ["a", "system.todo"]))
    frame = world.chain(name, peer_table="gone")
    assert not world.may(frame, "a")
    assert world.may(frame, "system.todo") is (kind == "agent")
    assert world.may(frame, name)


def test_a_table_binds_those_above_a_call_on_behalf_of_them_too() -> None:
    world = World(listener("boss", "agent", ["deputy", "vault"]), listener("deputy", "tool", None))
    world.tables.register_peer_table("narrow", {"boss": ["deputy"]})
    assert world.may(world.chain("boss", "deputy", peer_table="narrow"), "vault")
    assert not world.may(world.chain("boss", "deputy", peer_table="narrow"), "vault", as_caller=True)
    assert world.may(world.chain("boss", "deputy"), "vault", as_caller=True)


# -- as_caller


@pytest.mark.parametrize(
    ("calls", "as_caller", "allowed"),
    [
        # One caller above.
        (["caged", "open"], False, True),
        (["caged", "open"], True, False),
        (["free", "open"], True, True),
        # The caller's caller is asked only if the frame itself was opened on behalf of it.
        (["caged", "open", "free"], True, True),
        (["caged", "open", ("free", True)], True, False),
        (["caged", "open", ("free", True)], False, True),
        # A buffer inside a sequence inside an agent.
        (["caged", "system.sequence", ("system.buffer", True)], True, False),
        (["caged", "system.sequence", ("system.buffer", True)], False, True),
        (["free", "system.sequence", ("system.buffer", True)], True, True),
        # The chain ends at the first frame that was opened by a plain call.
        (["caged", ("open", True), "free", ("open", True)], True, True),
        (["caged", ("open", True), ("free", True), ("open", True)], True, False),
        # Nobody above: whoever asks from outside restricts nothing.
        (["open"], True, True),
        ([("open", True)], True, True),
        # The frame's own listener is asked in any case.
        (["free", "caged"], True, False),
    ],
)
def test_who_answers_for_a_call(calls: list[Any], as_caller: bool, allowed: bool) -> None:
    world = World(
        listener("caged", "agent", ["open", "system.sequence"]),
        listener("free", "agent", ["open", "vault", "system.sequence"]),
        listener("open", "tool", None),
        listener("system.sequence", "system", None),
        listener("system.buffer", "system", None),
    )
    assert world.may(world.chain(*calls), "vault", as_caller=as_caller) is allowed


def test_the_refusal_names_who_may_not_and_who_acts_on_its_behalf() -> None:
    world = World(listener("caged", "agent", []), listener("system.buffer", "system", None))
    refusal = world.permissions.refusal(world.chain("caged", "system.buffer"), "vault", as_caller=True)
    assert refusal == "'caged' may not call 'vault': the agent has the peers []; 'system.buffer' calls on its behalf"


def test_who_a_frame_was_handed_over_to_is_bound_as_it_was() -> None:
    world = World(
        listener("caged", "agent", ["open"]), listener("open", "tool", None), listener("free", "agent", ["vault"])
    )
    frame = world.chain("caged", "open", ("open", True))
    successor = ThreadRegistry().hand_over(frame, world.current.table.listeners["free"])
    assert successor.as_caller
    assert not world.may(successor, "vault", as_caller=True)
    assert not ThreadRegistry().hand_over(world.chain("caged", "open"), world.current.table.listeners["free"]).as_caller


def test_the_pumps_own_frame_restricts_nothing() -> None:
    world = World(listener("me", "agent", ["a"]))
    registry = ThreadRegistry()
    registry.initialize_root()
    assert registry.root is not None
    child = registry.open_child(registry.root, world.current.table.listeners["me"], "system")
    assert world.may(child, "a", as_caller=True)


# -- any listeners, tables, changes and chains of calls, against a model


@dataclass
class ModelTable:
    entries: dict[str, list[str]]
    parent: str | None
    configured: bool = False


class Model:
    """The rule once more, written by itself and without regard to speed."""

    def __init__(self) -> None:
        self.kinds = {name: "system" if name.startswith("system.") else "tool" for name in NAMES}
        self.peers: dict[str, list[str] | None] = dict.fromkeys(NAMES)
        self.tables: dict[str, ModelTable] = {}

    def set(self, name: str, kind: str, peers: list[str] | None) -> None:
        self.kinds[name], self.peers[name] = kind, peers

    def listeners(self) -> list[Listener]:
        return [listener(name, kind, self.peers[name]) for name, kind in self.kinds.items()]

    def is_bound(self, name: str) -> bool:
        return self.kinds[name] == "agent" or self.peers[name] is not None

    def is_reminder(self, name: str, to: str) -> bool:
        return self.kinds[name] == "agent" and to in ("system.todo", "system.todo-complete")

    def own(self, name: str, to: str) -> bool:
        if self.kinds[name] == "system" or self.is_reminder(name, to):
            return True
        if self.is_bound(name):
            return to in (self.peers[name] or [])
        return not to.startswith("system.")

    def by_table(self, table: str, name: str, to: str) -> bool:
        if self.is_reminder(name, to):
            return True
        if table not in self.tables:
            return False
        entry = self.tables[table].entries.get(name)
        return not self.is_bound(name) if entry is None else to in entry

    def by_tables(self, table: str | None, name: str, to: str) -> bool:
        if table is None:
            return True
        if not self.by_table(table, name, to):
            return False
        return table not in self.tables or self.by_tables(self.tables[table].parent, name, to)

    def one(self, name: str, to: str, table: str | None) -> bool:
        return name == to or (self.own(name, to) and self.by_tables(table, name, to))

    def all(self, chain: list[tuple[str, bool]], to: str, as_caller: bool, table: str | None) -> bool:
        *above, (name, is_opened_so) = chain
        if not self.one(name, to, table):
            return False
        return not (as_caller and above) or self.all(above, to, is_opened_so, table)

    def within(self, table: str | None, name: str, to: str) -> bool:
        """Whether ``table`` as a parent leaves room for an entry."""
        if name == to:
            return True
        if table is None:
            return name in self.kinds and self.own(name, to)
        if table not in self.tables:
            return False
        entry = self.tables[table].entries.get(name)
        if name not in self.kinds:
            return entry is not None and to in entry
        if entry is None and not self.is_bound(name):
            return self.within(self.tables[table].parent, name, to)
        return self.by_table(table, name, to)

    def goes_round(self, table: str) -> bool:
        seen: list[str] = []
        at: str | None = table
        while at in self.tables and at not in seen:
            seen.append(at)
            at = self.tables[at].parent
        return at in seen

    def go_round(self) -> bool:
        return any(map(self.goes_round, self.tables))

    def fits(self, entries: dict[str, list[str]], parent: str | None) -> bool:
        return all(self.within(parent, name, to) for name, listed in entries.items() for to in listed)

    def fitted(self, entries: dict[str, list[str]], parent: str | None) -> dict[str, list[str]]:
        return {name: [to for to in listed if self.within(parent, name, to)] for name, listed in entries.items()}


NAMES = ["ann", "bob", "cid", "system.seq"]
TARGETS = [*NAMES, "dot.ted", "system.todo"]
TABLES = ["t1", "t2", "t3"]

names = st.sampled_from(NAMES)
peer_lists = st.lists(st.sampled_from(TARGETS), max_size=4)
entries_of = st.dictionaries(st.sampled_from([*NAMES, "nobody"]), peer_lists, max_size=3)
some_table = st.sampled_from(TABLES)
maybe_table = st.none() | some_table
chains = st.lists(st.tuples(names, st.booleans()), min_size=1, max_size=5)


@given(
    listeners=st.dictionaries(names, st.tuples(st.booleans(), st.none() | peer_lists)),
    tables=st.lists(entries_of, max_size=3),
    is_closed=st.booleans(),
    chain=chains,
)
@settings(max_examples=400, deadline=None)
def test_calls_are_judged_by_the_rule(
    listeners: dict[str, tuple[bool, list[str] | None]],
    tables: list[dict[str, list[str]]],
    is_closed: bool,
    chain: list[tuple[str, bool]],
) -> None:
    """Any tables, one above the other, the uppermost perhaps below one that is gone, and even if they exceed it."""
    model = Model()
    for name, (is_agent, peers) in listeners.items():
        if name != "system.seq":
            model.set(name, "agent" if is_agent else "tool", peers)
    world = World(*model.listeners())
    above: str | None = "gone" if is_closed else None
    for number, entries in enumerate(tables):
        model.tables[f"t{number}"] = ModelTable(entries, above)
        above = f"t{number}"
    world.tables.install(
        {
            name: PeerTable(name, {k: tuple(v) for k, v in table.entries.items()}, table.parent)
            for name, table in model.tables.items()
        }
    )
    frame = world.chain(*chain, peer_table=above)
    for to in TARGETS:
        for as_caller in (False, True):
            assert world.may(frame, to, as_caller) is model.all(chain, to, as_caller, above)


class Rule(RuleBasedStateMachine):
    """What is refused by one is refused by the other, for changes as for calls."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.world = World(*self.model.listeners())

    @rule(name=names, is_agent=st.booleans(), peers=st.none() | peer_lists)
    def change_listener(self, name: str, is_agent: bool, peers: list[str] | None) -> None:
        if name != "system.seq":
            self.model.set(name, "agent" if is_agent else "tool", peers)
            self.world.current.table = RoutingTable(self.model.listeners())

    @rule(name=some_table, entries=entries_of, parent=maybe_table, tidy=st.booleans())
    def register(self, name: str, entries: dict[str, list[str]], parent: str | None, tidy: bool) -> None:
        model = self.model
        if tidy:  # so that many fit
            parent = parent if parent in model.tables else None
            entries = model.fitted(entries, parent)
        before, model.tables = model.tables, {name: ModelTable(entries, parent), **model.tables}
        expected: type[Exception] | None = None
        if name in before or (parent is not None and parent not in before):
            expected = KeyError
        elif model.goes_round(name) or not model.fits(entries, parent):
            expected = ValueError
        self.expect(expected, lambda: self.world.tables.register_peer_table(name, entries, parent))
        if expected is not None:
            model.tables = before

    @rule(name=some_table, whose=st.sampled_from([*NAMES, "nobody"]), grant=peer_lists, revoke=peer_lists)
    def modify(self, name: str, whose: str, grant: list[str], revoke: list[str]) -> None:
        table = self.model.tables.get(name)
        expected: type[Exception] | None = None
        if table is None:
            expected = KeyError
        elif not self.model.fits({whose: grant}, table.parent):
            expected = ValueError
        left = self.expect(
            expected, lambda: self.world.tables.modify_peer_table(name, whose, grant=grant, revoke=revoke)
        )
        if expected is None and table is not None and (grant or revoke):
            entry = [*table.entries.get(whose, []), *grant]
            table.entries[whose] = [to for to in dict.fromkeys(entry) if to not in revoke]
            assert left == table.entries[whose]

    @rule(name=some_table)
    def remove(self, name: str) -> None:
        is_parent = any(table.parent == name for table in self.model.tables.values())
        expected = ValueError if is_parent and name in self.model.tables else None
        was_there = self.expect(expected, lambda: self.world.tables.remove_peer_table(name))
        if expected is None:
            assert was_there is (self.model.tables.pop(name, None) is not None)

    @rule(configs=st.dictionaries(some_table, st.tuples(entries_of, maybe_table), max_size=3), tidy=st.booleans())
    def load(self, configs: dict[str, tuple[dict[str, list[str]], str | None]], tidy: bool) -> None:
        if tidy:
            configs = {name: (self.model.fitted(entries, None), None) for name, (entries, _) in configs.items()}
        kept = {name: table for name, table in self.model.tables.items() if not table.configured}
        loaded = {name: ModelTable(entries, parent, True) for name, (entries, parent) in configs.items()}
        before, self.model.tables = self.model.tables, {**kept, **loaded}
        expected: type[Exception] | None = None
        if kept.keys() & loaded or any(t.parent not in (None, *self.model.tables) for t in loaded.values()):
            expected = KeyError
        elif self.model.go_round() or not all(self.model.fits(t.entries, t.parent) for t in loaded.values()):
            expected = ValueError
        given = [PeerTable(name, {k: tuple(v) for k, v in e.items()}, parent) for name, (e, parent) in configs.items()]
        self.expect(expected, lambda: self.world.tables.load(given))
        if expected is not None:
            self.model.tables = before

    @invariant()
    def tables_agree(self) -> None:
        assert as_plain(self.world.tables.tables.values()) == {
            name: ({k: tuple(dict.fromkeys(v)) for k, v in table.entries.items()}, table.parent, table.configured)
            for name, table in self.model.tables.items()
        }

    @invariant()
    def the_next_call_is_judged_by_them(self) -> None:
        for name in NAMES:
            for table in TABLES:
                frame = self.world.chain(name, peer_table=table)
                reached = {to for to in TARGETS if self.world.may(frame, to)}
                assert reached == {to for to in TARGETS if self.model.one(name, to, table)}

    def expect(self, error: type[Exception] | None, act: Any) -> Any:
        if error is None:
            return act()
        with pytest.raises(error):
            act()
        return None


def as_plain(tables: Iterable[PeerTable]) -> dict[str, Any]:
    return {table.name: (dict(table.peers), table.parent, table.configured) for table in tables}


TestRule = Rule.TestCase
TestRule.settings = settings(max_examples=60, deadline=None)
