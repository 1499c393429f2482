"""`xml_pipeline.message_bus.routing`: who gets a message, decided once, by exact names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline import StreamPump
from xml_pipeline.errors import ConfigurationError, RoutingError
from xml_pipeline.message_bus.listener import Listener, make_generic_listener, make_listener
from xml_pipeline.message_bus.routing import RoutingTable

from .helpers import Ask, Note, Reply, echo


def tool(name: str, *classes: type, broadcast: bool | str = False) -> Listener:
    return make_listener(name, echo, classes or (Ask,), broadcast=broadcast)


def names(listeners: tuple[Listener, ...] | list[Listener]) -> list[str]:
    return [listener.name for listener in listeners]


def test_routes_stand_under_lower_name_dot_lower_class() -> None:
    table = RoutingTable([tool("calculator.add", Ask, Note), tool("My-Tool", Reply)])
    assert set(table.routes) == {"calculator.add.ask", "calculator.add.note", "my-tool.reply"}
    assert names(table.routes["calculator.add.note"]) == ["calculator.add"]
    assert make_listener("my-tool", echo, Ask).root_tag == "my-tool.ask"


def test_names_and_element_names_match_exactly() -> None:
    table = RoutingTable([tool("Calc", Ask)])
    assert names(table.resolve("Calc", "Ask")) == ["Calc"]
    for to, element in (
        ("calc", "Ask"),
        ("CALC", "Ask"),
        ("Calc", "ask"),
        ("Calc ", "Ask"),
        ("Cal", "Ask"),
        ("", "Ask"),
    ):
        with pytest.raises(RoutingError):
            table.resolve(to, element)


def test_a_name_and_a_class_that_make_the_same_key_are_not_confused() -> None:
    """`a.b` taking `C` and `a` taking a class `B.C` cannot exist; `a.ask` and `a` taking Ask do, and stay apart."""
    table = RoutingTable([tool("a", Ask), tool("a.ask", Note)])
    assert names(table.resolve("a", "Ask")) == ["a"]
    assert names(table.resolve("a.ask", "Note")) == ["a.ask"]
    with pytest.raises(RoutingError):
        table.resolve("a.ask", "Ask")


@pytest.mark.parametrize(("first", "second"), [("tool", "tool"), ("tool", "Tool"), ("straße", "STRAßE"), ("é", "É")])
def test_names_that_are_equal_in_lower_case_collide(first: str, second: str) -> None:
    with pytest.raises(ConfigurationError, match="registered already"):
        RoutingTable([tool(first), tool(second, Note)])


def test_a_generic_listener_gets_every_class() -> None:
    table = RoutingTable([make_generic_listener("join", echo), tool("tool")])
    assert names(table.resolve("join", "Anything")) == ["join"]
    with pytest.raises(RoutingError):
        table.resolve("tool", "Anything")


def test_groups_are_resolved_by_name_and_by_the_only_class() -> None:
    table = RoutingTable(
        [
            tool("a.x", Ask, broadcast=True),
            tool("a.y", Ask, broadcast=True),
            tool("b.x", Note, broadcast="notes"),
            tool("c"),
        ]
    )
    assert names(table.resolve("a", "Ask")) == ["a.x", "a.y"]
    assert names(table.resolve(None, "Ask")) == ["a.x", "a.y"]
    assert names(table.resolve(None, "Note")) == ["b.x"]
    assert names(table.resolve("a.x", "Ask")) == ["a.x"]
    for to, element in ((None, "Reply"), ("a", "Note"), ("notes", "Ask"), ("A", "Ask")):
        with pytest.raises(RoutingError):
            table.resolve(to, element)
    assert names(table.routes["a.ask"]) == ["a.x", "a.y"]


def test_a_class_of_two_groups_needs_a_name() -> None:
    table = RoutingTable([tool("a.x", broadcast=True), tool("b.x", broadcast=True)])
    with pytest.raises(RoutingError):
        table.resolve(None, "Ask")


def test_groups_that_are_equal_in_lower_case_collide() -> None:
    with pytest.raises(ConfigurationError):
        RoutingTable([tool("one", broadcast="crowd"), tool("two", broadcast="Crowd")])


def test_the_text_of_a_refusal_is_the_same_for_every_cause() -> None:
    table = RoutingTable([tool("known"), tool("a.x", broadcast=True)])
    texts, details = set(), set()
    for to, element in (("unknown", "Ask"), ("known", "Note"), ("a", "Note"), (None, "Note"), ("knwon", "Ask")):
        with pytest.raises(RoutingError) as caught:
            table.resolve(to, element)
        texts.add(str(caught.value))
        details.add(caught.value.detail)
    assert len(texts) == 1
    assert len(details) == 5
    assert any("did you mean 'known'" in detail for detail in details)


def test_a_changed_table_is_a_new_one() -> None:
    old = RoutingTable([tool("one")])
    new = old.with_listener(tool("two", Note))
    assert (list(old.listeners), list(new.listeners)) == (["one"], ["one", "two"])
    assert list(new.without("one").listeners) == ["two"]
    assert list(new.listeners) == ["one", "two"]
    with pytest.raises(TypeError):
        old.listeners["x"] = tool("x")  # type: ignore[index]
    with pytest.raises(TypeError):
        old.routes["x"] = []  # type: ignore[index]


@given(st.lists(st.text(min_size=1, max_size=8), unique_by=str.lower, max_size=12), st.text(max_size=8))
def test_a_table_finds_what_was_put_in_and_nothing_else(known: list[str], asked: str) -> None:
    listeners = []
    for name in known:
        try:
            listeners.append(tool(name))
        except ConfigurationError:
            continue  # not a name, or reserved
    table = RoutingTable(listeners)
    for listener in listeners:
        assert table.resolve(listener.name, "Ask") == (listener,)
    if asked not in table.listeners:
        with pytest.raises(RoutingError):
            table.resolve(asked, "Ask")


# --- through the pump -------------------------------------------------------------------------------------------------


def test_register_gives_the_listener_and_puts_it_into_the_views() -> None:
    pump = StreamPump()
    listener = pump.register("my-tool", echo, Ask, agent=True, peers=["other"])
    assert listener.root_tag == "my-tool.ask"
    assert pump.listeners["my-tool"] is listener
    assert pump.routing_table["my-tool.ask"] == [listener]
    assert listener.peers == ["other"]
    assert "my-tool" in pump.agent_semaphores
    with pytest.raises(TypeError):
        pump.listeners["x"] = listener  # type: ignore[index]


def plain(payload: object, metadata: object) -> None:
    """Not a coroutine function."""


@pytest.mark.parametrize(
    ("register", "error"),
    [
        (lambda pump: pump.register("tool", plain, Ask), TypeError),
        (lambda pump: pump.register_generic_listener("tool", plain), TypeError),
        (lambda pump: pump.register("taken", echo, Note), ConfigurationError),
        (lambda pump: pump.register("TAKEN", echo, Note), ConfigurationError),
        (lambda pump: pump.register_generic_listener("Taken", echo), ConfigurationError),
        (lambda pump: pump.register("", echo, Ask), ConfigurationError),
        (lambda pump: pump.register(" padded", echo, Ask), ConfigurationError),
        (lambda pump: pump.register("bell\x07", echo, Ask), ConfigurationError),
        (lambda pump: pump.register("tool", echo, Ask, peers="other"), TypeError),
        (lambda pump: pump.register("tool", echo, Ask, timeout=0), ConfigurationError),
        (lambda pump: pump.register("tool", echo, Ask, concurrency=0), ConfigurationError),
    ],
)
def test_a_registration_that_is_refused_changes_nothing(
    register: Callable[[StreamPump], object], error: type[Exception]
) -> None:
    pump = StreamPump()
    pump.register("taken", echo, Ask)
    before = dict(pump.routing_table)
    with pytest.raises(error):
        register(pump)
    assert list(pump.listeners) == ["taken"]
    assert dict(pump.routing_table) == before
