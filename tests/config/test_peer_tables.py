from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xml_pipeline.config import InvalidConfiguration, ListenerConfig, OrganismConfig, PeerTableConfig
from xml_pipeline.config.crosscheck import ListenerFacts
from xml_pipeline.config.peer_tables import check_peer_tables
from xml_pipeline.config.problems import Hints
from xml_pipeline.message_bus.peer_tables import PeerTables

from .conftest import Organism

LISTENERS = """organism: {name: test}
listeners:
- {name: agent, agent: true, peers: [a, b, group, system.buffer], AND}
- {name: shy, agent: true, peers: [], AND}
- {name: silent, agent: true, AND}
- {name: tool, AND}
- {name: bound, peers: [a], AND}
- {name: a, AND}
- {name: b, AND}
- {name: group.one, broadcast: true, AND}
peer_tables:
""".replace("AND", "payload_class: handlers.Greeting, handler: handlers.greet, description: d")
"""The tables that follow begin in line 12."""


def problems(organism: Organism, *tables: str) -> list[str]:
    return organism.problems(LISTENERS + "".join(f"- {table}\n" for table in tables))


def entry(listener: str, *peers: str) -> str:
    return f"{{listener: {listener}, peers: [{', '.join(peers)}]}}"


def table(name: str, *entries: str, parent: str = "null") -> str:
    return f"{{name: {name}, parent: {parent}, entries: [{', '.join(entries)}]}}"


def test_tables_become_the_configuration(organism: Organism) -> None:
    text = """
- name: narrow
  parent: wide
  entries:
  - {listener: agent, peers: [a]}
  - {listener: tool, peers: }
- {name: wide, entries: [{listener: agent, peers: [b, a]}]}
- name: empty
- {name: nothing, entries: []}
"""
    report = organism.report(LISTENERS + text)
    assert report.problems == ()
    assert report.config is not None
    assert report.config.peer_tables == [
        PeerTableConfig(name="narrow", parent="wide", peers={"agent": ["a"], "tool": []}),
        PeerTableConfig(name="wide", peers={"agent": ["b", "a"]}),
        PeerTableConfig(name="empty"),
        PeerTableConfig(name="nothing", peers={}, parent=None),
    ]


def test_an_organism_need_not_have_tables(organism: Organism) -> None:
    for text in (LISTENERS.replace("peer_tables:\n", ""), LISTENERS.replace("peer_tables:", "peer_tables: []")):
        config = organism.report(text).config
        assert config is not None
        assert config.peer_tables == []


def test_what_is_within_the_ceiling_is_fine(organism: Organism) -> None:
    assert (
        problems(
            organism,
            table("same", entry("agent", "a", "b", "group", "system.buffer")),
            table("less", entry("agent", "a", "b"), parent="same"),
            table("least", entry("agent", "a"), parent="less"),
            table("none", entry("agent"), entry("silent"), entry("shy"), parent="least"),
            table("tools", entry("tool", "a", "agent", "group"), entry("bound", "a"), entry("a", "group.one")),
            table("over", entry("b", "a"), parent="tools"),
            table("far", entry("tool", "a"), parent="over"),
            table("always", entry("agent", "agent", "system.todo"), entry("shy", "shy", "system.todo-complete")),
            table("built-in", entry("system.sequence", "a", "system.buffer", "system.todo")),
        )
        == []
    )


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (["{name: x, parents: y}"], ["12:13 peer_tables[0].parents: unknown key, did you mean 'parent'?"]),
        (["{name: x, peers: []}"], ["12:13 peer_tables[0].peers: unknown key here; 'peers' belongs in an entry of "
         "'listeners', or in one of a peer table's 'entries'"]),
        (["{entries: []}"], ["12:3 peer_tables[0].name: is missing"]),
        (["{name: x, entries: }"], ["12:13 peer_tables[0].entries: is blank, must be a list"]),
        (["{name: x, entries: [{peers: []}]}"], ["12:23 peer_tables[0].entries[0].listener: is missing: the listener's "
         "name"]),
        (["{name: x, entries: [{listener: a}]}"], ["12:23 peer_tables[0].entries[0].peers: is missing: whom the "
         "listener may call, [] for nobody"]),
        (["{name: x, os_user: y}"], ["12:13 peer_tables[0].os_user: not supported, and out of scope for good"]),
        ([table("x"), table("y"), table("x")], ["14:10 peer_tables[2].name: a peer table called 'x' is already "
         "registered, see peer_tables[0]"]),
        ([table("x", parent="wid"), table("wide")], ["12:21 peer_tables[0].parent: 'wid' is referenced as parent but "
         "not defined, did you mean 'wide'?"]),
        ([table("x", parent="x")], ["12:21 peer_tables[0].parent: Circular peer table parent chain: 'x' -> 'x'"]),
        ([table("x", parent="y"), table("z", parent="x"), table("y", parent="x")], ["12:21 peer_tables[0].parent: "
         "Circular peer table parent chain: 'x' -> 'y' -> 'x'"]),
        ([table("x", entry("agnet", "a"))], ["12:48 peer_tables[0].entries[0].listener: no listener is called 'agnet', "
         "did you mean 'agent'?"]),
        ([table("x", entry("nobody"))], ["12:48 peer_tables[0].entries[0].listener: no listener is called 'nobody'"]),
        ([table("x", entry("group", "a"))], ["12:48 peer_tables[0].entries[0].listener: no listener is called 'group'; "
         "it is a broadcast group, list its members"]),
        ([table("x", entry("agent", "a", "sytem.buffer"))], ["12:66 peer_tables[0].entries[0].peers[1]: no listener or "
         "group is called 'sytem.buffer', did you mean 'system.buffer'?"]),
        ([table("x", entry("agent", "a"), entry("agent", "b"))], ["12:79 peer_tables[0].entries[1].listener: 'agent' "
         "has an entry in this table already; join them"]),
        ([table("x", entry("agent", "a", "tool"))], ["12:66 peer_tables[0].entries[0].peers[1]: 'tool' exceeds "
         "ceiling: the YAML peers of 'agent' do not allow it"]),
        ([table("x", entry("shy", "a"))], ["12:61 peer_tables[0].entries[0].peers[0]: 'a' exceeds ceiling: the YAML "
         "peers of 'shy' do not allow it"]),
        ([table("x", entry("silent", "a"))], ["12:64 peer_tables[0].entries[0].peers[0]: 'a' exceeds ceiling: the YAML "
         "peers of 'silent' do not allow it"]),
        ([table("x", entry("bound", "b"))], ["12:63 peer_tables[0].entries[0].peers[0]: 'b' exceeds ceiling: the YAML "
         "peers of 'bound' do not allow it"]),
        ([table("x", entry("tool", "system.todo"))], ["12:62 peer_tables[0].entries[0].peers[0]: 'system.todo' exceeds "
         "ceiling: the YAML peers of 'tool' do not allow it"]),
        ([table("x", entry("agent", "group.one"))], ["12:63 peer_tables[0].entries[0].peers[0]: 'group.one' exceeds "
         "ceiling: the YAML peers of 'agent' do not allow it"]),
        ([table("x", entry("agent", "a")), table("y", entry("agent", "b"), parent="x")], ["13:60 "
         "peer_tables[1].entries[0].peers[0]: 'b' exceeds ceiling: table 'x' does not list it for 'agent'"]),
        ([table("x"), table("y", entry("agent", "b"), parent="x")], ["13:60 peer_tables[1].entries[0].peers[0]: 'b' "
         "exceeds ceiling: table 'x' does not list it for 'agent'"]),
        ([table("x"), table("y", entry("bound", "a"), parent="x")], ["13:60 peer_tables[1].entries[0].peers[0]: 'a' "
         "exceeds ceiling: table 'x' does not list it for 'bound'"]),
        ([table("x", entry("tool", "a")), table("y", parent="x"), table("z", entry("tool", "b"), parent="y")], ["14:59 "
         "peer_tables[2].entries[0].peers[0]: 'b' exceeds ceiling: table 'x' does not list it for 'tool'"]),
        ([table("x", entry("agent", "a")), table("y", entry("agent", "b"), parent="x"),
          table("z", entry("agent", "b"), parent="y")], ["13:60 peer_tables[1].entries[0].peers[0]: 'b' exceeds "
         "ceiling: table 'x' does not list it for 'agent'"]),
    ],
)  # fmt: skip
def test_a_wrong_table_is_told_with_its_place(organism: Organism, tables: list[str], expected: list[str]) -> None:
    assert problems(organism, *tables) == expected


def test_everything_wrong_with_tables_is_told_at_once(organism: Organism) -> None:
    found = problems(
        organism,
        table("x", entry("agent", "tool", "nobody"), entry("nobody", "a"), parent="gone"),
        table("x", "{listener: ' '}", parent="5"),
        table("y", entry("agent", "a", "5"), parent="z"),
        table("z", "5", entry("shy", "b"), parent="y"),
    )
    assert [problem.partition(": ")[0].partition(" ")[2] for problem in found] == [
        "peer_tables[0].parent",
        "peer_tables[0].entries[0].peers[0]",
        "peer_tables[0].entries[0].peers[1]",
        "peer_tables[0].entries[1].listener",
        "peer_tables[1].name",
        "peer_tables[1].parent",
        "peer_tables[1].entries[0].peers",
        "peer_tables[1].entries[0].listener",
        "peer_tables[2].parent",
        "peer_tables[2].entries[0].peers[1]",
        "peer_tables[3].entries[0]",
    ]


@pytest.mark.parametrize(
    ("wrong", "tables"),
    [
        ("agent: yes", [table("x", entry("new", "a"))]),
        ("agent: true, peers: 5", [table("x", entry("new", "a"))]),
        ("agent: true, peers: [5]", [table("x", entry("new", "a"))]),
        ("agent: true, peers: [a], name: ' new'", [table("x", entry("new", "a"))]),
    ],
)
def test_a_wrong_listener_has_no_ceiling(organism: Organism, wrong: str, tables: list[str]) -> None:
    new = f"- {{name: new, payload_class: handlers.Greeting, handler: handlers.greet, description: d, {wrong}}}\n"
    new = new.replace("name: new, ", "", 1) if "name: '" in wrong else new
    text = LISTENERS.replace("peer_tables:\n", f"{new}peer_tables:\n")
    found = organism.problems(text + "".join(f"- {one}\n" for one in tables))
    assert found
    assert not any("peer_tables" in problem for problem in found)


def test_a_table_that_cannot_be_read_is_no_ceiling(organism: Organism) -> None:
    for wrong in ("entries: 5", "entries: [5]", "entries: [{listener: 5, peers: []}]", "entriez: []"):
        found = problems(organism, f"{{name: x, {wrong}}}", table("y", entry("agent", "a"), parent="x"))
        assert len(found) == 1, found
        assert found[0].startswith("12:")


def test_what_an_unreadable_table_narrows_is_still_a_ceiling(organism: Organism) -> None:
    found = problems(
        organism,
        table("x", entry("agent", "a"), entry("tool", "a")),
        "{name: y, parent: x, entries: [5]}",
        table("z", entry("agent", "a", "b"), entry("tool", "system.buffer"), parent="y"),
        table("u", entry("agent", "a", "5")),
        table("v", entry("agent", "b"), parent="u"),
    )
    assert [problem.partition(" ")[2] for problem in found] == [
        "peer_tables[1].entries[0]: must be a mapping of keys to values, not 5",
        "peer_tables[2].entries[0].peers[1]: 'b' exceeds ceiling: table 'x' does not list it for 'agent'",
        "peer_tables[2].entries[1].peers[0]: 'system.buffer' exceeds ceiling: table 'x' does not list it for 'tool'",
        "peer_tables[3].entries[0].peers[1]: must be text, not 5",
    ]


def test_an_empty_entry_is_not_the_same_as_none(organism: Organism) -> None:
    assert problems(organism, table("x", entry("tool")), table("y", entry("tool", "a"), parent="x")) == [
        "13:59 peer_tables[1].entries[0].peers[0]: 'a' exceeds ceiling: table 'x' does not list it for 'tool'"
    ]


def test_tables_below_a_ring_are_held_to_the_peers_of_listeners(organism: Organism) -> None:
    below = table("below", entry("tool", "a", "system.buffer"), entry("agent", "tool"), parent="two")
    found = problems(organism, below, table("two", parent="one"), table("one", parent="two"))
    assert [problem.partition(" ")[2] for problem in found] == [
        "peer_tables[0].entries[0].peers[1]: 'system.buffer' exceeds ceiling: the YAML peers of 'tool' do not allow it",
        "peer_tables[0].entries[1].peers[0]: 'tool' exceeds ceiling: table 'two' does not list it for 'agent'",
        "peer_tables[1].parent: Circular peer table parent chain: 'two' -> 'one' -> 'two'",
    ]
    (problem,) = problems(organism, *(table(name, parent=p) for name, p in [("c", "b"), ("a", "b"), ("b", "a")]))
    assert problem == "13:21 peer_tables[1].parent: Circular peer table parent chain: 'a' -> 'b' -> 'a'"


def test_a_peer_that_is_listed_twice_is_no_problem(organism: Organism) -> None:
    assert problems(organism, table("x", entry("agent", "a", "a"))) == []


def test_a_long_ring_is_told_in_one_line(organism: Organism) -> None:
    (problem,) = problems(organism, *(table(f"t{number}", parent=f"t{(number + 1) % 50}") for number in range(50)))
    assert problem.endswith("'t0' -> 't1' -> 't2' -> 't3' -> 't4' -> 't5' -> ... -> 't0'")


# -- in Python -------------------------------------------------------------------------------------------------------


def listener(name: str, **changes: Any) -> ListenerConfig:
    return ListenerConfig(name=name, payload_class_path="a.B", handler_path="a.b", **changes)


def refused(make: Any, **arguments: Any) -> list[str]:
    with pytest.raises(InvalidConfiguration) as caught:
        make(**arguments)
    return str(caught.value).splitlines()


def test_a_table_has_the_documented_fields_and_defaults() -> None:
    assert PeerTableConfig(name="x").model_dump() == {"name": "x", "peers": {}, "parent": None}
    assert PeerTableConfig(name="x", peers={"a": ("b",), "c": {"d"}}).peers == {"a": ["b"], "c": ["d"]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nmae": 1}, "nmae: unknown key, did you mean 'name'?"),
        ({"name": ""}, "name: a name must not be empty"),
        ({"parent": 5}, "parent: must be text, not 5"),
        ({"peers": []}, "peers: must be a mapping of listeners' names to lists of names"),
        ({"peers": {"a": "b"}}, "peers: must be a mapping of listeners' names to lists of names"),
        ({"peers": {"a": None}}, "peers: must be a mapping of listeners' names to lists of names"),
        ({"peers": {"a": [5]}}, "peers: must be a mapping of listeners' names to lists of names"),
        ({"peers": {5: []}}, "peers: must be a mapping of listeners' names to lists of names"),
    ],
)
def test_a_wrong_argument_is_refused(changes: dict[str, Any], problem: str) -> None:
    assert refused(PeerTableConfig, **{"name": "x", **changes}) == [problem]


def test_a_table_does_not_change() -> None:
    with pytest.raises(InvalidConfiguration, match="name: cannot be changed"):
        PeerTableConfig(name="x").name = "y"


def test_rules_between_tables_hold_in_programs_too() -> None:
    listeners = [listener("agent", is_agent=True, peers=["a"]), listener("a")]

    def make(*tables: PeerTableConfig) -> list[str]:
        return refused(OrganismConfig, name="o", listeners=listeners, peer_tables=list(tables))

    one = PeerTableConfig(name="x", peers={"agent": ["a"]})
    config = OrganismConfig(name="o", listeners=listeners, peer_tables=[one])
    assert config.peer_tables == [one]
    assert make(one, one) == ["peer_tables[1].name: a peer table called 'x' is already registered, see peer_tables[0]"]
    assert make(PeerTableConfig(name="x", parent="y")) == [
        "peer_tables[0].parent: 'y' is referenced as parent but not defined"
    ]
    assert make(PeerTableConfig(name="x", parent="x")) == [
        "peer_tables[0].parent: Circular peer table parent chain: 'x' -> 'x'"
    ]
    assert make(PeerTableConfig(name="x", peers={"agent": ["a", "later"]})) == [
        "peer_tables[0].peers.agent[1]: 'later' exceeds ceiling: the YAML peers of 'agent' do not allow it"
    ]


def test_listeners_of_a_program_may_be_registered_later() -> None:
    tables = [PeerTableConfig(name="x", peers={"later": ["a"]}), PeerTableConfig(name="y", peers={"later": ["a"]})]
    assert OrganismConfig(name="o", peer_tables=tables).peer_tables == tables
    child = PeerTableConfig(name="z", peers={"later": ["a", "b"]}, parent="x")
    assert refused(OrganismConfig, name="o", peer_tables=[*tables, child]) == [
        "peer_tables[2].peers.later[1]: 'b' exceeds ceiling: table 'x' does not list it for 'later'"
    ]
    unlisted = PeerTableConfig(name="z", peers={"other": ["a"]}, parent="x")
    assert OrganismConfig(name="o", peer_tables=[*tables, unlisted]).peer_tables[-1] is unlisted


# -- the rule, said in another way -----------------------------------------------------------------------------------

NAMES = ["agent", "tool", "bound", "system.todo", "system.buffer"]
peers_of_a_listener = st.none() | st.lists(st.sampled_from(NAMES), max_size=4)
lists = st.dictionaries(st.sampled_from(NAMES[:3]), st.lists(st.sampled_from(NAMES), max_size=2), max_size=2)


def is_allowed(caller: ListenerFacts, peer: str, chain: list[dict[str, list[str]]]) -> bool:
    """A peer must be allowed by every table on the chain, and by the listener's own peers."""
    if peer == caller.name or (caller.is_agent and peer == "system.todo"):
        return True
    for peers in chain:
        listed = peers.get(str(caller.name))
        if listed is None and not caller.is_agent and caller.peers is None:
            continue
        if peer not in (listed or []):
            return False
    if caller.peers is None:
        return not caller.is_agent and not peer.startswith("system.")
    return peer in caller.peers


@given(
    st.tuples(peers_of_a_listener, peers_of_a_listener, peers_of_a_listener),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.lists(st.tuples(lists, st.integers(0, 5)), max_size=5),
)
@settings(max_examples=300, deadline=None)
def test_a_ceiling_is_kept_if_every_table_and_the_listener_allow_each_peer(
    peers: tuple[list[str] | None, ...], agents: tuple[bool, ...], chosen: list[tuple[dict[str, list[str]], int]]
) -> None:
    callers = [
        ListenerFacts(index, name, is_agent=agent, peers=None if own is None else tuple(own))
        for index, (name, agent, own) in enumerate(zip(NAMES, agents, peers, strict=False))
    ]
    # a parent is any table before, or none
    parents = [None if number >= index else f"t{number}" for index, (_, number) in enumerate(chosen)]
    tables = [
        PeerTableConfig(name=f"t{index}", peers=entries, parent=parents[index])
        for index, (entries, _) in enumerate(chosen)
    ]
    fine = True
    for index, one in enumerate(tables):
        chain, parent = [], parents[index]
        while parent is not None:
            above = int(parent[1:])
            chain.append(tables[above].peers)
            parent = parents[above]
        fine &= all(
            is_allowed(caller, peer, chain) for caller in callers for peer in one.peers.get(str(caller.name), ())
        )
    found = check_peer_tables(
        [one.facts(index) for index, one in enumerate(tables)], callers, Hints(), frozenset(NAMES)
    )
    assert (not found) is fine, found

    running: Any = {
        caller.name: SimpleNamespace(name=caller.name, is_agent=caller.is_agent, peers=caller.peers, is_system=False)
        for caller in callers
    }
    try:
        PeerTables().prepare(tables, running)
    except ValueError as error:
        assert "exceeds ceiling" in str(error)
        assert not fine
    else:
        assert fine, "what starts the pump must be what the file may say"


def test_thousands_of_tables_are_checked_quickly(organism: Organism) -> None:
    parents = ["null", *(f"t{number}" for number in range(2999))]
    tables = "".join(f"- {table(f't{n}', entry('agent', 'a', 'b'), parent=p)}\n" for n, p in enumerate(parents))
    begin = time.process_time()
    report = organism.report(LISTENERS + tables)
    assert time.process_time() - begin < 5.0
    assert report.config is not None
    assert len(report.config.peer_tables) == 3000
