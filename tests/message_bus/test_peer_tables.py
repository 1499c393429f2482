"""`xml_pipeline.message_bus.peer_tables`: registering, ceilings, changing, loading; and what pumps make of them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from xml_pipeline import StreamPump
from xml_pipeline.config import OrganismConfig, PeerTableConfig
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.message_bus.events import ReloadEvent
from xml_pipeline.message_bus.listener import Listener, make_listener
from xml_pipeline.message_bus.peer_tables import PeerTable, PeerTables, get_peer_tables
from xml_pipeline.runtime import Runtime, use_runtime

from .helpers import Ask, audited, echo

ALL = ["a", "b", "c"]


def listeners(**peers: list[str] | None) -> dict[str, Listener]:
    return {name: make_listener(name, echo, Ask, agent=True, peers=listed) for name, listed in peers.items()}


@pytest.fixture
def tables() -> PeerTables:
    """One agent ``me`` with the peers a, b and c; a tool ``tool`` without, and one ``bound`` with a."""
    known = listeners(me=ALL, mute=None)
    known["tool"] = make_listener("tool", echo, Ask)
    known["bound"] = make_listener("bound", echo, Ask, peers=["a"])
    return PeerTables(lambda: known)


def config(name: str, peers: Mapping[str, Iterable[str]] | None = None, parent: str | None = None) -> PeerTable:
    """What the loader gives, as far as tables look at it."""
    return PeerTable(name, {key: tuple(names) for key, names in (peers or {}).items()}, parent)


# -- registering


def test_a_table_is_kept_as_it_was_given(tables: PeerTables) -> None:
    given = {"me": ["b", "a", "b"], "mute": []}
    table = tables.register_peer_table("t", given)
    given["me"].append("c")
    assert table == PeerTable("t", {"me": ("b", "a"), "mute": ()})
    assert tables.tables == {"t": table}
    assert "t" in tables
    assert "T" not in tables
    with pytest.raises(TypeError):
        tables.tables["x"] = table  # type: ignore[index]
    with pytest.raises(TypeError):
        table.peers["me"] = ("c",)  # type: ignore[index]


@pytest.mark.parametrize("peers", [{}, {"me": []}, {"nobody there": []}, {"me": ["a"]}, {"me": ALL}])
def test_what_is_within_the_listeners_own_peers_is_accepted(tables: PeerTables, peers: dict[str, list[str]]) -> None:
    tables.register_peer_table("t", peers)


@pytest.mark.parametrize(
    ("name", "peers", "told"),
    [
        ("me", ["a", "x"], "'x' exceeds ceiling of its own peers, which are 'a', 'b', 'c'"),
        ("me", ["A"], "'A' exceeds ceiling"),
        ("mute", ["a"], "'a' exceeds ceiling of its own peers, which are nobody"),
        ("stranger", ["a"], "'a' exceeds ceiling of its own peers, which is not registered"),
        ("bound", ["a", "b"], "'b' exceeds ceiling"),
        ("tool", ["a", "system.boot"], "'system.boot' exceeds ceiling"),
    ],
)
def test_what_is_beyond_them_is_refused(tables: PeerTables, name: str, peers: list[str], told: str) -> None:
    with pytest.raises(ValueError, match="exceeds ceiling") as caught:
        tables.register_peer_table("t", {"me": ["a"], name: peers})
    assert told in str(caught.value)
    assert "'t'" in str(caught.value)
    assert not tables.tables


@pytest.mark.parametrize(("name", "peer"), [("me", "me"), ("mute", "mute"), ("me", "system.todo"), ("tool", "any")])
def test_what_a_listener_may_call_anyway_may_be_listed(tables: PeerTables, name: str, peer: str) -> None:
    tables.register_peer_table("t", {name: [peer]})
    tables.register_peer_table("below", {name: [peer]}, parent="t")


def test_a_name_is_taken_once(tables: PeerTables) -> None:
    tables.register_peer_table("t", {"me": ["a"]})
    with pytest.raises(KeyError, match="already registered"):
        tables.register_peer_table("t", {})
    assert tables.tables["t"].peers == {"me": ("a",)}
    tables.register_peer_table("T", {})  # another name


def test_a_parent_must_be_registered(tables: PeerTables) -> None:
    with pytest.raises(KeyError, match="Parent table 'p' not registered"):
        tables.register_peer_table("t", {}, parent="p")
    with pytest.raises(KeyError, match="Parent table 't' not registered"):
        tables.register_peer_table("t", {}, parent="t")
    assert not tables.tables


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        (("", {}), ValueError, "must not be empty"),
        ((" t", {}), ValueError, "white space"),
        (("t\n", {}), ValueError, "white space"),
        (("t\nu", {}), ValueError, "U+000A"),
        ((3, {}), TypeError, "must be text"),
        ((None, {}), TypeError, "must be text"),
        (("t", []), TypeError, "must map"),
        (("t", None), TypeError, "must map"),
        (("t", {"me": "abc"}), TypeError, "'me'"),
        (("t", {"me": None}), TypeError, "'me'"),
        (("t", {"me": {"a": 1}}), TypeError, "'me'"),
        (("t", {"me": ["a", 3]}), TypeError, "3"),
        (("t", {3: ["a"]}), TypeError, "3"),
        (("t", {}, 3), TypeError, "parent"),
    ],
)
def test_what_is_no_table_is_refused(tables: PeerTables, arguments: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error) as caught:
        tables.register_peer_table(*arguments)
    assert told in str(caught.value)
    assert not tables.tables


# -- parents


def test_a_table_lies_within_its_parent(tables: PeerTables) -> None:
    tables.register_peer_table("parent", {"me": ["a", "b"]})
    tables.register_peer_table("equal", {"me": ["a", "b"]}, parent="parent")
    tables.register_peer_table("less", {"me": ["b"]}, parent="parent")
    tables.register_peer_table("nothing", {"me": []}, parent="parent")
    with pytest.raises(ValueError, match="exceeds ceiling of table 'parent', which has 'a', 'b'"):
        tables.register_peer_table("more", {"me": ["a", "c"]}, parent="parent")
    assert "more" not in tables


def test_a_grandchild_is_limited_by_its_parent_and_not_by_its_grandparent(tables: PeerTables) -> None:
    tables.register_peer_table("one", {"me": ALL})
    tables.register_peer_table("two", {"me": ["a", "b"]}, parent="one")
    tables.register_peer_table("three", {"me": ["a"]}, parent="two")
    with pytest.raises(ValueError, match="exceeds ceiling of table 'two'"):
        tables.register_peer_table("four", {"me": ["c"]}, parent="two")
    with pytest.raises(ValueError, match="exceeds ceiling of table 'three'"):
        tables.register_peer_table("four", {"me": ["b"]}, parent="three")


def test_a_parent_without_an_entry_allows_nobody(tables: PeerTables) -> None:
    """Who has no entry reaches nobody under the parent, and must not reach more under its child."""
    tables.register_peer_table("parent", {})
    for name in ("me", "bound", "stranger"):
        with pytest.raises(ValueError, match="exceeds ceiling of table 'parent', which has nobody"):
            tables.register_peer_table("t", {name: ["a"]}, parent="parent")
    tables.register_peer_table("t", {"me": []}, parent="parent")


def test_for_a_tool_without_peers_a_table_without_an_entry_is_no_restriction(tables: PeerTables) -> None:
    tables.register_peer_table("top", {"tool": ["x", "y"]})
    tables.register_peer_table("silent", {}, parent="top")
    tables.register_peer_table("t", {"tool": ["x"]}, parent="silent")
    with pytest.raises(ValueError, match="exceeds ceiling of table 'top'"):
        tables.register_peer_table("u", {"tool": ["z"]}, parent="silent")


# -- changing


def test_granting_revoking_and_granting_again(tables: PeerTables) -> None:
    tables.register_peer_table("t", {"me": ["a"]})
    assert tables.modify_peer_table("t", "me", grant=["b"]) == ["a", "b"]
    assert tables.modify_peer_table("t", "me", revoke=["a"]) == ["b"]
    assert tables.modify_peer_table("t", "me", grant=["a"]) == ["b", "a"]
    assert tables.modify_peer_table("t", "me", grant=["a", "c"], revoke=["b", "c"]) == ["a"]
    assert tables.tables["t"].peers == {"me": ("a",)}


def test_what_is_there_or_not_there_already_is_left_alone(tables: PeerTables) -> None:
    before = tables.register_peer_table("t", {"me": ["a"]})
    for change in ({}, {"grant": ["a"]}, {"revoke": ["b"]}, {"revoke": ["never heard of"]}, {"grant": []}):
        assert tables.modify_peer_table("t", "me", **change) == ["a"]  # type: ignore[arg-type]
    assert tables.tables["t"] is before


def test_the_last_peer_revoked_leaves_nobody_and_not_everybody(tables: PeerTables) -> None:
    tables.register_peer_table("t", {"me": ["a"], "tool": ["a"]})
    for name in ("me", "tool"):
        assert tables.modify_peer_table("t", name, revoke=["a"]) == []
        assert tables.tables["t"].peers[name] == ()


def test_what_is_returned_is_what_is_reached_also_by_a_tool_that_had_no_entry(tables: PeerTables) -> None:
    tables.register_peer_table("t", {})
    tool = tables._listeners()["tool"]
    assert tables.modify_peer_table("t", "tool") == []
    assert tables.refused_by("t", tool, "b") is None
    assert tables.modify_peer_table("t", "tool", grant=["a"]) == ["a"]
    assert (tables.refused_by("t", tool, "a"), tables.refused_by("t", tool, "b")) == (None, "t")


@pytest.mark.parametrize("change", [{"grant": ["b", "x"]}, {"grant": ["x"], "revoke": ["a"]}])
def test_a_grant_beyond_the_ceiling_changes_nothing(tables: PeerTables, change: Any) -> None:
    before = tables.register_peer_table("t", {"me": ["a"]})
    with pytest.raises(ValueError, match="exceeds ceiling"):
        tables.modify_peer_table("t", "me", **change)
    assert tables.tables["t"] is before


def test_a_grant_is_bounded_by_the_parent_as_it_is_now(tables: PeerTables) -> None:
    tables.register_peer_table("parent", {"me": ["a"]})
    tables.register_peer_table("t", {"me": []}, parent="parent")
    with pytest.raises(ValueError, match="exceeds ceiling of table 'parent'"):
        tables.modify_peer_table("t", "me", grant=["b"])
    tables.modify_peer_table("parent", "me", grant=["b"])
    assert tables.modify_peer_table("t", "me", grant=["b"]) == ["b"]


def test_a_change_of_an_unknown_table_is_refused(tables: PeerTables) -> None:
    with pytest.raises(KeyError, match="'t' is not registered"):
        tables.modify_peer_table("t", "me", revoke=["a"])


@pytest.mark.parametrize("change", [{"grant": "a"}, {"revoke": "a"}, {"grant": ""}, {"revoke": 3}, {"grant": [3]}])
def test_a_change_must_be_lists_of_names(tables: PeerTables, change: Any) -> None:
    before = tables.register_peer_table("t", {"me": ["a"]})
    with pytest.raises(TypeError):
        tables.modify_peer_table("t", "me", **change)
    with pytest.raises(TypeError):
        tables.modify_peer_table("t", 3, grant=["a"])  # type: ignore[arg-type]
    assert tables.tables["t"] is before


def test_a_change_is_told_and_gives_the_chain_another_version(tables: PeerTables) -> None:
    told: list[tuple[str, str, bool]] = []
    tables.on_modified = lambda *each: told.append(each)
    tables.register_peer_table("parent", {"me": ["a", "b"]})
    tables.register_peer_table("t", {"me": ["a"]}, parent="parent")
    versions = [tables.versions("t")]
    tables.modify_peer_table("t", "me", grant=["b"])
    versions.append(tables.versions("t"))
    tables.modify_peer_table("parent", "me", revoke=["b"])
    versions.append(tables.versions("t"))
    tables.modify_peer_table("parent", "me", revoke=["b"])
    assert tables.versions("t") == versions[-1]
    tables.modify_peer_table("parent", "me", revoke=["a"])
    versions.append(tables.versions("t"))
    assert len(set(versions)) == 4
    assert told == [("t", "me", True), *(("parent", "me", changed) for changed in (True, False, True))]
    with pytest.raises(ValueError, match="ceiling"):
        tables.modify_peer_table("t", "me", grant=["c"])
    assert len(told) == 4


# -- removing


def test_a_table_is_removed_once_and_can_be_registered_anew(tables: PeerTables) -> None:
    tables.register_peer_table("t", {"me": ["a"]})
    before = tables.versions("t")
    assert tables.remove_peer_table("t")
    assert not tables.remove_peer_table("t")
    assert tables.refused_by("t", tables._listeners()["me"], "a") == "t"
    assert tables.versions("t") == (0,)
    tables.register_peer_table("t", {"me": ["a"]})
    assert tables.refused_by("t", tables._listeners()["me"], "a") is None
    assert tables.versions("t") != before


def test_a_parent_is_not_removed(tables: PeerTables) -> None:
    tables.register_peer_table("t", {})
    tables.register_peer_table("u", {}, parent="t")
    with pytest.raises(ValueError, match="'t' is the parent of 'u'"):
        tables.remove_peer_table("t")
    assert "t" in tables


def test_a_table_that_is_gone_is_logged_once_each_time_it_goes(
    tables: PeerTables, caplog: pytest.LogCaptureFixture
) -> None:
    me = tables._listeners()["me"]
    for _ in range(2):
        tables.register_peer_table("t", {"me": ["a"]})
        tables.remove_peer_table("t")
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            assert tables.refused_by("t", me, "a") == "t"
            assert tables.refused_by("t", me, "b") == "t"
        assert [record.getMessage() for record in caplog.records] == [
            "peer table 't' is gone; in conversations under it nobody may call anybody (said once)"
        ]


# -- loading


def test_the_order_of_configurations_does_not_matter(tables: PeerTables) -> None:
    configs = [config("one", {"me": ALL}), config("two", {"me": ["a", "b"]}, "one"), config("three", {}, "two")]
    for order in itertools.permutations(configs):
        tables.load(order)
        assert {name: table.parent for name, table in tables.tables.items()} == {
            "one": None,
            "two": "one",
            "three": "two",
        }
        assert all(table.configured for table in tables.tables.values())


def test_loading_replaces_what_was_loaded_and_leaves_what_was_registered(tables: PeerTables) -> None:
    mine = tables.register_peer_table("mine", {"me": ["a"]})
    tables.load([config("old", {"me": ["a"]}), config("kept", {"me": ["a"]}, "mine")])
    tables.modify_peer_table("kept", "me", revoke=["a"])
    tables.load([config("kept", {"me": ["a"]}, "mine"), config("new")])
    assert set(tables.tables) == {"mine", "kept", "new"}
    assert tables.tables["mine"] is mine
    assert tables.tables["kept"].peers == {"me": ("a",)}  # as the file says
    tables.load([])
    assert set(tables.tables) == {"mine"}


@pytest.mark.parametrize(
    ("configs", "error", "told"),
    [
        ([config("a", parent="a")], ValueError, "Circular peer table parent chain: 'a' -> 'a'"),
        (
            [config("a", parent="c"), config("b", parent="a"), config("c", parent="b")],
            ValueError,
            "Circular peer table parent chain",
        ),
        ([config("x", parent="a"), config("a", parent="a")], ValueError, "Circular peer table parent chain"),
        ([config("a", parent="nowhere")], KeyError, "peer table 'nowhere' is referenced as parent but not defined"),
        ([config("a"), config("a")], KeyError, "peer table 'a' is already registered"),
        ([config("mine")], KeyError, "peer table 'mine' is already registered"),
        ([config("a", {"me": ["x"]})], ValueError, "exceeds ceiling"),
        ([config("a", {"me": ["b"]}, "mine")], ValueError, "exceeds ceiling of table 'mine'"),
        ([config("b", {"me": ["c"]}, "a"), config("a", {"me": ["b"]})], ValueError, "exceeds ceiling of table 'a'"),
        ([config("a", {"stranger": ["x"]})], ValueError, "exceeds ceiling"),
    ],
)
def test_all_are_loaded_or_none(
    tables: PeerTables, configs: list[PeerTable], error: type[Exception], told: str
) -> None:
    tables.register_peer_table("mine", {"me": ["a"]})
    tables.load([config("old", {"me": ["b"]})])
    before = tables.tables
    with pytest.raises(error) as caught:
        tables.load([config("fine", {"me": ["a"]}), *configs])
    assert told in caught.value.args[0]
    assert tables.tables == before


def test_what_is_below_a_table_that_the_file_no_longer_has_is_closed(tables: PeerTables) -> None:
    tables.load([config("old", {"me": ["a"]})])
    tables.register_peer_table("mine", {"me": ["a"]}, parent="old")
    me = tables._listeners()["me"]
    tables.load([])
    assert tables.refused_by("mine", me, "a") == "old"
    with pytest.raises(ValueError, match="exceeds ceiling of table 'old'"):
        tables.modify_peer_table("mine", "me", grant=["a"])
    with pytest.raises(ValueError, match="Circular peer table parent chain: 'old' -> 'mine' -> 'old'"):
        tables.register_peer_table("old", {}, parent="mine")
    with pytest.raises(ValueError, match="Circular"):
        tables.load([config("old", {}, "mine")])
    tables.load([config("old", {"me": ["a", "b"]})])
    assert tables.refused_by("mine", me, "a") is None


def test_a_chain_may_be_long(tables: PeerTables) -> None:
    count = 5_000
    tables.load(config(f"t{i}", {"me": ["a"]}, f"t{i - 1}" if i else None) for i in reversed(range(count)))
    me = tables._listeners()["me"]
    assert tables.refused_by(f"t{count - 1}", me, "a") is None
    tables.modify_peer_table("t0", "me", revoke=["a"])
    assert tables.refused_by(f"t{count - 1}", me, "a") == "t0"


# -- in a pump


def test_each_pump_has_its_own() -> None:
    one, two = StreamPump(), StreamPump()
    one.register_peer_table("t", {})
    with use_runtime(one.runtime):
        assert get_peer_tables().tables == one.peer_tables == {"t": PeerTable("t", {})}
    with use_runtime(two.runtime):
        assert get_peer_tables().tables == two.peer_tables == {}
    with use_runtime(Runtime()):
        assert get_peer_tables().tables == {}
        with pytest.raises(ValueError, match="exceeds ceiling"):
            get_peer_tables().register_peer_table("t", {"anybody": ["x"]})


async def test_a_change_is_an_event() -> None:
    pump = StreamPump()
    pump.register("me", echo, Ask, agent=True, peers=["a", "b"])
    async with audited(pump) as audit:
        pump.register_peer_table("t", {"me": ["a"]})
        assert pump.modify_peer_table("t", "me", grant=["b"], revoke=["a"]) == ["b"]
        assert pump.modify_peer_table("t", "me", revoke=["a"]) == ["b"]
        await audit.idle()
    told = [event for event in audit.events if isinstance(event, ReloadEvent)]
    assert [(event.success, event.updated_listeners, event.error) for event in told] == [
        (True, ["me"], None),
        (True, [], None),
    ]


async def test_configured_tables_are_registered_at_the_start_and_follow_reloads(tmp_path: Any) -> None:
    path = tmp_path / "organism.yaml"
    listed = "{handler: tests.message_bus.helpers.echo, payload_class: tests.message_bus.helpers.Ask, description: x, "

    def write(tables: str, peers: str = "[tool]") -> None:
        path.write_text(
            "organism: {name: x}\nlisteners:\n"
            f"  - {listed}name: me, agent: true, peers: {peers}}}\n  - {listed}name: tool}}\n"
            f"peer_tables:\n{tables}"
        )

    entry = "entries: [{listener: me, peers: [tool]}]"
    write(f"  - {{name: low, parent: top, {entry}}}\n  - {{name: top, {entry}}}\n")
    pump = await StreamPump.from_yaml(str(path))
    pump.register_peer_table("mine", {"me": ["tool"]}, parent="top")
    assert pump.peer_tables["low"] == PeerTable("low", {"me": ("tool",)}, "top", True)
    before = pump.peer_tables

    write(f"  - {{name: mine, {entry}}}\n")
    event = pump.reload_config()
    assert not event.success
    assert event.error == "peer_tables: peer table 'mine' is already registered"
    assert (pump.peer_tables, pump.listeners["me"].peers) == (before, ["tool"])

    write("  - {name: top, entries: []}\n", peers="[]")
    assert pump.reload_config().success
    assert {name: dict(table.peers) for name, table in pump.peer_tables.items()} == {
        "mine": {"me": ("tool",)},
        "top": {},
    }
    await pump.shutdown(0)


async def test_a_pump_does_not_start_with_tables_that_do_not_fit_its_listeners() -> None:
    """Those of a program are known only then."""
    pump = StreamPump(OrganismConfig(name="x", peer_tables=[PeerTableConfig(name="t", peers={"me": ["a"]})]))
    with pytest.raises(ConfigurationError, match="peer table 't': for listener 'me', 'a' exceeds ceiling"):
        await pump.start()
    assert not pump.peer_tables
    assert "system.boot" not in pump.listeners
    pump.register("me", echo, Ask, agent=True, peers=["a"])
    async with audited(pump):
        assert set(pump.peer_tables) == {"t"}
