from __future__ import annotations

from typing import Any

import pytest

from xml_pipeline.config.crosscheck import ListenerFacts, check_listeners
from xml_pipeline.config.problems import Hints

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
        "listeners[0].payload_class: two classes of one listener are called 'note'",
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
