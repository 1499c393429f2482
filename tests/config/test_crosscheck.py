from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.config.crosscheck import ListenerFacts, check_listeners
from xml_pipeline.config.problems import Hints
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.message_bus.listener import make_listener
from xml_pipeline.message_bus.routing import RoutingTable

KNOWN = frozenset({"system.todo", "system.boot"})


def facts(*listeners: dict[str, Any]) -> list[ListenerFacts]:
    return [ListenerFacts(**{"index": index, "classes": ("a.B",), **one}) for index, one in enumerate(listeners)]


def problems(*listeners: dict[str, Any], known: frozenset[str] | None = KNOWN) -> list[str]:
    return [str(problem) for problem in check_listeners(facts(*listeners), Hints(), known)[0]]


def warnings(*listeners: dict[str, Any]) -> list[str]:
    return [str(warning) for warning in check_listeners(facts(*listeners), Hints(), KNOWN)[1]]


def test_different_names_are_fine() -> None:
    assert problems({"name": "a"}, {"name": "a.b"}, {"name": "é"}, {"name": "e"}) == []


def test_a_name_is_taken_once_whatever_its_case() -> None:
    assert problems({"name": "Calc"}, {"name": "x"}, {"name": "calc"}, {"name": "Calc"}) == [
        "listeners[2].name: the name 'calc' is taken by listeners[0], 'Calc' but for case",
        "listeners[3].name: the name 'Calc' is taken by listeners[0]",
    ]


@pytest.mark.parametrize("name", ["external", "mesh:x", "system", "system.mine"])
def test_reserved_names_are_refused(name: str) -> None:
    (problem,) = problems({"name": name})
    assert problem.startswith("listeners[0].name: ")
    assert "reserved" in problem


def test_peers_are_listeners_groups_and_built_in_listeners() -> None:
    assert (
        problems(
            {"name": "a", "peers": ("b", "group", "search", "system.todo", "a")},
            {"name": "b", "broadcast": "group"},
            {"name": "search.web", "broadcast": True},
        )
        == []
    )


def test_an_unknown_peer_is_refused_with_the_nearest_known_one() -> None:
    assert problems({"name": "search", "peers": ("system.todo", "serch", "zzz", "Search", "system.tod")}) == [
        "listeners[0].peers[1]: no listener or group is called 'serch', did you mean 'search'?",
        "listeners[0].peers[2]: no listener or group is called 'zzz'",
        "listeners[0].peers[3]: no listener or group is called 'Search', did you mean 'search'?",
        "listeners[0].peers[4]: no listener or group is called 'system.tod', did you mean 'system.todo'?",
    ]


def test_peers_can_be_left_alone() -> None:
    assert problems({"name": "a", "peers": ("later",)}, known=None) == []


def test_parts_that_are_wrong_in_themselves_are_left_alone() -> None:
    assert problems({"name": None, "broadcast": True}, {"name": "a", "peers": (None, "a"), "classes": None}) == []


def test_the_classes_of_a_listener_have_different_names() -> None:
    assert problems({"name": "a", "classes": ("x.A", "y:B")}, {"name": "b", "classes": ("x.A",)}) == []
    assert problems({"name": "a", "classes": ("x.Note", "y:note")}, {"name": "b", "classes": (int, int)}) == [
        "listeners[0].payload_class: two classes of one listener are called 'note' and 'Note', "
        "which is the same but for case",
        "listeners[1].payload_class: two classes of one listener are called 'int'",
    ]


def test_a_group_may_have_several_members_of_one_class() -> None:
    assert (
        problems(
            {"name": "search.a", "broadcast": True, "classes": ("x.A", "x.B")},
            {"name": "search.b", "broadcast": True, "classes": ("x.B", "x.A")},
            {"name": "other", "broadcast": "search", "classes": ("x.A", "x.B")},
        )
        == []
    )


@pytest.mark.parametrize(
    ("listeners", "expected"),
    [
        (
            [{"name": "a", "broadcast": True}],
            ["listeners[0].broadcast: true needs a dotted name, e.g. 'group.member'; or name the group"],
        ),
        (
            [{"name": "Search"}, {"name": "search.web", "broadcast": True}],
            ["listeners[1].broadcast: the group 'search' is called like listeners[0]; a group needs a name of its own"],
        ),
        (
            [{"name": "a", "broadcast": "a"}],
            ["listeners[0].broadcast: the group 'a' is called like listeners[0]; a group needs a name of its own"],
        ),
        (
            [{"name": "a", "broadcast": "All"}, {"name": "b", "broadcast": "all"}],
            ["listeners[1].broadcast: the group 'all' is 'All' but for case"],
        ),
        (
            [{"name": "a", "broadcast": "external"}],
            ["listeners[0].broadcast: the name 'external' is reserved for senders outside the organism"],
        ),
        (
            [{"name": "a", "broadcast": "g"}, {"name": "b", "broadcast": "g", "classes": ("a.C",)}],
            [
                "listeners[1].broadcast: all listeners of the group 'g' must accept the same payload class, "
                "unlike listeners[0]"
            ],
        ),
    ],
)
def test_a_group_that_does_not_fit_is_refused(listeners: list[dict[str, Any]], expected: list[str]) -> None:
    assert problems(*listeners) == expected


def test_no_listeners_are_worth_a_warning() -> None:
    assert warnings() == ["listeners: the organism has no listeners"]


def test_an_agent_that_does_not_say_its_peers_is_worth_a_warning() -> None:
    (warning,) = warnings(
        {"name": "a", "is_agent": True},
        {"name": "b", "is_agent": True, "peers": ()},
        {"name": "c"},
    )
    assert warning.startswith("listeners[0]: an agent without 'peers' reaches nobody")


def test_an_agent_that_is_not_known_to_be_one_is_not_warned_about() -> None:
    assert warnings({"name": "a", "is_agent": None}) == []


# -- the same rules when a program registers listeners -------------------------------------------------------------


@dataclass
class Note:
    text: str = ""


@dataclass
class Order:
    count: int = 0


class Outer:
    @dataclass
    class Note:
        """Another class of the same name."""

        text: str = ""


note = make_dataclass("note", [("text", str, "")])
cases = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["g.a", "G.a", "g.b", "g", "h.a", "a", "external", "system.x", "mesh:a"]),
        "classes": st.lists(st.sampled_from([Note, Order, Outer.Note, note]), min_size=1, max_size=3).map(tuple),
        "broadcast": st.sampled_from([False, False, True, "g", "G", "h", "a", "system"]),
    }
)


async def handle(payload: Any, metadata: Any) -> None:
    return None


@given(st.lists(cases, max_size=3))
def test_a_file_may_say_what_a_program_may_register(listeners: list[dict[str, Any]]) -> None:
    found = problems(*listeners, known=None)
    try:
        RoutingTable(
            make_listener(one["name"], handle, one["classes"], broadcast=one["broadcast"]) for one in listeners
        )
    except ConfigurationError as error:
        assert found, error
    else:
        assert found == []


def test_two_classes_collide_in_lower_case_wherever_they_are_given() -> None:
    assert problems({"name": "a", "classes": (Note, note)}) == [
        "listeners[0].payload_class: two classes of one listener are called 'note' and 'Note', "
        "which is the same but for case"
    ]
    with pytest.raises(ConfigurationError, match="named 'note' and 'Note', which is the same but for case"):
        make_listener("a", handle, (Note, note))
    with pytest.raises(ConfigurationError, match=r"two payload classes named 'Note'$"):
        make_listener("a", handle, (Note, Outer.Note))


def test_members_of_a_group_may_name_their_classes_in_any_order() -> None:
    one = make_listener("g.a", handle, (Note, Order), broadcast=True)
    table = RoutingTable([one, make_listener("g.b", handle, (Order, Note), broadcast=True)])
    assert [each.name for each in table.resolve("g", "Order")] == ["g.a", "g.b"]
