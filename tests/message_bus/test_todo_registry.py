"""`xml_pipeline.message_bus.todo_registry`: watchers, and when they are raised."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tests.examples import examples
from xml_pipeline.message_bus.todo_registry import TodoRegistry, TodoWatcher, get_todo_registry
from xml_pipeline.runtime import Runtime, use_runtime


@pytest.fixture
def registry() -> TodoRegistry:
    return TodoRegistry()


def test_a_new_watcher_is_stored_in_lower_case_and_not_raised(registry: TodoRegistry) -> None:
    watcher_id = registry.register("c", "Concierge", "ShoutedResponse", "Shouter", "wait for it")
    watcher = registry.get(watcher_id)
    assert watcher == TodoWatcher(watcher_id, "c", "Concierge", "shoutedresponse", "shouter", "wait for it")
    assert not watcher.eyebrow_raised
    assert registry._by_id == {watcher_id: watcher}
    assert registry._watchers == {"c": [watcher]}
    assert registry.active
    assert registry.has_watchers("c")
    assert not registry.has_watchers("d")


def test_a_match_raises_and_records_sender_and_payload(registry: TodoRegistry) -> None:
    registry.register("c", "concierge", "ShoutedResponse")
    payload = object()
    (raised,) = registry.check("c", "shoutedRESPONSE", "Shouter", payload)
    assert raised.eyebrow_raised
    assert raised.triggered_from == "Shouter"
    assert raised.triggered_by is payload


@pytest.mark.parametrize(
    ("thread", "payload_type", "sender"),
    [
        ("d", "Response", "shouter"),
        ("c", "ErrorResponse", "shouter"),
        ("c", "Respons", "shouter"),
        ("c", "", "shouter"),
        ("c", "Response", "other"),
    ],
)
def test_other_threads_types_and_senders_do_not_match(
    registry: TodoRegistry, thread: str, payload_type: str, sender: str
) -> None:
    registry.register("c", "concierge", "Response", "shouter")
    assert registry.check(thread, payload_type, sender) == []


def test_without_a_sender_anybody_matches_and_only_once(registry: TodoRegistry) -> None:
    registry.register("c", "concierge", "Response", "")
    assert len(registry.check("c", "Response", "anybody")) == 1
    assert registry.check("c", "Response", "anybody") == []


@pytest.mark.parametrize("nothing", ["", "  \n"])
def test_waiting_for_nothing_is_refused(registry: TodoRegistry, nothing: str) -> None:
    with pytest.raises(ValueError, match="wait_for"):
        registry.register("c", "concierge", nothing)
    assert not registry.active


def test_watchers_of_several_issuers_on_one_thread_are_independent(registry: TodoRegistry) -> None:
    a = registry.register("c", "Anna", "Report")
    b = registry.register("c", "Bert", "Invoice")
    registry.check("c", "Report", "clerk")
    assert [w.id for w in registry.get_raised_for("c", "ANNA")] == [a]
    assert registry.get_pending_for("c", "anna") == []
    assert registry.get_raised_for("c", "bert") == []
    assert [w.id for w in registry.get_pending_for("c", "bert")] == [b]
    assert registry.get_raised_for("d", "anna") == []


def test_close_removes_and_drops_the_empty_thread(registry: TodoRegistry) -> None:
    first = registry.register("c", "concierge", "A")
    second = registry.register("c", "concierge", "B")
    assert registry.close(first)
    assert registry.has_watchers("c")
    assert registry.close(second)
    assert registry._watchers == {}
    assert not registry.active
    assert not registry.close(second)
    assert not registry.close("unknown")


def test_only_the_issuer_closes_a_watcher(registry: TodoRegistry) -> None:
    watcher_id = registry.register("c", "Anna", "Report")
    assert not registry.close(watcher_id, issuer="bert")
    assert registry.get(watcher_id) is not None
    assert registry.close(watcher_id, issuer="anna")


def test_close_all_for_thread_counts(registry: TodoRegistry) -> None:
    for kind in "AB":
        registry.register("c", "concierge", kind)
    other = registry.register("d", "concierge", "A")
    assert registry.close_all_for_thread("c") == 2
    assert registry.close_all_for_thread("c") == 0
    assert list(registry._by_id) == [other]


def test_closing_while_walking_over_what_check_returned(registry: TodoRegistry) -> None:
    for _ in range(3):
        registry.register("c", "concierge", "A")
    for watcher in registry.check("c", "A", "x"):
        assert registry.close(watcher.id)
    assert not registry.active


def test_clear(registry: TodoRegistry) -> None:
    registry.register("c", "concierge", "A")
    registry.clear()
    assert not registry.active
    assert not registry.has_watchers("c")


def test_no_nudge_without_watchers(registry: TodoRegistry) -> None:
    assert registry.format_nudge([]) == ""


def test_the_nudge_says_what_came_from_whom_and_how_to_close_it(registry: TodoRegistry) -> None:
    first = registry.register("c", "concierge", "ShoutedResponse", None, "tell the user")
    second = registry.register("c", "concierge", "Invoice")
    registry.check("c", "ShoutedResponse", "Shouter")
    registry.check("c", "Invoice", "clerk")
    nudge = registry.format_nudge(registry.get_raised_for("c", "concierge"))
    for expected in ("SYSTEM NOTE", "shoutedresponse", "Shouter", "tell the user", "invoice", "clerk", "TodoComplete"):
        assert expected in nudge
    assert nudge.index(first) < nudge.index(second)
    assert nudge.count("SYSTEM NOTE") == 1


def test_the_accessor_gives_each_runtime_its_own_registry() -> None:
    one, other = Runtime(), Runtime()
    with use_runtime(one):
        mine = get_todo_registry()
        assert get_todo_registry() is mine
    with use_runtime(other):
        assert get_todo_registry() is not mine


@dataclass
class Model:
    """A watcher, as the description has it."""

    thread: str
    issuer: str
    kind: str
    sender: str
    raised: bool = field(default=False)


threads = st.sampled_from(["c1", "c2"])
names = st.sampled_from(["Anna", "anna", "bert"])
kinds = st.sampled_from(["Response", "RESPONSE", "ErrorResponse", "Invoice"])


class TodoMachine(RuleBasedStateMachine):
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.registry = TodoRegistry()
        self.model: dict[str, Model] = {}

    @rule(target=ids, thread=threads, issuer=names, kind=kinds, sender=st.one_of(st.just(""), names))
    def register(self, thread: str, issuer: str, kind: str, sender: str) -> str:
        watcher_id = self.registry.register(thread, issuer, kind, sender)
        self.model[watcher_id] = Model(thread, issuer, kind, sender)
        return watcher_id

    @rule(thread=threads, kind=kinds, sender=names)
    def check(self, thread: str, kind: str, sender: str) -> None:
        expected = [
            watcher_id
            for watcher_id, m in self.model.items()
            if not m.raised
            and (m.thread, m.kind.lower()) == (thread, kind.lower())
            and m.sender.lower() in ("", sender.lower())
        ]
        assert [w.id for w in self.registry.check(thread, kind, sender)] == expected
        for watcher_id in expected:
            self.model[watcher_id].raised = True

    @rule(watcher_id=consumes(ids))
    def close(self, watcher_id: str) -> None:
        assert self.registry.close(watcher_id) == (self.model.pop(watcher_id, None) is not None)

    @rule(watcher_id=ids, issuer=names)
    def close_as(self, watcher_id: str, issuer: str) -> None:
        mine = watcher_id in self.model and self.model[watcher_id].issuer.lower() == issuer.lower()
        assert self.registry.close(watcher_id, issuer) == mine
        if mine:
            del self.model[watcher_id]

    @rule(thread=threads)
    def complete(self, thread: str) -> None:
        gone = [watcher_id for watcher_id, m in self.model.items() if m.thread == thread]
        assert self.registry.close_all_for_thread(thread) == len(gone)
        for watcher_id in gone:
            del self.model[watcher_id]

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert set(self.registry._by_id) == set(self.model)
        assert self.registry.active == bool(self.model)
        for thread in ("c1", "c2"):
            here = {watcher_id: m for watcher_id, m in self.model.items() if m.thread == thread}
            assert self.registry.has_watchers(thread) == bool(here)
            for agent in ("anna", "BERT"):
                mine = {watcher_id: m for watcher_id, m in here.items() if m.issuer.lower() == agent.lower()}
                raised = [w.id for w in self.registry.get_raised_for(thread, agent)]
                pending = [w.id for w in self.registry.get_pending_for(thread, agent)]
                assert raised == [watcher_id for watcher_id, m in mine.items() if m.raised]
                assert pending == [watcher_id for watcher_id, m in mine.items() if not m.raised]


TestTodoMachine = TodoMachine.TestCase
TestTodoMachine.settings = settings(max_examples=examples(40), deadline=None)
